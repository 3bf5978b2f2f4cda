//! Reads a dataset directory, or a JSON or JSONL file of another tool. Opening a dataset looks at every record of it, so that no error surfaces
//! hours into a run, and keeps only where each one stands: a record is read again when it is asked for.

use super::image_sizes::ImageSizes;
use super::jsonl;
use super::manifest::{MANIFEST, Manifest};
use super::own_records::OwnRecords;
use super::stored_records::{Embedded, StoredRecords};
use super::{Inspection, METADATA, OpenStream, Record, RecordStream, STREAM, Seen, source};
use crate::io::{files, hex};
use crate::rng::Rng;
use crate::{Error, Result};
use image::RgbImage;
use rand::seq::SliceRandom;
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// One split of a dataset: its records and images on disk, or both made as they are asked for.
#[derive(Debug)]
pub struct Dataset {
    root: PathBuf,
    manifest: Manifest,
    records: Records,
    sizes: ImageSizes,
}

/// Where records come from.
#[derive(Debug)]
pub(super) enum Records {
    /// Stored ones.
    Stored(Box<dyn StoredRecords>),
    /// Made as they are asked for, as the file says.
    Made(Box<dyn RecordStream>, PathBuf),
}

impl Dataset {
    /// Open `dir/split`, or `dir` itself if it holds `metadata.jsonl`; or, if `dir` is a file `*.jsonl` or `*.json`, the conversations of
    /// another tool in it (LLaMA-Factory, ms-swift, TRL, Alpaca), which are of any split. An input error names file, line and field of what is
    /// wrong: no manifest (unfinished), fewer records than it says, an id twice, a missing image, images that do not match
    /// the placeholders, an unknown role.
    pub fn open(dir: &Path, split: &str) -> Result<Self> {
        let not_stored: OpenStream = |path| {
            Err(Error::input(format!(
                "{}: its records are made as they are needed; they are not stored",
                path.display()
            )))
        };
        Dataset::open_with(dir, split, not_stored, Inspection::NONE)
    }

    /// As [`Dataset::open`], with what opens a split whose records are made as they are needed, and with what looks at each stored record.
    ///
    /// # Errors
    /// Also what the inspection's `check` finds, and a description of records that is not the one which the manifest knows.
    pub fn open_with(dir: &Path, split: &str, open_stream: OpenStream, inspection: Inspection<'_>) -> Result<Self> {
        if jsonl::is_jsonl(dir) {
            let found = jsonl::open(dir, inspection)?;
            let root = dir.parent().unwrap_or(Path::new("")).to_path_buf();
            return Ok(Dataset::of(root, found.manifest.clone(), Records::Stored(Box::new(found))));
        }
        let (root, manifest) = locate(dir, split)?;
        let made = root.join(STREAM);
        let records = match made.is_file() {
            true => open_made(made, &root, &manifest, open_stream)?,
            false => Records::Stored(Box::new(OwnRecords::open(&root, &manifest, inspection)?)),
        };
        Ok(Dataset::of(root, manifest, records))
    }

    /// A dataset of these records, whose paths are relative to `root`.
    pub(super) fn of(root: PathBuf, manifest: Manifest, records: Records) -> Dataset {
        Dataset { root, manifest, records, sizes: ImageSizes::default() }
    }

    /// Only `count` of the stored records, drawn at random, in file order; all of them where there are no more. From the same random stream a
    /// smaller number's records are among those of a larger one.
    pub fn sampled(mut self, count: usize, rng: &mut Rng) -> Dataset {
        if count >= self.len() {
            return self;
        }
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(rng);
        let kept: HashSet<usize> = order.into_iter().take(count).collect();
        self.retain(|i| kept.contains(&i));
        self
    }

    /// A note for the user on how the records were read.
    pub fn note(&self) -> Option<String> {
        match &self.records {
            Records::Stored(records) => records.note(),
            Records::Made(..) => None,
        }
    }

    /// What makes the records, where they are made as they are needed.
    pub fn stream(&self) -> Option<&dyn RecordStream> {
        match &self.records {
            Records::Stored(_) => None,
            Records::Made(stream, _) => Some(stream.as_ref()),
        }
    }

