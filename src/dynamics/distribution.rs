//! The next-token distributions of one response: its log-likelihood, its gradient at the logits, and the norms of the two bounded factors
//! of its learning dynamics. Everything is computed in f64 from logits in f32.
//!
//! With z the logits before a token, pi their softmax over V tokens and y the token itself, the factors are
//! - A = I - 1 pi^T, `[V, V]`, the gradient of log pi with respect to z;
//! - G = w (pi - onehot(y)), `[V]`, the gradient of the loss with respect to z.
//!
//! (Ren and Sutherland, Learning dynamics of LLM finetuning, ICLR 2025, section 3.) Their norms are closed forms of pi, so neither matrix
//! is built.

use crate::model::{Predictor, Sequence};
use crate::{Error, Result};
use rayon::prelude::*;

/// The distribution before each token of one response.
pub struct Distributions {
    vocab: usize,
    /// `[tokens, vocab]`.
    logits: Vec<f32>,
    /// The tokens.
    targets: Vec<u32>,
    rows: Vec<TokenDistribution>,
}

/// Statistics of the distribution before one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenDistribution {
    /// log sum exp of the logits.
    pub log_total: f64,
    /// log pi(y).
    pub log_prob: f64,
    /// 1 - pi(y), summed from the other tokens: near pi(y) = 1 a difference would cancel.
    pub rest: f64,
    /// ||I - 1 pi^T||_F^2.
    pub a_squares: f64,
    /// ||pi - onehot(y)||^2.
    pub g_squares: f64,
}

/// How far the distributions of a response move by a step of the model: sums over its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Movement {
    /// Change of log pi of the response, in nats.
    pub log_likelihood: f64,
    /// ||log pi' - log pi||_F^2, over the whole vocabulary.
    pub squares: f64,
    /// KL(pi || pi'), in nats.
    pub kl: f64,
}

impl TokenDistribution {
    /// The statistics of one row of logits, `[vocab]`, before the token `target`.
    ///
    /// A has the element onehot_ij - pi_j at (i, j): sum_j (1 - pi_j)^2 + (V - 1) pi_j^2 = V - 2 + V sum_j pi_j^2.
    /// G has the squares (1 - pi_y)^2 + sum_{j != y} pi_j^2.
    pub fn of(logits: &[f32], target: usize) -> TokenDistribution {
        let top = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let (mut total, mut squares) = (0.0, 0.0);
        let (mut others, mut other_squares) = (0.0, 0.0);
        for (j, &logit) in logits.iter().enumerate() {
            let weight = (f64::from(logit) - top).exp();
            total += weight;
            squares += weight * weight;
            if j != target {
                others += weight;
                other_squares += weight * weight;
            }
        }
        let vocab = logits.len() as f64;
        let target = logits.get(target).map_or(f64::NAN, |&logit| f64::from(logit));
        TokenDistribution {
            log_total: top + total.ln(),
            log_prob: (target - top) - total.ln(),
            rest: others / total,
            a_squares: vocab - 2.0 + vocab * squares / (total * total),
            g_squares: (others * others + other_squares) / (total * total),
        }
    }
}

impl Distributions {
    /// The distributions with these logits, `[tokens, vocab]`, before the tokens of a response.
    ///
    /// # Errors
    /// If the logits are not those of so many tokens.
    pub fn new(logits: Vec<f32>, response: &[u32]) -> Result<Distributions> {
        let (tokens, vocab) = (response.len(), logits.len() / response.len().max(1));
        if vocab == 0 || logits.len() != tokens * vocab {
            return Err(Error::failed(format!("{} logits for {tokens} response tokens", logits.len())));
        }
        let rows = logits.par_chunks(vocab).zip(response).map(|(row, &y)| TokenDistribution::of(row, y as usize));
        Ok(Distributions { vocab, rows: rows.collect(), logits, targets: response.to_vec() })
    }

    /// Statistics of each distribution.
    pub fn rows(&self) -> &[TokenDistribution] {
        &self.rows
    }

    /// The response's tokens.
    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// Tokens of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// The logits, `[tokens, vocab]`.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// log pi of the response.
    pub fn log_likelihood(&self) -> f64 {
        self.rows.iter().map(|row| row.log_prob).sum()
    }

