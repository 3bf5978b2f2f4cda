//! A small server with the requests of vLLM that rollouts need, which may misbehave. It samples with models of this program: the base, and one
//! for each adapter that it is told to load.

#![allow(dead_code, reason = "each test file uses its own part")]

#[path = "../http/mod.rs"]
mod http;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use jigsaw::data::Message;
use jigsaw::model::{LanguageModel, Prompt, PromptEncoder, ResponseEnd, SamplingParams, Sequence};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A model of the server.
pub type Served = Arc<dyn LanguageModel + Send + Sync>;

/// How the server misbehaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    IgnoresAdapters,
    Temperature(f32),
    /// It gives log-probabilities before the temperature.
    RawLogprobs,
    DropsEveryFifth,
    /// So late is every seventh of the first 100 answers.
    Late(Duration),
    CannotSee,
    NoRuntimeLoading,
    /// It answers to another prompt, as another model would.
    AnotherModel,
    AnotherTemplate,
    NoTokens,
    /// At this request it goes away for so long, and forgets its adapters.
    Dies(usize, Duration),
}

/// What has happened to the server.
#[derive(Default)]
pub struct State {
    /// The adapters that it has now.
    pub adapters: HashMap<String, Served>,
    /// Those that it was ever told of.
    pub told: Vec<String>,
    /// How often it gave each response, by adapter and seed.
    pub answers: HashMap<(String, u64), usize>,
    /// Requests for responses.
    pub requests: usize,
    away_until: Option<Instant>,
}

pub struct Server {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

struct Inside<L, E> {
    load: L,
    encoder: E,
    fault: Fault,
    base: Served,
    state: Arc<Mutex<State>>,
}

/// Serve the model that `load` gives without a directory, and those that it gives for adapters.
pub fn serve<L, E>(load: L, encoder: E, fault: Fault) -> Server
where
    L: Fn(Option<&Path>) -> Served + Send + Sync + 'static,
    E: PromptEncoder + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let state: Arc<Mutex<State>> = Arc::default();
    let inside = Arc::new(Inside { base: load(None), load, encoder, fault, state: state.clone() });
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, inside) = (stream.unwrap(), inside.clone());
            std::thread::spawn(move || {
                let (head, body) = http::read_request(&stream);
                let body: Value = serde_json::from_slice(&body).unwrap();
                if let Some((status, answer)) = inside.answer(&head, &body) {
                    http::respond(&stream, status, "", &answer.to_string());
                }
            });
        }
    });
    Server { url, state }
}

fn error(status: u16, message: String) -> Option<(u16, Value)> {
    Some((status, json!({"error": {"message": message, "code": status}})))
}

