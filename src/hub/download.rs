//! A file of the Hub: downloaded in one piece or continued where a download broke off, and compared with the checksum that the Hub names.

use super::client::{FetchError, HubClient, backoff};
use super::git::GitHasher;
use super::listing::RepoFile;
use super::repo_id::RepoId;
use crate::io::hex;
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use ureq::Body;
use ureq::http::Response;

/// Bytes read and written at a time.
const CHUNK_BYTES: usize = 1 << 18;
/// Between two reports of progress.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Follows a download.
pub trait DownloadProgress {
    /// A message for the user.
    fn note(&mut self, text: &str);
    /// `done` bytes of a file are there; `total` is 0 where it is not known.
    fn file(&mut self, name: &str, done: u64, total: u64);
}

/// Download a file to `part`, which may hold its beginning, and verify it.
///
/// # Errors
/// A failure that names the file. What was downloaded stays in `part`, unless its checksum is wrong.
pub(super) fn download(
    client: &HubClient,
    repo: &RepoId,
    commit: &str,
    file: &RepoFile,
    part: &Path,
    progress: &mut dyn DownloadProgress,
) -> Result<()> {
    let mut pauses = backoff();
    loop {
        let before = length(part);
        match attempt(client, repo, commit, file, part, progress) {
            Ok(()) => return Ok(()),
            Err(FetchError::Permanent(error)) => return Err(error),
            Err(FetchError::Transient(why, retry_after)) => {
                if length(part) > before {
                    pauses = backoff();
                }
                let Some(pause) = pauses.next(retry_after) else {
                    return Err(Error::failed(format!(
                        "{} of {repo} could not be downloaded: {why}. What was downloaded stays in {}; the same command continues from \
                         there",
                        file.name,
                        part.display()
                    )));
                };
                std::thread::sleep(pause);
            }
        }
    }
}

fn attempt(
    client: &HubClient,
    repo: &RepoId,
    commit: &str,
    file: &RepoFile,
    part: &Path,
    progress: &mut dyn DownloadProgress,
) -> Result<(), FetchError> {
    let failed = |e: std::io::Error| Error::failed(format!("cannot write {}: {e}", part.display()));
    let mut out = OpenOptions::new().read(true).append(true).create(true).open(part).map_err(failed)?;
    // If the partial file is longer than expected, or may be complete already, download it again.
    if file.size.is_none_or(|size| length(part) > size) {
        out.set_len(0).map_err(failed)?;
    }
    let mut sum = Checksum::new(file);
    sum.add_file(&mut out).map_err(failed)?;
    if file.size.is_none_or(|size| sum.bytes < size) {
        let url = format!("{}/{}/resolve/{commit}/{}", client.endpoint, repo.id, file.name);
        let mut response = client.get(&url, repo, (sum.bytes > 0).then_some(sum.bytes))?;
        if sum.bytes > 0 && response.status() != 206 {
            // The server does not serve parts and sends the whole file.
            out.set_len(0).map_err(failed)?;
            sum = Checksum::new(file);
        }
        let copied = copy(client, &mut response, &mut out, part, &mut sum, file, progress)?;
        if let Copied::TooMuch = copied {
            let _ = std::fs::remove_file(part);
            return Err(FetchError::Permanent(Error::failed(format!(
                "{} of {repo} is longer than the {} bytes that the Hub announces; what came of it was removed",
                file.name,
                file.size.unwrap_or(0)
            ))));
        }
    }
    out.sync_all().map_err(failed)?;
    if let Some(size) = file.size.filter(|size| *size > sum.bytes) {
        let why = format!("{} broke off after {} of {size} bytes", client.endpoint, sum.bytes);
        return Err(FetchError::Transient(why, None));
    }
    let (bytes, found) = (sum.bytes, hex(&sum.sha256.finalize()));
    let right = file.size.is_none_or(|size| size == bytes)
        && file.sha256.as_ref().is_none_or(|sha256| sha256.eq_ignore_ascii_case(&found))
        && sum.git.is_none_or(|git| git.finish().eq_ignore_ascii_case(&file.blob));
    if right {
        return Ok(());
    }
    let _ = std::fs::remove_file(part);
    Err(FetchError::Permanent(Error::failed(format!(
        "{} of {repo} came with another content ({bytes} bytes, SHA-256 {found}) than the Hub says; it was removed, and the same command \
         downloads it again",
        file.name
    ))))
}

/// How copying a body ended.
enum Copied {
    /// With the body.
    Whole,
    /// Where more came than was announced. An endless body must not fill the disk.
    TooMuch,
}

/// Append the body of `response` to `out`, no more than the length of the file, and report the progress.
fn copy(
    client: &HubClient,
    response: &mut Response<Body>,
    out: &mut File,
    part: &Path,
    sum: &mut Checksum,
    file: &RepoFile,
    progress: &mut dyn DownloadProgress,
) -> Result<Copied, FetchError> {
    let mut reader = response.body_mut().as_reader();
    let total = file.size.unwrap_or(0);
    let mut last_report: Option<Instant> = None;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let received = match reader.read(&mut chunk) {
            Ok(0) => break,
            Ok(received) => &chunk[..received],
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(FetchError::Transient(format!("{} broke off: {e}", client.endpoint), None)),
        };
        if file.size.is_some_and(|size| sum.bytes + received.len() as u64 > size) {
            return Ok(Copied::TooMuch);
        }
        out.write_all(received).map_err(|e| {
            Error::failed(format!(
                "cannot write {}: {e}; what was downloaded stays there, and the same command continues from it",
                part.display()
            ))
        })?;
        sum.add(received);
        if last_report.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL) {
            last_report = Some(Instant::now());
            progress.file(&file.name, sum.bytes, total);
        }
    }
    progress.file(&file.name, sum.bytes, total);
    Ok(Copied::Whole)
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}

/// Length and hashes of what was downloaded of a file.
struct Checksum {
    bytes: u64,
    sha256: Sha256,
    /// Git's hash, for a small file.
    git: Option<GitHasher>,
}

impl Checksum {
    fn new(file: &RepoFile) -> Checksum {
        Checksum { bytes: 0, sha256: Sha256::new(), git: file.git_hasher() }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.git.iter_mut().for_each(|git| git.update(bytes));
        self.bytes += bytes.len() as u64;
    }

    fn add_file(&mut self, file: &mut File) -> std::io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut chunk)? {
                0 => return Ok(()),
                n => self.add(&chunk[..n]),
            }
        }
    }
}
