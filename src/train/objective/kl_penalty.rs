//! A penalty on the distance from the model that the run started from, added to another objective: `coef * KL(reference || model)`.
//!
//! It is the forward divergence of the whole next-token distributions at the response tokens, computed exactly. An estimate from the
//! token that happens to follow would be biased on reference responses, which neither model has sampled.

use super::base::{Objective, ObjectiveInputs, ObjectiveOutput, RequiredInputs};
use crate::Result;
use crate::model::{DeviceTokenGrads, DeviceTokenStats};
use crate::train::settings::LossReduction;
use candle_core::Tensor;

/// `loss = objective + coef * mean KL(reference || model)`.
pub struct KlPenalty {
    /// The loss that is penalised.
    pub objective: Box<dyn Objective>,
    /// Weight of the divergence.
    pub coef: f64,
    /// What the mean is over.
    pub reduction: LossReduction,
}

impl Objective for KlPenalty {
    fn needs(&self) -> RequiredInputs {
        RequiredInputs { reference_kl: true, ..self.objective.needs() }
    }

    fn compute(&self, inputs: &ObjectiveInputs<'_>) -> ObjectiveOutput {
        let mut output = self.objective.compute(inputs);
        add_kl(&mut output, inputs, self.coef, self.reduction, "kl");
        output
    }

    fn device_grads(&self, stats: &DeviceTokenStats, inputs: &ObjectiveInputs<'_>) -> Result<Option<DeviceTokenGrads>> {
        let Some(mut grads) = self.objective.device_grads(stats, inputs)? else { return Ok(None) };
        grads.kl = device_kl(stats, inputs, self.coef, self.reduction)?;
        Ok(Some(grads))
    }
}

/// Add `coef * mean KL(reference || model)` to a loss, with its gradient, and the mean itself to the metric `name`.
pub(super) fn add_kl(
    output: &mut ObjectiveOutput,
    inputs: &ObjectiveInputs<'_>,
    coef: f64,
    reduction: LossReduction,
    name: &'static str,
) {
    let Some(kl) = &inputs.stats.kl else { return };
    let weights = kl_weights(inputs, reduction);
    let mean: f64 = kl.iter().zip(&weights).map(|(&nats, &weight)| f64::from(nats) * weight).sum();
    output.loss += coef * mean;
    output.grads.kl = Some(weights.iter().map(|&weight| (coef * weight) as f32).collect());
    output.metrics.add(name, mean);
}

/// The gradient of [`add_kl`] with respect to the divergences, on their device.
pub(super) fn device_kl(
    stats: &DeviceTokenStats,
    inputs: &ObjectiveInputs<'_>,
    coef: f64,
    reduction: LossReduction,
) -> Result<Option<Tensor>> {
    let grads = || stats.column(kl_weights(inputs, reduction).into_iter().map(|weight| coef * weight));
    stats.kl.as_ref().map(|_| grads()).transpose()
}

fn kl_weights(inputs: &ObjectiveInputs<'_>, reduction: LossReduction) -> Vec<f64> {
    inputs.token_weights(reduction).into_iter().map(|w| f64::from(w as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::base::BatchTotals;
    use super::super::nll::Nll;
    use super::*;
    use crate::model::TokenStats;

    #[test]
    fn the_divergence_is_averaged_as_the_likelihood_is() {
        let stats = TokenStats { logprobs: vec![-1.0; 3], entropies: vec![0.0; 3], kl: Some(vec![1.0, 2.0, 6.0]) };
        let penalised = |reduction: LossReduction, coef: f64| {
            let out = KlPenalty { objective: Box::new(Nll { reduction }), coef, reduction }.compute(&ObjectiveInputs {
                stats: &stats,
                old_logprobs: None,
                reference_logprobs: None,
                sampler: None,
                lengths: &[1, 2],
                advantages: &[],
                micro_batch_tokens: 3,
                batch: BatchTotals::of([1, 2], 1),
            });
            (out.metrics.get("kl"), out.loss, out.grads.kl.unwrap())
        };
        let (mean, loss, grads) = penalised(LossReduction::Token, 0.5);
        assert!((mean - 3.0).abs() < 1e-6 && (loss - 2.5).abs() < 1e-6, "{mean} {loss}");
        assert!(grads.iter().all(|g| (g - 0.5 / 3.0).abs() < 1e-7), "{grads:?}");
        let (mean, _, grads) = penalised(LossReduction::Sequence, 1.0);
        assert!((mean - 2.5).abs() < 1e-6, "{mean}");
        assert_eq!(grads, [0.5, 0.25, 0.25]);
    }
}
