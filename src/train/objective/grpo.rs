//! The GRPO loss and its gradient, as TRL's `GRPOTrainer._compute_loss` computes it.
//!
//! Per token, with ratio `r = exp(logp - old)` (or, at sequence level, exp of the mean log-ratio of the response):
//! `l = -min(min(r, delta) A, clip(r, 1 - epsilon, 1 + epsilon_high) A) + beta * k3`, where `k3 = exp(d) - d - 1`,
//! `d = ref - logp`. `cispo` has `-stopgrad(min(r, epsilon_high)) A logp` in place of the first term.
//! How the `l` become one number is [`LossType`]. The entropy
//! bonus is averaged over the tokens of the window, whatever the loss type (TRL: of each micro-batch, which makes it depend
//! on how the window is cut).

use super::Window;
use crate::model::TokenGrads;
use crate::train::settings::{GrpoSettings, ImportanceLevel, LossType};

/// A micro-batch or a part of one: per-token values lie sequence after sequence, as in [`crate::model::TokenStats`].
#[derive(Debug, Clone, Copy)]
pub struct GrpoInputs<'a> {
    /// Current log-probabilities.
    pub logprobs: &'a [f32],
    /// Current entropies.
    pub entropies: &'a [f32],
    /// Log-probabilities when the responses were made; `None` means the current ones (ratio exactly 1).
    pub old: Option<&'a [f32]>,
    /// Log-probabilities under the reference model; needed when `beta > 0`.
    pub reference: Option<&'a [f32]>,
    /// Response length of each sequence.
    pub lengths: &'a [usize],
    /// Advantage of each sequence.
    pub advantages: &'a [f64],
    /// Response tokens of the whole micro-batch (`bnpo`).
    pub micro_tokens: usize,
    /// The whole accumulation window.
    pub window: Window,
    /// Most tokens a response can have (`dr_grpo`).
    pub max_completion_length: usize,
}

/// Sums over tokens, to be added up over micro-batches and divided by `tokens`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GrpoSums {
    /// Response tokens.
    pub tokens: f64,
    /// Entropy.
    pub entropy: f64,
    /// k3 estimate of the KL to the reference.
    pub kl: f64,
    /// Tokens whose ratio fell below the range with a negative advantage.
    pub clipped_low: f64,
    /// Tokens whose ratio rose above the range with a positive advantage.
    pub clipped_high: f64,
    /// The ratio.
    pub ratio: f64,
}

impl std::ops::AddAssign for GrpoSums {
    fn add_assign(&mut self, o: Self) {
        self.tokens += o.tokens;
        self.entropy += o.entropy;
        self.kl += o.kl;
        self.clipped_low += o.clipped_low;
        self.clipped_high += o.clipped_high;
        self.ratio += o.ratio;
    }
}

/// What [`grpo`] returns.
#[derive(Debug, Clone, PartialEq)]
pub struct GrpoOutput {
    /// This part of the loss; the parts of a window add up to the loss.
    pub loss: f64,
    /// Its gradient.
    pub grads: TokenGrads,
    /// Metrics.
    pub sums: GrpoSums,
}

/// The loss of a micro-batch (or of a part of one), its gradient with respect to log-probabilities and entropies, and metrics.
pub fn grpo(settings: &GrpoSettings, inputs: &GrpoInputs<'_>) -> GrpoOutput {
    let local_tokens: usize = inputs.lengths.iter().sum();
    let bonus = settings.entropy_coef / inputs.window.tokens.max(1.0);
    let mut loss = 0.0;
    let mut sums = GrpoSums { tokens: local_tokens as f64, ..GrpoSums::default() };
    let mut logprob_grads = Vec::with_capacity(local_tokens);
    let mut entropy_grads = Vec::with_capacity(local_tokens);
    let mut start = 0;
    for (&length, &advantage) in inputs.lengths.iter().zip(inputs.advantages) {
        let range = start..start + length;
        start += length;
        let weight = token_weight(settings.loss_type, inputs, length);
        let current: Vec<f64> = inputs.logprobs[range.clone()].iter().map(|&l| f64::from(l)).collect();
        let log_ratios: Vec<f64> = match inputs.old {
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
            let (mut token_loss, by_log_ratio, by_logprob) = policy_term(settings, ratio, advantage, current[t]);
            let mut gradient = by_logprob;
            match settings.importance_sampling_level {
                ImportanceLevel::Token => gradient += by_log_ratio,
                ImportanceLevel::Sequence => shared += weight * by_log_ratio / length as f64,
            }
            if settings.beta != 0.0
                && let Some(reference) = inputs.reference
            {
                let d = f64::from(reference[at]) - current[t];
                let k3 = d.exp() - d - 1.0;
                token_loss += settings.beta * k3;
                gradient += settings.beta * (1.0 - d.exp());
                sums.kl += k3;
            }
            let entropy = f64::from(inputs.entropies[at]);
            loss += weight * token_loss - bonus * entropy;
            logprob_grads.push(weight * gradient);
            entropy_grads.push(-bonus as f32);
            sums.entropy += entropy;
            sums.ratio += ratio;
            let (low, high) = clipped(settings, ratio, advantage);
            sums.clipped_low += f64::from(u8::from(low));
            sums.clipped_high += f64::from(u8::from(high));
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
    GrpoOutput { loss, grads, sums }
}

/// What a token of a response of `length` tokens weighs in the loss. All denominators are at least 1, as in TRL.
fn token_weight(loss_type: LossType, inputs: &GrpoInputs<'_>, length: usize) -> f64 {
    let window = &inputs.window;
    let product = |a: usize, b: usize| a.max(1) as f64 * b.max(1) as f64;
    1.0 / match loss_type {
        LossType::Grpo => product(window.sequences, length),
        LossType::Bnpo => product(window.micro_batches, inputs.micro_tokens),
        LossType::DrGrpo => product(window.sequences, inputs.max_completion_length),
        LossType::Dapo | LossType::Cispo => window.tokens.max(1.0),
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
