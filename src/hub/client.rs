//! What is asked of the Hub: which files a model has, and the files.

use super::config::HubConfig;
use super::listing::{RepoFile, RepoListing};
use super::repo_id::RepoId;
use crate::io::http::{self, Backoff, HttpClient, HttpOptions, Timeout};
use crate::io::plain::json_fault;
use crate::{Error, Result};
use serde::Deserialize;
use std::time::Duration;
use ureq::http::Response;
use ureq::{Body, ResponseExt};

/// Longest silence in the middle of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// The first pause before a request is repeated.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Times a request is repeated; for a download, counted from the last time that something came.
const RETRIES: usize = 3;
/// Most addresses of the Hub that one leads to.
const MAX_REDIRECTS: usize = 5;

/// Why something did not come.
pub(super) enum FetchError {
    /// It may come at another time, or there is no network: what was tried and why it did not work, and the pause that the server asks for.
    Transient(String, Option<Duration>),
    /// It will not come.
    Permanent(Error),
}

impl From<Error> for FetchError {
    fn from(error: Error) -> Self {
        FetchError::Permanent(error)
    }
}

/// The pauses between attempts.
pub(super) fn backoff() -> Backoff {
    Backoff::new(FIRST_PAUSE, RETRIES)
}

/// A client of the Hub.
pub(super) struct HubClient {
    http: HttpClient,
    /// Address of the Hub.
    pub endpoint: String,
}

impl HubClient {
    /// # Errors
    /// An input error if TLS is needed and cannot be had, or if no header can hold the token.
    pub fn new(config: &HubConfig) -> Result<HubClient> {
        if config.token.as_ref().is_some_and(|token| !http::is_valid_token(token)) {
            return Err(Error::input(
                "HF_TOKEN holds characters that no token has (or the token that `hf auth login` has stored does); set it to the token alone",
            ));
        }
        let options = HttpOptions {
            timeout: Timeout::Read(READ_TIMEOUT),
            certificates: config.certificates.as_deref(),
            follow_redirects: true,
            without_tls: "download the model with another tool (hf download), and give its directory",
        };
        let http = HttpClient::new(&config.endpoint, config.token.clone(), &options)?;
        Ok(HubClient { http, endpoint: config.endpoint.clone() })
    }

    /// The files of `repo`. With `retry`, a request that failed for a passing reason is repeated.
    pub fn listing(&self, repo: &RepoId, retry: bool) -> Result<RepoListing, FetchError> {
        let mut backoff = backoff();
        loop {
            match self.listing_once(repo) {
                Err(FetchError::Transient(why, retry_after)) => match backoff.next(retry_after).filter(|_| retry) {
                    Some(pause) => std::thread::sleep(pause),
                    None => return Err(FetchError::Transient(why, retry_after)),
                },
                found => return found,
            }
        }
    }

    fn listing_once(&self, repo: &RepoId) -> Result<RepoListing, FetchError> {
        let revision = repo.revision.replace('/', "%2F");
        let url = format!("{}/api/models/{}/revision/{revision}?blobs=true", self.endpoint, repo.id);
        let mut response = self.get(&url, repo, None)?;
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string();
        let text = text.map_err(|e| FetchError::Transient(format!("{} broke off: {e}", self.endpoint), None))?;
        let info: ModelInfo = serde_json::from_str(&text).map_err(|e| {
            Error::failed(format!("{url}: not the answer of a Hub ({}); is HF_ENDPOINT right?", json_fault(&e)))
        })?;
        info.listing()
            .ok_or_else(|| Error::failed(format!("{url}: the answer names no commit; is HF_ENDPOINT right?")).into())
    }

    /// Ask for an address of the Hub, from the byte `from` on. The token goes to the Hub alone: an address that one of its addresses leads
    /// to, as for a model that was renamed, is asked with the token only if it is the Hub's own and does not answer without.
    pub fn get(&self, url: &str, repo: &RepoId, from: Option<u64>) -> Result<Response<Body>, FetchError> {
        let (mut asked, mut response) = (url.to_string(), self.request(url, from)?);
        for _ in 0..MAX_REDIRECTS {
            let last = response.get_uri().to_string();
            let answered = response.status().is_success() || last == asked;
            if !self.http.has_token() || answered || !self.http.is_own_server(response.get_uri()) {
                break;
            }
            response = self.request(&last, from)?;
            asked = last;
        }
        let status = response.status().as_u16();
        let code = response.headers().get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or_default();
        match status {
            200 | 206 => Ok(response),
            status if http::is_transient_status(status) => {
                Err(FetchError::Transient(format!("{} answers {status}", self.endpoint), http::retry_after(&response)))
            }
            401 | 403 | 404 | 410 if !self.http.is_own_server(response.get_uri()) => {
                let storage = response.get_uri().host().unwrap_or_default();
                Err(FetchError::Transient(
                    format!(
                        "the storage {storage} refuses it ({status}); the address that the Hub gave for it may have expired"
                    ),
                    None,
                ))
            }
            _ => Err(self.refused(url, repo, status, code).into()),
        }
    }

    /// One request, and what it leads to without the token.
    fn request(&self, url: &str, from: Option<u64>) -> Result<Response<Body>, FetchError> {
        let unreachable = |e| FetchError::Transient(format!("{} cannot be reached: {e}", self.endpoint), None);
        self.http.get(url, from).map_err(unreachable)
    }

    fn refused(&self, url: &str, repo: &RepoId, status: u16, code: &str) -> Error {
        let (hub, id, revision) = (&self.endpoint, &repo.id, &repo.revision);
        let here = format!("no model at {repo}: there is no such directory, and");
        match (status, code) {
            (403, _) | (_, "GatedRepo") => Error::input(format!(
                "{here} {hub} gives {id} only to those who were granted access ({status}): ask for it at {hub}/{id}, and set HF_TOKEN to a \
                 token of that account"
            )),
            (401, _) if self.http.has_token() => Error::input(format!(
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
    fn listing(self) -> Option<RepoListing> {
        let hex = |text: &String| text.len() >= 40 && text.chars().all(|c| c.is_ascii_hexdigit());
        let commit = self.sha.filter(hex)?;
        let file = |sibling: Sibling| {
            let sha256 = sibling.lfs.as_ref().and_then(|lfs| lfs.sha256.clone()).filter(hex);
            // For a large file, git's hash is that of a pointer and not of the content.
            let git = sibling.blob_id.filter(|_| sibling.lfs.is_none());
            let size = sibling.size.or(sibling.lfs.and_then(|lfs| lfs.size));
            let named = || format!("{commit}-{}", sibling.rfilename.replace(['/', '\\'], "-"));
            let blob = sha256.clone().or(git.filter(hex)).unwrap_or_else(named);
            RepoFile { name: sibling.rfilename, size, sha256, blob }
        };
        Some(RepoListing { files: self.siblings.into_iter().map(file).collect(), commit })
    }
}
