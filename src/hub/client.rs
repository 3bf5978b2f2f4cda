//! What is asked of the Hub: which files a model has, and the files. A download that breaks off is taken up where it was.

use super::file_list::{RepoFile, RepoFiles};
use super::git::GitHasher;
use super::{DownloadProgress, HubConfig, RepoId};
use crate::io::hex::hex;
use crate::io::tls;
use crate::{Error, Result};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body, ResponseExt};

/// Longest time to find the Hub and be let in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest silence in the middle of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Pauses before something is asked for again; of a download that broke off, counted anew whenever something has come.
const BACKOFF: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// Most addresses of the Hub that one leads to.
const MAX_REDIRECTS: usize = 5;
/// Bytes read and written at a time.
const CHUNK_BYTES: usize = 1 << 18;
/// Between two reports of a download.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Why something did not come.
pub(super) enum FetchError {
    /// It may come at another time, or there is no network: what was tried and why it did not work.
    Transient(String),
    /// It will not come.
    Permanent(Error),
}

impl From<Error> for FetchError {
    fn from(error: Error) -> Self {
        FetchError::Permanent(error)
    }
}

/// Speaks with the Hub.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

impl Client {
    /// # Errors
    /// An input error if TLS is needed and cannot be had, or if the token is none.
    pub fn new(settings: &HubConfig) -> Result<Client> {
        let tls = tls::config(settings.certificates.as_deref())?;
        if tls.is_none() && settings.endpoint.starts_with("https://") {
            return Err(Error::input(format!(
                "{} cannot be asked: this processor lacks what the built-in TLS needs; download the model with another tool \
                 (hf download), and give its directory",
                settings.endpoint
            )));
        }
        if settings.token.as_ref().is_some_and(|token| !token.chars().all(|c| c.is_ascii_graphic())) {
            return Err(Error::input(
                "HF_TOKEN holds characters that no token has (or the token that `hf auth login` has stored does); set it to the token alone",
            ));
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("jigsaw/", env!("CARGO_PKG_VERSION")))
            // Where it may go is seen to in `get`: another port of the same host is another server.
            .redirect_auth_headers(RedirectAuthHeaders::Never)
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT));
        config = match tls {
            Some(tls) => config.tls_config(tls),
            // A redirection to https would need what is not there.
            None => config.max_redirects(0),
        };
        let host = settings.endpoint.trim_start_matches("http://");
        if ["localhost", "127.", "[::1]"].iter().any(|own| host.starts_with(own)) {
            config = config.proxy(None);
        }
        let (endpoint, token) = (settings.endpoint.clone(), settings.token.clone());
        Ok(Client { agent: config.build().into(), endpoint, token })
    }

    /// What `name` holds; asked for again after a passing trouble if `patient`.
    pub fn listing(&self, name: &RepoId, patient: bool) -> Result<RepoFiles, FetchError> {
        let mut tries = BACKOFF.iter().filter(|_| patient);
        loop {
            match (self.listing_at_once(name), tries.next()) {
                (Err(FetchError::Transient(_)), Some(pause)) => std::thread::sleep(*pause),
                (found, _) => return found,
            }
        }
    }

    fn listing_at_once(&self, name: &RepoId) -> Result<RepoFiles, FetchError> {
        let revision = name.revision.replace('/', "%2F");
        let url = format!("{}/api/models/{}/revision/{revision}?blobs=true", self.endpoint, name.id);
        let mut response = self.get(&url, name, None)?;
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string();
        let text = text.map_err(|e| FetchError::Transient(format!("{} broke off: {e}", self.endpoint)))?;
        let said: ModelInfo = serde_json::from_str(&text)
            .map_err(|e| Error::failed(format!("{url}: not the answer of a Hub ({e}); is HF_ENDPOINT right?")))?;
        said.listing()
            .ok_or_else(|| Error::failed(format!("{url}: the answer names no commit; is HF_ENDPOINT right?")).into())
    }

    /// Bring a file to `part`, which may hold the beginning of it, and see that it is what the Hub says.
    ///
    /// # Errors
    /// A failure that names the file; what has come stays in `part`, but for a content that is not the right one.
    pub fn download(
        &self,
        name: &RepoId,
        commit: &str,
        entry: &RepoFile,
        part: &Path,
        progress: &mut dyn DownloadProgress,
    ) -> Result<()> {
        let mut tries = BACKOFF.iter();
        loop {
            let before = length(part);
            match self.attempt(name, commit, entry, part, progress) {
                Ok(()) => return Ok(()),
                Err(FetchError::Permanent(error)) => return Err(error),
                Err(FetchError::Transient(why)) => {
                    if length(part) > before {
                        tries = BACKOFF.iter();
                    }
                    let Some(pause) = tries.next() else {
                        return Err(Error::failed(format!(
                            "{} of {name} could not be downloaded: {why}. What has come stays in {}; the same command goes on from \
                             there",
                            entry.name,
                            part.display()
                        )));
                    };
                    std::thread::sleep(*pause);
                }
            }
        }
    }

    fn attempt(
        &self,
        name: &RepoId,
        commit: &str,
        entry: &RepoFile,
        part: &Path,
        progress: &mut dyn DownloadProgress,
    ) -> Result<(), FetchError> {
        let failed = |e: std::io::Error| Error::failed(format!("cannot write {}: {e}", part.display()));
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(part).map_err(failed)?;
        let mut sum =
            Checksum { bytes: 0, hasher: Sha256::new(), git: entry.git_hasher(), chunk: vec![0; CHUNK_BYTES] };
        // What is too long, or may be all there is, is begun anew.
        if entry.size.is_none_or(|size| length(part) > size) {
            file.set_len(0).map_err(failed)?;
        }
        sum.add(&mut file).map_err(failed)?;
        if entry.size.is_none_or(|size| sum.bytes < size) {
            let url = format!("{}/{}/resolve/{commit}/{}", self.endpoint, name.id, entry.name);
            let mut response = self.get(&url, name, (sum.bytes > 0).then_some(sum.bytes))?;
            if sum.bytes > 0 && response.status() != 206 {
                // A server that does not give parts gives all.
                file.set_len(0).map_err(failed)?;
                (sum.bytes, sum.hasher, sum.git) = (0, Sha256::new(), entry.git_hasher());
            }
            self.copy(&mut response, &mut file, part, &mut sum, entry, progress)?;
        }
        file.sync_all().map_err(failed)?;
        if let Some(size) = entry.size.filter(|size| *size > sum.bytes) {
            return Err(FetchError::Transient(format!(
                "{} broke off after {} of {size} bytes",
                self.endpoint, sum.bytes
            )));
        }
        let found: String = hex(sum.hasher.finalize());
        let right = entry.size.is_none_or(|size| size == sum.bytes)
            && entry.sha256.as_ref().is_none_or(|sha256| sha256.eq_ignore_ascii_case(&found))
            && sum.git.is_none_or(|git| git.finish().eq_ignore_ascii_case(&entry.blob));
        if right {
            return Ok(());
        }
        let _ = std::fs::remove_file(part);
        Err(FetchError::Permanent(Error::failed(format!(
            "{} of {name} came with another content ({} bytes, SHA-256 {found}) than the Hub says; it was removed, and the same command \
             downloads it again",
            entry.name, sum.bytes
        ))))
    }

    fn copy(
        &self,
        response: &mut Response<Body>,
        file: &mut File,
        part: &Path,
        sum: &mut Checksum,
        entry: &RepoFile,
        progress: &mut dyn DownloadProgress,
    ) -> Result<(), FetchError> {
        let mut reader = response.body_mut().as_reader();
        let total = entry.size.unwrap_or(0);
        let mut told: Option<Instant> = None;
        loop {
            let came = match reader.read(&mut sum.chunk) {
                Ok(0) => break,
                Ok(came) => came,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(FetchError::Transient(format!("{} broke off: {e}", self.endpoint))),
            };
            let came = &sum.chunk[..came];
            file.write_all(came).map_err(|e| {
                Error::failed(format!(
                    "cannot write {}: {e}; what has come stays there, and the same command goes on",
                    part.display()
                ))
            })?;
            sum.hasher.update(came);
            sum.git.iter_mut().for_each(|git| git.update(came));
            sum.bytes += came.len() as u64;
            if told.is_none_or(|told| told.elapsed() >= REPORT_INTERVAL) {
                told = Some(Instant::now());
                progress.file(&entry.name, sum.bytes, total);
            }
        }
        progress.file(&entry.name, sum.bytes, total);
        Ok(())
    }

    /// Ask for an address of the Hub; `from` is the first byte that is file_list. The token goes to the Hub alone: where one of its addresses
    /// leads to another one, as of a model that was renamed, that one is asked with the token if it does not answer without.
    fn get(&self, url: &str, name: &RepoId, from: Option<u64>) -> Result<Response<Body>, FetchError> {
        let (mut asked, mut response) = (url.to_string(), self.ask(url, from)?);
        for _ in 0..MAX_REDIRECTS {
            let last = response.get_uri().to_string();
            if self.token.is_none()
                || response.status().is_success()
                || last == asked
                || !self.is_hub(response.get_uri())
            {
                break;
            }
            response = self.ask(&last, from)?;
            asked = last;
        }
        let status = response.status().as_u16();
        let code = response.headers().get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or_default();
        match status {
            200 | 206 => Ok(response),
            429 | 500.. => Err(FetchError::Transient(format!("{} answers {status}", self.endpoint))),
            401 | 403 | 404 | 410 if !self.is_hub(response.get_uri()) => Err(FetchError::Transient(format!(
                "the storage {} refuses it ({status}); the address that the Hub gave for it may have expired",
                response.get_uri().host().unwrap_or_default()
            ))),
            _ => Err(self.refused(url, name, status, code).into()),
        }
    }

    /// Whether an address is on the Hub's own server.
    fn is_hub(&self, uri: &Uri) -> bool {
        let hub = self.endpoint.parse::<Uri>();
        hub.is_ok_and(|hub| hub.scheme() == uri.scheme() && hub.authority() == uri.authority())
    }

    /// One request, and what it leads to without the token.
    fn ask(&self, url: &str, from: Option<u64>) -> Result<Response<Body>, FetchError> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(from) = from {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call().map_err(|e| FetchError::Transient(format!("{} cannot be reached: {e}", self.endpoint)))
    }

    fn refused(&self, url: &str, name: &RepoId, status: u16, code: &str) -> Error {
        let (hub, id, revision) = (&self.endpoint, &name.id, &name.revision);
        let here = format!("no model at {name}: there is no such directory, and");
        match (status, code) {
            (403, _) | (_, "GatedRepo") => Error::input(format!(
                "{here} {hub} gives {id} only to those who were granted access ({status}): ask for it at {hub}/{id}, and set HF_TOKEN to a \
                 token of that account"
            )),
            (401, _) if self.token.is_some() => Error::input(format!(
                "{here} {hub} does not give {id} to the account of HF_TOKEN, or does not know that token (401); is the name right?"
            )),
            (401, _) => Error::input(format!(
                "{here} {hub} gives no {id} without a token (401): it does not exist, or it is private or gated; if the name is right, \
                 set HF_TOKEN to a token of an account that may read it"
            )),
            (404, _) if url.contains("/resolve/") => Error::input(format!("{url}: the Hub has no such file (404)")),
            (404, "RevisionNotFound") => Error::input(format!("{hub} has no revision {revision} of {id}")),
            (404, _) => Error::input(format!("{here} {hub} has no model {id} (404); is the name right?")),
            _ => Error::failed(format!("{url}: the Hub answers {status}")),
        }
    }
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}

