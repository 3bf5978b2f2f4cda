//! Learned position embeddings at places between those learned: weighted sums of rows of a table; and features added to some rows.

use crate::Result;
use crate::nn::slice::{from_vec, mutate, read};
use crate::nn::weight_matrix::WeightMatrix;
use crate::nn::{Parameter, Tape, Value};
use candle_core::{DType, Tensor};
use std::sync::Arc;

/// Rows of the table and their weights, whose weighted sum is a row of the result.
pub type Taps = [(u32, f32); 4];

/// For each of `taps`, the weighted sum of rows of `table` `[n, width]`: `[taps, width]`.
pub fn interpolate_rows(tape: &Tape, table: &Arc<Parameter>, taps: Vec<Taps>) -> Result<Value> {
    let width = table.var.dim(1)?;
    let rows = taps.len();
    if !tape.is_fused_weight(table) {
        return interpolate_reference(tape, table, &taps);
    }
    let mut y = vec![0.0; rows * width];
    {
        let table = WeightMatrix::of(table, width)?;
        let mut row = Vec::with_capacity(width);
        for (y, taps) in y.chunks_exact_mut(width).zip(&taps) {
            for &(index, weight) in taps {
                row.clear();
                table.append_row(index as usize, &mut row);
                for (y, x) in y.iter_mut().zip(&row) {
                    *y += weight * x;
                }
            }
        }
    }
    let table = Arc::clone(table);
    Ok(tape.record(from_vec(y, (rows, width))?, table.trainable(), move |grad, grads| {
        let g = read(&grad)?;
        grads.accumulate(&table, |dw, filled| {
            if !filled {
                dw.fill(0.0);
            }
            for (g, taps) in g.chunks_exact(width).zip(&taps) {
                for &(index, weight) in taps {
                    let start = index as usize * width;
                    for (d, g) in dw[start..start + width].iter_mut().zip(g) {
                        *d += weight * g;
                    }
                }
            }
        })
    }))
}

/// [`interpolate_rows`] in candle ops.
fn interpolate_reference(tape: &Tape, table: &Arc<Parameter>, taps: &[Taps]) -> Result<Value> {
    let on = table.compute_var().as_detached_tensor();
    let (rows, width, device) = (taps.len(), on.dim(1)?, on.device().clone());
    let index: Vec<u32> = taps.iter().flatten().map(|(index, _)| *index).collect();
    let weights: Vec<f32> = taps.iter().flatten().map(|(_, weight)| *weight).collect();
    let index = Tensor::from_vec(index, rows * 4, &device)?;
    let found = on.index_select(&index, 0)?;
    let found = if found.dtype() == DType::BF16 { found.to_dtype(DType::F32)? } else { found };
    let weights = Tensor::from_vec(weights, (rows * 4, 1), &device)?.to_dtype(found.dtype())?;
    let y = found.broadcast_mul(&weights)?.reshape((rows, 4, width))?.sum(1)?;
    let table = Arc::clone(table);
    Ok(tape.record(y, table.trainable(), move |grad, grads| {
        let grad = grad.detach();
        let spread = grad.unsqueeze(1)?.broadcast_as((rows, 4, width))?.contiguous()?.reshape((rows * 4, width))?;
        let zeros = Tensor::zeros((table.var.dim(0)?, width), grad.dtype(), grad.device())?;
        grads.add_to_parameter(&table, zeros.index_add(&index, &spread.broadcast_mul(&weights)?, 0)?)
    }))
}

/// `x` `[rows, width]` with rows of `features` `[n, width]` added: for each (row of `x`, row of `features`) of `places`, no row of `x` twice.
pub fn add_rows(tape: &Tape, x: &Value, features: &Value, places: &Arc<Vec<(u32, u32)>>) -> Result<Value> {
    let (rows, width) = x.tensor.dims2()?;
    let count = features.tensor.dim(0)?;
    let (x_node, node) = (x.node(), features.node());
    let trains = x.requires_grad() || features.requires_grad();
    if tape.is_fused(&x.tensor) {
        let mut y = read(&x.tensor)?.to_vec();
        add_pairs(&mut y, &read(&features.tensor)?, width, places.iter().copied());
        let places = Arc::clone(places);
        return Ok(tape.record(from_vec(y, (rows, width))?, trains, move |grad, grads| {
            if node.is_some() {
                let sum = match grads.take(node) {
                    Some(sum) => sum,
                    None => from_vec(vec![0.0; count * width], (count, width))?,
                };
                let g = read(&grad)?;
                mutate(&sum, |sum| add_pairs(sum, &g, width, places.iter().map(|&(to, from)| (from, to))))?;
                grads.set(node, sum);
            }
            grads.add(x_node, grad)
        }));
    }
    let device = x.tensor.device();
    let column = |of: fn(&(u32, u32)) -> u32| Tensor::from_vec(places.iter().map(of).collect(), places.len(), device);
    let (to, from) = (column(|place| place.0)?, column(|place| place.1)?);
    let y = x.tensor.detach().index_add(&to, &features.tensor.detach().index_select(&from, 0)?, 0)?;
    Ok(tape.record(y, trains, move |grad, grads| {
        let grad = grad.detach();
        if node.is_some() {
            let zeros = Tensor::zeros((count, width), grad.dtype(), grad.device())?;
            grads.add(node, zeros.index_add(&from, &grad.index_select(&to, 0)?, 0)?)?;
        }
        grads.add(x_node, grad)
    }))
}

/// For each pair, add row `pair.1` of `from` to row `pair.0` of `to`.
fn add_pairs(to: &mut [f32], from: &[f32], width: usize, pairs: impl Iterator<Item = (u32, u32)>) {
    for (row, source) in pairs {
        let (row, source) = (row as usize * width, source as usize * width);
        for (t, f) in to[row..row + width].iter_mut().zip(&from[source..source + width]) {
            *t += f;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::gradcheck;

    #[test]
    fn interpolation_agrees_with_finite_differences() {
        let taps: Vec<Taps> = vec![
            [(0, 0.25), (1, 0.25), (2, 0.25), (3, 0.25)],
            [(4, 1.0), (4, 0.0), (2, 0.5), (1, -0.5)],
            [(3, 0.1), (0, 0.2), (3, 0.3), (4, 0.4)],
        ];
        gradcheck::check(&[&[5, 6]], 0, |tape, _, p| interpolate_rows(tape, &p[0], taps.clone()));
    }

    #[test]
    fn added_rows_agree_with_finite_differences() {
        let places = Arc::new(vec![(4, 0), (0, 2), (2, 1)]);
        gradcheck::check(&[&[5, 6], &[3, 6]], 2, |tape, v, _| add_rows(tape, &v[0], &v[1], &places));
    }
}
