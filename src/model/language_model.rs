//! The seam between models and what uses them: training, sampling and evaluation know a model as a [`LanguageModel`] and its processor
//! as a [`PromptEncoder`]. Tests put models of a few numbers behind both.

use crate::comm::{Communicator, Single};
use crate::data::Message;
use crate::io::files::FileChecksum;
use crate::model::parts::Part;
use crate::model::sequence::{
    Completion, HostLoss, KlReference, LossFn, Prompt, ResponseEnd, SamplingParams, Sequence, TokenLoss, TokenStats,
};
use crate::nn::{LazyLogits, Parameter};
use crate::{Error, Result};
use image::RgbImage;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A model that can be trained and sampled from.
pub trait LanguageModel: Sync {
    /// All weights, in a fixed order (that of the architecture), and after them those of an adapter.
    fn parameters(&self) -> &[Arc<Parameter>];
    /// The part of the model that one of its parameters belongs to.
    fn part(&self, _parameter: &str) -> Part {
        Part::Decoder
    }
    /// Log-probability and entropy of every response token, no gradients.
    fn score(&self, batch: &[Sequence], temperature: f32) -> Result<TokenStats>;
    /// Forward, `loss` on the token statistics, backward: adds to the gradient of every trainable parameter.
    ///
    /// The batch may be taken in shards: `loss` is called once for each, with the range of sequences that the shard holds and their
    /// statistics, from several threads and in any order. With `kl_reference` the statistics have the KL divergence from its
    /// distributions, which do not learn here and must share the vocabulary; `temperature` must then be 1.
    fn backward(
        &self,
        batch: &[Sequence],
        temperature: f32,
        kl_reference: Option<&KlReference<'_>>,
        loss: &LossFn<'_>,
    ) -> Result<()> {
        self.distributed_backward(&Single, batch, temperature, kl_reference, &HostLoss(loss))
    }
    /// As [`LanguageModel::backward`], shared out between ranks that all give the same batch: `loss` is called for this rank's shards,
    /// and every rank ends with the gradients of the whole batch. On a CPU they do not depend on the number of ranks.
    fn distributed_backward(
        &self,
        comm: &dyn Communicator,
        batch: &[Sequence],
        temperature: f32,
        kl_reference: Option<&KlReference<'_>>,
        loss: &dyn TokenLoss,
    ) -> Result<()>;
    /// A training step begins; dropout in it follows from `seed`. Without this call nothing is dropped: RFT does not make it.
    fn begin_step(&self, _seed: u64) {}
    /// The next-token logits at every response token of a batch, not yet computed: what another model's [`LanguageModel::backward`]
    /// needs of its reference.
    fn lazy_logits(&self, _batch: &[Sequence]) -> Result<LazyLogits> {
        Err(Error::failed("this model does not give its next-token distributions"))
    }
    /// `samples` responses to each prompt: `[prompt][sample]`. A response ends at one of `eos` or at the length limit; `banned`
    /// tokens are never chosen. Sample j of prompt i draws from a stream of its own. On a CPU, a response depends neither
    /// on the other prompts nor on the number of threads (a GPU's library may sum in another order where more rows are multiplied).
    ///
    /// # Errors
    /// If the sampling settings are out of range, or a prompt does not fit the model.
    fn generate(
        &self,
        prompts: &[Arc<Prompt>],
        samples: usize,
        sampling: &SamplingParams,
        eos: &[u32],
        banned: &[u32],
    ) -> Result<Vec<Vec<Completion>>> {
        self.generate_from(0, prompts, samples, sampling, ResponseEnd { eos, is_stopped: None }, banned)
    }
    /// As [`LanguageModel::generate`], of prompts that are a part of more: prompt i draws from the streams of prompt `first + i`. A response may
    /// also end by what it says.
    fn generate_from(
        &self,
        first: usize,
        prompts: &[Arc<Prompt>],
        samples: usize,
        sampling: &SamplingParams,
        end: ResponseEnd<'_>,
        banned: &[u32],
    ) -> Result<Vec<Vec<Completion>>>;
    /// Write the weights as f32 safetensors, under their published names, into an existing checkpoint directory; of a model with an
    /// adapter the adapter alone, in PEFT's form. Returns what the files should hold, as far as that is known.
    fn save_weights(&self, dir: &Path) -> Result<Vec<FileChecksum>>;
    /// What the model knows of the memory that it will take.
    fn memory_footprint(&self) -> Option<&dyn MemoryFootprint> {
        None
    }
}

