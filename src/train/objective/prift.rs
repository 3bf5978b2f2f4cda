//! Prior-support guided fine-tuning (PriFT-prob, arXiv 2606.09396): the negative log-likelihood of each token, weighted by its probability
//! under the initial model. As DFT, with weights that training does not change.
//!
//! Kept from the authors' code (github.com/wang-kee/PriFT, `prift_prob_weights`): the formula and the token mean. Different: their other
//! rule, PriFT-mass, which keeps the tokens of the upper half of the initial distribution, is not here.

use super::base::{MetricSums, Objective, ObjectiveInputs, ObjectiveOutput, RequiredInputs};
use crate::Result;
use crate::model::{DeviceTokenGrads, DeviceTokenStats, TokenGrads};
use crate::train::settings::LossReduction;

/// `loss = -mean p_reference(token) log p(token)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Prift {
    /// What the mean is over.
    pub reduction: LossReduction,
}

impl Objective for Prift {
    fn needs(&self) -> RequiredInputs {
        RequiredInputs { reference_logprobs: true, ..RequiredInputs::default() }
    }

    fn compute(&self, inputs: &ObjectiveInputs<'_>) -> ObjectiveOutput {
        let support = inputs.reference_logprobs.unwrap_or_default().iter().map(|&l| f64::from(l).exp());
        let weights: Vec<f64> =
            inputs.token_weights(self.reduction).into_iter().zip(support).map(|(a, b)| a * b).collect();
        let loss = -inputs.stats.logprobs.iter().zip(&weights).map(|(&l, weight)| f64::from(l) * weight).sum::<f64>();
        let logprobs = weights.into_iter().map(|weight| -weight as f32).collect();
        let grads = TokenGrads { logprobs, entropies: None, kl: None };
        ObjectiveOutput { loss, grads, metrics: MetricSums::new([("entropy", inputs.mean_entropy())]) }
    }

    fn device_grads(&self, stats: &DeviceTokenStats, inputs: &ObjectiveInputs<'_>) -> Result<Option<DeviceTokenGrads>> {
        let support = inputs.reference_logprobs.unwrap_or_default().iter().map(|&l| f64::from(l).exp());
        let weights = inputs.token_weights(self.reduction).into_iter().zip(support).map(|(a, b)| -a * b);
        DeviceTokenGrads::of_logprobs(&stats.column(weights)?).map(Some)
    }
}
