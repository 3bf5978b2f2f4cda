//! On-policy SFT: every few steps, sample from the model as it is then, keep what is right, and train on that (`sft.resample_every`).
//!
//! At a refresh the next prompts are drawn, as many as the steps until the next refresh need, and `rollout.num_generations` responses sampled to
//! each. The right ones, each text once and at most `sft.max_per_prompt` to a prompt, are the pool that the steps draw from, shuffled
//! anew each time it is used up. The tokens learnt are those that were sampled. The pool is part of a checkpoint, so that a run that
//! goes on between two refreshes ends with the same bytes as one that was never stopped.

use super::metrics::{Metrics, Sample};
use super::trainer::StepContext;
use crate::data::{Cursor, Sampler};
use crate::model::Sequence;
use crate::sampling::rollout::{Answer, Candidate, Keep, Selection, SelectionCounts};
use crate::sampling::{LocalModel, Prompts, SampleOptions, sample_in_batches};
use crate::{Error, Result, rng};
use rand::Rng as _;
use serde::{Deserialize, Serialize};

/// The right responses of the last refresh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleBuffer {
    /// Steps made when it was sampled.
    pub step: usize,
    /// Where the steps since then have come in it.
    pub cursor: Cursor,
    /// The responses.
    pub responses: Vec<Response>,
}

/// A right response of the model itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The example it answers.
    pub example: usize,
    /// Its tokens, as sampled, with the closing one.
    pub ids: Vec<u32>,
}

impl SampleBuffer {
    fn sampler(&self, seed: u64) -> Result<Sampler> {
        let seed = rng::stream(seed, "pool", &[self.step as u64]).next_u64();
        Sampler::resume(self.responses.len(), seed, self.cursor)
    }
}

/// Sample anew if it is time to. Returns what to say of it, if so.
pub(super) fn resample_if_due(ctx: &mut StepContext<'_>) -> Result<Metrics> {
    let every = ctx.job.config.sft.as_ref().map_or(0, |s| s.resample_every);
    let step = ctx.state.step;
    if every == 0 || !step.is_multiple_of(every) || ctx.state.pool.as_ref().is_some_and(|pool| pool.step == step) {
        return Ok(Metrics::default());
    }
    let own = ctx.job.config.examples_per_round() - ctx.sampler.each();
    let examples = ctx.sampler.next_own(own * every.min(ctx.total - step));
    let (responses, tally, right, samples) = sample(ctx, &examples)?;
    ctx.keep(&samples)?;
    if responses.is_empty() {
        return Err(Error::failed(format!(
            "step {}: none of {} responses of the model itself to {} prompts is right and ends by itself, so there is nothing to train \
             on; start from a model that is sometimes right (a short SFT run), or raise rollout.num_generations or rollout.max_new_tokens",
            step + 1,
            tally.samples,
            tally.prompts
        )));
    }
    if responses.len() < own {
        ctx.progress.note(&format!(
            "step {step}: only {} right responses to {} prompts; they will be gone over several times before the next refresh",
            responses.len(),
            tally.prompts
        ));
    }
    let mut metrics = Metrics::default();
    metrics.push("resample_prompts", tally.prompts as f64);
    metrics.push("resample_correct", right as f64 / tally.samples.max(1) as f64);
    metrics.push("resample_duplicates", tally.duplicates as f64 / tally.samples.max(1) as f64);
    metrics.push("resample_kept", responses.len() as f64);
    metrics.push("resample_bare_prompts", tally.prompts_without_kept as f64 / tally.prompts.max(1) as f64);
    ctx.state.pool = Some(SampleBuffer { step, cursor: Cursor { epoch: 0, position: 0 }, responses });
    Ok(metrics)
}

/// The next examples of a step of `n`: responses from the pool, and the replayed examples with their reference responses.
pub(super) fn next_examples(ctx: &mut StepContext<'_>, n: usize) -> Result<(Vec<usize>, Vec<Sequence>)> {
    let seed = ctx.job.config.train.seed;
    let own = n - ctx.sampler.each();
    let pool = ctx.state.pool.as_mut().ok_or_else(|| Error::failed("a step before the first refresh"))?;
    let mut sampler = pool.sampler(seed)?;
    let drawn: Vec<Response> = sampler.next_batch(own).into_iter().map(|i| pool.responses[i].clone()).collect();
    pool.cursor = sampler.cursor();
    let mut indices: Vec<usize> = drawn.iter().map(|r| r.example).collect();
    indices.extend(ctx.sampler.next_replayed());
    let mut sequences = ctx.prefetcher.next(&indices)?;
    for (sequence, response) in sequences.iter_mut().zip(drawn) {
        sequence.response = response.ids;
    }
    Ok((indices, sequences))
}

/// Right responses to `examples`, what became of the others, how many were right, and a few for people to read.
fn sample(ctx: &StepContext<'_>, examples: &[usize]) -> Result<(Vec<Response>, SelectionCounts, usize, Vec<Sample>)> {
    let (job, step) = (ctx.job, ctx.state.step);
    let config = job.config;
    let (Some(rollout), Some(sft)) = (&config.rollout, &config.sft) else {
        return Err(Error::failed("a refresh without its rollout or sft section"));
    };
    let selection = Selection { keep: Keep::Correct, cap: Some(sft.max_per_prompt), answer: Answer::Sampled };
    let batch_size = if rollout.batch_size == 0 { config.examples_per_round() } else { rollout.batch_size };
    let sampling = rollout.sampling(config.train.seed);
    let options =
        SampleOptions { samples: rollout.num_generations, sampling: &sampling, stream: ("refresh", &[step as u64]) };
    let model = LocalModel::new(job.policy, job.codec);
    let groups = sample_in_batches(&model, &Prompts::new(job.train, examples), &options, batch_size)?;
    let (mut kept, mut tally, mut right, mut samples) = (Vec::new(), SelectionCounts::default(), 0, Vec::new());
    for (&example, group) in examples.iter().zip(groups) {
        right += group.iter().filter(|response| response.score.correct).count();
        let record = job.train.example(example)?;
        if samples.is_empty() {
            samples.extend(group.iter().take(2).map(|response| Sample {
                step,
                source: "refresh",
                id: record.id.clone(),
                response: response.response.clone(),
                answer: record.answer.clone(),
                reward: None,
                score: response.score.clone(),
            }));
        }
        let candidates = group.iter().map(|r| Candidate { text: &r.response, finished: r.finished, score: &r.score });
        // The tokens are learnt as they were sampled: none of them is special, whatever their text looks like.
        let chosen = selection.choose(&record.answer, &[], candidates, &mut tally);
        let ids = |i: usize| group.get(i).map(|response| response.token_ids.clone());
        kept.extend(chosen.into_iter().filter_map(|(i, _)| Some(Response { example, ids: ids(i)? })));
    }
    Ok((kept, tally, right, samples))
}
