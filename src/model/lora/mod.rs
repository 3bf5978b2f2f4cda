//! Low-rank adapters (LoRA) as PEFT has them: made, read, written, merged.
//!
//! An adapter is a directory with `adapter_config.json` and `adapter_model.safetensors`. What is written here `peft` loads, what `peft`
//! writes is loaded here. Its base is the model that `base_model_name_or_path` names.

mod adapter;
mod config;
mod merge;
mod peft;
mod settings;
mod targets;

pub use adapter::Adapter;
pub use config::{base_of, model_files, scaling_of};
pub(crate) use merge::MergedWeights;
pub use merge::merge;
pub use settings::LoraSettings;
pub use targets::{LANGUAGE, LoraModule, Targets};

pub use crate::model::file_names::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, is_adapter};
