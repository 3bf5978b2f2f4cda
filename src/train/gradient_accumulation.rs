//! The gradient of one optimizer step: a forward and backward pass for each micro-batch. The gradients add up in the parameters.

use super::objective::{BatchTotals, MetricSums, Objective, ObjectiveInputs, RequiredInputs, SamplerLogprobs};
use super::shard_outputs::ShardOutputs;
use crate::comm::Communicator;
use crate::model::{
    DeviceTokenGrads, DeviceTokenStats, KlReference, LanguageModel, Prompt, Sequence, TokenGrads, TokenLoss,
    TokenStats, all_reduce,
};
use crate::nn::read_together;
use crate::{Error, Result};
use candle_core::Tensor;
use std::ops::Range;
use std::sync::{Arc, Mutex};

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
    /// Of a sampler that is another program, with the largest importance weight.
    sampler: Option<(Vec<f32>, f64)>,
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
            sampler: None,
        }
    }

    /// The same as what is left of `count` sequences: the others have no tokens that count.
    pub fn of(self, count: usize) -> MicroBatch {
        MicroBatch { count, ..self }
    }

    /// The same, sampled by another program with these log-probabilities of the tokens; importance weights are cut off at `max_ratio`.
    pub fn sampled_with(self, logprobs: Vec<f32>, max_ratio: f64) -> MicroBatch {
        MicroBatch { sampler: Some((logprobs, max_ratio)), ..self }
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

    /// What the objective gets of a shard of its sequences.
    fn inputs<'a>(&'a self, shard: &Range<usize>, stats: &'a TokenStats, batch: BatchTotals) -> ObjectiveInputs<'a> {
        let first: usize = self.lengths[..shard.start].iter().sum();
        let tokens = first..first + self.lengths[shard.clone()].iter().sum::<usize>();
        ObjectiveInputs {
            stats,
            old_logprobs: self.old_logprobs.as_ref().map(|old| &old[tokens.clone()]),
            reference_logprobs: self.reference_logprobs.as_ref().map(|reference| &reference[tokens.clone()]),
            sampler: self.sampler.as_ref().map(|(logprobs, max_ratio)| SamplerLogprobs {
                logprobs: &logprobs[tokens.clone()],
                max_ratio: *max_ratio,
            }),
            lengths: &self.lengths[shard.clone()],
            advantages: self.advantages.get(shard.clone()).unwrap_or_default(),
            micro_batch_tokens: self.lengths.iter().sum(),
            batch,
        }
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
    let pending = start_gradients(comm, model, reference, objective, micro_batches, temperature)?;
    let read = read_together(pending.unread())?;
    pending.finish(&read)
}

/// What is known of a step before its statistics have been read from the device that computed the gradients. In main memory nothing is left
/// to be read.
pub struct PendingStatistics<'a> {
    comm: &'a dyn Communicator,
    objective: &'a dyn Objective,
    totals: BatchTotals,
    micro_batches: Vec<(&'a MicroBatch, ShardOutputs)>,
    /// Micro-batch and sequences of each shard whose statistics are on the device: log-probabilities and entropies, and maybe the KL.
    shards: Vec<(usize, Range<usize>, bool)>,
    unread: Vec<Tensor>,
}

impl PendingStatistics<'_> {
    /// What is to be read from the device.
    pub fn unread(&self) -> &[Tensor] {
        &self.unread
    }

    /// The sums, from the numbers of [`PendingStatistics::unread`].
    pub fn finish(self, read: &[Vec<f64>]) -> Result<BatchStatistics> {
        let mut read = read.iter().map(|numbers| numbers.iter().map(|&n| n as f32).collect::<Vec<f32>>());
        let mut next = || read.next().ok_or_else(|| Error::failed("statistics of a step are missing"));
        for (micro_batch, shard, has_kl) in &self.shards {
            let (micro, outputs) = &self.micro_batches[*micro_batch];
            let mut logprobs = next()?;
            let entropies = logprobs.split_off(logprobs.len() / 2);
            let kl = has_kl.then(&mut next).transpose()?;
            let stats = TokenStats { logprobs, entropies, kl };
            let output = self.objective.compute(&micro.inputs(shard, &stats, self.totals));
            outputs.insert(shard.start, output.loss, output.metrics);
        }
        let (mut loss, mut metrics) = (0.0, MetricSums::default());
        for (_, outputs) in self.micro_batches {
            for (part, sums) in outputs.ordered(self.comm)? {
                loss += part;
                metrics.add_all(&sums);
            }
        }
        Ok(BatchStatistics { loss, metrics, totals: self.totals })
    }
}

