//! Serving engines (vLLM) that sample for a trainer: they are told of each version of the adapter that trains, and asked by its name.
//!
//! A version has a name of its own, because a server's prefix cache is keyed by names: under one name, a new adapter would meet what the old
//! one computed. Each server answers its share of the prompts, with all samples of a prompt. The text of a response is decoded here from
//! its tokens, as that of a model on this machine is.

use super::chat_api::{Asked, CachedResponse, ChatClient, Endpoint, TokenNeeds, error_message, http_client};
use super::local::stop_end;
use super::responder::{Prompts, Responder, SampleOptions};
use super::response::Response;
use crate::io::http::{Backoff, HttpClient};
use crate::model::PromptEncoder;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest pause before a request that got no answer is sent again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Most bytes of what a server says about an adapter.
const MAX_SAID: u64 = 1 << 20;

/// A version of the adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterVersion {
    /// Its name, which no other version has.
    pub name: String,
    /// Its directory, as the servers see it.
    pub path: PathBuf,
    /// The `--max-lora-rank` that it needs.
    pub rank: usize,
}

/// The servers.
pub struct AdapterServers<'a> {
    servers: Vec<(Endpoint, HttpClient)>,
    key: Option<String>,
    patience: Duration,
    stop: &'a AtomicBool,
}

impl<'a> AdapterServers<'a> {
    /// Servers at these addresses, which are shown `key`. A server that has not answered for `patience` is away. Once `stop` is set, all
    /// waiting ends.
    ///
    /// # Errors
    /// An input error for a key that no header can hold, or an https address on a processor without TLS.
    pub fn new(
        endpoints: Vec<Endpoint>,
        key: Option<String>,
        patience: Duration,
        stop: &'a AtomicBool,
    ) -> Result<AdapterServers<'a>> {
        let connect = |endpoint: Endpoint| {
            let http = http_client(&endpoint, key.clone())?;
            Ok((endpoint, http))
        };
        let servers = endpoints.into_iter().map(connect).collect::<Result<Vec<_>>>()?;
        Ok(AdapterServers { servers, key, patience, stop })
    }

    /// Have every server load this version.
    ///
    /// # Errors
    /// An input error that says what to change if a server cannot load it; [`Error::Unavailable`] if one is away.
    pub fn load(&self, version: &AdapterVersion) -> Result<()> {
        self.servers.iter().try_for_each(|server| self.load_on(server, version))
    }

    fn load_on(&self, server: &(Endpoint, HttpClient), version: &AdapterVersion) -> Result<()> {
        let (url, path) = (&server.0.url, version.path.display());
        let (status, said) =
            self.post(server, "load_lora_adapter", &json!({"lora_name": version.name, "lora_path": version.path}))?;
        let lower = said.to_lowercase();
        if matches!(status, 200..=299) || lower.contains("already been loaded") {
            return Ok(());
        }
        let advice = if status == 404 && lower.trim() == "not found" {
            "it takes no adapters while it runs; start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True".to_string()
        } else if lower.contains("lora rank") || lower.contains("lora_rank") {
            format!("start it with --max-lora-rank {}, or train with a smaller lora.rank", version.rank)
        } else {
            "it must see that directory under that path: set rollout.adapter_dir to one that both share, and rollout.adapter_dir_on_server to \
             its path there if that is another"
                .to_string()
        };
        let said = server.1.sanitize(&said);
        Err(Error::input(format!(
            "{url}: it does not load the adapter {path} (status {status}; it says: {said}); {advice}"
        )))
    }

    /// Have every server forget a version. One that does not know it any more has nothing to forget.
    pub fn unload(&self, name: &str) -> Result<()> {
        self.servers
            .iter()
            .try_for_each(|server| self.post(server, "unload_lora_adapter", &json!({"lora_name": name})).map(|_| ()))
    }

    /// Post to a server until it answers: status and what it says.
    fn post(&self, (endpoint, http): &(Endpoint, HttpClient), what: &str, body: &Value) -> Result<(u16, String)> {
        let (url, body) = (format!("{}/{what}", endpoint.url), body.to_string());
        let (since, mut backoff) = (Instant::now(), Backoff::new(endpoint.backoff, usize::MAX));
        loop {
            let answer = http.post_json(&url, body.as_bytes()).and_then(|mut answer| {
                let text = answer.body_mut().with_config().limit(MAX_SAID).read_to_string()?;
                Ok((answer.status().as_u16(), text))
            });
            let why = match answer {
                // Of a server that starts, is too busy, or has a proxy before it. What else it says is about the adapter.
                Ok((status @ (408 | 429 | 502..=504), _)) => format!("status {status}"),
                Ok((status, text)) => return Ok((status, message(&text))),
                Err(e) => http.sanitize(&e.to_string()),
            };
            if since.elapsed() >= self.patience || self.stop.load(Ordering::SeqCst) {
                let away = since.elapsed().as_secs_f64();
                return Err(Error::Unavailable(format!("{}: no answer for {away:.0} s: {why}", endpoint.url)));
            }
            std::thread::sleep(backoff.next(None).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE));
        }
    }

    /// What answers with this version. Responses are kept in files `FILE.N.jsonl`, one for each server, and none that is there is asked for
    /// again.
    pub fn responder<'b>(
        &'b self,
        version: &'b AdapterVersion,
        encoder: &'b dyn PromptEncoder,
        file: PathBuf,
    ) -> AdapterResponder<'b> {
        AdapterResponder { servers: self, version, encoder, file }
    }
}

