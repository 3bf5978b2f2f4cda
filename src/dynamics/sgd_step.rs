//! One plain SGD step, undone exactly.
//!
//! The weights are copied before the step and restored after it. Subtracting the update instead would leave rounding errors, which would
//! add up over thousands of steps.

use crate::model::Predictor;
use crate::model::{Sequence, TokenGrads};
use crate::nn::{Parameter, mutate, read};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Elements of a sum that one thread adds up; fixed, so that sums do not depend on the number of threads.
const PIECE: usize = 1 << 14;

/// How token log-probabilities are reduced to the log-likelihood of a response; the loss is its negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ResponseLoss {
    /// Their mean, as in training: a long response makes no larger step than a short one.
    Mean,
    /// Their sum: the log-likelihood of the whole sequence.
    Sum,
}

impl ResponseLoss {
    /// Weight of each token of a response of `tokens` tokens.
    pub fn weight(self, tokens: usize) -> f64 {
        match self {
            ResponseLoss::Mean => 1.0 / tokens.max(1) as f64,
            ResponseLoss::Sum => 1.0,
        }
    }
}

/// The gradient of a sequence's log-likelihood (the sum over its response) with respect to every parameter that trains.
pub struct Gradient {
    /// In the order of the parameters; `None` where no gradient arrived (the vision tower, for a prompt without images).
    parts: Vec<Option<Tensor>>,
}

impl Gradient {
    /// Inner product with another gradient of the same model, in f64.
    pub fn dot(&self, other: &Gradient) -> Result<f64> {
        let mut sum = 0.0;
        for (a, b) in self.parts.iter().zip(&other.parts) {
            if let (Some(a), Some(b)) = (a, b) {
                let (a, b) = (on_cpu(a)?, on_cpu(b)?);
                let (a, b) = (read(&a)?, read(&b)?);
                let pieces = a.par_chunks(PIECE).zip(b.par_chunks(PIECE));
                let products = |(a, b): (&[f32], &[f32])| -> f64 {
                    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
                };
                let pieces: Vec<f64> = pieces.map(products).collect();
                sum += pieces.iter().sum::<f64>();
            }
        }
        Ok(sum)
    }

    /// Euclidean norm.
    pub fn norm(&self) -> Result<f64> {
        Ok(self.dot(self)?.sqrt())
    }
}

fn on_cpu(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.to_device(&Device::Cpu)?.contiguous()?)
}

/// A model and the weights that are restored after each step.
pub struct SgdStep<'a> {
    policy: &'a dyn Predictor,
    /// The parameters that train, with their values.
    start: Vec<(Arc<Parameter>, Tensor)>,
}

impl<'a> SgdStep<'a> {
    /// Copy the present weights of `policy`. Only trainable parameters are ever changed.
    pub fn new(policy: &'a dyn Predictor) -> Result<SgdStep<'a>> {
        let trainable = policy.parameters().iter().filter(|p| p.trainable());
        let copy = |p: &Arc<Parameter>| Ok((Arc::clone(p), p.var.as_tensor().copy()?));
        Ok(SgdStep { policy, start: trainable.map(copy).collect::<Result<_>>()? })
    }

    /// The model.
    pub fn policy(&self) -> &'a dyn Predictor {
        self.policy
    }

    /// The gradient of the log-likelihood of `sequence`'s response, at the copied weights.
    ///
    /// # Errors
    /// If no gradient reaches any parameter: the response is empty, or the policy is not differentiable.
    pub fn gradient(&self, sequence: &Sequence) -> Result<Gradient> {
        self.start.iter().for_each(|(parameter, _)| parameter.clear_grad());
        self.policy.backward(std::slice::from_ref(sequence), 1.0, None, &|_, stats| {
            Ok(TokenGrads { logprobs: vec![1.0; stats.logprobs.len()], entropies: None, kl: None })
        })?;
        let take = |(parameter, _): &(Arc<Parameter>, Tensor)| {
            let grad = parameter.grad();
            // Take the buffer; the next backward pass allocates another.
            parameter.set_grad(None);
            grad
        };
        let parts: Vec<Option<Tensor>> = self.start.iter().map(take).collect();
        if parts.iter().all(Option::is_none) {
            return Err(Error::failed("no gradient reaches any parameter"));
        }
        Ok(Gradient { parts })
    }

    /// Add `rate * gradient` to the weights, call `observe`, and restore the weights, whether or not `observe` succeeds.
    pub fn after_step<T>(&self, gradient: &Gradient, rate: f64, observe: impl FnOnce() -> Result<T>) -> Result<T> {
        let found = self.apply(gradient, rate).and_then(|()| observe());
        self.restore()?;
        found
    }

    fn apply(&self, gradient: &Gradient, rate: f64) -> Result<()> {
        for ((parameter, start), part) in self.start.iter().zip(&gradient.parts) {
            let Some(part) = part else { continue };
            if !matches!(part.device(), Device::Cpu) {
                parameter.var.set(&(start + (part * rate)?)?)?;
                continue;
            }
            let part = part.contiguous()?;
            let (from, by) = (read(start)?, read(&part)?);
            mutate(parameter.var.as_tensor(), |weights| {
                weights.par_iter_mut().zip(&from[..]).zip(&by[..]).for_each(|((weight, from), by)| {
                    *weight = (f64::from(*from) + rate * f64::from(*by)) as f32;
                });
            })?;
        }
        Ok(())
    }

    fn restore(&self) -> Result<()> {
        self.start.iter().try_for_each(|(parameter, start)| Ok(parameter.var.set(start)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_counts_its_share_of_a_mean_and_wholly_in_a_sum() {
        assert_eq!((ResponseLoss::Mean.weight(4), ResponseLoss::Sum.weight(4)), (0.25, 1.0));
        assert!(ResponseLoss::Mean.weight(0).is_finite());
    }
}