/// How much memory a model will take, counted from shapes: a plan is made before anything is computed.
pub trait MemoryFootprint {
    /// Whether the fused CPU kernels do the work. If not, candle's ops do it on a device, and take other memory.
    fn uses_cpu_kernels(&self) -> bool;
    /// The peak of [`LanguageModel::distributed_backward`] for a batch of these groups of sequences, on the one of so many ranks that takes the
    /// most.
    fn backward_bytes(&self, batch: &[GroupSize], ranks: usize) -> BackwardBytes;
    /// The peak of [`LanguageModel::generate`] in bytes, beside the weights and the pixels of the prompts.
    fn generate_bytes(&self, prompts: &[PromptSize], samples: usize, new_tokens: usize) -> usize;
    /// Bytes of the pixels of a prompt.
    fn pixel_bytes(&self, prompt: &PromptSize) -> usize;
}

/// Bytes of a backward pass, beside the weights and the parameters' own gradients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackwardBytes {
    /// Activations of the shards worked on at once.
    pub activations: usize,
    /// Gradients that threads hold for themselves.
    pub thread_gradients: usize,
}

/// A model whose next-token distributions can be read.
pub trait Predictor: LanguageModel {
    /// Take `batch` through the model. Its logits are computed when they are asked for.
    fn predict(&self, batch: &[Sequence]) -> Result<Box<dyn Predictions + '_>>;
    /// Take `sequence` through the model and back. `upstream` gets the logits before each response token, `[tokens, vocab]` row major, and
    /// returns the gradient with respect to them; the gradient of every trainable parameter is added.
    ///
    /// [`LanguageModel::backward`] starts from log-probabilities in f32, where 1 - pi of a token that the model is certain of has lost its
    /// digits. A caller that needs them computes the gradient at the logits itself.
    fn backward_from_logits(
        &self,
        _sequence: &Sequence,
        _upstream: &mut dyn FnMut(Vec<f32>) -> Result<Vec<f32>>,
    ) -> Result<()> {
        Err(Error::failed("this model takes no gradient at its logits"))
    }
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

/// How large a prompt is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PromptSize {
    /// Tokens, those of images included.
    pub tokens: usize,
    /// Patches of its images, before they are merged into tokens.
    pub patches: usize,
    /// Patches of the largest of them.
    pub largest_image: usize,
}

impl Prompt {
    /// How large it is.
    pub fn size(&self) -> PromptSize {
        let patches = || self.images.iter().map(|image| image.grid.iter().product::<usize>());
        PromptSize { tokens: self.ids.len(), patches: patches().sum(), largest_image: patches().max().unwrap_or(0) }
    }
}

/// How large a prompt and the responses to it are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupSize {
    /// The prompt.
    pub prompt: PromptSize,
    /// Responses to it.
    pub responses: usize,
    /// Tokens of each response.
    pub response_tokens: usize,
}

impl GroupSize {
    /// Rows of the decoder: the last token of a response is only predicted.
    pub fn rows(&self) -> usize {
        self.prompt.tokens + self.responses * self.response_tokens.saturating_sub(1)
    }

    /// Tokens that are predicted.
    pub fn predicted(&self) -> usize {
        self.responses * self.response_tokens
    }
}

/// Messages and images to token ids, and back.
pub trait PromptEncoder: Sync {
    /// The prompt of these messages. Each `<image>` in them stands for the next of `images`.
    fn encode_prompt(&self, messages: &[Message], images: &[RgbImage]) -> Result<Arc<Prompt>>;
    /// The size of the prompt that [`PromptEncoder::encode_prompt`] would make of images of these widths and heights.
    fn prompt_size(&self, messages: &[Message], sizes: &[(u32, u32)]) -> Result<PromptSize>;
    /// A response as token ids, with its closing token.
    fn encode_response(&self, text: &str) -> Result<Vec<u32>>;
    /// Bytes of the longest text of so many tokens: a longer one need not be tokenised to know that it is too long.
    fn most_text_bytes(&self, _tokens: usize) -> usize {
        usize::MAX
    }
    /// Text of generated ids, without special tokens.
    fn decode(&self, ids: &[u32]) -> Result<String>;
    /// Ids that end a response.
    fn eos_ids(&self) -> &[u32];
    /// Ids that are never sampled.
    fn banned_ids(&self) -> &[u32];
}
