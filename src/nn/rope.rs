//! Rotary position embedding: tables of angles (2-D for the vision tower, M-RoPE for the decoder) and their application.

use crate::Result;
use crate::nn::attention::Heads;
use crate::nn::slice::mutate;
use crate::nn::{Tape, Value};
use candle_core::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;
use std::sync::{Arc, OnceLock};

/// Cosine and sine of every rotation: `[rows, head_dim / 2]` each. Element i of a head's first half is rotated against element i
/// of its second half (the `rotate_half` convention).
pub struct RopeTable {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// Both as tensors, cached at first use: every layer needs them.
    tensors: OnceLock<(Tensor, Tensor)>,
}

/// A rotary embedding: its frequencies, and the axis (time, height, width) whose position each follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotary {
    frequencies: Vec<f32>,
    axes: Vec<usize>,
}

impl Rotary {
    /// The `head_dim / 2` frequencies of base `theta`, all of which follow one position.
    pub fn new(head_dim: usize, theta: f64) -> Self {
        let half = head_dim / 2;
        Rotary { frequencies: inverse_frequencies(half, theta), axes: vec![0; half] }
    }

    /// The frequencies, in radians for each position.
    pub fn frequencies(&self) -> &[f32] {
        &self.frequencies
    }

    /// The same with each frequency replaced.
    pub fn scaled(mut self, scale: impl Fn(f32) -> f32) -> Self {
        self.frequencies.iter_mut().for_each(|frequency| *frequency = scale(*frequency));
        self
    }

    /// The same with the frequencies split between the axes: `sections` of them follow time, height and width (transformers'
    /// `apply_multimodal_rotary_pos_emb`).
    pub fn with_sections(mut self, sections: &[usize]) -> Self {
        let axes = sections.iter().enumerate().flat_map(|(i, &n)| std::iter::repeat_n(i % 3, n));
        self.axes.iter_mut().zip(axes).for_each(|(axis, of)| *axis = of);
        self
    }

    /// As [`Rotary::with_sections`], with the axes taking turns: every third frequency follows height, up to the section's number of them,
    /// the next width, all others time (Qwen3-VL's `recomposition_frequencies`).
    pub fn interleaved(mut self, sections: &[usize]) -> Self {
        for (axis, &count) in sections.iter().enumerate().take(3).skip(1) {
            self.axes.iter_mut().skip(axis).step_by(3).take(count).for_each(|of| *of = axis);
        }
        self
    }
}

impl RopeTable {
    /// M-RoPE: `positions[axis][row]` for the axes time, height, width.
    pub fn multimodal(positions: [&[u32]; 3], rotary: &Rotary) -> Self {
        let Rotary { frequencies, axes } = rotary;
        Self::from_angles(frequencies.len(), positions[0].len(), |row, j| {
            positions[axes[j]][row] as f32 * frequencies[j]
        })
    }

    /// 2-D: the first half of the frequencies rotates by the patch row, the second by the patch column.
    pub fn spatial(positions: &[[u32; 2]], head_dim: usize, theta: f64) -> Self {
        let half = head_dim / 2;
        let quarter = half / 2;
        let frequencies = inverse_frequencies(quarter, theta);
        Self::from_angles(half, positions.len(), |row, j| positions[row][j / quarter] as f32 * frequencies[j % quarter])
    }

    fn from_angles(half: usize, rows: usize, angle: impl Fn(usize, usize) -> f32) -> Self {
        let mut cos = Vec::with_capacity(rows * half);
        let mut sin = Vec::with_capacity(rows * half);
        for row in 0..rows {
            for j in 0..half {
                let (s, c) = angle(row, j).sin_cos();
                cos.push(c);
                sin.push(s);
            }
        }
        RopeTable { half, cos, sin, tensors: OnceLock::new() }
    }

    /// Cosine and sine, `[rows, 1, head_dim / 2]`, with the type and the device of `like`.
    fn tensors_like(&self, like: &Tensor) -> Result<(Tensor, Tensor)> {
        let fits = |t: &Tensor| t.dtype() == like.dtype() && t.device().same_device(like.device());
        if let Some((cos, sin)) = self.tensors.get().filter(|(cos, _)| fits(cos)) {
            return Ok((cos.clone(), sin.clone()));
        }
        let load =
            |data: &[f32]| Tensor::from_slice(data, (self.rows(), 1, self.half), like.device())?.to_dtype(like.dtype());
        let made = (load(&self.cos)?, load(&self.sin)?);
        // A later request for another type or device is not cached.
        let _ = self.tensors.set(made.clone());
        Ok(made)
    }

    /// Number of positions.
    pub fn rows(&self) -> usize {
        self.cos.len() / self.half
    }
}

