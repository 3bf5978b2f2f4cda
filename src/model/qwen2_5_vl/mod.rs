//! Qwen2.5-VL: Qwen2.5's decoder with positions in time, height and width, and a vision tower with window attention before it.

mod config;
mod vision;
mod vision_config;

use super::qwen_vl;
pub use vision_config::VisionConfig;

/// A checkpoint's configuration.
pub type Config = qwen_vl::Config<VisionConfig>;
