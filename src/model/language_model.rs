//! What training and evaluation need of a model and of its tokenizer: the seam at which tests put a policy of a few numbers.

use crate::data::Message;
use crate::io::files::FileChecksum;
use crate::model::qwen2_5_vl::{Model, Predicted};
use crate::model::{Completion, LossFn, Processor, Prompt, Sampling, Sequence, TokenStats};
use crate::nn::{LazyLogits, Parameter};
use crate::{Error, Result};
use image::RgbImage;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A model that can be trained on and sampled from. See [`Model`] for what each method does.
pub trait LanguageModel: Sync {
    /// All weights, in a fixed order.
    fn parameters(&self) -> &[Arc<Parameter>];
    /// Log-probability and entropy of every response token, no gradients.
    fn score(&self, batch: &[Sequence], temperature: f32) -> Result<TokenStats>;
    /// Forward, `loss` on the token statistics, backward: adds to the gradient of every trainable parameter.
    ///
    /// The batch may be taken in shards: `loss` is called once for each, with the range of sequences that the shard holds and their
    /// statistics, from several threads and in any order. With `kl_reference` the statistics have the KL divergence from that model,
    /// which does not learn here and must share the vocabulary; `temperature` must then be 1.
    fn backward(
        &self,
        batch: &[Sequence],
        temperature: f32,
        kl_reference: Option<&dyn LanguageModel>,
        loss: &LossFn<'_>,
    ) -> Result<()>;
    /// Whether the fused kernels of a CPU do the work; else it is done on a device by candle's ops, which take other memory.
    fn fused(&self) -> bool {
        true
    }
    /// A training step begins; whatever is random in it follows from `seed`. RFT does not call it, so that nothing is dropped.
    fn begin_step(&self, _seed: u64) {}
    /// The next-token logits at every response token of a batch, not yet computed: what another model's [`LanguageModel::backward`]
    /// needs of its reference.
    fn lazy_logits(&self, _batch: &[Sequence]) -> Result<LazyLogits> {
        Err(Error::failed("this model does not give its next-token distributions"))
    }
    /// Bytes that [`LanguageModel::backward`] of `batch` takes at its highest beside weights and gradients, and bytes of gradients
    /// that it holds besides the parameters' own; for planning.
    fn backward_bytes(&self, _batch: &[Sequence]) -> (usize, usize) {
        (0, 0)
    }
    /// Bytes that [`LanguageModel::generate`] takes at its highest beside the weights; for planning.
    fn generate_bytes(&self, _prompts: &[Arc<Prompt>], _samples: usize, _new_tokens: usize) -> usize {
        0
    }
    /// `samples` responses to each prompt; `[prompt][sample]`.
    fn generate(
        &self,
        prompts: &[Arc<Prompt>],
        samples: usize,
        sampling: &Sampling,
        eos: &[u32],
        banned: &[u32],
    ) -> Result<Vec<Vec<Completion>>>;
    /// Write the weights (f32) into an existing checkpoint directory. Returns what the files are meant to hold, as far as
    /// that is known.
    fn save_weights(&self, dir: &Path) -> Result<Vec<FileChecksum>>;
}

/// A policy whose whole next-token distributions can be read.
pub trait Predictor: LanguageModel {
    /// Take `batch` through the model; its predictions are formed when they are asked for.
    fn predict(&self, batch: &[Sequence]) -> Result<Box<dyn Predictions + '_>>;
}

/// The predictions of every response token of a batch, sequences end to end.
pub trait Predictions {
    /// Response tokens.
    fn rows(&self) -> usize;
    /// Tokens of the vocabulary.
    fn vocab(&self) -> usize;
    /// Logits before each of the given response tokens, `[rows, vocab]`, row major.
    fn logits(&self, rows: Range<usize>) -> Result<Vec<f32>>;
}

impl Predictor for Model {
    fn predict(&self, batch: &[Sequence]) -> Result<Box<dyn Predictions + '_>> {
        Ok(Box::new(Model::predict(self, batch)?))
    }
}

impl Predictions for Predicted<'_> {
    fn rows(&self) -> usize {
        Predicted::rows(self)
    }

    fn vocab(&self) -> usize {
        Predicted::vocab(self)
    }

    fn logits(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        Predicted::logits(self, rows)
    }
}

impl LanguageModel for Model {
    fn parameters(&self) -> &[Arc<Parameter>] {
        Model::parameters(self)
    }

