//! Attention in candle ops, for devices without the fused kernel. The backward pass is written out: candle's autograd would hold every
//! step of the softmax.

use super::heads::Heads;
use super::span::SpanGroup;
use crate::Result;
use crate::nn::{Tape, Value};
use candle_core::{D, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most scores of a batch of spans. Bounds the memory that exists at once; far below the limit of a GPU kernel's indices.
pub const MAX_BATCH_SCORES: usize = 1 << 26;
/// Most spans per key row for which gradients are gathered and summed; with more, they are added by `index_add`.
const MAX_GATHER_ROUNDS: usize = 32;

/// [`super::attention`] in candle ops: spans of equal shape form a batch; the query heads of a key head are rows of one matrix. A long span
/// is taken some of its query rows at a time, so that its scores never exist all at once.
pub fn reference(tape: &Tape, qkv: &Value, span_groups: &Arc<Vec<SpanGroup>>, heads: Heads) -> Result<Value> {
    tiled(tape, qkv, span_groups, heads, MAX_BATCH_SCORES)
}

/// [`reference`] with at most `most` scores at once.
fn tiled(tape: &Tape, qkv: &Value, span_groups: &Arc<Vec<SpanGroup>>, heads: Heads, most: usize) -> Result<Value> {
    let batches = batches(span_groups, heads.query, most);
    let input = qkv.tensor.detach();
    let rows = input.dim(0)?;
    let query_positions = query_positions(&batches, rows);
    let mut out = Vec::with_capacity(batches.len());
    for batch in &batches {
        let part = batch.matrices(&input, heads)?;
        out.push(batch.to_rows(&part.probabilities()?.matmul(&part.value)?, heads.query, heads)?);
    }
    let y = reorder(&out, &query_positions)?;
    let node = qkv.node();
    Ok(tape.record(y, qkv.requires_grad(), move |grad, grads| {
        let grad = grad.detach();
        let (mut dq, mut dk, mut dv) = (Vec::new(), Vec::new(), Vec::new());
        for batch in &batches {
            let part = batch.matrices(&input, heads)?;
            let p = part.probabilities()?;
            let g = batch.to_matrices(&grad, &batch.own, 0, heads.query, heads)?;
            dv.push(batch.to_rows(&p.t()?.matmul(&g)?, heads.key_value, heads)?);
            let dp = g.matmul(&part.value.t()?)?;
            let mean = (&dp * &p)?.sum_keepdim(D::Minus1)?;
            let ds = ((dp.broadcast_sub(&mean)? * p)? * scale(heads))?;
            dq.push(batch.to_rows(&ds.matmul(&part.key)?, heads.query, heads)?);
            dk.push(batch.to_rows(&ds.t()?.matmul(&part.query)?, heads.key_value, heads)?);
        }
        let seen = KeyRowSum::new(&batches, rows);
        let parts = [reorder(&dq, &query_positions)?, seen.sum(&dk, rows)?, seen.sum(&dv, rows)?];
        grads.add(node, Tensor::cat(&parts, 1)?)
    }))
}

fn scale(heads: Heads) -> f64 {
    1.0 / (heads.dim as f64).sqrt()
}

/// Spans, or parts of them, of equal shape.
struct SpanBatch {
    /// Number of spans.
    count: usize,
    /// Of a span: query rows, rows that they attend to besides, and whether it is causal.
    shape: (usize, usize, bool),
    /// Query rows of all spans.
    own: Vec<u32>,
    /// Rows that they attend to, span after span.
    key_rows: Vec<u32>,
}

/// Queries `[spans, kv heads, group * rows, dim]`, keys and values `[spans, kv heads, key rows, dim]` of a batch.
struct Matrices {
    query: Tensor,
    key: Tensor,
    value: Tensor,
    /// Of a span: query rows, prefix rows, and whether it is causal.
    shape: (usize, usize, bool),
    scale: f64,
}

/// Spans batched by shape, with at most `most` scores per batch (but one query row at least).
fn batches(span_groups: &[SpanGroup], heads: usize, most: usize) -> Vec<SpanBatch> {
    let mut batches: Vec<SpanBatch> = Vec::new();
    let mut open: BTreeMap<(usize, usize, bool), usize> = BTreeMap::new();
    for span in span_groups.iter().flat_map(|span_group| span_group.spans.iter().map(move |span| (span_group, span))) {
        let (span_group, span) = span;
        let before: Vec<u32> =
            span_group.shared_prefix.clone().chain(span.prefix.clone()).map(|row| row as u32).collect();
        let rows: Vec<u32> = span.rows.clone().map(|row| row as u32).collect();
        let at_once = (most / (heads * (before.len() + rows.len())).max(1)).clamp(1, rows.len().max(1));
        for start in (0..rows.len()).step_by(at_once) {
            let (earlier, rest) = rows.split_at(start);
            let (own, later) = rest.split_at(at_once.min(rest.len()));
            // To a part of a span the rows before it are a prefix; so are those after it, if they are seen.
            let later = if span.causal { &[] } else { later };
            let shape = (own.len(), before.len() + earlier.len() + later.len(), span.causal);
            let scores = heads * shape.0 * (shape.0 + shape.1);
            let fits = |at: &&usize| (batches[**at].count + 1) * scores <= most;
            let at = match open.get(&shape).filter(fits) {
                Some(at) => *at,
                None => {
                    batches.push(SpanBatch { count: 0, shape, own: Vec::new(), key_rows: Vec::new() });
                    open.insert(shape, batches.len() - 1);
                    batches.len() - 1
                }
            };
            batches[at].count += 1;
            batches[at].own.extend(own);
            batches[at].key_rows.extend([&before[..], earlier, later, own].concat());
        }
    }
    batches
}

/// Position of each row among the query rows of all batches (a row is in exactly one span).
fn query_positions(batches: &[SpanBatch], rows: usize) -> Vec<u32> {
    let mut positions = vec![0; rows];
    for (place, row) in batches.iter().flat_map(|batch| &batch.own).enumerate() {
        positions[*row as usize] = place as u32;
    }
    positions
}

/// The rows of all batches, `parts`, in the order of `positions`.
fn reorder(parts: &[Tensor], positions: &[u32]) -> candle_core::Result<Tensor> {
    let all = Tensor::cat(parts, 0)?;
    all.index_select(&Tensor::from_slice(positions, positions.len(), all.device())?, 0)
}

/// How the key gradients of all batches are summed into rows: a row may be a key of several spans.
enum KeyRowSum {
    /// Round n holds, for each row, the position of its n-th gradient among those of all batches, or that of a row of zeros.
    Rounds(Vec<Vec<u32>>),
    /// The row of each gradient, in the order of the batches.
    Rows(Vec<u32>),
}

impl KeyRowSum {
    fn new(batches: &[SpanBatch], rows: usize) -> KeyRowSum {
        let all: Vec<u32> = batches.iter().flat_map(|batch| batch.key_rows.iter().copied()).collect();
        let mut times = vec![0usize; rows];
        let mut rounds: Vec<Vec<u32>> = Vec::new();
        for (place, row) in all.iter().enumerate() {
            let round = times[*row as usize];
            times[*row as usize] += 1;
            if round >= MAX_GATHER_ROUNDS {
                return KeyRowSum::Rows(all);
            }
            if round == rounds.len() {
                rounds.push(vec![all.len() as u32; rows]);
            }
            rounds[round][*row as usize] = place as u32;
        }
        KeyRowSum::Rounds(rounds)
    }

    /// `[rows, width]`: the sum of `parts` by row.
    fn sum(&self, parts: &[Tensor], rows: usize) -> candle_core::Result<Tensor> {
        let first = &parts[0];
        let (width, dtype, device) = (first.dim(1)?, first.dtype(), first.device());
        let zeros = |rows: usize| Tensor::zeros((rows, width), dtype, device);
        match self {
            KeyRowSum::Rounds(rounds) => {
                let all = Tensor::cat(&[parts, &[zeros(1)?]].concat(), 0)?;
                let round = |positions: &Vec<u32>| all.index_select(&Tensor::from_slice(positions, rows, device)?, 0);
                let mut sum = None;
                for positions in rounds {
                    let more = round(positions)?;
                    sum = Some(match sum {
                        Some(sum) => (sum + more)?,
                        None => more,
                    });
                }
                sum.map_or_else(|| zeros(rows), Ok)
            }
            KeyRowSum::Rows(all) => {
                let index = Tensor::from_slice(all, all.len(), device)?;
                zeros(rows)?.index_add(&index, &Tensor::cat(parts, 0)?, 0)
            }
        }
    }
}

impl SpanBatch {
    fn matrices(&self, qkv: &Tensor, heads: Heads) -> candle_core::Result<Matrices> {
        Ok(Matrices {
            query: self.to_matrices(qkv, &self.own, 0, heads.query, heads)?,
            key: self.to_matrices(qkv, &self.key_rows, heads.key_at(0), heads.key_value, heads)?,
            value: self.to_matrices(qkv, &self.key_rows, heads.value_at(0), heads.key_value, heads)?,
            shape: self.shape,
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

    /// The inverse of [`SpanBatch::to_matrices`]: `[rows of all spans, count * dim]`.
    fn to_rows(&self, x: &Tensor, count: usize, heads: Heads) -> candle_core::Result<Tensor> {
        let group = count / heads.key_value;
        let len = x.dim(2)? / group;
        let rows = x.reshape((self.count, heads.key_value, group, len, heads.dim))?;
        rows.permute((0, 3, 1, 2, 4))?.contiguous()?.reshape((self.count * len, count * heads.dim))
    }
}

impl Matrices {
    /// `softmax(scale * q k^T)` over the keys that a row attends to.
    fn probabilities(&self) -> candle_core::Result<Tensor> {
        let mut scores = (self.query.matmul(&self.key.t()?)? * self.scale)?;
        let (len, before, causal) = self.shape;
        if causal {
            // The causal mask, built on the device: cheaper than a copy to it.
            let device = scores.device();
            let own = Tensor::arange(before as u32, (before + len) as u32, device)?.reshape((len, 1))?;
            let seen = Tensor::arange(0, (before + len) as u32, device)?.reshape((1, before + len))?;
            let hidden = (seen.broadcast_gt(&own)?.to_dtype(scores.dtype())? * -1e30)?;
            let (spans, key_heads, together, all) = scores.dims4()?;
            let grouped = scores.reshape((spans, key_heads, together / len, len, all))?;
            scores = grouped.broadcast_add(&hidden)?.reshape((spans, key_heads, together, all))?;
        }
        let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        drop(scores);
        weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::attention::Span;
    use crate::nn::gradcheck;

    #[test]
    fn groups_are_cut_where_their_scores_are_too_many_and_sums_are_the_same() {
        let span = |rows: std::ops::Range<usize>, prefix| Span { rows, prefix, causal: true };
        // A prompt of four rows and 40 responses of two rows: more spans per key row than `MAX_GATHER_ROUNDS`.
        let mut spans = vec![span(0..4, 0..0)];
        spans.extend((0..40).map(|i| span(4 + 2 * i..6 + 2 * i, 0..4)));
        let few = vec![SpanGroup { shared_prefix: 0..0, spans: spans[..9].to_vec() }];
        let many = vec![SpanGroup { shared_prefix: 0..0, spans }];
        let scores = 2 * 2 * 6;
        assert_eq!(batches(&many, 2, usize::MAX).len(), 2);
        assert_eq!(batches(&many, 2, 10 * scores).len(), 5);
        assert_eq!(batches(&many, 2, 0).len(), 84);
        assert!(matches!(KeyRowSum::new(&batches(&many, 2, usize::MAX), 84), KeyRowSum::Rows(_)));
        let (batches, rows) = (batches(&few, 2, usize::MAX), 20);
        let seen = KeyRowSum::new(&batches, rows);
        assert!(matches!(&seen, KeyRowSum::Rounds(rounds) if rounds.len() == 9));
        let parts: Vec<Tensor> = batches.iter().map(|batch| gradcheck::tensor(&[batch.key_rows.len(), 3], 1)).collect();
        let all = KeyRowSum::Rows(batches.iter().flat_map(|batch| batch.key_rows.clone()).collect());
        assert!(gradcheck::relative_error(&seen.sum(&parts, rows).unwrap(), &all.sum(&parts, rows).unwrap()) < 1e-6);
    }

    #[test]
    fn attention_in_parts_of_spans_is_that_of_whole_ones() {
        let heads = Heads { query: 4, key_value: 2, dim: 4 };
        let span = |rows: std::ops::Range<usize>, prefix, causal| Span { rows, prefix, causal };
        let span_groups = Arc::new(vec![
            SpanGroup { shared_prefix: 0..0, spans: vec![span(0..13, 0..0, true), span(13..20, 0..13, true)] },
            SpanGroup { shared_prefix: 0..0, spans: vec![span(20..31, 20..20, false)] },
        ]);
        let run = |most: usize| {
            let tape = Tape::new().reference();
            let leaf = tape.leaf(gradcheck::tensor(&[31, 32], 1));
            let y = tiled(&tape, &leaf, &span_groups, heads, most).unwrap();
            let out = y.tensor.clone();
            let grads = tape.backward_with_leaves(vec![(y, gradcheck::tensor(&[31, 16], 2))], &[&leaf]).unwrap();
            [out, grads.into_iter().next().flatten().unwrap()]
        };
        let whole = run(usize::MAX);
        for most in [0, 4 * 13 * 3, 4 * 20 * 5] {
            assert!(batches(&span_groups, heads.query, most.max(1)).len() > 3);
            for (part, whole) in run(most).iter().zip(&whole) {
                assert!(gradcheck::relative_error(part, whole) < 1e-5, "{most}");
            }
        }
    }

    #[test]
    fn many_responses_to_one_prompt_have_the_gradient_of_the_kernel() {
        let heads = Heads { query: 2, key_value: 1, dim: 4 };
        let span = |rows: std::ops::Range<usize>, prefix| Span { rows, prefix, causal: true };
        let mut spans = vec![span(0..4, 0..0)];
        spans.extend((0..40).map(|i| span(4 + 2 * i..6 + 2 * i, 0..4)));
        let span_groups = Arc::new(vec![SpanGroup { shared_prefix: 0..0, spans }]);
        let run = |tape: Tape| {
            let leaf = tape.leaf(gradcheck::tensor(&[84, 16], 1));
            let y = crate::nn::attention(&tape, &leaf, &span_groups, heads).unwrap();
            tape.backward_with_leaves(vec![(y, gradcheck::tensor(&[84, 8], 2))], &[&leaf]).unwrap().remove(0).unwrap()
        };
        assert!(gradcheck::relative_error(&run(Tape::new()), &run(Tape::new().reference())) < 1e-5);
    }
}
