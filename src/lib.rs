//! `jigsaw`: measure and explain what fine-tuning costs a vision-language model.
//!
//! Data flows one way:
//! image -> puzzle -> [`data::Record`] -> prompt -> batch -> model -> response -> [`tasks::Score`] -> reward or accuracy.
//! `docs/architecture.md` lists the rooms from the top down, and says which file to open for which change.

// The toy policy of the tests names this crate as any other user does.
#[cfg(test)]
extern crate self as jigsaw;

pub mod alloc;
pub mod cli;
pub mod comm;
pub mod config;
pub mod data;
pub mod dynamics;
pub mod error;
pub mod eval;
pub mod forgetting;
pub mod hub;
pub mod io;
pub mod machine;
pub mod model;
pub mod nn;
pub mod report;
pub mod rng;
pub mod sampling;
pub mod stats;
pub mod study;
pub mod tasks;
pub mod train;

pub use error::{Error, Result};
