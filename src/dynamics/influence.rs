//! The effect of a step on a training sample u on a sample v of prior knowledge: of SGD, per unit of step size, and of Adam, at a learning rate.
//!
//! With l(x) the log-likelihood of x ([`ResponseLoss`]: mean over its tokens, or sum), a step of size eta is theta' = theta + eta grad l(u), that
//! is, plain SGD on the loss -l(u). In the limit of small steps, over all tokens of v and the whole vocabulary,
//!
//! ```text
//! d log pi(v) / d eta  =  -A(v) K(v, u) G(u)
//! LBK(u, v)            =  ||d log pi(v) / d eta||_F^2 / (||A(v)||_F^2 ||G(u)||_F^2)  <=  ||K(v, u)||_F^2
//! d l(v) / d eta       =  <grad l(u), grad l(v)>
//! ```
//!
//! (Ren and Sutherland, Learning dynamics of LLM finetuning, ICLR 2025; arXiv 2506.23508.) The last line is computed from the gradients. The first is
//! measured by steps ([`Slope`]); the same steps give the last line a second time, and steps on v a third time. All three are one inner product, so
//! that they check the size of the steps and the rounding.
//!
//! The step of Adam is the first one of a new optimizer, theta' = theta + rate g / (|g| + eps) with g = grad l(u), taken once and as a whole
//! ([`Distributions::moved_to`](super::distribution::Distributions::moved_to)).

use super::distribution::logits;
use super::slope::{DifferentiatedSample, Slope};
use super::stepper::{ResponseLoss, Stepper};
use crate::model::Sequence;
use crate::stats::nan_if_null;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Above this error, relative to the slope, a pair counts as not resolved.
const MOST_ERROR: f64 = 0.05;

/// The settings of a measurement, besides models and data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InfluenceConfig {
    /// Size of the SGD steps; chosen for each pair when not given.
    pub eta: Option<f64>,
    /// Learning rate of the step of Adam.
    pub learning_rate: f64,
    /// The loss that the steps descend.
    pub loss: ResponseLoss,
    /// Pairs of each regime with each prior family, at most.
    pub pairs: usize,
    /// Seed of the choice of samples, and of the responses that checkpoints sample.
    pub seed: u64,
    /// Frozen parts of the model, which take no step.
    pub frozen: Vec<String>,
    /// Name of the training data to whose prompts each checkpoint samples responses of its own.
    pub on_policy: Option<String>,
}

impl InfluenceConfig {
    /// The steps in words.
    pub fn steps(&self) -> String {
        let eta = self.eta.map_or_else(|| "eta chosen for each pair".into(), |eta| format!("eta {eta}"));
        format!("SGD ({eta}) and Adam (learning rate {})", self.learning_rate)
    }
}

impl Default for InfluenceConfig {
    fn default() -> InfluenceConfig {
        InfluenceConfig {
            eta: None,
            learning_rate: 1e-4,
            loss: ResponseLoss::Mean,
            pairs: 256,
            seed: 0,
            frozen: Vec::new(),
            on_policy: None,
        }
    }
}

/// The measurement of one pair (u, v).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Influence {
    /// Response tokens of u.
    pub u_tokens: usize,
    /// Response tokens of v.
    pub v_tokens: usize,
    /// ||d log pi(v) / d eta||_F^2 for steps on u.
    pub slope_squares: f64,
    /// ||A(v)||_F^2.
    pub a_squares: f64,
    /// ||G(u)||_F^2.
    pub g_squares: f64,
    /// LBK, the lower bound of ||K(v, u)||_F^2. NaN where the model is so certain of u that G is 0.
    #[serde(deserialize_with = "nan_if_null")]
    pub lbk: f64,
    /// KL(pi(v) || pi'(v)) per token of v after an SGD step of size eta on u, divided by eta^2, in the limit of small steps.
    pub sgd_kl: f64,
    /// Change of l(v) by the step of Adam on u, in nats (per token, for the mean).
    pub adam_change: f64,
    /// ||log pi'(v) - log pi(v)||_F^2 for the step of Adam on u.
    pub adam_squares: f64,
    /// KL(pi(v) || pi'(v)) per token of v after the step of Adam on u, in nats.
    pub adam_kl: f64,
    /// <grad l(u), grad l(v)>: how fast either changes by steps on the other, in nats (per token, for the mean) per unit of eta.
    pub inner_product: f64,
    /// d l(v) / d eta, measured by steps on u.
    pub v_slope: f64,
    /// d l(u) / d eta, measured by steps on v.
    pub u_slope: f64,
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
    /// The larger of the two sizes of the steps on u.
    pub u_eta: f64,
    /// The larger of the two sizes of the steps on v.
    pub v_eta: f64,
    /// Error of d log pi(v) / d eta by rounding to f32, relative to it.
    pub rounding: f64,
    /// At most the error of d log pi(v) / d eta by curvature, relative to it.
    pub curvature: f64,
}

