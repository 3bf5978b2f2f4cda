//! Responses to prompts: from a model here, or from a server that speaks the OpenAI API.

pub mod decoding;
pub mod rollout;
pub mod server;
pub mod teacher;
