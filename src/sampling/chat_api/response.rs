//! A chat server's answer: what its fields mean, and the response as it is kept.

use crate::io::http::HttpClient;
use crate::io::plain::json_fault;
use crate::sampling::Response;
use crate::tasks::NoAnswer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ops::AddAssign;

/// A response of a server: a line of `api-cache.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CachedResponse {
    /// Id of the example.
    pub id: String,
    /// Which of the responses to it.
    pub sample: usize,
    /// The text.
    pub response: String,
    /// Ended by itself rather than by the length limit.
    pub finished: bool,
    /// Tokens of the prompt, as the server counts; 0 if it does not say.
    pub prompt_tokens: usize,
    /// Tokens of the response, likewise.
    pub completion_tokens: usize,
    /// Why its content filter, or the model itself, refused to answer, or why the prompt is too long; empty if it did answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub refusal: String,
    /// It refused because the prompt is too long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub too_long: bool,
    /// The tokens as sampled, with the closing one, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_ids: Vec<u32>,
    /// The log-probability of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<f32>,
    /// The tokens of the prompt, where the server names them. They are not kept.
    #[serde(skip)]
    pub prompt_ids: Vec<u32>,
}

impl CachedResponse {
    /// In place of a response that the server refuses to give.
    pub(super) fn refused(id: &str, sample: usize, refusal: String, too_long: bool) -> CachedResponse {
        CachedResponse {
            id: id.to_string(),
            sample,
            response: String::new(),
            finished: true,
            prompt_tokens: 0,
            completion_tokens: 0,
            refusal,
            too_long,
            token_ids: Vec::new(),
            logprobs: Vec::new(),
            prompt_ids: Vec::new(),
        }
    }

    /// Why there is no answer in it, if there is none. A response that was cut off by the length limit is an answer, even if empty.
    pub fn no_answer(&self) -> Option<NoAnswer> {
        match self {
            response if response.too_long => Some(NoAnswer::TooLong),
            response if !response.refusal.is_empty() => Some(NoAnswer::Refused),
            response if response.finished && response.response.trim().is_empty() => Some(NoAnswer::Empty),
            _ => None,
        }
    }

    /// Its tokens.
    pub(super) fn usage(&self) -> TokenUsage {
        let (prompts, responses) = (self.prompt_tokens, self.completion_tokens);
        // A refused prompt is answered with an error, which counts nothing.
        let uncounted = usize::from(prompts + responses == 0 && self.refusal.is_empty());
        TokenUsage { prompts, responses, uncounted }
    }
}

impl From<CachedResponse> for Response {
    fn from(response: CachedResponse) -> Response {
        let no_answer = response.no_answer();
        // A response that a content filter cut off must not be scored.
        let text = if no_answer.is_some() { String::new() } else { response.response };
        let (tokens, finished) = (response.completion_tokens, response.finished);
        Response { text, tokens, token_ids: Vec::new(), logprobs: Vec::new(), finished, no_answer }
    }
}

/// Tokens as a server counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenUsage {
    /// Of prompts.
    pub prompts: usize,
    /// Of responses.
    pub responses: usize,
    /// Responses whose tokens the server did not count.
    pub uncounted: usize,
}

impl AddAssign for TokenUsage {
    fn add_assign(&mut self, other: TokenUsage) {
        self.prompts += other.prompts;
        self.responses += other.responses;
        self.uncounted += other.uncounted;
    }
}

impl std::fmt::Display for TokenUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let TokenUsage { prompts, responses, uncounted } = self;
        if *uncounted > 0 && prompts + responses == 0 {
            return f.write_str("not known: the server does not count them");
        }
        write!(f, "{prompts} of prompts, {responses} of responses")?;
        if *uncounted > 0 {
            write!(f, "; not known of {uncounted} responses, whose tokens the server did not count")?;
        }
        Ok(())
    }
}

/// What `finish_reason` says of a response that the length limit cut off.
const LENGTH_REASONS: [&str; 5] =
    ["length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"];
/// What it says of one that a content filter held back or cut off.
const FILTER_REASONS: [&str; 6] =
    ["content_filter", "safety", "refusal", "prohibited_content", "blocklist", "recitation"];
/// What it says of one that failed while it was generated.
const ERROR_REASONS: [&str; 3] = ["error", "abort", "cancelled"];

/// What a body of status 200 holds.
pub(super) enum Parsed {
    /// A response.
    Response(CachedResponse),
    /// The error of a content filter, with this code.
    Filtered(String),
    /// An error that says that the prompt is too long.
    TooLong,
}

