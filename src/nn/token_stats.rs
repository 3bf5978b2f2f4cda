//! Output projection fused with the log-probability of a given token and the entropy of the next-token distribution.
//!
//! Logits exist one tile (rows x vocabulary entries) at a time: the forward pass keeps an online log-sum-exp, the backward pass recomputes
//! the tile. `[tokens, vocab]` never exists for a large vocabulary; only few logits are kept whole. Tiles of the vocabulary do not
//! depend on the number of rows, so a token's result does not depend on its batch.

use crate::nn::math::exp;
use crate::nn::matmul::{Matrix, MatrixMut};
use crate::nn::slice::{from_vec, mutate, read};
use crate::nn::tiled_logits::{OnlineSoftmax, TiledLogits, tile_width};
use crate::nn::weight_matrix::{WeightMatrix, weight_grad};
use crate::nn::{Parameter, Tape, Value};
use crate::{Error, Result};
use candle_core::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Sizes of the tiles of logits.
#[derive(Clone, Copy)]
struct Tiling {
    /// Rows of a tile.
    rows: usize,
    /// Vocabulary entries of a tile.
    vocab: usize,
    /// Logits are kept for the backward pass if there are at most this many (and one tile spans the vocabulary).
    keep: usize,
}

const TILING: Tiling = Tiling { rows: 512, vocab: 4096, keep: 1 << 22 };

/// For each row of `x` `[rows, width]`: row 0 of the result is `log softmax(x W^T / temperature)[target]`, row 1 the entropy of
/// that distribution in nats: `[2, rows]`. `weight` is `[vocab, width]`.
pub fn token_stats(
    tape: &Tape,
    x: &Value,
    weight: &Arc<Parameter>,
    targets: Vec<u32>,
    temperature: f32,
) -> Result<Value> {
    tiled(tape, x, weight, targets, temperature, TILING)
}

fn tiled(
    tape: &Tape,
    x: &Value,
    weight: &Arc<Parameter>,
    targets: Vec<u32>,
    temperature: f32,
    tiling: Tiling,
) -> Result<Value> {
    let (rows, width) = x.tensor.dims2()?;
    if !tape.is_fused(&x.tensor) {
        let tile = tile_width(rows, weight.var.dims()[0]);
        return reference(tape, x, weight, targets, temperature, tile);
    }
    let (vocab, _) = weight.var.dims2()?;
    let keep = tape.is_recording() && vocab <= tiling.vocab && rows * vocab <= tiling.keep;
    let tiling = if keep { Tiling { rows: rows.max(1), ..tiling } } else { tiling };
    let head = Head { width, vocab, tile: tiling.vocab.min(vocab), inverse_temperature: 1.0 / temperature };
    let mut logits = vec![0.0; tiling.rows.min(rows) * head.tile];
    let mut state = vec![OnlineRow::default(); rows];
    {
        let (x, w) = (read(&x.tensor)?, WeightMatrix::of(weight, width)?);
        let chunks = state.chunks_mut(tiling.rows).zip(x.chunks(tiling.rows * width)).zip(targets.chunks(tiling.rows));
        for ((state, x), targets) in chunks {
            for first in (0..vocab).step_by(head.tile) {
                let n = head.logits(&mut logits, x, &w, first);
                state.par_iter_mut().zip(logits.par_chunks(n)).zip(targets).for_each(|((state, logits), &target)| {
                    observe(state, logits, head.inverse_temperature);
                    if let Some(l) = (target as usize).checked_sub(first).and_then(|t| logits.get(t)) {
                        state.target = l * head.inverse_temperature;
                    }
                });
            }
        }
    }
    let lse: Vec<f32> = state.iter().map(|s| s.top + s.total.ln()).collect();
    // Not target - lse, which cancels near probability 1.
    let mut y: Vec<f32> = state.iter().map(|s| (s.target - s.top) - s.total.ln()).collect();
    y.extend(state.iter().zip(&lse).map(|(s, lse)| lse - s.weighted / s.total));
    let entropies = y[rows..].to_vec();
    let kept = keep.then_some(logits);
    let (x_tensor, node, weight) = (x.tensor.clone(), x.node(), Arc::clone(weight));
    Ok(tape.record(from_vec(y, (2, rows))?, x.requires_grad() || weight.trainable(), move |grad, grads| {
        let dx = from_vec(vec![0.0; rows * width], (rows, width))?;
        {
            let (g, x, w) = (read(&grad)?, read(&x_tensor)?, WeightMatrix::of(&weight, width)?);
            let (g_logprob, g_entropy) = g.split_at(rows);
            let recompute = kept.is_none();
            let mut logits = kept.unwrap_or_else(|| vec![0.0; tiling.rows.min(rows) * head.tile]);
            for start in (0..rows).step_by(tiling.rows) {
                let count = tiling.rows.min(rows - start);
                let x = &x[start * width..(start + count) * width];
                let x_view = Matrix::new(x, count, width, width);
                for first in (0..vocab).step_by(head.tile) {
                    let n = if recompute { head.logits(&mut logits, x, &w, first) } else { vocab };
                    logits.par_chunks_mut(n).take(count).enumerate().for_each(|(i, logits)| {
                        let i = start + i;
                        let row =
                            RowGrad { lse: lse[i], entropy: entropies[i], logprob: g_logprob[i], weight: g_entropy[i] };
                        logit_gradient(logits, row, head.inverse_temperature);
                        if let Some(d) = (targets[i] as usize).checked_sub(first).and_then(|t| logits.get_mut(t)) {
                            *d += g_logprob[i] * head.inverse_temperature;
                        }
                    });
                    let d_logits = Matrix::new(&logits, count, n, n);
                    if node.is_some() {
                        mutate(&dx, |dx| {
                            let dx = MatrixMut::new(&mut dx[start * width..], count, width, width);
                            w.times_rows(dx, d_logits, first..first + n, first > 0);
                        })?;
                    }
                    if weight.trainable() {
                        grads.accumulate(&weight, |dw, filled| {
                            // The first tile covers only part of the weight: the rest must be zero.
                            if !filled && n < vocab {
                                dw.fill(0.0);
                            }
                            let dw = MatrixMut::new(&mut dw[first * width..], n, width, width);
                            weight_grad(&weight, dw, d_logits, x_view, filled || n < vocab);
                        })?;
                    }
                }
            }
        }
        grads.add(node, dx)
    }))
}

