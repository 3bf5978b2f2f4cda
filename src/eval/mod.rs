//! Evaluation: a task's examples through a model, every response scored by the task itself, every share with its
//! 95 % interval. What is generated is a closure, so that the loop is the same for a model, a trainer and a test.

pub mod bench;
mod chance;
mod divergence;
mod engine;
mod hash;
mod outcome;
mod score;
mod server;
mod store;

pub use chance::Chance;
pub use divergence::{
    BATCH, BaseSamples, Comparison, Direction, Divergence, Measured, OwnAnswer, OwnAnswers, PromptDivergence, spread,
    token_divergences,
};
pub(crate) use engine::split_of;
pub use engine::{Engine, Request, evaluate_checkpoint};
pub use outcome::{Category, Generated, Outcome, Summary};
pub use score::{ResponseScore, missing_responses, score_responses};
pub(crate) use server::answers;
pub use server::{ServerRequest, evaluate_server};
pub(crate) use store::differences;
pub use store::{About, Directory, EvalResult, Key, key_of};
pub(crate) use store::{resume, to_lines};

use crate::tasks::{Score, Task};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::time::Instant;

/// Examples answered at a time when nothing is said.
pub const BATCH_SIZE: usize = 16;

/// Which part of the task is run, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The first so many examples; all of them when the task has fewer.
    pub limit: Option<usize>,
    /// Responses to each example.
    pub samples: usize,
    /// Examples generated for at a time.
    pub batch: usize,
}

impl Plan {
    /// Number of examples this plan runs of a task.
    pub fn examples(&self, task: &dyn Task) -> usize {
        self.limit.unwrap_or(usize::MAX).min(task.len())
    }
}

/// How far an evaluation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Examples done, with those of an earlier, interrupted run.
    pub done: usize,
    /// Examples in all.
    pub total: usize,
    /// Responses so far that are wholly right.
    pub correct: usize,
    /// Responses so far.
    pub responses: usize,
}

/// Run the whole plan without touching the disk.
///
/// `generate` is given the indices of a batch's examples and returns `[example][sample]`.
pub fn evaluate_in_memory(
    task: &dyn Task,
    plan: &Plan,
    generate: impl FnMut(Range<usize>) -> Result<Vec<Vec<Generated>>>,
    mut progress: impl FnMut(Progress),
) -> Result<(Summary, Vec<Outcome>)> {
    let started = Instant::now();
    let mut outcomes: Vec<Outcome> = Vec::new();
    run(task, plan, 0, generate, |batch| {
        outcomes.extend(batch);
        progress(progress_of(&outcomes, plan.examples(task), plan.samples));
        Ok(())
    })?;
    let chance = Chance::of(task, plan.examples(task))?;
    let (fresh, took) = (tokens(&outcomes), started.elapsed());
    let summary = Summary::of(task.name(), chance, &outcomes, plan.samples, fresh, took)?.of_task(task, &outcomes)?;
    Ok((summary, outcomes))
}

/// As [`evaluate_in_memory`], keeping every response in `directory` as soon as it is scored, and going on after the
/// responses that are there already. A finished result is returned as it is.
pub fn evaluate_in(
    directory: &mut Directory,
    task: &dyn Task,
    plan: &Plan,
    generate: impl FnMut(Range<usize>) -> Result<Vec<Vec<Generated>>>,
    mut progress: impl FnMut(Progress),
) -> Result<EvalResult> {
    if let Some(result) = directory.finished()? {
        return Ok(result);
    }
    let started = Instant::now();
    let mut outcomes = directory.resume(task, plan)?;
    let before = tokens(&outcomes);
    let total = plan.examples(task);
    progress(progress_of(&outcomes, total, plan.samples));
    run(task, plan, outcomes.len() / plan.samples, generate, |batch| {
        directory.append(&batch)?;
        outcomes.extend(batch);
        progress(progress_of(&outcomes, total, plan.samples));
        Ok(())
    })?;
    let fresh = tokens(&outcomes) - before;
    let chance = Chance::of(task, total)?;
    let summary = Summary::of(task.name(), chance, &outcomes, plan.samples, fresh, started.elapsed())?;
    directory.finish(summary.of_task(task, &outcomes)?)
}

pub(crate) fn tokens(outcomes: &[Outcome]) -> usize {
    outcomes.iter().map(|o| o.tokens).sum()
}

pub(crate) fn progress_of(outcomes: &[Outcome], total: usize, samples: usize) -> Progress {
    Progress {
        done: outcomes.len() / samples,
        total,
        correct: outcomes.iter().filter(|o| o.score.correct).count(),
        responses: outcomes.len(),
    }
}

/// Generate for and score the examples from `first` on, batch by batch; `keep` is given each batch when it is scored.
pub(crate) fn run(
    task: &dyn Task,
    plan: &Plan,
    first: usize,
    mut generate: impl FnMut(Range<usize>) -> Result<Vec<Vec<Generated>>>,
    mut keep: impl FnMut(Vec<Outcome>) -> Result<()>,
) -> Result<()> {
    if plan.samples == 0 || plan.batch == 0 {
        return Err(Error::input("an evaluation needs at least one sample per example and one example per batch"));
    }
    let total = plan.examples(task);
    if total == 0 {
        return Err(Error::input(format!("task {}: there are no examples to evaluate", task.name())));
    }
    for start in (first..total).step_by(plan.batch) {
        let indices = start..(start + plan.batch).min(total);
        let responses = generate(indices.clone())?;
        if responses.len() != indices.len() || responses.iter().any(|r| r.len() != plan.samples) {
            return Err(Error::failed(format!(
                "the generator returned {} groups for {} examples with {} samples each",
                responses.len(),
                indices.len(),
                plan.samples
            )));
        }
        let mut batch = Vec::with_capacity(indices.len() * plan.samples);
        for (index, group) in indices.zip(responses) {
            let id = &task.example(index)?.id;
            for (sample, generated) in group.into_iter().enumerate() {
                let score = match generated.unanswered {
                    Some(why) => Score::without_answer(why),
                    None => task.score(index, &generated.text),
                };
                batch.push(Outcome {
                    index,
                    id: id.clone(),
                    sample,
                    response: generated.text,
                    tokens: generated.tokens,
                    finished: generated.finished,
                    score,
                });
            }
        }
        keep(batch)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
