//! Greedy evaluation of the validation examples during training.

use super::metrics::{Metrics, Sample};
use super::policy::{Codec, Policy};
use crate::Result;
use crate::config::EvalSettings;
use crate::model::Sampling;
use crate::tasks::Task;

/// Accuracy, hits, format failures and length over the first `settings.samples` examples of `task`, and the first
/// `settings.keep_responses` responses.
pub fn evaluate(
    policy: &dyn Policy,
    codec: &dyn Codec,
    task: &dyn Task,
    settings: &EvalSettings,
    step: usize,
) -> Result<(Metrics, Vec<Sample>)> {
    let count = if settings.samples == 0 { task.len() } else { settings.samples.min(task.len()) };
    let sampling = Sampling::greedy(settings.max_new_tokens);
    let (mut correct, mut hits, mut malformed, mut unparsed, mut tokens, mut truncated) =
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
    let mut samples = Vec::new();
    for from in (0..count).step_by(settings.batch_size) {
        let indices = from..(from + settings.batch_size).min(count);
        let prompts = indices.clone().map(|i| codec.prompt(task, i)).collect::<Result<Vec<_>>>()?;
        let groups = policy.generate(&prompts, 1, &sampling, codec.eos_ids(), codec.banned_ids())?;
        for (i, completion) in indices.zip(groups.into_iter().flatten()) {
            let response = codec.decode(&completion.ids)?;
            let score = task.score(i, &response);
            let flag = |holds: bool| f64::from(u8::from(holds));
            correct += flag(score.correct);
            hits += score.hits;
            malformed += flag(!score.well_formed);
            unparsed += flag(!score.parsed);
            truncated += flag(!completion.finished);
            tokens += completion.ids.len() as f64;
            if samples.len() < settings.keep_responses {
                let record = task.example(i)?;
                let (id, answer) = (record.id.clone(), record.answer.clone());
                samples.push(Sample { step, source: "eval", id, response, answer, reward: None, score });
            }
        }
    }
    let n = count.max(1) as f64;
    let mut metrics = Metrics::default();
    metrics.push("eval/accuracy", correct / n);
    metrics.push("eval/hits", hits / n);
    metrics.push("eval/format_failures", malformed / n);
    metrics.push("eval/unparsed", unparsed / n);
    metrics.push("eval/truncated", truncated / n);
    metrics.push("eval/response_length", tokens / n);
    metrics.push("eval/examples", count as f64);
    Ok((metrics, samples))
}
