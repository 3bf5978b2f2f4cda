//! GELU, exact: `y = x Phi(x)`, as in the patch merger.

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

/// Elementwise GELU (with the error function, not the tanh approximation).
pub fn gelu(tape: &Tape, x: &Value) -> Result<Value> {
    if !tape.is_fused(&x.tensor) {
        return tape.candle_op(x, Tensor::gelu_erf);
    }
    let shape = x.tensor.shape().clone();
    let y = {
        let x = read(&x.tensor)?;
        let x = &*x;
        // SAFETY: the chunks cover the result, and `forward` writes a whole chunk.
        unsafe {
            uninit_vec(x.len(), |y| {
                y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| forward(y, x));
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
                    dx.par_chunks_mut(CHUNK)
                        .zip(x.par_chunks(CHUNK))
                        .zip(g.par_chunks(CHUNK))
                        .for_each(|((dx, x), g)| backward(dx, x, g));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::gradcheck;

    #[test]
    fn gelu_agrees_with_finite_differences() {
        gradcheck::check(&[&[7, 23]], 1, |tape, v, _| gelu(tape, &v[0]));
        let wide = (gradcheck::tensor(&[40], 3) * 6.0).unwrap();
        gradcheck::check_at(&[wide], 1, |tape, v, _| gelu(tape, &v[0]));
    }
}