/// The objective's gradient for the shards of one micro-batch.
struct MicroBatchLoss<'a> {
    objective: &'a dyn Objective,
    micro: &'a MicroBatch,
    totals: BatchTotals,
    outputs: ShardOutputs,
    on_device: Mutex<Vec<(Range<usize>, DeviceTokenStats)>>,
}

impl TokenLoss for MicroBatchLoss<'_> {
    fn grads(&self, shard: Range<usize>, stats: &TokenStats) -> Result<TokenGrads> {
        let output = self.objective.compute(&self.micro.inputs(&shard, stats, self.totals));
        self.outputs.insert(shard.start, output.loss, output.metrics);
        Ok(output.grads)
    }

    fn device_grads(&self, shard: Range<usize>, stats: &DeviceTokenStats) -> Result<Option<DeviceTokenGrads>> {
        let unread = TokenStats { logprobs: Vec::new(), entropies: Vec::new(), kl: None };
        let grads = self.objective.device_grads(stats, &self.micro.inputs(&shard, &unread, self.totals))?;
        if grads.is_some() {
            let mut on_device = self.on_device.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            on_device.push((shard, stats.clone()));
        }
        Ok(grads)
    }
}

/// [`accumulate_gradients`] as far as it goes without a look at what a device computes.
pub fn start_gradients<'a>(
    comm: &'a dyn Communicator,
    model: &dyn LanguageModel,
    reference: Option<&dyn LanguageModel>,
    objective: &'a dyn Objective,
    micro_batches: &'a [MicroBatch],
    temperature: f32,
) -> Result<PendingStatistics<'a>> {
    let mut totals = BatchTotals::of(micro_batches.iter().flat_map(|m| m.lengths.iter().copied()), micro_batches.len());
    totals.sequences = micro_batches.iter().map(|m| m.count).sum();
    let kl_reference = match objective.needs().reference_kl {
        true => Some(reference.ok_or_else(no_reference)?),
        false => None,
    };
    let mut pending = PendingStatistics {
        comm,
        objective,
        totals,
        micro_batches: Vec::new(),
        shards: Vec::new(),
        unread: Vec::new(),
    };
    for micro in micro_batches.iter().filter(|micro| !micro.sequences.is_empty()) {
        let logits = |shard: Range<usize>| {
            kl_reference.ok_or_else(no_reference)?.lazy_logits(&micro.reference_sequences()[shard])
        };
        let by_reference = kl_reference.map(|_| &logits as &KlReference<'_>);
        let (outputs, on_device) = (ShardOutputs::default(), Mutex::default());
        let loss = MicroBatchLoss { objective, micro, totals, outputs, on_device };
        model.distributed_backward(comm, &micro.sequences, temperature, by_reference, &loss)?;
        for (shard, stats) in loss.on_device.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            pending.shards.push((pending.micro_batches.len(), shard, stats.kl.is_some()));
            pending.unread.push(stats.both);
            pending.unread.extend(stats.kl);
        }
        pending.micro_batches.push((micro, loss.outputs));
    }
    Ok(pending)
}

fn no_reference() -> Error {
    Error::failed("the objective needs a reference model, and there is none")
}
