//! The GRPO loss and its gradient, as TRL's `GRPOTrainer._compute_loss` computes it.
//!
//! Per token, with ratio `r = exp(logp - old)` (or, at sequence level, exp of the mean log-ratio of the response):
//! `l = -min(min(r, delta) A, clip(r, 1 - epsilon, 1 + epsilon_high) A) + beta * k3`, where `k3 = exp(d) - d - 1`,
//! `d = ref - logp`. `cispo` has `-stopgrad(min(r, epsilon_high)) A logp` in place of the first term.
//! Where another program sampled the responses, the first term is weighted by `min(exp(old - sampled), max_ratio)`: truncated importance
//! sampling, which corrects for a sampler that is not quite the old policy (TRL's `token_truncate`).
//! How the `l` become one number is [`LossType`]. The entropy
//! bonus is averaged over the tokens of the batch, whatever the loss type (TRL: of each micro-batch, which makes it depend
//! on how the batch is cut).

use super::base::{MetricSums, Objective, ObjectiveInputs, ObjectiveOutput, RequiredInputs};
use crate::Result;
use crate::model::{DeviceTokenGrads, DeviceTokenStats, TokenGrads};
use crate::train::settings::{GrpoSettings, ImportanceLevel, LossType};
use candle_core::{DType, Tensor};

/// The GRPO family: the loss that its settings name.
#[derive(Debug, Clone)]
pub struct GrpoLoss {
    /// The loss type, clipping, KL and entropy.
    pub settings: GrpoSettings,
    /// Most tokens that a response can have (`dr_grpo`).
    pub max_completion_length: usize,
}

impl Objective for GrpoLoss {
    fn needs(&self) -> RequiredInputs {
        RequiredInputs {
            // With one optimizer step for each rollout batch the current policy is the old one.
            old_logprobs: self.settings.num_iterations * self.settings.minibatches > 1,
            reference_logprobs: self.settings.beta != 0.0,
            ..RequiredInputs::default()
        }
    }

