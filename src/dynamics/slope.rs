//! How fast the distributions of one sample change as the weights move along the gradient of another: a derivative, measured by steps of two
//! sizes in both directions.
//!
//! f(x) are the log-probabilities of all tokens of the vocabulary after a step of size x, which may be negative, with a rounding error of
//! sigma from logits in f32.
//!
//! ```text
//! d1 = (f(h) - f(-h)) / 2h          error of rounding: sigma / (h sqrt 2); of curvature: c h^2
//! d2 = (f(2h) - f(-2h)) / 4h        half the error of rounding; of curvature: 4 c h^2
//! e(h) = f(h) + f(-h) - 2 f(0)      second order: b h^2
//! ```
//!
//! The slope is (4 d1 - d2) / 3, in which c cancels. The same steps tell both errors apart:
//! - rounding: e(2h) - 4 e(h) leaves sigma, whatever b is; to it comes the share of the step that rounding of the weights left out;
//! - curvature: d2 - d1 is three times the error of d1, once rounding is taken off.
//!
//! Rounding falls as 1/h and curvature grows as h^2, so h is made larger or smaller until both are small.

use super::distribution::{Distributions, log_total, logits};
use super::stepper::{Gradient, ResponseLoss, Stepper};
use crate::Result;
use crate::model::Sequence;
use rayon::prelude::*;

/// Steps are of the right size once both errors are below this share of the slope.
const TOLERANCE: f64 = 0.01;
/// The error that another size is chosen for.
const AIM: f64 = 0.25 * TOLERANCE;
/// Sizes tried, at most.
const SIZES: usize = 6;
/// A size is at most this many times larger or smaller than the one before.
const FACTOR: f64 = 1000.0;
/// The first size moves the weights by this share of their norm, or less.
const FIRST_SHARE: f64 = 1e-4;
/// The first size changes the log-likelihood of the sample whose gradient it follows by so many nats, or less.
const FIRST_GAIN: f64 = 0.05;
/// The rounding error of a logit in f32 is below this share of the largest one.
const MOST_ROUNDING: f64 = 1.0 / 65536.0;

/// Curvature cannot be told where rounding is more than this share of the slope.
const CURVATURE_SHOWS: f64 = 0.1;

/// A sample with its distributions and its gradient under a model.
pub struct DifferentiatedSample<'a> {
    sequence: &'a Sequence,
    /// Weight of each token in l.
    pub weight: f64,
    /// Its distributions.
    pub distributions: Distributions,
    /// Gradient of the sum over its tokens.
    pub gradient: Gradient,
    /// ||grad l||.
    pub norm: f64,
}

impl<'a> DifferentiatedSample<'a> {
    /// One forward and one backward pass.
    pub fn of(stepper: &Stepper<'_>, sequence: &'a Sequence, loss: ResponseLoss) -> Result<DifferentiatedSample<'a>> {
        let weight = loss.weight(sequence.response.len());
        let (distributions, gradient) = stepper.gradient(sequence)?;
        let norm = weight * gradient.norm()?;
        Ok(DifferentiatedSample { sequence, weight, distributions, gradient, norm })
    }

    /// <grad l, grad l of the other>.
    pub fn inner_product(&self, other: &DifferentiatedSample<'_>) -> Result<f64> {
        Ok(self.weight * other.weight * self.gradient.dot(&other.gradient)?)
    }
}

/// The derivative of a sample's distributions with respect to the size of a step on another sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slope {
    /// Sum of squares over all tokens of the response and all of the vocabulary.
    pub squares: f64,
    /// KL(pi || pi') of the distributions before and after a step of size eta, summed over the response, divided by eta^2 in the limit of small
    /// steps: half the sum of pi times the square.
    pub kl: f64,
    /// Of l, in nats (per token, for the mean).
    pub log_likelihood: f64,
    /// The larger of the two step sizes; 0 where the gradient is 0.
    pub eta: f64,
    /// Error by rounding to f32, root mean square, relative to the slope.
    pub rounding: f64,
    /// Error of the smaller steps by curvature, root mean square, relative to the slope. The slope's own is smaller.
    pub curvature: f64,
}

