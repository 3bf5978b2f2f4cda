//! Group relative policy optimization: sample a group of responses to each prompt, score them, and make
//! `minibatches * num_iterations` optimizer steps that make responses likelier the more they earn above the mean of their group.
//!
//! Kept from TRL's `GRPOTrainer`: advantages, loss types, clipping, the k3 estimate of the KL, log-probabilities of logits / temperature over
//! the whole distribution, and, with one step a rollout batch, the current policy as the old one (every ratio is exactly 1).
//! Different: prompts whose responses all earn the same can be replaced (DAPO's dynamic sampling), a group is never split over
//! micro-batches (its sequences share their prompt's computation), and an entropy bonus can be added.

use super::algorithm::Algorithm;
use super::draw::Draw;
use super::gradient_accumulation::{MicroBatch, start_gradients};
use super::job::ExampleId;
use super::metrics::{Metrics, RolloutLine, SampleLine};
use super::objective::{self, Objective, mean_and_std};
use super::reward_command::{RewardCommand, RewardRequest};
use super::rollout_server::{Checked, RolloutServer, ServerState};
use super::stall::StallSample;
use super::state::{StepContext, StepReport};
use crate::data::Record;
use crate::model::{Prompt, Sequence};
use crate::sampling::{Responder, ScoredResponse};
use crate::tasks::{Reward, RewardInput, RewardSettings};
use crate::train::settings::{GrpoSettings, RolloutSettings, StallSettings, TrainConfig};
use crate::{Error, Result};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

/// Reinforcement fine-tuning by GRPO.
#[derive(Default)]
pub struct Grpo {
    /// `reward.command`, once it is started.
    command: RefCell<Option<RewardCommand>>,
    /// What is known of the servers that `rollout.server` names.
    server: RefCell<ServerState>,
}

impl Algorithm for Grpo {
    /// A rollout batch whose rewards do not differ has no gradient at all.
    fn first_step_has_all_gradients(&self) -> bool {
        false
    }

    fn round(&self, ctx: &mut StepContext<'_>) -> Result<()> {
        let mut started = Instant::now();
        let (job, train) = (ctx.job, &ctx.job.config.train);
        let settings = GrpoSections::of(job.config)?;
        let temperature = settings.rollout.temperature;
        let group_size = settings.rollout.num_generations;

        // Rollouts: groups of scored responses.
        let rollouts = self.rollouts(ctx, &settings);
        if matches!(rollouts, Err(Error::Unavailable(_))) {
            self.server.borrow_mut().forget();
        }
        let Rollouts { groups, prompts_drawn, server, ahead, sampler_gap } = rollouts?;
        ctx.save_on_error = false;
        log_responses(ctx, &groups)?;

        // Advantages: how much better each response did than the others of its group.
        let rewards: Vec<f64> = groups.iter().flat_map(|g| &g.rewards).map(|r| r.total).collect();
        let mut advantages = objective::advantages(&rewards, group_size, settings.grpo.scale_rewards);
        if settings.grpo.positive_advantages_only {
            advantages.iter_mut().for_each(|advantage| *advantage = advantage.max(0.0));
        }
        log_rollouts(ctx, &groups, &advantages)?;

        // Micro-batches of whole groups, with the log-probabilities that the objective needs.
        let objective = objective::of_config(job.config);
        let micro_batches = groups
            .chunks(train.batch_size)
            .zip(advantages.chunks(train.batch_size * group_size))
            .map(|(groups, advantages)| {
                let all = groups.iter().flat_map(Group::sequences).zip(groups.iter().flat_map(|g| &g.responses));
                let taken =
                    all.zip(advantages).filter(|((_, r), _)| r.finished || !settings.grpo.mask_truncated_completions);
                let mut sampled = Vec::new();
                let (sequences, advantages) = taken
                    .map(|((sequence, response), advantage)| {
                        sampled.extend_from_slice(&response.logprobs);
                        (sequence, *advantage)
                    })
                    .unzip();
                let mut micro_batch = MicroBatch::with_advantages(sequences, advantages).of(groups.len() * group_size);
                if let Some(server) = &server {
                    micro_batch = micro_batch.sampled_with(sampled, server.max_ratio());
                }
                micro_batch.supply(objective.needs(), job.comm, job.model, job.reference, temperature)
            })
            .collect::<Result<Vec<_>>>()?;

        // Optimizer steps.
        let mut rollout_metrics = describe(&groups, prompts_drawn);
        if let Some(gap) = sampler_gap {
            rollout_metrics.push("sampler_gap", gap);
        }
        if let Some(server) = server {
            let state = &mut ctx.state;
            let first = state.round;
            state.sampled_by.pop_front();
            for draw in ahead {
                let distance = (draw.round() - first) as usize;
                if state.sampled_by.len() < distance {
                    state.sampled_by.push_back(server.adapter_of(distance).to_string());
                }
                let (server, rollout) = (Arc::clone(&server), settings.rollout);
                ctx.background.begin(draw.round(), move || {
                    if job.comm.is_root() {
                        // What cannot be sampled now is asked for by that round, which says why.
                        drop(draw.sample(job, rollout, &server.on_this_rank(distance), group_size));
                    }
                });
            }
        }
        for _ in 0..settings.grpo.num_iterations {
            let groups = groups.chunks(train.gradient_accumulation_steps * train.batch_size);
            for (micro_batches, groups) in micro_batches.chunks(train.gradient_accumulation_steps).zip(groups) {
                let metrics = rollout_metrics.clone();
                step(ctx, &settings, &*objective, micro_batches, groups, metrics, started)?;
                started = Instant::now();
            }
        }
        Ok(())
    }
}

