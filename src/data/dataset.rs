//! Reads a dataset directory, or a JSON or JSONL file of another tool. Opening a dataset checks all of it, so that no error surfaces hours into a
//! run.

use super::manifest::{MANIFEST, Manifest};
use super::{IMAGE_PLACEHOLDER, METADATA, OpenStream, Record, RecordStream, STREAM, jsonl, source};
use crate::io::plain::json_fault;
use crate::io::{files, hex};
use crate::rng::Rng;
use crate::{Error, Result};
use image::RgbImage;
use rand::seq::SliceRandom;
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

/// Bytes of an image file read first for its size; most formats hold it there.
const HEADER_BYTES: u64 = 16 << 10;

/// One split of a dataset: its records in memory and its images on disk, or both made as they are asked for.
#[derive(Debug)]
pub struct Dataset {
    pub(super) root: PathBuf,
    pub(super) manifest: Manifest,
    pub(super) records: Vec<Record>,
    /// Makes the records, where none are stored.
    pub(super) stream: Option<Box<dyn RecordStream>>,
    /// The file of the records, and the place of each in it; of a mixture no file, and places with theirs.
    pub(super) file: PathBuf,
    pub(super) places: Vec<String>,
    /// The file is another tool's.
    pub(super) is_foreign: bool,
    /// Images embedded in that file, by name.
    pub(super) embedded: HashMap<String, Vec<u8>>,
    pub(super) note: Option<String>,
}

impl Dataset {
    /// Open `dir/split`, or `dir` itself if it holds `metadata.jsonl`; or, if `dir` is a file `*.jsonl` or `*.json`, the conversations of
    /// another tool in it (LLaMA-Factory, ms-swift, TRL, Alpaca), which are of any split. An input error names file, line and field of what is
    /// wrong: no manifest (unfinished), fewer records than it says, an id twice, a missing image, images that do not match
    /// the placeholders, an unknown role.
    pub fn open(dir: &Path, split: &str) -> Result<Self> {
        Dataset::open_with(dir, split, |path| {
            Err(Error::input(format!(
                "{}: its records are made as they are needed; they are not stored",
                path.display()
            )))
        })
    }

    /// As [`Dataset::open`], with what opens a split whose records are made as they are needed.
    ///
    /// # Errors
    /// Also for a description that is not the one which the manifest knows.
    pub fn open_with(dir: &Path, split: &str, open_stream: OpenStream) -> Result<Self> {
        if jsonl::is_jsonl(dir) {
            return Dataset::of_file(dir);
        }
        let (root, manifest) = locate(dir, split)?;
        if root.join(STREAM).is_file() {
            return Dataset::of_stream(root, manifest, open_stream);
        }
        let path = root.join(METADATA);
        let text = files::read_text(&path)?;
        let mut records = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        for (i, line) in text.lines().enumerate() {
            let place = || format!("{}:{}", path.display(), i + 1);
            let record: Record =
                serde_json::from_str(line).map_err(|e| Error::input(format!("{}: {}", place(), json_fault(&e))))?;
            check(&record, &root).map_err(|e| e.context(place()))?;
            if let Some(first) = lines.insert(record.id.clone(), i + 1) {
                return Err(Error::input(format!(
                    "{}: field `id`: `{}` is already the id of line {first}",
                    place(),
                    record.id
                )));
            }
            records.push(record);
        }
        if records.is_empty() {
            return Err(Error::input(format!("{} holds no records", path.display())));
        }
        let split = root.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(expected) = manifest.splits.get(&split).map(|s| s.records)
            && expected != records.len()
        {
            return Err(Error::input(format!(
                "{} holds {} records, but the dataset's {MANIFEST} says {expected}: the file was changed or cut off",
                path.display(),
                records.len()
            )));
        }
        let places = (1..=records.len()).map(|line| line.to_string()).collect();
        let embedded = HashMap::new();
        let (stream, is_foreign) = (None, false);
        Ok(Dataset { root, manifest, records, stream, file: path, places, is_foreign, embedded, note: None })
    }

