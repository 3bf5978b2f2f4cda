//! One round of reinforcement fine-tuning: roll out, score, and make `minibatches * num_iterations` GRPO steps.
//!
//! Kept from TRL's `GRPOTrainer`: advantages, loss types, clipping, k3, log-probabilities of logits / temperature over the
//! whole distribution, and, with one step a rollout batch, the current policy as the old one (ratio exactly 1).
//! Different: prompts whose groups are all equal can be replaced (DAPO), a group is never split over micro-batches (its
//! sequences share their prompt's computation), an entropy bonus can be added.

use super::metrics::{Metrics, Sample};
use super::objective::{self, GrpoInputs, GrpoSums, Window, mean_and_std};
use super::shard_outputs::ShardOutputs;
use super::stall::StallSample;
use super::trainer::StepContext;
use crate::model::{Prompt, Sequence};
use crate::sampling::{LocalModel, Prompts, SampleOptions, ScoredResponse, sample_in_batches};
use crate::tasks::{Reward, RewardSettings, TERMS};
use crate::train::settings::{GrpoSettings, RolloutSettings, StallSettings, TrainConfig};
use crate::{Error, Result};
use std::sync::Arc;
use std::time::Instant;

/// One prompt with its scored responses.
struct Group {
    answer: String,
    responses: Vec<ScoredResponse>,
    sequences: Vec<Sequence>,
    rewards: Vec<Reward>,
}

impl Group {
    fn id(&self) -> &str {
        self.responses.first().map_or("", |response| &response.id)
    }

    fn std(&self) -> f64 {
        mean_and_std(&self.rewards.iter().map(|r| r.total).collect::<Vec<_>>()).1
    }
}

/// The sections that only RFT has.
struct Plan<'a> {
    rollout: &'a RolloutSettings,
    grpo: &'a GrpoSettings,
    reward: &'a RewardSettings,
    stall: &'a StallSettings,
}

