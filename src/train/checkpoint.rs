//! Checkpoints: a Hugging Face directory with the state of the trainer beside the weights, complete or not there at all.
//!
//! `checkpoints/step-00000120/` holds the model files (configuration, tokenizer, ..., weights) as any other model
//! directory, and under `trainer/` the optimizer's moments and `state.json`. It is filled under a name that starts with a dot,
//! `manifest.json` (every file with its size and checksum) is written last, and then it is renamed. Before it is deleted it is renamed, too,
//! so that no half of one is ever found under its name. A directory without a
//! manifest, or one whose files are not those it names, does not count. Everything random in a run is a function of (seed, step), so
//! the step is all the state a generator needs.

use super::optimizer::AdamW;
use super::state::TrainerState;
use crate::io::files;
use crate::io::files::FileChecksum;
use crate::model::LanguageModel;
use crate::model::convert_dtype::{copy_model_files, declare_f32};
use crate::model::lora;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// How the name begins of a directory that is being filled.
const PARTIAL: &str = ".partial-";
/// How the name begins of a directory that is being removed.
const REMOVED: &str = ".removed-";

/// Written last: what the checkpoint holds.
#[derive(Debug, Serialize, Deserialize)]
struct CheckpointManifest {
    step: usize,
    jigsaw: String,
    files: BTreeMap<String, StoredFile>,
}

/// What a file must still be to be loaded.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredFile {
    bytes: u64,
    crc32: u32,
}

impl StoredFile {
    fn of(file: &mut fs::File) -> std::io::Result<StoredFile> {
        let (mut hasher, mut bytes, mut chunk) = (crc32fast::Hasher::new(), 0, vec![0; 1 << 20]);
        loop {
            match file.read(&mut chunk)? {
                0 => return Ok(StoredFile { bytes, crc32: hasher.finalize() }),
                n => {
                    hasher.update(&chunk[..n]);
                    bytes += n as u64;
                }
            }
        }
    }
}

/// A complete checkpoint on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Its directory, which can be loaded as a model.
    pub dir: PathBuf,
    /// The trainer's state.
    pub state: TrainerState,
}

impl Checkpoint {
    /// The newest complete checkpoint below `root`, if there is one, and the newer ones that are not complete or damaged.
    pub fn latest(root: &Path) -> Result<(Option<Checkpoint>, Vec<PathBuf>)> {
        let mut damaged = Vec::new();
        for (_, dir) in list(root)?.into_iter().rev() {
            if is_intact(&dir) {
                let state = files::read_json(&dir.join("trainer/state.json"))?;
                return Ok((Some(Checkpoint { dir, state }), damaged));
            }
            damaged.push(dir);
        }
        Ok((None, damaged))
    }

    /// Remove what an interrupted [`save`] would have removed: all but the newest `keep` checkpoints up to this one, and incomplete older
    /// ones. Newer ones, which are damaged, stay until the run reaches their steps.
    pub fn prune_older(&self, keep: usize) -> Result<()> {
        let root = self.dir.parent().unwrap_or(Path::new("."));
        let older = list(root)?.into_iter().filter(|(step, _)| *step <= self.state.step).collect();
        prune(older, keep, &self.state.kept_steps())
    }

    /// The optimizer's moments.
    pub fn load_optimizer(&self, optimizer: &mut AdamW<'_>) -> Result<()> {
        optimizer.load(&self.dir.join("trainer/optimizer.safetensors"))
    }
}

/// Write a checkpoint below `root` and remove all but the newest `keep` and those of [`TrainerState::kept_steps`]. `base` is the model directory whose other files
/// (configuration, tokenizer, ...) go along.
pub fn save(
    root: &Path,
    base: &Path,
    model: &dyn LanguageModel,
    optimizer: &AdamW<'_>,
    state: &TrainerState,
    keep: usize,
) -> Result<PathBuf> {
    let dir = root.join(name(state.step));
    let fill = |partial: &Path| -> Result<Vec<FileChecksum>> {
        let trainer = partial.join("trainer");
        files::create_dir(&trainer)?;
        let written = optimizer.save(&trainer.join("optimizer.safetensors"))?;
        files::write_json(&trainer.join("state.json"), state)?;
        Ok(vec![written])
    };
    write_dir(&dir, base, model, state.step, fill)?;
    prune(list(root)?, keep, &state.kept_steps())?;
    Ok(dir)
}

