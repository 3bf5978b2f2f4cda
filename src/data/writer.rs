//! Writes a dataset directory: `SPLIT/images/*.png`, `SPLIT/metadata.jsonl`, and `manifest.json` last.
//!
//! A directory that holds a dataset already, and is not to be overwritten, is compared with what would be written.

use super::manifest::{MANIFEST, Manifest, SplitSummary};
use super::{Dataset, Digest, METADATA, Record, STREAM, png};
use crate::io::json::named_differences;
use crate::io::output_dir::{self, OutputDir, Whole};
use crate::io::{files, hex};
use crate::{Error, Result};
use image::RgbImage;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// What a dataset directory may hold besides its splits.
const OWN_FILES: [&str; 3] = [MANIFEST, "preview.png", "bench"];
/// Splits that may be found in a directory whose manifest was not written yet.
const USUAL_SPLITS: [&str; 3] = ["train", "validation", "test"];

/// A dataset directory being written. Until [`DatasetWriter::finish`] it has no manifest and no reader accepts it.
#[derive(Debug)]
pub struct DatasetWriter {
    dir: PathBuf,
    splits: BTreeMap<String, SplitSummary>,
    output: OutputDir,
    /// The dataset that is there already: nothing is written, everything is compared.
    before: Option<Manifest>,
}

impl DatasetWriter {
    /// Begin a dataset in `dir`, which must be new, empty, or hold nothing but a dataset. An unfinished one, and with `overwrite` a finished one,
    /// is deleted. A finished one is else compared with what is written.
    ///
    /// # Errors
    /// An input error if `dir` holds anything else or another process is writing there; a failure if it cannot be written.
    pub fn create(dir: &Path, overwrite: bool) -> Result<Self> {
        let own = dataset_names(dir)?;
        let is_own = |name: &str| own.iter().any(|own| own == name);
        let output = output_dir::fill(dir, &content(&is_own), overwrite)?;
        let before = if output.is_complete() { Some(files::read_json(&dir.join(MANIFEST))?) } else { None };
        Ok(DatasetWriter { dir: dir.to_owned(), splits: BTreeMap::new(), output, before })
    }

    /// Begin a dataset in a directory that the caller has locked, and that may also hold the files `beside`, which stay as they are. A dataset
    /// that is there is deleted.
    pub fn create_in_locked(dir: &Path, beside: &[&str]) -> Result<Self> {
        let own = dataset_names(dir)?;
        let is_own = |name: &str| own.iter().any(|own| own == name);
        let output = output_dir::refill(dir, &content(&is_own), beside)?;
        Ok(DatasetWriter { dir: dir.to_owned(), splits: BTreeMap::new(), output, before: None })
    }

    /// Refuse a finished dataset with other settings before anything is made.
    ///
    /// # Errors
    /// An input error that names the settings that differ.
    pub fn expect_settings(&self, settings: &serde_json::Value) -> Result<()> {
        self.before.as_ref().map_or(Ok(()), |before| self.same(&named_differences(&before.settings, settings)))
    }

