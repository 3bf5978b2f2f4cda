//! Settings that contradict each other, or cannot mean anything, are refused here, before any work.

use crate::model::MAX_NEW_TOKENS;
use crate::sampling::rollout::Keep;
use crate::sampling::sampling_flags::MAX_RESPONSES;
use crate::tasks::{RewardSettings, TERMS};
use crate::train::settings::{
    LossType, MAX_EXAMPLES, MAX_GRADIENT_BUFFERS, MAX_STEPS, Method, SftLossType, SftSettings, TrainConfig,
};
use crate::train::stop_criterion::StopCriterion;
use crate::{Error, Result};
use toml::{Table, Value};

/// Most seconds to wait for a line of a command.
const LONGEST_TIMEOUT: f64 = 86_400.0;

/// The method, from the flag or from `train.method`; the two must agree.
pub fn method(flag: Option<Method>, written: &Table) -> Result<Method> {
    let key = written.get("train").and_then(Value::as_table).and_then(|t| t.get("method"));
    let configured = match key {
        None => None,
        Some(value) => Some(
            value
                .clone()
                .try_into::<Method>()
                .map_err(|_| Error::input(format!("train.method = {value}: must be \"sft\" or \"rft\"")))?,
        ),
    };
    match (flag, configured) {
        (Some(a), Some(b)) if a != b => Err(Error::input(format!(
            "--method {a} contradicts train.method = \"{b}\" of the configuration; drop one of them"
        ))),
        (Some(method), _) | (None, Some(method)) => Ok(method),
        (None, None) => {
            Err(Error::input("no method: give --method sft, --method rft, or train.method in the configuration"))
        }
    }
}

/// Sections that only SFT reads, and those that only RFT reads.
const SFT_SECTIONS: &[&str] = &["sft"];
const RFT_SECTIONS: &[&str] = &["rollout", "grpo", "reward", "stall"];

/// A setting that the method would ignore is refused: it would look as if it had had an effect.
pub fn unused_sections(method: Method, written: &Table) -> Result<()> {
    let (sections, other) = match method {
        Method::Sft => (RFT_SECTIONS, Method::Rft),
        Method::Rft => (SFT_SECTIONS, Method::Sft),
    };
    for section in sections {
        if method == Method::Sft && *section == "rollout" && resamples(written) {
            continue;
        }
        if let Some(Value::Table(keys)) = written.get(*section)
            && let Some(key) = keys.keys().next()
        {
            let or = match *section {
                "rollout" => "set sft.resample_every, ",
                _ => "",
            };
            return Err(Error::input(format!(
                "{section}.{key} has no effect with train.method = \"{method}\"; remove it, {or}or train with method \"{other}\""
            )));
        }
    }
    Ok(())
}

/// Does SFT train on responses that it samples itself?
pub fn resamples(written: &Table) -> bool {
    let sft = written.get("sft").and_then(Value::as_table);
    sft.and_then(|sft| sft.get("resample_every")).and_then(Value::as_integer).is_some_and(|every| every > 0)
}

