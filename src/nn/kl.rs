//! KL divergence between two models' next-token distributions, row by row, differentiable in the second.
//!
//! `KL(p || q)` with `p` of a model that does not learn: the gradient of a row with respect to q's logits is `q - p`. The logits of both
//! exist for a block of rows at a time; the backward pass recomputes them.

use crate::nn::matmul::{Matrix, MatrixMut};
use crate::nn::slice::{from_vec, mutate, read};
use crate::nn::softmax::{kl_divergence, softmax};
use crate::nn::tiled_logits::{OnlineSoftmax, TiledLogits, tile_width};
use crate::nn::weight_matrix::{WeightMatrix, weight_grad};
use crate::nn::{Parameter, Tape, Value};
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;
use std::sync::Arc;

/// Bytes of logits per model that exist at once.
const LOGIT_BYTES: usize = 64 << 20;

/// Next-token distributions whose logits are computed when needed: `states` `[rows, width]` times the transpose of `weight`
/// `[vocab, width]`.
#[derive(Clone)]
pub struct LazyLogits {
    /// Hidden states after the final norm.
    pub states: Tensor,
    /// The output matrix.
    pub weight: Arc<Parameter>,
}

/// For each row of `x` `[rows, width]`: `KL(p || softmax(x W^T))` in nats, `[rows]`, where `p` has the same rows. `weight` is
/// `[vocab, width]`; the widths may differ, the vocabularies must not.
pub fn kl_from(tape: &Tape, p: &LazyLogits, x: &Value, weight: &Arc<Parameter>) -> Result<Value> {
    let vocab = weight.var.dims()[0];
    blockwise(tape, p, x, weight, (LOGIT_BYTES / (4 * vocab.max(1))).clamp(1, 512))
}

fn blockwise(tape: &Tape, p: &LazyLogits, x: &Value, weight: &Arc<Parameter>, block: usize) -> Result<Value> {
    let ((rows, width), (vocab, _)) = (x.tensor.dims2()?, weight.var.dims2()?);
    let (p_rows, p_width) = p.states.dims2()?;
    if p.weight.var.dims() != [vocab, p_width] || p_rows != rows {
        return Err(Error::failed(format!(
            "KL of {p_rows} distributions over {} tokens from {rows} over {vocab}",
            p.weight.var.dims()[0]
        )));
    }
    if !tape.is_fused(&x.tensor) {
        return reference(tape, p, x, weight, tile_width(2 * rows, vocab));
    }
    let mut nats = vec![0.0; rows];
    {
        let (p_states, p_weight) = (read(&p.states)?, WeightMatrix::of(&p.weight, p_width)?);
        let (x, w) = (read(&x.tensor)?, WeightMatrix::of(weight, width)?);
        let (mut p_logits, mut q_logits) = (Vec::new(), Vec::new());
        for (i, nats) in nats.chunks_mut(block).enumerate() {
            let (start, count) = (i * block, nats.len());
            logits(&mut p_logits, &p_states[start * p_width..], &p_weight, [count, p_width, vocab]);
            logits(&mut q_logits, &x[start * width..], &w, [count, width, vocab]);
            let both = p_logits.par_chunks(vocab).zip(q_logits.par_chunks(vocab));
            nats.par_iter_mut().zip(both).for_each(|(nats, (p, q))| *nats = kl_divergence(p, q) as f32);
        }
    }
    let (p, x_tensor, node, weight) = (p.clone(), x.tensor.clone(), x.node(), Arc::clone(weight));
    Ok(tape.record(from_vec(nats, rows)?, x.requires_grad() || weight.trainable(), move |grad, grads| {
        let dx = from_vec(vec![0.0; rows * width], (rows, width))?;
        {
            let (p_states, p_weight) = (read(&p.states)?, WeightMatrix::of(&p.weight, p_width)?);
            let (g, x, w) = (read(&grad)?, read(&x_tensor)?, WeightMatrix::of(&weight, width)?);
            let (mut p_logits, mut q_logits) = (Vec::new(), Vec::new());
            for start in (0..rows).step_by(block) {
                let count = block.min(rows - start);
                let x = &x[start * width..(start + count) * width];
                logits(&mut p_logits, &p_states[start * p_width..], &p_weight, [count, p_width, vocab]);
                logits(&mut q_logits, x, &w, [count, width, vocab]);
                let both = q_logits.par_chunks_mut(vocab).zip(p_logits.par_chunks_mut(vocab));
                both.zip(&g[start..start + count]).for_each(|((q, p), &g)| {
                    softmax(q, 1.0);
                    softmax(p, 1.0);
                    q.iter_mut().zip(p).for_each(|(q, p)| *q = g * (*q - *p));
                });
                let d_logits = Matrix::new(&q_logits, count, vocab, vocab);
                if node.is_some() {
                    mutate(&dx, |dx| {
                        let dx = MatrixMut::new(&mut dx[start * width..], count, width, width);
                        w.times_rows(dx, d_logits, 0..vocab, false);
                    })?;
                }
                if weight.trainable() {
                    grads.accumulate(&weight, |dw, filled| {
                        let dw = MatrixMut::new(dw, vocab, width, width);
                        weight_grad(&weight, dw, d_logits, Matrix::new(x, count, width, width), filled);
                    })?;
                }
            }
        }
        grads.add(node, dx)
    }))
}

