//! Softmax of one row of logits, for sampling.

use super::math::{exp, fold2, max, sum};
use multiversion::multiversion;

/// `log sum exp(scale * logits)`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn log_sum_exp(logits: &[f32], scale: f32) -> f32 {
    let top = max(logits) * scale;
    top + fold2(logits, logits, |l, _| exp(l * scale - top)).ln()
}

/// Replace logits by `exp(scale * (logit - max))` (a logit of -inf becomes 0). Returns `log sum exp(scale * logits)`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn unnormalized_softmax(logits: &mut [f32], scale: f32) -> f32 {
    let top = max(logits) * scale;
    for l in logits.iter_mut() {
        *l = exp(*l * scale - top);
    }
    top + sum(logits).ln()
}

/// Index drawn with probability proportional to `weights`, by inverting the cumulative sum at `u` in [0, 1). `None` if no weight is
/// above 0.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn sample_index(weights: &[f32], u: f64) -> Option<usize> {
    // Two levels: whole blocks first, then the elements of one block.
    const BLOCK: usize = 128;
    let sums: Vec<f64> = weights.chunks(BLOCK).map(|block| f64::from(sum(block))).collect();
    let mut left = u * sums.iter().sum::<f64>();
    let mut chosen = None;
    for (block, &total) in sums.iter().enumerate().filter(|(_, total)| **total > 0.0) {
        chosen = Some(block);
        if left < total {
            break;
        }
        left -= total;
    }
    let block = chosen?;
    let weights = &weights[block * BLOCK..weights.len().min((block + 1) * BLOCK)];
    let mut last = None;
    for (i, &w) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
        last = Some(block * BLOCK + i);
        left -= f64::from(w);
        if left < 0.0 {
            break;
        }
    }
    last
}

/// KL(p || q) in nats of the softmax distributions of two rows of logits, computed in f64. Exactly 0 for equal logits, never negative;
/// NaN if a logit is NaN or +infinity.
pub fn kl_divergence(p: &[f32], q: &[f32]) -> f64 {
    let (top_p, top_q) = (f64::from(max(p)), f64::from(max(q)));
    let (mut total_p, mut total_q, mut weighted) = (0.0, 0.0, 0.0);
    for (&p, &q) in p.iter().zip(q) {
        let (p, q) = (f64::from(p) - top_p, f64::from(q) - top_q);
        let weight = p.exp();
        total_p += weight;
        total_q += q.exp();
        // A token with probability 0 under p adds nothing, even where q is 0 too.
        if weight > 0.0 {
            weighted += weight * (p - q);
        }
    }
    let nats = weighted / total_p + (total_q / total_p).ln();
    if nats < 0.0 { 0.0 } else { nats }
}

/// Softmax of `scale * row` in place.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn softmax(row: &mut [f32], scale: f32) {
    let top = max(row) * scale;
    for x in row.iter_mut() {
        *x = exp(*x * scale - top);
    }
    let inverse = 1.0 / sum(row);
    for x in row {
        *x *= inverse;
    }
}