/// Every single value in its range, and no two that contradict each other.
pub fn values(config: &TrainConfig) -> Result<()> {
    let t = &config.train;
    if t.steps.is_some() && t.epochs.is_some() {
        return Err(Error::input("train.steps and train.epochs are both given; keep one"));
    }
    need(t.steps != Some(0), "train.steps", 0, "at least 1")?;
    need(t.epochs.is_none_or(|e| e > 0.0 && e.is_finite()), "train.epochs", t.epochs.unwrap_or(0.0), "above 0")?;
    if !t.stop_when.is_empty() {
        StopCriterion::parse(&t.stop_when)?;
        if config.eval.steps == 0 {
            return Err(Error::input("train.stop_when needs evaluations, and eval.steps = 0; set eval.steps"));
        }
    }
    for (key, given) in [("train.save_best", t.save_best), ("eval.prior", !config.eval.prior.is_empty())] {
        if given && config.eval.steps == 0 {
            return Err(Error::input(format!("{key} needs evaluations, and eval.steps = 0; set eval.steps")));
        }
    }
    if let Some(share) = t.stop_when_forgotten {
        need((0.0..1.0).contains(&share), "train.stop_when_forgotten", share, "a share in [0, 1), such as 0.02")?;
        if config.eval.prior.is_empty() {
            return Err(Error::input(
                "train.stop_when_forgotten needs questions of prior knowledge; name a dataset or a benchmark file: eval.prior = \"DIR\"",
            ));
        }
    }
    need(t.stop_patience >= 1, "train.stop_patience", t.stop_patience, "at least 1")?;
    let steps = t.steps.unwrap_or(1);
    need(steps <= MAX_STEPS, "train.steps", steps, &format!("at most {MAX_STEPS}"))?;
    round_size(config)?;
    need(
        t.learning_rate > 0.0 && t.learning_rate < 1.0,
        "train.learning_rate",
        t.learning_rate,
        "above 0 and below 1",
    )?;
    need(
        t.warmup_steps >= 0.0 && t.warmup_steps.is_finite(),
        "train.warmup_steps",
        t.warmup_steps,
        "0 or more (below 1 a share, else steps)",
    )?;
    need(
        t.warmup_steps < 1.0 || t.warmup_steps.fract() == 0.0,
        "train.warmup_steps",
        t.warmup_steps,
        "a share below 1 or a whole number of steps",
    )?;
    need(t.weight_decay >= 0.0 && t.weight_decay < 1.0, "train.weight_decay", t.weight_decay, "in [0, 1)")?;
    for (name, beta) in [("train.betas[0]", t.betas[0]), ("train.betas[1]", t.betas[1])] {
        need((0.0..1.0).contains(&beta), name, beta, "in [0, 1)")?;
    }
    need(t.eps > 0.0 && t.eps.is_finite(), "train.eps", t.eps, "above 0")?;
    need(
        t.max_grad_norm >= 0.0 && t.max_grad_norm.is_finite(),
        "train.max_grad_norm",
        t.max_grad_norm,
        "0 (off) or above",
    )?;
    need(t.seed <= i64::MAX as u64, "train.seed", t.seed, "below 2^63 (TOML's largest integer)")?;
    need(
        t.save_total_limit >= 1,
        "train.save_total_limit",
        t.save_total_limit,
        "at least 1 (the last checkpoint is what a run resumes from)",
    )?;
    if let Some(lora) = &config.lora {
        lora.check()?;
        if lora.dropout > 0.0 && t.method == Method::Rft {
            return Err(Error::input(format!(
                "lora.dropout = {}: must be 0 with train.method = \"rft\"; dropout would change the log-probabilities that the policy ratio \
                 compares",
                lora.dropout
            )));
        }
    }
    need(t.l2_sp >= 0.0 && t.l2_sp.is_finite(), "train.l2_sp", t.l2_sp, "0 (off) or above")?;
    if t.l2_sp > 0.0 && config.lora.is_some() {
        return Err(Error::input(
            "train.l2_sp has no meaning with [lora]: the weights of the model stay as they are; remove one of them",
        ));
    }
    if let Some(prior) = &config.prior_kl {
        if prior.data.is_empty() {
            return Err(Error::input(
                "prior_kl.data is empty; name a dataset with responses of the initial model (jigsaw rollout --keep all), or remove [prior_kl]",
            ));
        }
        need(prior.coef > 0.0 && prior.coef.is_finite(), "prior_kl.coef", prior.coef, "above 0")?;
        within("prior_kl.batch_size", prior.batch_size, 1, MAX_EXAMPLES)?;
    }
    let e = &config.eval;
    within("eval.batch_size", e.batch_size, 1, MAX_RESPONSES)?;
    within("eval.max_new_tokens", e.max_new_tokens, 1, MAX_NEW_TOKENS)?;
    sft(config)?;
    rft(config)
}

