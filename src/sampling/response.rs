//! One sampled response: as it comes, and with its score.

use crate::tasks::{NoAnswer, Score};
use serde::{Deserialize, Serialize};

/// A response as it comes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Text without special tokens.
    pub text: String,
    /// Tokens generated, with the closing one; 0 if a server does not count them.
    pub tokens: usize,
    /// The tokens themselves, with the closing one; none from a server that is asked for text.
    pub token_ids: Vec<u32>,
    /// Log-probability of each token, in nats, under logits / temperature before top-k and top-p; none from a server that is asked for
    /// text.
    pub logprobs: Vec<f32>,
    /// Ended by itself rather than by the length limit.
    pub finished: bool,
    /// Why a server gave no text to score, where it gave none.
    pub no_answer: Option<NoAnswer>,
}

impl Response {
    /// A whole text of which no tokens are known.
    pub fn text(text: impl Into<String>) -> Response {
        Response {
            text: text.into(),
            tokens: 0,
            token_ids: Vec::new(),
            logprobs: Vec::new(),
            finished: true,
            no_answer: None,
        }
    }
}

/// One response with its score. [`LoggedResponse`](super::LoggedResponse) is a line of `responses.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredResponse {
    /// Index of the example in the task.
    pub index: usize,
    /// Id of the example.
    pub id: String,
    /// Which of the responses to this example.
    pub sample: usize,
    /// The response as generated, without special tokens.
    pub response: String,
    /// Tokens generated, with the closing one.
    pub tokens: usize,
    /// Ended by itself rather than by the length limit.
    pub finished: bool,
    /// The task's verdict.
    #[serde(flatten)]
    pub score: Score,
    /// The tokens as sampled, with the closing one. They are not part of the line.
    #[serde(skip)]
    pub token_ids: Vec<u32>,
    /// Log-probability of each of them, as in [`Response`]. They are not part of the line.
    #[serde(skip)]
    pub logprobs: Vec<f32>,
}
