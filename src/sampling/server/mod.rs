//! A model behind an address: a client of the chat API that OpenAI's servers, vLLM, SGLang, llama.cpp and Ollama speak. It answers as
//! the teacher of a rollout and as the model of an evaluation.
//!
//! Text goes as it is, images as data URLs of PNG, in the size they have. A request that fails for a passing reason (a broken connection, 408,
//! 429, 5xx, a body that is cut off or says that something failed) is made again after a pause that doubles, or as long as the server says,
//! up to an hour. That a content filter refuses a prompt, or its answer, is an answer too. Every response is written to a file as it comes,
//! so that none is paid for twice.
//! No redirection is followed, which might lead away from the address that was named. The key is read from the environment, and is taken out of
//! what a server says where it complains or refuses; what a model answers is kept as it comes.

mod answer;
mod unanswered;

pub use answer::{Billed, Paid};

use crate::data::{IMAGE_PLACEHOLDER, Message};
use crate::io::files;
use crate::io::tls;
use crate::model::Sampling;
use crate::tasks::Task;
use crate::{Error, Result, rng};
use answer::{BROKE_OFF, CUT_OFF, FILTERED, refusal, said_no, text_of};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{ImageFormat, RgbImage};
use rand::Rng as _;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{Cursor, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Environment variable that holds the key, if the server wants one.
pub const KEY_VARIABLE: &str = "OPENAI_API_KEY";
/// Longest pause before a request is made again, where the server names none.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Longest pause that a server may ask for; one that asks for more is asked again after this one.
const LONGEST_WISHED: Duration = Duration::from_secs(3600);
/// A connection must be there after so long.
const CONNECT: Duration = Duration::from_secs(30);
/// Most bytes of a response's body.
const MOST_BYTES: u64 = 16 << 20;
/// Characters of a server's complaint that are shown.
const SHOWN: usize = 300;

/// Before a failed request is made again for the first time.
pub const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A response must be there after so long, unless the user says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(600);

/// The key in [`KEY_VARIABLE`], if there is one.
pub fn key_of_environment() -> Option<String> {
    std::env::var(KEY_VARIABLE).ok()
}

/// Where the model is, and how it is treated.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
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
    pub pause: Duration,
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
pub struct Chat<'a> {
    endpoint: &'a Endpoint,
    sampling: &'a Sampling,
    agent: ureq::Agent,
    key: Option<String>,
    file: PathBuf,
    paid: Mutex<HashMap<(String, usize), Paid>>,
    /// When the next request may begin.
    turn: Mutex<Instant>,
    /// The server has begun an answer before.
    met: AtomicBool,
    /// A long wait was said, which lasts until then.
    told: Mutex<Option<Instant>>,
}

/// The failure that ends all requests, once there is one.
#[derive(Default)]
struct End {
    error: Mutex<Option<Error>>,
    come: Condvar,
}

impl End {
    /// End them, unless they are ended already.
    fn by(&self, e: Error) {
        lock(&self.error).get_or_insert(e);
        self.come.notify_all();
    }

    fn has_come(&self) -> bool {
        lock(&self.error).is_some()
    }

    /// Sleep so long, or until the end: whether it has not come.
    fn pause(&self, pause: Duration) -> bool {
        let waited = self.come.wait_timeout_while(lock(&self.error), pause, |error| error.is_none());
        waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0.is_none()
    }
}

/// Why a request failed.
enum Failure {
    /// It may go well next time, after this pause if the server named one.
    Passing(String, Option<Duration>),
    /// It will not, because of how it was asked.
    Rejected(Error),
    /// It will not, nor will any other: nobody is there, or nobody is let in.
    Final(Error),
}