fn sft(config: &TrainConfig) -> Result<()> {
    let Some(s) = &config.sft else { return Ok(()) };
    let defaults = SftSettings::default();
    need(
        s.replay_share > 0.0 && s.replay_share < 1.0,
        "sft.replay_share",
        s.replay_share,
        "above 0 and below 1 (leave sft.replay empty for no replay)",
    )?;
    if s.replay.is_empty() && s.replay_share != defaults.replay_share {
        return Err(Error::input("sft.replay_share has no effect without sft.replay; name the dataset to replay"));
    }
    let (all, replayed) = (config.examples_per_step(), config.replayed_per_step());
    if !s.replay.is_empty() && (replayed == 0 || replayed == all) {
        return Err(Error::input(format!(
            "sft.replay_share = {}: of the {all} examples of a step (train.batch_size * train.gradient_accumulation_steps) that is {replayed}; at least \
             one must be replayed and one must not",
            s.replay_share
        )));
    }
    need(s.kl_coef >= 0.0 && s.kl_coef.is_finite(), "sft.kl_coef", s.kl_coef, "0 or more")?;
    need(s.max_per_prompt >= 1, "sft.max_per_prompt", s.max_per_prompt, "at least 1")?;
    if s.resample_every == 0 && s.max_per_prompt != defaults.max_per_prompt {
        return Err(Error::input(
            "sft.max_per_prompt has no effect without sft.resample_every; set it, or remove the cap",
        ));
    }
    if s.resample_every == 0 && s.keep != defaults.keep {
        return Err(Error::input(
            "sft.keep has no effect without sft.resample_every: it chooses among the model's own responses; remove it",
        ));
    }
    proximal(config, s)?;
    distillation(s)
}

/// `sft.loss_type = "psft"` and what belongs to it.
fn proximal(config: &TrainConfig, s: &SftSettings) -> Result<()> {
    let defaults = SftSettings::default();
    need(s.epsilon_high > 0.0 && s.epsilon_high.is_finite(), "sft.epsilon_high", s.epsilon_high, "above 0")?;
    if s.loss_type != SftLossType::Psft {
        let written = [
            ("sft.epsilon_high", s.epsilon_high != defaults.epsilon_high),
            ("sft.minibatches", s.minibatches != defaults.minibatches),
        ];
        let unused = written.into_iter().find(|(_, written)| *written);
        return unused.map_or(Ok(()), |(key, _)| {
            Err(Error::input(format!("{key} has no effect without sft.loss_type = \"psft\"; remove it")))
        });
    }
    need(
        s.minibatches >= 2,
        "sft.minibatches",
        s.minibatches,
        "at least 2 with sft.loss_type = \"psft\" (8 is usual): in the first step after the old policy is taken, the loss is that of \"nll\"",
    )?;
    if s.resample_every > 0 {
        return Err(Error::input(
            "sft.resample_every cannot be combined with sft.loss_type = \"psft\", which compares policies on the dataset's responses; remove one",
        ));
    }
    if let Some(lora) = config.lora.as_ref().filter(|lora| lora.dropout > 0.0) {
        return Err(Error::input(format!(
            "lora.dropout = {}: must be 0 with sft.loss_type = \"psft\"; dropout would change the log-probabilities that the ratio compares",
            lora.dropout
        )));
    }
    whole_rounds(config, "sft.minibatches")
}

/// What self-distillation cannot be combined with.
fn distillation(s: &SftSettings) -> Result<()> {
    if !s.loss_type.is_distillation() {
        return Ok(());
    }
    if s.resample_every == 0 || s.keep != Keep::All {
        return Err(Error::input(
            "sft.loss_type = \"sdft\" learns at the model's own responses, right or wrong: set sft.resample_every (1 for always fresh ones) and \
             sft.keep = \"all\"",
        ));
    }
    let other = [("sft.kl_coef", s.kl_coef > 0.0), ("sft.replay", !s.replay.is_empty())];
    other.into_iter().find(|(_, set)| *set).map_or(Ok(()), |(key, _)| {
        Err(Error::input(format!(
            "{key} cannot be combined with sft.loss_type = \"sdft\", whose teacher sees the reference response; [prior_kl] can"
        )))
    })
}