    /// All records, one after another.
    pub fn records(&self) -> impl Iterator<Item = Result<Record>> + '_ {
        (0..self.len()).map(|i| self.record(i))
    }

    /// Record `i`, read or made.
    ///
    /// # Errors
    /// A failure for a number that there is not; an input error if the file was changed since it was opened, or a record cannot be made.
    pub fn record(&self, i: usize) -> Result<Record> {
        self.read(i).map(|(record, _)| record)
    }

    /// Record `i`, and those of its images that are in the file of the records itself.
    ///
    /// # Errors
    /// As [`Dataset::record`].
    pub fn read(&self, i: usize) -> Result<(Record, Embedded)> {
        match &self.records {
            _ if i >= self.len() => {
                Err(Error::failed(format!("example {i} of a dataset of {} was asked for", self.len())))
            }
            Records::Stored(records) => records.read(i),
            Records::Made(stream, _) => Ok((stream.record(i)?, Embedded::new())),
        }
    }

    /// Go on with the stored records alone whose numbers `keep` takes. The manifest stays that of all.
    pub fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        if let Records::Stored(records) = &mut self.records {
            records.retain(&keep);
        }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        match &self.records {
            Records::Stored(records) => records.len(),
            Records::Made(stream, _) => stream.count(),
        }
    }

    /// Always false: opening a dataset without records is an error.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first record of each task, in order. Records that are made as they are needed are of one task.
    pub fn first_of_each_task(&self) -> Vec<usize> {
        match &self.records {
            Records::Stored(records) => {
                let mut known = HashSet::new();
                (0..records.len()).filter(|&i| known.insert(records.task(i))).collect()
            }
            Records::Made(..) => vec![0],
        }
    }

    /// The task of stored record `i`.
    pub(super) fn task(&self, i: usize) -> &str {
        match &self.records {
            Records::Stored(records) => records.task(i),
            Records::Made(..) => "",
        }
    }

    /// What opening has seen of record `i`, where that was asked for and the record is stored.
    pub fn seen(&self, i: usize) -> Option<Seen> {
        match &self.records {
            Records::Stored(records) => records.seen(i),
            Records::Made(..) => None,
        }
    }

    /// The dataset's manifest (that of all its splits).
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The directory that record paths are relative to.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `file:line` of record `i`, for messages.
    pub fn place(&self, i: usize) -> String {
        match &self.records {
            Records::Stored(records) => records.place(i),
            Records::Made(_, file) => file.display().to_string(),
        }
    }

    /// Where each image of stored record `i` is: the path of its file, or `file:line` if it is embedded in the file of the records.
    ///
    /// # Errors
    /// As [`Dataset::record`].
    pub fn image_places(&self, i: usize) -> Result<Vec<String>> {
        let (record, embedded) = self.read(i)?;
        let place = |name: &String| match embedded.contains_key(name) {
            true => files::absolute(Path::new(&self.place(i))),
            false => files::absolute(&self.root.join(name)),
        };
        Ok(record.images.iter().map(|name| place(name).display().to_string()).collect())
    }

    /// The images of record `i`, in the order of its placeholders.
    ///
    /// # Errors
    /// An input error for an image that cannot be read or made.
    pub fn images(&self, i: usize) -> Result<Vec<RgbImage>> {
        match self.stream() {
            Some(stream) => stream.images(i),
            None => self.map_images(i, &self.read(i)?, source::decode),
        }
    }

    /// Width and height of the images of record `i`, from their headers. Reads only the beginning of a file if it holds the size.
    pub fn image_sizes(&self, i: usize) -> Result<Vec<(u32, u32)>> {
        if let Some(stream) = self.stream() {
            return Ok(stream.image_sizes(i));
        }
        let read = self.read(i)?;
        let (record, embedded) = &read;
        let told = record.images.iter().map(|name| match embedded.contains_key(name) {
            true => None,
            false => self.sizes.of(&self.root, name),
        });
        match told.collect::<Option<Vec<_>>>() {
            Some(sizes) => Ok(sizes),
            None => self.map_images(i, &read, source::probe),
        }
    }

    /// SHA-256 of the image files of stored record `i`.
    pub fn image_digests(&self, i: usize) -> Result<Vec<[u8; 32]>> {
        self.map_images(i, &self.read(i)?, |bytes| Ok(Sha256::digest(bytes).into()))
    }

    fn map_images<T>(
        &self,
        i: usize,
        (record, embedded): &(Record, Embedded),
        look: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<Vec<T>> {
        let one = |name: &String| {
            let path = self.root.join(name);
            let (bytes, place) = match embedded.get(name) {
                Some(bytes) => (Cow::Borrowed(bytes), format!("{}: {name}", self.place(i))),
                None => (Cow::Owned(files::read(&path)?), path.display().to_string()),
            };
            look(&bytes).map_err(|why| Error::input(format!("{place} (image of record `{}`): {why}", record.id)))
        };
        record.images.iter().map(one).collect()
    }
}

