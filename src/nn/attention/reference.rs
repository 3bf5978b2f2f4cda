//! The same attention in candle ops, for devices without the fused kernel. The backward pass is written out: candle's own would keep every
//! step of the softmax.

use super::{Heads, SpanGroup};
use crate::Result;
use crate::nn::{Tape, Value};
use candle_core::{D, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Scores of a group, at most, if it has more than one span: what exists at once, and far below what a kernel can count.
pub const MAX_BATCH_SCORES: usize = 1 << 28;
/// Spans that see a row, up to which what they add to it is gathered; beyond, it is added where it belongs, one after the other.
const ROUNDS: usize = 32;

/// [`super::attention`] in candle ops: spans of equal shape as one batch, the query heads of a key head as rows of one matrix.
pub fn reference(tape: &Tape, qkv: &Value, span_groups: &Arc<Vec<SpanGroup>>, heads: Heads) -> Result<Value> {
    let groups = groups(span_groups, heads.query, MAX_BATCH_SCORES);
    let input = qkv.tensor.detach();
    let rows = input.dim(0)?;
    let to_own = to_own(&groups, rows);
    let mut out = Vec::with_capacity(groups.len());
    for group in &groups {
        let part = group.matrices(&input, heads)?;
        out.push(group.to_rows(&part.probabilities()?.matmul(&part.value)?, heads.query, heads)?);
    }
    let y = in_order(&out, &to_own)?;
    let node = qkv.node();
    Ok(tape.record(y, qkv.requires_grad(), move |grad, grads| {
        let grad = grad.detach();
        let (mut dq, mut dk, mut dv) = (Vec::new(), Vec::new(), Vec::new());
        for group in &groups {
            let part = group.matrices(&input, heads)?;
            let p = part.probabilities()?;
            let g = group.to_matrices(&grad, &group.own, 0, heads.query, heads)?;
            dv.push(group.to_rows(&p.t()?.matmul(&g)?, heads.key_value, heads)?);
            let dp = g.matmul(&part.value.t()?)?;
            let mean = (&dp * &p)?.sum_keepdim(D::Minus1)?;
            let ds = ((dp.broadcast_sub(&mean)? * p)? * scale(heads))?;
            dq.push(group.to_rows(&ds.matmul(&part.key)?, heads.query, heads)?);
            dk.push(group.to_rows(&ds.t()?.matmul(&part.query)?, heads.key_value, heads)?);
        }
        let seen = Seen::new(&groups, rows);
        let parts = [in_order(&dq, &to_own)?, seen.sum(&dk, rows)?, seen.sum(&dv, rows)?];
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

/// A group's queries `[spans, kv heads, group * rows, dim]`, keys and values `[spans, kv heads, seen, dim]`.
struct Matrices {
    query: Tensor,
    key: Tensor,
    value: Tensor,
    /// Query rows of a span, rows seen before them, and whether they see only what is before them.
    shape: (usize, usize, bool),
    scale: f64,
}

/// Spans by their shape, as many in a group as have at most `most` scores.
fn groups(span_groups: &[SpanGroup], heads: usize, most: usize) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut open: BTreeMap<(usize, usize, bool), usize> = BTreeMap::new();
    for span in span_groups.iter().flat_map(|span_group| span_group.spans.iter().map(move |span| (span_group, span))) {
        let (span_group, span) = span;
        let before: Vec<u32> = span_group.shared.clone().chain(span.prefix.clone()).map(|row| row as u32).collect();
        let shape = (span.rows.len(), before.len(), span.causal);
        let scores = heads * shape.0 * (shape.0 + shape.1);
        let fits = |at: &&usize| (groups[**at].count + 1) * scores <= most;
        let at = match open.get(&shape).filter(fits) {
            Some(at) => *at,
            None => {
                groups.push(Group { count: 0, shape, own: Vec::new(), seen: Vec::new() });
                open.insert(shape, groups.len() - 1);
                groups.len() - 1
            }
        };
        let own = span.rows.clone().map(|row| row as u32);
        groups[at].count += 1;
        groups[at].own.extend(own.clone());
        groups[at].seen.extend(before.into_iter().chain(own));
    }
    groups
}

/// Where each row is among the query rows of all groups: it is in one span.
fn to_own(groups: &[Group], rows: usize) -> Vec<u32> {
    let mut places = vec![0; rows];
    for (place, row) in groups.iter().flat_map(|group| &group.own).enumerate() {
        places[*row as usize] = place as u32;
    }
    places
}

/// The rows of all groups, `parts`, in the order of `places`.
fn in_order(parts: &[Tensor], places: &[u32]) -> candle_core::Result<Tensor> {
    let all = Tensor::cat(parts, 0)?;
    all.index_select(&Tensor::from_slice(places, places.len(), all.device())?, 0)
}

/// Which rows the spans of all groups see, and so add to.
enum Seen {
    /// For the first, the second, ... time that a row is seen: its place among the rows of all groups, or the place after the last.
    Rounds(Vec<Vec<u32>>),
    /// The rows, in the order of the groups.
    Rows(Vec<u32>),
}

impl Seen {
    fn new(groups: &[Group], rows: usize) -> Seen {
        let all: Vec<u32> = groups.iter().flat_map(|group| group.seen.iter().copied()).collect();
        let mut times = vec![0usize; rows];
        let mut rounds: Vec<Vec<u32>> = Vec::new();
        for (place, row) in all.iter().enumerate() {
            let round = times[*row as usize];
            times[*row as usize] += 1;
            if round >= ROUNDS {
                return Seen::Rows(all);
            }
            if round == rounds.len() {
                rounds.push(vec![all.len() as u32; rows]);
            }
            rounds[round][*row as usize] = place as u32;
        }
        Seen::Rounds(rounds)
    }

    /// `[rows, width]`: the rows of `parts`, each added where it belongs.
    fn sum(&self, parts: &[Tensor], rows: usize) -> candle_core::Result<Tensor> {
        let first = &parts[0];
        let (width, dtype, device) = (first.dim(1)?, first.dtype(), first.device());
        let zeros = |rows: usize| Tensor::zeros((rows, width), dtype, device);
        match self {
            Seen::Rounds(rounds) => {
                let all = Tensor::cat(&[parts, &[zeros(1)?]].concat(), 0)?;
                let round = |places: &Vec<u32>| all.index_select(&Tensor::from_slice(places, rows, device)?, 0);
                let mut sum = None;
                for places in rounds {
                    let more = round(places)?;
                    sum = Some(match sum {
                        Some(sum) => (sum + more)?,
                        None => more,
                    });
                }
                sum.map_or_else(|| zeros(rows), Ok)
            }
            Seen::Rows(all) => {
                let index = Tensor::from_slice(all, all.len(), device)?;
                zeros(rows)?.index_add(&index, &Tensor::cat(parts, 0)?, 0)
            }
        }
    }
}

impl Group {
    fn matrices(&self, qkv: &Tensor, heads: Heads) -> candle_core::Result<Matrices> {
        Ok(Matrices {
            query: self.to_matrices(qkv, &self.own, 0, heads.query, heads)?,
            key: self.to_matrices(qkv, &self.seen, heads.key_at(0), heads.key_value, heads)?,
            value: self.to_matrices(qkv, &self.seen, heads.value_at(0), heads.key_value, heads)?,
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

    /// The way back: `[rows of all spans, count * dim]`.
    fn to_rows(&self, x: &Tensor, count: usize, heads: Heads) -> candle_core::Result<Tensor> {
        let group = count / heads.key_value;
        let len = x.dim(2)? / group;
        let rows = x.reshape((self.count, heads.key_value, group, len, heads.dim))?;
        rows.permute((0, 3, 1, 2, 4))?.contiguous()?.reshape((self.count * len, count * heads.dim))
    }
}

impl Matrices {
    /// `softmax(scale * q k^T)` over what is seen.
    fn probabilities(&self) -> candle_core::Result<Tensor> {
        let mut scores = (self.query.matmul(&self.key.t()?)? * self.scale)?;
        let (len, before, causal) = self.shape;
        if causal {
            // A row sees what is before it. Made on the device, which is cheaper than to bring it there.
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
        // A prompt of four rows and 40 responses of two: more than are gathered round by round.
        let mut spans = vec![span(0..4, 0..0)];
        spans.extend((0..40).map(|i| span(4 + 2 * i..6 + 2 * i, 0..4)));
        let few = vec![SpanGroup { shared: 0..0, spans: spans[..9].to_vec() }];
        let many = vec![SpanGroup { shared: 0..0, spans }];
        let scores = 2 * 2 * 6;
        assert_eq!(groups(&many, 2, usize::MAX).len(), 2);
        assert_eq!(groups(&many, 2, 10 * scores).len(), 5);
        assert_eq!(groups(&many, 2, 0).len(), 41);
        assert!(matches!(Seen::new(&groups(&many, 2, usize::MAX), 84), Seen::Rows(_)));
        let (groups, rows) = (groups(&few, 2, usize::MAX), 20);
        let seen = Seen::new(&groups, rows);
        assert!(matches!(&seen, Seen::Rounds(rounds) if rounds.len() == 9));
        let parts: Vec<Tensor> = groups.iter().map(|group| gradcheck::tensor(&[group.seen.len(), 3], 1)).collect();
        let all = Seen::Rows(groups.iter().flat_map(|group| group.seen.clone()).collect());
        assert!(gradcheck::relative_error(&seen.sum(&parts, rows).unwrap(), &all.sum(&parts, rows).unwrap()) < 1e-6);
    }

    #[test]
    fn many_responses_to_one_prompt_have_the_gradient_of_the_kernel() {
        let heads = Heads { query: 2, key_value: 1, dim: 4 };
        let span = |rows: std::ops::Range<usize>, prefix| Span { rows, prefix, causal: true };
        let mut spans = vec![span(0..4, 0..0)];
        spans.extend((0..40).map(|i| span(4 + 2 * i..6 + 2 * i, 0..4)));
        let span_groups = Arc::new(vec![SpanGroup { shared: 0..0, spans }]);
        let run = |tape: Tape| {
            let leaf = tape.leaf(gradcheck::tensor(&[84, 16], 1));
            let y = crate::nn::attention(&tape, &leaf, &span_groups, heads).unwrap();
            tape.backward_with_leaves(vec![(y, gradcheck::tensor(&[84, 8], 2))], &[&leaf]).unwrap().remove(0).unwrap()
        };
        assert!(gradcheck::relative_error(&run(Tape::new()), &run(Tape::new().reference())) < 1e-5);
    }
}