/// Read response `sample` to the example `id` from a body that came with status 200, its tokens too if they were asked for. `http` sanitizes
/// what is shown of it.
///
/// # Errors
/// What is wrong with it. A body that was cut off on its way may look like anything, so that asking again may help.
pub(super) fn parse(
    text: &str,
    id: &str,
    sample: usize,
    with_tokens: bool,
    http: &HttpClient,
) -> Result<Parsed, String> {
    const NONE: &str = "this is no chat API: its answer";
    let answer: Value = serde_json::from_str(text)
        .map_err(|e| format!("{NONE} is no JSON ({}): {}", json_fault(&e), http.sanitize(text)))?;
    let choice = answer.pointer("/choices/0");
    let reason = choice.and_then(|choice| choice.get("finish_reason")?.as_str()).unwrap_or_default();
    let reason = reason.to_ascii_lowercase();
    if ERROR_REASONS.contains(&reason.as_str()) {
        return Err(format!("its answer broke off: finish_reason `{reason}`"));
    }
    // Some servers say more after a colon: `content_filter: PROHIBITED_CONTENT`.
    let filtered = reason.split(':').next().is_some_and(|kind| FILTER_REASONS.contains(&kind.trim()));
    // A filtered response may lack its message.
    let Some(choice) = choice.filter(|choice| filtered || choice.get("message").is_some_and(Value::is_object)) else {
        let lacks = if choice.is_some() { "message" } else { "choices" };
        return match (filter_code(&answer), answer.get("error")) {
            (Some(code), _) => Ok(Parsed::Filtered(code)),
            (None, Some(error)) if !error.is_null() && is_too_long(&answer, text) => Ok(Parsed::TooLong),
            (None, Some(error)) if !error.is_null() => {
                Err(format!("an error: {}", http.sanitize(&error_message(text))))
            }
            _ => Err(format!("{NONE} has no `{lacks}`: {}", http.sanitize(text))),
        };
    };
    let count = |name: &str| answer.pointer(&format!("/usage/{name}")).and_then(Value::as_u64).unwrap_or(0) as usize;
    let content = choice.pointer("/message/content");
    let mut response = CachedResponse {
        id: id.to_string(),
        sample,
        response: content_text(content),
        finished: !LENGTH_REASONS.contains(&reason.as_str()),
        prompt_tokens: count("prompt_tokens"),
        completion_tokens: count("completion_tokens"),
        refusal: String::new(),
        too_long: false,
        token_ids: Vec::new(),
        logprobs: Vec::new(),
        prompt_ids: Vec::new(),
    };
    if with_tokens {
        let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
        let ids = |value| list(value).iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect();
        response.token_ids = ids(choice.get("token_ids"));
        response.prompt_ids = ids(answer.get("prompt_token_ids"));
        let logprobs = list(choice.pointer("/logprobs/content"));
        response.logprobs = logprobs.iter().filter_map(|token| Some(token.get("logprob")?.as_f64()? as f32)).collect();
    }
    if filtered {
        response.refusal = format!("finish_reason {}", http.sanitize(&reason));
    } else if response.response.trim().is_empty()
        && let Some(refusal) = refusal_message(choice)
    {
        response.refusal = http.sanitize(refusal);
    }
    Ok(Parsed::Response(response))
}

/// The message in an error body: a field of it, else the whole body.
pub(in crate::sampling) fn error_message(text: &str) -> String {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let fields = ["/error/message", "/message", "/error"];
    fields.iter().find_map(|at| value.pointer(at)?.as_str()).unwrap_or(text).to_string()
}

/// Whether an error body says that the prompt does not fit into the model's context: by its code (OpenAI, llama.cpp), or in the words of vLLM,
/// SGLang, llama.cpp, TGI, Ollama and others. The same prompt would be refused again, and a shorter one would not.
pub(super) fn is_too_long(body: &Value, text: &str) -> bool {
    const CODES: [&str; 3] = ["context_length_exceeded", "exceed_context_size_error", "string_above_max_length"];
    const WORDS: [&str; 10] = [
        "context length",
        "context size",
        "context window",
        "maximum model length",
        "max_model_len",
        "prompt is too long",
        "prompt too long",
        "input is too long",
        "tokens + `max_new_tokens` must be",
        "exceeds the maximum number of tokens",
    ];
    let codes = ["/error/code", "/error/type", "/code", "/type"];
    let said = error_message(text).to_lowercase();
    codes.iter().filter_map(|at| body.pointer(at)?.as_str()).any(|code| CODES.contains(&code))
        || WORDS.iter().any(|words| said.contains(words))
}

/// The code of an error body, if it is that of a content filter: `content_policy_violation`, `content_filter`,
/// `ResponsibleAIPolicyViolation` and the like. The same prompt would be refused again.
pub(super) fn filter_code(body: &Value) -> Option<String> {
    const FILTERS: [&str; 6] = [
        "contentpolicy",
        "contentfilter",
        "contentmoderation",
        "responsibleaipolicy",
        "moderationblocked",
        "datainspection",
    ];
    let fields = ["/error/code", "/error/type", "/error/innererror/code", "/code", "/type"];
    let found = fields.iter().filter_map(|at| body.pointer(at)?.as_str()).find(|code| {
        let plain: String = code.chars().filter(char::is_ascii_alphanumeric).collect();
        let plain = plain.to_ascii_lowercase();
        FILTERS.iter().any(|filter| plain.contains(filter))
    });
    found.map(String::from)
}

/// The text of a message's content: itself, or its parts one after the other.
fn content_text(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().filter_map(|part| part.get("text")?.as_str()).collect(),
        _ => String::new(),
    }
}

/// What a model says in place of an answer: the field `refusal` of its message, or of a part of it.
fn refusal_message(choice: &Value) -> Option<&str> {
    let message = choice.get("message")?;
    let parts = message.get("content").and_then(Value::as_array).into_iter().flatten();
    let refusals = std::iter::once(message).chain(parts).filter_map(|part| part.get("refusal")?.as_str());
    refusals.map(str::trim).find(|refusal| !refusal.is_empty())
}
