//! `y = x W^T + b (+ residual)`, several maps of one input side by side, each maybe with a low-rank adapter.

use crate::Result;
use crate::nn::lora::{self, Lora, Mask, Place};
use crate::nn::matmul::{Matrix, MatrixMut, matmul};
use crate::nn::matrix::WeightMatrix;
use crate::nn::slice::{from_vec, mutate, read, written};
use crate::nn::tape::Source;
use crate::nn::{Parameter, Tape, Value};
use candle_core::{DType, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;
use std::sync::Arc;

/// Weight `[out, in]`, optional bias `[out]` and optional adapter of a linear map.
#[derive(Clone)]
pub struct Affine {
    /// `[out, in]`, or any shape whose first dimension is `out` and whose others multiply to `in` (a patch convolution).
    pub weight: Arc<Parameter>,
    /// `[out]`.
    pub bias: Option<Arc<Parameter>>,
    /// What is added to the map in low rank.
    pub lora: Option<Lora>,
}

impl Affine {
    /// A map of nothing but a weight.
    pub fn plain(weight: Arc<Parameter>) -> Affine {
        Affine { weight, bias: None, lora: None }
    }

    fn out(&self) -> usize {
        self.weight.var.dims()[0]
    }

    /// Whether the weight, the bias or the adapter takes a gradient.
    pub fn trains(&self) -> bool {
        self.parameters().any(|p| p.trainable())
    }

    /// Whether the backward pass needs the input.
    fn keeps_input(&self) -> bool {
        self.weight.trainable() || self.lora.as_ref().is_some_and(Lora::trains)
    }

    fn parameters(&self) -> impl Iterator<Item = &Arc<Parameter>> {
        let adapter = self.lora.iter().flat_map(|lora| [&lora.a, &lora.b]);
        std::iter::once(&self.weight).chain(&self.bias).chain(adapter)
    }
}

/// Apply each of `maps` to `x` `[rows, in]` and lay the results side by side: `[rows, sum of out]`; add `residual` (of the
/// result's shape) if given. A frozen weight costs nothing in the backward pass.
pub fn linear(tape: &Tape, x: &Value, maps: &[&Affine], residual: Option<&Value>) -> Result<Value> {
    let (rows, width) = x.tensor.dims2()?;
    let total: usize = maps.iter().map(|m| m.out()).sum();
    if !tape.fuses(&x.tensor) {
        return composed(tape, x, maps, residual, width);
    }
    let mut y: Vec<f32> = Vec::new();
    // Whether `y` starts from something that the products are added to.
    let started = residual.is_some() || maps.iter().any(|m| m.bias.is_some());
    if let Some(residual) = residual {
        y.extend_from_slice(&read(&residual.tensor)?);
    } else if started {
        let mut row = Vec::with_capacity(total);
        for map in maps {
            match &map.bias {
                Some(bias) => row.extend_from_slice(&read(bias.var.as_tensor())?),
                None => row.resize(row.len() + map.out(), 0.0),
            }
        }
        y = row.repeat(rows);
    } else {
        y.reserve_exact(rows * total);
    }
    {
        let x_data = read(&x.tensor)?;
        let x_view = Matrix::new(&x_data, rows, width, width);
        let mut column = 0;
        for map in maps {
            let out = map.out();
            if let Some(bias) = map.bias.as_ref().filter(|_| residual.is_some()) {
                let bias = read(bias.var.as_tensor())?;
                let bias = &*bias;
                y.par_chunks_mut(total).with_min_len(64).for_each(|row| {
                    for (y, b) in row[column..column + out].iter_mut().zip(bias) {
                        *y += b;
                    }
                });
            }
            let weight = WeightMatrix::of(&map.weight, width)?;
            let from = column.min(rows * total);
            let target = match started {
                true => MatrixMut::new(&mut y[from..], rows, out, total),
                false => MatrixMut::unfilled(&mut y.spare_capacity_mut()[from..rows * total], rows, out, total),
            };
            weight.times_rows_t(target, x_view, 0..out, started);
            column += out;
        }
        if !started {
            // SAFETY: the products of all maps, side by side, have written every element of every row.
            unsafe { y.set_len(rows * total) };
        }
    }
    let places = places(maps, rows, width, total);
    let mut adapters: Vec<Option<(Option<Mask>, Vec<f32>)>> = Vec::with_capacity(maps.len());
    for (map, (column, place)) in maps.iter().zip(&places) {
        adapters.push(match &map.lora {
            None => None,
            Some(lora) => {
                let mask = lora.mask(tape);
                let x = read(&x.tensor)?;
                let from = (*column).min(rows * total);
                Some((mask, lora::forward(lora, mask, &x, &mut y[from..], *place)?))
            }
        });
    }
    let y = from_vec(y, (rows, total))?;
    let maps: Vec<Affine> = maps.iter().map(|m| (*m).clone()).collect();
    let trains = maps.iter().any(Affine::trains);
    let wanted = trains || x.tracked() || residual.is_some_and(Value::tracked);
    let (x_node, residual_node) = (x.node(), residual.and_then(Value::node));
    let x_source = maps.iter().any(Affine::keeps_input).then(|| x.source());
    Ok(tape.record(y, wanted, move |grad, grads| {
        {
            let g = read(&grad)?;
            let x = x_source.map(Source::get).transpose()?;
            let x = x.as_ref().map(read).transpose()?;
            let mut dx = grads.take(x_node);
            for ((map, (column, place)), adapter) in maps.iter().zip(&places).zip(&adapters) {
                let (out, column) = (place.out, *column);
                let g_view = Matrix::new(&g[column.min(rows * total)..], rows, out, total);
                if let Some(x) = x.as_deref().filter(|_| map.weight.trainable()) {
                    grads.accumulate(&map.weight, |dw, filled| {
                        let x_view = Matrix::new(x, rows, width, width);
                        matmul(MatrixMut::new(dw, out, width, width), g_view.t(), x_view, filled, true);
                    })?;
                }
                if let Some(bias) = map.bias.as_ref().filter(|b| b.trainable()) {
                    let sums = column_sums(&g, total, column, out);
                    grads.accumulate(bias, |db, filled| {
                        for (d, s) in db.iter_mut().zip(&sums) {
                            *d = if filled { *d + s } else { *s };
                        }
                    })?;
                }
                if x_node.is_some() {
                    let weight = WeightMatrix::of(&map.weight, width)?;
                    match &dx {
                        Some(dx) => mutate(dx, |dx| {
                            weight.times_rows(MatrixMut::new(dx, rows, width, width), g_view, 0..out, true);
                        })?,
                        None => {
                            // SAFETY: the product writes every element.
                            let product = unsafe {
                                written(rows * width, |dx| {
                                    let dx = MatrixMut::unfilled(dx, rows, width, width);
                                    weight.times_rows(dx, g_view, 0..out, false);
                                })
                            };
                            dx = Some(from_vec(product, (rows, width))?);
                        }
                    }
                }
                if let (Some(lora), Some((mask, low))) = (&map.lora, adapter)
                    && (lora.trains() || x_node.is_some())
                {
                    let seen = (x.as_deref().unwrap_or(&[]), low.as_slice());
                    let g = &g[column.min(rows * total)..];
                    lora::backward(lora, *mask, seen, g, dx.as_ref().filter(|_| x_node.is_some()), *place, grads)?;
                }
            }
            if let Some(dx) = dx {
                grads.put(x_node, dx);
            }
        }
        grads.add(residual_node, grad)
    }))
}

/// The first column of each map's result, and its sizes.
fn places(maps: &[&Affine], rows: usize, width: usize, stride: usize) -> Vec<(usize, Place)> {
    let mut column = 0;
    let place = |map: &&Affine| {
        let out = map.out();
        column += out;
        (column - out, Place { rows, width, out, stride })
    };
    maps.iter().map(place).collect()
}

/// `x W^T` in candle ops, `w` `[out, in]`: in bf16 if the weight is, on devices that compute in it, the result in the type of `x`.
pub(super) fn project(x: &Tensor, w: &Tensor) -> candle_core::Result<Tensor> {
    if w.dtype() == x.dtype() {
        return x.matmul(&w.t()?);
    }
    if w.device().is_cpu() {
        return x.matmul(&w.to_dtype(x.dtype())?.t()?);
    }
    debug_assert_eq!(w.dtype(), DType::BF16);
    x.to_dtype(w.dtype())?.matmul(&w.t()?)?.to_dtype(x.dtype())
}

/// What a map has beside its weight, for [`composed`]: a bias, and an adapter's scale and dropout.
struct Shape {
    biased: bool,
    adapter: Option<(f64, Option<Tensor>)>,
}

fn composed(tape: &Tape, x: &Value, maps: &[&Affine], residual: Option<&Value>, width: usize) -> Result<Value> {
    let parameters: Vec<&Arc<Parameter>> = maps.iter().flat_map(|m| m.parameters()).collect();
    let rows = x.tensor.dim(0)?;
    let mut shapes: Vec<Shape> = Vec::with_capacity(maps.len());
    for map in maps {
        let adapter = match &map.lora {
            None => None,
            Some(lora) => {
                let factors = |mask: Mask| {
                    let factors = (0..rows * width).map(|i| mask.factor(i / width, i % width)).collect();
                    Tensor::from_vec(factors, (rows, width), x.tensor.device())?.to_dtype(x.tensor.dtype())
                };
                Some((f64::from(lora.scale), lora.mask(tape).map(factors).transpose()?))
            }
        };
        shapes.push(Shape { biased: map.bias.is_some(), adapter });
    }
    let inputs: Vec<&Value> = std::iter::once(x).chain(residual).collect();
    tape.compose(&inputs, &parameters, move |xs, ps| {
        let mut ps = ps.iter();
        let mut parts = Vec::new();
        for Shape { biased, adapter } in &shapes {
            let weight = next(&mut ps)?;
            let mut y = project(&xs[0], &weight.reshape(((), width))?)?;
            if *biased {
                y = y.broadcast_add(next(&mut ps)?)?;
            }
            if let Some((scale, factors)) = adapter {
                let (a, b) = (next(&mut ps)?, next(&mut ps)?);
                let dropped = factors.as_ref().map(|f| xs[0].mul(f)).transpose()?;
                let low = (dropped.as_ref().unwrap_or(&xs[0]).matmul(&a.t()?)? * *scale)?;
                y = (y + low.matmul(&b.t()?)?)?;
            }
            parts.push(y);
        }
        let y = Tensor::cat(&parts, 1)?;
        match xs.get(1) {
            Some(residual) => y + residual,
            None => Ok(y),
        }
    })
}

fn next<'a>(it: &mut impl Iterator<Item = &'a Tensor>) -> candle_core::Result<&'a Tensor> {
    it.next().ok_or_else(|| candle_core::Error::Msg("missing parameter".into()))
}

