//! The Hub's cache on this machine, in the layout that all of Hugging Face's tools share:
//! `models--OWNER--NAME/` with `blobs/` (contents), `cache/COMMIT/` (links to them) and `refs/REVISION` (a commit).

use super::client::Client;
use super::file_list::{RepoFile, RepoFiles};
use super::{DownloadProgress, HubConfig, RepoId};
use crate::io::files;
use crate::{Error, Result};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// The cache of one model.
pub(super) struct RepoCache {
    cache: PathBuf,
    folder: String,
    name: RepoId,
    repo: CacheRepo,
}

impl RepoCache {
    pub fn of(name: &RepoId, settings: &HubConfig) -> RepoCache {
        let repo = Repo::with_revision(name.id.clone(), RepoType::Model, name.revision.clone());
        let folder = repo.folder_name();
        let repo = Cache::new(settings.cache.clone()).repo(repo);
        RepoCache { cache: settings.cache.clone(), folder, name: name.clone(), repo }
    }

    /// The snapshot of a commit.
    pub fn dir(&self, commit: &str) -> PathBuf {
        self.repo.pointer_path(commit)
    }

    /// The snapshot that the revision stood for when it was last downloaded.
    pub fn cached_snapshot(&self) -> Option<PathBuf> {
        let dir = match self.name.is_commit() {
            true => self.dir(&self.name.revision),
            false => {
                let anything = ["config.json", "adapter_config.json"].iter().find_map(|file| self.repo.get(file))?;
                anything.parent()?.to_path_buf()
            }
        };
        dir.is_dir().then_some(dir)
    }

    /// Let the revision stand for `commit`.
    pub fn write_ref(&self, commit: &str) -> Result<()> {
        // Of a commit nothing need be remembered.
        if self.name.is_commit() {
            return Ok(());
        }
        let failed = |e| Error::failed(format!("cannot write to {}: {e}", self.cache.join(&self.folder).display()));
        self.repo.create_ref(commit).map_err(failed)
    }

    /// Keep other processes of this program from downloading the same at the same time; wait for one that does.
    pub fn lock(&self, progress: &mut dyn DownloadProgress) -> Result<File> {
        let dir = self.cache.join(".locks").join(&self.folder);
        files::create_dir(&dir)?;
        let path = dir.join("jigsaw.lock");
        let failed = |e: std::io::Error| Error::failed(format!("cannot write {}: {e}", path.display()));
        let file = File::create(&path).map_err(failed)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            progress.note(&format!("another process is downloading {}; waiting for it", self.name));
            // A file system without locks stops nobody.
            let _ = file.lock();
        }
        Ok(file)
    }

    /// Bring the files called `names` into the snapshot, those that are not there as the Hub has them.
    pub fn download_missing(
        &self,
        client: &Client,
        name: &RepoId,
        listing: &RepoFiles,
        names: &[String],
        progress: &mut dyn DownloadProgress,
    ) -> Result<()> {
        let dir = self.dir(&listing.commit);
        let blobs = self.cache.join(&self.folder).join("blobs");
        files::create_dir(&dir)?;
        files::create_dir(&blobs)?;
        let file_list = |entry: &&RepoFile| names.contains(&entry.name) && !is_complete(&dir.join(&entry.name), entry);
        let file_list: Vec<&RepoFile> = listing.entries.iter().filter(file_list).collect();
        for (i, entry) in file_list.iter().enumerate() {
            let (pointer, blob) = (dir.join(&entry.name), blobs.join(&entry.blob));
            if !is_complete(&blob, entry) {
                let part = blobs.join(format!("{}.part", entry.blob));
                let left: u64 = file_list[i..].iter().filter_map(|entry| entry.size).sum();
                let here = fs::metadata(&part).map_or(0, |m| m.len());
                check_disk_space(&blobs, left.saturating_sub(here), name, files::free_bytes(&blobs))?;
                client.download(name, &listing.commit, entry, &part, progress)?;
                let failed = |e| Error::failed(format!("cannot write {}: {e}", blob.display()));
                fs::rename(&part, &blob).map_err(failed)?;
            }
            link(&blob, &pointer)?;
        }
        Ok(())
    }
}

/// The file is there with the length that the Hub says.
fn is_complete(path: &Path, entry: &RepoFile) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && entry.size.is_none_or(|size| size == m.len()))
}

/// Refuse a download that does not fit. `free` is what there is, if that can be told.
pub(super) fn check_disk_space(dir: &Path, needed: u64, name: &RepoId, free: Option<u64>) -> Result<()> {
    match free {
        Some(free) if free < needed => Err(Error::failed(format!(
            "no room to download {name}: {} are needed, {} are free in {}; make room, or let HF_HUB_CACHE name another locate",
            files::format_bytes(needed as usize),
            files::format_bytes(free as usize),
            dir.display()
        ))),
        _ => Ok(()),
    }
}

/// Let `pointer`, in a snapshot, be the content in `blob`; without links, the content itself moves there.
fn link(blob: &Path, pointer: &Path) -> Result<()> {
    let failed = |e: std::io::Error| Error::failed(format!("cannot write {}: {e}", pointer.display()));
    // What hangs there may be a link to nothing.
    match fs::remove_file(pointer) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let file = blob.file_name().unwrap_or_default();
    #[cfg(unix)]
    if std::os::unix::fs::symlink(Path::new("../../blobs").join(file), pointer).is_ok() {
        return Ok(());
    }
    let _ = file;
    fs::rename(blob, pointer).map_err(failed)
}