fn open_made(file: PathBuf, root: &Path, manifest: &Manifest, open_stream: OpenStream) -> Result<Records> {
    let split = root.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let known = manifest.splits.get(&split).map(|summary| &summary.sha256);
    if known != Some(&hex(&Sha256::digest(files::read(&file)?))) {
        return Err(Error::input(format!(
            "{}: not the file that the dataset's {MANIFEST} knows: it was changed; make the dataset again",
            file.display()
        )));
    }
    Ok(Records::Made(open_stream(&file)?, file))
}

/// The directory that holds the split's `metadata.jsonl`, and the manifest that covers it.
fn locate(dir: &Path, split: &str) -> Result<(PathBuf, Manifest)> {
    files::require_dir(dir, "dataset")?;
    let unfinished = || {
        Error::input(format!(
            "{} has no {MANIFEST}: the dataset is unfinished, its making was interrupted or is under way; make it again \
             (the same `jigsaw gen ...`)",
            dir.display()
        ))
    };
    let has_records = |dir: &Path| [METADATA, STREAM].iter().any(|name| dir.join(name).exists());
    if has_records(dir) {
        let absolute = dir.canonicalize().map_err(|e| Error::input(format!("cannot read {}: {e}", dir.display())))?;
        let here = dir.join(MANIFEST);
        if here.exists() {
            return Ok((dir.to_owned(), files::read_json(&here)?));
        }
        let above = absolute.parent().map(|p| p.join(MANIFEST)).filter(|p| p.is_file()).ok_or_else(unfinished)?;
        let manifest: Manifest = files::read_json(&above)?;
        let name = absolute.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if name != split && manifest.splits.contains_key(&name) {
            return Err(Error::input(format!(
                "{} is the split `{name}`, but `{split}` was asked for; give the directory above it, or ask for `{name}`",
                dir.display()
            )));
        }
        return Ok((absolute, manifest));
    }
    let manifest = dir.join(MANIFEST);
    let root = dir.join(split);
    if !manifest.exists() {
        return Err(if root.is_dir() {
            unfinished()
        } else {
            let hint = match dir.join("config.json").is_file() {
                true => "; it holds a model: are model and data swapped?",
                false => "",
            };
            Error::input(format!("no dataset at {}: neither {MANIFEST} nor {METADATA} is there{hint}", dir.display()))
        });
    }
    let manifest: Manifest = files::read_json(&manifest)?;
    if !has_records(&root) {
        let known: Vec<&str> = manifest.splits.keys().map(String::as_str).collect();
        return Err(Error::input(format!(
            "the dataset {} has no split `{split}`; it has: {}",
            dir.display(),
            known.join(", ")
        )));
    }
    Ok((root, manifest))
}

