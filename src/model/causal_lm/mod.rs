//! Causal language models that read text alone (Llama, Qwen2.5, Qwen3), and the decoder that models with vision share with them.
//!
//! The families differ in what [`families`] says of each: biases, norms of queries and keys, the width of heads, defaults.

mod config;
mod decoder;
pub mod families;
mod rope_scaling;
pub mod text_config;

pub use config::Config;
pub use decoder::{decoder, parameter_shapes, part};
pub use rope_scaling::RopeScaling;
pub use text_config::TextConfig;

#[cfg(test)]
mod tests;