/// Remove these checkpoints, which are in order: those that are incomplete, and all but the newest `keep` and those of the steps `kept`.
fn prune(checkpoints: Vec<(usize, PathBuf)>, keep: usize, kept: &[usize]) -> Result<()> {
    let (complete, mut gone): (Vec<_>, Vec<_>) = checkpoints.into_iter().partition(|(_, dir)| is_complete(dir));
    gone.extend(complete.into_iter().rev().skip(keep.max(1)).filter(|(step, _)| !kept.contains(step)));
    gone.iter().try_for_each(|(_, dir)| remove(dir))
}

/// Name of the directory of a step's checkpoint.
pub fn name(step: usize) -> String {
    format!("step-{step:08}")
}

/// Write the model alone, without the trainer's state, as the directory `dir`.
pub fn export(dir: &Path, base: &Path, model: &dyn LanguageModel, step: usize) -> Result<()> {
    write_dir(dir, base, model, step, |_| Ok(Vec::new()))
}

/// Remove what an interrupted write or removal has left behind.
pub fn clean(root: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(root) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if [PARTIAL, REMOVED].iter().any(|prefix| name.starts_with(prefix)) {
            files::remove_if_exists(&entry.path())?;
        }
    }
    Ok(())
}

fn write_dir(
    dir: &Path,
    base: &Path,
    model: &dyn LanguageModel,
    step: usize,
    fill: impl FnOnce(&Path) -> Result<Vec<FileChecksum>>,
) -> Result<()> {
    let partial = renamed(dir, PARTIAL);
    files::remove_if_exists(&partial)?;
    let written = fill_dir(&partial, dir, base, model, step, fill);
    if written.is_err() {
        // On a full disk, half a checkpoint would be in the way of the next one. The first error is the one to report.
        let _ = files::remove_if_exists(&partial);
    }
    written
}

/// Write everything to `partial`, then rename it to `dir`.
fn fill_dir(
    partial: &Path,
    dir: &Path,
    base: &Path,
    model: &dyn LanguageModel,
    step: usize,
    fill: impl FnOnce(&Path) -> Result<Vec<FileChecksum>>,
) -> Result<()> {
    let fail = |e: std::io::Error| Error::failed(format!("cannot write {}: {e}", dir.display()));
    files::create_dir(partial)?;
    copy_model_files(base, partial)?;
    let mut written = model.save_weights(partial)?;
    if !lora::is_adapter(partial) {
        declare_f32(partial)?;
    }
    written.extend(fill(partial)?);
    let mut contents = BTreeMap::new();
    for entry in walkdir::WalkDir::new(partial).sort_by_file_name() {
        let entry = entry.map_err(|e| fail(e.into()))?;
        if entry.file_type().is_file() {
            // What a writer was meant to write counts, not what can be read back; it has also synced its file.
            let content = match written.iter().find(|w| w.path == entry.path()) {
                Some(w) if fs::metadata(entry.path()).map_err(fail)?.len() == w.bytes => {
                    StoredFile { bytes: w.bytes, crc32: w.crc32 }
                }
                Some(w) => return Err(fail(std::io::Error::other(format!("{} was cut off", w.path.display())))),
                None => {
                    let mut file = fs::File::open(entry.path()).map_err(fail)?;
                    file.sync_all().map_err(fail)?;
                    StoredFile::of(&mut file).map_err(fail)?
                }
            };
            let path = entry.path().strip_prefix(partial).unwrap_or(entry.path());
            contents.insert(path.to_string_lossy().replace('\\', "/"), content);
        }
    }
    let manifest = CheckpointManifest { step, jigsaw: env!("CARGO_PKG_VERSION").into(), files: contents };
    files::write_json(&partial.join("manifest.json"), &manifest)?;
    remove(dir)?;
    fs::rename(partial, dir).map_err(fail)?;
    if let Some(parent) = dir.parent()
        && let Ok(parent) = fs::File::open(parent)
    {
        let _ = parent.sync_all();
    }
    Ok(())
}

