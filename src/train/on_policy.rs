//! On-policy SFT: every few steps, sample from the model as it is then, and train on its responses (`sft.resample_every`). With
//! `sft.keep = "correct"` it is rejection sampling (RAFT, arXiv 2304.06767).
//!
//! A sampling draws as many prompts as the steps until the next one need, and samples `rollout.num_generations` responses to each. Those
//! that `sft.keep` lets pass and that are complete, each text once and at most `sft.max_per_prompt` for a prompt, fill the [`SampleBuffer`]
//! that the steps draw from. The tokens are learned as they were sampled. The buffer is part of a checkpoint, so that a run that resumes
//! between two samplings ends with the same bytes as one that was never stopped.

use super::job::ExampleId;
use super::metrics::{Metrics, SampleLine};
use super::sample_buffer::{SampleBuffer, SampledResponse};
use super::state::StepContext;
use crate::data::Cursor;
use crate::model::Sequence;
use crate::sampling::rollout::{Candidate, FinalAnswer, Keep, RolloutSelection, SelectionCounts};
use crate::sampling::{Prompts, SampleOptions, sample_in_batches};
use crate::{Error, Result};

/// Fill the buffer again if it is time to. Returns the metrics of the sampling, if there was one.
pub(super) fn resample_if_due(ctx: &mut StepContext<'_>) -> Result<Metrics> {
    let every = ctx.job.config.sft.as_ref().map_or(0, |s| s.resample_every);
    let step = ctx.state.step;
    if every == 0 || !step.is_multiple_of(every) || ctx.state.sample_buffer.as_ref().is_some_and(|b| b.step == step) {
        return Ok(Metrics::default());
    }
    let n = ctx.job.config.examples_per_round() - ctx.sampler.replayed_per_step();
    let examples = ctx.sampler.next_of_dataset(n * every.min(ctx.total - step));
    let Sampled { kept, counts, correct, logged } = sample(ctx, &examples)?;
    ctx.log_responses(&logged)?;
    let keep = ctx.job.config.sft.as_ref().map_or(Keep::Correct, |sft| sft.keep);
    let kind = match keep {
        Keep::Correct => "correct and complete",
        Keep::WellFormed => "well-formed and complete",
        Keep::All => "complete",
    };
    if kept.is_empty() {
        return Err(Error::failed(format!(
            "step {}: none of the {} responses that the model sampled to {} prompts is {kind}, so there is nothing to train \
             on; start from a model that is sometimes {kind} (a short SFT run), or raise rollout.num_generations or rollout.max_new_tokens",
            step + 1,
            counts.samples,
            counts.prompts
        )));
    }
    if kept.len() < n {
        ctx.callback.note(&format!(
            "step {step}: only {} {kind} responses to {} prompts; each is trained on several times before the next sampling",
            kept.len(),
            counts.prompts
        ));
    }
    let mut metrics = Metrics::default();
    metrics.push("resample_prompts", counts.prompts as f64);
    metrics.push("resample_correct", correct as f64 / counts.samples.max(1) as f64);
    metrics.push("resample_duplicates", counts.duplicates as f64 / counts.samples.max(1) as f64);
    metrics.push("resample_kept", kept.len() as f64);
    metrics.push("resample_bare_prompts", counts.prompts_without_kept as f64 / counts.prompts.max(1) as f64);
    let cursor = Cursor::default();
    ctx.state.sample_buffer = Some(SampleBuffer { step, cursor, responses: kept });
    Ok(metrics)
}

/// The next examples of a step of `n`: responses from the buffer, and the replayed examples with their reference responses.
pub(super) fn next_examples(ctx: &mut StepContext<'_>, n: usize) -> Result<(Vec<ExampleId>, Vec<Sequence>)> {
    let seed = ctx.job.config.train.seed;
    let buffer = ctx.state.sample_buffer.as_mut().ok_or_else(|| Error::failed("a step before the first sampling"))?;
    let responses = buffer.next_batch(n - ctx.sampler.replayed_per_step(), seed)?;
    let mut ids: Vec<ExampleId> = responses.iter().map(|r| ExampleId::Dataset(r.example)).collect();
    ids.extend(ctx.sampler.next_replayed());
    let mut sequences = ctx.prefetcher.next(&ids)?;
    for (sequence, response) in sequences.iter_mut().zip(responses) {
        sequence.response = response.ids;
    }
    Ok((ids, sequences))
}

/// What a sampling gave.
struct Sampled {
    kept: Vec<SampledResponse>,
    counts: SelectionCounts,
    /// Responses that are correct, kept or not.
    correct: usize,
    /// A few for people to read.
    logged: Vec<SampleLine>,
}

fn sample(ctx: &StepContext<'_>, examples: &[usize]) -> Result<Sampled> {
    let (job, step) = (ctx.job, ctx.state.step);
    let config = job.config;
    let (Some(rollout), Some(sft)) = (&config.rollout, &config.sft) else {
        return Err(Error::failed("sft.resample_every without a rollout or sft section"));
    };
    let groups = sample_in_batches(
        &job.responder(),
        &Prompts::new(job.train, examples),
        &SampleOptions {
            num_generations: rollout.num_generations,
            sampling: &rollout.sampling(config.train.seed),
            // The name is part of every result: another one would draw other responses.
            stream: ("refresh", &[step as u64]),
        },
        if rollout.batch_size == 0 { config.examples_per_round() } else { rollout.batch_size },
    )?;
    let selection =
        RolloutSelection { keep: sft.keep, max_per_prompt: Some(sft.max_per_prompt), answer: FinalAnswer::Sampled };
    let mut sampled = Sampled { kept: Vec::new(), counts: SelectionCounts::default(), correct: 0, logged: Vec::new() };
    for (&example, group) in examples.iter().zip(groups) {
        sampled.correct += group.iter().filter(|r| r.score.correct).count();
        let record = job.train.example(example)?;
        if sampled.logged.is_empty() {
            sampled.logged.extend(group.iter().take(2).map(|r| SampleLine {
                step: step + 1,
                source: "resample",
                id: record.id.clone(),
                response: r.response.clone(),
                answer: record.answer.clone(),
                reward: None,
                score: r.score.clone(),
            }));
        }
        let candidates = group.iter().map(|r| Candidate { text: &r.response, finished: r.finished, score: &r.score });
        // The tokens are learned as they were sampled: none of them is special, whatever their text looks like.
        let chosen = selection.choose(&record.answer, &[], candidates, &mut sampled.counts);
        let ids = |i: usize| group.get(i).map(|r| r.token_ids.clone());
        sampled.kept.extend(chosen.into_iter().filter_map(|(i, _)| Some(SampledResponse { example, ids: ids(i)? })));
    }
    Ok(sampled)
}