/// The sections of the configuration that only RFT has.
struct GrpoSections<'a> {
    rollout: &'a RolloutSettings,
    grpo: &'a GrpoSettings,
    reward: &'a RewardSettings,
    stall: &'a StallSettings,
}

impl<'a> GrpoSections<'a> {
    fn of(config: &'a TrainConfig) -> Result<GrpoSections<'a>> {
        match (&config.rollout, &config.grpo, &config.reward, &config.stall) {
            (Some(rollout), Some(grpo), Some(reward), Some(stall)) => Ok(GrpoSections { rollout, grpo, reward, stall }),
            _ => Err(Error::failed("train.method = \"rft\" without a rollout, grpo, reward or stall section")),
        }
    }
}

/// One prompt with its scored responses.
struct Group {
    id: String,
    answer: String,
    prompt: Arc<Prompt>,
    responses: Vec<ScoredResponse>,
    rewards: Vec<Reward>,
    /// The place of the prompt in the call that sampled the responses.
    place: usize,
}

/// What a round learns from.
struct Rollouts<'a> {
    groups: Vec<Group>,
    /// Prompts that were sampled, more than there are groups if some were replaced.
    prompts_drawn: usize,
    /// The servers that sampled, if it was not the model that trains.
    server: Option<Arc<RolloutServer<'a>>>,
    /// What they are to sample while this round, and those between, train.
    ahead: Vec<Draw>,
    /// How far their log-probabilities are from those of the model that trains, in nats; none where the adapter as it is samples nothing.
    sampler_gap: Option<f64>,
}

impl Group {
    fn sequences(&self) -> impl Iterator<Item = Sequence> {
        self.responses.iter().map(|r| Sequence { prompt: self.prompt.clone(), response: r.token_ids.clone() })
    }

    /// Standard deviation of the rewards.
    fn reward_std(&self) -> f64 {
        mean_and_std(&self.rewards.iter().map(|r| r.total).collect::<Vec<_>>()).1
    }
}

