//! The effect of one gradient step on a training sample u on a sample v of prior knowledge, and of a step on v on u.
//!
//! With l(x) the log-likelihood of x ([`ResponseLoss`]: mean over its tokens, or sum), a step is theta' = theta + eta grad l(u), that is, plain
//! SGD of size eta on the loss -l(u). To first order, over all tokens of v and the whole vocabulary,
//!
//! ```text
//! log pi'(v) - log pi(v)  =  -eta A(v) K(v, u) G(u) + O(eta^2)
//! LBK(u, v)  =  ||log pi'(v) - log pi(v)||_F^2 / (eta^2 ||A(v)||_F^2 ||G(u)||_F^2)  <=  ||K(v, u)||_F^2 + O(eta)
//! l'(v) - l(v)  =  eta <grad l(u), grad l(v)> + O(eta^2)
//! ```
//!
//! (Ren and Sutherland, Learning dynamics of LLM finetuning, ICLR 2025; arXiv 2506.23508.) The last line is symmetric in u and v: to first
//! order, a step on u changes v as much as a step on v changes u. The distance of both changes from their first order is measured too, and
//! shows whether eta is small enough.

use super::distribution::Distributions;
use super::sgd_step::{ResponseLoss, SgdStep};
use crate::model::Sequence;
use crate::stats::nan_if_null;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The measurement of one pair (u, v).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Influence {
    /// Response tokens of u.
    pub u_tokens: usize,
    /// Response tokens of v.
    pub v_tokens: usize,
    /// ||log pi'(v) - log pi(v)||_F^2 after the step on u.
    pub change_squares: f64,
    /// ||A(v)||_F^2.
    pub a_squares: f64,
    /// ||G(u)||_F^2.
    pub g_squares: f64,
    /// LBK, the lower bound of ||K(v, u)||_F^2. NaN where the model is so certain of u that G is 0.
    #[serde(deserialize_with = "nan_if_null")]
    pub lbk: f64,
    /// l'(v) - l(v) after the step on u, in nats (per token, for the mean).
    pub v_change: f64,
    /// l'(u) - l(u) after a step of the same size on v.
    pub u_change: f64,
    /// eta <grad l(u), grad l(v)>: the first order of both changes.
    pub first_order: f64,
    /// Cosine of grad l(u) and grad l(v). NaN where one of them is 0.
    #[serde(deserialize_with = "nan_if_null")]
    pub cosine: f64,
    /// ||grad l(u)||.
    pub u_gradient: f64,
    /// ||grad l(v)||.
    pub v_gradient: f64,
    /// -log pi(u) of the whole response, in nats.
    pub u_nats: f64,
    /// -log pi(v) of the whole response, in nats.
    pub v_nats: f64,
}

/// Measure the effect of a step on `u` on each of `vs`, and of a step on each of `vs` on `u`. The weights end as they were.
///
/// # Errors
/// A number that is not finite; the message has the number of the `v` that it belongs to.
pub fn influences(
    stepper: &SgdStep<'_>,
    u: &Sequence,
    vs: &[Sequence],
    eta: f64,
    loss: ResponseLoss,
) -> Result<Vec<Influence>> {
    let policy = stepper.policy();
    let u_weight = loss.weight(u.response.len());
    let u_before = Distributions::of(policy, u)?;
    let v_before = vs.iter().map(|v| Distributions::of(policy, v)).collect::<Result<Vec<_>>>()?;
    let u_gradient = stepper.gradient(u)?;
    let u_norm = u_gradient.norm()?;
    let v_after = stepper.after_step(&u_gradient, eta * u_weight, || {
        vs.iter().zip(&v_before).map(|(v, before)| before.shift(policy, v)).collect::<Result<Vec<_>>>()
    })?;
    let mut found = Vec::with_capacity(vs.len());
    for (i, ((v, before), after)) in vs.iter().zip(&v_before).zip(v_after).enumerate() {
        let v_weight = loss.weight(v.response.len());
        let v_gradient = stepper.gradient(v)?;
        let u_after = stepper.after_step(&v_gradient, eta * v_weight, || u_before.shift(policy, u))?;
        let (dot, v_norm) = (u_gradient.dot(&v_gradient)?, v_gradient.norm()?);
        let (a_squares, g_squares) = (before.a_squares(), u_before.g_squares(u_weight));
        let influence = Influence {
            u_tokens: u.response.len(),
            v_tokens: v.response.len(),
            change_squares: after.change_squares,
            a_squares,
            g_squares,
            lbk: after.change_squares / (eta * eta * a_squares * g_squares),
            v_change: v_weight * (after.log_likelihood - before.log_likelihood()),
            u_change: u_weight * (u_after.log_likelihood - u_before.log_likelihood()),
            first_order: eta * u_weight * v_weight * dot,
            cosine: (dot / (u_norm * v_norm)).clamp(-1.0, 1.0),
            u_gradient: u_weight * u_norm,
            v_gradient: v_weight * v_norm,
            u_nats: -u_before.log_likelihood(),
            v_nats: -before.log_likelihood(),
        };
        found.push(influence.checked(i)?);
    }
    Ok(found)
}

impl Influence {
    fn checked(self, v: usize) -> Result<Influence> {
        let numbers = [
            ("change of the distributions", self.change_squares),
            ("gradient at the training sample's logits", self.g_squares),
            ("change of the prior sample's log-likelihood", self.v_change),
            ("change of the training sample's log-likelihood", self.u_change),
            ("inner product of the gradients", self.first_order),
        ];
        match numbers.iter().find(|(_, x)| !x.is_finite()) {
            None => Ok(self),
            Some((what, x)) => Err(Error::failed(format!(
                "prior sample {}: the {what} is {x}; are the weights finite, and is --eta small enough?",
                v + 1
            ))),
        }
    }
}
