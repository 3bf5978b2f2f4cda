//! From kept responses to a training dataset: each prompt with the kept response in place of the reference response, and the other splits
//! of the source unchanged.

use super::rollout_dir::SIDE_FILES;
use crate::data::{Dataset, DatasetWriter, Digest, Embedded, MANIFEST, Manifest, Message, Record};
use crate::io::files;
use crate::tasks::DatasetTask;
use crate::{Error, Result};
use serde_json::json;
use std::collections::HashSet;
use std::path::Path;

/// The split that kept responses go to.
pub const TRAIN: &str = "train";

/// One response that is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptResponse {
    /// Index of its record in the source split.
    pub index: usize,
    /// Which of the responses to that record.
    pub sample: usize,
    /// The text to learn.
    pub response: String,
}

/// Write the dataset into `out`, which the caller has locked and which may hold the samples already; its manifest last. `settings` is what the manifest says of its
/// making. The other splits of `source` go along.
pub fn write_dataset(
    out: &Path,
    source: &Dataset,
    data: &Path,
    split: &str,
    kept: &[KeptResponse],
    settings: serde_json::Value,
) -> Result<Manifest> {
    let mut writer = DatasetWriter::create_in_locked(out, &SIDE_FILES)?;
    let mut named = source.records().map(|record| record.map(|record| !record.images.is_empty()));
    let has_images =
        source.stream().is_some() || named.find(|has| !matches!(has, Ok(false))).transpose()?.unwrap_or(false);
    writer.create_split(TRAIN, has_images)?;
    let mut records = Vec::with_capacity(kept.len());
    let mut ids = HashSet::new();
    for (slot, kept) in kept.iter().enumerate() {
        let (source_record, embedded) = source.read(kept.index)?;
        let record = record(&source_record, &embedded, slot, kept);
        if !ids.insert(record.id.clone()) {
            return Err(Error::input(format!(
                "the id `{}` would occur twice; rename records of the source",
                record.id
            )));
        }
        let link = |(new, old): (&String, &String)| match embedded.get(old) {
            Some(bytes) => writer.write_encoded_image(TRAIN, new, bytes),
            None => writer.link_image(TRAIN, new, &source.root().join(old)),
        };
        let digests = match source.stream() {
            None => record.images.iter().zip(&source_record.images).map(link).collect::<Result<Vec<Digest>>>()?,
            Some(stream) => {
                let images = stream.images(kept.index)?;
                record
                    .images
                    .iter()
                    .zip(&images)
                    .map(|(name, image)| writer.write_image(TRAIN, name, image))
                    .collect::<Result<_>>()?
            }
        };
        records.push((record, digests));
    }
    writer.write_records(TRAIN, records)?;
    // A source that is the directory of a single split has no other splits.
    if source.root() != data && data.join(MANIFEST).is_file() {
        let others = source
            .manifest()
            .splits
            .iter()
            .filter(|(name, s)| ![TRAIN, split].contains(&name.as_str()) && s.records > 0);
        for (name, _) in others {
            writer.copy_split(name, DatasetTask::open(data, name)?.dataset())?;
        }
    }
    let about = source.manifest().clone();
    writer.finish(Manifest { settings: json!({"rollout": settings, "source": about.settings}), ..about })
}

/// What the manifest of a finished dataset in `out` says of its making; `None` if there is none.
pub fn written(out: &Path) -> Result<Option<(Manifest, serde_json::Value)>> {
    let path = out.join(MANIFEST);
    if !path.exists() {
        return Ok(None);
    }
    let manifest: Manifest = files::read_json(&path)?;
    let settings = manifest.settings.get("rollout").cloned().unwrap_or_default();
    Ok(Some((manifest, settings)))
}

/// Each record has image files of its own, because readers of image folders expect one line for each file.
fn record(source: &Record, embedded: &Embedded, slot: usize, kept: &KeptResponse) -> Record {
    let mut messages = source.prompt().to_vec();
    messages.push(Message { role: "assistant".into(), content: kept.response.clone() });
    let several = source.images.len() > 1;
    let name = |(k, old): (usize, &String)| {
        let end = match embedded.get(old).and_then(|bytes| image::guess_format(bytes).ok()) {
            Some(format) => format.extensions_str().first().map(|end| end.to_string()),
            None => Path::new(old).extension().map(|end| end.to_string_lossy().into_owned()),
        };
        let end = end.unwrap_or("png".into());
        if several { format!("images/{slot:06}-{k}.{end}") } else { format!("images/{slot:06}.{end}") }
    };
    let images: Vec<String> = source.images.iter().enumerate().map(name).collect();
    let mut meta = source.meta.clone();
    meta.insert("rollout".into(), json!({"prompt": source.id, "sample": kept.sample}));
    Record {
        file_name: images.first().cloned().unwrap_or_default(),
        id: format!("{}-s{}", source.id, kept.sample),
        messages,
        images,
        meta,
        ..source.clone()
    }
}