/// One optimizer step.
fn step(
    ctx: &mut StepContext<'_>,
    settings: &GrpoSections<'_>,
    objective: &dyn Objective,
    micro_batches: &[MicroBatch],
    groups: &[Group],
    mut metrics: Metrics,
    started: Instant,
) -> Result<()> {
    let job = ctx.job;
    let temperature = settings.rollout.temperature;
    let pending = start_gradients(job.comm, job.model, job.reference, objective, micro_batches, temperature)?;
    let measured = |name: &str| metrics.get(name).unwrap_or(0.0);
    let mut sample = StallSample {
        reward_std: measured("reward_std"),
        reward: measured("reward"),
        best: settings.reward.best(),
        well_formed: 1.0 - measured("format_failures"),
        entropy: 0.0,
    };
    ctx.optimizer_step(pending, |sums| {
        let tokens = sums.metrics.get("tokens").max(1.0);
        let mean = |name: &str| sums.metrics.get(name) / tokens;
        sample.entropy = mean("entropy");
        metrics.push("kl", mean("kl"));
        metrics.push("entropy", mean("entropy"));
        metrics.push("ratio", mean("ratio"));
        metrics.push("clip_ratio_low", mean("clipped_low"));
        metrics.push("clip_ratio_high", mean("clipped_high"));
        metrics.push("clip_ratio", (sums.metrics.get("clipped_low") + sums.metrics.get("clipped_high")) / tokens);
        if settings.rollout.server.is_some() {
            metrics.push("sampler_ratio", mean("sampler_ratio"));
            metrics.push("sampler_truncated", mean("sampler_truncated"));
        }
        let sequences = micro_batches.iter().flat_map(|m| m.sequences());
        StepReport {
            metrics,
            example_ids: groups.iter().map(|g| g.id.clone()).collect(),
            tokens: sequences.map(|s| s.prompt.ids.len() + s.response.len()).sum(),
            started,
        }
    })?;
    for warning in ctx.state.stall.observe(settings.stall, &sample) {
        ctx.callback.note(&format!("step {}: {warning}", ctx.state.step));
    }
    Ok(())
}

impl Grpo {
    /// The responses of a round, from the model that trains or from servers; what servers answer is verified.
    fn rollouts<'a>(&self, ctx: &mut StepContext<'a>, settings: &GrpoSections<'a>) -> Result<Rollouts<'a>> {
        let Some(served) = settings.rollout.server_settings() else {
            let job = ctx.job;
            let (groups, prompts_drawn) = self.collect_groups(ctx, settings, &job.responder())?;
            return Ok(Rollouts { groups, prompts_drawn, server: None, ahead: Vec::new(), sampler_gap: None });
        };
        // Nothing of this round has touched the model until its responses are there.
        ctx.save_on_error = true;
        ctx.background.wait_for(ctx.state.round);
        let server = self.server.borrow_mut().sync(ctx, served)?;
        let (groups, prompts_drawn) = self.collect_groups(ctx, settings, &server)?;
        ctx.save_on_error = true;
        let mut ahead = Vec::new();
        for distance in 1..=server.max_staleness() {
            if !ctx.background.has_begun(ctx.state.round + distance as u64) {
                ahead.extend(Draw::ahead(ctx, distance)?);
            }
        }
        let (rollout, temperature) = (settings.rollout, settings.rollout.temperature);
        let gap = match ahead.iter().find(|draw| server.is_by_current_adapter(draw.round())) {
            // These responses are of an earlier adapter. The first of a later round are of this one.
            Some(next) if !server.is_on_policy() => {
                let first = next.first(server.enough_to_check());
                let responses = first.sample(ctx.job, rollout, &server, 1)?;
                let place = |number: usize| first.place(rollout, number);
                let answered = first.prompts.iter().zip(&responses).enumerate();
                let answered = answered.filter_map(|(number, (p, r))| checked(p, r, place(number))).collect::<Vec<_>>();
                Some(server.verify(&answered, temperature)?)
            }
            None if !server.is_on_policy() => None,
            _ => {
                let answered = groups.iter().filter_map(|g| checked(&g.prompt, &g.responses, g.place));
                Some(server.verify(&answered.collect::<Vec<_>>(), temperature)?)
            }
        };
        Ok(Rollouts { groups, prompts_drawn, server: Some(Arc::new(server)), ahead, sampler_gap: gap })
    }

