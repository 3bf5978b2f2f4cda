//! Teachers: those whose responses are foreign to the model that learns from them.

mod chat;
mod look;
mod scripted;

#[cfg(test)]
pub(crate) use chat::tests as chat_tests;
pub use chat::{Chat, Endpoint, KEY_VARIABLE, Paid};
pub use scripted::Scripted;