    fn of_stream(root: PathBuf, manifest: Manifest, open_stream: OpenStream) -> Result<Self> {
        let file = root.join(STREAM);
        let split = root.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let known = manifest.splits.get(&split).map(|summary| &summary.sha256);
        if known != Some(&hex(&Sha256::digest(files::read(&file)?))) {
            return Err(Error::input(format!(
                "{}: not the file that the dataset's {MANIFEST} knows: it was changed; make the dataset again",
                file.display()
            )));
        }
        let (stream, embedded) = (Some(open_stream(&file)?), HashMap::new());
        let (records, places) = (Vec::new(), Vec::new());
        Ok(Dataset { root, manifest, records, stream, file, places, is_foreign: false, embedded, note: None })
    }

    fn of_file(file: &Path) -> Result<Self> {
        let jsonl::Contents { records, places, embedded, manifest, multi_turn, images_first } = jsonl::open(file)?;
        let of = |count: usize, what: &str| {
            (count > 0).then(|| format!("{count} of {} conversations in {} {what}", records.len(), file.display()))
        };
        let notes: Vec<String> = [
            of(
                multi_turn,
                "have several answers: only the last one is learnt and scored, those before it are part of the prompt",
            ),
            of(
                images_first,
                "name images and have no `<image>` in their turns: the images come before the first text of the user",
            ),
        ]
        .into_iter()
        .flatten()
        .collect();
        let note = (!notes.is_empty()).then(|| notes.join("\n"));
        let root = file.parent().unwrap_or(Path::new("")).to_path_buf();
        let (stream, file) = (None, file.to_path_buf());
        Ok(Dataset { root, manifest, records, stream, file, places, is_foreign: true, embedded, note })
    }

    /// Only `count` of the records, drawn at random, in file order; all of them where there are no more. From the same random stream a smaller
    /// number's records are among those of a larger one.
    pub fn sampled(mut self, count: usize, rng: &mut Rng) -> Dataset {
        if count >= self.records.len() {
            return self;
        }
        let mut order: Vec<usize> = (0..self.records.len()).collect();
        order.shuffle(rng);
        let kept: HashSet<usize> = order.into_iter().take(count).collect();
        let mut i = 0..;
        self.retain(|_| i.next().is_some_and(|i| kept.contains(&i)));
        self
    }

    /// A note for the user on how the records were read.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The encoded image of this name, if it is embedded in the file of the records.
    pub fn embedded(&self, name: &str) -> Option<&[u8]> {
        self.embedded.get(name).map(Vec::as_slice)
    }

    /// The records that are stored, in file order; none of a split whose records are made as they are needed.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// What makes the records, where they are made as they are needed.
    pub fn stream(&self) -> Option<&dyn RecordStream> {
        self.stream.as_deref()
    }

