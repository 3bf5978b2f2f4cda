//! Scaled dot-product attention over ragged rows, with grouped-query heads.
//!
//! No padding and no mask matrix: a [`Span`] is a run of query rows that attend to each other (causally or not) and to earlier
//! rows. A window of the vision tower is a span. A prompt with several responses is one causal span, and each response a causal span
//! with the prompt as its prefix, so that the prompt is computed once. A prefix that several prompts share is computed once for all of
//! them ([`SpanGroup::shared_prefix`]). The backward pass recomputes probabilities from the saved log-sum-exp, one block of query rows
//! at a time.

mod heads;
mod kernel;
mod reference;
mod span;

use crate::Result;
use crate::nn::slice::{from_vec, read};
use crate::nn::{Tape, Value};
pub use heads::Heads;
use kernel::{GroupHead, SharedOutput};
use rayon::prelude::*;
pub use reference::MAX_BATCH_SCORES;
use reference::reference;
pub use span::{Span, SpanGroup};
use std::ops::Range;
use std::sync::Arc;

/// Attention of `qkv` `[rows, (q + 2 kv) dim]` (positions already applied): `[rows, q dim]`.
/// A row must be in exactly one span.
pub fn attention(tape: &Tape, qkv: &Value, span_groups: &Arc<Vec<SpanGroup>>, heads: Heads) -> Result<Value> {
    let (rows, _) = qkv.tensor.dims2()?;
    if !tape.is_fused(&qkv.tensor) {
        return reference(tape, qkv, span_groups, heads);
    }
    let width = heads.query * heads.dim;
    let mut out = vec![0.0; rows * width];
    let mut lse = vec![0.0; heads.query * rows];
    {
        let qkv = read(&qkv.tensor)?;
        let (out, lse) = (SharedOutput(out.as_mut_ptr()), SharedOutput(lse.as_mut_ptr()));
        let qkv = &*qkv;
        group_heads(span_groups, heads.key_value).into_par_iter().for_each(|(span_group, kv_head)| {
            GroupHead { qkv, rows, heads, span_group, kv_head }.forward(out, lse);
        });
    }
    let (qkv_tensor, node, span_groups) = (qkv.tensor.clone(), qkv.node(), Arc::clone(span_groups));
    Ok(tape.record(from_vec(out, (rows, width))?, qkv.requires_grad(), move |grad, grads| {
        let mut d_qkv = vec![0.0; rows * heads.stride()];
        {
            let (qkv, grad) = (read(&qkv_tensor)?, read(&grad)?);
            let (qkv, grad, lse) = (&*qkv, &*grad, &*lse);
            let target = SharedOutput(d_qkv.as_mut_ptr());
            // Gradients of shared prefixes are returned and summed afterwards in the order of the groups: several groups add to them.
            let prefix_grads: Vec<Vec<f32>> = group_heads(&span_groups, heads.key_value)
                .into_par_iter()
                .map(|(span_group, kv_head)| {
                    GroupHead { qkv, rows, heads, span_group, kv_head }.backward(grad, lse, target)
                })
                .collect();
            for ((span_group, kv_head), prefix_grads) in
                group_heads(&span_groups, heads.key_value).into_iter().zip(&prefix_grads)
            {
                add_prefix_grads(&mut d_qkv, prefix_grads, &span_group.shared_prefix, kv_head, heads);
            }
        }
        grads.add(node, from_vec(d_qkv, (rows, heads.stride()))?)
    }))
}

fn group_heads(span_groups: &[SpanGroup], heads: usize) -> Vec<(&SpanGroup, usize)> {
    span_groups.iter().flat_map(|span_group| (0..heads).map(move |head| (span_group, head))).collect()
}

