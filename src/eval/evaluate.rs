//! Evaluation of anything that responds, with a directory that keeps what is done.

use super::{EvalDir, EvalResult};
use crate::Result;
use crate::model::SamplingParams;
use crate::sampling::{
    self, Responder, SamplePlan, SampleProgress, ScoredResponse, Summary, generated_tokens, progress_of,
};
use crate::tasks::Task;
use crate::tasks::benchmarks::PredictionTable;
use std::time::Instant;

/// Evaluate `responder` on a task, and keep every response in `directory` as soon as it is scored. The responses that are there already
/// are not asked for again; a finished result is returned as it is. Every rank of the directory's communicator calls it.
///
/// # Errors
/// An input error for a plan without examples, or responses in the directory that are not this task's; a failure of the responder.
pub fn evaluate_in(
    directory: &EvalDir<'_>,
    responder: &dyn Responder,
    task: &dyn Task,
    plan: &SamplePlan,
    sampling: &SamplingParams,
    progress: impl FnMut(SampleProgress),
) -> Result<EvalResult> {
    if let Some(result) = directory.finished()? {
        return Ok(result);
    }
    let started = Instant::now();
    let (responses, fresh_tokens) = collect(directory, responder, task, plan, sampling, progress)?;
    directory.finish(Summary::of_task(task, &responses, plan.num_generations, fresh_tokens, started.elapsed())?)
}

/// As [`evaluate_in`], for a benchmark without answers: nothing is scored, and the responses are written into a file of predictions.
///
/// # Errors
/// As [`evaluate_in`]; also a plan with several responses to a question.
pub fn predict_in(
    directory: &EvalDir<'_>,
    responder: &dyn Responder,
    (task, table): (&dyn Task, &PredictionTable),
    plan: &SamplePlan,
    sampling: &SamplingParams,
    progress: impl FnMut(SampleProgress),
) -> Result<()> {
    if directory.has_predictions()? {
        return Ok(());
    }
    let (responses, _) = collect(directory, responder, task, plan, sampling, progress)?;
    let texts: Vec<&str> = responses.iter().map(|response| response.response.as_str()).collect();
    directory.write_predictions(&table.tsv(&texts)?)
}

/// All responses of the plan, each kept in `directory` as soon as it is scored, and the tokens generated for them now.
fn collect(
    directory: &EvalDir<'_>,
    responder: &dyn Responder,
    task: &dyn Task,
    plan: &SamplePlan,
    sampling: &SamplingParams,
    mut progress: impl FnMut(SampleProgress),
) -> Result<(Vec<ScoredResponse>, usize)> {
    let (mut log, mut responses) = directory.resume(task, plan)?;
    let before = generated_tokens(&responses);
    let total = plan.examples(task);
    progress(progress_of(&responses, total, plan.num_generations));
    let done = responses.len() / plan.num_generations;
    sampling::run(responder, directory.comm(), task, (plan, sampling), done, |batch| {
        log.append(task, &batch)?;
        responses.extend(batch);
        progress(progress_of(&responses, total, plan.num_generations));
        Ok(())
    })?;
    let fresh_tokens = generated_tokens(&responses) - before;
    Ok((responses, fresh_tokens))
}
