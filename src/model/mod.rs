//! Language models: families, weights, processors, adapters, training passes, generation.
//!
//! [`load`] reads a checkpoint directory. What differs between families is behind [`Architecture`], one folder each; everything else
//! here is written once for all of them.

pub mod all_reduce;
mod architecture;
mod backward;
mod batch_layout;
mod causal_lm;
mod check;
mod checkpoint_config;
mod checkpoint_hash;
mod compute_dtype;
pub mod convert_dtype;
mod decoder;
mod device_sampler;
mod file_names;
mod forward;
mod generate;
pub mod gguf;
mod hub_files;
pub mod init;
pub mod inspect;
pub mod interpolate_weights;
pub(crate) mod json_fields;
mod kv_cache;
mod language_model;
mod loader;
pub mod lora;
mod memory;
pub mod new_checkpoint;
mod parts;
mod positions;
mod predict;
pub mod processor;
mod qwen2_5_vl;
mod qwen2_vl;
mod qwen3_vl;
mod qwen_vl;
mod registry;
pub mod safetensors_file;
pub mod sequence;
mod shapes;
mod shards;
mod singular_values;
mod token_sampler;
mod transformer;
pub mod weight_diff;
pub mod weight_dtype;
pub mod weights;

pub use architecture::Architecture;
pub use check::check;
pub use checkpoint_config::read_architecture;
pub use checkpoint_config::require_checkpoint;
pub use checkpoint_hash::{hash_model, hash_prompt_files};
pub use compute_dtype::ComputeDtype;
pub use file_names::missing_files;
pub use hub_files::CheckpointSelector;
pub use language_model::{
    BackwardBytes, GroupSize, LanguageModel, MemoryFootprint, Predictions, Predictor, PromptEncoder, PromptSize,
};
pub use loader::{MetaTraining, ModelLoader, load, meta};
pub use parts::Part;
pub use positions::Positions;
pub use processor::{MAX_PIXELS, Processor};
pub use registry::parse_architecture;
pub use sequence::{
    Completion, DeviceTokenGrads, DeviceTokenStats, HostLoss, ImageInput, KlReference, LossFn, MAX_NEW_TOKENS, Prompt,
    ResponseEnd, SamplingParams, Sequence, TokenGrads, TokenLoss, TokenStats,
};
pub use shapes::{DecoderShape, ImageTokens, VisionShape};
pub use transformer::Model;
