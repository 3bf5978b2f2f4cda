//! The same attention in candle ops, for devices without the fused kernel. The backward pass is written out: candle's own would keep every
//! step of the softmax.

use super::{Heads, Tree};
use crate::Result;
use crate::nn::{Tape, Value};
use candle_core::{D, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// [`super::attention`] in candle ops: spans of equal shape as one batch, the query heads of a key head as rows of one matrix.
pub fn composed(tape: &Tape, qkv: &Value, trees: &Arc<Vec<Tree>>, heads: Heads) -> Result<Value> {
    let groups = groups(trees);
    let input = qkv.tensor.detach();
    let rows = input.dim(0)?;
    let mut out = Sums::default();
    for group in &groups {
        let part = group.factors(&input, heads)?;
        let result = part.probabilities()?.matmul(&part.value)?;
        out.add(rows, &group.own, group.to_rows(&result, heads.query, heads)?)?;
    }
    let y = out.total(&[rows, heads.query * heads.dim], &input)?;
    let node = qkv.node();
    Ok(tape.record(y, qkv.tracked(), move |grad, grads| {
        let grad = grad.detach();
        let (mut dq, mut dk, mut dv) = (Sums::default(), Sums::default(), Sums::default());
        for group in &groups {
            let part = group.factors(&input, heads)?;
            let p = part.probabilities()?;
            let g = group.to_matrices(&grad, &group.own, 0, heads.query, heads)?;
            let turned = |t: &Tensor| t.t()?.contiguous();
            dv.add(rows, &group.seen, group.to_rows(&turned(&p)?.matmul(&g)?, heads.key_value, heads)?)?;
            let dp = g.matmul(&turned(&part.value)?)?;
            let mean = (&dp * &p)?.sum_keepdim(D::Minus1)?;
            let ds = ((dp.broadcast_sub(&mean)? * p)? * scale(heads))?;
            dq.add(rows, &group.own, group.to_rows(&ds.matmul(&part.key)?, heads.query, heads)?)?;
            dk.add(rows, &group.seen, group.to_rows(&turned(&ds)?.matmul(&part.query)?, heads.key_value, heads)?)?;
        }
        let width = |heads_of: usize| [rows, heads_of * heads.dim];
        let parts = [
            dq.total(&width(heads.query), &input)?,
            dk.total(&width(heads.key_value), &input)?,
            dv.total(&width(heads.key_value), &input)?,
        ];
        grads.add(node, Tensor::cat(&parts, 1)?)
    }))
}

fn scale(heads: Heads) -> f64 {
    1.0 / (heads.dim as f64).sqrt()
}

/// Spans of equal shape.
struct Group {
    /// Spans.
    count: usize,
    /// Query rows of a span, rows seen before them, and whether they see only what is before them.
    shape: (usize, usize, bool),
    /// Query rows of all spans.
    own: Vec<u32>,
    /// Rows that they see, span after span.
    seen: Vec<u32>,
}

/// A group's queries `[spans, kv heads, group * rows, dim]`, keys and values `[spans, kv heads, seen, dim]`, and what is added to the scores.
struct Factors {
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Option<Tensor>,
    scale: f64,
}

fn groups(trees: &[Tree]) -> Vec<Group> {
    let mut shapes: BTreeMap<(usize, usize, bool), Group> = BTreeMap::new();
    for tree in trees {
        for span in &tree.spans {
            let before: Vec<u32> = tree.shared.clone().chain(span.prefix.clone()).map(|row| row as u32).collect();
            let shape = (span.rows.len(), before.len(), span.causal);
            let empty = || Group { count: 0, shape, own: Vec::new(), seen: Vec::new() };
            let group = shapes.entry(shape).or_insert_with(empty);
            let own = span.rows.clone().map(|row| row as u32);
            group.count += 1;
            group.own.extend(own.clone());
            group.seen.extend(before.into_iter().chain(own));
        }
    }
    shapes.into_values().collect()
}

impl Group {
    fn factors(&self, qkv: &Tensor, heads: Heads) -> candle_core::Result<Factors> {
        let (len, before, causal) = self.shape;
        let mask = || -> candle_core::Result<Tensor> {
            let row = |i: usize| (0..before + len).map(move |j| if j > before + i { -1e30f32 } else { 0.0 });
            let rows: Vec<f32> = (0..heads.group()).flat_map(|_| (0..len).flat_map(row)).collect();
            let shape = (1, 1, heads.group() * len, before + len);
            Tensor::from_vec(rows, shape, qkv.device())?.to_dtype(qkv.dtype())
        };
        Ok(Factors {
            query: self.to_matrices(qkv, &self.own, 0, heads.query, heads)?,
            key: self.to_matrices(qkv, &self.seen, heads.key_at(0), heads.key_value, heads)?,
            value: self.to_matrices(qkv, &self.seen, heads.value_at(0), heads.key_value, heads)?,
            mask: causal.then(mask).transpose()?,
            scale: scale(heads),
        })
    }

    /// Rows `index` of `count` heads from column `first` on, as one matrix for each span and key head.
    fn to_matrices(
        &self,
        x: &Tensor,
        index: &[u32],
        first: usize,
        count: usize,
        heads: Heads,
    ) -> candle_core::Result<Tensor> {
        let index_tensor = Tensor::from_slice(index, index.len(), x.device())?;
        let (len, group) = (index.len() / self.count, count / heads.key_value);
        let rows = x.narrow(1, first, count * heads.dim)?.contiguous()?.index_select(&index_tensor, 0)?;
        let rows = rows.reshape((self.count, len, heads.key_value, group, heads.dim))?;
        let turned = rows.permute((0, 2, 3, 1, 4))?.contiguous()?;
        turned.reshape((self.count, heads.key_value, group * len, heads.dim))
    }

    /// The way back: `[rows of all spans, count * dim]`.
    fn to_rows(&self, x: &Tensor, count: usize, heads: Heads) -> candle_core::Result<Tensor> {
        let group = count / heads.key_value;
        let len = x.dim(2)? / group;
        let rows = x.reshape((self.count, heads.key_value, group, len, heads.dim))?;
        rows.permute((0, 3, 1, 2, 4))?.contiguous()?.reshape((self.count * len, count * heads.dim))
    }
}

impl Factors {
    /// `softmax(scale * q k^T)` over what is seen.
    fn probabilities(&self) -> candle_core::Result<Tensor> {
        let mut scores = (self.query.matmul(&self.key.t()?.contiguous()?)? * self.scale)?;
        if let Some(mask) = &self.mask {
            scores = scores.broadcast_add(mask)?;
        }
        let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        drop(scores);
        weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)
    }
}

/// A sum of rows put where they belong.
#[derive(Default)]
struct Sums(Option<Tensor>);

impl Sums {
    /// Add `part`'s rows to rows `index` of `rows`.
    fn add(&mut self, rows: usize, index: &[u32], part: Tensor) -> candle_core::Result<()> {
        let sum = match self.0.take() {
            Some(sum) => sum,
            None => Tensor::zeros((rows, part.dim(1)?), part.dtype(), part.device())?,
        };
        self.0 = Some(sum.index_add(&Tensor::from_slice(index, index.len(), part.device())?, &part, 0)?);
        Ok(())
    }

    /// The sum, of this shape and with the type and device of `like`.
    fn total(self, shape: &[usize], like: &Tensor) -> candle_core::Result<Tensor> {
        match self.0 {
            Some(sum) => Ok(sum),
            None => Tensor::zeros(shape, like.dtype(), like.device()),
        }
    }
}
