//! A whole task, batch by batch: each batch is sampled, scored and handed over.

use super::batch::sample;
use super::responder::{Prompts, Responder, SampleOptions};
use super::response::ScoredResponse;
use super::summary::Summary;
use crate::comm::{Communicator, Single};
use crate::model::SamplingParams;
use crate::tasks::Task;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Examples answered at a time when nothing is said.
pub const BATCH_SIZE: usize = 16;

/// Which examples of a task are sampled, and how often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SamplePlan {
    /// The first so many examples; all of them when the task has fewer.
    pub limit: Option<usize>,
    /// Responses to each example.
    pub num_generations: usize,
    /// Examples answered at a time.
    pub batch_size: usize,
}

impl SamplePlan {
    /// Number of examples of the task that this plan takes.
    pub fn examples(&self, task: &dyn Task) -> usize {
        self.limit.unwrap_or(usize::MAX).min(task.len())
    }
}

/// How far a run over a task has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleProgress {
    /// Examples done, with those of an earlier, interrupted run.
    pub done: usize,
    /// Examples in all.
    pub total: usize,
    /// Responses so far that are wholly right.
    pub correct: usize,
    /// Responses so far.
    pub responses: usize,
}

/// Sample the whole plan and sum it up, without touching the disk.
///
/// # Errors
/// An input error for a plan without examples or samples; see also [`sample`].
pub fn sample_task(
    responder: &dyn Responder,
    task: &dyn Task,
    plan: &SamplePlan,
    sampling: &SamplingParams,
    mut progress: impl FnMut(SampleProgress),
) -> Result<(Summary, Vec<ScoredResponse>)> {
    let started = Instant::now();
    let mut responses: Vec<ScoredResponse> = Vec::new();
    run(responder, &Single, task, (plan, sampling), 0, |batch| {
        responses.extend(batch);
        progress(progress_of(&responses, plan.examples(task), plan.num_generations));
        Ok(())
    })?;
    let summary =
        Summary::of_task(task, &responses, plan.num_generations, generated_tokens(&responses), started.elapsed())?;
    Ok((summary, responses))
}

/// Tokens of all these responses.
pub(crate) fn generated_tokens(responses: &[ScoredResponse]) -> usize {
    responses.iter().map(|response| response.tokens).sum()
}

/// How far a run has come that has these responses.
pub(crate) fn progress_of(responses: &[ScoredResponse], total: usize, samples: usize) -> SampleProgress {
    SampleProgress {
        done: responses.len() / samples,
        total,
        correct: responses.iter().filter(|response| response.score.correct).count(),
        responses: responses.len(),
    }
}

/// Sample the examples from `first` on, batch by batch; `keep` is given the responses of each batch. Each rank takes whole batches, which it
/// computes as one process does, and `keep` is given those of all ranks in order, without their tokens.
///
/// # Errors
/// See [`sample_task`].
pub(crate) fn run(
    responder: &dyn Responder,
    comm: &dyn Communicator,
    task: &dyn Task,
    (plan, sampling): (&SamplePlan, &SamplingParams),
    first: usize,
    keep: impl FnMut(Vec<ScoredResponse>) -> Result<()>,
) -> Result<()> {
    if plan.num_generations == 0 || plan.batch_size == 0 {
        return Err(Error::input("an evaluation needs at least one sample per example and one example per batch"));
    }
    let total = plan.examples(task);
    if total == 0 {
        return Err(Error::input(format!("task {}: there are no examples to evaluate", task.name())));
    }
    let respond = |&start: &usize| -> Result<Vec<ScoredResponse>> {
        let examples: Vec<usize> = (start..(start + plan.batch_size).min(total)).collect();
        // A batch draws from the stream of its first example, so that an interrupted run continues with the same numbers.
        let options =
            SampleOptions { num_generations: plan.num_generations, sampling, stream: ("eval", &[start as u64]) };
        let groups = sample(responder, &Prompts::new(task, &examples), &options)?;
        Ok(groups.into_iter().flatten().collect())
    };
    comm.in_rounds(&(first..total).step_by(plan.batch_size).collect::<Vec<_>>(), respond, keep)
}