    /// The metrics are sums over tokens: `tokens`, `entropy`, `kl` (the k3 estimate), `ratio`, and the tokens whose ratio was `clipped_low`
    /// (below the range, with a negative advantage) or `clipped_high` (above it, with a positive one). Of responses that another program
    /// sampled also `sampler_ratio`, the importance weights, and the tokens whose weight was cut off, `sampler_truncated`.
    fn compute(&self, inputs: &ObjectiveInputs<'_>) -> ObjectiveOutput {
        let settings = &self.settings;
        let local_tokens: usize = inputs.lengths.iter().sum();
        let bonus = settings.entropy_coef / inputs.batch.tokens.max(1.0);
        let mut loss = 0.0;
        let (mut sum_entropy, mut sum_kl, mut sum_ratio, mut clipped_low, mut clipped_high) = (0.0, 0.0, 0.0, 0.0, 0.0);
        let (mut sum_sampler_ratio, mut sampler_truncated) = (0.0, 0.0);
        let mut logprob_grads = Vec::with_capacity(local_tokens);
        let mut entropy_grads = Vec::with_capacity(local_tokens);
        let mut start = 0;
        for (&length, &advantage) in inputs.lengths.iter().zip(inputs.advantages) {
            let range = start..start + length;
            start += length;
            let weight = self.token_weight(inputs, length);
            let current: Vec<f64> = inputs.stats.logprobs[range.clone()].iter().map(|&l| f64::from(l)).collect();
            let log_ratios: Vec<f64> = match inputs.old_logprobs {
                None => vec![0.0; length],
                Some(old) => current.iter().zip(&old[range.clone()]).map(|(l, &o)| l - f64::from(o)).collect(),
            };
            // d loss / d log-ratio at sequence level is shared by all tokens of the response.
            let mean_log_ratio = log_ratios.iter().sum::<f64>() / length.max(1) as f64;
            let mut shared = 0.0;
            for t in 0..length {
                let at = range.start + t;
                let ratio = match settings.importance_sampling_level {
                    ImportanceLevel::Token => log_ratios[t].exp(),
                    ImportanceLevel::Sequence => mean_log_ratio.exp(),
                };
                let (mut token_loss, mut by_log_ratio, mut by_logprob) =
                    policy_term(settings, ratio, advantage, current[t]);
                if let Some(sampler) = inputs.sampler {
                    let old = inputs.old_logprobs.map_or(current[t], |old| f64::from(old[at]));
                    let sampler_ratio = (old - f64::from(sampler.logprobs[at])).exp();
                    let is_cut_off = sampler_ratio > sampler.max_ratio;
                    // Not `min`, which would hide what is not a number.
                    let correction = if is_cut_off { sampler.max_ratio } else { sampler_ratio };
                    token_loss *= correction;
                    by_log_ratio *= correction;
                    by_logprob *= correction;
                    sum_sampler_ratio += correction;
                    sampler_truncated += f64::from(u8::from(is_cut_off));
                }
                let mut gradient = by_logprob;
                match settings.importance_sampling_level {
                    ImportanceLevel::Token => gradient += by_log_ratio,
                    ImportanceLevel::Sequence => shared += weight * by_log_ratio / length as f64,
                }
                if settings.beta != 0.0
                    && let Some(reference) = inputs.reference_logprobs
                {
                    let d = f64::from(reference[at]) - current[t];
                    let k3 = d.exp() - d - 1.0;
                    token_loss += settings.beta * k3;
                    gradient += settings.beta * (1.0 - d.exp());
                    sum_kl += k3;
                }
                let entropy = f64::from(inputs.stats.entropies[at]);
                loss += weight * token_loss - bonus * entropy;
                logprob_grads.push(weight * gradient);
                entropy_grads.push(-bonus as f32);
                sum_entropy += entropy;
                sum_ratio += ratio;
                let (low, high) = clipped(settings, ratio, advantage);
                clipped_low += f64::from(u8::from(low));
                clipped_high += f64::from(u8::from(high));
            }
            if settings.importance_sampling_level == ImportanceLevel::Sequence {
                logprob_grads[range].iter_mut().for_each(|g| *g += shared);
            }
        }
        let grads = TokenGrads {
            logprobs: logprob_grads.into_iter().map(|g| g as f32).collect(),
            entropies: (settings.entropy_coef != 0.0).then_some(entropy_grads),
            kl: None,
        };
        let mut metrics = MetricSums::new([
            ("tokens", local_tokens as f64),
            ("entropy", sum_entropy),
            ("kl", sum_kl),
            ("ratio", sum_ratio),
            ("clipped_low", clipped_low),
            ("clipped_high", clipped_high),
        ]);
        if inputs.sampler.is_some() {
            metrics.add("sampler_ratio", sum_sampler_ratio);
            metrics.add("sampler_truncated", sampler_truncated);
        }
        ObjectiveOutput { loss, grads, metrics }
    }