/// What has come of a file.
struct Checksum {
    bytes: u64,
    hasher: Sha256,
    /// Of a small file.
    git: Option<GitHasher>,
    chunk: Vec<u8>,
}

impl Checksum {
    /// Count what is in a file.
    fn add(&mut self, file: &mut File) -> std::io::Result<()> {
        loop {
            match file.read(&mut self.chunk)? {
                0 => return Ok(()),
                n => {
                    self.hasher.update(&self.chunk[..n]);
                    self.git.iter_mut().for_each(|git| git.update(&self.chunk[..n]));
                    self.bytes += n as u64;
                }
            }
        }
    }
}

/// What the Hub says of a model.
#[derive(Deserialize)]
struct ModelInfo {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<LfsInfo>,
}

#[derive(Deserialize)]
struct LfsInfo {
    sha256: Option<String>,
    size: Option<u64>,
}

impl ModelInfo {
    fn listing(self) -> Option<RepoFiles> {
        let hex = |text: &String| text.len() >= 40 && text.chars().all(|c| c.is_ascii_hexdigit());
        let commit = self.sha.filter(hex)?;
        let entry = |sibling: Sibling| {
            let sha256 = sibling.lfs.as_ref().and_then(|lfs| lfs.sha256.clone()).filter(hex);
            let git = sibling.blob_id.filter(|_| sibling.lfs.is_none());
            let size = sibling.size.or(sibling.lfs.and_then(|lfs| lfs.size));
            let named = || format!("{commit}-{}", sibling.rfilename.replace(['/', '\\'], "-"));
            // Of a large file git's name is that of what stands for it in git.
            let blob = sha256.clone().or(git.filter(hex)).unwrap_or_else(named);
            RepoFile { name: sibling.rfilename, size, sha256, blob }
        };
        Some(RepoFiles { entries: self.siblings.into_iter().map(entry).collect(), commit })
    }
}
