//! A model behind an address: a client of the chat API that OpenAI's servers, vLLM, SGLang, llama.cpp and Ollama speak. It answers as
//! the teacher of a rollout and as the model of an evaluation.
//!
//! Text goes as it is, images as data URLs of PNG, in the size they have. A request that fails for a passing reason (a broken connection, 408,
//! 429, 5xx, a body that is cut off or says that something failed) is made again after a pause that doubles, or as long as the server says,
//! up to an hour. That a content filter refuses a prompt, or its answer, is an answer too. Every response is written to a file as it comes,
//! so that none is cached for twice.
//! No redirection is followed, which might lead away from the address that was named. The key is read from the environment, and is taken out of
//! what a server says where it complains or refuses; what a model answers is kept as it comes.

mod connection_error;
mod response;

pub use response::{CachedResponse, TokenUsage};

use crate::data::{IMAGE_PLACEHOLDER, Message};
use crate::io::jsonl::JsonlLog;
use crate::io::tls;
use crate::model::Sampling;
use crate::sampling::{Generated, Prompts, Responder, SampleOptions};
use crate::tasks::Task;
use crate::{Error, Result, rng};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{ImageFormat, RgbImage};
use rand::Rng as _;
use response::{ERROR_REASONS, FILTER_REASONS, LENGTH_REASONS, filter_code, refusal_message, text_of};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Environment variable that holds the key, if the server wants one.
pub const API_KEY_VARIABLE: &str = "OPENAI_API_KEY";
/// Longest pause before a request is made again, where the server names none.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Longest pause that a server may ask for; one that asks for more is asked again after this one.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// A connection must be there after so long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of a response's body.
const MAX_BODY_BYTES: u64 = 16 << 20;
/// Characters of a server's error_message that are shown.
const MAX_SHOWN_CHARS: usize = 300;

/// Before a failed request is made again for the first time.
pub const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
/// A response must be there after so long, unless the user says otherwise.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);

/// The key in [`API_KEY_VARIABLE`], if there is one.
pub fn api_key_from_env() -> Option<String> {
    std::env::var(API_KEY_VARIABLE).ok()
}

/// Where the model is, and how it is treated.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Address up to and with `/v1`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// Requests under way at once.
    pub concurrency: usize,
    /// Requests begun in a minute, at most; `None` for no limit.
    pub per_minute: Option<u32>,
    /// Times a failed request is made again.
    pub retries: usize,
    /// Pause before the first time.
    pub backoff: Duration,
    /// A response must be there after so long.
    pub timeout: Duration,
}

impl Endpoint {
    /// Refuse an address that cannot be used; `flag` is the one that it was given by.
    ///
    /// # Errors
    /// An input error for what is no address, names a user or a password, or a port that there cannot be.
    pub fn check(&self, flag: &str) -> Result<()> {
        let bad = |why: String| Err(Error::input(format!("{flag} {}: {why}", self.url)));
        const FORM: &str = "write http://HOST:PORT/v1 or https://HOST/v1";
        let Some(rest) = self.url.strip_prefix("https://").or_else(|| self.url.strip_prefix("http://")) else {
            return bad(format!("no address of a chat API; {FORM}"));
        };
        let server = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // An address of IPv6 stands in brackets, for it is full of colons itself.
        let (host, port) = match server.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (server, None),
        };
        let colons = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        if host.is_empty() || colons || rest.contains(|c: char| c == '@' || c.is_whitespace()) {
            return bad(FORM.into());
        }
        match port {
            Some(port) if !port.parse::<u16>().is_ok_and(|port| port > 0) => {
                bad(format!("`{port}` is no port, which is a number from 1 to 65535; {FORM}"))
            }
            _ => Ok(()),
        }
    }

    /// The model and its address, for keys and for people.
    pub fn name(&self) -> String {
        format!("{} at {}", self.model, self.url)
    }
}

