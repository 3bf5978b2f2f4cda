//! The gradient of one optimizer step: a forward and backward pass for each micro-batch. The gradients add up in the parameters.

use super::objective::{BatchTotals, MetricSums, Objective, ObjectiveInputs, RequiredInputs};
use super::shard_outputs::ShardOutputs;
use crate::comm::Communicator;
use crate::model::{KlReference, LanguageModel, Prompt, Sequence, all_reduce};
use crate::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// The sequences of one forward and backward pass, with what the objective needs to know of them.
#[derive(Debug, Clone)]
pub struct MicroBatch {
    sequences: Vec<Sequence>,
    /// What the reference model is asked, where its prompts are others.
    reference_sequences: Option<Vec<Sequence>>,
    lengths: Vec<usize>,
    /// Sequences by which means over sequences are divided.
    count: usize,
    advantages: Vec<f64>,
    old_logprobs: Option<Vec<f32>>,
    reference_logprobs: Option<Vec<f32>>,
}

impl MicroBatch {
    /// Sequences of supervised training.
    pub fn new(sequences: &[Sequence]) -> MicroBatch {
        MicroBatch::with_advantages(sequences.to_vec(), Vec::new())
    }

    /// Sequences with the advantage of each.
    pub fn with_advantages(sequences: Vec<Sequence>, advantages: Vec<f64>) -> MicroBatch {
        let lengths: Vec<usize> = sequences.iter().map(|s| s.response.len()).collect();
        MicroBatch {
            count: sequences.len(),
            sequences,
            reference_sequences: None,
            lengths,
            advantages,
            old_logprobs: None,
            reference_logprobs: None,
        }
    }

    /// The same as what is left of `count` sequences: the others have no tokens that count.
    pub fn of(self, count: usize) -> MicroBatch {
        MicroBatch { count, ..self }
    }

    /// The same responses, with other prompts for the reference model: one for each sequence.
    pub fn with_reference_prompts(mut self, prompts: &[Arc<Prompt>]) -> MicroBatch {
        let pairs = prompts.iter().zip(&self.sequences);
        let sequences = pairs.map(|(prompt, s)| Sequence { prompt: prompt.clone(), response: s.response.clone() });
        self.reference_sequences = Some(sequences.collect());
        self
    }

    /// Compute, on all ranks, the log-probabilities that an objective needs: those of `model` as it is now, and those of `reference`.
    ///
    /// # Errors
    /// A reference that is needed and missing.
    pub fn supply(
        mut self,
        needs: RequiredInputs,
        comm: &dyn Communicator,
        model: &dyn LanguageModel,
        reference: Option<&dyn LanguageModel>,
        temperature: f32,
    ) -> Result<MicroBatch> {
        if self.sequences.is_empty() {
            return Ok(self);
        }
        if needs.old_logprobs {
            self.old_logprobs = Some(all_reduce::score(comm, model, &self.sequences, temperature)?);
        }
        if needs.reference_logprobs {
            let reference = reference.ok_or_else(no_reference)?;
            self.reference_logprobs =
                Some(all_reduce::score(comm, reference, self.reference_sequences(), temperature)?);
        }
        Ok(self)
    }

    fn reference_sequences(&self) -> &[Sequence] {
        self.reference_sequences.as_deref().unwrap_or(&self.sequences)
    }

    /// The sequences.
    pub fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }
}

/// The sums over the batch of one optimizer step.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchStatistics {
    /// The loss.
    pub loss: f64,
    /// The objective's metrics.
    pub metrics: MetricSums,
    /// Size of the batch.
    pub totals: BatchTotals,
}

/// Add the gradient of the objective over these micro-batches to the parameters of `model`. Every rank gives the same micro-batches,
/// computes a part of each, and ends with the gradient and the sums of all.
///
/// # Errors
/// A reference that the objective needs and that is missing.
pub fn accumulate_gradients(
    comm: &dyn Communicator,
    model: &dyn LanguageModel,
    reference: Option<&dyn LanguageModel>,
    objective: &dyn Objective,
    micro_batches: &[MicroBatch],
    temperature: f32,
) -> Result<BatchStatistics> {
    let mut totals = BatchTotals::of(micro_batches.iter().flat_map(|m| m.lengths.iter().copied()), micro_batches.len());
    totals.sequences = micro_batches.iter().map(|m| m.count).sum();
    let kl_reference = match objective.needs().reference_kl {
        true => Some(reference.ok_or_else(no_reference)?),
        false => None,
    };
    let (mut loss, mut metrics) = (0.0, MetricSums::default());
    for micro in micro_batches.iter().filter(|micro| !micro.sequences.is_empty()) {
        let outputs = ShardOutputs::default();
        let logits = |shard: Range<usize>| {
            kl_reference.ok_or_else(no_reference)?.lazy_logits(&micro.reference_sequences()[shard])
        };
        let by_reference = kl_reference.map(|_| &logits as &KlReference<'_>);
        model.distributed_backward(comm, &micro.sequences, temperature, by_reference, &|shard, stats| {
            let first: usize = micro.lengths[..shard.start].iter().sum();
            let tokens = first..first + stats.logprobs.len();
            let output = objective.compute(&ObjectiveInputs {
                stats,
                old_logprobs: micro.old_logprobs.as_ref().map(|old| &old[tokens.clone()]),
                reference_logprobs: micro.reference_logprobs.as_ref().map(|reference| &reference[tokens.clone()]),
                lengths: &micro.lengths[shard.clone()],
                advantages: micro.advantages.get(shard.clone()).unwrap_or_default(),
                micro_batch_tokens: micro.lengths.iter().sum(),
                batch: totals,
            });
            outputs.insert(shard.start, output.loss, output.metrics);
            Ok(output.grads)
        })?;
        for (part, sums) in outputs.ordered(comm)? {
            loss += part;
            metrics.add_all(&sums);
        }
    }
    Ok(BatchStatistics { loss, metrics, totals })
}

fn no_reference() -> Error {
    Error::failed("the objective needs a reference model, and there is none")
}
