//! Qwen2-VL: Qwen2.5-VL's decoder with a plain vision transformer before it, whose attention is over whole images.

mod config;
mod vision;
mod vision_config;

use super::qwen_vl;
pub use vision_config::VisionConfig;

/// A checkpoint's configuration.
pub type Config = qwen_vl::Config<VisionConfig>;