/// A number of steps that leaves no round half made.
fn whole_rounds(config: &TrainConfig, keys: &str) -> Result<()> {
    let round = config.steps_per_round();
    match config.train.steps.filter(|steps| !steps.is_multiple_of(round)) {
        None => Ok(()),
        Some(steps) => Err(Error::input(format!(
            "train.steps = {steps} is no multiple of {keys} = {round}: a batch of examples would be left half used; give {}",
            steps.div_ceil(round) * round
        ))),
    }
}

fn rft(config: &TrainConfig) -> Result<()> {
    if let Some(r) = &config.rollout {
        let (fewest, why) = match config.grpo {
            Some(_) => (2, "at least 2 (an advantage compares responses to one prompt)"),
            None => (1, "at least 1"),
        };
        if r.log_completions && config.grpo.is_none() {
            return Err(Error::input(
                "rollout.log_completions has no effect with train.method = \"sft\": responses of on-policy SFT have no advantage; remove it",
            ));
        }
        need(r.num_generations >= fewest, "rollout.num_generations", r.num_generations, why)?;
        within("rollout.num_generations", r.num_generations, fewest, MAX_RESPONSES)?;
        within("rollout.max_new_tokens", r.max_new_tokens, 1, MAX_NEW_TOKENS)?;
        need(
            r.temperature > 0.0 && r.temperature.is_finite(),
            "rollout.temperature",
            r.temperature,
            "above 0 (at 0 all responses of a group are the same)",
        )?;
        if r.stop.iter().any(String::is_empty) {
            return Err(Error::input("rollout.stop has an empty text: every response would end at once; remove it"));
        }
        need(r.top_p > 0.0 && r.top_p <= 1.0, "rollout.top_p", r.top_p, "in (0, 1]")?;
        need(
            r.top_k != 1,
            "rollout.top_k",
            r.top_k,
            "0 (off) or at least 2 (at 1 all responses of a group are the same)",
        )?;
        r.check_server(
            config.grpo.as_ref().map(|grpo| grpo.dynamic_sampling),
            config.lora.as_ref().map(|lora| lora.rank),
        )?;
    }
    if let Some(g) = &config.grpo {
        let high = g.epsilon_high.unwrap_or(g.epsilon);
        need(g.epsilon > 0.0 && g.epsilon <= 1.0, "grpo.epsilon", g.epsilon, "in (0, 1]")?;
        need(high > 0.0 && high.is_finite(), "grpo.epsilon_high", high, "above 0")?;
        if let Some(delta) = g.delta {
            need(delta > 1.0 + high, "grpo.delta", delta, &format!("above 1 + grpo.epsilon_high = {}", 1.0 + high))?;
        }
        need(g.beta >= 0.0 && g.beta.is_finite(), "grpo.beta", g.beta, "0 or more")?;
        need(g.entropy_coef.is_finite(), "grpo.entropy_coef", g.entropy_coef, "a finite number")?;
        within("grpo.num_iterations", g.num_iterations, 1, MAX_EXAMPLES)?;
        if g.loss_type == LossType::Cispo && g.delta.is_some() {
            return Err(Error::input("grpo.delta has no effect with grpo.loss_type = \"cispo\"; remove it"));
        }
        if g.loss_type == LossType::Cispo && high < 1.0 {
            return Err(Error::input(format!(
                "grpo.epsilon_high = {high}: with grpo.loss_type = \"cispo\" it is the bound of the ratio itself; give one of at least 1 (5 is usual)"
            )));
        }
        whole_rounds(config, "grpo.minibatches * grpo.num_iterations")?;
    }
    if let Some(r) = &config.reward {
        for term in TERMS {
            let weight = (term.weight)(r);
            need(weight.is_finite() && weight >= 0.0, term.key, weight, "0 or more")?;
        }
        if r.best() == 0.0 && (r.overlong_buffer == 0 || r.overlong_penalty == 0.0) {
            let keys = TERMS.map(|term| term.key).join(", ");
            return Err(Error::input(format!("{keys} are all 0, or not in use: there is nothing to learn from")));
        }
        reward(config, r)?;
    }
    if let Some(g) = &config.stall {
        need(g.reward_std >= 0.0, "stall.reward_std", g.reward_std, "0 or more")?;
        need(g.entropy >= 0.0, "stall.entropy", g.entropy, "0 or more")?;
    }
    Ok(())
}

