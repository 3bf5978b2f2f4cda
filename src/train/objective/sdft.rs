//! Self-distillation fine-tuning (SDFT, arXiv 2601.19897): the model answers, and learns what a teacher would have said at each of its
//! tokens. The teacher is the initial model with the reference response in its prompt
//! ([`crate::tasks::encode_demonstrated`]).
//!
//! [`Direction::Forward`] is KL(teacher || model) of the whole next-token distributions: what the authors' code computes by default and
//! what, by their note of 2026-04-07, all results of the paper were made with (TRL: `distillation_mode="full_logits"`, alpha 0).
//! [`Direction::Reverse`] is KL(model || teacher), equation 1 of the paper, estimated from the sampled tokens (TRL: `"sampled_token"`,
//! alpha 1): `stopgrad(log p - log p_teacher) log p`, whose expected gradient over the model's own tokens is that of the divergence.
//!
//! Different from the paper: the teacher stays the initial model (TRL's default); the paper averages the trained weights into it.

use super::base::{MetricSums, Objective, ObjectiveInputs, ObjectiveOutput, RequiredInputs};
use super::kl_penalty::{add_kl, device_kl};
use crate::Result;
use crate::model::{DeviceTokenGrads, DeviceTokenStats, TokenGrads};
use crate::train::settings::LossReduction;

/// Which divergence is made small.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Direction {
    /// KL(teacher || model), exact.
    #[default]
    Forward,
    /// KL(model || teacher), from the sampled tokens.
    Reverse,
}

/// `loss = mean KL(teacher || model)`, or `mean stopgrad(log p - log p_teacher) log p`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sdft {
    /// What the mean is over.
    pub reduction: LossReduction,
    /// Which divergence.
    pub direction: Direction,
}

impl Objective for Sdft {
    fn needs(&self) -> RequiredInputs {
        let reverse = self.direction == Direction::Reverse;
        RequiredInputs {
            reference_logprobs: reverse,
            reference_kl: !reverse,
            reference_sees_response: true,
            ..RequiredInputs::default()
        }
    }

    /// Metrics: `kl`, the divergence in nats; of the reverse one its estimate, the mean of `log p - log p_teacher`.
    fn compute(&self, inputs: &ObjectiveInputs<'_>) -> ObjectiveOutput {
        let stats = inputs.stats;
        let metrics = MetricSums::new([("entropy", inputs.mean_entropy())]);
        let grads = TokenGrads { logprobs: vec![0.0; stats.logprobs.len()], entropies: None, kl: None };
        let mut output = ObjectiveOutput { loss: 0.0, grads, metrics };
        if self.direction == Direction::Forward {
            add_kl(&mut output, inputs, 1.0, self.reduction, "kl");
            return output;
        }
        let teacher = inputs.reference_logprobs.unwrap_or(&stats.logprobs);
        let mut kl = 0.0;
        let weights = inputs.token_weights(self.reduction);
        let by_token = stats.logprobs.iter().zip(teacher).zip(weights).map(|((&own, &teacher), weight)| {
            let log_ratio = weight * (f64::from(own) - f64::from(teacher));
            output.loss += log_ratio * f64::from(own);
            kl += log_ratio;
            log_ratio as f32
        });
        output.grads.logprobs = by_token.collect();
        output.metrics.add("kl", kl);
        output
    }

    fn device_grads(&self, stats: &DeviceTokenStats, inputs: &ObjectiveInputs<'_>) -> Result<Option<DeviceTokenGrads>> {
        let logprobs = stats.logprobs()?;
        let mut grads = DeviceTokenGrads::of_logprobs(&logprobs.zeros_like()?)?;
        if self.direction == Direction::Forward {
            grads.kl = device_kl(stats, inputs, 1.0, self.reduction)?;
        } else if let Some(teacher) = inputs.reference_logprobs {
            let log_ratio = (logprobs - stats.column(teacher.iter().map(|&l| f64::from(l)))?)?;
            let weights = stats.column(inputs.token_weights(self.reduction))?;
            grads = DeviceTokenGrads::of_logprobs(&(weights * log_ratio)?)?;
        }
        Ok(Some(grads))
    }
}
