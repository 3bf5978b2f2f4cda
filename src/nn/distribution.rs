//! Softmax of one row of logits, for sampling.

use super::math::{exp, fold2, max, sum};
use multiversion::multiversion;

/// `log sum exp(scale * logits)`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn log_sum_exp(logits: &[f32], scale: f32) -> f32 {
    let top = max(logits) * scale;
    top + fold2(logits, logits, |l, _| exp(l * scale - top)).ln()
}

/// Logits to `exp(scale * logit - largest)`, in place (a logit of -inf becomes 0). Returns `log sum exp(scale * logits)`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn softmax_weights(logits: &mut [f32], scale: f32) -> f32 {
    let top = max(logits) * scale;
    for l in logits.iter_mut() {
        *l = exp(*l * scale - top);
    }
    top + sum(logits).ln()
}

/// The element at which the running sum of `weights` first exceeds `share` (in [0, 1)) of their total: a draw, if `share` is
/// uniform. `None` if no weight is above 0.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn pick(weights: &[f32], share: f64) -> Option<usize> {
    // Two levels, so that only one short block is added up element by element.
    const BLOCK: usize = 128;
    let sums: Vec<f64> = weights.chunks(BLOCK).map(|block| f64::from(sum(block))).collect();
    let mut left = share * sums.iter().sum::<f64>();
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