/// Whether a path names what [`Dataset::open`] reads, a directory or a `.jsonl` or `.json` file, rather than the file of a benchmark.
pub fn is_dataset(path: &Path) -> bool {
    path.is_dir() || jsonl::is_jsonl(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{MixPart, mix, rough_size};
    use crate::rng;

    #[test]
    fn a_bad_record_is_named_by_its_line_and_a_byte_that_is_not_utf_8_by_its_offset() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(MANIFEST), serde_json::to_vec(&Manifest::default()).unwrap()).unwrap();
        let record = |id: usize, role: &str| {
            let turn = serde_json::json!({"role": role, "content": "q"});
            let record = serde_json::json!({
                "id": id.to_string(), "task": "exact", "messages": [turn], "answer": "a", "source": "", "seed": 0
            });
            format!("{record}\n").into_bytes()
        };
        let open = |lines: Vec<Vec<u8>>| {
            std::fs::write(dir.path().join(METADATA), lines.concat()).unwrap();
            Dataset::open(dir.path(), "train")
        };
        let lines = || (0..9000).map(|i| record(i, "user")).collect::<Vec<_>>();
        let data = open(lines()).unwrap();
        assert_eq!((data.len(), data.record(8765).unwrap().id.as_str()), (9000, "8765"));
        assert!(data.place(8765).ends_with("metadata.jsonl:8766"));
        let refusal = |line: Vec<u8>| {
            let mut lines = lines();
            lines[8000] = line;
            open(lines).unwrap_err().to_string()
        };
        assert!(refusal(record(8000, "reader")).contains("metadata.jsonl:8001: field `messages[0].role`"));
        assert!(
            refusal(record(70, "user")).contains("metadata.jsonl:8001: field `id`: `70` is already the id of line 71")
        );
        assert!(refusal(b"\n".to_vec()).contains("metadata.jsonl:8001: column 0: "));
        let before: usize = lines()[..8000].iter().map(Vec::len).sum();
        let refusal = refusal(b"{\"id\": \"\xff\"}\n".to_vec());
        assert!(refusal.ends_with(&format!("is not UTF-8: bad byte at offset {}", before + 8)), "{refusal}");
    }

    #[test]
    fn what_opening_sees_of_records_is_what_reading_them_gives_and_stays_with_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut lines = String::new();
        for i in 0..7u32 {
            let image = RgbImage::new(10 + i, 3);
            std::fs::write(dir.path().join(format!("{i}.png")), crate::data::png::encode(&image).unwrap()).unwrap();
            let names: Vec<String> = (0..i % 3).map(|k| format!("{}.png", (i + k) % 7)).collect();
            let turns = [("user", "<image>".repeat(names.len()) + "\u{e9}?"), ("assistant", "a".repeat(i as usize))];
            let turns = turns.map(|(role, content)| serde_json::json!({"role": role, "content": content}));
            let first = names.first().cloned().unwrap_or_default();
            let record = serde_json::json!({
                "file_name": first, "id": i.to_string(), "task": "exact", "messages": turns, "images": names, "answer": "a",
                "source": "", "seed": 0
            });
            lines += &format!("{record}\n");
        }
        std::fs::write(dir.path().join(MANIFEST), serde_json::to_vec(&Manifest::default()).unwrap()).unwrap();
        std::fs::write(dir.path().join(METADATA), &lines).unwrap();
        let path = dir.path();
        assert_eq!(Dataset::open(path, "train").unwrap().seen(2), None);
        let is_refused: &(dyn Fn(&Record) -> bool + Sync) = &|record| record.id == "4";
        let inspection = Inspection { is_refused: Some(is_refused), ..Inspection::NONE };
        let not_stored: OpenStream = |_| unreachable!();
        let mut data = Dataset::open_with(path, "train", not_stored, inspection).unwrap();
        for kept in [7, 4] {
            for i in 0..kept {
                let (record, seen) = (data.record(i).unwrap(), data.seen(i).unwrap());
                assert_eq!(seen.rough_size(), rough_size(&record, data.image_sizes(i).ok()), "{}", data.place(i));
                assert_eq!(seen.refused, record.id == "4");
            }
            data.retain(|i| i % 2 == 0);
        }
        assert_eq!(data.seen(1).unwrap().rough_size(), (7 + 3 + 4, 14 * 3));
        let part = MixPart { name: "part".into(), dataset: data, weight: 1.0 };
        assert!(mix(vec![part], true).unwrap().seen(1).unwrap().refused);
    }

    #[test]
    fn a_sample_of_records_is_in_file_order_and_holds_the_smaller_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.jsonl");
        let line = |i: usize| {
            format!(
                "{{\"messages\": [{{\"role\": \"user\", \"content\": \"q{i}\"}}, {{\"role\": \"assistant\", \"content\": \"a\"}}]}}\n"
            )
        };
        std::fs::write(&path, (0..30).map(line).collect::<String>()).unwrap();
        let of = |count: usize, seed: u64| -> Vec<String> {
            let sampled =
                Dataset::open(&path, "train").unwrap().sampled(count, &mut rng::stream(seed, "examples", &[]));
            assert!((0..sampled.len()).all(|i| sampled.place(i).contains("data.jsonl:")));
            sampled.records().map(|record| record.unwrap().prompt()[0].content.clone()).collect()
        };
        let (all, ten, four) = (of(30, 1), of(10, 1), of(4, 1));
        assert_eq!((all.len(), ten.len(), four.len(), of(99, 1)), (30, 10, 4, all.clone()));
        let within = |few: &[String], many: &[String]| {
            let mut rest = many.iter();
            few.iter().all(|one| rest.any(|other| other == one))
        };
        assert!(within(&four, &ten) && within(&ten, &all), "{four:?} {ten:?}");
        assert_ne!(of(10, 2), ten);
    }
}
