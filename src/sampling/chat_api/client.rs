//! The client: requests at once, their retries, and the cache that pays for nothing twice.

use super::endpoint::Endpoint;
use super::response::{CachedResponse, TokenUsage};
use super::response::{Parsed, error_message, filter_code, is_too_long};
use super::schedule::{Cancel, RateLimit, lock};
use crate::io::http::{self, Backoff, ConnectionError, HttpClient, HttpOptions, MAX_BACKOFF, Timeout};
use crate::io::jsonl::JsonlLog;
use crate::model::{Prompt, SamplingParams};
use crate::sampling::{Prompts, Responder, Response, SampleOptions};
use crate::tasks::Task;
use crate::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Environment variable that holds the key, if the server needs one.
pub const API_KEY_VARIABLE: &str = "OPENAI_API_KEY";
/// Status of a request that is larger than the server takes.
const TOO_LARGE: u16 = 413;
/// Longest pause before a server that samples for a trainer is asked again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Most bytes of a response's body.
const MAX_BODY_BYTES: u64 = 16 << 20;

/// The key in [`API_KEY_VARIABLE`], if there is one.
pub fn api_key_from_env() -> Option<String> {
    std::env::var(API_KEY_VARIABLE).ok()
}

/// The client.
pub struct ChatClient<'a> {
    endpoint: &'a Endpoint,
    http: HttpClient,
    cache: Mutex<Cache>,
    rate_limit: RateLimit,
    /// The server has answered before.
    connected: AtomicBool,
    /// A long pause was reported, which lasts until then.
    warned_until: Mutex<Option<Instant>>,
    /// Receives a message for each long pause.
    note: Note<'a>,
    /// Tokens are asked for.
    tokens: Option<TokenNeeds<'a>>,
}

/// What a trainer asks of a server beside the text: the tokens of every response, as they were sampled, and their log-probabilities.
#[derive(Clone, Copy)]
pub struct TokenNeeds<'a> {
    /// Tokens that are never to be sampled.
    pub banned: &'a [u32],
    /// A server that has not answered for so long is away.
    pub patience: Duration,
    /// Set when the run is to stop: all waiting ends.
    pub stop: &'a AtomicBool,
    /// Called when the server does not know the model, before it is asked once more.
    pub reload: &'a (dyn Fn() -> Result<()> + Sync),
}

/// A prompt to be answered.
pub struct Asked<'a> {
    /// Index of the example in the task.
    pub example: usize,
    /// What its responses are kept under. Their seeds follow from it.
    pub key: String,
    /// The prompt as this program encodes it, which the server's must agree with.
    pub prompt: Option<&'a Prompt>,
}

/// Receives messages for the user while requests are under way, from any thread.
pub type Note<'a> = &'a (dyn Fn(&str) + Sync);

/// The responses so far, by example and sample, and the file that they are written to.
struct Cache {
    log: JsonlLog,
    responses: HashMap<(String, usize), CachedResponse>,
}

/// Why a request failed.
enum RequestError {
    /// The server does not know the model.
    Missing(Error),
    /// It may succeed next time, after this pause if the server asked for one.
    Transient(String, Option<Duration>),
    /// It cannot succeed, because of how it was asked.
    Rejected(Error),
    /// Neither it nor any other can succeed: the server is not there, or denies access.
    Fatal(Error),
}

