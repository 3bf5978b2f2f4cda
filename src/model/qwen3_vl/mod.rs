//! Qwen3-VL without experts: Qwen3's decoder with positions in time, height and width, and a vision transformer before it whose early
//! blocks also feed the decoder's first layers (DeepStack).

mod config;
mod vision;
mod vision_config;

use super::qwen_vl;
pub use vision_config::VisionConfig;

/// A checkpoint's configuration.
pub type Config = qwen_vl::Config<VisionConfig>;
