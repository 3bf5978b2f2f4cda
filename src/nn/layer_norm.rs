//! LayerNorm: `y = (x - mean(x)) / sqrt(var(x) + eps) * w + b`.

use crate::Result;
use crate::nn::math::{fold2, sum};
use crate::nn::slice::{from_vec, mutate, read, uninit_vec};
use crate::nn::{Parameter, Tape, Value};
use candle_core::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// Rows handled at a time by one thread. Fixed, so that the parameters' gradients do not depend on the number of threads.
const ROWS: usize = 64;

/// A LayerNorm's parameters, `[width]` each.
#[derive(Clone)]
pub struct LayerNorm {
    /// Factor.
    pub weight: Arc<Parameter>,
    /// Summand.
    pub bias: Arc<Parameter>,
}

impl LayerNorm {
    /// Whether one of the parameters trains.
    pub fn is_trainable(&self) -> bool {
        self.weight.trainable() || self.bias.trainable()
    }
}

/// Mean and `1 / sqrt(var + eps)` of a row.
type Moments = (f32, f32);

/// Normalise each row of `x` `[rows, width]`.
pub fn layer_norm(tape: &Tape, x: &Value, norm: &LayerNorm, eps: f64) -> Result<Value> {
    let (rows, width) = x.tensor.dims2()?;
    if !tape.is_fused(&x.tensor) {
        return reference(tape, x, norm, eps);
    }
    let (y, moments) = normalize(&x.tensor, norm, eps)?;
    let source = (x.tensor.clone(), norm.clone());
    let (x_tensor, node, norm) = (x.tensor.clone(), x.node(), norm.clone());
    let y = tape.record(y, x.requires_grad() || norm.is_trainable(), move |grad, grads| {
        let dx = match grads.take(node) {
            Some(sum) => sum,
            None => from_vec(vec![0.0; rows * width], (rows, width))?,
        };
        // For each block of rows, the gradients of weight and bias.
        let partial: Vec<[Vec<f32>; 2]> = {
            let (g, x, w) = (read(&grad)?, read(&x_tensor)?, read(norm.weight.var.as_tensor())?);
            let (g, x, w) = (&*g, &*x, &*w);
            mutate(&dx, |dx| {
                dx.par_chunks_mut(ROWS * width)
                    .zip(g.par_chunks(ROWS * width))
                    .zip(x.par_chunks(ROWS * width))
                    .zip(moments.par_chunks(ROWS))
                    .map(|(((dx, g), x), moments)| {
                        let [mut dw, mut db] = [vec![0.0; width], vec![0.0; width]];
                        backward(dx, &mut dw, &mut db, (g, x), w, moments);
                        [dw, db]
                    })
                    .collect()
            })?
        };
        for (i, parameter) in [&norm.weight, &norm.bias].into_iter().enumerate().filter(|(_, p)| p.trainable()) {
            grads.accumulate(parameter, |sum, filled| {
                if !filled {
                    sum.fill(0.0);
                }
                for block in &partial {
                    for (s, p) in sum.iter_mut().zip(&block[i]) {
                        *s += p;
                    }
                }
            })?;
        }
        grads.set(node, dx);
        Ok(())
    });
    Ok(y.recomputed_by(move || Ok(normalize(&source.0, &source.1, eps)?.0)))
}