    fn device_grads(&self, stats: &DeviceTokenStats, inputs: &ObjectiveInputs<'_>) -> Result<Option<DeviceTokenGrads>> {
        let settings = &self.settings;
        let lengths = || inputs.lengths.iter().copied();
        let per_token = |of: &dyn Fn(usize, f64) -> f64| {
            let each = lengths().zip(inputs.advantages);
            stats.column(each.flat_map(|(n, &advantage)| std::iter::repeat_n(of(n, advantage), n)))
        };
        let column = |numbers: &[f32]| stats.column(numbers.iter().map(|&n| f64::from(n)));
        let logprobs = stats.logprobs()?;
        let weight = per_token(&|length, _| self.token_weight(inputs, length))?;
        let advantage = per_token(&|_, advantage| advantage)?;

        // At sequence level every token has the mean of its response.
        let token_level = settings.importance_sampling_level == ImportanceLevel::Token;
        let share = per_token(&|length, _| 1.0 / length as f64)?;
        let sequence: Vec<u32> = lengths().enumerate().flat_map(|(i, n)| std::iter::repeat_n(i as u32, n)).collect();
        let sequence = Tensor::from_vec(sequence, logprobs.dim(0)?, logprobs.device())?;
        let at_level = |values: Tensor| -> Result<Tensor> {
            if token_level {
                return Ok(values);
            }
            let none = Tensor::zeros(inputs.lengths.len(), DType::F32, logprobs.device())?;
            Ok(none.index_add(&sequence, &(values * &share)?, 0)?.index_select(&sequence, 0)?)
        };
        let log_ratio = match inputs.old_logprobs {
            Some(old) => (&logprobs - column(old)?)?,
            None => logprobs.zeros_like()?,
        };
        // Bounded, so that what does not count is 0 and not infinity times 0.
        let ratio = at_level(log_ratio)?.exp()?.minimum(1e30)?;

        let correction = match inputs.sampler {
            Some(sampler) => {
                let old = inputs.old_logprobs.map_or_else(|| Ok(logprobs.clone()), column)?;
                Some((old - column(sampler.logprobs)?)?.exp()?.minimum(sampler.max_ratio)?)
            }
            None => None,
        };
        let corrected = |grads: Tensor| -> Result<Tensor> {
            Ok(match &correction {
                Some(correction) => (grads * correction)?,
                None => grads,
            })
        };

        let (low, high) = bounds(settings);
        let mut grads = if settings.loss_type == LossType::Cispo {
            corrected((ratio.minimum(high)? * &advantage)?.neg()?)?
        } else {
            let is = |found: Tensor| found.to_dtype(DType::F32);
            let delta = settings.delta.unwrap_or(f64::from(f32::MAX));
            let unclipped = (ratio.minimum(delta)? * &advantage)?;
            let clipped = (ratio.clamp(low, high)? * &advantage)?;
            let moves_clipped = (is(ratio.ge(low)?)? * is(ratio.le(high)?)?)?;
            let moves = unclipped.le(&clipped)?.where_cond(&is(ratio.le(delta)?)?, &moves_clipped)?;
            at_level(corrected(((moves * &ratio)? * &advantage)?.neg()?)?)?
        };
        if settings.beta != 0.0
            && let Some(reference) = inputs.reference_logprobs
        {
            let by_kl = (column(reference)? - &logprobs)?.exp()?.affine(-settings.beta, settings.beta)?;
            grads = (grads + by_kl)?;
        }
        let bonus = settings.entropy_coef / inputs.batch.tokens.max(1.0);
        let entropies = logprobs.ones_like()?.affine(-bonus, 0.0)?;
        Ok(Some(DeviceTokenGrads { both: Tensor::stack(&[(grads * weight)?, entropies], 0)?, kl: None }))
    }
}

impl GrpoLoss {
    /// What a token of a response of `length` tokens weighs in the loss. All denominators are at least 1, as in TRL.
    fn token_weight(&self, inputs: &ObjectiveInputs<'_>, length: usize) -> f64 {
        let batch = &inputs.batch;
        let product = |a: usize, b: usize| a.max(1) as f64 * b.max(1) as f64;
        1.0 / match self.settings.loss_type {
            LossType::Grpo => product(batch.sequences, length),
            LossType::Bnpo => product(batch.micro_batches, inputs.micro_batch_tokens),
            LossType::DrGrpo => product(batch.sequences, self.max_completion_length),
            LossType::Dapo | LossType::Cispo => batch.tokens.max(1.0),
        }
    }
}

/// (l, dl / d log-ratio, dl / d logp not through the ratio) of the policy term.
fn policy_term(settings: &GrpoSettings, ratio: f64, advantage: f64, logprob: f64) -> (f64, f64, f64) {
    let (low, high) = bounds(settings);
    if settings.loss_type == LossType::Cispo {
        let weight = ratio.min(high) * advantage;
        return (-weight * logprob, 0.0, -weight);
    }
    let unclipped = settings.delta.map_or(ratio, |delta| ratio.min(delta)) * advantage;
    let clipped = ratio.clamp(low, high) * advantage;
    // Where the two are equal because the ratio is inside the range, both carry the gradient of the ratio.
    if unclipped <= clipped {
        let moves = settings.delta.is_none_or(|delta| ratio <= delta);
        (-unclipped, if moves { -ratio * advantage } else { 0.0 }, 0.0)
    } else {
        let moves = (low..=high).contains(&ratio);
        (-clipped, if moves { -ratio * advantage } else { 0.0 }, 0.0)
    }
}

/// The range of the ratio.
fn bounds(settings: &GrpoSettings) -> (f64, f64) {
    let high = settings.epsilon_high.unwrap_or(settings.epsilon);
    match settings.loss_type {
        LossType::Cispo => (0.0, high),
        _ => (1.0 - settings.epsilon, 1.0 + high),
    }
}

fn clipped(settings: &GrpoSettings, ratio: f64, advantage: f64) -> (bool, bool) {
    let (low, high) = bounds(settings);
    (ratio < low && advantage < 0.0, ratio > high && advantage > 0.0)
}

#[cfg(test)]
#[path = "grpo_tests.rs"]
mod tests;
