//! Low-rank adapters: `y += scale * dropout(x) A^T B^T` beside a frozen linear map (Hu et al., arXiv 2106.09685).

use crate::Result;
use crate::nn::matmul::{Matrix, MatrixMut, matmul};
use crate::nn::slice::{mutate, read};
use crate::nn::tape::Grads;
use crate::nn::{Parameter, Tape};
use std::sync::Arc;

/// The LoRA adapter of one linear layer.
#[derive(Clone)]
pub struct Lora {
    /// A `[rank, in]`.
    pub a: Arc<Parameter>,
    /// B `[out, rank]`.
    pub b: Arc<Parameter>,
    /// `alpha / rank`, or `alpha / sqrt(rank)` (rsLoRA).
    pub scale: f32,
    /// Probability that an element of the adapter's input is dropped in training.
    pub dropout: f32,
    /// Hash of the layer's name, so that each layer has dropout of its own.
    pub layer_hash: u64,
}

impl Lora {
    /// Whether A or B is trainable.
    pub fn is_trainable(&self) -> bool {
        self.a.trainable() || self.b.trainable()
    }

    fn rank(&self) -> usize {
        self.a.var.dims()[0]
    }

    /// The dropout mask of this layer in a pass; `None` without dropout.
    pub fn mask(&self, tape: &Tape) -> Option<DropoutMask> {
        let seed = tape.dropout_seed().filter(|_| self.dropout > 0.0)?;
        Some(DropoutMask { key: mix(seed ^ mix(self.layer_hash)), probability: f64::from(self.dropout) })
    }
}

/// Which elements of a layer's input are dropped in a pass. A function of the pass's seed, the layer, the row and the column, so that
/// recomputation drops the same elements.
#[derive(Clone, Copy)]
pub struct DropoutMask {
    key: u64,
    probability: f64,
}

impl DropoutMask {
    /// 0 for a dropped element, else `1 / (1 - p)`, which keeps the mean.
    pub fn factor(&self, row: usize, column: usize) -> f32 {
        let random = mix(self.key ^ ((row as u64) << 32 | column as u64)) >> 11;
        let kept = random as f64 / (1u64 << 53) as f64 >= self.probability;
        if kept { (1.0 / (1.0 - self.probability)) as f32 } else { 0.0 }
    }

    fn apply(&self, x: &[f32], width: usize) -> Vec<f32> {
        let row = |(i, row): (usize, &[f32])| -> Vec<f32> {
            row.iter().enumerate().map(|(j, x)| x * self.factor(i, j)).collect()
        };
        x.chunks_exact(width).enumerate().flat_map(row).collect()
    }
}

/// SplitMix64's output function: every bit of the result depends on every bit of the input.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Shape of a linear layer and stride of its output.
#[derive(Clone, Copy)]
pub(super) struct LayerShape {
    pub rows: usize,
    pub width: usize,
    pub out: usize,
    /// Elements from one row of the output to the next.
    pub stride: usize,
}

/// Add an adapter's output to `y`, which begins at the layer's first column. Returns `scale * x A^T`, `[rows, rank]`, for the backward
/// pass.
pub(super) fn forward(
    lora: &Lora,
    mask: Option<DropoutMask>,
    x: &[f32],
    y: &mut [f32],
    shape: LayerShape,
) -> Result<Vec<f32>> {
    let LayerShape { rows, width, out, stride } = shape;
    let rank = lora.rank();
    let mut low = vec![0.0; rows * rank];
    let dropped = mask.map(|mask| mask.apply(x, width));
    let x = dropped.as_deref().unwrap_or(x);
    let (a, b) = (read(lora.a.var.as_tensor())?, read(lora.b.var.as_tensor())?);
    let a = Matrix::new(&a, rank, width, width);
    matmul(MatrixMut::new(&mut low, rows, rank, rank), Matrix::new(x, rows, width, width), a.t(), false, true);
    low.iter_mut().for_each(|t| *t *= lora.scale);
    let b = Matrix::new(&b, out, rank, rank);
    matmul(MatrixMut::new(y, rows, out, stride), Matrix::new(&low, rows, rank, rank), b.t(), true, true);
    Ok(low)
}