/// What a body says: FastAPI's `detail`, the message of an error, or itself.
fn message(text: &str) -> String {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    value.get("detail").and_then(Value::as_str).map_or_else(|| error_message(text), String::from)
}

/// Servers that answer with a version of the adapter.
pub struct AdapterResponder<'a> {
    servers: &'a AdapterServers<'a>,
    version: &'a AdapterVersion,
    encoder: &'a dyn PromptEncoder,
    file: PathBuf,
}

impl AdapterResponder<'_> {
    /// What one server answers.
    fn ask(
        &self,
        number: usize,
        asked: &[Asked<'_>],
        prompts: &Prompts<'_>,
        options: &SampleOptions<'_>,
    ) -> Result<Vec<Vec<CachedResponse>>> {
        let AdapterServers { servers, key, patience, stop } = self.servers;
        let server = &servers[number];
        let endpoint = Endpoint { model: self.version.name.clone(), ..server.0.clone() };
        // A server that was started again has forgotten its adapters. One request finds out first, and the others wait.
        let reloading = Mutex::new(());
        let reload = || {
            let _one = reloading.lock();
            self.servers.load_on(server, self.version)
        };
        let tokens = TokenNeeds { banned: self.encoder.banned_ids(), patience: *patience, stop, reload: &reload };
        let file = PathBuf::from(format!("{}.{number}.jsonl", self.file.display()));
        let client = ChatClient::open(&endpoint, key.clone(), &file)?.with_tokens(tokens);
        client.answers(prompts.task, asked, options.num_generations, options.sampling)
    }

    /// A response as a model on this machine gives it.
    fn read(&self, cached: CachedResponse, stop: &[String]) -> Result<Response> {
        let CachedResponse { id, token_ids, logprobs, finished, .. } = cached;
        let mut text = self.encoder.decode(&token_ids)?;
        let stopped = stop_end(&text, stop);
        text.truncate(stopped.unwrap_or(text.len()));
        let closing = token_ids.last().is_some_and(|last| self.encoder.eos_ids().contains(last));
        if finished && !closing && stopped.is_none() {
            return Err(Error::input(format!(
                "{id}: the server ended its response with token {}, which ends no response here; give the server the model directory that is \
                 trained from",
                token_ids.last().copied().unwrap_or_default()
            )));
        }
        Ok(Response { text, tokens: token_ids.len(), token_ids, logprobs, finished, no_answer: None })
    }
}

impl Responder for AdapterResponder<'_> {
    fn respond(&self, prompts: &Prompts<'_>, options: &SampleOptions<'_>) -> Result<Vec<Vec<Response>>> {
        let (name, position) = options.stream;
        let count = self.servers.servers.len();
        let mut asked: Vec<Vec<Asked<'_>>> = (0..count).map(|_| Vec::new()).collect();
        for (place, &example) in prompts.examples.iter().enumerate() {
            let id = &prompts.task.example(example)?.id;
            let prompt = prompts.encoded.and_then(|encoded| encoded.get(place)).map(|prompt| prompt.as_ref());
            asked[place % count].push(Asked { example, key: format!("{id} {name} {position:?} {place}"), prompt });
        }
        let answers: Vec<Result<Vec<Vec<CachedResponse>>>> = std::thread::scope(|scope| {
            let ask = |(number, asked)| scope.spawn(move || self.ask(number, asked, prompts, options));
            let threads: Vec<_> = asked.iter().map(Vec::as_slice).enumerate().map(ask).collect();
            let panicked = |_| Err(Error::failed("a thread panicked; see above"));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        });
        let mut answers = answers.into_iter().map(|part| Ok(part?.into_iter())).collect::<Result<Vec<_>>>()?;
        let read = |cached| self.read(cached, &options.sampling.stop);
        (0..prompts.examples.len())
            .map(|place| {
                let group = answers[place % count].next().ok_or_else(|| Error::failed("a response was lost"))?;
                group.into_iter().map(read).collect()
            })
            .collect()
    }
}
