//! The next-token distributions of one response: its log-likelihood, the norms of the two bounded factors of its learning dynamics, and
//! the change of the distributions after a step. Everything is computed in f64 from logits in f32.
//!
//! With z the logits before a token, pi their softmax over V tokens and y the token itself, the factors are
//! - A = I - 1 pi^T, `[V, V]`, the gradient of log pi with respect to z;
//! - G = w (pi - onehot(y)), `[V]`, the gradient of the loss with respect to z.
//!
//! (Ren and Sutherland, Learning dynamics of LLM finetuning, ICLR 2025, section 3.) Their norms are closed forms of pi, so neither matrix
//! is built.

use crate::model::Sequence;
use crate::model::{Predictions, Predictor};
use crate::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;

/// Bytes of logits in memory at a time, besides those that are kept.
const LOGIT_BYTES: usize = 64 << 20;

/// The distribution before each token of one response, kept for comparison with the one after a step.
pub struct Distributions {
    vocab: usize,
    /// `[tokens, vocab]`.
    logits: Vec<f32>,
    rows: Vec<TokenDistribution>,
}

/// Statistics of the distribution before one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenDistribution {
    /// log sum exp of the logits.
    pub log_total: f64,
    /// log pi(y).
    pub log_prob: f64,
    /// ||I - 1 pi^T||_F^2.
    pub a_squares: f64,
    /// ||pi - onehot(y)||^2.
    pub g_squares: f64,
}

/// The change of the distributions of a response.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DistributionShift {
    /// ||log pi' - log pi||_F^2 over all tokens of the response and all of the vocabulary.
    pub change_squares: f64,
    /// log pi' of the response.
    pub log_likelihood: f64,
}

impl TokenDistribution {
    /// The statistics of one row of logits, `[vocab]`, before the token `target`.
    ///
    /// A has the element onehot_ij - pi_j at (i, j): sum_j (1 - pi_j)^2 + (V - 1) pi_j^2 = V - 2 + V sum_j pi_j^2.
    /// G has the squares (1 - pi_y)^2 + sum_{j != y} pi_j^2, where 1 - pi_y is summed from the other tokens: near
    /// pi_y = 1 a difference would cancel.
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
            a_squares: vocab - 2.0 + vocab * squares / (total * total),
            g_squares: (others * others + other_squares) / (total * total),
        }
    }
}

impl Distributions {
    /// The distributions of the response of `sequence` under `policy` with its present weights.
    pub fn of(policy: &dyn Predictor, sequence: &Sequence) -> Result<Distributions> {
        let predictions = policy.predict(std::slice::from_ref(sequence))?;
        let vocab = predictions.vocab();
        let mut logits = Vec::with_capacity(sequence.response.len() * vocab);
        let mut rows = Vec::with_capacity(sequence.response.len());
        in_pieces(predictions.as_ref(), sequence, |piece, some| {
            let targets = &sequence.response[piece];
            rows.par_extend(
                some.par_chunks(vocab).zip(targets).map(|(row, &y)| TokenDistribution::of(row, y as usize)),
            );
            logits.extend_from_slice(some);
        })?;
        Ok(Distributions { vocab, logits, rows })
    }

    /// Statistics of each distribution.
    pub fn rows(&self) -> &[TokenDistribution] {
        &self.rows
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

    /// The change from these distributions to those of `policy` with its present weights, for the same `sequence`.
    pub fn shift(&self, policy: &dyn Predictor, sequence: &Sequence) -> Result<DistributionShift> {
        let predictions = policy.predict(std::slice::from_ref(sequence))?;
        let vocab = predictions.vocab();
        if (predictions.rows(), vocab) != (self.rows.len(), self.vocab) {
            return Err(Error::failed(format!(
                "{} predictions of {vocab} tokens after a step, {} of {} before it",
                predictions.rows(),
                self.rows.len(),
                self.vocab
            )));
        }
        let mut found: Vec<(f64, f64)> = Vec::with_capacity(self.rows.len());
        in_pieces(predictions.as_ref(), sequence, |piece, after| {
            let before = &self.logits[piece.start * vocab..piece.end * vocab];
            let targets = &sequence.response[piece.clone()];
            let rows = self.rows[piece].par_iter().zip(targets);
            let logits = before.par_chunks(vocab).zip(after.par_chunks(vocab));
            found.par_extend(rows.zip(logits).map(|((row, &y), (before, after))| {
                let now = TokenDistribution::of(after, y as usize);
                (change_squares(before, after, now.log_total - row.log_total), now.log_prob)
            }));
        })?;
        Ok(DistributionShift {
            change_squares: found.iter().map(|(squares, _)| squares).sum(),
            log_likelihood: found.iter().map(|(_, log_prob)| log_prob).sum(),
        })
    }
}

/// Sum over the vocabulary of (log pi'(j) - log pi(j))^2, where `shift` is the change of the log-normalizer.
fn change_squares(before: &[f32], after: &[f32], shift: f64) -> f64 {
    before.iter().zip(after).map(|(b, a)| (f64::from(*a) - f64::from(*b) - shift).powi(2)).sum()
}

/// Call `see` with the logits, some rows at a time.
fn in_pieces(
    predictions: &dyn Predictions,
    sequence: &Sequence,
    mut see: impl FnMut(Range<usize>, &[f32]),
) -> Result<()> {
    let (rows, vocab) = (predictions.rows(), predictions.vocab());
    if rows != sequence.response.len() || vocab == 0 {
        return Err(Error::failed(format!("{rows} predictions for {} response tokens", sequence.response.len())));
    }
    let at_once = (LOGIT_BYTES / (4 * vocab)).clamp(1, 512);
    for start in (0..rows).step_by(at_once) {
        let piece = start..(start + at_once).min(rows);
        let logits = predictions.logits(piece.clone())?;
        if logits.len() != piece.len() * vocab {
            return Err(Error::failed(format!("{} logits for {} rows of {vocab}", logits.len(), piece.len())));
        }
        see(piece, &logits);
    }
    Ok(())
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
    fn the_change_is_that_of_the_logarithms_of_the_probabilities() {
        let (before, after) = ([0.3_f32, -1.2, 2.0, 0.0], [0.1_f32, -1.0, 2.5, 0.4]);
        let (p, q) = (softmax(&before), softmax(&after));
        let expected: f64 = p.iter().zip(&q).map(|(p, q)| (q.ln() - p.ln()).powi(2)).sum();
        let shift = TokenDistribution::of(&after, 0).log_total - TokenDistribution::of(&before, 0).log_total;
        let found = change_squares(&before, &after, shift);
        assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
        // Adding the same to all logits changes no distribution.
        let raised = before.map(|l| l + 4.0);
        let shift = TokenDistribution::of(&raised, 0).log_total - TokenDistribution::of(&before, 0).log_total;
        assert!(change_squares(&before, &raised, shift) < 1e-11);
    }
}