    /// Sample until there are enough groups. With dynamic sampling, groups whose rewards are all equal are set aside and replaced by those of
    /// further prompts, as long as the limit allows. What is still missing then is filled up with them (their advantage is zero), so that
    /// every step has the same size. Returns the groups and how many prompts were drawn.
    fn collect_groups(
        &self,
        ctx: &mut StepContext<'_>,
        settings: &GrpoSections<'_>,
        responder: &dyn Responder,
    ) -> Result<(Vec<Group>, usize)> {
        let wanted = ctx.job.config.examples_per_round();
        let replace = settings.grpo.dynamic_sampling > 0;
        let (mut useful, mut equal): (Vec<Group>, Vec<Group>) = (Vec::new(), Vec::new());
        let mut prompts_drawn = 0;
        for draw in 0..=settings.grpo.dynamic_sampling as u64 {
            let (examples, prompts) = ctx.next_examples(wanted)?;
            prompts_drawn += examples.len();
            for group in self.sample_groups(ctx, settings, responder, &examples, prompts, draw)? {
                if replace && group.reward_std() == 0.0 { equal.push(group) } else { useful.push(group) }
            }
            if useful.len() >= wanted {
                break;
            }
        }
        useful.extend(equal);
        useful.truncate(wanted);
        Ok((useful, prompts_drawn))
    }

    /// `rollout.num_generations` scored responses to each of these examples.
    fn sample_groups(
        &self,
        ctx: &mut StepContext<'_>,
        settings: &GrpoSections<'_>,
        responder: &dyn Responder,
        examples: &[ExampleId],
        prompts: Vec<Sequence>,
        draw: u64,
    ) -> Result<Vec<Group>> {
        let (job, rollout) = (ctx.job, settings.rollout);
        let draw = Draw::new(job, examples, prompts, [ctx.state.round, draw])?;
        let groups = draw.sample(job, rollout, responder, rollout.num_generations)?;
        let mut all = Vec::with_capacity(groups.len());
        for (number, ((&i, prompt), responses)) in draw.indices.iter().zip(&draw.prompts).zip(groups).enumerate() {
            let record = job.train.example(i)?;
            // Nothing of this round has touched the model yet.
            let commands = job.comm.on_root(|| self.command_rewards(settings.reward, &record, &responses));
            ctx.save_on_error = commands.is_err() || rollout.server.is_some();
            let reward = |(r, command): (&ScoredResponse, f64)| {
                let (tokens, max_tokens) = (r.token_ids.len(), rollout.max_new_tokens);
                settings.reward.reward(RewardInput { score: &r.score, tokens, max_tokens, command })
            };
            let rewards = responses.iter().zip(commands?).map(reward).collect();
            all.push(Group {
                id: record.id.clone(),
                answer: record.answer.clone(),
                prompt: prompt.clone(),
                responses,
                rewards,
                place: draw.place(rollout, number),
            });
        }
        Ok(all)
    }

    /// What `reward.command` says of each response; 0 without one.
    fn command_rewards(
        &self,
        settings: &RewardSettings,
        record: &Record,
        responses: &[ScoredResponse],
    ) -> Result<Vec<f64>> {
        if settings.command.is_empty() {
            return Ok(vec![0.0; responses.len()]);
        }
        let mut command = self.command.borrow_mut();
        let command = match &mut *command {
            Some(command) => command,
            none => none.insert(RewardCommand::start(&settings.command, settings.command_timeout)?),
        };
        command.rewards(&responses.iter().map(|response| RewardRequest::new(record, response)).collect::<Vec<_>>())
    }
}