/// The client.
pub struct ChatClient<'a> {
    endpoint: &'a Endpoint,
    agent: ureq::Agent,
    key: Option<String>,
    cache: Mutex<Cache>,
    /// When the next request may begin.
    next_slot: Mutex<Instant>,
    /// The server has begun an answer before.
    connected: AtomicBool,
    /// A long wait was said, which lasts until then.
    warned_until: Mutex<Option<Instant>>,
}

/// The responses so far, by example and sample, and the file that they are written to.
struct Cache {
    log: JsonlLog,
    responses: HashMap<(String, usize), CachedResponse>,
}

/// The failure that ends all requests, once there is one.
#[derive(Default)]
struct Cancel {
    error: Mutex<Option<Error>>,
    changed: Condvar,
}

impl Cancel {
    /// Cancel them, unless they are ended already.
    fn cancel(&self, e: Error) {
        lock(&self.error).get_or_insert(e);
        self.changed.notify_all();
    }

    fn is_cancelled(&self) -> bool {
        lock(&self.error).is_some()
    }

    /// Sleep so long, or until the cancel: whether it has not come.
    fn sleep(&self, pause: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(lock(&self.error), pause, |error| error.is_none());
        waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0.is_none()
    }
}

/// Why a request failed.
enum RequestError {
    /// It may go well next time, after this pause if the server named one.
    Transient(String, Option<Duration>),
    /// It will not, because of how it was asked.
    Rejected(Error),
    /// It will not, nor will any other: is_unreachable is there, or is_unreachable is let in.
    Fatal(Error),
}

impl<'a> ChatClient<'a> {
    /// A client that keeps its responses in `file`, and begins with those that are there.
    pub fn open(endpoint: &'a Endpoint, key: Option<String>, file: &Path) -> Result<ChatClient<'a>> {
        let key = key.map(|key| key.trim().to_string()).filter(|key| !key.is_empty());
        if key.as_ref().is_some_and(|key| !key.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Error::input(format!(
                "{API_KEY_VARIABLE} holds a blank or a character that is none of ASCII's: no key"
            )));
        }
        let (log, lines) = JsonlLog::open::<CachedResponse>(file)?;
        let responses = lines.into_iter().map(|cached| ((cached.id.clone(), cached.sample), cached)).collect();
        let mut config = ureq::Agent::config_builder()
            .timeout_global(Some(endpoint.timeout))
            .timeout_connect(Some(CONNECT_TIMEOUT.min(endpoint.timeout)))
            .http_status_as_error(false)
            .max_redirects(0);
        if endpoint.url.starts_with("https://") {
            let certificates = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
            let tls = tls::config(certificates.as_deref())?.ok_or_else(|| {
                Error::input(format!(
                    "{} cannot be asked: this processor lacks what the built-in TLS needs; name a proxy on this machine that forwards to it",
                    endpoint.url
                ))
            })?;
            config = config.tls_config(tls);
        }
        let host = endpoint.url.trim_start_matches("https://").trim_start_matches("http://");
        if ["localhost", "127.", "[::1]"].iter().any(|own| host.starts_with(own)) {
            config = config.proxy(None);
        }
        Ok(ChatClient {
            endpoint,
            agent: config.build().into(),
            key,
            cache: Mutex::new(Cache { log, responses }),
            next_slot: Mutex::new(Instant::now()),
            connected: AtomicBool::new(false),
            warned_until: Mutex::new(None),
        })
    }

    /// Tokens of all responses so far.
    pub fn usage(&self) -> TokenUsage {
        let mut usage = TokenUsage::default();
        for cached in lock(&self.cache).responses.values() {
            let (prompts, responses) = (cached.prompt_tokens, cached.completion_tokens);
            // A prompt that is refusal_text is answered with an error, which counts nothing.
            let uncounted = usize::from(prompts + responses == 0 && cached.refusal.is_empty());
            usage += TokenUsage { prompts, responses, uncounted };
        }
        usage
    }