    /// Record `i`, stored or made.
    ///
    /// # Errors
    /// A failure for a number that there is not; an input error if a record cannot be made.
    pub fn record(&self, i: usize) -> Result<Cow<'_, Record>> {
        match (&self.stream, self.records.get(i)) {
            (Some(stream), _) if i < stream.count() => stream.record(i).map(Cow::Owned),
            (None, Some(record)) => Ok(Cow::Borrowed(record)),
            _ => Err(Error::failed(format!("example {i} of a dataset of {} was asked for", self.len()))),
        }
    }

    /// The images of record `i`, in the order of its placeholders.
    ///
    /// # Errors
    /// An input error for an image that cannot be read or made.
    pub fn images(&self, i: usize) -> Result<Vec<RgbImage>> {
        match &self.stream {
            Some(stream) => stream.images(i),
            None => self.load_images(&*self.record(i)?),
        }
    }

    /// Go on with these records alone. The manifest stays that of all.
    pub fn retain(&mut self, mut keep: impl FnMut(&Record) -> bool) {
        let all = std::mem::take(&mut self.records).into_iter().zip(std::mem::take(&mut self.places));
        (self.records, self.places) = all.filter(|(record, _)| keep(record)).unzip();
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.stream.as_ref().map_or(self.records.len(), |stream| stream.count())
    }

    /// Always false: opening a dataset without records is an error.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
        match self.places.get(i) {
            Some(place) if self.file.as_os_str().is_empty() => place.clone(),
            Some(place) => format!("{}:{place}", self.file.display()),
            None => self.file.display().to_string(),
        }
    }

    /// Where each image of stored record `i` is: the path of its file, or `file:line` if it is embedded in the file of the records.
    pub fn image_places(&self, i: usize) -> Vec<String> {
        let place = |name: &String| match self.embedded(name) {
            Some(_) => format!("{}:{}", files::absolute(&self.file).display(), self.places[i]),
            None => files::absolute(&self.root.join(name)).display().to_string(),
        };
        self.records.get(i).map_or_else(Vec::new, |record| record.images.iter().map(place).collect())
    }

    /// Whether the records are those of another tool's file.
    pub fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// Decode the images of a record, in the order of its placeholders.
    pub fn load_images(&self, record: &Record) -> Result<Vec<RgbImage>> {
        self.map_images(record, source::decode)
    }

    /// Width and height of the images of a record, from their headers. Reads only the beginning of a file if it holds the size.
    pub fn image_sizes(&self, record: &Record) -> Result<Vec<(u32, u32)>> {
        let told = record.images.iter().map(|name| self.size_from_header(name));
        match told.collect::<Option<Vec<_>>>() {
            Some(sizes) => Ok(sizes),
            None => self.map_images(record, source::probe),
        }
    }

    fn size_from_header(&self, name: &str) -> Option<(u32, u32)> {
        if self.embedded(name).is_some() {
            return None;
        }
        let mut start = Vec::with_capacity(HEADER_BYTES as usize);
        files::open_regular(&self.root.join(name)).ok()?.take(HEADER_BYTES).read_to_end(&mut start).ok()?;
        source::probe_header(&start).ok()
    }

    /// SHA-256 of the image files of a record.
    pub fn image_digests(&self, record: &Record) -> Result<Vec<[u8; 32]>> {
        self.map_images(record, |bytes| Ok(Sha256::digest(bytes).into()))
    }

    fn map_images<T>(&self, record: &Record, look: impl Fn(&[u8]) -> Result<T, String>) -> Result<Vec<T>> {
        let one = |name: &String| {
            let path = self.root.join(name);
            let bytes = match self.embedded(name) {
                Some(bytes) => Cow::Borrowed(bytes),
                None => Cow::Owned(files::read(&path)?),
            };
            look(&bytes).map_err(|reason| {
                let place = match self.embedded(name) {
                    Some(_) => format!("{}: {name}", self.file.display()),
                    None => path.display().to_string(),
                };
                Error::input(format!("{place} (image of record `{}`): {reason}", record.id))
            })
        };
        record.images.iter().map(one).collect()
    }
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

fn check(record: &Record, root: &Path) -> Result<()> {
    let bad = |message: String| Err(Error::input(message));
    if record.id.is_empty() {
        return bad("field `id` is empty".into());
    }
    for (i, message) in record.messages.iter().enumerate() {
        if !["system", "user", "assistant"].contains(&message.role.as_str()) {
            return bad(format!(
                "field `messages[{i}].role`: `{}` is not one of system, user, assistant",
                message.role
            ));
        }
    }
    if record.prompt().is_empty() {
        return bad("field `messages` holds no prompt".into());
    }
    let placeholders: usize = record.prompt().iter().map(|m| m.content.matches(IMAGE_PLACEHOLDER).count()).sum();
    if placeholders != record.images.len() {
        return bad(format!(
            "field `images` names {}, but the prompt has {placeholders} `{IMAGE_PLACEHOLDER}` placeholder(s)",
            record.images.len()
        ));
    }
    if record.images.first().is_some_and(|first| *first != record.file_name) {
        return bad(format!("field `file_name`: `{}` is not the first of `images`", record.file_name));
    }
    for name in &record.images {
        if !Path::new(name).components().all(|c| matches!(c, Component::Normal(_))) {
            return bad(format!("field `images`: `{name}` is not a path inside the dataset"));
        }
        if !root.join(name).is_file() {
            return bad(format!("field `images`: there is no file {}", root.join(name).display()));
        }
    }
    Ok(())
}

/// Whether a path names what [`Dataset::open`] reads, a directory or a `.jsonl` or `.json` file, rather than the file of a benchmark.
pub fn is_dataset(path: &Path) -> bool {
    path.is_dir() || jsonl::is_jsonl(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

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
            sampled.records().iter().map(|record| record.prompt()[0].content.clone()).collect()
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
