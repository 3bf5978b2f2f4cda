//! Greedy evaluation of the validation examples during training, by the same sampling and scoring as `jigsaw eval`.

use super::job::TrainJob;
use super::metrics::{Metrics, SampleLine};
use crate::Result;
use crate::model::SamplingParams;
use crate::sampling::{SamplePlan, sample_task};
use crate::tasks::{Task, partial_credit_label};

/// Accuracy, partial credit (if the task has any), format failures and length over the first `eval.limit` examples of `task`, and the first
/// `eval.log_responses` responses.
pub fn evaluate(job: &TrainJob<'_>, task: &dyn Task, step: usize) -> Result<(Metrics, Vec<SampleLine>)> {
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
    let mut samples = Vec::new();
    for outcome in outcomes.into_iter().take(settings.log_responses) {
        let answer = task.example(outcome.index)?.answer.clone();
        let (id, response, score) = (outcome.id, outcome.response, outcome.score);
        samples.push(SampleLine { step, source: "eval", id, response, answer, reward: None, score });
    }
    Ok((metrics, samples))
}