    fn same(&self, differences: &[String]) -> Result<()> {
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::input(format!(
            "{} already holds a dataset that differs ({}); choose another directory, or pass --overwrite to replace it",
            self.dir.display(),
            differences.join("; ")
        )))
    }

    /// Make the directory of a split, and in it the one for images if it has any.
    pub fn create_split(&self, split: &str, has_images: bool) -> Result<()> {
        if self.before.is_some() {
            return Ok(());
        }
        if !USUAL_SPLITS.contains(&split) {
            self.output.declare(split)?;
        }
        let dir = self.dir.join(split);
        files::create_dir(&if has_images { dir.join("images") } else { dir })
    }

    /// Write one image of a split as PNG under `name` (relative to the split, e.g. `images/000001.png`); may be called from
    /// several threads. Of a dataset that is compared, the last image of each name counts, in [`DatasetWriter::write_records`].
    pub fn write_image(&self, split: &str, name: &str, image: &RgbImage) -> Result<Digest> {
        let path = self.dir.join(split).join(name);
        let fail = |e: &dyn std::fmt::Display| Error::failed(format!("cannot write {}: {e}", path.display()));
        let png = png::encode(image).map_err(|e| fail(&e))?;
        if self.before.is_none() {
            fs::write(&path, &png).map_err(|e| fail(&e))?;
        }
        Ok(Sha256::digest(&png).into())
    }

    /// Write a file beside the splits, whole or not at all.
    pub fn write_file(&self, path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
        if self.before.is_none() {
            files::create_dir(path.parent().unwrap_or(&self.dir))?;
            return files::write_atomic_with(path, |file| fill(file));
        }
        let name = path.strip_prefix(&self.dir).unwrap_or(path).display();
        if files::holds(path, fill)? { Ok(()) } else { self.same(&[format!("{name}: other content")]) }
    }

    /// Add an existing image file to a split: as a hard link where the file system supports it, else as a copy. A hard link is safe because
    /// all writers here replace files instead of changing them.
    pub fn link_image(&self, split: &str, name: &str, from: &Path) -> Result<Digest> {
        let digest = Sha256::digest(files::read(from)?).into();
        link(from, &self.dir.join(split).join(name))?;
        Ok(digest)
    }

    /// Write an already encoded image of a split.
    pub fn write_encoded_image(&self, split: &str, name: &str, bytes: &[u8]) -> Result<Digest> {
        let path = self.dir.join(split).join(name);
        fs::write(&path, bytes).map_err(|e| Error::failed(format!("cannot write {}: {e}", path.display())))?;
        Ok(Sha256::digest(bytes).into())
    }

    /// Copy a split of another dataset unchanged: the same bytes, so the same hash. Of a link, what it leads to is copied.
    pub fn copy_split(&mut self, split: &str, from: &Dataset) -> Result<()> {
        let summary = from.manifest().splits.get(split).cloned().ok_or_else(|| {
            Error::input(format!("the {MANIFEST} above {} does not list the split `{split}`", from.root().display()))
        })?;
        self.create_split(split, false)?;
        let dir = self.dir.join(split);
        let mut taken = HashSet::new();
        let stored = if from.stream().is_some() { 0 } else { from.len() };
        for i in 0..stored {
            for name in from.record(i)?.images {
                let path = dir.join(&name);
                if taken.insert(name.clone()) {
                    path.parent().map_or(Ok(()), files::create_dir)?;
                    link(&from.root().join(&name), &path)?;
                }
            }
        }
        let name = if from.stream().is_some() { STREAM } else { METADATA };
        files::write_atomic(&dir.join(name), &files::read(&from.root().join(name))?)?;
        self.splits.insert(split.to_owned(), summary);
        Ok(())
    }

    /// Write the records of a split, each with the digests of its images in their order.
    pub fn write_records(
        &mut self,
        split: &str,
        records: impl IntoIterator<Item = (Record, Vec<Digest>)>,
    ) -> Result<()> {
        let path = self.dir.join(split).join(METADATA);
        let mut hash = Sha256::new();
        let mut count = 0;
        let mut sources = HashSet::new();
        let mut images = Vec::new();
        let comparing = self.before.is_some();
        self.write_file(&path, |file| {
            let mut out = BufWriter::new(file);
            for (record, digests) in records {
                let mut line = serde_json::to_vec(&record)?;
                line.push(b'\n');
                out.write_all(&line)?;
                hash.update(&line);
                for digest in &digests {
                    hash.update(digest);
                }
                count += 1;
                sources.insert(record.source);
                if comparing {
                    images.extend(record.images.into_iter().zip(digests));
                }
            }
            out.flush()
        })?;
        for (name, digest) in images {
            let path = self.dir.join(split).join(&name);
            if !path.is_file() || Sha256::digest(files::read(&path)?)[..] != digest {
                self.same(&[format!("{split}/{name}: other content")])?;
            }
        }
        let summary = SplitSummary { records: count, sources: sources.len(), sha256: hex(&hash.finalize()) };
        self.splits.insert(split.to_owned(), summary);
        Ok(())
    }

    /// Write what describes the `records` records of a split that are made as they are needed, from so many `sources`.
    ///
    /// # Errors
    /// A failure to write; an input error if another description is there.
    pub fn write_stream(&mut self, split: &str, (records, sources): (usize, usize), description: &[u8]) -> Result<()> {
        self.create_split(split, false)?;
        self.write_file(&self.dir.join(split).join(STREAM), |file| file.write_all(description))?;
        let summary = SplitSummary { records, sources, sha256: hex(&Sha256::digest(description)) };
        self.splits.insert(split.to_owned(), summary);
        Ok(())
    }

    /// Write the manifest, which completes the dataset. `about` gives settings, licences and what was skipped; tool,
    /// version, splits and hashes are filled in here. [`Manifest::found`] says that the dataset was there already.
    ///
    /// # Errors
    /// An input error if another dataset is there; a failure to write.
    pub fn finish(mut self, about: Manifest) -> Result<Manifest> {
        let mut hash = Sha256::new();
        for (name, split) in &self.splits {
            hash.update(format!("{name} {}\n", split.sha256));
        }
        let manifest = Manifest {
            tool: "jigsaw".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            sha256: hex(&hash.finalize()),
            splits: std::mem::take(&mut self.splits),
            found: self.before.is_some(),
            ..about
        };
        match &self.before {
            Some(before) => self.same(&named_differences(before, &manifest))?,
            None => files::write_json(&self.dir.join(MANIFEST), &manifest)?,
        }
        self.output.finish()?;
        Ok(manifest)
    }
}

/// Names of what a dataset directory may hold: those of the manifest that is there, of a dataset that was cut short, and the usual ones.
pub fn dataset_names(dir: &Path) -> Result<Vec<String>> {
    let mut names = [&OWN_FILES[..], &USUAL_SPLITS].concat().into_iter().map(String::from).collect::<Vec<_>>();
    names.extend(output_dir::declared(dir));
    let manifest = dir.join(MANIFEST);
    if manifest.exists() {
        let earlier: Manifest = files::read_json(&manifest)
            .map_err(|e| e.context("the output directory is not empty and holds no readable dataset"))?;
        names.extend(earlier.splits.into_keys());
    }
    Ok(names)
}

fn content<'a>(own: &'a dyn Fn(&str) -> bool) -> Whole<'a> {
    Whole { what: "dataset", last: MANIFEST, own }
}

/// Hard-link a file, or copy it where links are not supported.
fn link(from: &Path, to: &Path) -> Result<()> {
    // A second name for a symbolic link would lead elsewhere.
    let linked = from.canonicalize().and_then(|from| fs::hard_link(from, to));
    if linked.is_ok() {
        return Ok(());
    }
    let copied = files::open_regular(from).and_then(|_| fs::copy(from, to)).map(|_| ());
    copied.map_err(|e| Error::failed(format!("cannot copy {} to {}: {e}", from.display(), to.display())))
}
