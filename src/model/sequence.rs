//! What goes into the model and what comes out of it, in token ids: prompts, sequences, completions.

use crate::Result;
use crate::nn::LazyLogits;
use candle_core::Tensor;
use std::ops::Range;
use std::sync::Arc;

/// One preprocessed image.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageInput {
    /// Flattened patches in merge order, `[t * h * w, 3 * temporal_patch * patch * patch]`, row major.
    pub patches: Vec<f32>,
    /// Patch grid `[t, h, w]` (before merging).
    pub grid: [usize; 3],
}

/// A tokenised prompt. `ids` holds one image-pad token for every merged patch of every image, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Token ids, ending where the assistant's response begins.
    pub ids: Vec<u32>,
    /// The images in the order of their placeholders.
    pub images: Vec<Arc<ImageInput>>,
}

/// A prompt and one response to it. Consecutive sequences of a batch that share the same `Arc` share its computation.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// The prompt.
    pub prompt: Arc<Prompt>,
    /// Response token ids, with the closing `<|im_end|>` if it was reached.
    pub response: Vec<u32>,
}

/// Per response token, over a batch of sequences laid end to end (sequence 0's tokens, then sequence 1's, ...).
#[derive(Debug, Clone, PartialEq)]
pub struct TokenStats {
    /// `log pi(token | prefix)` of logits / temperature, natural logarithm.
    pub logprobs: Vec<f32>,
    /// Entropy of the next-token distribution at each response token, in nats.
    pub entropies: Vec<f32>,
    /// KL(reference || model) of the whole next-token distributions at each response token, in nats; only where a backward pass has a
    /// reference.
    pub kl: Option<Vec<f32>>,
}

/// Gradient of a scalar loss with respect to [`TokenStats`], same layout.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenGrads {
    /// d loss / d logprob.
    pub logprobs: Vec<f32>,
    /// d loss / d entropy, when the loss has an entropy term.
    pub entropies: Option<Vec<f32>>,
    /// d loss / d KL, when the loss has a KL term. Only where the statistics have one.
    pub kl: Option<Vec<f32>>,
}

/// [`TokenStats`] on the device that computed them.
#[derive(Debug, Clone)]
pub struct DeviceTokenStats {
    /// Log-probabilities and entropies, `[2, tokens]`.
    pub both: Tensor,
    /// See [`TokenStats::kl`]: `[tokens]`.
    pub kl: Option<Tensor>,
}

impl DeviceTokenStats {
    /// Log-probabilities, `[tokens]`.
    pub fn logprobs(&self) -> Result<Tensor> {
        Ok(self.both.narrow(0, 0, 1)?.flatten_all()?)
    }

    /// Entropies, `[tokens]`.
    pub fn entropies(&self) -> Result<Tensor> {
        Ok(self.both.narrow(0, 1, 1)?.flatten_all()?)
    }

    /// A number for each token, `[tokens]`, on the same device.
    pub fn column(&self, numbers: impl IntoIterator<Item = f64>) -> Result<Tensor> {
        let numbers: Vec<f32> = numbers.into_iter().map(|n| n as f32).collect();
        Ok(Tensor::from_vec(numbers, self.both.dim(1)?, self.both.device())?)
    }
}

/// [`TokenGrads`] on a device.
#[derive(Debug, Clone)]
pub struct DeviceTokenGrads {
    /// With respect to log-probabilities and entropies, `[2, tokens]`.
    pub both: Tensor,
    /// With respect to the KL: `[tokens]`.
    pub kl: Option<Tensor>,
}

impl DeviceTokenGrads {
    /// These gradients with respect to log-probabilities, `[tokens]`, and none with respect to anything else.
    pub fn of_logprobs(logprobs: &Tensor) -> Result<DeviceTokenGrads> {
        Ok(DeviceTokenGrads { both: Tensor::stack(&[logprobs, &logprobs.zeros_like()?], 0)?, kl: None })
    }
}

/// A loss: from the statistics of the given sequences of a batch to their gradient.
pub type LossFn<'a> = dyn Fn(Range<usize>, &TokenStats) -> Result<TokenGrads> + Sync + 'a;

/// A loss that may have its gradient in tensor ops, too.
pub trait TokenLoss: Sync {
    /// As [`LossFn`].
    fn grads(&self, sequences: Range<usize>, stats: &TokenStats) -> Result<TokenGrads>;
    /// The same on the device that has the statistics, so that nothing is read from it between a forward and a backward pass. `None` if this
    /// loss has no such form: [`TokenLoss::grads`] is called then.
    fn device_grads(&self, _sequences: Range<usize>, _stats: &DeviceTokenStats) -> Result<Option<DeviceTokenGrads>> {
        Ok(None)
    }
}

/// A loss that is computed in main memory.
pub struct HostLoss<'a>(pub &'a LossFn<'a>);

impl TokenLoss for HostLoss<'_> {
    fn grads(&self, sequences: Range<usize>, stats: &TokenStats) -> Result<TokenGrads> {
        self.0(sequences, stats)
    }
}

/// The next-token logits of another model at every response token of the given sequences of a batch.
pub type KlReference<'a> = dyn Fn(Range<usize>) -> Result<LazyLogits> + Sync + 'a;

/// Most tokens of a response that can be asked for: far beyond what any model was trained for.
pub const MAX_NEW_TOKENS: usize = 1 << 20;

/// How to choose the next token.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SamplingParams {
    /// Most tokens of a response.
    pub max_new_tokens: usize,
    /// 0 for greedy.
    pub temperature: f32,
    /// Nucleus: keep the smallest set of tokens whose probability reaches this; 1 for off.
    pub top_p: f32,
    /// Keep the k likeliest tokens; 0 for off.
    pub top_k: usize,
    /// Texts that end a response. A response keeps its stop text as its end; a server leaves it out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Seed; sample `j` of prompt `i` draws from its own stream, so the batching does not matter.
    pub seed: u64,
}

impl SamplingParams {
    /// The likeliest token at each step.
    pub fn greedy(max_new_tokens: usize) -> Self {
        SamplingParams { max_new_tokens, temperature: 0.0, top_p: 1.0, top_k: 0, stop: Vec::new(), seed: 0 }
    }
}

/// Whether the tokens of a response end it.
pub type IsStopped<'a> = &'a (dyn Fn(&[u32]) -> bool + Sync);

/// What ends a response before its longest length.
#[derive(Clone, Copy)]
pub struct ResponseEnd<'a> {
    /// Tokens that end it.
    pub eos: &'a [u32],
    /// Whether these tokens of a response, the last ones among them, end it by what they say.
    pub is_stopped: Option<IsStopped<'a>>,
}

/// One generated response.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Token ids, with the closing end-of-sequence token if it was reached.
    pub ids: Vec<u32>,
    /// `log pi` of each token under logits / temperature before top-p and top-k (temperature 1 when greedy).
    pub logprobs: Vec<f32>,
    /// Ended by an end-of-sequence token or a stop text rather than by the length limit.
    pub finished: bool,
}
