//! Models by their name on the Hugging Face Hub: `owner/name`, or `owner/name@revision`.
//!
//! What is a path on this machine is used as it is. A name is looked up on the Hub; the files that a checkpoint needs are brought to the
//! Hub's standard cache, and the snapshot directory there is the model directory. Small files come first, so that a model that cannot be
//! used is refused before its weights are on their way. A file appears in the cache under its name when all of it is there and its
//! checksum is right; `refs/REVISION`, by which the snapshot is found again, is written last.

mod cache;
mod client;
mod file_list;
mod git;
mod settings;
#[cfg(test)]
mod tests;

pub use git::git_blob_hash;
pub use settings::{HubConfig, OfflineReason};

use crate::{Error, Result};
use cache::RepoCache;
use client::{Client, FetchError};
use std::path::{Path, PathBuf};

/// Who is told how a download goes on.
pub trait DownloadProgress {
    /// Something a person should read.
    fn note(&mut self, text: &str);
    /// So many bytes of a file are there; `total` is 0 where it is not cached_snapshot.
    fn file(&mut self, name: &str, done: u64, total: u64);
}

/// A model on the Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoId {
    /// `owner/name`.
    pub id: String,
    /// Branch, tag or commit; `main` when none is given.
    pub revision: String,
}

impl RepoId {
    /// The name that `text` is; `None` if it has another form than `owner/name` or `owner/name@revision`.
    pub fn parse(text: &str) -> Option<RepoId> {
        let (id, revision) = text.split_once('@').unwrap_or((text, "main"));
        let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let part = |part: &str| {
            part.len() <= 96
                && part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && part.chars().all(word)
        };
        let (owner, name) = id.split_once('/')?;
        let plain = part(owner) && part(name) && !id.contains("..") && !id.contains("--");
        let pinned = !revision.is_empty()
            && revision.chars().all(|c| word(c) || c == '/')
            && revision.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
            && !revision.contains("..");
        (plain && pinned).then(|| RepoId { id: id.to_string(), revision: revision.to_string() })
    }

    /// Whether the revision is a whole commit hash, which never comes to mean anything else.
    pub fn is_commit(&self) -> bool {
        self.revision.len() == 40 && self.revision.chars().all(|c| c.is_ascii_hexdigit())
    }
}

impl std::fmt::Display for RepoId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.revision.as_str() {
            "main" => f.write_str(&self.id),
            revision => write!(f, "{}@{revision}", self.id),
        }
    }
}

/// Where a model is: a path that is there, or a name on the Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelLocation {
    /// A path on this machine, whatever it is.
    Local(PathBuf),
    /// A name on the Hub.
    Hub(RepoId),
}

/// Tell a path that is there from a name on the Hub.
///
/// # Errors
/// An input error for what is neither.
pub fn locate(model: &Path) -> Result<ModelLocation> {
    if model.exists() {
        return Ok(ModelLocation::Local(model.to_path_buf()));
    }
    model.to_str().and_then(RepoId::parse).map(ModelLocation::Hub).ok_or_else(|| {
        Error::input(format!(
            "no model at {}: there is no such directory; a name on the Hub has the form owner/name, such as \
             Qwen/Qwen2.5-VL-3B-Instruct",
            model.display()
        ))
    })
}

/// Which files of a repository are needed, and in which order: the hub does not know what a checkpoint is.
pub trait RequiredFiles {
    /// What `dir` lacks.
    ///
    /// # Errors
    /// A file in `dir` that says what else is needed, and cannot be read.
    fn missing(&self, dir: &Path) -> Result<Vec<String>>;
    /// Refuse a repository with files of these names, before anything of it is downloaded.
    ///
    /// # Errors
    /// An input error that says what it lacks.
    fn check(&self, repo: &[&str]) -> Result<()>;
    /// The names of the files to download in the stage of this number, of those in `repo`; `dir` has the files of the stages before.
    /// `None` when everything is there.
    ///
    /// # Errors
    /// An input error if what was downloaded cannot be used.
    fn stage(&self, stage: usize, repo: &[&str], dir: &Path) -> Result<Option<Vec<String>>>;
}