    /// `samples` responses to each of these examples: those that are there, and the others from the server.
    pub fn responses(
        &self,
        task: &dyn Task,
        examples: &[usize],
        samples: usize,
        sampling: &Sampling,
    ) -> Result<Vec<Vec<CachedResponse>>> {
        let mut missing = Vec::new();
        for &i in examples {
            let id = &task.example(i)?.id;
            let cache = lock(&self.cache);
            missing.extend((0..samples).filter(|&j| !cache.responses.contains_key(&(id.clone(), j))).map(|j| (i, j)));
        }
        self.request_missing(task, &missing, sampling)?;
        let cache = lock(&self.cache);
        let one = |id: &String, j: usize| {
            cache.responses.get(&(id.clone(), j)).cloned().ok_or_else(|| Error::failed("a response was lost"))
        };
        examples
            .iter()
            .map(|&i| {
                let id = &task.example(i)?.id;
                (0..samples).map(|j| one(id, j)).collect()
            })
            .collect()
    }

    /// Ask for these responses, several at once. The first failure that is final ends all: who waits to ask again waits no longer.
    fn request_missing(&self, task: &dyn Task, jobs: &[(usize, usize)], sampling: &Sampling) -> Result<()> {
        let (next, cancel) = (AtomicUsize::new(0), Cancel::default());
        let work = || {
            while !cancel.is_cancelled() {
                let Some(&(i, sample)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                let asked = self.ask(task, i, sample, sampling, &cancel);
                if let Err(e) = asked.and_then(|cached| cached.map_or(Ok(()), |cached| self.store(cached))) {
                    cancel.cancel(e);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.endpoint.concurrency.max(1).min(jobs.len()) {
                scope.spawn(work);
            }
        });
        cancel.error.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).map_or(Ok(()), Err)
    }

    /// Write a response down.
    fn store(&self, cached: CachedResponse) -> Result<()> {
        let mut cache = lock(&self.cache);
        cache.log.append(&[&cached])?;
        cache.responses.insert((cached.id.clone(), cached.sample), cached);
        Ok(())
    }

    /// One response, with as many attempts as it may take; `None` if the cancel came before it did.
    fn ask(
        &self,
        task: &dyn Task,
        i: usize,
        sample: usize,
        sampling: &Sampling,
        cancel: &Cancel,
    ) -> Result<Option<CachedResponse>> {
        let record = task.example(i)?;
        let named = |e: Error| e.context(format!("record `{}`", record.id));
        let images = task.images(i).map_err(named)?;
        let body = self.body(record.prompt(), &images, &record.id, sample, sampling).map_err(named)?;
        let mut pause = self.endpoint.backoff;
        for attempt in 0.. {
            if !self.wait_for_slot(cancel) {
                return Ok(None);
            }
            let (reason, retry_after) = match self.send(&body, &record.id, sample) {
                Ok(cached) => return Ok(Some(cached)),
                Err(RequestError::Fatal(e)) => return Err(e),
                Err(RequestError::Rejected(e)) => return Err(named(e)),
                Err(RequestError::Transient(reason, retry_after)) => (reason, retry_after),
            };
            if attempt >= self.endpoint.retries {
                return Err(Error::failed(format!(
                    "{}: {reason}{}; the responses so far are kept, and the same command goes on from them",
                    self.endpoint.url,
                    if attempt > 0 { format!(" (after {attempt} more attempts)") } else { String::new() }
                )));
            }
            if cancel.is_cancelled() || !cancel.sleep(self.wait(retry_after, pause, &reason)) {
                return Ok(None);
            }
            pause = (2 * pause).min(MAX_BACKOFF);
        }
        Err(Error::failed("no attempt was made"))
    }

    /// How long to wait before a request that failed for `reason` is made again. A long wait is said, once for all requests that wait at
    /// the same time.
    fn wait(&self, retry_after: Option<Duration>, pause: Duration, reason: &str) -> Duration {
        let wait = retry_after.map_or(pause.min(MAX_BACKOFF), |retry_after| retry_after.min(MAX_RETRY_AFTER));
        if wait > MAX_BACKOFF {
            let mut warned_until = lock(&self.warned_until);
            if warned_until.is_none_or(|until| until <= Instant::now()) {
                *warned_until = Some(Instant::now() + wait);
                // Not `eprintln!`, which panics where is_unreachable reads.
                let _ = writeln!(
                    std::io::stderr(),
                    "{}: {reason}; asked again in {} s, as the server wants",
                    self.endpoint.url,
                    wait.as_secs()
                );
            }
        }
        wait
    }

    /// The request's body.
    fn body(&self, prompt: &[Message], images: &[RgbImage], id: &str, sample: usize, s: &Sampling) -> Result<Vec<u8>> {
        let mut urls = Vec::with_capacity(images.len());
        for image in images {
            let mut png = Vec::new();
            image
                .write_to(&mut Cursor::new(&mut png), ImageFormat::Png)
                .map_err(|e| Error::failed(format!("cannot encode an image: {e}")))?;
            urls.push(format!("data:image/png;base64,{}", STANDARD.encode(png)));
        }
        let mut urls = urls.into_iter();
        let messages: Vec<Value> = prompt
            .iter()
            .map(|message| json!({"role": message.role, "content": parts(&message.content, &mut urls)}))
            .collect();
        // Below 2^31: some servers take no more.
        let seed = rng::stream(s.seed, &format!("chat {id}"), &[sample as u64]).next_u64() >> 33;
        let mut body = json!({
            "model": self.endpoint.model, "messages": messages, "max_tokens": s.max_new_tokens, "temperature": s.temperature,
            "top_p": s.top_p, "seed": seed,
        });
        if s.top_k > 0 {
            body["top_k"] = json!(s.top_k);
        }
        serde_json::to_vec(&body).map_err(|e| Error::failed(format!("cannot write a request: {e}")))
    }

    /// Wait until the next request may begin: whether it still is to.
    fn wait_for_slot(&self, cancel: &Cancel) -> bool {
        let Some(per_minute) = self.endpoint.per_minute else { return true };
        let mine = {
            let mut next_slot = lock(&self.next_slot);
            let mine = (*next_slot).max(Instant::now());
            *next_slot = mine + Duration::from_secs(60) / per_minute.max(1);
            mine
        };
        cancel.sleep(mine.saturating_duration_since(Instant::now()))
    }

    /// One attempt at the response `sample` to the example `id`.
    fn send(&self, body: &[u8], id: &str, sample: usize) -> std::result::Result<CachedResponse, RequestError> {
        let url = format!("{}/chat/completions", self.endpoint.url.trim_end_matches('/'));
        let mut request = self.agent.post(&url).header("Content-Type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("Authorization", &format!("Bearer {key}"));
        }
        let mut response = request.send(body).map_err(|e| self.no_answer(&e))?;
        self.connected.store(true, Ordering::SeqCst);
        let status = response.status().as_u16();
        let header = response.headers().get("retry-after").and_then(|v| v.to_str().ok());
        let retry_after = header.and_then(|v| v.trim().parse::<f64>().ok()).filter(|s| s.is_finite() && *s >= 0.0);
        let retry_after = retry_after.map(|s| Duration::from_secs_f64(s.min(MAX_RETRY_AFTER.as_secs_f64())));
        let elsewhere = response.headers().get("location").and_then(|v| v.to_str().ok()).map(String::from);
        let text = response.body_mut().with_config().limit(MAX_BODY_BYTES).read_to_string();
        let text = text.map_err(|e| match e {
            ureq::Error::Timeout(_) => RequestError::Transient(self.too_slow(), None),
            e => RequestError::Transient(format!("the response broke off: {}", self.sanitize(&e.to_string())), None),
        })?;
        let refusal_text = match status {
            400..500 => filter_code(&serde_json::from_str(&text).unwrap_or_default()),
            _ => None,
        };
        if let Some(code) = refusal_text {
            return Ok(self.refused_response(id, sample, &code, &text));
        }
        match status {
            200 => self.read(&text, id, sample).map_err(|why| RequestError::Transient(why, retry_after)),
            401 | 403 => {
                let key = if self.key.is_some() { "the key in" } else { "it wants a key, and there is none in" };
                Err(RequestError::Fatal(Error::input(format!(
                    "{}: not let in (status {status}): {key} {API_KEY_VARIABLE}{}",
                    self.endpoint.url,
                    self.with_error_message("; it says: ", &text)
                ))))
            }
            300..=399 => Err(RequestError::Fatal(Error::input(format!(
                "{}: it sends elsewhere (status {status}{}), and no redirection is followed, which might lead away from the address \
                 that was named; name the address of the API itself, often one that ends in /v1",
                self.endpoint.url,
                elsewhere.map(|at| format!(", to {}", self.sanitize(&at))).unwrap_or_default()
            )))),
            408 | 429 | 500.. => Err(RequestError::Transient(
                format!("status {status}{}", self.with_error_message(": ", &text)),
                retry_after,
            )),
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

    /// Why there is no answer at all. A server that is slow or breaks off may be there next time; one that has never answered and refuses
    /// the connection is not busy, it is not there.
    fn no_answer(&self, e: &ureq::Error) -> RequestError {
        let said = self.sanitize(&e.to_string());
        let tls = connection_error::tls_problem(e).filter(|_| self.endpoint.url.starts_with("https://"));
        match e {
            ureq::Error::Timeout(at) if *at != ureq::Timeout::Connect => RequestError::Transient(self.too_slow(), None),
            _ if self.connected.load(Ordering::SeqCst) => RequestError::Transient(said, None),
            e => match tls {
                Some(why) => RequestError::Fatal(Error::failed(format!("{}: {why} ({said})", self.endpoint.url))),
                None if connection_error::is_unreachable(e) => RequestError::Fatal(Error::failed(format!(
                    "{}: no chat server answers there ({said}); is it running?",
                    self.endpoint.url
                ))),
                None => RequestError::Transient(format!("no chat server answers there ({said})"), None),
            },
        }
    }

    fn too_slow(&self) -> String {
        format!("no answer within {} s", self.endpoint.timeout.as_secs_f64())
    }

    /// What an error body says.
    fn error_message(&self, text: &str) -> String {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        let places = ["/error/message", "/message", "/error"];
        self.sanitize(places.iter().find_map(|at| value.pointer(at)?.as_str()).unwrap_or(text))
    }

    /// What an error body says, after `before`; nothing if it says nothing.
    fn with_error_message(&self, before: &str, text: &str) -> String {
        let error_message = self.error_message(text);
        if error_message.is_empty() { error_message } else { format!("{before}{error_message}") }
    }

    /// Short, on one line, and without the key, which a server may repeat, or anything that a terminal would obey.
    fn sanitize(&self, text: &str) -> String {
        let text = match &self.key {
            Some(key) => text.replace(key.as_str(), "[key]"),
            None => text.to_string(),
        };
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let plain = |c: char| if c.is_control() || is_bidi_control(c) { char::REPLACEMENT_CHARACTER } else { c };
        let line: String = line.chars().map(plain).collect();
        match line.char_indices().nth(MAX_SHOWN_CHARS) {
            Some((cancel, _)) => format!("{}...", &line[..cancel]),
            None => line,
        }
    }

    /// The response in a body that came with status 200, or what is wrong with it. A body that was cut off on its way may be anything.
    fn read(&self, text: &str, id: &str, sample: usize) -> std::result::Result<CachedResponse, String> {
        const NONE: &str = "this is no chat API: its answer";
        let answer: Value =
            serde_json::from_str(text).map_err(|e| format!("{NONE} is no JSON ({e}): {}", self.sanitize(text)))?;
        let choice = answer.pointer("/choices/0");
        let reason = choice.and_then(|choice| choice.get("finish_reason")?.as_str()).unwrap_or_default();
        let reason = reason.to_ascii_lowercase();
        if ERROR_REASONS.contains(&reason.as_str()) {
            return Err(format!("its answer broke off: finish_reason `{reason}`"));
        }
        // Some servers say more after a colon: `content_filter: PROHIBITED_CONTENT`.
        let filtered = reason.split(':').next().is_some_and(|kind| FILTER_REASONS.contains(&kind.trim()));
        // What a filter has held back may lack its message.
        let Some(choice) = choice.filter(|choice| filtered || choice.get("message").is_some_and(Value::is_object))
        else {
            let lacks = if choice.is_some() { "message" } else { "choices" };
            return match (filter_code(&answer), answer.get("error")) {
                (Some(code), _) => Ok(self.refused_response(id, sample, &code, text)),
                (None, Some(error)) if !error.is_null() => Err(format!("an error: {}", self.error_message(text))),
                _ => Err(format!("{NONE} has no `{lacks}`: {}", self.sanitize(text))),
            };
        };
        let count =
            |name: &str| answer.pointer(&format!("/usage/{name}")).and_then(Value::as_u64).unwrap_or(0) as usize;
        let content = choice.pointer("/message/content");
        let mut cached = CachedResponse {
            id: id.to_string(),
            sample,
            response: text_of(content),
            finished: !LENGTH_REASONS.contains(&reason.as_str()),
            prompt_tokens: count("prompt_tokens"),
            completion_tokens: count("completion_tokens"),
            refusal: String::new(),
        };
        if filtered {
            cached.refusal = format!("finish_reason {}", self.sanitize(&reason));
        } else if cached.response.trim().is_empty()
            && let Some(said) = refusal_message(choice)
        {
            cached.refusal = self.sanitize(said);
        }
        Ok(cached)
    }

    /// In place of a response that the server refuses for good, by an error of this code.
    fn refused_response(&self, id: &str, sample: usize, code: &str, text: &str) -> CachedResponse {
        CachedResponse {
            id: id.to_string(),
            sample,
            response: String::new(),
            finished: true,
            prompt_tokens: 0,
            completion_tokens: 0,
            refusal: format!("{}{}", self.sanitize(code), self.with_error_message(": ", text)),
        }
    }
}

impl Responder for ChatClient<'_> {
    fn respond(&self, prompts: &Prompts<'_>, options: &SampleOptions<'_>) -> Result<Vec<Vec<Generated>>> {
        let groups = self.responses(prompts.task, prompts.examples, options.samples, options.sampling)?;
        let read = |cached: CachedResponse| {
            let no_answer = cached.no_answer();
            // What a content filter has cut off is no answer: nobody is to read one out of it.
            let text = if no_answer.is_some() { String::new() } else { cached.response };
            Generated {
                text,
                tokens: cached.completion_tokens,
                token_ids: Vec::new(),
                finished: cached.finished,
                no_answer,
            }
        };
        Ok(groups.into_iter().map(|group| group.into_iter().map(read).collect()).collect())
    }
}

/// Text and images of a message, in order. The text goes as it is: the line break after an image is part of the prompt. Only a part that
/// is wholly blank is left out, which some servers refuse.
fn parts(content: &str, urls: &mut impl Iterator<Item = String>) -> Value {
    let mut parts = Vec::new();
    for (i, text) in content.split(IMAGE_PLACEHOLDER).enumerate() {
        if i > 0 {
            parts.push(json!({"type": "image_url", "image_url": {"url": urls.next().unwrap_or_default()}}));
        }
        if !text.trim().is_empty() {
            parts.push(json!({"type": "text", "text": text}));
        }
    }
    match parts.as_slice() {
        [only] if only.get("text").is_some() => only["text"].clone(),
        _ => Value::Array(parts),
    }
}

/// Whether a character is_bidi_control the direction of the text after it, so that it reads as what it is not.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
pub(crate) mod tests;