impl Slope {
    /// The slope of the distributions of `of` along the gradient of `by`, by steps of sizes `eta` and `eta / 2`, or of sizes that are chosen.
    pub fn measure(
        stepper: &Stepper<'_>,
        by: &DifferentiatedSample<'_>,
        of: &DifferentiatedSample<'_>,
        eta: Option<f64>,
    ) -> Result<Slope> {
        if by.norm == 0.0 {
            return Ok(Slope { squares: 0.0, kl: 0.0, log_likelihood: 0.0, eta: 0.0, rounding: 0.0, curvature: 0.0 });
        }
        if let Some(eta) = eta {
            return Slope::at(stepper, by, of, 0.5 * eta);
        }
        let (share, gain) = (FIRST_SHARE * stepper.weight_norm(), FIRST_GAIN / by.norm);
        let length = if share > 0.0 { share.min(gain) } else { gain };
        let mut last = Slope::at(stepper, by, of, length / by.norm)?;
        let mut best = last;
        for _ in 1..SIZES {
            if best.error() <= TOLERANCE {
                break;
            }
            last = Slope::at(stepper, by, of, 0.5 * last.eta * last.resize())?;
            if last.error() < best.error() {
                best = last;
            }
        }
        Ok(best)
    }

    /// The slope by steps of sizes `h` and `2 h`.
    fn at(
        stepper: &Stepper<'_>,
        by: &DifferentiatedSample<'_>,
        of: &DifferentiatedSample<'_>,
        h: f64,
    ) -> Result<Slope> {
        let rates = [1.0, -1.0, 2.0, -2.0].map(|x| x * h * by.weight);
        let mut lost = Vec::with_capacity(rates.len());
        let moved = stepper.after_steps(&by.gradient, rates, |rounding| {
            lost.push(rounding);
            logits(stepper.policy(), of.sequence)
        })?;
        let (here, vocab) = (&of.distributions, of.distributions.vocab());
        moved.iter().try_for_each(|moved| here.check_size(moved))?;
        let row = |t: usize| {
            let row = t * vocab..(t + 1) * vocab;
            let moved = moved.each_ref().map(|all| &all[row.clone()]);
            RowSums::of(&here.logits()[row.clone()], moved, here.targets()[t] as usize)
        };
        let rows: Vec<RowSums> = (0..here.rows().len()).into_par_iter().map(row).collect();
        let sum = |of: fn(&RowSums) -> f64| rows.iter().map(of).sum::<f64>();
        let largest = here.logits().iter().fold(0.0_f64, |most, &logit| most.max(f64::from(logit).abs()));
        // sigma^2 times the number of elements. A sum of values of f has sigma^2 times the squares of their factors.
        let variance = (sum(|row| row.fourth) / 70.0)
            .min(sum(|row| row.even) / 6.0)
            .min(here.logits().len() as f64 * (MOST_ROUNDING * largest).powi(2));
        let squares = sum(|row| row.slope);
        // The larger of two steps loses no more than the smaller one, and moves twice as far.
        let lost = lost.iter().copied().fold(0.0, f64::max) / (h * by.norm);
        let (rounding, curvature) = if squares == 0.0 {
            (1.0, 0.0)
        } else if squares.is_finite() {
            let rounding = (variance * 65.0 / 72.0 / squares + lost * lost).sqrt();
            // Twice its own rounding is taken off the difference, so that rounding is not called curvature.
            let own = variance * 5.0 / 8.0 / squares + lost * lost;
            let difference = (sum(|row| row.difference) / squares - 2.0 * own).max(0.0);
            (rounding, if rounding < CURVATURE_SHOWS { (difference / 9.0).sqrt() } else { 0.0 })
        } else {
            (0.0, f64::INFINITY)
        };
        let log_likelihood = of.weight * sum(|row| row.target) / h;
        let kl = 0.5 * sum(|row| row.weighted) / (h * h);
        Ok(Slope { squares: squares / (h * h), kl, log_likelihood, eta: 2.0 * h, rounding, curvature })
    }

    fn error(&self) -> f64 {
        self.rounding.max(self.curvature)
    }

    /// How many times as large the steps should be.
    fn resize(&self) -> f64 {
        let factor = match (self.rounding > TOLERANCE, self.curvature > TOLERANCE) {
            (true, false) => self.rounding / AIM,
            (true, true) => (self.rounding / self.curvature).cbrt(),
            (false, _) => (AIM / self.curvature).sqrt(),
        };
        factor.clamp(1.0 / FACTOR, FACTOR)
    }
}

