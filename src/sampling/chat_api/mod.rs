//! A model behind an address: a client of the chat API that OpenAI's servers, vLLM, SGLang, llama.cpp and Ollama speak. It answers as
//! the teacher of a rollout and as the model of an evaluation, and for a trainer with the tokens of its responses.
//!
//! Text is sent unchanged, images as data URLs of PNG in their own size. A request that fails for a passing reason (a broken connection,
//! 408, 429, 5xx, a body that is cut off or reports an error) is repeated after a pause that doubles, or after the pause that the server
//! asks for. A refusal by a content filter counts as an
//! answer, and so does that of a prompt that is too long. Every response is written to a file as it comes, so that nothing is paid
//! for twice.
//! No redirection is followed: it might lead away from the address that the user gave. The key comes from the environment and is removed
//! from the server's error messages; a model's answers are kept unchanged.

mod client;
mod endpoint;
mod request_body;
mod response;
mod schedule;

pub(super) use client::http_client;
pub use client::{API_KEY_VARIABLE, Asked, ChatClient, Note, TokenNeeds, api_key_from_env};
pub use endpoint::{Endpoint, INITIAL_BACKOFF, REQUEST_TIMEOUT, ServerUrls};
pub(super) use response::error_message;
pub use response::{CachedResponse, TokenUsage};

#[cfg(test)]
pub(crate) use client::tests;
