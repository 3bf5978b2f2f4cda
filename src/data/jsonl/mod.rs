//! Files of conversations as other tools write them, read in place: one JSON object a line, or one array of objects. LLaMA-Factory's and
//! ms-swift's `messages` (`role`, `content`), ShareGPT's `conversations` (`from`, `value`), Alpaca's `instruction` and `output`, TRL's
//! `prompt` and `completion`, and records of our own.
//!
//! A conversation that ends with an answer is a prompt and its reference response; answers before the last one are part of the prompt.
//! Images are named by path, absolute or relative to the file, or are in the line as base64. Whatever cannot be represented is
//! an error with its line and field; nothing is skipped silently. Opening a file checks all of its images.

mod answer_form;
mod images;
mod items;
mod line;
mod turns;

use super::manifest::{Manifest, SplitSummary};
use super::record_file::{Entry, Fingerprint, Index, Item, Place, RecordFile, fingerprint};
use super::stored_records::{Embedded, StoredRecords};
use super::{Digest, Inspection, Record, Seen};
use crate::io::hex;
use crate::{Error, Result};
use answer_form::{Form, FormEvidence, ShownForm, set_style};
use images::check_image;
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// Name of the split that holds the records of a file.
const SPLIT: &str = "train";

/// Whether a path names a file of conversations.
pub(super) fn is_jsonl(path: &Path) -> bool {
    let ends = |with: &str| path.extension().is_some_and(|end| end.eq_ignore_ascii_case(with));
    (ends("jsonl") || ends("json")) && !path.is_dir()
}

/// A file of conversations that has been looked at.
#[derive(Debug)]
pub(super) struct Conversations {
    file: RecordFile,
    index: Index,
    /// The form of answers that a record asks for which shows none.
    form: Form,
    /// Counts and hashes, as for a dataset directory.
    pub manifest: Manifest,
    /// A note for the user on how the conversations were read.
    note: Option<String>,
}

/// Look at all of a file and at its images.
///
/// # Errors
/// An input error for the first thing that is wrong, with file, line and field: what is not JSON or not UTF-8, a conversation that cannot be
/// represented, an id twice, placeholders and images that differ in number, an image that is not there or no image, what the
/// inspection's `check` finds.
pub(super) fn open(path: &Path, inspection: Inspection<'_>) -> Result<Conversations> {
    let file = RecordFile::open(path)?;
    let mut scan = Scan::new(&file, inspection);
    items::each(&file, |batch| scan.add(batch).map(|()| true))?;
    if scan.index.len() == 0 {
        return Err(Error::input(format!("{} holds no records", path.display())));
    }
    let (form, manifest, note) = (scan.shown.form().unwrap_or_default(), scan.manifest(), scan.note());
    let mut index = scan.index;
    let id = |place: &Place| Ok(read(&file, place, &file.read(place)?)?.record.id);
    index.refuse_duplicates(&file, id, "; without this field, records are called by their numbers")?;
    Ok(Conversations { file, index, form, manifest, note })
}

impl StoredRecords for Conversations {
    fn len(&self) -> usize {
        self.index.len()
    }

    fn read(&self, i: usize) -> Result<(Record, Embedded)> {
        let place = self.index.place(i);
        let line::Read { mut record, form, embedded, .. } = read(&self.file, place, &self.file.read(place)?)?;
        set_style(&mut record, form, self.form);
        Ok((record, embedded))
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

    fn note(&self) -> Option<String> {
        self.note.clone()
    }
}

/// The record of a text, but for a form of answers that follows from other records.
fn read(file: &RecordFile, place: &Place, text: &[u8]) -> Result<line::Read> {
    let object = items::object(place, text)
        .map_err(|(line, why)| Error::input(format!("{}:{line}: {why}", file.path().display())))?;
    line::record(&object, &place.name()).map_err(|why| Error::input(format!("{}: {why}", file.place(place))))
}

/// What has been seen of a file.
struct Scan<'a> {
    file: &'a RecordFile,
    root: &'a Path,
    inspection: Inspection<'a>,
    index: Index,
    shown: ShownForm,
    /// The form that later records show, where one had to be known that none before had shown.
    shown_later: Option<Form>,
    /// Of each record its line, then the digests of its images.
    hash: Sha256,
    sources: HashSet<Fingerprint>,
    /// Digest and size of each image.
    images: HashMap<Fingerprint, (Digest, (u32, u32))>,
    /// Conversations with an answer before the last one.
    multi_turn: usize,
    /// Conversations whose images were put before the first text of the user.
    images_first: usize,
}

impl<'a> Scan<'a> {
    fn new(file: &'a RecordFile, inspection: Inspection<'a>) -> Self {
        Scan {
            file,
            root: file.path().parent().unwrap_or(Path::new("")),
            inspection,
            index: Index::default(),
            shown: ShownForm::default(),
            shown_later: None,
            hash: Sha256::new(),
            sources: HashSet::new(),
            images: HashMap::new(),
            multi_turn: 0,
            images_first: 0,
        }
    }

