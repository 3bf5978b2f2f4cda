//! Replay without data: on prompts of other knowledge, KL(initial model || model) at the tokens of the initial model's own responses, and
//! nothing else. Every step adds it to the loss of the run's own examples ([`crate::train::settings::PriorKlSettings`]).
//!
//! The responses are samples of the initial model, so the sum over their tokens has the divergence of whole responses as its mean.

use super::base::{MetricSums, Objective, ObjectiveInputs, ObjectiveOutput, RequiredInputs};
use super::kl_penalty::{add_kl, device_kl};
use crate::Result;
use crate::model::{DeviceTokenGrads, DeviceTokenStats, TokenGrads};
use crate::train::settings::LossReduction;

/// `loss = coef * mean KL(reference || model)`, over the tokens of the batch.
#[derive(Debug, Clone, Copy)]
pub struct PriorKl {
    /// Weight of the divergence.
    pub coef: f64,
}

impl Objective for PriorKl {
    fn needs(&self) -> RequiredInputs {
        RequiredInputs { reference_kl: true, ..RequiredInputs::default() }
    }

    /// Metric: `prior_kl`, the divergence in nats.
    fn compute(&self, inputs: &ObjectiveInputs<'_>) -> ObjectiveOutput {
        let grads = TokenGrads { logprobs: vec![0.0; inputs.stats.logprobs.len()], entropies: None, kl: None };
        let mut output = ObjectiveOutput { loss: 0.0, grads, metrics: MetricSums::default() };
        add_kl(&mut output, inputs, self.coef, LossReduction::Token, "prior_kl");
        output
    }

    fn device_grads(&self, stats: &DeviceTokenStats, inputs: &ObjectiveInputs<'_>) -> Result<Option<DeviceTokenGrads>> {
        let mut grads = DeviceTokenGrads::of_logprobs(&stats.logprobs()?.zeros_like()?)?;
        grads.kl = device_kl(stats, inputs, self.coef, LossReduction::Token)?;
        Ok(Some(grads))
    }
}
