//! Supervised fine-tuning: one optimizer step on the responses of `batch_size * gradient_accumulation_steps` examples. Prompts and images
//! are never part of the loss.
//!
//! Kept from TRL's `SFTTrainer`: the losses `nll` and `dft` and their mean over the response tokens of all micro-batches. Different: the mean
//! can be over sequences; examples of a second dataset can be replayed in every step; a KL penalty to the initial model can be added; and
//! the responses can be sampled from the model itself as it trains ([`super::on_policy`]). Sequences are not packed.

use super::algorithm::Algorithm;
use super::gradient_accumulation::{MicroBatch, accumulate_gradients};
use super::metrics::Metrics;
use super::state::{StepContext, StepReport};
use super::{objective, on_policy};
use crate::{Result, rng};
use rand::Rng as _;
use std::time::Instant;

/// Supervised fine-tuning.
pub struct Sft;

impl Algorithm for Sft {
    fn first_step_has_all_gradients(&self) -> bool {
        true
    }

    fn round(&self, ctx: &mut StepContext<'_>) -> Result<()> {
        let started = Instant::now();
        let (job, config) = (ctx.job, ctx.job.config);

        // The dropout of this step is a function of the seed and the step.
        job.model.begin_step(rng::stream(config.train.seed, "step", &[ctx.state.step as u64]).next_u64());

        // Examples: prompts with the responses to learn, from the dataset or sampled from the model itself.
        let resampled = on_policy::resample_if_due(ctx)?;
        let n = config.examples_per_round();
        let (examples, sequences) = match config.resamples() {
            true => on_policy::next_examples(ctx, n)?,
            false => ctx.next_examples(n)?,
        };

        // Gradients: one forward and backward for each micro-batch.
        let objective = objective::of_config(config);
        let micro_batches: Vec<MicroBatch> = sequences.chunks(config.train.batch_size).map(MicroBatch::new).collect();
        let sums = accumulate_gradients(job.comm, job.model, job.reference, &*objective, &micro_batches, 1.0)?;

        // The optimizer step.
        let mut metrics = Metrics::default();
        metrics.push("entropy", sums.metrics.get("entropy"));
        metrics.push("response_tokens", sums.totals.tokens);
        if objective.needs().reference_kl {
            metrics.push("kl", sums.metrics.get("kl"));
        }
        metrics.extend(&resampled);
        let ids = examples.iter().map(|&id| Ok(job.record(id)?.id.clone())).collect::<Result<Vec<_>>>()?;
        let tokens = sequences.iter().map(|s| s.prompt.ids.len() + s.response.len()).sum();
        ctx.optimizer_step(StepReport { loss: sums.loss, metrics, example_ids: ids, tokens, started })
    }
}
