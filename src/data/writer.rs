//! Writes a dataset directory: `SPLIT/images/*.png`, `SPLIT/metadata.jsonl`, and `manifest.json` last.

use super::manifest::{MANIFEST, Manifest, SplitSummary};
use super::{Dataset, Digest, METADATA, Record, png};
use crate::io::files;
use crate::io::files::UNFINISHED;
use crate::io::hex;
use crate::{Error, Result};
use image::RgbImage;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// What a dataset directory may hold besides its splits.
const OWN_FILES: [&str; 4] = [MANIFEST, UNFINISHED, "preview.png", "bench"];
/// Splits that may be found in a directory whose manifest was not written yet.
const USUAL_SPLITS: [&str; 3] = ["train", "validation", "test"];

/// A dataset directory being written. Until [`DatasetWriter::finish`] it has no manifest and no reader accepts it.
#[derive(Debug)]
pub struct DatasetWriter {
    dir: PathBuf,
    splits: BTreeMap<String, SplitSummary>,
    /// On the file that says that the dataset is not finished.
    _lock: File,
}

impl DatasetWriter {
    /// Begin a dataset in `dir`, which must be new, empty, or hold only an unfinished dataset or (with `overwrite`) a finished one; either is
    /// deleted.
    ///
    /// # Errors
    /// An input error if `dir` holds anything else or another process is writing there; a failure if it cannot be written.
    pub fn create(dir: &Path, overwrite: bool) -> Result<Self> {
        DatasetWriter::create_keeping(dir, overwrite, &[])
    }

    /// As [`DatasetWriter::create`], in a directory that may also hold the files `beside`, which stay as they are.
    pub fn create_keeping(dir: &Path, overwrite: bool, beside: &[&str]) -> Result<Self> {
        let here = dir.display();
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries
                .map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()))
                .collect::<std::io::Result<Vec<String>>>()
                .map_err(|e| Error::input(format!("cannot read {here}: {e}")))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(Error::input(format!("cannot use {here} as an output directory: {e}"))),
        };
        let entries: Vec<String> = entries.into_iter().filter(|e| !beside.contains(&e.as_str())).collect();
        let has = |name: &str| entries.iter().any(|e| e == name);
        let manifest = dir.join(MANIFEST);
        if !entries.is_empty() {
            let splits: Vec<String> = if has(MANIFEST) {
                let earlier: Manifest = files::read_json(&manifest)
                    .map_err(|e| e.context("the output directory is not empty and holds no readable dataset"))?;
                earlier.splits.into_keys().collect()
            } else if has(UNFINISHED) {
                USUAL_SPLITS.map(String::from).to_vec()
            } else {
                return Err(Error::input(format!("{here} is not empty; choose a new directory for the dataset")));
            };
            // An unfinished dataset of an interrupted run is overwritten without asking.
            if !overwrite && has(MANIFEST) {
                return Err(Error::input(format!(
                    "{here} already holds a dataset; choose another directory, or pass --overwrite to replace it"
                )));
            }
            if let Some(foreign) = entries.iter().find(|e| !splits.contains(e) && !OWN_FILES.contains(&e.as_str())) {
                return Err(Error::input(format!(
                    "{here} holds {foreign}, which is not part of a dataset; move it away or choose another directory"
                )));
            }
        }
        files::create_dir(dir)?;
        let fail = |path: &Path, e| Error::failed(format!("cannot write {}: {e}", path.display()));
        let lock = files::lock_with(dir, UNFINISHED, "writing a dataset")?;
        if has(MANIFEST) {
            fs::remove_file(&manifest).map_err(|e| fail(&manifest, e))?; // first: from here on the dataset counts as unfinished
        }
        for name in entries.iter().filter(|e| ![MANIFEST, UNFINISHED].contains(&e.as_str())) {
            let path = dir.join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|e| fail(&path, e))?;
        }
        Ok(DatasetWriter { dir: dir.to_owned(), splits: BTreeMap::new(), _lock: lock })
    }

    /// Make the directory of a split, and in it the one for images if it has any.
    pub fn create_split(&self, split: &str, has_images: bool) -> Result<()> {
        let dir = self.dir.join(split);
        files::create_dir(&if has_images { dir.join("images") } else { dir })
    }

    /// Write one image of a split as PNG under `name` (relative to the split, e.g. `images/000001.png`); may be called from
    /// several threads.
    pub fn write_image(&self, split: &str, name: &str, image: &RgbImage) -> Result<Digest> {
        let path = self.dir.join(split).join(name);
        let fail = |e: &dyn std::fmt::Display| Error::failed(format!("cannot write {}: {e}", path.display()));
        let png = png::encode(image).map_err(|e| fail(&e))?;
        fs::write(&path, &png).map_err(|e| fail(&e))?;
        Ok(Sha256::digest(&png).into())
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

    /// Copy a split of another dataset unchanged: the same bytes, so the same hash.
    pub fn copy_split(&mut self, split: &str, from: &Dataset) -> Result<()> {
        let summary = from.manifest().splits.get(split).cloned().ok_or_else(|| {
            Error::input(format!("the {MANIFEST} above {} does not list the split `{split}`", from.root().display()))
        })?;
        let dir = self.dir.join(split);
        let mut taken = HashSet::new();
        for name in from.records().iter().flat_map(|record| &record.images) {
            if taken.insert(name) {
                let path = dir.join(name);
                path.parent().map_or(Ok(()), files::create_dir)?;
                link(&from.root().join(name), &path)?;
            }
        }
        files::create_dir(&dir)?;
        files::write_atomic(&dir.join(METADATA), &files::read(&from.root().join(METADATA))?)?;
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
        files::write_atomic_with(&path, |file| {
            let mut out = BufWriter::new(file);
            for (record, digests) in records {
                let mut line = serde_json::to_vec(&record)?;
                line.push(b'\n');
                out.write_all(&line)?;
                hash.update(&line);
                for digest in digests {
                    hash.update(digest);
                }
                count += 1;
                sources.insert(record.source);
            }
            out.flush()
        })?;
        let summary = SplitSummary { records: count, sources: sources.len(), sha256: hex(&hash.finalize()) };
        self.splits.insert(split.to_owned(), summary);
        Ok(())
    }

    /// Write the manifest, which completes the dataset. `about` gives settings, licences and what was skipped; tool,
    /// version, splits and hashes are filled in here.
    pub fn finish(self, about: Manifest) -> Result<Manifest> {
        let mut hash = Sha256::new();
        for (name, split) in &self.splits {
            hash.update(format!("{name} {}\n", split.sha256));
        }
        let manifest = Manifest {
            tool: "jigsaw".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            sha256: hex(&hash.finalize()),
            splits: self.splits,
            ..about
        };
        files::write_json(&self.dir.join(MANIFEST), &manifest)?;
        let marker = self.dir.join(UNFINISHED);
        fs::remove_file(&marker).map_err(|e| Error::failed(format!("cannot remove {}: {e}", marker.display())))?;
        Ok(manifest)
    }
}

/// Hard-link a file, or copy it where links are not supported.
fn link(from: &Path, to: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let copied = fs::copy(from, to).map(|_| ());
    copied.map_err(|e| Error::failed(format!("cannot copy {} to {}: {e}", from.display(), to.display())))
}
