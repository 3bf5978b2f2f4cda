//! Prompts that RFT samples together: their examples, encoded, and the place of the draw in the run, which random streams follow from.

use super::job::{ExampleId, TrainJob};
use super::state::StepContext;
use crate::Result;
use crate::model::{Prompt, Sequence};
use crate::sampling::{Prompts, Responder, SampleOptions, ScoredResponse, sample_in_batches};
use crate::train::settings::RolloutSettings;
use rayon::prelude::*;
use std::sync::Arc;

/// Prompts to be sampled.
pub(super) struct Draw {
    /// The examples of the run's own dataset.
    pub indices: Vec<usize>,
    /// Their prompts.
    pub prompts: Vec<Arc<Prompt>>,
    /// The round, and which of its draws this is.
    position: [u64; 2],
}

impl Draw {
    /// These examples with their encoded prompts.
    pub fn new(job: &TrainJob<'_>, ids: &[ExampleId], prompts: Vec<Sequence>, position: [u64; 2]) -> Result<Draw> {
        let indices = ids.iter().map(|&id| Ok(job.locate(id)?.1)).collect::<Result<_>>()?;
        Ok(Draw { indices, prompts: prompts.into_iter().map(|p| p.prompt).collect(), position })
    }

    /// The first draw of the round `distance` rounds after the current one, if there is one. The current one has drawn all its examples, and
    /// those between draw once each.
    pub fn ahead(ctx: &StepContext<'_>, distance: usize) -> Result<Option<Draw>> {
        let (job, config) = (ctx.job, ctx.job.config);
        if ctx.state.step + distance * config.steps_per_round() >= ctx.total {
            return Ok(None);
        }
        let count = config.examples_per_round();
        let ids = ctx.sampler.peek(distance * count).split_off((distance - 1) * count);
        let prompts = ids.par_iter().map(|&id| job.encode(id)).collect::<Result<_>>()?;
        Draw::new(job, &ids, prompts, [ctx.state.round + distance as u64, 0]).map(Some)
    }

    /// The first `count` of these prompts.
    pub fn first(&self, count: usize) -> Draw {
        let (indices, prompts) = (self.indices.iter().take(count), self.prompts.iter().take(count));
        Draw { indices: indices.copied().collect(), prompts: prompts.cloned().collect(), position: self.position }
    }

    /// `count` scored responses to each prompt.
    pub fn sample(
        &self,
        job: &TrainJob<'_>,
        rollout: &RolloutSettings,
        responder: &dyn Responder,
        count: usize,
    ) -> Result<Vec<Vec<ScoredResponse>>> {
        let options = SampleOptions {
            num_generations: count,
            sampling: &rollout.sampling(job.config.train.seed),
            stream: ("rollout", &self.position),
        };
        let prompts = Prompts::encoded(job.train, &self.indices, &self.prompts);
        sample_in_batches(responder, &prompts, &options, self.at_once(rollout))
    }

    /// The round that it is of.
    pub fn round(&self) -> u64 {
        self.position[0]
    }

    /// The place of prompt `number` in the call of the responder that it is part of.
    pub fn place(&self, rollout: &RolloutSettings, number: usize) -> usize {
        number % self.at_once(rollout).max(1)
    }

    /// Prompts generated for at a time.
    fn at_once(&self, rollout: &RolloutSettings) -> usize {
        if rollout.batch_size == 0 { self.indices.len() } else { rollout.batch_size }
    }
}
