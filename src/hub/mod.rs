//! Models by their name on the Hugging Face Hub: `owner/name`, or `owner/name@revision`.
//!
//! A path on this machine is used as it is. A name is looked up on the Hub; the files that a [`FileSelector`] asks for are downloaded to
//! the Hub's standard cache, and the snapshot directory there is the model directory. A file appears in the cache under its name when it is
//! complete and its checksum is right; `refs/REVISION`, by which the snapshot is found again, is written last.

mod cache;
mod client;
mod config;
mod download;
mod git;
mod listing;
mod repo_id;
#[cfg(test)]
mod tests;

pub use config::{HubConfig, OfflineReason};
pub use download::DownloadProgress;
pub use git::git_blob_hash;
pub use repo_id::RepoId;

use crate::{Error, Result};
use cache::RepoCache;
use client::{FetchError, HubClient};
use std::path::{Path, PathBuf};

/// Chooses the files of a repository that are needed.
pub trait FileSelector {
    /// The files to download next, out of those that the repository has (`names`); `None` when nothing more is needed. Rounds count from
    /// 0; the files of the rounds before are in `dir`.
    ///
    /// # Errors
    /// The repository cannot be used, by its names or by what the files in `dir` hold.
    fn files(&self, round: usize, names: &[&str], dir: &Path) -> Result<Option<Vec<String>>>;

    /// The needed files that the directory lacks.
    ///
    /// # Errors
    /// A file in it that cannot be read.
    fn missing(&self, dir: &Path) -> Result<Vec<String>>;
}

/// Gives the needed files that a directory lacks, as [`FileSelector::missing`].
pub type MissingFiles<'a> = &'a dyn Fn(&Path) -> Result<Vec<String>>;

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelLocation {
    /// A path on this machine, whatever it holds.
    Local(PathBuf),
    /// A name on the Hub.
    Hub(RepoId),
}

/// Whether `model` is a path that exists or a name on the Hub.
///
/// # Errors
/// An input error if it is neither.
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

/// The directory of a model that is given by path or by name. For a name, missing files are downloaded.
///
/// # Errors
/// An input error if it is neither a path nor a name, if the Hub has no such model or denies access, if `config` allows no network and it is
/// not in the cache, or if `selector` cannot use it. A failure if the Hub cannot be reached, a download breaks off, or the disk is too
/// small; what was downloaded stays, and the next call continues from there.
pub fn resolve(
    model: &Path,
    config: &HubConfig,
    selector: &dyn FileSelector,
    progress: &mut dyn DownloadProgress,
) -> Result<PathBuf> {
    match locate(model)? {
        ModelLocation::Local(path) => Ok(path),
        ModelLocation::Hub(repo) => match config.offline {
            Some(why) => from_cache(&repo, config, &|dir| selector.missing(dir), why),
            None => download(&repo, config, selector, progress),
        },
    }
}

/// As [`resolve`], without the network; `None` if the model is not here, or not complete.
pub fn cached(model: &Path, config: &HubConfig, missing: MissingFiles<'_>) -> Option<PathBuf> {
    match locate(model).ok()? {
        ModelLocation::Local(path) => Some(path),
        ModelLocation::Hub(repo) => from_cache(&repo, config, missing, OfflineReason::Environment).ok(),
    }
}

/// The name of a model, with its commit as the revision, for which the cache gives this directory; `None` for any other directory.
pub fn repo_id_of(dir: &Path, config: &HubConfig, missing: MissingFiles<'_>) -> Option<RepoId> {
    let dir = dir.canonicalize().ok()?;
    let folder = dir.parent()?.parent()?.file_name()?.to_str()?;
    let id = folder.strip_prefix("models--")?.replacen("--", "/", 1);
    let repo = RepoId::parse(&format!("{id}@{}", dir.file_name()?.to_str()?)).filter(RepoId::is_commit)?;
    let found = from_cache(&repo, config, missing, OfflineReason::Environment).ok()?;
    (found.canonicalize().ok()? == dir).then_some(repo)
}

fn from_cache(repo: &RepoId, config: &HubConfig, missing: MissingFiles<'_>, why: OfflineReason) -> Result<PathBuf> {
    let (because, what_to_do) = match why {
        OfflineReason::Environment => {
            ("because HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE to download it".to_string())
        }
        OfflineReason::Study => (
            "by the tasks of a study",
            format!("download it with `jigsaw model inspect {repo}`, then run the study again"),
        ),
    };
    let Some(dir) = RepoCache::new(repo, config).snapshot() else {
        return Err(Error::input(format!(
            "no model at {repo}: there is no such directory, and none of this name in the cache {}, which alone is used {because}; \
             {what_to_do}",
            config.cache.display()
        )));
    };
    match missing(&dir)?.as_slice() {
        [] => Ok(dir),
        missing => Err(Error::input(format!(
            "the cache holds only a part of {repo}: {} lacks {}; {what_to_do}",
            dir.display(),
            missing.join(", ")
        ))),
    }
}

fn download(
    repo: &RepoId,
    config: &HubConfig,
    selector: &dyn FileSelector,
    progress: &mut dyn DownloadProgress,
) -> Result<PathBuf> {
    let cache = RepoCache::new(repo, config);
    let complete = || cache.snapshot().filter(|dir| selector.missing(dir).is_ok_and(|missing| missing.is_empty()));
    if repo.is_commit()
        && let Some(dir) = complete()
    {
        return Ok(dir);
    }
    let client = HubClient::new(config)?;
    // If the cache has the model, do not wait for a Hub that is busy.
    let listing = match client.listing(repo, complete().is_none()) {
        Ok(listing) => listing,
        Err(FetchError::Transient(why, _)) => {
            let Some(dir) = complete() else {
                return Err(Error::failed(format!(
                    "no model at {repo}: there is no such directory, and the Hub cannot be asked for it: {why}"
                )));
            };
            progress.note(&format!("{why}; {repo} is taken as it is in the cache"));
            return Ok(dir);
        }
        Err(FetchError::Permanent(error)) => return Err(error),
    };
    let _lock = cache.lock(progress)?;
    let dir = cache.snapshot_of(&listing.commit);
    let names = listing.names();
    let first = selector.files(0, &names, &dir).map_err(|e| e.context(format!("{repo} at {}", config.endpoint)))?;
    let mut next = first;
    let mut round = 0;
    while let Some(files) = next {
        cache.download_missing(&client, &listing, &files, progress)?;
        round += 1;
        next = selector.files(round, &names, &dir)?;
    }
    cache.write_ref(&listing.commit)?;
    Ok(dir)
}
