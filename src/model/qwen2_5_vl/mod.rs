//! Qwen2.5-VL: configuration, vision tower, decoder, position ids, training and decoding paths.

mod cache;
pub mod config;
mod generate;
mod layout;
pub mod names;
pub mod rope;
mod text;
mod vision;
pub mod weights;

pub use config::Config;

use crate::Result;
use crate::model::{Prompt, Sequence, TokenGrads, TokenStats};
use crate::nn::{Parameter, RowSource, Tape, Value, embed, token_stats};
use candle_core::{DType, Device, Tensor};
use layout::{Layout, Row};
use std::path::Path;
use std::sync::Arc;
use text::Decoder;
use vision::VisionTower;
use weights::Weights;

/// A Qwen2.5-VL model: weights and configuration.
pub struct Model {
    config: Config,
    device: Device,
    vision: VisionTower,
    decoder: Decoder,
    parameters: Vec<Arc<Parameter>>,
    fused: bool,
}

impl Model {
    /// Read `config.json` and `model*.safetensors` of a checkpoint directory.
    pub fn load(dir: &Path, device: &Device) -> Result<Self> {
        let config = Config::from_dir(dir)?;
        let mut weights = Weights::read(dir, &config, device)?;
        let vision = VisionTower::new(&config.vision, &mut weights)?;
        let decoder = Decoder::new(&config.text, config.tie_word_embeddings, &mut weights)?;
        let parameters = weights.finish(&config)?;
        Ok(Model { config, device: device.clone(), vision, decoder, parameters, fused: true })
    }

    /// Use compositions of candle ops in place of the fused CPU kernels, as other devices do.
    pub fn without_fused_kernels(mut self) -> Self {
        self.fused = false;
        self
    }

    /// Whether fused kernels are used where the device has them.
    pub fn fused(&self) -> bool {
        self.fused
    }

    /// The architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Write `model*.safetensors` (published names) into an existing checkpoint directory, as f32, bf16 or f16.
    pub fn save_weights(&self, dir: &Path, dtype: DType) -> Result<()> {
        weights::write(dir, &self.parameters, dtype)
    }

    /// All weights, in a fixed order (that of the architecture).
    pub fn parameters(&self) -> &[Arc<Parameter>] {
        &self.parameters
    }

    /// Log-probability and entropy of every response token, no gradients.
    pub fn score(&self, batch: &[Sequence], temperature: f32) -> Result<TokenStats> {
        let (_, stats) = self.token_stats(&self.tape(false), batch, temperature)?;
        Ok(stats)
    }

    /// Forward, `loss` on the token statistics, backward: adds to the gradient of every trainable parameter.
    pub fn backward(
        &self,
        batch: &[Sequence],
        temperature: f32,
        loss: &mut dyn FnMut(&TokenStats) -> Result<TokenGrads>,
    ) -> Result<()> {
        let tape = self.tape(true);
        let (value, stats) = self.token_stats(&tape, batch, temperature)?;
        let grads = loss(&stats)?;
        let Some(value) = value else { return Ok(()) };
        let rows = stats.logprobs.len();
        let mut seed = grads.logprobs;
        match grads.entropies {
            Some(entropies) => seed.extend(entropies),
            None => seed.resize(2 * rows, 0.0),
        }
        let seed = Tensor::from_vec(seed, (2, rows), &Device::Cpu)?.to_device(&self.device)?;
        tape.backward(vec![(value, seed)])
    }

    /// Logits at every position of a prompt: `[tokens, vocab]`. For comparisons; training never forms them.
    pub fn logits(&self, prompt: &Arc<Prompt>) -> Result<Tensor> {
        let tape = self.tape(false);
        let layout = Layout::of_prompts(std::slice::from_ref(prompt), &self.config)?;
        let hidden = self.hidden(&tape, &layout, None, |_, _| Ok(()))?;
        let hidden = self.decoder.finish(&tape, &hidden)?.tensor;
        Ok(hidden.matmul(&self.decoder.head.var.t()?)?)
    }

    fn tape(&self, recording: bool) -> Tape {
        let tape = if recording { Tape::new() } else { Tape::forward_only() };
        if self.fused { tape } else { tape.composed() }
    }

    /// Statistics of every response token, and the value to differentiate (`None` if there is no response token).
    fn token_stats(&self, tape: &Tape, batch: &[Sequence], temperature: f32) -> Result<(Option<Value>, TokenStats)> {
        let layout = Layout::of_sequences(batch, &self.config)?;
        if layout.targets.is_empty() {
            return Ok((None, TokenStats { logprobs: Vec::new(), entropies: Vec::new() }));
        }
        let predictors = self.hidden(tape, &layout, Some(layout.predictors.clone()), |_, _| Ok(()))?;
        let predictors = self.decoder.finish(tape, &predictors)?;
        let value = token_stats(tape, &predictors, &self.decoder.head, layout.targets, temperature)?;
        let mut both = value.tensor.to_vec2::<f32>()?;
        let entropies = both.pop().unwrap_or_default();
        let logprobs = both.pop().unwrap_or_default();
        Ok((Some(value), TokenStats { logprobs, entropies }))
    }

    /// Hidden states of all rows, or of the `wanted` ones, before the final norm; `keep` sees each layer's rotated `qkv`.
    fn hidden(
        &self,
        tape: &Tape,
        layout: &Layout,
        wanted: Option<Vec<u32>>,
        keep: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<Value> {
        let features = match layout.images.is_empty() {
            true => None,
            false => Some(self.vision.forward(tape, &layout.images, &self.device)?),
        };
        let source = |row: &Row| match (row, &features) {
            (Row::Image { image, unit }, Some(f)) => RowSource::Image(f.places[*image][*unit]),
            (Row::Image { .. }, None) => RowSource::Token(self.config.image_token_id),
            (Row::Token(id), _) => RowSource::Token(*id),
        };
        let sources = layout.rows.iter().map(source).collect();
        let x = embed(tape, &self.decoder.embedding, features.as_ref().map(|f| &f.rows), sources)?;
        let table = self.decoder.rotations(layout.positions.each_ref().map(Vec::as_slice));
        self.decoder.forward(tape, x, &table, &Arc::new(layout.trees.clone()), wanted, keep)
    }
}
