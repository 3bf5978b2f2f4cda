//! A file of records: an index of where each one stands, and the records themselves read again when they are asked for. The index takes 24 bytes a
//! record, whatever the records hold, and 12 more for training.

use super::{Record, Seen};
use crate::io::files;
use crate::{Error, Result};
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Bytes that are held at once while all records are looked at; more if a line is longer.
pub(super) const BLOCK: usize = 4 << 20;

/// The first half of the SHA-256 of a text: equal for equal texts alone, and shorter than most.
pub(super) type Fingerprint = [u8; 16];

/// The [`Fingerprint`] of a text.
pub(super) fn fingerprint(text: &str) -> Fingerprint {
    let mut half = [0; 16];
    half.copy_from_slice(&Sha256::digest(text)[..16]);
    half
}

/// Where a record stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Bytes before it.
    pub offset: u64,
    bytes: u32,
    /// The line on which it begins, from 1.
    pub line: u32,
    /// Its number in the file's array, from 1; 0 where each line is a record.
    item: u32,
    /// Its task, as a number in [`Index::tasks`].
    task: u32,
}

impl Place {
    /// # Errors
    /// What is too large.
    pub fn new(offset: usize, bytes: usize, line: usize, item: usize) -> std::result::Result<Place, String> {
        let too_much = "a record has more than 2^32 bytes, or the file more than 2^32 lines";
        let small = |number: usize| u32::try_from(number).map_err(|_| too_much.to_string());
        Ok(Place { offset: offset as u64, bytes: small(bytes)?, line: small(line)?, item: small(item)?, task: 0 })
    }

    /// Whether it is an item of an array.
    pub fn is_item(&self) -> bool {
        self.item > 0
    }

    /// Its name in messages, and of a record without an id: `line 3`, or `item 3` of an array.
    pub fn name(&self) -> String {
        match self.item {
            0 => format!("line {}", self.line),
            item => format!("item {item}"),
        }
    }
}

/// The text of a record and where it stands.
pub(super) struct Item<'a> {
    pub place: Place,
    pub text: &'a [u8],
}

/// An open file of records.
#[derive(Debug)]
pub(super) struct RecordFile {
    path: PathBuf,
    file: File,
    /// Length and time of the last change, when it was opened.
    stamp: (u64, Option<SystemTime>),
}

impl RecordFile {
    pub fn open(path: &Path) -> Result<RecordFile> {
        let file = files::open(path)?;
        let stamp = stamp(&file).map_err(|e| cannot_read(path, &e))?;
        Ok(RecordFile { path: path.to_path_buf(), file, stamp })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `file:line` of a record, for messages; in an array with the number of the item.
    pub fn place(&self, place: &Place) -> String {
        let file = self.path.display();
        match place.item {
            0 => format!("{file}:{}", place.line),
            _ => format!("{file}:{}: {}", place.line, place.name()),
        }
    }

    /// Call `each` with all lines in order, some megabytes of them at a time, as long as it returns true.
    pub fn lines(&self, mut each: impl FnMut(Vec<Item<'_>>) -> Result<bool>) -> Result<()> {
        let fail = |e: std::io::Error| cannot_read(&self.path, &e);
        let mut reader = BufReader::with_capacity(1 << 20, self.reopened()?);
        let (mut held, mut lengths) = (Vec::new(), Vec::new());
        let (mut offset, mut line) = (0, 0);
        loop {
            held.clear();
            lengths.clear();
            while held.len() < BLOCK {
                match reader.read_until(b'\n', &mut held).map_err(fail)? {
                    0 => break,
                    length => lengths.push(length),
                }
            }
            let mut items = Vec::with_capacity(lengths.len());
            let mut rest = held.as_slice();
            for &length in &lengths {
                let (text, after) = rest.split_at(length);
                line += 1;
                let place = Place::new(offset, length, line, 0);
                let place = place.map_err(|why| Error::input(format!("{}:{line}: {why}", self.path.display())))?;
                items.push(Item { place, text });
                (offset, rest) = (offset + length, after);
            }
            if lengths.is_empty() || !each(items)? {
                return Ok(());
            }
        }
    }

    /// All of the file.
    pub fn whole(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reopened()?.read_to_end(&mut bytes).map_err(|e| cannot_read(&self.path, &e))?;
        Ok(bytes)
    }

    /// The file once more, so that each reader has a place of its own in it.
    fn reopened(&self) -> Result<File> {
        let file = files::open(&self.path)?;
        let now = stamp(&file).map_err(|e| cannot_read(&self.path, &e))?;
        if now == self.stamp { Ok(file) } else { Err(self.changed()) }
    }

    fn changed(&self) -> Error {
        Error::input(format!(
            "{}: the file was changed while it was in use; start again, and leave it as it is until the end",
            self.path.display()
        ))
    }

    /// The text of a record.
    ///
    /// # Errors
    /// An input error if the file was changed since it was opened, or cannot be read.
    pub fn read(&self, place: &Place) -> Result<Vec<u8>> {
        let mut text = vec![0; place.bytes as usize];
        let fail = |e: std::io::Error| cannot_read(&self.path, &e);
        if stamp(&self.file).map_err(fail)? != self.stamp {
            return Err(self.changed());
        }
        #[cfg(unix)]
        std::os::unix::fs::FileExt::read_exact_at(&self.file, &mut text, place.offset).map_err(fail)?;
        #[cfg(not(unix))]
        {
            let mut file = self.reopened()?;
            let found = std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(place.offset));
            found.and_then(|_| file.read_exact(&mut text)).map_err(fail)?;
        }
        Ok(text)
    }
}

fn stamp(file: &File) -> std::io::Result<(u64, Option<SystemTime>)> {
    let found = file.metadata()?;
    Ok((found.len(), found.modified().ok()))
}

fn cannot_read(path: &Path, e: &std::io::Error) -> Error {
    Error::input(format!("cannot read {}: {e}", path.display()))
}

/// A record as it goes into an [`Index`].
pub(super) struct Entry {
    place: Place,
    id: Fingerprint,
    task: String,
    seen: Option<Seen>,
}

impl Entry {
    pub fn new(place: Place, record: &Record, seen: Option<Seen>) -> Entry {
        Entry { place, id: fingerprint(&record.id), task: record.task.clone(), seen }
    }
}

/// Where the records of a file stand, in file order.
#[derive(Debug, Default)]
pub(super) struct Index {
    places: Vec<Place>,
    /// Of each record, or of none.
    seen: Vec<Seen>,
    tasks: Vec<String>,
    /// Until [`Index::refuse_duplicates`] has looked at them.
    ids: Vec<(Fingerprint, u32)>,
}

impl Index {
    pub fn push(&mut self, Entry { place, id, task, seen }: Entry) {
        let known = self.tasks.iter().position(|name| *name == task);
        let number = known.unwrap_or_else(|| {
            self.tasks.push(task);
            self.tasks.len() - 1
        });
        // There are no more records than lines or items, which are below 2^32.
        self.ids.push((id, self.places.len() as u32));
        self.places.push(Place { task: number as u32, ..place });
        self.seen.extend(seen);
    }

