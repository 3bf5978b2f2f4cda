//! What an objective is: a pure function from token statistics to (loss, gradients, metrics) that declares what else it needs.

use crate::Result;
use crate::model::{DeviceTokenGrads, DeviceTokenStats, TokenGrads, TokenStats};
use crate::train::settings::LossReduction;
use std::borrow::Cow;

/// What an objective needs besides the statistics of the model that trains. The trainer supplies it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequiredInputs {
    /// Log-probabilities of the response tokens under the model that sampled them, before any step on them.
    pub old_logprobs: bool,
    /// Log-probabilities of the response tokens under the reference model.
    pub reference_logprobs: bool,
    /// KL(reference || model) of the whole next-token distributions, with its gradient.
    pub reference_kl: bool,
    /// The reference model is asked with the example's reference response in its prompt, as a demonstration.
    pub reference_sees_response: bool,
}

impl RequiredInputs {
    /// Whether a reference model must be loaded: the model that the run started from, frozen.
    pub fn reference(&self) -> bool {
        self.reference_logprobs || self.reference_kl
    }
}

/// Size of the batch of one optimizer step, over all its micro-batches: the denominators of the losses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchTotals {
    /// Response tokens.
    pub tokens: f64,
    /// Sequences.
    pub sequences: usize,
    /// Micro-batches.
    pub micro_batches: usize,
}

impl BatchTotals {
    /// Of these response lengths, cut into `micro_batches`.
    pub fn of(lengths: impl IntoIterator<Item = usize>, micro_batches: usize) -> BatchTotals {
        let mut totals = BatchTotals { tokens: 0.0, sequences: 0, micro_batches };
        for length in lengths {
            totals.tokens += length as f64;
            totals.sequences += 1;
        }
        totals
    }
}

/// What another program, which sampled the responses, says of their tokens.
#[derive(Debug, Clone, Copy)]
pub struct SamplerLogprobs<'a> {
    /// The log-probabilities that it sampled them with.
    pub logprobs: &'a [f32],
    /// Importance weights are cut off here.
    pub max_ratio: f64,
}

/// A micro-batch or a shard of one. Values per token are laid end to end, sequence after sequence, as in [`TokenStats`].
#[derive(Debug, Clone, Copy)]
pub struct ObjectiveInputs<'a> {
    /// Of the model that trains.
    pub stats: &'a TokenStats,
    /// See [`RequiredInputs::old_logprobs`]. `None` means the current ones: every ratio is 1.
    pub old_logprobs: Option<&'a [f32]>,
    /// See [`RequiredInputs::reference_logprobs`].
    pub reference_logprobs: Option<&'a [f32]>,
    /// Of another program that sampled the responses. `None` where the model itself did.
    pub sampler: Option<SamplerLogprobs<'a>>,
    /// Response tokens of each sequence.
    pub lengths: &'a [usize],
    /// Advantage of each sequence; empty in supervised training.
    pub advantages: &'a [f64],
    /// Response tokens of the whole micro-batch.
    pub micro_batch_tokens: usize,
    /// The whole batch of the optimizer step.
    pub batch: BatchTotals,
}

impl ObjectiveInputs<'_> {
    /// The weight of each response token in a mean over the batch. The weights of a whole batch add up to 1.
    pub fn token_weights(&self, reduction: LossReduction) -> Vec<f64> {
        let weight = |length: usize| match reduction {
            LossReduction::Token => 1.0 / self.batch.tokens.max(1.0),
            LossReduction::Sequence => 1.0 / (self.batch.sequences.max(1) as f64 * length.max(1) as f64),
        };
        self.lengths.iter().flat_map(|&length| std::iter::repeat_n(weight(length), length)).collect()
    }

    /// The mean entropy over the tokens of the batch, as far as these tokens contribute to it.
    pub fn mean_entropy(&self) -> f64 {
        self.stats.entropies.iter().map(|&e| f64::from(e)).sum::<f64>() / self.batch.tokens.max(1.0)
    }
}

/// What an objective gives for its inputs. Losses, gradients and metrics of the parts of a batch add up to those of the batch.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectiveOutput {
    /// The part of the loss.
    pub loss: f64,
    /// Its gradient with respect to the token statistics.
    pub grads: TokenGrads,
    /// Numbers to report.
    pub metrics: MetricSums,
}

/// Named numbers that are added up over the parts of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricSums(Vec<(Cow<'static, str>, f64)>);

impl MetricSums {
    /// These numbers.
    pub fn new(values: impl IntoIterator<Item = (&'static str, f64)>) -> MetricSums {
        MetricSums(values.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }

    /// Add to the number called `name`, which is 0 until then.
    pub fn add(&mut self, name: impl Into<Cow<'static, str>>, value: f64) {
        let name = name.into();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += value,
            None => self.0.push((name, value)),
        }
    }

    /// Add every number of another part.
    pub fn add_all(&mut self, other: &MetricSums) {
        other.0.iter().for_each(|(name, value)| self.add(name.clone(), *value));
    }

    /// The number called `name`; 0 if there is none.
    pub fn get(&self, name: &str) -> f64 {
        self.0.iter().find(|(known, _)| *known == name).map_or(0.0, |(_, value)| *value)
    }

    /// All numbers, in the order in which they were first added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), *value))
    }

    /// The numbers as bits, to be sent to other ranks.
    pub(in crate::train) fn to_bits(&self) -> Vec<(String, u64)> {
        self.iter().map(|(name, value)| (name.to_string(), value.to_bits())).collect()
    }

    /// The numbers that [`MetricSums::to_bits`] gave.
    pub(in crate::train) fn from_bits(bits: Vec<(String, u64)>) -> MetricSums {
        MetricSums(bits.into_iter().map(|(name, bits)| (name.into(), f64::from_bits(bits))).collect())
    }
}

/// A loss. Implementations are pure: no model, no files; f64 inside, and tensors in [`Objective::device_grads`] alone.
pub trait Objective: Sync {
    /// What must be supplied.
    fn needs(&self) -> RequiredInputs {
        RequiredInputs::default()
    }

    /// The loss of a micro-batch or of a shard of one, with its gradient.
    fn compute(&self, inputs: &ObjectiveInputs<'_>) -> ObjectiveOutput;

    /// The gradient alone, in tensor ops on the device that has the statistics; those of `inputs` are empty. With it a step reads nothing
    /// from the device before its end. `None`: the statistics are read and [`Objective::compute`] is asked.
    fn device_grads(
        &self,
        _stats: &DeviceTokenStats,
        _inputs: &ObjectiveInputs<'_>,
    ) -> Result<Option<DeviceTokenGrads>> {
        Ok(None)
    }
}