    fn score(&self, batch: &[Sequence], temperature: f32) -> Result<TokenStats> {
        Model::score(self, batch, temperature)
    }

    fn backward(
        &self,
        batch: &[Sequence],
        temperature: f32,
        kl_reference: Option<&dyn LanguageModel>,
        loss: &LossFn<'_>,
    ) -> Result<()> {
        Model::backward(self, batch, temperature, kl_reference, loss)
    }

    fn fused(&self) -> bool {
        Model::on_lanes(self)
    }

    fn begin_step(&self, seed: u64) {
        Model::begin_step(self, seed);
    }

    fn lazy_logits(&self, batch: &[Sequence]) -> Result<LazyLogits> {
        Model::lazy_logits(self, batch)
    }

    fn backward_bytes(&self, batch: &[Sequence]) -> (usize, usize) {
        Model::backward_bytes(self, batch)
    }

    fn generate_bytes(&self, prompts: &[Arc<Prompt>], samples: usize, new_tokens: usize) -> usize {
        Model::generate_bytes(self, prompts, samples, new_tokens)
    }

    fn generate(
        &self,
        prompts: &[Arc<Prompt>],
        samples: usize,
        sampling: &Sampling,
        eos: &[u32],
        banned: &[u32],
    ) -> Result<Vec<Vec<Completion>>> {
        Model::generate(self, prompts, samples, sampling, eos, banned)
    }

    fn save_weights(&self, dir: &Path) -> Result<Vec<FileChecksum>> {
        Model::save_weights(self, dir, candle_core::DType::F32)
    }
}

/// How large a prompt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptSize {
    /// Tokens, those of images included.
    pub tokens: usize,
    /// Patches of its images, before they are merged into tokens.
    pub patches: usize,
}

/// Messages and images to token ids, and back. [`Processor`] is the one for checkpoints; tests have their own.
pub trait PromptEncoder: Sync {
    /// The prompt of these messages. Each `<image>` in them stands for the next of `images`.
    fn encode_prompt(&self, messages: &[Message], images: &[RgbImage]) -> Result<Arc<Prompt>>;
    /// The size of the prompt that [`PromptEncoder::encode_prompt`] would make of images of these widths and heights.
    fn prompt_size(&self, messages: &[Message], sizes: &[(u32, u32)]) -> Result<PromptSize>;
    /// The prompt without pixels, for memory plans: its images are grids alone.
    fn meta_prompt(&self, messages: &[Message], sizes: &[(u32, u32)]) -> Result<Arc<Prompt>>;
    /// Floats of one patch of an image.
    fn patch_len(&self) -> usize;
    /// A response as token ids, with its closing token.
    fn encode_response(&self, text: &str) -> Result<Vec<u32>>;
    /// Text of generated ids, without special tokens.
    fn decode(&self, ids: &[u32]) -> Result<String>;
    /// Ids that end a response.
    fn eos_ids(&self) -> &[u32];
    /// Ids that are never sampled.
    fn banned_ids(&self) -> &[u32];
}

impl PromptEncoder for Processor {
    fn encode_prompt(&self, messages: &[Message], images: &[RgbImage]) -> Result<Arc<Prompt>> {
        Processor::encode_prompt(self, messages, images)
    }

    fn prompt_size(&self, messages: &[Message], sizes: &[(u32, u32)]) -> Result<PromptSize> {
        let tokens = self.prompt_length(messages, sizes)?;
        let images = self.images();
        let merged: usize = sizes.iter().map(|(width, height)| images.tokens(*width, *height)).sum::<Result<_>>()?;
        Ok(PromptSize { tokens, patches: merged * images.merge_size * images.merge_size })
    }

    fn meta_prompt(&self, messages: &[Message], sizes: &[(u32, u32)]) -> Result<Arc<Prompt>> {
        Processor::meta_prompt(self, messages, sizes)
    }

    fn patch_len(&self) -> usize {
        self.images().patch_len()
    }

    fn encode_response(&self, text: &str) -> Result<Vec<u32>> {
        Processor::encode_response(self, text)
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        Processor::decode(self, ids)
    }

    fn eos_ids(&self) -> &[u32] {
        Processor::eos_ids(self)
    }

    fn banned_ids(&self) -> &[u32] {
        Processor::banned_ids(self)
    }
}
