//! The Hub's cache on this machine, in the layout that all of Hugging Face's tools share:
//! `models--OWNER--NAME/` with `blobs/` (contents), `snapshots/COMMIT/` (links to them) and `refs/REVISION` (a commit).

use super::client::HubClient;
use super::config::HubConfig;
use super::download::{DownloadProgress, download};
use super::listing::{RepoFile, RepoListing};
use super::repo_id::RepoId;
use crate::io::files;
use crate::{Error, Result};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// The part of the cache that belongs to one model.
pub(super) struct RepoCache {
    cache: PathBuf,
    folder: String,
    repo: RepoId,
    files: CacheRepo,
}

impl RepoCache {
    pub fn new(repo: &RepoId, config: &HubConfig) -> RepoCache {
        let files = Repo::with_revision(repo.id.clone(), RepoType::Model, repo.revision.clone());
        let folder = files.folder_name();
        let files = Cache::new(config.cache.clone()).repo(files);
        RepoCache { cache: config.cache.clone(), folder, repo: repo.clone(), files }
    }

    /// Where the snapshot of a commit is, or will be.
    pub fn snapshot_of(&self, commit: &str) -> PathBuf {
        self.files.pointer_path(commit)
    }

    /// The snapshot that the revision meant when it was last downloaded.
    pub fn snapshot(&self) -> Option<PathBuf> {
        let dir = match self.repo.is_commit() {
            true => self.snapshot_of(&self.repo.revision),
            false => {
                let anything = ["config.json", "adapter_config.json"].iter().find_map(|file| self.files.get(file))?;
                anything.parent()?.to_path_buf()
            }
        };
        dir.is_dir().then_some(dir)
    }

    /// Remember that the revision means `commit`. A commit means itself.
    pub fn write_ref(&self, commit: &str) -> Result<()> {
        if self.repo.is_commit() {
            return Ok(());
        }
        let failed = |e| Error::failed(format!("cannot write to {}: {e}", self.cache.join(&self.folder).display()));
        self.files.create_ref(commit).map_err(failed)
    }

    /// Keep other processes of this program from downloading the same model; wait for one that does.
    pub fn lock(&self, progress: &mut dyn DownloadProgress) -> Result<File> {
        let dir = self.cache.join(".locks").join(&self.folder);
        files::create_dir(&dir)?;
        let path = dir.join("jigsaw.lock");
        let failed = |e: std::io::Error| Error::failed(format!("cannot write {}: {e}", path.display()));
        let file = File::create(&path).map_err(failed)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            progress.note(&format!("another process is downloading {}; waiting for it", self.repo));
            // On a file system without locks nobody waits.
            let _ = file.lock();
        }
        Ok(file)
    }

    /// Download those of the files called `names` that the snapshot lacks, or has in another length than the Hub.
    pub fn download_missing(
        &self,
        client: &HubClient,
        listing: &RepoListing,
        names: &[String],
        progress: &mut dyn DownloadProgress,
    ) -> Result<()> {
        let dir = self.snapshot_of(&listing.commit);
        let blobs = self.cache.join(&self.folder).join("blobs");
        files::create_dir(&dir)?;
        files::create_dir(&blobs)?;
        let lacks = |file: &&RepoFile| names.contains(&file.name) && !is_complete(&dir.join(&file.name), file);
        let missing: Vec<&RepoFile> = listing.files.iter().filter(lacks).collect();
        for (i, file) in missing.iter().enumerate() {
            let (pointer, blob) = (dir.join(&file.name), blobs.join(&file.blob));
            if !is_complete(&blob, file) {
                let part = blobs.join(format!("{}.part", file.blob));
                let left: u64 = missing[i..].iter().filter_map(|file| file.size).sum();
                let here = fs::metadata(&part).map_or(0, |m| m.len());
                check_disk_space(&blobs, left.saturating_sub(here), &self.repo, files::free_bytes(&blobs))?;
                download(client, &self.repo, &listing.commit, file, &part, progress)?;
                let failed = |e| Error::failed(format!("cannot write {}: {e}", blob.display()));
                fs::rename(&part, &blob).map_err(failed)?;
            }
            link(&blob, &pointer)?;
        }
        Ok(())
    }
}

/// Whether the file is there in the length that the Hub says.
fn is_complete(path: &Path, file: &RepoFile) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && file.size.is_none_or(|size| size == m.len()))
}

/// Refuse a download that does not fit on the disk. `free` is `None` where the free space is not known.
pub(super) fn check_disk_space(dir: &Path, needed: u64, repo: &RepoId, free: Option<u64>) -> Result<()> {
    match free {
        Some(free) if free < needed => Err(Error::failed(format!(
            "no room to download {repo}: {} are needed, {} are free in {}; free some space, or set HF_HUB_CACHE to another directory",
            files::format_bytes(needed as usize),
            files::format_bytes(free as usize),
            dir.display()
        ))),
        _ => Ok(()),
    }
}

/// Make `pointer`, in a snapshot, a link to `blob`. Where links are not possible, the content itself moves there.
fn link(blob: &Path, pointer: &Path) -> Result<()> {
    let failed = |e: std::io::Error| Error::failed(format!("cannot write {}: {e}", pointer.display()));
    // It may be a dangling link, which `exists` would not see.
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