/// The first response to a prompt, to be held against the model.
fn checked<'a>(prompt: &Arc<Prompt>, responses: &'a [ScoredResponse], place: usize) -> Option<Checked<'a>> {
    let response = responses.first()?;
    let sequence = Sequence { prompt: prompt.clone(), response: response.token_ids.clone() };
    Some(Checked { sequence, logprobs: &response.logprobs, place })
}

/// The metrics of a rollout batch.
fn describe(groups: &[Group], prompts_drawn: usize) -> Metrics {
    let rewards = || groups.iter().flat_map(|g| &g.rewards);
    let responses = || groups.iter().flat_map(|g| &g.responses);
    let lengths = || responses().map(|r| r.token_ids.len() as f64);
    let n = rewards().count().max(1) as f64;
    let count = groups.len().max(1) as f64;
    let mut m = Metrics::default();
    m.push("reward", rewards().map(|r| r.total).sum::<f64>() / n);
    let terms = groups.first().and_then(|group| group.rewards.first()).map_or(&[][..], |reward| &reward.terms);
    for (i, (metric, _)) in terms.iter().enumerate() {
        m.push(metric, rewards().map(|r| r.terms[i].1).sum::<f64>() / n);
    }
    m.push("reward_std", groups.iter().map(Group::reward_std).sum::<f64>() / count);
    m.push("frac_reward_zero_std", groups.iter().filter(|g| g.reward_std() == 0.0).count() as f64 / count);
    m.push("prompts_drawn", prompts_drawn as f64);
    m.push("format_failures", responses().filter(|r| !r.score.well_formed).count() as f64 / n);
    m.push("unparsed", responses().filter(|r| !r.score.parsed).count() as f64 / n);
    m.push("response_length", lengths().sum::<f64>() / n);
    m.push("response_length_max", lengths().fold(0.0, f64::max));
    m.push("truncated", responses().filter(|r| !r.finished).count() as f64 / n);
    m
}

/// Log two responses of the first group at the first round and around every evaluation.
fn log_responses(ctx: &mut StepContext<'_>, groups: &[Group]) -> Result<()> {
    let (every, step) = (ctx.job.config.eval.steps.max(1), ctx.state.step);
    let due = step == 0 || step / every != (step + ctx.job.config.steps_per_round()) / every;
    let Some(group) = groups.first().filter(|_| due) else { return Ok(()) };
    let sample = |(response, reward): (&ScoredResponse, &Reward)| SampleLine {
        step: step + 1,
        source: "rollout",
        id: group.id.clone(),
        response: response.response.clone(),
        answer: group.answer.clone(),
        reward: Some(reward.total),
        score: response.score.clone(),
    };
    let samples: Vec<SampleLine> = group.responses.iter().zip(&group.rewards).take(2).map(sample).collect();
    ctx.log_responses(&samples)
}

/// Log every response with what the loss makes of it, if `rollout.log_completions` is set.
fn log_rollouts(ctx: &mut StepContext<'_>, groups: &[Group], advantages: &[f64]) -> Result<()> {
    let first = ctx.state.step + 1;
    let per_step = ctx.job.config.train.gradient_accumulation_steps * ctx.job.config.train.batch_size;
    let Some(log) = &mut ctx.log else { return Ok(()) };
    let mut advantages = advantages.iter();
    let mut lines = Vec::with_capacity(advantages.len());
    for (number, group) in groups.iter().enumerate() {
        for (response, reward) in group.responses.iter().zip(&group.rewards) {
            let terms = reward.terms.iter().map(|(metric, value)| (metric.to_string(), (*value).into()));
            lines.push(RolloutLine {
                step: first + number / per_step,
                id: &group.id,
                sample: response.sample,
                response: &response.response,
                token_ids: &response.token_ids,
                logprobs: &response.logprobs,
                finished: response.finished,
                reward_terms: terms.collect(),
                reward: reward.total,
                advantage: advantages.next().copied().unwrap_or_default(),
            });
        }
    }
    log.rollouts(&lines)
}
