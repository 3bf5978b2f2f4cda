//! Proximal supervised fine-tuning (PSFT, arXiv 2508.17784): PPO's clipped objective with every advantage 1, on reference responses.
//!
//! `L = -mean min(r, clip(r, 1 - epsilon, 1 + epsilon))` with `r = p(token) / p_old(token)`. Since the advantage is positive, the lower
//! bound never binds: `L = -mean min(r, 1 + epsilon)`. A token whose probability has grown by more than epsilon since the old policy moves
//! the model no further. The gradient at `r = 1` is that of the negative log-likelihood.
//!
//! Kept from the authors' code (github.com/zwhong714/PSFT): the token mean, and one pass over examples that are cut into minibatches,
//! before which the old policy is the current one. Different: the dual clip, which is for negative advantages, is left out.

use super::base::{MetricSums, Objective, ObjectiveInputs, ObjectiveOutput, RequiredInputs};
use crate::Result;
use crate::model::{DeviceTokenGrads, DeviceTokenStats, TokenGrads};
use crate::train::settings::LossReduction;

/// `loss = -mean min(r, 1 + epsilon_high)`.
#[derive(Debug, Clone, Copy)]
pub struct Psft {
    /// What the mean is over.
    pub reduction: LossReduction,
    /// The largest growth of a token's probability that is rewarded.
    pub epsilon_high: f64,
}

impl Objective for Psft {
    fn needs(&self) -> RequiredInputs {
        RequiredInputs { old_logprobs: true, ..RequiredInputs::default() }
    }

    /// Metrics: `ratio`, and `clip_ratio`, the share of clipped tokens.
    fn compute(&self, inputs: &ObjectiveInputs<'_>) -> ObjectiveOutput {
        let current = &inputs.stats.logprobs;
        let old = inputs.old_logprobs.unwrap_or(current);
        let share = 1.0 / inputs.batch.tokens.max(1.0);
        let (mut loss, mut ratios, mut clipped) = (0.0, 0.0, 0.0);
        let weights = inputs.token_weights(self.reduction);
        let logprobs = current.iter().zip(old).zip(weights).map(|((&logprob, &old), weight)| {
            let ratio = (f64::from(logprob) - f64::from(old)).exp();
            let most = 1.0 + self.epsilon_high;
            loss -= weight * ratio.min(most);
            ratios += share * ratio;
            clipped += if ratio > most { share } else { 0.0 };
            if ratio > most { 0.0 } else { (-weight * ratio) as f32 }
        });
        let grads = TokenGrads { logprobs: logprobs.collect(), entropies: None, kl: None };
        let metrics = MetricSums::new([("entropy", inputs.mean_entropy()), ("ratio", ratios), ("clip_ratio", clipped)]);
        ObjectiveOutput { loss, grads, metrics }
    }

    fn device_grads(&self, stats: &DeviceTokenStats, inputs: &ObjectiveInputs<'_>) -> Result<Option<DeviceTokenGrads>> {
        let weights = stats.column(inputs.token_weights(self.reduction))?;
        let logprobs = stats.logprobs()?;
        let old = match inputs.old_logprobs {
            Some(old) => stats.column(old.iter().map(|&old| f64::from(old)))?,
            None => logprobs.clone(),
        };
        let ratio = (logprobs - old)?.exp()?;
        let clipped = ratio.gt(1.0 + self.epsilon_high)?;
        let grads = clipped.where_cond(&ratio.zeros_like()?, &(weights * &ratio)?.neg()?)?;
        DeviceTokenGrads::of_logprobs(&grads).map(Some)
    }
}