/// Sums over the rows of columns `start..start + len` of a row-major `[rows, stride]` matrix.
/// Rows are summed in blocks of fixed size, then the blocks in order: the same for any number of threads.
pub(super) fn column_sums(data: &[f32], stride: usize, start: usize, len: usize) -> Vec<f32> {
    const ROWS: usize = 256;
    let partial: Vec<Vec<f32>> = data
        .par_chunks(ROWS * stride)
        .map(|block| {
            let mut sums = vec![0.0; len];
            add_rows(&mut sums, block, stride, start);
            sums
        })
        .collect();
    let mut sums = vec![0.0; len];
    for block in &partial {
        add_rows(&mut sums, block, len, 0);
    }
    sums
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn add_rows(sums: &mut [f32], block: &[f32], stride: usize, start: usize) {
    for row in block.chunks_exact(stride) {
        for (s, g) in sums.iter_mut().zip(&row[start..]) {
            *s += g;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;

    #[test]
    fn linear_with_bias_and_residual_agrees_with_finite_differences() {
        let shapes: &[&[usize]] = &[&[5, 6], &[5, 7], &[4, 6], &[4], &[3, 6]];
        check::op(shapes, 2, |tape, v, p| {
            let first = Affine { weight: p[0].clone(), bias: Some(p[1].clone()), lora: None };
            let second = Affine::plain(p[2].clone());
            linear(tape, &v[0], &[&first, &second], Some(&v[1]))
        });
    }

    #[test]
    fn linear_without_residual_agrees_with_finite_differences() {
        check::op(&[&[300, 3], &[2, 3], &[2]], 1, |tape, v, p| {
            linear(tape, &v[0], &[&Affine { weight: p[0].clone(), bias: Some(p[1].clone()), lora: None }], None)
        });
    }

    #[test]
    fn a_frozen_weight_gets_no_gradient_and_the_input_still_does() {
        let weight = check::parameter("w", &[2, 3], 1);
        weight.set_trainable(false);
        let tape = Tape::new();
        let x = tape.leaf(check::tensor(&[4, 3], 2));
        let y = linear(&tape, &x, &[&Affine::plain(weight.clone())], None).unwrap();
        let g = check::tensor(&[4, 2], 3);
        let dx = tape.backward_with(vec![(y, g)], &[&x]).unwrap();
        assert!(dx[0].is_some());
        assert!(weight.grad().is_none());
    }
}
