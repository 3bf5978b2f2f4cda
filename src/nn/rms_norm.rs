//! RMSNorm: `y = x / sqrt(mean(x^2) + eps) * w`, of rows, and of the heads of queries and keys.

use crate::Result;
use crate::nn::attention::Heads;
use crate::nn::math::fold2;
use crate::nn::slice::{from_vec, mutate, read, uninit_vec};
use crate::nn::{Grads, Parameter, Tape, Value};
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

/// [`rms_norm`] in candle ops.
fn reference(tape: &Tape, x: &Value, weight: &Arc<Parameter>, eps: f64) -> Result<Value> {
    let norm = CandleNorm::new(x.tensor.detach(), Arc::clone(weight), eps)?;
    let (y, node) = (norm.y()?, x.node());
    Ok(tape.record(y, x.requires_grad() || weight.trainable(), move |grad, grads| {
        norm.weight_grad(&grad.detach(), grads)?;
        match node {
            Some(_) => grads.add(node, norm.input_grad(&grad.detach())?),
            None => Ok(()),
        }
    }))
}

/// A norm in candle ops; with n = x s: dx = s (g w - n mean(g w n)), dw = sum of g n.
struct CandleNorm {
    x: Tensor,
    scale: Tensor,
    weight: Arc<Parameter>,
}

impl CandleNorm {
    fn new(x: Tensor, weight: Arc<Parameter>, eps: f64) -> Result<Self> {
        let width = x.dim(1)? as f64;
        let scale = ((x.sqr()?.sum_keepdim(1)? / width)? + eps)?.sqrt()?.recip()?;
        Ok(CandleNorm { x, scale, weight })
    }

    fn y(&self) -> Result<Tensor> {
        Ok(self.x.broadcast_mul(&self.scale)?.broadcast_mul(&self.weight.var.as_detached_tensor())?)
    }

    fn weight_grad(&self, grad: &Tensor, grads: &mut Grads<'_>) -> Result<()> {
        match self.weight.trainable() {
            true => grads.add_to_parameter(&self.weight, (grad * self.x.broadcast_mul(&self.scale)?)?.sum(0)?),
            false => Ok(()),
        }
    }

    fn input_grad(&self, grad: &Tensor) -> Result<Tensor> {
        let n = self.x.broadcast_mul(&self.scale)?;
        let gw = grad.broadcast_mul(&self.weight.var.as_detached_tensor())?;
        let mean = ((&gw * &n)?.sum_keepdim(1)? / self.x.dim(1)? as f64)?;
        Ok((gw - n.broadcast_mul(&mean)?)?.broadcast_mul(&self.scale)?)
    }
}

