//! GELU and its approximations, elementwise.

use crate::Result;
use crate::nn::math::{erf, exp};
use crate::nn::slice::{from_vec, read, uninit_vec};
use crate::nn::{Tape, Value};
use candle_core::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Elements handled at a time by one thread.
const CHUNK: usize = 1 << 12;

/// A form of GELU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gelu {
    /// `x Phi(x)`, as in the patch mergers.
    Exact,
    /// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2` (transformers' `gelu_pytorch_tanh`).
    Tanh,
    /// `x sigmoid(1.702 x)` (transformers' `quick_gelu`).
    Quick,
}

/// `sqrt(8 / pi)`: the tanh approximation is `x sigmoid(z)` with `z = SLOPE (x + CUBIC x^3)`.
const SLOPE: f32 = 1.595_769_2;
const CUBIC: f32 = 0.044_715;
const QUICK: f32 = 1.702;

/// Elementwise GELU in the form `kind`.
pub fn gelu(tape: &Tape, x: &Value, kind: Gelu) -> Result<Value> {
    if !tape.is_fused(&x.tensor) {
        return match kind {
            Gelu::Exact => tape.candle_op(x, Tensor::gelu_erf),
            Gelu::Tanh => tape.candle_op(x, Tensor::gelu),
            // As a tanh: its exponentials do not overflow.
            Gelu::Quick => tape.candle_op(x, |x| x.mul(&(x * (f64::from(QUICK) / 2.0))?.tanh()?.affine(0.5, 0.5)?)),
        };
    }
    let shape = x.tensor.shape().clone();
    let y = {
        let x = read(&x.tensor)?;
        let x = &*x;
        // SAFETY: the chunks cover the result, and `forward` writes a whole chunk.
        unsafe {
            uninit_vec(x.len(), |y| {
                y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| match kind {
                    Gelu::Exact => forward(y, x),
                    Gelu::Tanh => forward_sigmoid(y, x, SLOPE, CUBIC),
                    Gelu::Quick => forward_sigmoid(y, x, QUICK, 0.0),
                });
            })
        }
    };
    let (x_tensor, node) = (x.tensor.clone(), x.node());
    Ok(tape.record(from_vec(y, shape.clone())?, x.requires_grad(), move |grad, grads| {
        let dx = {
            let (g, x) = (read(&grad)?, read(&x_tensor)?);
            let (g, x) = (&*g, &*x);
            // SAFETY: the chunks cover the result, and `backward` writes a whole chunk.
            unsafe {
                uninit_vec(x.len(), |dx| {
                    dx.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).zip(g.par_chunks(CHUNK)).for_each(
                        |((dx, x), g)| match kind {
                            Gelu::Exact => backward(dx, x, g),
                            Gelu::Tanh => backward_sigmoid(dx, x, g, SLOPE, CUBIC),
                            Gelu::Quick => backward_sigmoid(dx, x, g, QUICK, 0.0),
                        },
                    );
                })
            }
        };
        grads.add(node, from_vec(dx, shape.clone())?)
    }))
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn forward(y: &mut [MaybeUninit<f32>], x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        y.write(0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn backward(dx: &mut [MaybeUninit<f32>], x: &[f32], dy: &[f32]) {
    const INV_SQRT_2PI: f32 = 0.398_942_3;
    for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
        let cdf = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
        dx.write(dy * (cdf + x * INV_SQRT_2PI * exp(-0.5 * x * x)));
    }
}

/// `x sigmoid(slope (x + cubic x^3))`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn forward_sigmoid(y: &mut [MaybeUninit<f32>], x: &[f32], slope: f32, cubic: f32) {
    for (y, &x) in y.iter_mut().zip(x) {
        y.write(x / (1.0 + exp(-slope * (x + cubic * x * x * x))));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn backward_sigmoid(dx: &mut [MaybeUninit<f32>], x: &[f32], dy: &[f32], slope: f32, cubic: f32) {
    for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
        let sigmoid = 1.0 / (1.0 + exp(-slope * (x + cubic * x * x * x)));
        let inner = slope * (1.0 + 3.0 * cubic * x * x);
        dx.write(dy * sigmoid * (1.0 + x * (1.0 - sigmoid) * inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::gradcheck;

    #[test]
    fn every_form_agrees_with_finite_differences() {
        for kind in [Gelu::Exact, Gelu::Tanh, Gelu::Quick] {
            gradcheck::check(&[&[7, 23]], 1, |tape, v, _| gelu(tape, &v[0], kind));
            let wide = (gradcheck::tensor(&[40], 3) * 6.0).unwrap();
            gradcheck::check_at(&[wide], 1, |tape, v, _| gelu(tape, &v[0], kind));
        }
    }

    #[test]
    fn every_form_stays_finite_far_out() {
        let far = || from_vec(vec![-3e4, -200.0, 200.0, 3e4], (1, 4)).unwrap();
        for kind in [Gelu::Exact, Gelu::Tanh, Gelu::Quick] {
            for tape in [Tape::new(), Tape::new().reference()] {
                let x = tape.leaf(far());
                let y = gelu(&tape, &x, kind).unwrap();
                let want = from_vec(vec![0.0, 0.0, 200.0, 3e4], (1, 4)).unwrap();
                assert!(gradcheck::relative_error(&y.tensor, &want) < 1e-6, "{kind:?} {}", y.tensor);
                let upstream = from_vec(vec![1.0; 4], (1, 4)).unwrap();
                let dx = tape.backward_with_leaves(vec![(y, upstream)], &[&x]).unwrap().remove(0).unwrap();
                let dx = dx.to_vec2::<f32>().unwrap();
                assert!(
                    dx[0].iter().zip([0.0, 0.0, 1.0, 1.0]).all(|(d, want)| (d - want).abs() < 1e-5),
                    "{kind:?} {dx:?}"
                );
            }
        }
    }
}