    /// Refuse an id that two records of `file` have. `id` gives the id of the record at a place; `advice` follows the message.
    ///
    /// # Errors
    /// An input error that names the second record, the id and the first record.
    pub fn refuse_duplicates(
        &mut self,
        file: &RecordFile,
        id: impl Fn(&Place) -> Result<String>,
        advice: &str,
    ) -> Result<()> {
        let Some((second, first)) = self.first_duplicate().map(|(i, first)| (self.place(i), self.place(first))) else {
            return Ok(());
        };
        Err(Error::input(format!(
            "{}: field `id`: `{}` is already the id of {}{advice}",
            file.place(second),
            id(second)?,
            first.name()
        )))
    }

    /// The first record whose id another one before it has, and that one.
    fn first_duplicate(&mut self) -> Option<(usize, usize)> {
        let mut ids = std::mem::take(&mut self.ids);
        ids.par_sort_unstable();
        let same = ids.windows(2).filter(|pair| pair[0].0 == pair[1].0);
        same.map(|pair| (pair[1].1 as usize, pair[0].1 as usize)).min()
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn place(&self, i: usize) -> &Place {
        &self.places[i]
    }

    pub fn retain(&mut self, keep: &dyn Fn(usize) -> bool) {
        let (mut i, mut k) = (0.., 0..);
        self.places.retain(|_| i.next().is_some_and(keep));
        self.seen.retain(|_| k.next().is_some_and(keep));
    }

    /// What was seen of record `i`.
    pub fn seen(&self, i: usize) -> Option<Seen> {
        self.seen.get(i).copied()
    }

    /// The task of record `i`.
    pub fn task(&self, i: usize) -> &str {
        &self.tasks[self.places[i].task as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_whatever_their_length_and_read_again_by_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        let lines = ["a".repeat(BLOCK - 3), String::new(), "b".repeat(2 * BLOCK), "c\r".into(), "end".into()];
        std::fs::write(&path, lines.join("\n")).unwrap();
        let file = RecordFile::open(&path).unwrap();
        for _ in 0..2 {
            let mut places = Vec::new();
            let all = |items: Vec<Item<'_>>| {
                places.extend(items.iter().map(|item| item.place));
                Ok(true)
            };
            file.lines(all).unwrap();
            assert_eq!(places.iter().map(|place| place.line).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
            for (place, line) in places.iter().zip(&lines) {
                let text = String::from_utf8(file.read(place).unwrap()).unwrap();
                assert!(text.trim_end_matches('\n') == line, "line {}", place.line);
            }
        }
        std::fs::write(&path, "other").unwrap();
        let error = file.read(&Place::new(0, 2, 1, 0).unwrap()).unwrap_err();
        assert!(
            error.exit_code() == 2 && error.to_string().contains("lines: the file was changed while it was in use"),
            "{error}"
        );
    }

    #[test]
    fn an_index_is_small_and_names_the_first_duplicate() {
        assert_eq!((size_of::<Place>(), size_of::<Seen>()), (24, 12));
        let index = |ids: &[&str]| {
            let mut index = Index::default();
            for (i, id) in ids.iter().enumerate() {
                let task = id[..1].to_string();
                let place = Place::new(i, 1, i + 1, 0).unwrap();
                index.push(Entry { place, id: fingerprint(id), task, seen: None });
            }
            index
        };
        assert_eq!(index(&["a1", "b1", "a2"]).first_duplicate(), None);
        let mut twice = index(&["z1", "b1", "a1", "b1", "z1", "b1"]);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "").unwrap();
        let file = RecordFile::open(&dir.path().join("f")).unwrap();
        let error = twice.refuse_duplicates(&file, |place| Ok(place.line.to_string()), "; mend it").unwrap_err();
        assert!(error.to_string().ends_with("f:4: field `id`: `4` is already the id of line 2; mend it"), "{error}");
        let mut some = index(&["b1", "a1", "b2", "c1", "a2"]);
        some.retain(&|i| i > 1);
        assert_eq!((some.len(), some.place(0).line, [0, 1, 2].map(|i| some.task(i))), (3, 3, ["b", "c", "a"]));
    }
}
