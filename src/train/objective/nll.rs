//! Negative log-likelihood of the response tokens: the loss of supervised fine-tuning.
//!
//! The mean is over the response tokens of the batch, as transformers computes it with `num_items_in_batch`, or over its sequences, each
//! the mean over its own tokens.

use super::base::{MetricSums, Objective, ObjectiveInputs, ObjectiveOutput};
use crate::Result;
use crate::model::{DeviceTokenGrads, DeviceTokenStats, TokenGrads};
use crate::train::settings::LossReduction;

/// `loss = -mean log p(token)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nll {
    /// What the mean is over.
    pub reduction: LossReduction,
}

impl Objective for Nll {
    fn compute(&self, inputs: &ObjectiveInputs<'_>) -> ObjectiveOutput {
        let weights = inputs.token_weights(self.reduction);
        let logprobs = || inputs.stats.logprobs.iter().map(|&l| f64::from(l));
        let loss = match self.reduction {
            LossReduction::Token => -logprobs().sum::<f64>() / inputs.batch.tokens.max(1.0),
            LossReduction::Sequence => -logprobs().zip(&weights).map(|(l, w)| l * w).sum::<f64>(),
        };
        let logprobs = weights.into_iter().map(|w| -w as f32).collect();
        ObjectiveOutput {
            loss,
            grads: TokenGrads { logprobs, entropies: None, kl: None },
            metrics: MetricSums::new([("entropy", inputs.mean_entropy())]),
        }
    }

    fn device_grads(&self, stats: &DeviceTokenStats, inputs: &ObjectiveInputs<'_>) -> Result<Option<DeviceTokenGrads>> {
        let grads = stats.column(inputs.token_weights(self.reduction).into_iter().map(|weight| -weight))?;
        DeviceTokenGrads::of_logprobs(&grads).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::super::base::BatchTotals;
    use super::*;
    use crate::model::TokenStats;

    fn compute(reduction: LossReduction, logprobs: &[f32], lengths: &[usize], batch: BatchTotals) -> (f64, Vec<f32>) {
        let stats = TokenStats { logprobs: logprobs.to_vec(), entropies: vec![0.0; logprobs.len()], kl: None };
        let out = Nll { reduction }.compute(&ObjectiveInputs {
            stats: &stats,
            old_logprobs: None,
            reference_logprobs: None,
            sampler: None,
            lengths,
            advantages: &[],
            micro_batch_tokens: logprobs.len(),
            batch,
        });
        (out.loss, out.grads.logprobs)
    }

    #[test]
    fn eight_micro_batches_give_the_loss_and_gradient_of_one_batch_of_eight() {
        let logprobs: Vec<f32> = (0..40).map(|i| -0.1 * i as f32).collect();
        let lengths = [1, 2, 3, 4, 5, 6, 7, 12];
        let (whole, whole_grads) = compute(LossReduction::Token, &logprobs, &lengths, BatchTotals::of(lengths, 1));
        let batch = BatchTotals::of(lengths, 8);
        let (mut sum, mut grads, mut at) = (0.0, Vec::new(), 0);
        for n in lengths {
            let (part, g) = compute(LossReduction::Token, &logprobs[at..at + n], &[n], batch);
            sum += part;
            grads.extend(g);
            at += n;
        }
        assert!((sum - whole).abs() < 1e-12, "{sum} {whole}");
        assert_eq!(grads, whole_grads);
        let (by_sequence, grads) = compute(LossReduction::Sequence, &logprobs, &lengths, BatchTotals::of(lengths, 1));
        let (mut mean, mut at) = (0.0, 0);
        for n in lengths {
            mean -= logprobs[at..at + n].iter().map(|&l| f64::from(l)).sum::<f64>() / n as f64 / 8.0;
            assert_eq!(grads[at..at + n], vec![(-1.0 / (8.0 * n as f64)) as f32; n]);
            at += n;
        }
        assert!((by_sequence - mean).abs() < 1e-12, "{by_sequence} {mean}");
        assert!((whole - logprobs.iter().map(|&l| -f64::from(l)).sum::<f64>() / 40.0).abs() < 1e-12);
    }
}