impl<'a> ChatClient<'a> {
    /// A client that keeps its responses in `file`, and begins with those that are there.
    ///
    /// # Errors
    /// An input error for a key that no header can hold, a file of something else, or an https address on a processor without TLS.
    pub fn open(endpoint: &'a Endpoint, key: Option<String>, file: &Path) -> Result<ChatClient<'a>> {
        let (log, lines) = JsonlLog::open::<CachedResponse>(file)?;
        let responses = lines.into_iter().map(|cached| ((cached.id.clone(), cached.sample), cached)).collect();
        Ok(ChatClient {
            endpoint,
            http: http_client(endpoint, key)?,
            cache: Mutex::new(Cache { log, responses }),
            rate_limit: RateLimit::new(endpoint.per_minute),
            connected: AtomicBool::new(false),
            warned_until: Mutex::new(None),
            note: &|_| {},
            tokens: None,
        })
    }

    /// The same client, which asks for tokens. The server has answered before: one that does not now is away, and waited for.
    pub fn with_tokens(self, tokens: TokenNeeds<'a>) -> ChatClient<'a> {
        ChatClient { tokens: Some(tokens), connected: AtomicBool::new(true), ..self }
    }

    /// The same client, which tells `note` of long pauses.
    pub fn with_note(self, note: Note<'a>) -> ChatClient<'a> {
        ChatClient { note, ..self }
    }

    /// Tokens of all responses so far.
    pub fn usage(&self) -> TokenUsage {
        let mut usage = TokenUsage::default();
        for cached in lock(&self.cache).responses.values() {
            usage += cached.usage();
        }
        usage
    }

    /// `samples` responses to each of these examples: those in the cache, and the others from the server.
    ///
    /// # Errors
    /// An input error if the server rejects a request; a failure if it does not answer. What was answered by then is kept.
    pub fn responses(
        &self,
        task: &dyn Task,
        examples: &[usize],
        samples: usize,
        sampling: &SamplingParams,
    ) -> Result<Vec<Vec<CachedResponse>>> {
        let by_id = |&example: &usize| Ok(Asked { example, key: task.example(example)?.id.clone(), prompt: None });
        self.answers(task, &examples.iter().map(by_id).collect::<Result<Vec<_>>>()?, samples, sampling)
    }

    /// As [`ChatClient::responses`], to prompts that are kept under other keys than the ids of their examples.
    ///
    /// # Errors
    /// As [`ChatClient::responses`]; and with tokens, an input error for an answer without them, or to another prompt than this program's.
    pub fn answers(
        &self,
        task: &dyn Task,
        asked: &[Asked<'_>],
        samples: usize,
        sampling: &SamplingParams,
    ) -> Result<Vec<Vec<CachedResponse>>> {
        let mut missing = Vec::new();
        for one in asked {
            let cache = lock(&self.cache);
            let lacks = |&j: &usize| !cache.responses.contains_key(&(one.key.clone(), j));
            missing.extend((0..samples).filter(lacks).map(|j| (one, j)));
        }
        self.request_missing(task, &missing, sampling)?;
        let cache = lock(&self.cache);
        let one = |key: &String, j: usize| {
            cache.responses.get(&(key.clone(), j)).cloned().ok_or_else(|| Error::failed("a response was lost"))
        };
        asked.iter().map(|asked| (0..samples).map(|j| one(&asked.key, j)).collect()).collect()
    }

    /// Request these responses, several at once. The first error that is not transient ends all requests, also those that are pausing.
    fn request_missing(&self, task: &dyn Task, jobs: &[(&Asked<'_>, usize)], sampling: &SamplingParams) -> Result<()> {
        let (next, cancel) = (AtomicUsize::new(0), Cancel::default());
        let work = || {
            while !cancel.is_cancelled() {
                let Some(&(asked, sample)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                let response = self.request(task, asked, sample, sampling, &cancel);
                if let Err(e) = response.and_then(|response| response.map_or(Ok(()), |response| self.store(response))) {
                    cancel.cancel(e);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.endpoint.concurrency.max(1).min(jobs.len()) {
                scope.spawn(work);
            }
        });
        cancel.into_error().map_or(Ok(()), Err)
    }

    /// Write a response to the cache.
    fn store(&self, response: CachedResponse) -> Result<()> {
        let mut cache = lock(&self.cache);
        cache.log.append(&[&response])?;
        cache.responses.insert((response.id.clone(), response.sample), response);
        Ok(())
    }

    /// One response, with as many attempts as it takes; `None` if all requests ended before.
    fn request(
        &self,
        task: &dyn Task,
        asked: &Asked<'_>,
        sample: usize,
        sampling: &SamplingParams,
        cancel: &Cancel,
    ) -> Result<Option<CachedResponse>> {
        let record = task.example(asked.example)?;
        let named = |e: Error| e.context(format!("record `{}`", record.id));
        let images = task.images(asked.example).map_err(named)?;
        let (model, banned) = (&self.endpoint.model, self.tokens.map(|tokens| tokens.banned));
        let body = super::request_body::body(model, record.prompt(), &images, (&asked.key, sample), sampling, banned);
        let body = body.map_err(named)?;
        let mut backoff = Backoff::new(self.endpoint.backoff, self.endpoint.retries);
        let (mut reloaded, mut failing_since) = (false, None);
        loop {
            if !self.rate_limit.wait(cancel) {
                return Ok(None);
            }
            let (reason, retry_after) = match self.send(&body, &asked.key, sample) {
                Ok(response) => {
                    self.check_tokens(&response, asked).map_err(named)?;
                    return Ok(Some(response));
                }
                Err(RequestError::Missing(e)) => match self.tokens {
                    Some(tokens) if !reloaded => {
                        reloaded = true;
                        (tokens.reload)()?;
                        continue;
                    }
                    _ => return Err(named(e)),
                },
                Err(RequestError::Fatal(e)) => return Err(e),
                Err(RequestError::Rejected(e)) => return Err(named(e)),
                Err(RequestError::Transient(reason, retry_after)) => (reason, retry_after),
            };
            if let Some(tokens) = self.tokens {
                let since = *failing_since.get_or_insert_with(Instant::now);
                let away: Duration = since.elapsed();
                if away >= tokens.patience || tokens.stop.load(Ordering::SeqCst) {
                    return Err(Error::Unavailable(format!(
                        "{}: no answer for {:.0} s: {reason}",
                        self.endpoint.url,
                        away.as_secs_f64()
                    )));
                }
            }
            let Some(pause) = backoff.next(retry_after) else {
                let retries = self.endpoint.retries;
                return Err(Error::failed(format!(
                    "{}: {reason}{}; the responses so far are kept, and the same command continues from them",
                    self.endpoint.url,
                    if retries > 0 { format!(" (after {retries} more attempts)") } else { String::new() }
                )));
            };
            let pause = if self.tokens.is_some() { pause.min(LONGEST_PAUSE) } else { pause };
            if cancel.is_cancelled() {
                return Ok(None);
            }
            self.warn_of_long_pause(pause, &reason);
            if !cancel.sleep(pause) {
                return Ok(None);
            }
        }
    }

    /// Report a long pause, once for all requests that wait at the same time.
    fn warn_of_long_pause(&self, pause: Duration, reason: &str) {
        if pause <= MAX_BACKOFF {
            return;
        }
        let mut warned_until = lock(&self.warned_until);
        if warned_until.is_none_or(|until| until <= Instant::now()) {
            *warned_until = Some(Instant::now() + pause);
            let (url, seconds) = (&self.endpoint.url, pause.as_secs());
            (self.note)(&format!("{url}: {reason}; the server asks to wait: next attempt in {seconds} s"));
        }
    }

    /// One attempt at response `sample` to the example `id`.
    fn send(&self, body: &[u8], id: &str, sample: usize) -> Result<CachedResponse, RequestError> {
        let url = self.endpoint.completions_url();
        let mut answer = self.http.post_json(&url, body).map_err(|e| self.connection_error(&e))?;
        self.connected.store(true, Ordering::SeqCst);
        let status = answer.status().as_u16();
        let retry_after = http::retry_after(&answer);
        let location = answer.headers().get("location").and_then(|v| v.to_str().ok()).map(String::from);
        let text = answer.body_mut().with_config().limit(MAX_BODY_BYTES).read_to_string();
        let text = text.map_err(|e| match e {
            ureq::Error::Timeout(_) => RequestError::Transient(self.too_slow(), None),
            e => {
                RequestError::Transient(format!("the response broke off: {}", self.http.sanitize(&e.to_string())), None)
            }
        })?;
        if matches!(status, 400..500) {
            let error: Value = serde_json::from_str(&text).unwrap_or_default();
            if let Some(code) = filter_code(&error) {
                return Ok(CachedResponse::refused(id, sample, self.refusal(&code, &text), false));
            }
            if status == TOO_LARGE || matches!(status, 400 | 422) && is_too_long(&error, &text) {
                return Ok(CachedResponse::refused(id, sample, self.too_long(&text), true));
            }
        }
        match status {
            200 => self.parse(&text, id, sample).map_err(|why| RequestError::Transient(why, retry_after)),
            401 | 403 => {
                let has_key = self.http.has_token();
                let key = if has_key { "the key in" } else { "it needs a key, and there is none in" };
                Err(RequestError::Fatal(Error::input(format!(
                    "{}: access denied (status {status}): {key} {API_KEY_VARIABLE}{}",
                    self.endpoint.url,
                    self.with_error_message("; it says: ", &text)
                ))))
            }
            300..=399 => Err(RequestError::Fatal(Error::input(format!(
                "{}: it redirects (status {status}{}), and no redirection is followed, because it might lead away from the address that \
                 you gave; give the address of the API itself, often one that ends in /v1",
                self.endpoint.url,
                location.map(|to| format!(", to {}", self.http.sanitize(&to))).unwrap_or_default()
            )))),
            status if http::is_transient_status(status) => Err(RequestError::Transient(
                format!("status {status}{}", self.with_error_message(": ", &text)),
                retry_after,
            )),
            404 if self.tokens.is_some() => Err(RequestError::Missing(Error::input(format!(
                "{}: it does not know the adapter `{}`, which it had loaded{}",
                self.endpoint.url,
                self.endpoint.model,
                self.with_error_message("; it says: ", &text)
            )))),
            _ => {
                let odd = matches!(status, 404 | 405) && !self.endpoint.url.trim_end_matches('/').ends_with("/v1");
                Err(RequestError::Rejected(Error::input(format!(
                    "{}: status {status} for model `{}`{}{}",
                    self.endpoint.url,
                    self.endpoint.model,
                    self.with_error_message("; it says: ", &text),
                    if odd { "; the address of a chat API usually ends in /v1, and this one does not" } else { "" }
                ))))
            }
        }
    }

    /// The response in a body that came with status 200, or what is wrong with it.
    fn parse(&self, text: &str, id: &str, sample: usize) -> Result<CachedResponse, String> {
        Ok(match super::response::parse(text, id, sample, self.tokens.is_some(), &self.http)? {
            Parsed::Response(response) => response,
            Parsed::Filtered(code) => CachedResponse::refused(id, sample, self.refusal(&code, text), false),
            Parsed::TooLong => CachedResponse::refused(id, sample, self.too_long(text), true),
        })
    }

    /// Refuse what a trainer cannot use: an answer without tokens, or to another prompt than this program's.
    fn check_tokens(&self, response: &CachedResponse, asked: &Asked<'_>) -> Result<()> {
        if self.tokens.is_none() {
            return Ok(());
        }
        let bad = |why: String| Err(Error::input(format!("{}: {why}", self.endpoint.url)));
        let (tokens, logprobs) = (response.token_ids.len(), response.logprobs.len());
        if !response.refusal.is_empty() {
            return bad(format!("it gives no response: {}", response.refusal));
        }
        if tokens == 0 {
            return bad("its answers hold no `token_ids`; rollout.server needs a server that knows `return_token_ids`, such as vLLM from \
                        version 0.10.2 on"
                .into());
        }
        if logprobs != tokens {
            return bad(format!(
                "its answer has {logprobs} log-probabilities for {tokens} tokens; start it with --max-logprobs 1 or more"
            ));
        }
        let Some(prompt) = asked.prompt else { return Ok(()) };
        const CAUSE: &str =
            "another chat template, tokenizer or image size; give the server the model directory that is trained from";
        if !response.prompt_ids.is_empty() {
            // A server may name an image's placeholder once or for each of its tokens; how many there are is compared below.
            let (ours, theirs) = (without_repeats(&prompt.ids), without_repeats(&response.prompt_ids));
            if let Some(at) = (0..ours.len().max(theirs.len())).find(|&at| ours.get(at) != theirs.get(at)) {
                let shown = |ids: &[u32]| ids.get(at).map_or("missing".to_string(), u32::to_string);
                return bad(format!(
                    "its prompt is another: token {at} (equal neighbours counted once) is {} there and {} here: {CAUSE}",
                    shown(&theirs),
                    shown(&ours)
                ));
            }
        }
        if response.prompt_tokens > 0 && response.prompt_tokens != prompt.ids.len() {
            let here = prompt.ids.len();
            return bad(format!("its prompt has {} tokens, and {here} here: {CAUSE}", response.prompt_tokens));
        }
        Ok(())
    }

    /// What it means that there is no answer. A server that is slow or breaks off may answer next time. If it has never answered and
    /// refuses the connection, it is not busy but absent.
    fn connection_error(&self, e: &ureq::Error) -> RequestError {
        let (url, said) = (&self.endpoint.url, self.http.sanitize(&e.to_string()));
        match ConnectionError::of(e, url.starts_with("https://")) {
            ConnectionError::Timeout => RequestError::Transient(self.too_slow(), None),
            _ if self.connected.load(Ordering::SeqCst) => RequestError::Transient(said, None),
            ConnectionError::Tls(why) => RequestError::Fatal(Error::failed(format!("{url}: {why} ({said})"))),
            ConnectionError::Unreachable => RequestError::Fatal(Error::failed(format!(
                "{url}: no chat server answers there ({said}); is it running?"
            ))),
            ConnectionError::Other => RequestError::Transient(format!("no chat server answers there ({said})"), None),
        }
    }

    fn too_slow(&self) -> String {
        format!("no answer within {} s", self.endpoint.timeout.as_secs_f64())
    }

    /// Why the server refuses a prompt, by an error of this code.
    fn refusal(&self, code: &str, text: &str) -> String {
        format!("{}{}", self.http.sanitize(code), self.with_error_message(": ", text))
    }

    /// Why the prompt is too long, in the server's words.
    fn too_long(&self, text: &str) -> String {
        format!("too long{}", self.with_error_message(": ", text))
    }

    /// The message in an error body, after `before`; nothing if it has none.
    fn with_error_message(&self, before: &str, text: &str) -> String {
        let message = self.http.sanitize(&error_message(text));
        if message.is_empty() { message } else { format!("{before}{message}") }
    }
}

/// Token ids, equal neighbours once.
fn without_repeats(ids: &[u32]) -> Vec<u32> {
    let mut ids = ids.to_vec();
    ids.dedup();
    ids
}

/// A client of a chat server, which is shown `key`.
///
/// # Errors
/// An input error for a key that no header can hold, or an https address on a processor without TLS.
pub(in crate::sampling) fn http_client(endpoint: &Endpoint, key: Option<String>) -> Result<HttpClient> {
    let key = key.map(|key| key.trim().to_string()).filter(|key| !key.is_empty());
    if key.as_ref().is_some_and(|key| !http::is_valid_token(key)) {
        return Err(Error::input(format!(
            "{API_KEY_VARIABLE} holds a blank or a character that is not ASCII; set it to the key alone"
        )));
    }
    let certificates = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let options = HttpOptions {
        timeout: Timeout::Request(endpoint.timeout),
        certificates: certificates.as_deref(),
        follow_redirects: false,
        without_tls: "name a proxy on this machine that forwards to it",
    };
    HttpClient::new(&endpoint.url, key, &options)
}

impl Responder for ChatClient<'_> {
    fn respond(&self, prompts: &Prompts<'_>, options: &SampleOptions<'_>) -> Result<Vec<Vec<Response>>> {
        let groups = self.responses(prompts.task, prompts.examples, options.num_generations, options.sampling)?;
        Ok(groups.into_iter().map(|group| group.into_iter().map(Response::from).collect()).collect())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
pub(crate) mod tests;
