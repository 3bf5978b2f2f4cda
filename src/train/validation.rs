//! Greedy evaluation of the validation examples during training, by the same sampling and scoring as `jigsaw eval`.

use super::job::TrainJob;
use super::metrics::{Metrics, SampleLine};
use super::stop_criterion::{LOSS, REWARD, StopCriterion};
use crate::model::{SamplingParams, Sequence, all_reduce};
use crate::sampling::{SamplePlan, sample_task};
use crate::tasks::{Task, partial_credit_label, reference_sequence};
use crate::{Error, Result};
use rayon::prelude::*;

/// Accuracy, partial credit (if the task has any), format failures and length over the first `eval.limit` examples of `task`, and the first
/// `eval.log_responses` responses. The mean reward and the loss of the reference responses are measured only for a criterion on them.
pub fn evaluate(
    job: &TrainJob<'_>,
    task: &dyn Task,
    step: usize,
    criterion: Option<&StopCriterion>,
) -> Result<(Metrics, Vec<SampleLine>)> {
    let settings = &job.config.eval;
    let plan = SamplePlan {
        limit: (settings.limit > 0).then_some(settings.limit),
        num_generations: 1,
        batch_size: settings.batch_size,
    };
    let sampling = SamplingParams::greedy(settings.max_new_tokens);
    let (summary, outcomes) = sample_task(&job.responder(), task, &plan, &sampling, |_| {})?;
    let n = outcomes.len().max(1) as f64;
    let mut metrics = Metrics::default();
    metrics.push("eval/accuracy", summary.accuracy.value);
    metrics.push("eval/accuracy_low", summary.accuracy.low);
    metrics.push("eval/accuracy_high", summary.accuracy.high);
    if partial_credit_label(summary.scorers.keys()).is_some() {
        metrics.push("eval/partial_credit", summary.partial_credit.value);
    }
    metrics.push("eval/format_failures", 1.0 - summary.well_formed.value);
    metrics.push("eval/unparsed", 1.0 - summary.parsed.value);
    metrics.push("eval/truncated", summary.truncated as f64 / n);
    metrics.push("eval/response_length", summary.mean_tokens);
    metrics.push("eval/examples", summary.examples as f64);
    match criterion.map(StopCriterion::measure) {
        Some(REWARD) => {
            let weights = job.config.reward.clone().unwrap_or_default();
            let sum: f64 = outcomes.iter().map(|outcome| weights.reward(&outcome.score).total).sum();
            metrics.push("eval/reward", sum / n);
        }
        Some(LOSS) => metrics.push("eval/loss", loss(job, task, summary.examples)?),
        _ => {}
    }
    let mut samples = Vec::new();
    for outcome in outcomes.into_iter().take(settings.log_responses) {
        let answer = task.example(outcome.index)?.answer.clone();
        let (id, response, score) = (outcome.id, outcome.response, outcome.score);
        samples.push(SampleLine { step, source: "eval", id, response, answer, reward: None, score });
    }
    Ok((metrics, samples))
}

/// Mean negative log-likelihood of the reference responses to the first `examples` examples, in nats per response token.
fn loss(job: &TrainJob<'_>, task: &dyn Task, examples: usize) -> Result<f64> {
    let (mut sum, mut tokens) = (0.0, 0);
    let all: Vec<usize> = (0..examples).collect();
    for batch in all.chunks(job.config.train.batch_size) {
        let encode = |&i: &usize| {
            let why = |e: Error| e.context("train.stop_when on loss: a validation example");
            reference_sequence(task, job.encoder, i).map_err(why)
        };
        let sequences: Vec<Sequence> =
            batch.par_iter().map(encode).collect::<Vec<_>>().into_iter().collect::<Result<_>>()?;
        let logprobs = all_reduce::score(job.comm, job.model, &sequences, 1.0)?;
        sum -= logprobs.iter().map(|&logprob| f64::from(logprob)).sum::<f64>();
        tokens += logprobs.len();
    }
    Ok(sum / tokens.max(1) as f64)
}