/// Sums over the vocabulary before one token, for a step size of 1.
#[derive(Debug, Clone, Copy, PartialEq)]
struct RowSums {
    /// Squares of the slopes.
    slope: f64,
    /// Squares of the slopes times the probability of each token.
    weighted: f64,
    /// The slope of log pi of the token itself.
    target: f64,
    /// Squares of d2 - d1.
    difference: f64,
    /// Squares of e(h).
    even: f64,
    /// Squares of e(2h) - 4 e(h).
    fourth: f64,
}

impl RowSums {
    /// Of rows of logits, `[vocab]`: where the weights are, and after steps of h, -h, 2h and -2h.
    fn of(here: &[f32], moved: [&[f32]; 4], target: usize) -> RowSums {
        let (total, [by_p1, by_m1, by_p2, by_m2]) = (log_total(here), moved.map(log_total));
        let [p1, m1, p2, m2] = moved;
        let mut sums = RowSums { slope: 0.0, weighted: 0.0, target: f64::NAN, difference: 0.0, even: 0.0, fourth: 0.0 };
        for (j, ((((f0, p1), m1), p2), m2)) in here.iter().zip(p1).zip(m1).zip(p2).zip(m2).enumerate() {
            let (p1, m1) = (f64::from(*p1) - by_p1, f64::from(*m1) - by_m1);
            let (p2, m2) = (f64::from(*p2) - by_p2, f64::from(*m2) - by_m2);
            let f0 = f64::from(*f0) - total;
            let (d1, d2) = ((p1 - m1) / 2.0, (p2 - m2) / 4.0);
            let (e1, e2) = (p1 + m1 - 2.0 * f0, p2 + m2 - 2.0 * f0);
            let slope = (4.0 * d1 - d2) / 3.0;
            sums.slope += slope * slope;
            sums.weighted += f0.exp() * slope * slope;
            sums.difference += (d2 - d1).powi(2);
            sums.even += e1 * e1;
            sums.fourth += (e2 - 4.0 * e1).powi(2);
            if j == target {
                sums.target = slope;
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slope(rounding: f64, curvature: f64) -> Slope {
        Slope { squares: 1.0, kl: 0.5, log_likelihood: 0.0, eta: 1.0, rounding, curvature }
    }

    #[test]
    fn steps_grow_where_rounding_shows_and_shrink_where_curvature_does() {
        assert_eq!(slope(0.5, 0.0).resize(), 200.0);
        assert!((slope(0.0, 0.25).resize() - 0.1).abs() < 1e-12);
        assert!((slope(0.8, 0.1).resize() - 2.0).abs() < 1e-12, "between both: where they are equal");
        assert_eq!((slope(f64::INFINITY, 0.0).resize(), slope(0.0, f64::INFINITY).resize()), (1000.0, 0.001));
    }

    #[test]
    fn the_slope_of_a_cubic_is_exact_and_its_errors_are_told_apart() {
        // Logits x, 0 and 0, where x = 1 + 2h + 5h^2 + 7h^3.
        let logits = |h: f64| [(1.0 + 2.0 * h + 5.0 * h * h + 7.0 * h * h * h) as f32, 0.0, 0.0];
        let sums = |h: f64| {
            let moved = [h, -h, 2.0 * h, -2.0 * h].map(logits);
            RowSums::of(&logits(0.0), moved.each_ref().map(|row| &row[..]), 1)
        };
        // Exact: d log pi = 2 (1 - pi_0), -2 pi_0, -2 pi_0.
        let pi = 1_f64.exp() / (1_f64.exp() + 2.0);
        let exact = 4.0 * (1.0 - pi).powi(2) + 8.0 * pi * pi;
        let h = 1e-2;
        let found = sums(h);
        assert!((found.slope / (h * h) / exact - 1.0).abs() < 1e-4, "{} {exact}", found.slope / (h * h));
        let weighted = 4.0 * pi * (1.0 - pi);
        assert!((found.weighted / (h * h) / weighted - 1.0).abs() < 1e-4, "{} {weighted}", found.weighted / (h * h));
        assert!((found.target / h + 2.0 * pi).abs() < 1e-3, "{found:?}");
        assert!(found.fourth < 1e-3 * found.even, "the second order is no rounding: {found:?}");
        // The error of d1 grows with the square of the size, and so do the squares relative to the slope with its fourth power.
        let relative = |sums: RowSums| sums.difference / sums.slope;
        assert!((14.0..18.0).contains(&(relative(sums(2.0 * h)) / relative(found))));
    }
}