/// `step-*` directories below `root`, by step.
fn list(root: &Path) -> Result<Vec<(usize, PathBuf)>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::failed(format!("cannot read {}: {e}", root.display()))),
    };
    let mut found: Vec<(usize, PathBuf)> = entries
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.strip_prefix("step-")?.parse().ok()?, e.path())))
        .filter(|(_, path)| path.is_dir())
        .collect();
    found.sort();
    Ok(found)
}

/// All files are there, with the sizes they were written with.
fn is_complete(dir: &Path) -> bool {
    let length = |name: &str| fs::metadata(dir.join(name)).map(|m| m.len()).ok();
    every_file(dir, |name, content| length(name) == Some(content.bytes))
}

/// All files hold what was written.
fn is_intact(dir: &Path) -> bool {
    let found = |name: &str| files::open_regular(&dir.join(name)).and_then(|mut f| StoredFile::of(&mut f)).ok();
    is_complete(dir) && every_file(dir, |name, content| found(name).as_ref() == Some(content))
}

fn every_file(dir: &Path, holds: impl Fn(&str, &StoredFile) -> bool) -> bool {
    let Ok(manifest) = files::read_json::<CheckpointManifest>(&dir.join("manifest.json")) else { return false };
    manifest.files.iter().all(|(name, content)| holds(name, content))
}

/// Remove a checkpoint under another name, so that an interruption leaves none of it under its own.
fn remove(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let gone = renamed(dir, REMOVED);
    files::remove_if_exists(&gone)?;
    fs::rename(dir, &gone).map_err(|e| Error::failed(format!("cannot remove {}: {e}", dir.display())))?;
    files::remove_if_exists(&gone)
}

/// The name with a prefix before it.
fn renamed(dir: &Path, prefix: &str) -> PathBuf {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    dir.with_file_name(format!("{prefix}{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkpoint that holds nothing but a file, or half of one.
    fn checkpoint(root: &Path, step: usize, whole: bool) {
        let dir = root.join(format!("step-{step:08}"));
        fs::create_dir_all(&dir).unwrap();
        let files = [("weights".to_string(), StoredFile { bytes: 1, crc32: crc32fast::hash(b"x") })].into();
        let manifest = CheckpointManifest { step, jigsaw: "0".into(), files };
        files::write_json(&dir.join("manifest.json"), &manifest).unwrap();
        if whole {
            fs::write(dir.join("weights"), "x").unwrap();
        }
    }

    fn names(root: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn checkpoints_that_are_to_be_kept_outlive_newer_ones() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        (1..=5).for_each(|step| checkpoint(root, step, true));
        let best = Some(super::super::state::BestEvaluation { step: 2, measure: "accuracy".into(), value: 0.5 });
        let state = TrainerState { step: 5, best, not_forgotten: 3, ..Default::default() };
        Checkpoint { dir: root.join("step-00000005"), state }.prune_older(1).unwrap();
        assert_eq!(names(root), ["step-00000002", "step-00000003", "step-00000005"]);
    }

    #[test]
    fn what_an_interrupted_removal_left_is_removed_when_the_run_resumes() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        // Half of one as earlier versions left it, too many whole ones, and a damaged one that is newer than all.
        for (step, whole) in [(1, false), (2, true), (3, true), (4, true), (5, false)] {
            checkpoint(root, step, whole);
        }
        fs::create_dir_all(root.join(".removed-step-00000000/trainer")).unwrap();
        fs::create_dir_all(root.join(".partial-step-00000006")).unwrap();
        clean(root).unwrap();
        let newest =
            Checkpoint { dir: root.join("step-00000004"), state: TrainerState { step: 4, ..Default::default() } };
        newest.prune_older(2).unwrap();
        assert_eq!(names(root), ["step-00000003", "step-00000004", "step-00000005"]);
        remove(&root.join("step-00000003")).unwrap();
        remove(&root.join("step-00000003")).unwrap();
        assert_eq!(names(root), ["step-00000004", "step-00000005"]);
    }
}