    /// Look at the next records.
    fn add(&mut self, batch: Vec<Item<'_>>) -> Result<()> {
        let file = self.file;
        let all: Vec<_> = batch.par_iter().map(|Item { place, text }| read(file, place, text)).collect();
        let mut all = all.into_iter().collect::<Result<Vec<line::Read>>>()?;
        let bad = |at: usize, why: String| Error::input(format!("{}: {why}", file.place(&batch[at].place)));
        for (at, line::Read { record, form, images_first, .. }) in all.iter_mut().enumerate() {
            self.shown.see(record, *form).map_err(|why| bad(at, why))?;
            let shown = match (self.shown.form(), *form) {
                (Some(form), _) => form,
                (None, FormEvidence::Nothing) => match self.shown_later {
                    Some(form) => form,
                    None => *self.shown_later.insert(first_shown(file)?),
                },
                (None, _) => Form::Free,
            };
            set_style(record, *form, shown);
            self.multi_turn += usize::from(record.prompt().iter().any(|turn| turn.role == "assistant"));
            self.images_first += usize::from(*images_first);
            self.sources.insert(fingerprint(&record.source));
        }
        self.look_at_images(&all).map_err(|(at, why)| bad(at, why))?;
        let (inspection, images) = (self.inspection, &self.images);
        let image = |name: &String| images.get(&fingerprint(name));
        let line = |(item, read): (&Item<'_>, &line::Read)| {
            let record = &read.record;
            (inspection.check)(record, true).map_err(|e| e.context(file.place(&item.place)))?;
            let sizes = || record.images.iter().map(|name| image(name).map(|&(_, size)| size)).collect();
            let line = serde_json::to_vec(record).map_err(|e| Error::failed(format!("record {}: {e}", record.id)))?;
            Ok((line, Entry::new(item.place, record, inspection.see(record, sizes))))
        };
        let lines: Vec<Result<_>> = batch.par_iter().zip(&all).map(line).collect();
        for (line::Read { record, .. }, line) in all.iter().zip(lines) {
            let (line, entry) = line?;
            self.hash.update(line);
            self.hash.update(b"\n");
            record.images.iter().filter_map(image).for_each(|(digest, _)| self.hash.update(digest));
            self.index.push(entry);
        }
        Ok(())
    }

    /// Take digest and size of every image that was not looked at before; or give the first record with one that cannot be used, and why.
    fn look_at_images(&mut self, all: &[line::Read]) -> std::result::Result<(), (usize, String)> {
        let mut seen = HashSet::new();
        let named = all.iter().enumerate().flat_map(|(at, read)| read.record.images.iter().map(move |name| (at, name)));
        let is_new = |(_, name): &(usize, &String)| {
            let print = fingerprint(name);
            !self.images.contains_key(&print) && seen.insert(print)
        };
        let new: Vec<(usize, &String)> = named.filter(is_new).collect();
        let root = self.root;
        let look = |(at, name): &(usize, &String)| check_image(root, name, &all[*at].embedded);
        let found: Vec<_> = new.par_iter().map(look).collect();
        for ((at, name), found) in new.into_iter().zip(found) {
            let found = found.map_err(|why| (at, format!("field `{}`: {why}", all[at].image_field)))?;
            self.images.insert(fingerprint(name), found);
        }
        Ok(())
    }

    fn note(&self) -> Option<String> {
        let (all, file) = (self.index.len(), self.file.path().display());
        let of =
            |count: usize, what: &str| (count > 0).then(|| format!("{count} of {all} conversations in {file} {what}"));
        let notes = [
            of(
                self.multi_turn,
                "have several answers: only the last one is learnt and scored, those before it are part of the prompt",
            ),
            of(
                self.images_first,
                "name images and have no `<image>` in their turns: the images come before the first text of the user",
            ),
        ];
        let notes: Vec<String> = notes.into_iter().flatten().collect();
        (!notes.is_empty()).then(|| notes.join("\n"))
    }

    /// A manifest of the records.
    fn manifest(&self) -> Manifest {
        let sha256 = hex(&self.hash.clone().finalize());
        let split = SplitSummary { records: self.index.len(), sources: self.sources.len(), sha256: sha256.clone() };
        Manifest {
            tool: "jigsaw".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            sha256,
            splits: BTreeMap::from([(SPLIT.to_string(), split)]),
            ..Manifest::default()
        }
    }
}

/// The form of the first record that shows one. A record that cannot be read shows none.
fn first_shown(file: &RecordFile) -> Result<Form> {
    let mut found = None;
    items::each(file, |batch| {
        let form = |Item { place, text }: &Item<'_>| match read(file, place, text) {
            Ok(line::Read { form: FormEvidence::Shown(form), .. }) => Some(form),
            _ => None,
        };
        found = batch.par_iter().find_map_first(form);
        Ok(found.is_none())
    })?;
    Ok(found.unwrap_or_default())
}

#[cfg(test)]
mod tests;
