//! Qwen2.5-VL: configuration, vision tower, decoder, position ids, training and decoding paths.

pub mod config;
pub mod names;
pub mod rope;

pub use config::{Config, TextConfig, VisionConfig};
pub use names::{parameter_shapes, published_name};
pub use rope::{RopeIndex, get_rope_index};

use crate::Result;
use crate::model::{Completion, Prompt, Sampling, Sequence, TokenGrads, TokenStats};
use crate::nn::Parameter;
use candle_core::Device;
use std::path::Path;
use std::sync::Arc;

/// A Qwen2.5-VL model: weights and configuration.
pub struct Model {
    parameters: Vec<Arc<Parameter>>,
}

impl Model {
    /// Read `config.json` and `model*.safetensors` of a checkpoint directory.
    pub fn load(_dir: &Path, _device: &Device) -> Result<Self> {
        todo!()
    }
    /// Write `model*.safetensors` (published names) into an existing checkpoint directory.
    pub fn save_weights(&self, _dir: &Path, _dtype: candle_core::DType) -> Result<()> {
        todo!()
    }
    /// All weights, in a fixed order (that of the architecture).
    pub fn parameters(&self) -> &[Arc<Parameter>] {
        &self.parameters
    }
    /// Log-probability and entropy of every response token, no gradients.
    pub fn score(&self, _batch: &[Sequence], _temperature: f32) -> Result<TokenStats> {
        todo!()
    }
    /// Forward, `loss` on the token statistics, backward: adds to the gradient of every trainable parameter.
    pub fn backward(
        &self,
        _batch: &[Sequence],
        _temperature: f32,
        _loss: &mut dyn FnMut(&TokenStats) -> Result<TokenGrads>,
    ) -> Result<()> {
        todo!()
    }
    /// `samples` responses to each prompt; `[prompt][sample]`.
    pub fn generate(
        &self,
        _prompts: &[Arc<Prompt>],
        _samples: usize,
        _sampling: &Sampling,
        _eos: &[u32],
        _banned: &[u32],
    ) -> Result<Vec<Vec<Completion>>> {
        todo!()
    }
}