    /// ||A||_F^2 of the whole response: A is block-diagonal, a block for each token.
    pub fn a_squares(&self) -> f64 {
        self.rows.iter().map(|row| row.a_squares).sum()
    }

    /// ||G||^2 of the whole response for the loss `-weight * log pi`.
    pub fn g_squares(&self, weight: f64) -> f64 {
        weight * weight * self.rows.iter().map(|row| row.g_squares).sum::<f64>()
    }

    /// An error unless these are as many logits as the response has.
    pub fn check_size(&self, logits: &[f32]) -> Result<()> {
        match (logits.len(), self.logits.len()) {
            (after, before) if after != before => {
                Err(Error::failed(format!("{after} logits after a step, {before} before it")))
            }
            _ => Ok(()),
        }
    }

    /// How far the distributions are from those of `logits`, `[tokens, vocab]`, which the same model has after a step.
    ///
    /// # Errors
    /// If these are not as many logits.
    pub fn moved_to(&self, logits: &[f32]) -> Result<Movement> {
        self.check_size(logits)?;
        let rows = self.logits.par_chunks(self.vocab).zip(logits.par_chunks(self.vocab));
        type Row<'a> = (((&'a [f32], &'a [f32]), &'a TokenDistribution), &'a u32);
        let of_row = |(((before, after), row), &y): Row<'_>| {
            let total = log_total(after);
            let mut moved = Movement::default();
            for (j, (&before, &after)) in before.iter().zip(after).enumerate() {
                let log_prob = f64::from(before) - row.log_total;
                let change = (f64::from(after) - total) - log_prob;
                moved.squares += change * change;
                // pi' / pi - 1 - log(pi' / pi), whose terms are at least 0: the probabilities of both sum up to 1.
                moved.kl += log_prob.exp() * (change.exp_m1() - change);
                if j == y as usize {
                    moved.log_likelihood = change;
                }
            }
            moved
        };
        let moved: Vec<Movement> = rows.zip(&self.rows).zip(&self.targets).map(of_row).collect();
        let sum = |of: fn(&Movement) -> f64| moved.iter().map(of).sum::<f64>();
        Ok(Movement { log_likelihood: sum(|m| m.log_likelihood), squares: sum(|m| m.squares), kl: sum(|m| m.kl) })
    }

    /// The gradient of log pi of the response with respect to the logits, onehot(y) - pi, `[tokens, vocab]`. Each element is right to the
    /// precision of f32, that of a token of which the model is certain too.
    pub fn gradient(&self) -> Vec<f32> {
        let mut gradient = vec![0.0; self.logits.len()];
        let rows = gradient.par_chunks_mut(self.vocab).zip(self.logits.par_chunks(self.vocab));
        rows.zip(&self.rows).zip(&self.targets).for_each(|(((gradient, logits), row), &y)| {
            for (j, (g, &logit)) in gradient.iter_mut().zip(logits).enumerate() {
                *g = if j == y as usize { row.rest } else { -(f64::from(logit) - row.log_total).exp() } as f32;
            }
        });
        gradient
    }
}

/// Logits before each response token of `sequence` under `policy` with its present weights, `[tokens, vocab]`.
pub fn logits(policy: &dyn Predictor, sequence: &Sequence) -> Result<Vec<f32>> {
    let predictions = policy.predict(std::slice::from_ref(sequence))?;
    let rows = predictions.rows();
    if rows != sequence.response.len() {
        return Err(Error::failed(format!("{rows} predictions for {} response tokens", sequence.response.len())));
    }
    predictions.logits(0..rows)
}