/// `[rows, vocab]` logits of the first `rows` of `x`.
fn logits(out: &mut Vec<f32>, x: &[f32], weight: &WeightMatrix<'_>, [rows, width, vocab]: [usize; 3]) {
    out.resize(rows * vocab, 0.0);
    let x = Matrix::new(x, rows, width, width);
    weight.times_rows_t(MatrixMut::new(out, rows, vocab, vocab), x, 0..vocab, false);
}

/// [`kl_from`] in candle ops, `tile` vocabulary entries at a time.
fn reference(tape: &Tape, p: &LazyLogits, x: &Value, weight: &Arc<Parameter>, tile: usize) -> Result<Value> {
    let states = Value::constant(p.states.to_dtype(x.tensor.dtype())?);
    let (p, q) = (TiledLogits::new(&states, &p.weight, 1.0, tile), TiledLogits::new(x, weight, 1.0, tile));
    let (mut of_p, mut of_q): (Option<OnlineSoftmax>, Option<OnlineSoftmax>) = (None, None);
    for tile in q.tiles() {
        let (p, q) = (p.tile_logits(&tile)?, q.tile_logits(&tile)?);
        of_p = Some(OnlineSoftmax::observe(of_p, &p, &(&p - &q)?)?);
        of_q = Some(OnlineSoftmax::observe(of_q, &q, &q)?);
    }
    let (Some(of_p), Some(of_q)) = (of_p, of_q) else {
        return Err(Error::failed("KL over an empty vocabulary"));
    };
    let (p_lse, q_lse) = (of_p.log_sum_exp()?, of_q.log_sum_exp()?);
    let nats = (of_p.mean()? + (&q_lse - &p_lse)?)?.squeeze(1)?;
    let requires_grad = q.requires_grad();
    Ok(tape.record(nats, requires_grad, move |grad, grads| {
        let g = grad.detach().unsqueeze(1)?;
        q.backward(grads, |tile, q| {
            let probabilities = |logits: Tensor, lse: &Tensor| logits.broadcast_sub(lse)?.exp();
            Ok((probabilities(q, &q_lse)? - probabilities(p.tile_logits(tile)?, &p_lse)?)?.broadcast_mul(&g)?)
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::gradcheck;

    fn lazy_logits(rows: usize, vocab: usize) -> LazyLogits {
        LazyLogits { states: gradcheck::tensor(&[rows, 3], 7), weight: gradcheck::parameter("p", &[vocab, 3], 8) }
    }

    #[test]
    fn the_divergence_agrees_with_finite_differences() {
        for block in [1, 2, 100] {
            gradcheck::check(&[&[5, 6], &[11, 6]], 1, |tape, v, p| {
                blockwise(tape, &lazy_logits(5, 11), &v[0], &p[0], block)
            });
        }
    }

    #[test]
    fn tiles_of_other_devices_agree_with_finite_differences() {
        for tile in [1, 4, 11, 20] {
            gradcheck::check(&[&[5, 6], &[11, 6]], 1, |tape, v, p| {
                reference(tape, &lazy_logits(5, 11), &v[0], &p[0], tile)
            });
        }
    }

    #[test]
    fn the_divergence_of_a_model_from_itself_and_its_gradient_are_zero() {
        for tape in [Tape::new(), Tape::new().reference()] {
            let (x, w) = (gradcheck::tensor(&[4, 6], 1), gradcheck::parameter("w", &[9, 6], 2));
            let p = LazyLogits { states: x.clone(), weight: w.clone() };
            let y = kl_from(&tape, &p, &Value::constant(x), &w).unwrap();
            assert_eq!(y.tensor.to_vec1::<f32>().unwrap(), [0.0; 4]);
            tape.backward(vec![(y, from_vec(vec![1.0; 4], 4).unwrap())]).unwrap();
            assert!(w.grad().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|g| *g == 0.0));
        }
    }

    #[test]
    fn distributions_of_different_shapes_are_an_error() {
        let (x, w) = (Value::constant(gradcheck::tensor(&[4, 6], 1)), gradcheck::parameter("w", &[9, 6], 2));
        assert!(kl_from(&Tape::new(), &lazy_logits(4, 8), &x, &w).is_err());
        assert!(kl_from(&Tape::new(), &lazy_logits(3, 9), &x, &w).is_err());
    }
}