impl<L: Fn(Option<&Path>) -> Served, E: PromptEncoder> Inside<L, E> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Status and body; none where the server hangs up.
    fn answer(&self, head: &str, body: &Value) -> Option<(u16, Value)> {
        if self.state().away_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let path = head.split_whitespace().nth(1).unwrap();
        let name = body["lora_name"].as_str().unwrap_or_default().to_string();
        match path {
            _ if self.fault == Fault::NoRuntimeLoading && path.ends_with("adapter") => {
                Some((404, json!({"detail": "Not Found"})))
            }
            "/v1/load_lora_adapter" => {
                let dir = body["lora_path"].as_str().unwrap();
                if self.fault == Fault::CannotSee || !Path::new(dir).is_dir() {
                    return error(404, format!("Loading lora {name} failed: No adapter found for {dir}"));
                }
                if self.state().adapters.contains_key(&name) {
                    return error(400, format!("The lora adapter '{name}' has already been loaded."));
                }
                let model = (self.load)(Some(Path::new(dir)));
                let mut state = self.state();
                state.told.push(name.clone());
                state.adapters.insert(name, model);
                Some((200, json!("Success")))
            }
            "/v1/unload_lora_adapter" => match self.state().adapters.remove(&name) {
                Some(_) => Some((200, json!("Success"))),
                None => error(404, format!("The lora adapter '{name}' cannot be found.")),
            },
            "/v1/chat/completions" => self.chat(body),
            _ => error(404, format!("no {path}")),
        }
    }

    fn chat(&self, body: &Value) -> Option<(u16, Value)> {
        let name = body["model"].as_str().unwrap().to_string();
        let (number, model) = {
            let mut state = self.state();
            state.requests += 1;
            if let Fault::Dies(at, pause) = self.fault
                && state.requests == at
            {
                state.away_until = Some(Instant::now() + pause);
                state.adapters.clear();
                return None;
            }
            (state.requests, state.adapters.get(&name).cloned())
        };
        let late = number % 7 == 0 && number < 100;
        match self.fault {
            Fault::DropsEveryFifth if number % 5 == 0 => return None,
            Fault::Late(pause) if late => std::thread::sleep(pause),
            _ => {}
        }
        let Some(model) = model else { return error(404, format!("The model `{name}` does not exist.")) };
        let model = if self.fault == Fault::IgnoresAdapters { &self.base } else { &model };
        let (messages, images) = conversation(&body["messages"]);
        let prompt = self.encoder.encode_prompt(&messages, &images).unwrap();
        let (mut shown, mut seen) = (prompt.ids.clone(), prompt.clone());
        match self.fault {
            Fault::AnotherTemplate => shown.insert(0, 99),
            Fault::AnotherModel => seen = Arc::new(Prompt { ids: vec![(prompt.ids[0] + 1) % 6], images: Vec::new() }),
            _ => {}
        }
        let asked = body["temperature"].as_f64().unwrap() as f32;
        let sampling = SamplingParams {
            max_new_tokens: body["max_tokens"].as_u64().unwrap() as usize,
            temperature: if let Fault::Temperature(other) = self.fault { other } else { asked },
            top_p: body["top_p"].as_f64().unwrap() as f32,
            top_k: body["top_k"].as_u64().unwrap() as usize,
            stop: Vec::new(),
            seed: body["seed"].as_u64().unwrap(),
        };
        let banned = body["logit_bias"].as_object().into_iter().flatten().map(|(id, _)| id.parse().unwrap());
        let banned: Vec<u32> = banned.collect();
        let end = ResponseEnd { eos: self.encoder.eos_ids(), is_stopped: None };
        let group = model.generate_from(0, &[seen], 1, &sampling, end, &banned).unwrap();
        let response = &group[0][0];
        if !(matches!(self.fault, Fault::Late(_)) && late) {
            *self.state().answers.entry((name, sampling.seed)).or_default() += 1;
        }
        let mut logprobs = response.logprobs.clone();
        if self.fault == Fault::RawLogprobs {
            let sequence = Sequence { prompt: prompt.clone(), response: response.ids.clone() };
            logprobs = model.score(&[sequence], 1.0).unwrap().logprobs;
        }
        let logprobs: Vec<Value> = logprobs.iter().map(|l| json!({"token": "", "logprob": l})).collect();
        let mut choice = json!({
            "message": {"role": "assistant", "content": self.encoder.decode(&response.ids).unwrap()},
            "finish_reason": if response.finished { "stop" } else { "length" },
        });
        if self.fault != Fault::NoTokens && body["return_token_ids"] == true && body["logprobs"] == true {
            choice["token_ids"] = json!(response.ids);
            choice["logprobs"] = json!({ "content": logprobs });
        }
        let usage = json!({"prompt_tokens": shown.len(), "completion_tokens": response.ids.len()});
        Some((200, json!({"choices": [choice], "prompt_token_ids": shown, "usage": usage})))
    }
}

/// The messages of a request with their images, as the program had them.
fn conversation(messages: &Value) -> (Vec<Message>, Vec<RgbImage>) {
    let mut images = Vec::new();
    let mut text = |content: &Value| match content {
        Value::String(text) => text.clone(),
        parts => parts
            .as_array()
            .unwrap()
            .iter()
            .map(|part| match part["image_url"]["url"].as_str() {
                None => part["text"].as_str().unwrap().to_string(),
                Some(url) => {
                    let png = STANDARD.decode(url.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
                    images.push(image::load_from_memory(&png).unwrap().into_rgb8());
                    "<image>".to_string()
                }
            })
            .collect(),
    };
    let messages = messages.as_array().unwrap().iter();
    let messages = messages
        .map(|message| Message {
            role: message["role"].as_str().unwrap().to_string(),
            content: text(&message["content"]),
        })
        .collect();
    (messages, images)
}