/// A command and a penalty of length, and what belongs to them.
fn reward(config: &TrainConfig, r: &RewardSettings) -> Result<()> {
    let defaults = RewardSettings::default();
    let unused = |key: &str, need: &str| Err(Error::input(format!("{key} has no effect without {need}; remove it")));
    if r.command.trim().is_empty() {
        for (key, given) in [
            ("reward.command", !r.command.is_empty()),
            ("reward.command_weight", r.command_weight != defaults.command_weight),
            ("reward.command_timeout", r.command_timeout != defaults.command_timeout),
        ] {
            if given {
                return unused(key, "a command in reward.command");
            }
        }
    }
    need(
        r.command_timeout > 0.0 && r.command_timeout <= LONGEST_TIMEOUT,
        "reward.command_timeout",
        r.command_timeout,
        "above 0 and at most 86400 seconds, a day",
    )?;
    if r.overlong_buffer == 0 && r.overlong_penalty != defaults.overlong_penalty {
        return unused("reward.overlong_penalty", "reward.overlong_buffer");
    }
    let longest = config.rollout.as_ref().map_or(usize::MAX, |rollout| rollout.max_new_tokens);
    need(
        r.overlong_buffer <= longest,
        "reward.overlong_buffer",
        r.overlong_buffer,
        &format!("at most rollout.max_new_tokens = {longest}"),
    )
}

/// How many examples and responses a round has.
fn round_size(config: &TrainConfig) -> Result<()> {
    let (batch_size, steps) = (config.train.batch_size, config.train.gradient_accumulation_steps);
    let (key, minibatches) = match (&config.grpo, &config.sft) {
        (Some(grpo), _) => ("grpo.minibatches", grpo.minibatches),
        (None, sft) => ("sft.minibatches", sft.as_ref().map_or(1, |sft| sft.minibatches)),
    };
    within("train.batch_size", batch_size, 1, MAX_EXAMPLES)?;
    within("train.gradient_accumulation_steps", steps, 1, MAX_EXAMPLES)?;
    within("train.gradient_buffers", config.train.gradient_buffers, 1, MAX_GRADIENT_BUFFERS)?;
    within(key, minibatches, 1, MAX_EXAMPLES)?;
    let examples = batch_size.saturating_mul(steps).saturating_mul(minibatches);
    if examples > MAX_EXAMPLES {
        return Err(Error::input(format!(
            "train.batch_size = {batch_size}, train.gradient_accumulation_steps = {steps} and {key} = {minibatches} make {examples} \
             examples: their product must be at most {MAX_EXAMPLES}"
        )));
    }
    let (Some(rollout), Some(grpo)) = (&config.rollout, &config.grpo) else { return Ok(()) };
    let drawn = grpo.dynamic_sampling.saturating_add(1);
    if examples.saturating_mul(drawn).saturating_mul(rollout.num_generations) > MAX_RESPONSES {
        return Err(Error::input(format!(
            "rollout.num_generations = {} and grpo.dynamic_sampling = {} with {examples} prompts: a round samples at most {MAX_RESPONSES} responses",
            rollout.num_generations, grpo.dynamic_sampling
        )));
    }
    Ok(())
}

fn within(key: &str, value: usize, least: usize, most: usize) -> Result<()> {
    need((least..=most).contains(&value), key, value, &format!("from {least} to {most}"))
}

fn need(holds: bool, key: &str, value: impl std::fmt::Display, must: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::input(format!("{key} = {value}: must be {must}"))) }
}