/// Add to the gradients of A and B and, if given, of x. `g` begins at the layer's first column; `low` is the result of [`forward`].
pub(super) fn backward(
    lora: &Lora,
    mask: Option<DropoutMask>,
    (x, low): (&[f32], &[f32]),
    g: &[f32],
    dx: Option<&candle_core::Tensor>,
    shape: LayerShape,
    grads: &mut Grads<'_>,
) -> Result<()> {
    let LayerShape { rows, width, out, stride } = shape;
    let rank = lora.rank();
    let g = Matrix::new(g, rows, out, stride);
    if lora.b.trainable() {
        grads.accumulate(&lora.b, |db, filled| {
            let low = Matrix::new(low, rows, rank, rank);
            matmul(MatrixMut::new(db, out, rank, rank), g.t(), low, filled, true);
        })?;
    }
    let mut d_low = vec![0.0; rows * rank];
    {
        let b = read(lora.b.var.as_tensor())?;
        let b = Matrix::new(&b, out, rank, rank);
        matmul(MatrixMut::new(&mut d_low, rows, rank, rank), g, b, false, true);
    }
    d_low.iter_mut().for_each(|d| *d *= lora.scale);
    let d_low = Matrix::new(&d_low, rows, rank, rank);
    if lora.a.trainable() {
        let dropped = mask.map(|mask| mask.apply(x, width));
        let x = Matrix::new(dropped.as_deref().unwrap_or(x), rows, width, width);
        grads.accumulate(&lora.a, |da, filled| {
            matmul(MatrixMut::new(da, rank, width, width), d_low.t(), x, filled, true);
        })?;
    }
    let Some(dx) = dx else { return Ok(()) };
    let a = read(lora.a.var.as_tensor())?;
    let a = Matrix::new(&a, rank, width, width);
    mutate(dx, |dx| match mask {
        None => matmul(MatrixMut::new(dx, rows, width, width), d_low, a, true, true),
        Some(mask) => {
            let mut part = vec![0.0; rows * width];
            matmul(MatrixMut::new(&mut part, rows, width, width), d_low, a, false, true);
            for (i, (dx, part)) in dx.chunks_exact_mut(width).zip(part.chunks_exact(width)).enumerate() {
                for (j, (dx, part)) in dx.iter_mut().zip(part).enumerate() {
                    *dx += part * mask.factor(i, j);
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Linear, gradcheck, linear};

    fn adapted(p: &[Arc<Parameter>], dropout: f32) -> Linear {
        let lora = Lora { a: p[2].clone(), b: p[3].clone(), scale: 0.7, dropout, layer_hash: 5 };
        Linear { weight: p[0].clone(), bias: Some(p[1].clone()), lora: Some(lora) }
    }

    #[test]
    fn an_adapter_agrees_with_finite_differences() {
        let shapes: &[&[usize]] = &[&[5, 6], &[5, 7], &[4, 6], &[4], &[2, 6], &[4, 2], &[3, 6]];
        gradcheck::check(shapes, 2, |tape, v, p| {
            let plain = Linear::without_bias(p[4].clone());
            linear(tape, &v[0], &[&adapted(p, 0.0), &plain], Some(&v[1]))
        });
    }

    #[test]
    fn dropout_agrees_with_finite_differences_and_is_the_same_when_recomputed() {
        let shapes: &[&[usize]] = &[&[5, 6], &[4, 6], &[4], &[2, 6], &[4, 2]];
        gradcheck::check(shapes, 1, |tape, v, p| linear(tape, &v[0], &[&adapted(p, 0.4)], None));
        let mask = DropoutMask { key: 9, probability: 0.25 };
        let factors: Vec<f32> = (0..40_000).map(|i| mask.factor(i / 200, i % 200)).collect();
        let kept = factors.iter().filter(|f| **f > 0.0).count();
        assert!((29_500..30_500).contains(&kept), "{kept}");
        assert!(factors.iter().all(|f| *f == 0.0 || *f == (1.0f64 / 0.75) as f32));
    }

    #[test]
    fn a_frozen_layer_with_an_adapter_gives_gradients_to_the_adapter_only() {
        let p: Vec<_> = [&[4usize, 6][..], &[4], &[2, 6], &[4, 2]]
            .iter()
            .enumerate()
            .map(|(i, s)| gradcheck::parameter("p", s, i as u64))
            .collect();
        p[..2].iter().for_each(|p| p.set_trainable(false));
        let tape = Tape::new();
        let x = crate::nn::Value::constant(gradcheck::tensor(&[5, 6], 8));
        let y = linear(&tape, &x, &[&adapted(&p, 0.0)], None).unwrap();
        assert!(y.requires_grad());
        tape.backward(vec![(y, gradcheck::tensor(&[5, 4], 9))]).unwrap();
        let has = |i: usize| p[i].grad().is_some();
        assert!(!has(0) && !has(1) && has(2) && has(3));
    }
}
