//! Teachers: those whose responses are foreign to the model that learns from them.

mod look;
mod scripted;

pub use scripted::Scripted;
