//! Dynamic fine-tuning (arXiv 2508.05629): the negative log-likelihood of each token, weighted by its own probability, which carries no
//! gradient. Tokens that the model finds unlikely move it less than in plain SFT.
//!
//! Kept from TRL's `SFTTrainer` with `loss_type="dft"`: the formula, and the mean over the response tokens of the batch. Different: the
//! mean over sequences is possible too.

use super::base::{MetricSums, Objective, ObjectiveInputs, ObjectiveOutput};
use crate::Result;
use crate::model::{DeviceTokenGrads, DeviceTokenStats, TokenGrads};
use crate::train::settings::LossReduction;

/// `loss = -mean stopgrad(p(token)) log p(token)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dft {
    /// What the mean is over.
    pub reduction: LossReduction,
}

impl Objective for Dft {
    fn compute(&self, inputs: &ObjectiveInputs<'_>) -> ObjectiveOutput {
        let mut loss = 0.0;
        let logprobs =
            inputs.stats.logprobs.iter().zip(inputs.token_weights(self.reduction)).map(|(&logprob, weight)| {
                let logprob = f64::from(logprob);
                let weight = weight * logprob.exp();
                loss -= weight * logprob;
                -weight as f32
            });
        let grads = TokenGrads { logprobs: logprobs.collect(), entropies: None, kl: None };
        ObjectiveOutput { loss, grads, metrics: MetricSums::new([("entropy", inputs.mean_entropy())]) }
    }

    fn device_grads(&self, stats: &DeviceTokenStats, inputs: &ObjectiveInputs<'_>) -> Result<Option<DeviceTokenGrads>> {
        let weights = stats.column(inputs.token_weights(self.reduction))?;
        DeviceTokenGrads::of_logprobs(&(weights * stats.logprobs()?.exp()?)?.neg()?).map(Some)
    }
}