#[derive(Clone, Copy)]
struct Head {
    width: usize,
    vocab: usize,
    tile: usize,
    inverse_temperature: f32,
}

impl Head {
    /// Logits of the rows of `x` for one tile of the vocabulary, from `first` on: `[rows, n]`; returns n.
    fn logits(&self, logits: &mut [f32], x: &[f32], w: &WeightMatrix<'_>, first: usize) -> usize {
        let n = self.tile.min(self.vocab - first);
        let rows = x.len() / self.width;
        let x = Matrix::new(x, rows, self.width, self.width);
        w.times_rows_t(MatrixMut::new(logits, rows, n, n), x, first..first + n, false);
        n
    }
}

/// OnlineSoftmax log-sum-exp, and sum of `e^(l - top) l`.
#[derive(Clone, Copy)]
struct OnlineRow {
    top: f32,
    total: f32,
    weighted: f32,
    target: f32,
}

impl Default for OnlineRow {
    fn default() -> Self {
        OnlineRow { top: f32::NEG_INFINITY, total: 0.0, weighted: 0.0, target: f32::NAN }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn observe(state: &mut OnlineRow, logits: &[f32], inverse_temperature: f32) {
    let top = state.top.max(super::math::max(logits) * inverse_temperature);
    let keep = exp(state.top - top);
    let total = super::math::fold2(logits, logits, |l, _| exp(l * inverse_temperature - top));
    let weighted = super::math::fold2(logits, logits, |l, _| {
        let l = l * inverse_temperature;
        exp(l - top) * l
    });
    state.total = state.total * keep + total;
    state.weighted = state.weighted * keep + weighted;
    state.top = top;
}

#[derive(Clone, Copy)]
struct RowGrad {
    lse: f32,
    entropy: f32,
    logprob: f32,
    weight: f32,
}

/// Replace logits by their gradient `-(g_logprob p + g_entropy p (log p + H)) / temperature`; the target's own term is added elsewhere.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn logit_gradient(logits: &mut [f32], row: RowGrad, inverse_temperature: f32) {
    for l in logits {
        let log_p = *l * inverse_temperature - row.lse;
        *l = -exp(log_p) * (row.logprob + row.weight * (log_p + row.entropy)) * inverse_temperature;
    }
}

/// [`token_stats`] in candle ops, `tile` vocabulary entries at a time.
fn reference(
    tape: &Tape,
    x: &Value,
    weight: &Arc<Parameter>,
    targets: Vec<u32>,
    temperature: f32,
    tile: usize,
) -> Result<Value> {
    let (rows, device, dtype) = (x.tensor.dim(0)?, x.tensor.device().clone(), x.tensor.dtype());
    let logits = TiledLogits::new(x, weight, 1.0 / f64::from(temperature), tile);
    // For each row: the index of its target in the tile and 1, or index 0 and 0 if the target is in another tile.
    let target_in_tile = move |tile: &Range<usize>| -> candle_core::Result<(Tensor, Tensor)> {
        let place = |target: &u32| (*target as usize).checked_sub(tile.start).filter(|place| *place < tile.len());
        let index = targets.iter().map(|target| place(target).unwrap_or(0) as u32).collect();
        let is_here = targets.iter().map(|target| if place(target).is_some() { 1f32 } else { 0.0 }).collect();
        let is_here = Tensor::from_vec(is_here, (rows, 1), &device)?.to_dtype(dtype)?;
        Ok((Tensor::from_vec(index, (rows, 1), &device)?, is_here))
    };
    let (mut running, mut target): (Option<OnlineSoftmax>, Option<Tensor>) = (None, None);
    for tile in logits.tiles() {
        let l = logits.tile_logits(&tile)?;
        running = Some(OnlineSoftmax::observe(running, &l, &l)?);
        let (index, is_here) = target_in_tile(&tile)?;
        let found = (l.gather(&index, 1)? * is_here)?;
        target = Some(match target {
            Some(sum) => (sum + found)?,
            None => found,
        });
    }
    let (Some(running), Some(target)) = (running, target) else {
        return Err(Error::failed("token statistics over an empty vocabulary"));
    };
    let lse = running.log_sum_exp()?;
    let entropy = (&lse - running.mean()?)?;
    let both = [running.log_probability(&target)?, entropy.clone()];
    let y = Tensor::cat(&both, 1)?.t()?.contiguous()?;
    Ok(tape.record(y, logits.requires_grad(), move |grad, grads| {
        let column = |row: usize| grad.detach().narrow(0, row, 1)?.reshape((rows, 1));
        let (g_logprob, g_entropy) = (column(0)?, column(1)?);
        logits.backward(grads, |tile, l| {
            // -g_logprob p - g_entropy p (log p + H), and g_logprob at the target.
            let log_p = l.broadcast_sub(&lse)?;
            let by_entropy = log_p.broadcast_add(&entropy)?.broadcast_mul(&g_entropy)?;
            let others = (log_p.exp()? * by_entropy.broadcast_add(&g_logprob)?)?.neg()?;
            let (index, is_here) = target_in_tile(tile)?;
            Ok(others.scatter_add(&index, &(is_here * &g_logprob)?, 1)?)
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::gradcheck;

    #[test]
    fn token_stats_agree_with_finite_differences() {
        gradcheck::check(&[&[4, 6], &[11, 6]], 1, |tape, v, p| token_stats(tape, &v[0], &p[0], vec![0, 10, 3, 3], 0.7));
    }

    #[test]
    fn tiles_of_rows_and_of_the_vocabulary_agree_with_finite_differences() {
        let shapes: &[&[usize]] = &[&[5, 4], &[50, 4]];
        let targets = vec![49, 15, 16, 0, 31];
        for tiling in [
            Tiling { rows: 2, vocab: 16, keep: 0 },
            Tiling { rows: 5, vocab: 16, keep: 1000 },
            Tiling { rows: 2, vocab: 50, keep: 0 },
            Tiling { rows: 2, vocab: 64, keep: 1000 },
        ] {
            gradcheck::check(shapes, 1, |tape, v, p| tiled(tape, &v[0], &p[0], targets.clone(), 1.3, tiling));
        }
    }

    #[test]
    fn tiles_of_other_devices_agree_with_finite_differences() {
        let targets = vec![49, 15, 16, 0, 31];
        for tile in [1, 7, 16, 50, 64] {
            gradcheck::check(&[&[5, 4], &[50, 4]], 1, |tape, v, p| {
                reference(tape, &v[0], &p[0], targets.clone(), 1.3, tile)
            });
        }
    }

    #[test]
    fn extreme_logits_stay_finite() {
        let x = from_vec(vec![1.0], (1, 1)).unwrap();
        let w = from_vec(vec![1000.0, -1000.0, 0.0], (3, 1)).unwrap();
        let w = Arc::new(Parameter::new("w", candle_core::Var::from_tensor(&w).unwrap()));
        for tape in [Tape::new(), Tape::new().reference()] {
            w.clear_grad();
            let y = token_stats(&tape, &Value::constant(x.clone()), &w, vec![1], 1.0).unwrap();
            assert_eq!(y.tensor.to_vec2::<f32>().unwrap(), [[-2000.0], [0.0]]);
            tape.backward(vec![(y, from_vec(vec![1.0, 1.0], (2, 1)).unwrap())]).unwrap();
            assert_eq!(w.grad().unwrap().to_vec2::<f32>().unwrap(), [[-1.0], [1.0], [0.0]]);
        }
    }
}