/// [`rms_norm`] over each query head and over each key head of `qkv` `[rows, (q + 2 kv) dim]`, with one weight `[dim]` for all query
/// heads and one for all key heads. Values stay as they are.
pub fn head_norm(tape: &Tape, qkv: &Value, weights: &[Arc<Parameter>; 2], heads: Heads, eps: f64) -> Result<Value> {
    if !tape.is_fused(&qkv.tensor) {
        return head_norm_reference(tape, qkv, weights, heads, eps);
    }
    let (rows, stride) = qkv.tensor.dims2()?;
    let (queries, keys) = (heads.query * heads.dim, heads.key_value * heads.dim);
    let normed = heads.query + heads.key_value;
    let mut scale = vec![0.0; rows * normed];
    let y = {
        let (x, wq, wk) = (read(&qkv.tensor)?, read(weights[0].var.as_tensor())?, read(weights[1].var.as_tensor())?);
        let (x, wq, wk) = (&*x, &*wq, &*wk);
        // SAFETY: the rows cover the result, and every element of a row is written.
        unsafe {
            uninit_vec(rows * stride, |y| {
                y.par_chunks_mut(stride)
                    .with_min_len(16)
                    .zip(scale.par_chunks_mut(normed))
                    .zip(x.par_chunks(stride))
                    .for_each(|((y, scale), x)| {
                        let (y_keys, y_values) = y[queries..].split_at_mut(keys);
                        for (y, x) in y_values.iter_mut().zip(&x[queries + keys..]) {
                            y.write(*x);
                        }
                        forward(y_keys, &mut scale[heads.query..], &x[queries..queries + keys], wk, eps as f32);
                        forward(&mut y[..queries], &mut scale[..heads.query], &x[..queries], wq, eps as f32);
                    });
            })
        }
    };
    let trains = qkv.requires_grad() || weights.iter().any(|w| w.trainable());
    let (x_tensor, node, weights) = (qkv.tensor.clone(), qkv.node(), weights.clone());
    Ok(tape.record(from_vec(y, (rows, stride))?, trains, move |grad, grads| {
        let dx = match grads.take(node) {
            Some(sum) => sum,
            None => from_vec(vec![0.0; rows * stride], (rows, stride))?,
        };
        let partial: Vec<[Vec<f32>; 2]> = {
            let (g, x) = (read(&grad)?, read(&x_tensor)?);
            let (wq, wk) = (read(weights[0].var.as_tensor())?, read(weights[1].var.as_tensor())?);
            let (g, x, wq, wk) = (&*g, &*x, &*wq, &*wk);
            mutate(&dx, |dx| {
                dx.par_chunks_mut(ROWS * stride)
                    .zip(g.par_chunks(ROWS * stride))
                    .zip(x.par_chunks(ROWS * stride))
                    .zip(scale.par_chunks(ROWS * normed))
                    .map(|(((dx, g), x), scale)| {
                        let mut dw = [vec![0.0; heads.dim], vec![0.0; heads.dim]];
                        let rows = dx.chunks_exact_mut(stride).zip(g.chunks_exact(stride)).zip(x.chunks_exact(stride));
                        for (((dx, g), x), scale) in rows.zip(scale.chunks_exact(normed)) {
                            let (dq, rest) = dx.split_at_mut(queries);
                            let (dk, dv) = rest.split_at_mut(keys);
                            let (to_keys, from_values) = (queries..queries + keys, queries + keys);
                            backward(dq, &mut dw[0], &g[..queries], &x[..queries], wq, &scale[..heads.query]);
                            backward(dk, &mut dw[1], &g[to_keys.clone()], &x[to_keys], wk, &scale[heads.query..]);
                            for (d, g) in dv.iter_mut().zip(&g[from_values..]) {
                                *d += g;
                            }
                        }
                        dw
                    })
                    .collect()
            })?
        };
        for (i, weight) in weights.iter().enumerate().filter(|(_, weight)| weight.trainable()) {
            grads.accumulate(weight, |dw, filled| {
                if !filled {
                    dw.fill(0.0);
                }
                for block in &partial {
                    for (d, p) in dw.iter_mut().zip(&block[i]) {
                        *d += p;
                    }
                }
            })?;
        }
        grads.set(node, dx);
        Ok(())
    }))
}

/// [`head_norm`] in candle ops.
fn head_norm_reference(
    tape: &Tape,
    qkv: &Value,
    weights: &[Arc<Parameter>; 2],
    heads: Heads,
    eps: f64,
) -> Result<Value> {
    let rows = qkv.tensor.dim(0)?;
    let (queries, keys) = (heads.query * heads.dim, heads.key_value * heads.dim);
    // Heads of queries, heads of keys, values.
    let split = move |x: &Tensor| -> Result<[Tensor; 3]> {
        let of_heads = |start: usize, width: usize, count: usize| -> Result<Tensor> {
            Ok(x.narrow(1, start, width)?.contiguous()?.reshape((rows * count, heads.dim))?)
        };
        let values = x.narrow(1, queries + keys, keys)?.contiguous()?;
        Ok([of_heads(0, queries, heads.query)?, of_heads(queries, keys, heads.key_value)?, values])
    };
    let join = move |q: Tensor, k: Tensor, v: Tensor| -> Result<Tensor> {
        Ok(Tensor::cat(&[q.reshape((rows, queries))?, k.reshape((rows, keys))?, v], 1)?)
    };
    let [q, k, v] = split(&qkv.tensor.detach())?;
    let q = CandleNorm::new(q, Arc::clone(&weights[0]), eps)?;
    let k = CandleNorm::new(k, Arc::clone(&weights[1]), eps)?;
    let y = join(q.y()?, k.y()?, v)?;
    let trains = qkv.requires_grad() || weights.iter().any(|w| w.trainable());
    let node = qkv.node();
    Ok(tape.record(y, trains, move |grad, grads| {
        let [gq, gk, gv] = split(&grad.detach())?;
        q.weight_grad(&gq, grads)?;
        k.weight_grad(&gk, grads)?;
        match node {
            Some(_) => grads.add(node, join(q.input_grad(&gq)?, k.input_grad(&gk)?, gv)?),
            None => Ok(()),
        }
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
    fn head_norm_agrees_with_finite_differences() {
        let heads = Heads { query: 3, key_value: 2, dim: 4 };
        gradcheck::check(&[&[70, 28], &[4], &[4]], 1, |tape, v, p| {
            head_norm(tape, &v[0], &[p[0].clone(), p[1].clone()], heads, 1e-5)
        });
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
