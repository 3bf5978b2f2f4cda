//! The records of a `metadata.jsonl`, one a line.

use super::image_sizes::ImageSizes;
use super::manifest::{MANIFEST, Manifest};
use super::record_file::{Entry, Index, Item, Place, RecordFile};
use super::stored_records::{Embedded, StoredRecords};
use super::{IMAGE_PLACEHOLDER, Inspection, METADATA, Record, Seen};
use crate::io::plain::json_fault;
use crate::{Error, Result};
use rayon::prelude::*;
use std::path::{Component, Path};

#[derive(Debug)]
pub(super) struct OwnRecords {
    file: RecordFile,
    index: Index,
}

impl OwnRecords {
    /// Look at all records of the split in `root`, which `manifest` is of.
    ///
    /// # Errors
    /// An input error with file, line and field of what is wrong, what the inspection's `check` finds among it.
    pub fn open(root: &Path, manifest: &Manifest, inspection: Inspection<'_>) -> Result<OwnRecords> {
        let file = RecordFile::open(&root.join(METADATA))?;
        let (mut index, sizes) = (Index::default(), ImageSizes::default());
        let size = |name: &String| sizes.of(root, name);
        // A size that is known already spares asking the system.
        let is_there =
            |name: &String| inspection.is_refused.is_some() && size(name).is_some() || root.join(name).is_file();
        file.lines(|lines| {
            let entry = |Item { place, text }: &Item<'_>| {
                let record = parse(&file, place, text)?;
                let checked = check_own(&record, root, is_there).and_then(|()| (inspection.check)(&record, false));
                checked.map_err(|e| e.context(file.place(place)))?;
                let seen = inspection.see(&record, || record.images.iter().map(size).collect());
                Ok(Entry::new(*place, &record, seen))
            };
            let entries: Vec<Result<Entry>> = lines.par_iter().map(entry).collect();
            entries.into_iter().try_for_each(|entry| entry.map(|entry| index.push(entry)))?;
            Ok(true)
        })?;
        let (path, count) = (file.path().display(), index.len());
        if count == 0 {
            return Err(Error::input(format!("{path} holds no records")));
        }
        index.refuse_duplicates(&file, |place| Ok(parse(&file, place, &file.read(place)?)?.id), "")?;
        let split = root.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let expected = manifest.splits.get(&split).map_or(count, |split| split.records);
        if expected != count {
            return Err(Error::input(format!(
                "{path} holds {count} records, but the dataset's {MANIFEST} says {expected}: the file was changed or cut off"
            )));
        }
        Ok(OwnRecords { file, index })
    }
}

impl StoredRecords for OwnRecords {
    fn len(&self) -> usize {
        self.index.len()
    }

    fn read(&self, i: usize) -> Result<(Record, Embedded)> {
        let place = self.index.place(i);
        Ok((parse(&self.file, place, &self.file.read(place)?)?, Embedded::new()))
    }

    fn seen(&self, i: usize) -> Option<Seen> {
        self.index.seen(i)
    }

    fn task(&self, i: usize) -> &str {
        self.index.task(i)
    }

    fn place(&self, i: usize) -> String {
        self.file.place(self.index.place(i))
    }

    fn retain(&mut self, keep: &dyn Fn(usize) -> bool) {
        self.index.retain(keep);
    }
}

/// The record on a line of a `metadata.jsonl`.
fn parse(file: &RecordFile, place: &Place, line: &[u8]) -> Result<Record> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let text = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).map_err(|e| {
        let at = place.offset + e.valid_up_to() as u64;
        Error::input(format!("{} is not UTF-8: bad byte at offset {at}", file.path().display()))
    })?;
    serde_json::from_str(text).map_err(|e| Error::input(format!("{}: {}", file.place(place), json_fault(&e))))
}

fn check_own(record: &Record, root: &Path, is_there: impl Fn(&String) -> bool) -> Result<()> {
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
        if !is_there(name) {
            return bad(format!("field `images`: there is no file {}", root.join(name).display()));
        }
    }
    Ok(())
}
