//! SwiGLU: `y = silu(gate) * up`, with gate and up concatenated in one value.

use crate::Result;
use crate::nn::math::exp;
use crate::nn::slice::{from_vec, read, uninit_vec};
use crate::nn::{Tape, Value};
use candle_core::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Gated activation of `x` `[rows, 2 width]` (gate in the first half of each row, up in the second): `[rows, width]`.
pub fn swiglu(tape: &Tape, x: &Value) -> Result<Value> {
    let (rows, both) = x.tensor.dims2()?;
    let width = both / 2;
    if !tape.is_fused(&x.tensor) {
        return reference(tape, x, width);
    }
    let y = activated(&x.tensor, rows, width)?;
    let (x_tensor, node) = (x.tensor.clone(), x.node());
    let y = tape.record(y, x.requires_grad(), move |grad, grads| {
        let dx = {
            let (g, x) = (read(&grad)?, read(&x_tensor)?);
            let (g, x) = (&*g, &*x);
            // SAFETY: the rows cover the result, and `backward` writes a whole row.
            unsafe {
                uninit_vec(rows * both, |dx| {
                    dx.par_chunks_mut(both)
                        .with_min_len(16)
                        .zip(x.par_chunks(both))
                        .zip(g.par_chunks(width))
                        .for_each(|((dx, x), g)| backward(dx, x, g));
                })
            }
        };
        grads.add(node, from_vec(dx, (rows, both))?)
    });
    let x_tensor = x.tensor.clone();
    Ok(y.recomputed_by(move || activated(&x_tensor, rows, width)))
}

fn activated(x: &Tensor, rows: usize, width: usize) -> Result<Tensor> {
    let x = read(x)?;
    let x = &*x;
    // SAFETY: the rows cover the result, and `forward` writes a whole row.
    let y = unsafe {
        uninit_vec(rows * width, |y| {
            y.par_chunks_mut(width).with_min_len(16).zip(x.par_chunks(2 * width)).for_each(|(y, x)| forward(y, x));
        })
    };
    from_vec(y, (rows, width))
}

/// [`swiglu`] in candle ops. The backward pass is written out: candle's autograd holds and computes twice as much.
fn reference(tape: &Tape, x: &Value, width: usize) -> Result<Value> {
    let halves = move |x: &Tensor| -> candle_core::Result<[Tensor; 2]> {
        Ok([x.narrow(1, 0, width)?.contiguous()?, x.narrow(1, width, width)?.contiguous()?])
    };
    let input = x.tensor.detach();
    let [gate, up] = halves(&input)?;
    let (y, node) = ((gate.silu()? * up)?, x.node());
    Ok(tape.record(y, x.requires_grad(), move |grad, grads| {
        let (grad, [gate, up]) = (grad.detach(), halves(&input)?);
        // s = sigmoid(gate): silu' = s (1 + gate (1 - s)).
        let s = (gate.neg()?.exp()? + 1.0)?.recip()?;
        let d_up = ((&gate * &s)? * &grad)?;
        let slope = ((gate * s.affine(-1.0, 1.0)?)? + 1.0)?;
        let d_gate = (((slope * s)? * up)? * grad)?;
        grads.add(node, Tensor::cat(&[d_gate, d_up], 1)?)
    }))
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn forward(y: &mut [MaybeUninit<f32>], x: &[f32]) {
    let (gate, up) = x.split_at(y.len());
    for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
        y.write(g / (1.0 + exp(-g)) * u);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn backward(dx: &mut [MaybeUninit<f32>], x: &[f32], dy: &[f32]) {
    let (gate, up) = x.split_at(dy.len());
    let (d_gate, d_up) = dx.split_at_mut(dy.len());
    for ((((dg, du), &g), &u), &dy) in d_gate.iter_mut().zip(d_up).zip(gate).zip(up).zip(dy) {
        let sigmoid = 1.0 / (1.0 + exp(-g));
        du.write(dy * g * sigmoid);
        dg.write(dy * u * sigmoid * (1.0 + g * (1.0 - sigmoid)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::gradcheck;

    #[test]
    fn swiglu_agrees_with_finite_differences() {
        gradcheck::check(&[&[9, 38]], 1, |tape, v, _| swiglu(tape, &v[0]));
    }

    #[test]
    fn swiglu_stays_finite_for_large_gates() {
        let x = from_vec(vec![-200.0, 200.0, 1.0, 1.0], (1, 4)).unwrap();
        let tape = Tape::new();
        let leaf = tape.leaf(x);
        let y = swiglu(&tape, &leaf).unwrap();
        let out = y.tensor.to_vec2::<f32>().unwrap();
        assert!(out[0][0].abs() < 1e-30 && out[0][1] == 200.0, "{out:?}");
        let g = from_vec(vec![1.0, 1.0], (1, 2)).unwrap();
        let dx = tape.backward_with_leaves(vec![(y, g)], &[&leaf]).unwrap().remove(0).unwrap();
        let dx = dx.to_vec2::<f32>().unwrap();
        assert!(dx[0][0].abs() < 1e-30 && dx[0][2].abs() < 1e-30, "{dx:?}");
        assert_eq!((dx[0][1], dx[0][3]), (1.0, 200.0));
    }
}