/// `1 / theta^(2j / (2n))` for j < n.
fn inverse_frequencies(n: usize, theta: f64) -> Vec<f32> {
    (0..n).map(|j| 1.0 / (theta as f32).powf((2 * j) as f32 / (2 * n) as f32)).collect()
}

/// Rotate the query and key heads of `qkv` `[rows, (q + 2 kv) dim]`. The fused kernel works in place: `qkv` must not be
/// read by anything else afterwards.
pub fn rope(tape: &Tape, qkv: Value, table: &Arc<RopeTable>, heads: Heads) -> Result<Value> {
    let rotated = heads.query + heads.key_value;
    if !tape.is_fused(&qkv.tensor) {
        return reference(tape, &qkv, table, heads);
    }
    rotate(&qkv.tensor, table, heads, rotated, 1.0)?;
    let (table, node) = (Arc::clone(table), qkv.node());
    Ok(tape.record(qkv.tensor.clone(), qkv.requires_grad(), move |grad, grads| {
        rotate(&grad, &table, heads, rotated, -1.0)?;
        grads.add(node, grad)
    }))
}

fn rotate(x: &Tensor, table: &RopeTable, heads: Heads, rotated: usize, sign: f32) -> Result<()> {
    let (half, stride) = (table.half, heads.stride());
    mutate(x, |x| {
        x.par_chunks_mut(stride)
            .with_min_len(16)
            .zip(table.cos.par_chunks(half))
            .zip(table.sin.par_chunks(half))
            .for_each(|((row, cos), sin)| rotate_row(&mut row[..rotated * heads.dim], cos, sin, sign));
    })
}

/// Rotate every head of one row; `sign` -1 rotates back.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn rotate_row(row: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
    for head in row.chunks_exact_mut(2 * cos.len()) {
        let (a, b) = head.split_at_mut(cos.len());
        for (((a, b), &c), &s) in a.iter_mut().zip(b).zip(cos).zip(sin) {
            let (x, y) = (*a, *b);
            *a = x * c - y * s * sign;
            *b = y * c + x * s * sign;
        }
    }
}

/// [`rope`] in candle ops; the backward pass rotates the gradient back.
fn reference(tape: &Tape, qkv: &Value, table: &Arc<RopeTable>, heads: Heads) -> Result<Value> {
    let y = rotate_in_candle(&qkv.tensor.detach(), table, heads, 1.0)?;
    let (table, node) = (Arc::clone(table), qkv.node());
    Ok(tape.record(y, qkv.requires_grad(), move |grad, grads| {
        grads.add(node, rotate_in_candle(&grad.detach(), &table, heads, -1.0)?)
    }))
}

fn rotate_in_candle(x: &Tensor, table: &RopeTable, heads: Heads, sign: f64) -> Result<Tensor> {
    let rows = table.rows();
    let rotated = heads.query + heads.key_value;
    let (cos, sin) = table.tensors_like(x)?;
    let sin = (sin * sign)?;
    let rotated_part = x.narrow(1, 0, rotated * heads.dim)?.contiguous()?.reshape((rows, rotated, heads.dim))?;
    let a = rotated_part.narrow(2, 0, table.half)?.contiguous()?;
    let b = rotated_part.narrow(2, table.half, table.half)?.contiguous()?;
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    let rotated_part = Tensor::cat(&[first, second], 2)?.reshape((rows, rotated * heads.dim))?;
    let rest = x.narrow(1, rotated * heads.dim, heads.key_value * heads.dim)?.contiguous()?;
    Ok(Tensor::cat(&[rotated_part, rest], 1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::gradcheck;

    #[test]
    fn rope_agrees_with_finite_differences() {
        let heads = Heads { query: 2, key_value: 1, dim: 8 };
        let positions: [&[u32]; 3] = [&[0, 1, 2, 5, 9], &[0, 1, 3, 5, 7], &[0, 2, 2, 6, 9]];
        let table = Arc::new(RopeTable::multimodal(positions, &Rotary::new(8, 10_000.0).with_sections(&[1, 2, 1])));
        gradcheck::check(&[&[5, 32]], 1, |tape, v, _| rope(tape, v[0].clone(), &table, heads));
    }

    #[test]
    fn each_axis_of_m_rope_rotates_its_own_section() {
        let theta = 100.0;
        let table = RopeTable::multimodal([&[1], &[2], &[3]], &Rotary::new(8, theta).with_sections(&[1, 2, 1]));
        let angle = |p: f32, j: i32| (p / 100f32.powf(j as f32 / 4.0)).cos();
        let want = [angle(1.0, 0), angle(2.0, 1), angle(2.0, 2), angle(3.0, 3)];
        for (got, want) in table.cos.iter().zip(want) {
            assert!((got - want).abs() < 1e-6);
        }
    }
}
