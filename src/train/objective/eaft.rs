//! Entropy-adaptive fine-tuning (arXiv 2601.02151): the negative log-likelihood of each token, weighted by the entropy of the prediction,
//! which carries no gradient. Where the model is sure of another token, the example moves it little.
//!
//! Kept from the paper: the weight `H / ln 20`, between 0 and 1. Different: `H` is the exact entropy over the whole vocabulary, of which the
//! paper takes the 20 likeliest tokens as an approximation; where it is above ln 20, the weight is 1.

use super::base::{MetricSums, Objective, ObjectiveInputs, ObjectiveOutput};
use crate::Result;
use crate::model::{DeviceTokenGrads, DeviceTokenStats, TokenGrads};
use crate::train::settings::LossReduction;

/// Tokens that the paper's approximation of the entropy is over; the largest entropy of so many is the unit of the weight.
const TOP_K: f64 = 20.0;

/// `loss = -mean stopgrad(min(H / ln 20, 1)) log p(token)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Eaft {
    /// What the mean is over.
    pub reduction: LossReduction,
}

impl Objective for Eaft {
    fn compute(&self, inputs: &ObjectiveInputs<'_>) -> ObjectiveOutput {
        let stats = inputs.stats;
        let entropy_weights = stats.entropies.iter().map(|&entropy| (f64::from(entropy) / TOP_K.ln()).clamp(0.0, 1.0));
        let weights: Vec<f64> =
            inputs.token_weights(self.reduction).into_iter().zip(entropy_weights).map(|(a, b)| a * b).collect();
        let loss =
            -stats.logprobs.iter().zip(&weights).map(|(&logprob, weight)| f64::from(logprob) * weight).sum::<f64>();
        let logprobs = weights.into_iter().map(|weight| -weight as f32).collect();
        let grads = TokenGrads { logprobs, entropies: None, kl: None };
        ObjectiveOutput { loss, grads, metrics: MetricSums::new([("entropy", inputs.mean_entropy())]) }
    }

    fn device_grads(&self, stats: &DeviceTokenStats, inputs: &ObjectiveInputs<'_>) -> Result<Option<DeviceTokenGrads>> {
        let weights = stats.column(inputs.token_weights(self.reduction))?;
        let entropy_weights = (stats.entropies()? / TOP_K.ln())?.clamp(0.0, 1.0)?;
        DeviceTokenGrads::of_logprobs(&(weights * entropy_weights)?.neg()?).map(Some)
    }
}
