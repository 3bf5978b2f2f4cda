//! Steps of SGD and of Adam, undone exactly, and the gradients that they follow.
//!
//! The weights are copied before the steps and restored after them. Subtracting the update instead would leave rounding errors, which would
//! add up over thousands of steps.

use super::distribution::Distributions;
use crate::model::{Predictor, Sequence};
use crate::nn::{Parameter, in_main_memory, mutate, numbers, read};
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Added to the divisor of Adam's steps, as `train.eps` is by default.
const ADAM_EPS: f64 = 1e-8;

/// Elements of a sum that one thread adds up; fixed, so that sums do not depend on the number of threads.
const PIECE: usize = 1 << 14;

/// How token log-probabilities are reduced to the log-likelihood of a response; the loss is its negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, schemars::JsonSchema)]
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
    pub(super) parts: Vec<Option<Tensor>>,
}

impl Gradient {
    /// Inner product with another gradient of the same model, in f64.
    pub fn dot(&self, other: &Gradient) -> Result<f64> {
        let both = self.parts.iter().zip(&other.parts).filter_map(|(a, b)| Some((a.as_ref()?, b.as_ref()?)));
        both.map(|(a, b)| inner_product(a, b)).sum()
    }

    /// The direction of AdamW's first step up `weight` times this gradient g, without weight decay: g / (|g| + eps) for each element, close to its
    /// sign. The moments of a new optimizer, corrected for their bias, are g and g^2.
    pub fn adam_direction(&self, weight: f64) -> Result<Gradient> {
        let of_part = |part: &Tensor| -> Result<Tensor> {
            let gradient = (part * weight)?;
            Ok((&gradient / (gradient.abs()? + ADAM_EPS)?)?)
        };
        let parts = self.parts.iter().map(|part| part.as_ref().map(of_part).transpose());
        Ok(Gradient { parts: parts.collect::<Result<_>>()? })
    }

    /// Euclidean norm.
    pub fn norm(&self) -> Result<f64> {
        Ok(self.dot(self)?.sqrt())
    }
}

/// The inner product of two tensors of one shape, in f64.
fn inner_product(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b) = (numbers(a)?, numbers(b)?);
    let products =
        |(a, b): (&[f32], &[f32])| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    let pieces: Vec<f64> = a.par_chunks(PIECE).zip(b.par_chunks(PIECE)).map(products).collect();
    Ok(pieces.iter().sum())
}

/// A model and the weights that are restored after steps.
pub struct Stepper<'a> {
    policy: &'a dyn Predictor,
    /// The parameters that train, with their values.
    start: Vec<(Arc<Parameter>, Tensor)>,
    /// Euclidean norm of these values.
    norm: f64,
}

impl<'a> Stepper<'a> {
    /// Copy the present weights of `policy`. Only trainable parameters are ever changed.
    pub fn new(policy: &'a dyn Predictor) -> Result<Stepper<'a>> {
        let trainable = policy.parameters().iter().filter(|p| p.trainable());
        let copy = |p: &Arc<Parameter>| Ok((Arc::clone(p), p.var.as_tensor().copy()?));
        let start = trainable.map(copy).collect::<Result<Vec<_>>>()?;
        let squares = start.iter().map(|(_, value)| inner_product(value, value)).sum::<Result<f64>>()?;
        Ok(Stepper { policy, start, norm: squares.sqrt() })
    }

    /// Euclidean norm of the weights that take steps.
    pub fn weight_norm(&self) -> f64 {
        self.norm
    }

    /// The model.
    pub fn policy(&self) -> &'a dyn Predictor {
        self.policy
    }

    /// The distributions of `sequence`'s response and the gradient of its log-likelihood, at the copied weights.
    ///
    /// # Errors
    /// If no gradient reaches any parameter: the response is empty, or the policy is not differentiable.
    pub fn gradient(&self, sequence: &Sequence) -> Result<(Distributions, Gradient)> {
        self.start.iter().for_each(|(parameter, _)| parameter.clear_grad());
        let mut found = None;
        self.policy.backward_from_logits(sequence, &mut |logits| {
            let distributions = Distributions::new(logits, &sequence.response)?;
            Ok(found.insert(distributions).gradient())
        })?;
        let take = |(parameter, _): &(Arc<Parameter>, Tensor)| {
            let grad = parameter.grad();
            // Take the buffer; the next backward pass allocates another.
            parameter.set_grad(None);
            grad
        };
        let parts: Vec<Option<Tensor>> = self.start.iter().map(take).collect();
        match found {
            Some(distributions) if parts.iter().any(Option::is_some) => Ok((distributions, Gradient { parts })),
            _ => Err(Error::failed("no gradient reaches any parameter")),
        }
    }

    /// What `observe` finds when `rate * gradient` (or another direction) has been added to the weights, for each of `rates`. It gets the Euclidean norm of the
    /// step's rounding error: weights are f32. The weights are restored at the end, whether or not `observe` succeeds.
    pub fn after_steps<T, const N: usize>(
        &self,
        gradient: &Gradient,
        rates: [f64; N],
        mut observe: impl FnMut(f64) -> Result<T>,
    ) -> Result<[T; N]> {
        let found: Result<Vec<T>> = rates.iter().map(|&rate| observe(self.apply(gradient, rate)?)).collect();
        self.restore()?;
        found?.try_into().map_err(|_| Error::failed("a step was not observed"))
    }

    /// Set the weights to the copied ones plus `rate * gradient`. Returns the norm of the rounding error.
    fn apply(&self, gradient: &Gradient, rate: f64) -> Result<f64> {
        let mut squares = 0.0;
        for ((parameter, start), part) in self.start.iter().zip(&gradient.parts) {
            let Some(part) = part else { continue };
            if !in_main_memory(part.device()) {
                let step = (part * rate)?;
                let weights = (start + &step)?;
                let error = ((&weights - start)? - step)?.sqr()?.sum_all()?;
                squares += f64::from(numbers(&error)?[0]);
                parameter.var.set(&weights)?;
                continue;
            }
            let part = part.contiguous()?;
            let (from, by) = (read(start)?, read(&part)?);
            mutate(parameter.var.as_tensor(), |weights| {
                let pieces = weights.par_chunks_mut(PIECE).zip(from.par_chunks(PIECE)).zip(by.par_chunks(PIECE));
                let errors: Vec<f64> = pieces
                    .map(|((weights, from), by)| {
                        let mut squares = 0.0;
                        for ((weight, from), by) in weights.iter_mut().zip(from).zip(by) {
                            let exact = f64::from(*from) + rate * f64::from(*by);
                            *weight = exact as f32;
                            squares += (f64::from(*weight) - exact).powi(2);
                        }
                        squares
                    })
                    .collect();
                squares += errors.iter().sum::<f64>();
            })?;
        }
        Ok(squares.sqrt())
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