/// Measure the effect of steps on `u` on each of `vs`, and of steps on each of `vs` on `u`. SGD steps are of size `config.eta` and half of it, or
/// of sizes chosen for each. The weights end as they were.
///
/// # Errors
/// A number that is not finite; the message has the number of the `v` that it belongs to.
pub fn influences(
    stepper: &Stepper<'_>,
    u: &Sequence,
    vs: &[Sequence],
    config: &InfluenceConfig,
) -> Result<Vec<Influence>> {
    let (eta, loss) = (config.eta, config.loss);
    let u = DifferentiatedSample::of(stepper, u, loss)?;
    let [after_adam] = stepper.after_steps(&u.gradient.adam_direction(u.weight)?, [config.learning_rate], |_| {
        vs.iter().map(|v| logits(stepper.policy(), v)).collect::<Result<Vec<_>>>()
    })?;
    let measure = |(i, (v, after_adam)): (usize, (&Sequence, Vec<f32>))| {
        let v = DifferentiatedSample::of(stepper, v, loss)?;
        let (forth, back) = (Slope::measure(stepper, &u, &v, eta)?, Slope::measure(stepper, &v, &u, eta)?);
        let moved = v.distributions.moved_to(&after_adam)?;
        let v_tokens = v.distributions.rows().len();
        let inner_product = u.inner_product(&v)?;
        let (a_squares, g_squares) = (v.distributions.a_squares(), u.distributions.g_squares(u.weight));
        let influence = Influence {
            u_tokens: u.distributions.rows().len(),
            v_tokens,
            slope_squares: forth.squares,
            a_squares,
            g_squares,
            lbk: if u.norm == 0.0 { f64::NAN } else { forth.squares / (a_squares * g_squares) },
            sgd_kl: forth.kl / v_tokens as f64,
            adam_change: v.weight * moved.log_likelihood,
            adam_squares: moved.squares,
            adam_kl: moved.kl / v_tokens as f64,
            inner_product,
            v_slope: forth.log_likelihood,
            u_slope: back.log_likelihood,
            cosine: (inner_product / (u.norm * v.norm)).clamp(-1.0, 1.0),
            u_gradient: u.norm,
            v_gradient: v.norm,
            u_nats: -u.distributions.log_likelihood(),
            v_nats: -v.distributions.log_likelihood(),
            u_eta: forth.eta,
            v_eta: back.eta,
            rounding: forth.rounding,
            curvature: forth.curvature,
        };
        influence.checked(i)
    };
    vs.iter().zip(after_adam).enumerate().map(measure).collect()
}

impl Influence {
    /// Whether rounding to f32 is more than 5 % of what was measured.
    pub fn is_rounded(&self) -> bool {
        self.rounding > MOST_ERROR
    }

    /// Whether curvature is more than 5 % of what was measured.
    pub fn is_curved(&self) -> bool {
        self.curvature > MOST_ERROR
    }

    /// LBK per token of u: a bound for its single tokens. By the inequality of Cauchy and Schwarz it is at most the mean of their own LBKs, weighted by
    /// the squares of their gradients at the logits.
    pub fn lbk_per_token(&self) -> f64 {
        self.lbk / self.u_tokens as f64
    }

    fn checked(self, v: usize) -> Result<Influence> {
        let numbers = [
            ("inner product of the gradients", self.inner_product),
            ("gradient at the training sample's logits", self.g_squares),
            ("change of the distributions", self.slope_squares),
            ("change of the prior sample's log-likelihood", self.v_slope),
            ("change of the training sample's log-likelihood", self.u_slope),
            ("divergence after a step", self.sgd_kl),
            ("change by the step of Adam", self.adam_squares + self.adam_change.abs()),
            ("divergence after the step of Adam", self.adam_kl),
            ("rounding error", self.rounding),
            ("error by curvature", self.curvature),
        ];
        match numbers.iter().find(|(_, x)| !x.is_finite()) {
            None => Ok(self),
            Some((what, x)) => Err(Error::failed(format!(
                "prior sample {}: the {what} is {x}; are the weights finite, and --learning-rate and a given --eta \
                 small enough?",
                v + 1
            ))),
        }
    }
}
