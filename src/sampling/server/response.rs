//! What comes back from a server: responses as they are kept, and what its answers mean by their fields.

use crate::tasks::NoAnswer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ops::AddAssign;

/// A response that was cached for: a line of the file of cached responses.
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
    /// What the server said where its content filter, or the model itself, refusal to answer; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub refusal: String,
}

impl CachedResponse {
    /// Why there is no answer in it, if there is none. What the length limit cut off is one, if a short one.
    pub fn no_answer(&self) -> Option<NoAnswer> {
        match self {
            cached if !cached.refusal.is_empty() => Some(NoAnswer::Refused),
            cached if cached.finished && cached.response.trim().is_empty() => Some(NoAnswer::Empty),
            _ => None,
        }
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
pub(super) const LENGTH_REASONS: [&str; 5] =
    ["length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"];
/// What it says of one that a content filter held back, or cut off.
pub(super) const FILTER_REASONS: [&str; 6] =
    ["content_filter", "safety", "refusal", "prohibited_content", "blocklist", "recitation"];
/// What it says of one that failed on the way.
pub(super) const ERROR_REASONS: [&str; 3] = ["error", "abort", "cancelled"];

/// The code of an error body, if it is that of a content filter: `content_policy_violation`, `content_filter`,
/// `ResponsibleAIPolicyViolation` and their like. Asked again, the same prompt would be refusal again.
pub(super) fn filter_code(body: &Value) -> Option<String> {
    const FILTERS: [&str; 6] = [
        "contentpolicy",
        "contentfilter",
        "contentmoderation",
        "responsibleaipolicy",
        "moderationblocked",
        "datainspection",
    ];
    let places = ["/error/code", "/error/type", "/error/innererror/code", "/code", "/type"];
    let found = places.iter().filter_map(|at| body.pointer(at)?.as_str()).find(|code| {
        let plain: String = code.chars().filter(char::is_ascii_alphanumeric).collect();
        let plain = plain.to_ascii_lowercase();
        FILTERS.iter().any(|filter| plain.contains(filter))
    });
    found.map(String::from)
}

/// The text of a message's content: itself, or its parts one after the other.
pub(super) fn text_of(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().filter_map(|part| part.get("text")?.as_str()).collect(),
        _ => String::new(),
    }
}

/// What a model says in place of an answer: the field `refusal` of its message, or of a part of it.
pub(super) fn refusal_message(choice: &Value) -> Option<&str> {
    let message = choice.get("message")?;
    let parts = message.get("content").and_then(Value::as_array).into_iter().flatten();
    let said = std::iter::once(message).chain(parts).filter_map(|place| place.get("refusal")?.as_str());
    said.map(str::trim).find(|said| !said.is_empty())
}
