//! The model family: Qwen2.5-VL, its processor, chat template, weights and generation.

mod check;
mod compute;
pub mod convert;
pub(crate) mod fields;
pub mod init;
pub mod inspect;
pub mod interpolate;
pub mod lora;
pub mod processor;
pub mod qwen2_5_vl;
mod sampling;
pub mod sequence;

pub use check::check;
pub use compute::Compute;
pub use processor::Processor;
pub use sequence::{Completion, ImageInput, LossFn, NearLossFn, Prompt, Sampling, Sequence, TokenGrads, TokenStats};