/// Add the gradients of keys and values of a shared prefix (`[rows, 2 dim]`) to `d_qkv`.
fn add_prefix_grads(d_qkv: &mut [f32], prefix_grads: &[f32], shared: &Range<usize>, kv_head: usize, heads: Heads) {
    let dim = heads.dim;
    for (row, prefix_grads) in shared.clone().zip(prefix_grads.chunks_exact(2 * dim)) {
        for (at, prefix_grads) in
            [heads.key_at(kv_head), heads.value_at(kv_head)].into_iter().zip(prefix_grads.chunks_exact(dim))
        {
            let at = row * heads.stride() + at;
            for (sum, k) in d_qkv[at..at + dim].iter_mut().zip(prefix_grads) {
                *sum += k;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::gradcheck;
    use candle_core::Tensor;

    fn span(rows: Range<usize>, prefix: Range<usize>, causal: bool) -> Span {
        Span { rows, prefix, causal }
    }

    fn span_group(shared: Range<usize>, spans: &[Span]) -> SpanGroup {
        SpanGroup { shared_prefix: shared, spans: spans.to_vec() }
    }

    #[test]
    fn causal_grouped_attention_with_shared_prefixes_agrees_with_finite_differences() {
        let heads = Heads { query: 4, key_value: 2, dim: 3 };
        // A prompt with two responses; a plain sequence.
        let span_groups = Arc::new(vec![
            span_group(0..0, &[span(0..4, 0..0, true), span(4..6, 0..4, true), span(6..7, 0..4, true)]),
            SpanGroup::single(7..10, true),
        ]);
        gradcheck::check(&[&[10, 24]], 1, |tape, v, _| attention(tape, &v[0], &span_groups, heads));
    }

    #[test]
    fn trees_that_begin_with_the_same_rows_agree_with_finite_differences() {
        let heads = Heads { query: 4, key_value: 2, dim: 3 };
        let span_groups = Arc::new(vec![
            SpanGroup::single(0..3, true),
            span_group(0..3, &[span(3..5, 3..3, true), span(5..6, 3..5, true), span(6..8, 3..5, true)]),
            span_group(0..3, &[span(8..10, 8..8, true)]),
        ]);
        gradcheck::check(&[&[10, 24]], 1, |tape, v, _| attention(tape, &v[0], &span_groups, heads));
    }

    #[test]
    fn full_attention_in_windows_agrees_with_finite_differences() {
        let heads = Heads { query: 2, key_value: 2, dim: 4 };
        let span_groups = Arc::new(vec![
            SpanGroup::single(3..8, false),
            SpanGroup::single(0..3, false),
            SpanGroup::single(8..9, false),
        ]);
        gradcheck::check(&[&[9, 24]], 1, |tape, v, _| attention(tape, &v[0], &span_groups, heads));
    }

    #[test]
    fn sequences_longer_than_a_block_agree_with_the_composition() {
        let heads = Heads { query: 2, key_value: 1, dim: 8 };
        let span_groups = Arc::new(vec![
            SpanGroup::single(0..80, true),
            span_group(0..80, &[span(80..150, 80..80, true), span(150..230, 80..150, true)]),
        ]);
        let x = gradcheck::tensor(&[230, 32], 1);
        let run = |tape: Tape| {
            let leaf = tape.leaf(x.copy().unwrap());
            let y = attention(&tape, &leaf, &span_groups, heads).unwrap();
            let out = y.tensor.clone();
            let seed = gradcheck::tensor(&[230, 16], 2);
            (out, tape.backward_with_leaves(vec![(y, seed)], &[&leaf]).unwrap().remove(0).unwrap())
        };
        let (fused, composed) = (run(Tape::new()), run(Tape::new().reference()));
        assert!(gradcheck::relative_error(&fused.0, &composed.0) < 2e-6);
        assert!(gradcheck::relative_error(&fused.1, &composed.1) < 1e-5);
    }

    #[test]
    fn a_response_computed_after_shared_rows_equals_one_computed_alone() {
        let heads = Heads { query: 2, key_value: 1, dim: 8 };
        let x = gradcheck::tensor(&[9, 32], 1);
        let tape = Tape::no_grad();
        let shared = Arc::new(vec![
            SpanGroup::single(0..2, true),
            span_group(0..2, &[span(2..5, 2..2, true), span(5..7, 2..5, true), span(7..9, 2..5, true)]),
        ]);
        let y = attention(&tape, &Value::constant(x.clone()), &shared, heads).unwrap().tensor;
        let alone = Tensor::cat(&[x.narrow(0, 0, 5).unwrap(), x.narrow(0, 7, 2).unwrap()], 0).unwrap();
        let plain = Arc::new(vec![SpanGroup::single(0..7, true)]);
        let z = attention(&tape, &Value::constant(alone), &plain, heads).unwrap().tensor;
        assert!(gradcheck::relative_error(&y.narrow(0, 7, 2).unwrap(), &z.narrow(0, 5, 2).unwrap()) < 1e-6);
    }
}
