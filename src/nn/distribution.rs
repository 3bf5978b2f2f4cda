//! Softmax of one row of logits, for sampling.

use super::math::{exp, fold2, max, sum};
use multiversion::multiversion;

/// `log sum exp(scale * logits)`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn log_sum_exp(logits: &[f32], scale: f32) -> f32 {
    let top = max(logits) * scale;
    top + fold2(logits, logits, |l, _| exp(l * scale - top)).ln()
}

/// Logits to `exp(scale * logit - largest)`, in place; a logit of -inf becomes 0.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn softmax_weights(logits: &mut [f32], scale: f32) {
    let top = max(logits) * scale;
    for l in logits {
        *l = exp(*l * scale - top);
    }
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
