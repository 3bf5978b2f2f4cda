//! RMSNorm: `y = x / sqrt(mean(x^2) + eps) * w`.

use crate::Result;
use crate::nn::math::fold2;
use crate::nn::slice::{from_vec, mutate, read, uninit_vec};
use crate::nn::{Parameter, Tape, Value};
use candle_core::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// Rows handled at a time by one thread. Fixed, so that the weight gradient does not depend on the number of threads.
const ROWS: usize = 64;

/// Root-mean-square normalisation of each row of `x` `[rows, width]` with weight `w` `[width]`.
pub fn rms_norm(tape: &Tape, x: &Value, weight: &Arc<Parameter>, eps: f64) -> Result<Value> {
    let (rows, width) = x.tensor.dims2()?;
    if !tape.is_fused(&x.tensor) {
        return reference(tape, x, weight, eps);
    }
    let (y, scale) = normalize(&x.tensor, weight, eps)?;
    let source = (x.tensor.clone(), Arc::clone(weight));
    let (x_tensor, node, weight) = (x.tensor.clone(), x.node(), Arc::clone(weight));
    let y = tape.record(y, x.requires_grad() || weight.trainable(), move |grad, grads| {
        let dx = match (node, grads.take(node)) {
            (_, Some(sum)) => sum,
            (_, None) => from_vec(vec![0.0; rows * width], (rows, width))?,
        };
        {
            let (g, x, w) = (read(&grad)?, read(&x_tensor)?, read(weight.var.as_tensor())?);
            let (g, x, w, scale) = (&*g, &*x, &*w, &*scale);
            let partial: Vec<Vec<f32>> = mutate(&dx, |dx| {
                dx.par_chunks_mut(ROWS * width)
                    .enumerate()
                    .map(|(block, dx)| {
                        let (row, first) = (block * ROWS, block * ROWS * width);
                        let last = first + dx.len();
                        let mut dw = vec![0.0; width];
                        backward(
                            dx,
                            &mut dw,
                            &g[first..last],
                            &x[first..last],
                            w,
                            &scale[row..row + (last - first) / width],
                        );
                        dw
                    })
                    .collect()
            })?;
            if weight.trainable() {
                grads.accumulate(&weight, |dw, filled| {
                    if !filled {
                        dw.fill(0.0);
                    }
                    for block in &partial {
                        for (d, p) in dw.iter_mut().zip(block) {
                            *d += p;
                        }
                    }
                })?;
            }
        }
        grads.set(node, dx);
        Ok(())
    });
    Ok(y.recomputed_by(move || Ok(normalize(&source.0, &source.1, eps)?.0)))
}

/// [`rms_norm`] in candle ops; with n = x s: dx = s (g w - n mean(g w n)), dw = sum of g n.
fn reference(tape: &Tape, x: &Value, weight: &Arc<Parameter>, eps: f64) -> Result<Value> {
    let input = x.tensor.detach();
    let width = input.dim(1)? as f64;
    let scale = ((input.sqr()?.sum_keepdim(1)? / width)? + eps)?.sqrt()?.recip()?;
    let y = input.broadcast_mul(&scale)?.broadcast_mul(&weight.var.as_detached_tensor())?;
    let (node, weight) = (x.node(), Arc::clone(weight));
    Ok(tape.record(y, x.requires_grad() || weight.trainable(), move |grad, grads| {
        let grad = grad.detach();
        let n = input.broadcast_mul(&scale)?;
        if weight.trainable() {
            grads.add_to_parameter(&weight, (&grad * &n)?.sum(0)?)?;
        }
        if node.is_none() {
            return Ok(());
        }
        let gw = grad.broadcast_mul(&weight.var.as_detached_tensor())?;
        let mean = ((&gw * &n)?.sum_keepdim(1)? / width)?;
        grads.add(node, (gw - n.broadcast_mul(&mean)?)?.broadcast_mul(&scale)?)
    }))
}

/// The result, and the scale `1 / rms` of each row.
fn normalize(x: &Tensor, weight: &Parameter, eps: f64) -> Result<(Tensor, Vec<f32>)> {
    let (rows, width) = x.dims2()?;
    let mut scale = vec![0.0; rows];
    let (x, w) = (read(x)?, read(weight.var.as_tensor())?);
    let (x, w) = (&*x, &*w);
    // SAFETY: the blocks of rows cover the result, and `forward` writes a whole block.
    let y = unsafe {
        uninit_vec(rows * width, |y| {
            y.par_chunks_mut(ROWS * width)
                .zip(scale.par_chunks_mut(ROWS))
                .zip(x.par_chunks(ROWS * width))
                .for_each(|((y, scale), x)| forward(y, scale, x, w, eps as f32));
        })
    };
    Ok((from_vec(y, (rows, width))?, scale))
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn forward(y: &mut [MaybeUninit<f32>], scale: &mut [f32], x: &[f32], w: &[f32], eps: f32) {
    let width = w.len();
    for ((y, x), scale) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(scale) {
        let s = 1.0 / (fold2(x, x, |a, b| a * b) / width as f32 + eps).sqrt();
        *scale = s;
        for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
            y.write(x * s * w);
        }
    }
}

/// Adds to `dx` and to `dw`. With n = x s: dx += s (g w - n mean(g w n)), dw += g n.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn backward(dx: &mut [f32], dw: &mut [f32], g: &[f32], x: &[f32], w: &[f32], scale: &[f32]) {
    let width = w.len();
    let mut gw = vec![0.0f32; width];
    for (((dx, g), x), &s) in
        dx.chunks_exact_mut(width).zip(g.chunks_exact(width)).zip(x.chunks_exact(width)).zip(scale)
    {
        for (((gw, dw), (g, x)), w) in gw.iter_mut().zip(dw.iter_mut()).zip(g.iter().zip(x)).zip(w) {
            *gw = g * w;
            *dw += g * (x * s);
        }
        let mean = fold2(&gw, x, |a, b| a * b) * s / width as f32;
        for ((dx, gw), x) in dx.iter_mut().zip(&gw).zip(x) {
            *dx += s * (gw - x * s * mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::gradcheck;

    #[test]
    fn rms_norm_agrees_with_finite_differences() {
        gradcheck::check(&[&[70, 19], &[19]], 1, |tape, v, p| rms_norm(tape, &v[0], &p[0], 1e-5));
    }

    #[test]
    fn a_value_used_twice_collects_both_gradients() {
        gradcheck::check(&[&[3, 8], &[8], &[8]], 1, |tape, v, p| {
            let first = rms_norm(tape, &v[0], &p[0], 1e-6)?;
            let layer = crate::nn::Linear::without_bias(gradcheck::parameter("w", &[8, 8], 5));
            layer.weight.set_trainable(false);
            if first.tensor.dtype() == candle_core::DType::F64 {
                let wide = layer.weight.var.to_dtype(candle_core::DType::F64)?;
                let wide = Arc::new(Parameter::new("w", candle_core::Var::from_tensor(&wide)?));
                wide.set_trainable(false);
                let second = rms_norm(tape, &v[0], &p[1], 1e-6)?;
                return crate::nn::linear(tape, &first, &[&crate::nn::Linear::without_bias(wide)], Some(&second));
            }
            let second = rms_norm(tape, &v[0], &p[1], 1e-6)?;
            crate::nn::linear(tape, &first, &[&layer], Some(&second))
        });
    }
}
