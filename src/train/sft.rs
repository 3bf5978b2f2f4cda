//! Supervised fine-tuning: one optimizer step on the responses of `batch_size * gradient_accumulation_steps` examples. Prompts and images
//! are never part of the loss.
//!
//! Kept from TRL's `SFTTrainer`: the losses `nll` and `dft` and their mean over the response tokens of all micro-batches. Different: the mean
//! can be over sequences; examples of a second dataset can be replayed in every step; a KL penalty to the initial model can be added; and
//! the responses can be sampled from the model itself as it trains ([`super::on_policy`]). Sequences are not packed. With `sft.minibatches`
//! a round makes several steps, each on other examples, whose log-probabilities under the model at its start are known (PSFT).

use super::algorithm::Algorithm;
use super::gradient_accumulation::{MicroBatch, start_gradients};
use super::job::ExampleId;
use super::metrics::Metrics;
use super::objective::{self, RequiredInputs};
use super::on_policy;
use super::state::{StepContext, StepReport};
use crate::model::Sequence;
use crate::{Result, rng};
use rand::Rng as _;
use rayon::prelude::*;
use std::time::Instant;

/// Supervised fine-tuning.
pub struct Sft;

impl Algorithm for Sft {
    fn first_step_has_all_gradients(&self) -> bool {
        true
    }

    fn round(&self, ctx: &mut StepContext<'_>) -> Result<()> {
        let mut started = Instant::now();
        let (job, config) = (ctx.job, ctx.job.config);
        let objective = objective::of_config(config);

        // Batches: what each step learns, with what the objective needs to know of it before any of them.
        let mut resampled = on_policy::resample_if_due(ctx)?;
        let next = |_| next_batch(ctx, objective.needs());
        let batches = (0..config.steps_per_round()).map(next).collect::<Result<Vec<Batch>>>()?;

        for Batch { ids, micro_batches } in batches {
            // The dropout of this step is a function of the seed and the step.
            job.model.begin_step(rng::stream(config.train.seed, "step", &[ctx.state.step as u64]).next_u64());

            // Gradients: one forward and backward for each micro-batch.
            let pending = start_gradients(job.comm, job.model, job.reference, &*objective, &micro_batches, 1.0)?;

            // The optimizer step.
            let sequences = micro_batches.iter().flat_map(MicroBatch::sequences);
            let tokens = sequences.map(|s| s.prompt.ids.len() + s.response.len()).sum();
            let resampled = std::mem::take(&mut resampled);
            ctx.optimizer_step(pending, |sums| {
                let mut metrics = Metrics::default();
                metrics.push("entropy", sums.metrics.get("entropy"));
                metrics.push("response_tokens", sums.totals.tokens);
                for name in ["kl", "ratio", "clip_ratio"] {
                    if sums.metrics.iter().any(|(measured, _)| measured == name) {
                        metrics.push(name, sums.metrics.get(name));
                    }
                }
                metrics.extend(&resampled);
                StepReport { metrics, example_ids: ids, tokens, started }
            })?;
            started = Instant::now();
        }
        Ok(())
    }
}

/// The examples of one optimizer step.
struct Batch {
    ids: Vec<String>,
    micro_batches: Vec<MicroBatch>,
}

/// The next examples, from the dataset or sampled from the model itself, in micro-batches.
fn next_batch(ctx: &mut StepContext<'_>, needs: RequiredInputs) -> Result<Batch> {
    let (job, config) = (ctx.job, ctx.job.config);
    let n = config.examples_per_step();
    let (examples, sequences) = match config.resamples() {
        true => on_policy::next_examples(ctx, n)?,
        false => ctx.next_examples(n)?,
    };
    let micro_batch = |(examples, sequences): (&[ExampleId], &[Sequence])| {
        let mut micro_batch = MicroBatch::new(sequences);
        if needs.reference_sees_response {
            let prompts = examples.par_iter().map(|&id| job.demonstrated_prompt(id)).collect::<Vec<Result<_>>>();
            micro_batch = micro_batch.with_reference_prompts(&prompts.into_iter().collect::<Result<Vec<_>>>()?);
        }
        micro_batch.supply(needs, job.comm, job.model, job.reference, 1.0)
    };
    let size = config.train.batch_size;
    let micro_batches = examples.chunks(size).zip(sequences.chunks(size)).map(micro_batch).collect::<Result<_>>()?;
    let ids = examples.iter().map(|&id| Ok(job.record(id)?.id.clone())).collect::<Result<_>>()?;
    Ok(Batch { ids, micro_batches })
}