impl<'a> Plan<'a> {
    fn of(config: &'a TrainConfig) -> Result<Plan<'a>> {
        match (&config.rollout, &config.grpo, &config.reward, &config.stall) {
            (Some(rollout), Some(grpo), Some(reward), Some(stall)) => Ok(Plan { rollout, grpo, reward, stall }),
            _ => Err(Error::failed("an RFT plan without its rollout, grpo, reward or stall section")),
        }
    }
}

/// Take a rollout batch of prompts and learn from it.
pub(super) fn round(ctx: &mut StepContext<'_>) -> Result<()> {
    let started = Instant::now();
    let config = ctx.job.config;
    let plan = Plan::of(config)?;
    let (groups, drawn) = collect(ctx, &plan)?;
    keep_samples(ctx, &groups)?;

    let size = plan.rollout.num_generations;
    let rewards: Vec<f64> = groups.iter().flat_map(|g| &g.rewards).map(|r| r.total).collect();
    let advantages = objective::advantages(&rewards, size, plan.grpo.scale_rewards);
    let micros: Vec<Micro> = groups
        .chunks(config.train.batch_size)
        .zip(advantages.chunks(config.train.batch_size * size))
        .map(|(groups, advantages)| Micro::new(ctx, &plan, groups, advantages.to_vec()))
        .collect::<Result<_>>()?;
    let described = describe(&groups, drawn);
    let view = StallSample {
        reward_std: described.get("reward_std").unwrap_or(0.0),
        reward: described.get("reward").unwrap_or(0.0),
        best: plan.reward.best(),
        well_formed: 1.0 - described.get("format_failures").unwrap_or(0.0),
        entropy: 0.0,
    };

    let mut started = started;
    for _ in 0..plan.grpo.num_iterations {
        for (minibatch, groups) in micros
            .chunks(config.train.gradient_accumulation_steps)
            .zip(groups.chunks(config.train.gradient_accumulation_steps * config.train.batch_size))
        {
            step(ctx, &plan, minibatch, groups, &described, view, started)?;
            started = Instant::now();
        }
    }
    Ok(())
}

/// One forward-backward: sequences group after group, with what the loss needs to know of each.
struct Micro {
    sequences: Vec<Sequence>,
    lengths: Vec<usize>,
    advantages: Vec<f64>,
    old: Option<Vec<f32>>,
    reference: Option<Vec<f32>>,
}

impl Micro {
    fn new(ctx: &StepContext<'_>, plan: &Plan<'_>, groups: &[Group], advantages: Vec<f64>) -> Result<Micro> {
        let sequences: Vec<Sequence> = groups.iter().flat_map(|g| g.sequences.iter().cloned()).collect();
        let temperature = plan.rollout.temperature;
        let old = match plan.grpo.num_iterations * plan.grpo.minibatches {
            1 => None,
            _ => Some(ctx.job.policy.score(&sequences, temperature)?.logprobs),
        };
        let reference = match (plan.grpo.beta != 0.0, ctx.job.reference) {
            (false, _) => None,
            (true, Some(reference)) => Some(reference.score(&sequences, temperature)?.logprobs),
            (true, None) => return Err(Error::failed("grpo.beta is above 0 but there is no reference model")),
        };
        let lengths = sequences.iter().map(|s| s.response.len()).collect();
        Ok(Micro { sequences, lengths, advantages, old, reference })
    }
}

/// One optimizer step over the micro-batches of a minibatch.
fn step(
    ctx: &mut StepContext<'_>,
    plan: &Plan<'_>,
    minibatch: &[Micro],
    groups: &[Group],
    described: &Metrics,
    mut view: StallSample,
    started: Instant,
) -> Result<()> {
    let window = Window::of(minibatch.iter().flat_map(|m| m.lengths.iter().copied()), minibatch.len());
    let (mut total, mut sums) = (0.0, GrpoSums::default());
    for micro in minibatch {
        let outputs = ShardOutputs::default();
        ctx.job.policy.backward(&micro.sequences, plan.rollout.temperature, None, &|shard, stats| {
            let first: usize = micro.lengths[..shard.start].iter().sum();
            let tokens = first..first + stats.logprobs.len();
            let inputs = GrpoInputs {
                logprobs: &stats.logprobs,
                entropies: &stats.entropies,
                old: micro.old.as_ref().map(|old| &old[tokens.clone()]),
                reference: micro.reference.as_ref().map(|reference| &reference[tokens.clone()]),
                lengths: &micro.lengths[shard.clone()],
                advantages: &micro.advantages[shard.clone()],
                micro_tokens: micro.lengths.iter().sum(),
                window,
                max_completion_length: plan.rollout.max_new_tokens,
            };
            let out = objective::grpo(plan.grpo, &inputs);
            outputs.insert(shard.start, (out.loss, out.sums));
            Ok(out.grads)
        })?;
        for (loss, part) in outputs.ordered() {
            total += loss;
            sums += part;
        }
    }
    let n = sums.tokens.max(1.0);
    let mut metrics = described.clone();
    metrics.push("kl", sums.kl / n);
    metrics.push("entropy", sums.entropy / n);
    metrics.push("ratio", sums.ratio / n);
    metrics.push("clip_low", sums.clipped_low / n);
    metrics.push("clip_high", sums.clipped_high / n);
    metrics.push("clip_fraction", (sums.clipped_low + sums.clipped_high) / n);
    let sequences = || minibatch.iter().flat_map(|m| &m.sequences);
    let tokens = sequences().map(|s| s.prompt.ids.len() + s.response.len()).sum();
    let ids: Vec<String> = groups.iter().map(|g| g.id().to_string()).collect();
    ctx.finish_step(total, &ids, started, tokens, metrics)?;
    view.entropy = sums.entropy / n;
    for warning in ctx.state.stall.observe(plan.stall, &view) {
        ctx.progress.note(&format!("step {}: {warning}", ctx.state.step));
    }
    Ok(())
}

/// Roll out until there are enough groups. With dynamic sampling, groups whose rewards are all equal are set aside and
/// replaced by further prompts, as long as the limit allows; what is still missing then is filled up with them (their
/// advantage is zero), so that every step has the same size. Returns the groups and how many prompts were drawn.
fn collect(ctx: &mut StepContext<'_>, plan: &Plan<'_>) -> Result<(Vec<Group>, usize)> {
    let wanted = ctx.job.config.examples_per_round();
    let (mut useful, mut equal): (Vec<Group>, Vec<Group>) = (Vec::new(), Vec::new());
    let mut drawn = 0;
    for draw in 0..=plan.grpo.dynamic_sampling as u64 {
        let (indices, prompts) = ctx.next_examples(wanted)?;
        drawn += indices.len();
        for group in roll_out(ctx, plan, &indices, prompts, draw)? {
            if plan.grpo.dynamic_sampling > 0 && group.std() == 0.0 { equal.push(group) } else { useful.push(group) }
        }
        if useful.len() >= wanted {
            break;
        }
    }
    useful.extend(equal);
    useful.truncate(wanted);
    Ok((useful, drawn))
}

/// `rollout.num_generations` scored responses to each of these examples.
fn roll_out(
    ctx: &StepContext<'_>,
    plan: &Plan<'_>,
    indices: &[usize],
    prompts: Vec<Sequence>,
    draw: u64,
) -> Result<Vec<Group>> {
    let job = ctx.job;
    let prompts: Vec<Arc<Prompt>> = prompts.into_iter().map(|p| p.prompt).collect();
    let batch_size = if plan.rollout.batch_size == 0 { indices.len() } else { plan.rollout.batch_size };
    let sampling = plan.rollout.sampling(job.config.train.seed);
    let options = SampleOptions {
        samples: plan.rollout.num_generations,
        sampling: &sampling,
        stream: ("rollout", &[ctx.state.round, draw]),
    };
    let model = LocalModel::new(job.policy, job.codec);
    let responses = sample_in_batches(&model, &Prompts::encoded(job.train, indices, &prompts), &options, batch_size)?;
    let group = |((&i, prompt), responses): ((&usize, &Arc<Prompt>), Vec<ScoredResponse>)| {
        let sequence = |r: &ScoredResponse| Sequence { prompt: prompt.clone(), response: r.token_ids.clone() };
        Ok(Group {
            answer: job.train.example(i)?.answer.clone(),
            rewards: responses.iter().map(|r| plan.reward.reward(&r.score)).collect(),
            sequences: responses.iter().map(sequence).collect(),
            responses,
        })
    };
    indices.iter().zip(&prompts).zip(responses).map(group).collect()
}

/// What the rollout batch looked like.
fn describe(groups: &[Group], drawn: usize) -> Metrics {
    let responses = || groups.iter().flat_map(|g| &g.rewards);
    let scores = || groups.iter().flat_map(|g| &g.responses).map(|r| &r.score);
    let lengths = || groups.iter().flat_map(|g| &g.sequences).map(|s| s.response.len() as f64);
    let n = responses().count().max(1) as f64;
    let count = groups.len().max(1) as f64;
    let mut m = Metrics::default();
    m.push("reward", responses().map(|r| r.total).sum::<f64>() / n);
    for (i, term) in TERMS.iter().enumerate() {
        m.push(term.metric, responses().map(|r| r.terms[i]).sum::<f64>() / n);
    }
    m.push("reward_std", groups.iter().map(Group::std).sum::<f64>() / count);
    m.push("zero_variance_groups", groups.iter().filter(|g| g.std() == 0.0).count() as f64 / count);
    m.push("prompts_drawn", drawn as f64);
    m.push("format_failures", scores().filter(|s| !s.well_formed).count() as f64 / n);
    m.push("unparsed", scores().filter(|s| !s.parsed).count() as f64 / n);
    m.push("response_length", lengths().sum::<f64>() / n);
    m.push("response_length_max", lengths().fold(0.0, f64::max));
    m.push("truncated", groups.iter().flat_map(|g| &g.responses).filter(|r| !r.finished).count() as f64 / n);
    m
}

/// Keep two responses of the first group now and then: at the first round and around every evaluation.
fn keep_samples(ctx: &mut StepContext<'_>, groups: &[Group]) -> Result<()> {
    let (every, step) = (ctx.job.config.eval.every.max(1), ctx.state.step);
    let Some(group) =
        groups.first().filter(|_| step / every != (step + ctx.job.config.steps_per_round()) / every || step == 0)
    else {
        return Ok(());
    };
    let samples: Vec<Sample> = group
        .responses
        .iter()
        .zip(&group.rewards)
        .take(2)
        .map(|(response, reward)| Sample {
            step,
            source: "rollout",
            id: response.id.clone(),
            response: response.response.clone(),
            answer: group.answer.clone(),
            reward: Some(reward.total),
            score: response.score.clone(),
        })
        .collect();
    ctx.keep(&samples)
}