impl<'a> Chat<'a> {
    /// A client that keeps its responses in `file`, and begins with those that are there.
    pub fn open(endpoint: &'a Endpoint, sampling: &'a Sampling, key: Option<String>, file: &Path) -> Result<Chat<'a>> {
        let key = key.map(|key| key.trim().to_string()).filter(|key| !key.is_empty());
        if key.as_ref().is_some_and(|key| !key.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Error::input(format!(
                "{KEY_VARIABLE} holds a blank or a character that is none of ASCII's: no key"
            )));
        }
        let mut paid = HashMap::new();
        if file.exists() {
            let text = files::read(file)?;
            // What follows the last newline is a torn write.
            let lines = text.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n"));
            let mut whole = 0;
            for (i, line) in lines.enumerate() {
                let line_read: Paid = serde_json::from_slice(line).map_err(|e| {
                    Error::input(format!("{}:{}: not a response: {e}; --fresh starts over", file.display(), i + 1))
                })?;
                whole += line.len() as u64;
                paid.insert((line_read.id.clone(), line_read.sample), line_read);
            }
            let cut = OpenOptions::new().write(true).open(file).and_then(|f| f.set_len(whole));
            cut.map_err(|e| Error::failed(format!("cannot shorten {}: {e}", file.display())))?;
        }
        let mut config = ureq::Agent::config_builder()
            .timeout_global(Some(endpoint.timeout))
            .timeout_connect(Some(CONNECT.min(endpoint.timeout)))
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
        Ok(Chat {
            endpoint,
            sampling,
            agent: config.build().into(),
            key,
            file: file.to_path_buf(),
            paid: Mutex::new(paid),
            turn: Mutex::new(Instant::now()),
            met: AtomicBool::new(false),
            told: Mutex::new(None),
        })
    }

    /// Tokens of all responses so far.
    pub fn billed(&self) -> Billed {
        let mut billed = Billed::default();
        for paid in lock(&self.paid).values() {
            let (prompts, responses) = (paid.prompt_tokens, paid.completion_tokens);
            // A prompt that is refused is answered with an error, which counts nothing.
            let uncounted = usize::from(prompts + responses == 0 && paid.refused.is_empty());
            billed += Billed { prompts, responses, uncounted };
        }
        billed
    }

    /// `samples` responses to each of these examples: those that are there, and the others from the server.
    pub fn respond(&self, task: &dyn Task, examples: Range<usize>, samples: usize) -> Result<Vec<Vec<Paid>>> {
        let mut missing = Vec::new();
        for i in examples.clone() {
            let id = &task.example(i)?.id;
            let paid = lock(&self.paid);
            missing.extend((0..samples).filter(|&j| !paid.contains_key(&(id.clone(), j))).map(|j| (i, j)));
        }
        self.fetch(task, &missing)?;
        let paid = lock(&self.paid);
        let one = |id: &String, j: usize| {
            paid.get(&(id.clone(), j)).cloned().ok_or_else(|| Error::failed("a response was lost"))
        };
        examples
            .map(|i| {
                let id = &task.example(i)?.id;
                (0..samples).map(|j| one(id, j)).collect()
            })
            .collect()
    }

    /// Ask for these responses, several at once. The first failure that is final ends all: who waits to ask again waits no longer.
    fn fetch(&self, task: &dyn Task, jobs: &[(usize, usize)]) -> Result<()> {
        let (next, end) = (AtomicUsize::new(0), End::default());
        let work = || {
            while !end.has_come() {
                let Some(&(i, sample)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                let asked = self.ask(task, i, sample, &end);
                if let Err(e) = asked.and_then(|paid| paid.map_or(Ok(()), |paid| self.keep(paid))) {
                    end.by(e);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.endpoint.concurrency.max(1).min(jobs.len()) {
                scope.spawn(work);
            }
        });
        end.error.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).map_or(Ok(()), Err)
    }

    /// Write a response down.
    fn keep(&self, paid: Paid) -> Result<()> {
        let mut line = serde_json::to_vec(&paid).map_err(|e| Error::failed(format!("response to {}: {e}", paid.id)))?;
        line.push(b'\n');
        let mut all = lock(&self.paid);
        let written =
            OpenOptions::new().create(true).append(true).open(&self.file).and_then(|mut f| f.write_all(&line));
        written.map_err(|e| Error::failed(format!("cannot write {}: {e}", self.file.display())))?;
        all.insert((paid.id.clone(), paid.sample), paid);
        Ok(())
    }

    /// One response, with as many attempts as it may take; `None` if the end came before it did.
    fn ask(&self, task: &dyn Task, i: usize, sample: usize, end: &End) -> Result<Option<Paid>> {
        let record = task.example(i)?;
        let named = |e: Error| e.context(format!("record `{}`", record.id));
        let images = task.images(i).map_err(named)?;
        let body = self.body(record.prompt(), &images, &record.id, sample).map_err(named)?;
        let mut pause = self.endpoint.pause;
        for attempt in 0.. {
            if !self.wait_for_turn(end) {
                return Ok(None);
            }
            let (reason, wished) = match self.send(&body, &record.id, sample) {
                Ok(paid) => return Ok(Some(paid)),
                Err(Failure::Final(e)) => return Err(e),
                Err(Failure::Rejected(e)) => return Err(named(e)),
                Err(Failure::Passing(reason, wished)) => (reason, wished),
            };
            if attempt >= self.endpoint.retries {
                return Err(Error::failed(format!(
                    "{}: {reason}{}; the responses so far are kept, and the same command goes on from them",
                    self.endpoint.url,
                    if attempt > 0 { format!(" (after {attempt} more attempts)") } else { String::new() }
                )));
            }
            if end.has_come() || !end.pause(self.wait(wished, pause, &reason)) {
                return Ok(None);
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
        Err(Error::failed("no attempt was made"))
    }

    /// How long to wait before a request that failed for `reason` is made again. A long wait is said, once for all requests that wait at
    /// the same time.
    fn wait(&self, wished: Option<Duration>, pause: Duration, reason: &str) -> Duration {
        let wait = wished.map_or(pause.min(LONGEST_PAUSE), |wished| wished.min(LONGEST_WISHED));
        if wait > LONGEST_PAUSE {
            let mut told = lock(&self.told);
            if told.is_none_or(|until| until <= Instant::now()) {
                *told = Some(Instant::now() + wait);
                // Not `eprintln!`, which panics where nobody reads.
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
    fn body(&self, prompt: &[Message], images: &[RgbImage], id: &str, sample: usize) -> Result<Vec<u8>> {
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
        let s = self.sampling;
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
    fn wait_for_turn(&self, end: &End) -> bool {
        let Some(per_minute) = self.endpoint.per_minute else { return true };
        let mine = {
            let mut turn = lock(&self.turn);
            let mine = (*turn).max(Instant::now());
            *turn = mine + Duration::from_secs(60) / per_minute.max(1);
            mine
        };
        end.pause(mine.saturating_duration_since(Instant::now()))
    }

    /// One attempt at the response `sample` to the example `id`.
    fn send(&self, body: &[u8], id: &str, sample: usize) -> std::result::Result<Paid, Failure> {
        let url = format!("{}/chat/completions", self.endpoint.url.trim_end_matches('/'));
        let mut request = self.agent.post(&url).header("Content-Type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("Authorization", &format!("Bearer {key}"));
        }
        let mut response = request.send(body).map_err(|e| self.unanswered(&e))?;
        self.met.store(true, Ordering::SeqCst);
        let status = response.status().as_u16();
        let header = response.headers().get("retry-after").and_then(|v| v.to_str().ok());
        let wished = header.and_then(|v| v.trim().parse::<f64>().ok()).filter(|s| s.is_finite() && *s >= 0.0);
        let wished = wished.map(|s| Duration::from_secs_f64(s.min(LONGEST_WISHED.as_secs_f64())));
        let elsewhere = response.headers().get("location").and_then(|v| v.to_str().ok()).map(String::from);
        let text = response.body_mut().with_config().limit(MOST_BYTES).read_to_string();
        let text = text.map_err(|e| match e {
            ureq::Error::Timeout(_) => Failure::Passing(self.too_slow(), None),
            e => Failure::Passing(format!("the response broke off: {}", self.safe(&e.to_string())), None),
        })?;
        let refused = match status {
            400..500 => refusal(&serde_json::from_str(&text).unwrap_or_default()),
            _ => None,
        };
        if let Some(code) = refused {
            return Ok(self.refused(id, sample, &code, &text));
        }
        match status {
            200 => self.read(&text, id, sample).map_err(|why| Failure::Passing(why, wished)),
            401 | 403 => {
                let key = if self.key.is_some() { "the key in" } else { "it wants a key, and there is none in" };
                Err(Failure::Final(Error::input(format!(
                    "{}: not let in (status {status}): {key} {KEY_VARIABLE}{}",
                    self.endpoint.url,
                    self.after("; it says: ", &text)
                ))))
            }
            300..=399 => Err(Failure::Final(Error::input(format!(
                "{}: it sends elsewhere (status {status}{}), and no redirection is followed, which might lead away from the address \
                 that was named; name the address of the API itself, often one that ends in /v1",
                self.endpoint.url,
                elsewhere.map(|at| format!(", to {}", self.safe(&at))).unwrap_or_default()
            )))),
            408 | 429 | 500.. => Err(Failure::Passing(format!("status {status}{}", self.after(": ", &text)), wished)),
            _ => {
                let odd = matches!(status, 404 | 405) && !self.endpoint.url.trim_end_matches('/').ends_with("/v1");
                Err(Failure::Rejected(Error::input(format!(
                    "{}: status {status} for model `{}`{}{}",
                    self.endpoint.url,
                    self.endpoint.model,
                    self.after("; it says: ", &text),
                    if odd { "; the address of a chat API usually ends in /v1, and this one does not" } else { "" }
                ))))
            }
        }
    }

    /// Why there is no answer at all. A server that is slow or breaks off may be there next time; one that has never answered and refuses
    /// the connection is not busy, it is not there.
    fn unanswered(&self, e: &ureq::Error) -> Failure {
        let said = self.safe(&e.to_string());
        let tls = unanswered::of_tls(e).filter(|_| self.endpoint.url.starts_with("https://"));
        match e {
            ureq::Error::Timeout(at) if *at != ureq::Timeout::Connect => Failure::Passing(self.too_slow(), None),
            _ if self.met.load(Ordering::SeqCst) => Failure::Passing(said, None),
            e => match tls {
                Some(why) => Failure::Final(Error::failed(format!("{}: {why} ({said})", self.endpoint.url))),
                None if unanswered::nobody(e) => Failure::Final(Error::failed(format!(
                    "{}: no chat server answers there ({said}); is it running?",
                    self.endpoint.url
                ))),
                None => Failure::Passing(format!("no chat server answers there ({said})"), None),
            },
        }
    }

    fn too_slow(&self) -> String {
        format!("no answer within {} s", self.endpoint.timeout.as_secs_f64())
    }

    /// What an error body says.
    fn complaint(&self, text: &str) -> String {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        let places = ["/error/message", "/message", "/error"];
        self.safe(places.iter().find_map(|at| value.pointer(at)?.as_str()).unwrap_or(text))
    }

    /// What an error body says, after `before`; nothing if it says nothing.
    fn after(&self, before: &str, text: &str) -> String {
        let complaint = self.complaint(text);
        if complaint.is_empty() { complaint } else { format!("{before}{complaint}") }
    }

    /// Short, on one line, and without the key, which a server may repeat, or anything that a terminal would obey.
    fn safe(&self, text: &str) -> String {
        let text = match &self.key {
            Some(key) => text.replace(key.as_str(), "[key]"),
            None => text.to_string(),
        };
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let plain = |c: char| if c.is_control() || turns(c) { char::REPLACEMENT_CHARACTER } else { c };
        let line: String = line.chars().map(plain).collect();
        match line.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}...", &line[..end]),
            None => line,
        }
    }

    /// The response in a body that came with status 200, or what is wrong with it. A body that was cut off on its way may be anything.
    fn read(&self, text: &str, id: &str, sample: usize) -> std::result::Result<Paid, String> {
        const NONE: &str = "this is no chat API: its answer";
        let answer: Value =
            serde_json::from_str(text).map_err(|e| format!("{NONE} is no JSON ({e}): {}", self.safe(text)))?;
        let choice = answer.pointer("/choices/0");
        let reason = choice.and_then(|choice| choice.get("finish_reason")?.as_str()).unwrap_or_default();
        let reason = reason.to_ascii_lowercase();
        if BROKE_OFF.contains(&reason.as_str()) {
            return Err(format!("its answer broke off: finish_reason `{reason}`"));
        }
        // Some servers say more after a colon: `content_filter: PROHIBITED_CONTENT`.
        let filtered = reason.split(':').next().is_some_and(|kind| FILTERED.contains(&kind.trim()));
        // What a filter has held back may lack its message.
        let Some(choice) = choice.filter(|choice| filtered || choice.get("message").is_some_and(Value::is_object))
        else {
            let lacks = if choice.is_some() { "message" } else { "choices" };
            return match (refusal(&answer), answer.get("error")) {
                (Some(code), _) => Ok(self.refused(id, sample, &code, text)),
                (None, Some(error)) if !error.is_null() => Err(format!("an error: {}", self.complaint(text))),
                _ => Err(format!("{NONE} has no `{lacks}`: {}", self.safe(text))),
            };
        };
        let count =
            |name: &str| answer.pointer(&format!("/usage/{name}")).and_then(Value::as_u64).unwrap_or(0) as usize;
        let content = choice.pointer("/message/content");
        let mut paid = Paid {
            id: id.to_string(),
            sample,
            response: text_of(content),
            finished: !CUT_OFF.contains(&reason.as_str()),
            prompt_tokens: count("prompt_tokens"),
            completion_tokens: count("completion_tokens"),
            refused: String::new(),
        };
        if filtered {
            paid.refused = format!("finish_reason {}", self.safe(&reason));
        } else if paid.response.trim().is_empty()
            && let Some(said) = said_no(choice)
        {
            paid.refused = self.safe(said);
        }
        Ok(paid)
    }

    /// In place of a response that the server refuses for good, by an error of this code.
    fn refused(&self, id: &str, sample: usize, code: &str, text: &str) -> Paid {
        Paid {
            id: id.to_string(),
            sample,
            response: String::new(),
            finished: true,
            prompt_tokens: 0,
            completion_tokens: 0,
            refused: format!("{}{}", self.safe(code), self.after(": ", text)),
        }
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

/// Whether a character turns the direction of the text after it, so that it reads as what it is not.
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
pub(crate) mod tests;