/// The directory of a model that is given by path or by name; what is missing of a named one is downloaded.
///
/// # Errors
/// An input error if it is neither a path nor a name, if the Hub has no such model or does not give it to us, if it is not in the cache
/// and `settings` allow no network, or if it is no model that this program can use. A failure if the Hub cannot be reached, a download
/// breaks off, or there is no room for it; what was downloaded stays, and the next call goes on from there.
pub fn resolve(
    model: &Path,
    settings: &HubConfig,
    files: &dyn RequiredFiles,
    progress: &mut dyn DownloadProgress,
) -> Result<PathBuf> {
    match locate(model)? {
        ModelLocation::Local(path) => Ok(path),
        ModelLocation::Hub(name) => match settings.offline {
            Some(why) => offline(&name, settings, files, why),
            None => fetch(&name, settings, files, progress),
        },
    }
}

/// As [`resolve`], without the network: `None` if the model is not here, wholly.
pub fn cached(model: &Path, settings: &HubConfig, files: &dyn RequiredFiles) -> Option<PathBuf> {
    match locate(model).ok()? {
        ModelLocation::Local(path) => Some(path),
        ModelLocation::Hub(name) => offline(&name, settings, files, OfflineReason::Environment).ok(),
    }
}

/// The name of a model, with its commit as the revision, by which the cache gives this directory; `None` of any other directory.
pub fn repo_id_of(dir: &Path, settings: &HubConfig, files: &dyn RequiredFiles) -> Option<RepoId> {
    let dir = dir.canonicalize().ok()?;
    let folder = dir.parent()?.parent()?.file_name()?.to_str()?;
    let id = folder.strip_prefix("models--")?.replacen("--", "/", 1);
    let name = RepoId::parse(&format!("{id}@{}", dir.file_name()?.to_str()?)).filter(RepoId::is_commit)?;
    let found = offline(&name, settings, files, OfflineReason::Environment).ok()?;
    (found.canonicalize().ok()? == dir).then_some(name)
}

fn offline(name: &RepoId, settings: &HubConfig, files: &dyn RequiredFiles, why: OfflineReason) -> Result<PathBuf> {
    let (because, what_to_do) = match why {
        OfflineReason::Environment => {
            ("because HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE to download it".to_string())
        }
        OfflineReason::Study => (
            "by the tasks of a study",
            format!("download it with `jigsaw model inspect {name}`, then run the study again"),
        ),
    };
    let cache = RepoCache::of(name, settings);
    let Some(dir) = cache.cached_snapshot() else {
        return Err(Error::input(format!(
            "no model at {name}: there is no such directory, and none of this name in the cache {}, which alone is used {because}; \
             {what_to_do}",
            settings.cache.display()
        )));
    };
    match files.missing(&dir)?.as_slice() {
        [] => Ok(dir),
        missing => Err(Error::input(format!(
            "the cache holds only a part of {name}: {} lacks {}; {what_to_do}",
            dir.display(),
            missing.join(", ")
        ))),
    }
}

fn fetch(
    name: &RepoId,
    settings: &HubConfig,
    files: &dyn RequiredFiles,
    progress: &mut dyn DownloadProgress,
) -> Result<PathBuf> {
    let cache = RepoCache::of(name, settings);
    let whole = || Ok::<_, Error>(cache.cached_snapshot().filter(|dir| files.missing(dir).is_ok_and(|m| m.is_empty())));
    if name.is_commit()
        && let Some(dir) = whole()?
    {
        return Ok(dir);
    }
    let client = Client::new(settings)?;
    // Where there is something to go on with, nobody is kept waiting.
    let listing = match client.listing(name, whole()?.is_none()) {
        Ok(listing) => listing,
        Err(FetchError::Transient(why)) => {
            let Some(dir) = whole()? else {
                return Err(Error::failed(format!(
                    "no model at {name}: there is no such directory, and the Hub cannot be asked for it: {why}"
                )));
            };
            progress.note(&format!("{why}; {name} is taken as it is in the cache"));
            return Ok(dir);
        }
        Err(FetchError::Permanent(error)) => return Err(error),
    };
    let _lock = cache.lock(progress)?;
    let names = listing.names();
    files.check(&names).map_err(|e| e.context(format!("{name} at {}", settings.endpoint)))?;
    let dir = cache.dir(&listing.commit);
    let mut stage = 0;
    while let Some(wanted) = files.stage(stage, &names, &dir)? {
        cache.download_missing(&client, name, &listing, &wanted, progress)?;
        stage += 1;
    }
    cache.write_ref(&listing.commit)?;
    Ok(dir)
}
