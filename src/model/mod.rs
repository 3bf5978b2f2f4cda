//! The model family: Qwen2.5-VL, its processor, chat template, weights and generation.

mod check;
mod checkpoint_files;
mod compute;
pub mod convert;
pub(crate) mod fields;
mod hash;
mod hub_files;
pub mod init;
pub mod inspect;
pub mod interpolate;
mod language_model;
pub mod lora;
pub mod processor;
pub mod qwen2_5_vl;
mod sampling;
pub mod sequence;
pub mod tensor_file;

pub use check::check;
pub use checkpoint_files::missing_files;
pub use compute::Compute;
pub use hash::{hash_model, hash_prompt_files};
pub use hub_files::CheckpointSelector;
pub use language_model::{LanguageModel, Predictions, Predictor, PromptEncoder, PromptSize};
pub use processor::Processor;
pub use sequence::{Completion, ImageInput, LossFn, Prompt, Sampling, Sequence, TokenGrads, TokenStats};