fn normalize(x: &Tensor, norm: &LayerNorm, eps: f64) -> Result<(Tensor, Vec<Moments>)> {
    let (rows, width) = x.dims2()?;
    let mut moments = vec![(0.0, 0.0); rows];
    let (x, w, b) = (read(x)?, read(norm.weight.var.as_tensor())?, read(norm.bias.var.as_tensor())?);
    let (x, w, b) = (&*x, &*w, &*b);
    // SAFETY: the blocks of rows cover the result, and `forward` writes a whole block.
    let y = unsafe {
        uninit_vec(rows * width, |y| {
            y.par_chunks_mut(ROWS * width)
                .zip(moments.par_chunks_mut(ROWS))
                .zip(x.par_chunks(ROWS * width))
                .for_each(|((y, moments), x)| forward(y, moments, x, w, b, eps as f32));
        })
    };
    Ok((from_vec(y, (rows, width))?, moments))
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn forward(y: &mut [MaybeUninit<f32>], moments: &mut [Moments], x: &[f32], w: &[f32], b: &[f32], eps: f32) {
    let width = w.len();
    for ((y, x), moments) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(moments) {
        let mean = sum(x) / width as f32;
        let scale = 1.0 / (fold2(x, x, |a, b| (a - mean) * (b - mean)) / width as f32 + eps).sqrt();
        *moments = (mean, scale);
        for (((y, x), w), b) in y.iter_mut().zip(x).zip(w).zip(b) {
            y.write((x - mean) * scale * w + b);
        }
    }
}

/// Adds to `dx`, `dw` and `db`. With n = (x - mean) s: dx += s (g w - mean(g w) - n mean(g w n)), dw += g n, db += g.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn backward(dx: &mut [f32], dw: &mut [f32], db: &mut [f32], (g, x): (&[f32], &[f32]), w: &[f32], moments: &[Moments]) {
    let width = w.len();
    let mut gw = vec![0.0f32; width];
    for (((dx, g), x), &(mean, s)) in
        dx.chunks_exact_mut(width).zip(g.chunks_exact(width)).zip(x.chunks_exact(width)).zip(moments)
    {
        for ((gw, (dw, db)), ((g, x), w)) in
            gw.iter_mut().zip(dw.iter_mut().zip(db.iter_mut())).zip(g.iter().zip(x).zip(w))
        {
            *gw = g * w;
            *dw += g * ((x - mean) * s);
            *db += g;
        }
        let mean_g = sum(&gw) / width as f32;
        let mean_gn = fold2(&gw, x, |a, b| a * (b - mean)) * s / width as f32;
        for ((dx, gw), x) in dx.iter_mut().zip(&gw).zip(x) {
            *dx += s * (gw - mean_g - (x - mean) * s * mean_gn);
        }
    }
}

/// [`layer_norm`] in candle ops.
fn reference(tape: &Tape, x: &Value, norm: &LayerNorm, eps: f64) -> Result<Value> {
    let input = x.tensor.detach();
    let width = input.dim(1)? as f64;
    let centred = input.broadcast_sub(&(input.sum_keepdim(1)? / width)?)?;
    let scale = ((centred.sqr()?.sum_keepdim(1)? / width)? + eps)?.sqrt()?.recip()?;
    let n = centred.broadcast_mul(&scale)?;
    let y = n.broadcast_mul(&norm.weight.var.as_detached_tensor())?;
    let y = y.broadcast_add(&norm.bias.var.as_detached_tensor())?;
    let (node, norm) = (x.node(), norm.clone());
    Ok(tape.record(y, x.requires_grad() || norm.is_trainable(), move |grad, grads| {
        let grad = grad.detach();
        if norm.weight.trainable() {
            grads.add_to_parameter(&norm.weight, (&grad * &n)?.sum(0)?)?;
        }
        if norm.bias.trainable() {
            grads.add_to_parameter(&norm.bias, grad.sum(0)?)?;
        }
        if node.is_none() {
            return Ok(());
        }
        let gw = grad.broadcast_mul(&norm.weight.var.as_detached_tensor())?;
        let mean_g = (gw.sum_keepdim(1)? / width)?;
        let mean_gn = ((&gw * &n)?.sum_keepdim(1)? / width)?;
        let dx = (gw.broadcast_sub(&mean_g)? - n.broadcast_mul(&mean_gn)?)?;
        grads.add(node, dx.broadcast_mul(&scale)?)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::gradcheck;

    #[test]
    fn layer_norm_agrees_with_finite_differences() {
        gradcheck::check(&[&[70, 19], &[19], &[19]], 1, |tape, v, p| {
            layer_norm(tape, &v[0], &LayerNorm { weight: p[0].clone(), bias: p[1].clone() }, 1e-5)
        });
    }
}