/// log sum exp of a row of logits.
pub fn log_total(logits: &[f32]) -> f64 {
    let top = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    top + logits.iter().map(|&logit| (f64::from(logit) - top).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn softmax(logits: &[f32]) -> Vec<f64> {
        let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        logits.iter().map(|&l| f64::from(l).exp() / total).collect()
    }

    #[test]
    fn the_closed_norms_are_those_of_the_matrices_written_out() {
        for (logits, target) in [
            (vec![0.3, -1.2, 2.0, 0.0, 0.7], 2),
            (vec![1.0, 1.0], 0),
            (vec![-3.0, 5.0, 0.1, 0.2, 0.3, 4.0, -0.5], 0),
            (vec![0.0; 11], 10),
        ] {
            let pi = softmax(&logits);
            let v = pi.len();
            let mut a = 0.0;
            for i in 0..v {
                for (j, p) in pi.iter().enumerate() {
                    a += (f64::from(u8::from(i == j)) - p).powi(2);
                }
            }
            let g: f64 = pi.iter().enumerate().map(|(j, p)| (p - f64::from(u8::from(j == target))).powi(2)).sum();
            let row = TokenDistribution::of(&logits, target);
            assert!((row.a_squares - a).abs() < 1e-12 * a, "{} is not {a}", row.a_squares);
            assert!((row.g_squares - g).abs() < 1e-12 * g, "{} is not {g}", row.g_squares);
            assert!((row.log_prob - pi[target].ln()).abs() < 1e-12 && row.log_total.is_finite());
        }
    }

    #[test]
    fn a_certain_token_has_a_small_gradient_and_not_one_of_rounding() {
        // pi_y = 1 - 2e: e = exp(-40); the gradient is (2e)^2 + 2 e^2.
        let row = TokenDistribution::of(&[40.0, 0.0, 0.0], 0);
        let e = (-40.0_f64).exp();
        assert!((row.g_squares / (6.0 * e * e) - 1.0).abs() < 1e-12, "{}", row.g_squares);
        assert!((row.log_prob / (-2.0 * e) - 1.0).abs() < 1e-3 || row.log_prob == 0.0, "{}", row.log_prob);
        assert!((row.a_squares - (3.0 - 2.0 + 3.0)).abs() < 1e-9);
    }

    #[test]
    fn the_movement_is_that_of_the_distributions_and_its_divergence_is_never_negative() {
        let (before, after) = (vec![0.3, -1.2, 2.0, 0.0, 0.5, -0.25], vec![0.4, -1.0, 1.5, 0.0, 0.5, -0.25]);
        let here = Distributions::new(before.clone(), &[2, 0]).unwrap();
        let found = here.moved_to(&after).unwrap();
        let (pi, moved) = (softmax(&before[..3]), softmax(&after[..3]));
        let logs: Vec<f64> = pi.iter().zip(&moved).map(|(p, q)| (q / p).ln()).collect();
        let kl: f64 = pi.iter().zip(&logs).map(|(p, change)| -p * change).sum();
        assert!((found.log_likelihood - logs[2]).abs() < 1e-12, "{found:?} {logs:?}");
        assert!((found.squares - logs.iter().map(|l| l * l).sum::<f64>()).abs() < 1e-12, "{found:?}");
        assert!(kl > 0.01 && (found.kl - kl).abs() < 1e-12, "{found:?} {kl}");
        assert_eq!(here.moved_to(&before).unwrap(), Movement::default());
        // All logits of a token higher by the same amount: the same distribution.
        let shifted: Vec<f32> = before.iter().map(|l| l + 8.0).collect();
        assert!((0.0..1e-12).contains(&here.moved_to(&shifted).unwrap().kl));
        assert!(here.moved_to(&after[..3]).is_err());
    }

    #[test]
    fn the_gradient_keeps_the_digits_of_a_token_that_is_certain() {
        let logits = vec![0.3, -1.2, 2.0, 0.0, 18.0, 0.5, -0.25, 1.0];
        let found = Distributions::new(logits.clone(), &[1, 0]).unwrap();
        let gradient = found.gradient();
        for (t, y) in [(0, 1), (1, 0)] {
            let pi = softmax(&logits[4 * t..4 * t + 4]);
            let rest: f64 = (0..4).filter(|&j| j != y).map(|j| pi[j]).sum();
            for j in 0..4 {
                let (expected, got) = (if j == y { rest } else { -pi[j] }, f64::from(gradient[4 * t + j]));
                assert!((got - expected).abs() < 1e-7 * expected.abs(), "{t} {j}: {got} is not {expected}");
            }
        }
        assert!((found.rows()[0].log_total - log_total(&logits[..4])).abs() < 1e-14);
        assert!(Distributions::new(logits, &[1, 0, 2]).is_err() && Distributions::new(Vec::new(), &[]).is_err());
    }
}
