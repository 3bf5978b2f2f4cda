//! What every step adds to its loss, whatever the algorithm, to hold the model near the one that the run started from: a KL penalty on
//! prompts of other knowledge (`[prior_kl]`), and L2-SP on the weights (`train.l2_sp`).
//!
//! The examples of the KL penalty follow from the seed and the step alone, so a checkpoint has nothing to hold for them.

use super::gradient_accumulation::{BatchStatistics, MicroBatch, accumulate_gradients};
use super::job::{ExampleId, TrainJob};
use super::metrics::Metrics;
use super::objective::PriorKl;
use super::optimizer::{Squares, sum_of_squares};
use crate::data::{Cursor, ExampleSampler};
use crate::model::Sequence;
use crate::nn::Parameter;
use crate::{Error, Result, rng};
use candle_core::DType;
use rand::Rng as _;
use rayon::prelude::*;
use std::sync::Arc;

/// The sum of the penalties of a step, and each by its name.
#[derive(Debug, Default)]
pub(super) struct Penalties {
    /// What they add to the loss.
    pub loss: f64,
    /// `prior_kl` in nats, before its weight; `l2_sp` after it.
    pub metrics: Metrics,
}

/// Add the gradients of the penalties to those of the step after `step` ones.
///
/// # Errors
/// A reference model that is missing, or a prior example that cannot be read.
pub(super) fn add_gradients(job: &TrainJob<'_>, step: usize) -> Result<Penalties> {
    let mut penalties = Penalties::default();
    if let Some(sums) = prior_kl(job, step)? {
        penalties.loss += sums.loss;
        penalties.metrics.push("prior_kl", sums.metrics.get("prior_kl"));
    }
    let l2_sp = job.config.train.l2_sp;
    if l2_sp > 0.0 {
        let start = job.reference.ok_or_else(|| Error::failed("train.l2_sp needs the initial weights"))?;
        let penalty = add_l2_sp(job.model.parameters(), start.parameters(), l2_sp)?;
        penalties.loss += penalty;
        penalties.metrics.push("l2_sp", penalty);
    }
    Ok(penalties)
}

fn prior_kl(job: &TrainJob<'_>, step: usize) -> Result<Option<BatchStatistics>> {
    let (Some(settings), Some(prior)) = (&job.config.prior_kl, job.prior) else { return Ok(None) };
    let (len, taken) = (prior.len(), step * settings.batch_size);
    let cursor = Cursor { epoch: (taken / len.max(1)) as u64, position: taken % len.max(1) };
    let seed = rng::stream(job.config.train.seed, "prior_kl", &[]).next_u64();
    let examples = ExampleSampler::resume(len, seed, cursor)?.next_batch(settings.batch_size);
    let encoded = examples.par_iter().map(|&i| job.encode(ExampleId::Prior(i))).collect::<Vec<Result<Sequence>>>();
    let sequences = encoded.into_iter().collect::<Result<Vec<Sequence>>>()?;
    let micro_batches: Vec<MicroBatch> = sequences.chunks(job.config.train.batch_size).map(MicroBatch::new).collect();
    let objective = PriorKl { coef: settings.coef };
    accumulate_gradients(job.comm, job.model, job.reference, &objective, &micro_batches, 1.0).map(Some)
}

/// Add the gradient of `coef / 2 * ||w - w0||^2` to every weight that trains, and return the penalty. `w` are `parameters`, `w0`
/// are `starts`, in the same order.
///
/// L2-SP is equation 2 of arXiv 1802.01483, without its second term: no weight is new. The gradient goes through clipping and AdamW with
/// that of the loss; it is no decoupled decay.
///
/// # Errors
/// Models of different parameters.
pub fn add_l2_sp(parameters: &[Arc<Parameter>], starts: &[Arc<Parameter>], coef: f64) -> Result<f64> {
    if parameters.len() != starts.len() {
        return Err(Error::failed("train.l2_sp: the initial model has other parameters"));
    }
    let mut squares = Vec::new();
    for (parameter, start) in parameters.iter().zip(starts).filter(|(parameter, _)| parameter.trainable()) {
        let start = start.var.as_tensor().detach().to_dtype(DType::F32)?;
        let moved = (parameter.var.as_tensor().detach() - start)?;
        squares.push(sum_of_squares(&moved)?);
        let pull = (moved * coef)?;
        parameter.set_grad(Some(match parameter.grad() {
            Some(grad) => (grad + pull)?,
            None => pull,
        }));
    }
    Ok(0.5 * coef * Squares::total(&squares)?)
}
