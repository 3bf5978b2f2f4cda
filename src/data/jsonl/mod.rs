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
use super::{Digest, Record};
use crate::io::files;
use crate::io::hex;
use crate::{Error, Result};
use images::{Images, check_image};
use items::Item;
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

/// The contents of a file.
#[derive(Debug)]
pub(super) struct Contents {
    pub records: Vec<Record>,
    /// Place of each record in the file: its line, and in an array its number.
    pub places: Vec<String>,
    /// Images that are in the file itself, by the name that their record has for them.
    pub embedded: HashMap<String, Vec<u8>>,
    /// Counts and hashes, as for a dataset directory.
    pub manifest: Manifest,
    /// Conversations with an answer before the last one.
    pub multi_turn: usize,
    /// Conversations whose images were put before the first text of the user.
    pub images_first: usize,
}

/// Read a file and look at its images.
///
/// # Errors
/// An input error for the first thing that is wrong, with file, line and field: what is not JSON or not UTF-8, a conversation that cannot be
/// represented, an id twice, placeholders and images that differ in number, an image that is not there or no image.
pub(super) fn open(path: &Path) -> Result<Contents> {
    let bytes = files::read(path)?;
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    let file = path.display();
    let root = path.parent().unwrap_or(Path::new(""));
    let mut images = Images::default();
    let (mut records, mut places, mut evidence) = (Vec::new(), Vec::new(), Vec::new());
    // For each record the field that holds its images.
    let mut fields: Vec<&'static str> = Vec::new();
    let (mut ids, mut multi_turn, mut images_first): (HashMap<String, String>, usize, usize) = (HashMap::new(), 0, 0);
    let is_array = items::is_array(text);
    for item in items::items(text) {
        let Item { line, name, object } = item.map_err(|(line, why)| Error::input(format!("{file}:{line}: {why}")))?;
        let place = if is_array { format!("{line}: {name}") } else { line.to_string() };
        let bad = |why: String| Error::input(format!("{file}:{place}: {why}"));
        let line::Read { record, images_first: first, form } =
            line::record(&object, &name, &mut images).map_err(bad)?;
        fields.push(line::image_field(&object).map_err(bad)?);
        if let Some(first) = ids.insert(record.id.clone(), name) {
            return Err(bad(format!(
                "field `id`: `{}` is already the id of {first}; without this field, records are called by their numbers",
                record.id
            )));
        }
        multi_turn += usize::from(record.prompt().iter().any(|turn| turn.role == "assistant"));
        images_first += usize::from(first);
        records.push(record);
        evidence.push(form);
        places.push(place);
    }
    if records.is_empty() {
        return Err(Error::input(format!("{file} holds no records")));
    }
    answer_form::set_styles(&mut records, &evidence)
        .map_err(|(at, why)| Error::input(format!("{file}:{}: {why}", places[at])))?;
    let digests = digests(root, &records, &images)
        .map_err(|(at, why)| Error::input(format!("{file}:{}: field `{}`: {why}", places[at], fields[at])))?;
    let manifest = manifest(&records, &digests)?;
    Ok(Contents { records, places, embedded: images.embedded, manifest, multi_turn, images_first })
}

/// SHA-256 of every image by its name; or the number of the first record with one that cannot be used, and why.
fn digests(
    root: &Path,
    records: &[Record],
    images: &Images,
) -> std::result::Result<HashMap<String, Digest>, (usize, String)> {
    let mut seen = HashSet::new();
    let named = records.iter().enumerate().flat_map(|(i, record)| record.images.iter().map(move |name| (i, name)));
    let first: Vec<(usize, &String)> = named.filter(|(_, name)| seen.insert(*name)).collect();
    let all: Vec<_> = first.par_iter().map(|(i, name)| (*i, *name, check_image(root, name, images))).collect();
    all.into_iter().map(|(i, name, found)| found.map(|digest| (name.clone(), digest)).map_err(|why| (i, why))).collect()
}

/// A manifest of these records.
fn manifest(records: &[Record], digests: &HashMap<String, Digest>) -> Result<Manifest> {
    let mut hash = Sha256::new();
    for record in records {
        let line = serde_json::to_vec(record).map_err(|e| Error::failed(format!("record {}: {e}", record.id)))?;
        hash.update(line);
        hash.update(b"\n");
        record.images.iter().filter_map(|name| digests.get(name)).for_each(|digest| hash.update(digest));
    }
    let sha256 = hex(&hash.finalize());
    let sources = records.iter().map(|record| &record.source).collect::<HashSet<_>>().len();
    let split = SplitSummary { records: records.len(), sources, sha256: sha256.clone() };
    Ok(Manifest {
        tool: "jigsaw".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        sha256,
        splits: BTreeMap::from([(SPLIT.to_string(), split)]),
        ..Manifest::default()
    })
}

#[cfg(test)]
mod tests;
