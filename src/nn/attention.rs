//! Scaled dot-product attention over ragged rows, with grouped-query heads.
//!
//! No padding and no mask matrix: a [`Span`] is a run of query rows that attend to themselves (causally or not) and to
//! earlier rows. Windows of the vision tower are spans; a prompt shared by several responses is one causal span, and
//! each response is a causal span with the prompt as its prefix, so that the prompt is computed once for all of them; what
//! several prompts begin with is computed once for all of those. Probabilities are recomputed in the backward pass from the saved log-sum-exp, one block of query rows at a time.

use crate::Result;
use crate::nn::math::{exp, fold2, max};
use crate::nn::matmul::matmul_raw;
use crate::nn::slice::{from_vec, read};
use crate::nn::{Tape, Value};
use candle_core::{D, DType, Device, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Query rows of one span and what they see.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Query rows; they are keys for each other.
    pub rows: Range<usize>,
    /// Rows of the same tree seen in full by every query row; may be empty.
    pub prefix: Range<usize>,
    /// Whether a row sees only the rows of the span up to itself, or all of them.
    pub causal: bool,
}

/// Spans that see rows of one another, and rows of another tree that they all see first.
#[derive(Debug, Clone, PartialEq)]
pub struct Tree {
    /// Rows of another tree, which sees nothing of this one; may be empty.
    pub shared: Range<usize>,
    /// The spans.
    pub spans: Vec<Span>,
}

impl Tree {
    /// One span that sees only itself.
    pub fn alone(rows: Range<usize>, causal: bool) -> Self {
        let prefix = rows.start..rows.start;
        Tree { shared: prefix.clone(), spans: vec![Span { rows, prefix, causal }] }
    }
}

/// Head counts and width of a head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key and value heads; a divisor of `query`.
    pub key_value: usize,
    /// Elements of a head.
    pub dim: usize,
}

impl Heads {
    /// Elements of a row that holds all query, then all key, then all value heads.
    pub fn stride(self) -> usize {
        (self.query + 2 * self.key_value) * self.dim
    }

    fn group(self) -> usize {
        self.query / self.key_value
    }

    fn query_at(self, head: usize) -> usize {
        head * self.dim
    }

    fn key_at(self, kv_head: usize) -> usize {
        (self.query + kv_head) * self.dim
    }

    fn value_at(self, kv_head: usize) -> usize {
        (self.query + self.key_value + kv_head) * self.dim
    }
}

/// Query rows handled at once: scores take `BLOCK` x keys elements of scratch memory.
const BLOCK: usize = 64;

/// Attention of `qkv` `[rows, (q + 2 kv) dim]` (positions already applied): `[rows, q dim]`.
/// A row must be in exactly one span.
pub fn attention(tape: &Tape, qkv: &Value, trees: &Arc<Vec<Tree>>, heads: Heads) -> Result<Value> {
    let (rows, _) = qkv.tensor.dims2()?;
    if !tape.fuses(&qkv.tensor) {
        return composed(tape, qkv, trees, heads);
    }
    let width = heads.query * heads.dim;
    let mut out = vec![0.0; rows * width];
    let mut lse = vec![0.0; heads.query * rows];
    {
        let qkv = read(&qkv.tensor)?;
        let (out, lse) = (Shared(out.as_mut_ptr()), Shared(lse.as_mut_ptr()));
        let qkv = &*qkv;
        tasks(trees, heads.query).into_par_iter().for_each(|(tree, head)| {
            let task = Task { qkv, rows, heads, tree };
            task.forward(head, out, lse);
        });
    }
    let (qkv_tensor, node, trees) = (qkv.tensor.clone(), qkv.node(), Arc::clone(trees));
    Ok(tape.record(from_vec(out, (rows, width))?, qkv.tracked(), move |grad, grads| {
        let mut d_qkv = vec![0.0; rows * heads.stride()];
        {
            let (qkv, grad) = (read(&qkv_tensor)?, read(&grad)?);
            let (qkv, grad, lse) = (&*qkv, &*grad, &*lse);
            let target = Shared(d_qkv.as_mut_ptr());
            // What a tree adds to rows of another one it keeps apart: those are summed afterwards, in the order of the trees.
            let kept: Vec<Vec<f32>> = tasks(&trees, heads.key_value)
                .into_par_iter()
                .map(|(tree, kv_head)| Task { qkv, rows, heads, tree }.backward(kv_head, grad, lse, target))
                .collect();
            for ((tree, kv_head), kept) in tasks(&trees, heads.key_value).into_iter().zip(&kept) {
                add_shared(&mut d_qkv, kept, &tree.shared, kv_head, heads);
            }
        }
        grads.add(node, from_vec(d_qkv, (rows, heads.stride()))?)
    }))
}

fn tasks(trees: &[Tree], heads: usize) -> Vec<(&Tree, usize)> {
    trees.iter().flat_map(|tree| (0..heads).map(move |head| (tree, head))).collect()
}

/// Add gradients of the keys, then the values, of shared rows (`[rows, 2 dim]`) to their place.
fn add_shared(d_qkv: &mut [f32], kept: &[f32], shared: &Range<usize>, kv_head: usize, heads: Heads) {
    let dim = heads.dim;
    for (row, kept) in shared.clone().zip(kept.chunks_exact(2 * dim)) {
        for (at, kept) in [heads.key_at(kv_head), heads.value_at(kv_head)].into_iter().zip(kept.chunks_exact(dim)) {
            let at = row * heads.stride() + at;
            for (sum, k) in d_qkv[at..at + dim].iter_mut().zip(kept) {
                *sum += k;
            }
        }
    }
}

/// A pointer that tasks write through, each to elements of its own.
#[derive(Clone, Copy)]
struct Shared(*mut f32);
// SAFETY: a task writes only to the rows of its tree in the columns of its head(s), and no two tasks share both.
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

impl Shared {
    fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

thread_local! {
    static SCRATCH: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// One tree of spans.
struct Task<'a> {
    qkv: &'a [f32],
    rows: usize,
    heads: Heads,
    tree: &'a Tree,
}

/// A block of query rows of a span.
struct Block<'a> {
    shared: &'a Range<usize>,
    span: &'a Span,
    /// First query row.
    start: usize,
    /// Number of query rows.
    rows: usize,
    /// Keys of the span itself that any row of the block sees.
    own: usize,
}

/// Consecutive keys of a block.
struct Run {
    /// First row.
    first: usize,
    /// Number of rows.
    count: usize,
    /// First column in the scores.
    column: usize,
    /// Rows of another tree.
    shared: bool,
}

impl Block<'_> {
    /// Keys before those of the span itself.
    fn before(&self) -> usize {
        self.shared.len() + self.span.prefix.len()
    }

    fn keys(&self) -> usize {
        self.before() + self.own
    }

    /// Keys that row `i` of the block sees.
    fn visible(&self, i: usize) -> usize {
        if self.span.causal { self.before() + self.start - self.span.rows.start + i + 1 } else { self.keys() }
    }

    /// The runs of keys that are not empty.
    fn runs(&self) -> impl Iterator<Item = Run> {
        let (shared, prefix) = (self.shared, &self.span.prefix);
        let run = |first, count, column, shared| Run { first, count, column, shared };
        let runs = [
            run(shared.start, shared.len(), 0, true),
            run(prefix.start, prefix.len(), shared.len(), false),
            run(self.span.rows.start, self.own, self.before(), false),
        ];
        runs.into_iter().filter(|run| run.count > 0)
    }
}

impl Task<'_> {
    fn blocks(&self) -> impl Iterator<Item = Block<'_>> {
        let shared = &self.tree.shared;
        self.tree.spans.iter().flat_map(move |span| {
            span.rows.clone().step_by(BLOCK).map(move |start| {
                let rows = BLOCK.min(span.rows.end - start);
                let own = if span.causal { start + rows - span.rows.start } else { span.rows.len() };
                Block { shared, span, start, rows, own }
            })
        })
    }

    fn at(&self, row: usize, column: usize) -> *const f32 {
        debug_assert!(row < self.rows);
        self.qkv[row * self.heads.stride() + column..].as_ptr()
    }

    /// `s[rows, keys] = q k^T` for one block and head.
    fn scores(&self, block: &Block, query: *const f32, query_stride: usize, key_column: usize, s: &mut [f32]) {
        for Run { first, count, column, .. } in block.runs() {
            let key = self.at(first, key_column);
            // SAFETY: `query` points at `block.rows` rows of `dim` elements, `key` at `count` of them; `s` holds rows x keys.
            unsafe {
                matmul_raw(
                    (block.rows, count, self.heads.dim),
                    (s[column..].as_mut_ptr(), block.keys(), 1),
                    (query, query_stride, 1),
                    (key, 1, self.heads.stride()),
                    false,
                );
            }
        }
    }

    fn forward(&self, head: usize, out: Shared, lse: Shared) {
        let heads = self.heads;
        let (width, scale) = (heads.query * heads.dim, 1.0 / (heads.dim as f32).sqrt());
        let kv_head = head / heads.group();
        SCRATCH.with_borrow_mut(|[s, _]| {
            for block in self.blocks() {
                let keys = block.keys();
                s.resize(s.len().max(block.rows * keys), 0.0);
                let s = &mut s[..block.rows * keys];
                self.scores(
                    &block,
                    self.at(block.start, heads.query_at(head)),
                    heads.stride(),
                    heads.key_at(kv_head),
                    s,
                );
                for (i, row) in s.chunks_exact_mut(keys).enumerate() {
                    let total = softmax(row, block.visible(i), scale);
                    // SAFETY: element (head, row) of lse belongs to this task.
                    unsafe { *lse.at(head * self.rows + block.start + i) = total };
                }
                let target = out.at(block.start * width + heads.query_at(head));
                for Run { first, count, column, .. } in block.runs() {
                    // SAFETY: the rows of the block, in the columns of this head, belong to this task.
                    unsafe {
                        matmul_raw(
                            (block.rows, heads.dim, count),
                            (target, width, 1),
                            (s[column..].as_ptr(), keys, 1),
                            (self.at(first, heads.value_at(kv_head)), heads.stride(), 1),
                            column > 0,
                        );
                    }
                }
            }
        });
    }

    /// Writes dq, adds to dk and dv (which start at zero) of one key-value head. Returns dk and dv of the shared rows:
    /// `[shared rows, 2 dim]`.
    fn backward(&self, kv_head: usize, grad: &[f32], lse: &[f32], d_qkv: Shared) -> Vec<f32> {
        let heads = self.heads;
        let mut kept = vec![0.0; self.tree.shared.len() * 2 * heads.dim];
        let (width, stride) = (heads.query * heads.dim, heads.stride());
        let scale = 1.0 / (heads.dim as f32).sqrt();
        SCRATCH.with_borrow_mut(|[p, dp]| {
            for head in kv_head * heads.group()..(kv_head + 1) * heads.group() {
                for block in self.blocks() {
                    let keys = block.keys();
                    let size = block.rows * keys;
                    p.resize(p.len().max(size), 0.0);
                    dp.resize(dp.len().max(size), 0.0);
                    let (p, dp) = (&mut p[..size], &mut dp[..size]);
                    let query = self.at(block.start, heads.query_at(head));
                    let d_out = grad[block.start * width + heads.query_at(head)..].as_ptr();
                    self.scores(&block, query, stride, heads.key_at(kv_head), p);
                    self.scores(&block, d_out, width, heads.value_at(kv_head), dp);
                    for (i, (p, dp)) in p.chunks_exact_mut(keys).zip(dp.chunks_exact_mut(keys)).enumerate() {
                        let lse = lse[head * self.rows + block.start + i];
                        softmax_backward(p, dp, block.visible(i), lse, scale);
                    }
                    for Run { first, count, column, shared } in block.runs() {
                        let (p, ds) = (p[column..].as_ptr(), dp[column..].as_ptr());
                        let (dk, dv) = match shared {
                            true => {
                                let kept = Shared(kept.as_mut_ptr());
                                ((kept.at(0), 2 * heads.dim, 1), (kept.at(heads.dim), 2 * heads.dim, 1))
                            }
                            false => (
                                (d_qkv.at(first * stride + heads.key_at(kv_head)), stride, 1),
                                (d_qkv.at(first * stride + heads.value_at(kv_head)), stride, 1),
                            ),
                        };
                        // SAFETY: the rows of the tree, in the columns of this key-value head and of its query heads, belong to
                        // this task, and `kept` is its own.
                        unsafe {
                            // dq (+)= ds k
                            matmul_raw(
                                (block.rows, heads.dim, count),
                                (d_qkv.at(block.start * stride + heads.query_at(head)), stride, 1),
                                (ds, keys, 1),
                                (self.at(first, heads.key_at(kv_head)), stride, 1),
                                column > 0,
                            );
                            // dk += ds^T q
                            matmul_raw((count, heads.dim, block.rows), dk, (ds, 1, keys), (query, stride, 1), true);
                            // dv += p^T do
                            matmul_raw((count, heads.dim, block.rows), dv, (p, 1, keys), (d_out, width, 1), true);
                        }
                    }
                }
            }
        });
        kept
    }
}

/// Softmax of `scale * row[..visible]` in place, zero beyond; returns the log-sum-exp.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn softmax(row: &mut [f32], visible: usize, scale: f32) -> f32 {
    let (seen, hidden) = row.split_at_mut(visible);
    let top = max(seen) * scale;
    for x in seen.iter_mut() {
        *x = exp(*x * scale - top);
    }
    let total = super::math::sum(seen);
    let inverse = 1.0 / total;
    for x in seen.iter_mut() {
        *x *= inverse;
    }
    hidden.fill(0.0);
    top + total.ln()
}

/// From scores in `p` and dP in `dp`: probabilities in `p`, scale * dS in `dp`; zero beyond `visible`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn softmax_backward(p: &mut [f32], dp: &mut [f32], visible: usize, lse: f32, scale: f32) {
    let (seen, hidden) = p.split_at_mut(visible);
    let (d_seen, d_hidden) = dp.split_at_mut(visible);
    for x in seen.iter_mut() {
        *x = exp(*x * scale - lse);
    }
    let mean = fold2(seen, d_seen, |a, b| a * b);
    for (x, d) in seen.iter().zip(d_seen.iter_mut()) {
        *d = x * (*d - mean) * scale;
    }
    hidden.fill(0.0);
    d_hidden.fill(0.0);
}

/// Spans of equal shape as one batch: (query rows, rows seen before them, causal) -> (first query row, rows seen before it).
type Shapes = BTreeMap<(usize, usize, bool), Vec<(usize, Vec<u32>)>>;

fn composed(tape: &Tape, qkv: &Value, trees: &Arc<Vec<Tree>>, heads: Heads) -> Result<Value> {
    let mut shapes = Shapes::new();
    for tree in trees.iter() {
        for span in &tree.spans {
            let before: Vec<u32> = tree.shared.clone().chain(span.prefix.clone()).map(|row| row as u32).collect();
            let starts = shapes.entry((span.rows.len(), before.len(), span.causal)).or_default();
            starts.push((span.rows.start, before));
        }
    }
    tape.compose(&[qkv], &[], move |xs, _| compose_shapes(&xs[0], &shapes, heads))
}

fn compose_shapes(qkv: &Tensor, shapes: &Shapes, heads: Heads) -> candle_core::Result<Tensor> {
    let (rows, _) = qkv.dims2()?;
    let device = qkv.device();
    let part = |first: usize, count: usize| -> candle_core::Result<Tensor> {
        qkv.narrow(1, first, count * heads.dim)?.contiguous()?.reshape((rows, count, heads.dim))
    };
    let grouped = |t: Tensor| -> candle_core::Result<Tensor> {
        let shape = (rows, heads.key_value, heads.group(), heads.dim);
        t.unsqueeze(2)?.broadcast_as(shape)?.contiguous()?.reshape((rows, heads.query, heads.dim))
    };
    let query = part(0, heads.query)?;
    let key = grouped(part(heads.key_at(0), heads.key_value)?)?;
    let value = grouped(part(heads.value_at(0), heads.key_value)?)?;
    let select = |t: &Tensor, index: &[u32], batch: usize| -> candle_core::Result<Tensor> {
        let index_tensor = Tensor::from_slice(index, index.len(), device)?;
        let shape = (batch, index.len() / batch, heads.query, heads.dim);
        t.index_select(&index_tensor, 0)?.reshape(shape)?.transpose(1, 2)?.contiguous()
    };
    let mut outputs = Vec::new();
    let mut order = Vec::new();
    for (&(len, prefix, causal), starts) in shapes {
        let run = |first: usize, count: usize| first as u32..(first + count) as u32;
        let own: Vec<u32> = starts.iter().flat_map(|(row, _)| run(*row, len)).collect();
        let seen: Vec<u32> =
            starts.iter().flat_map(|(row, before)| before.iter().copied().chain(run(*row, len))).collect();
        let (q, k, v) = (
            select(&query, &own, starts.len())?,
            select(&key, &seen, starts.len())?,
            select(&value, &seen, starts.len())?,
        );
        let mut scores = (q.matmul(&k.t()?.contiguous()?)? / (heads.dim as f64).sqrt())?;
        if causal {
            let mask: Vec<f32> = (0..len)
                .flat_map(|i| (0..prefix + len).map(move |j| if j > prefix + i { -1e30 } else { 0.0 }))
                .collect();
            let mask = Tensor::from_vec(mask, (1, 1, len, prefix + len), device)?.to_dtype(scores.dtype())?;
            scores = scores.broadcast_add(&mask)?;
        }
        // The composed softmax: it has a backward, `softmax_last_dim` has none.
        let p = candle_nn::ops::softmax(&scores, D::Minus1)?;
        let out = p.matmul(&v)?.transpose(1, 2)?.contiguous()?;
        outputs.push(out.reshape((own.len(), heads.query * heads.dim))?);
        order.extend(own);
    }
    let mut inverse = vec![0u32; rows];
    for (at, row) in order.iter().enumerate() {
        inverse[*row as usize] = at as u32;
    }
    let inverse = Tensor::from_vec(inverse, rows, &Device::Cpu)?.to_device(device)?.to_dtype(DType::U32)?;
    Tensor::cat(&outputs, 0)?.index_select(&inverse, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;

    fn span(rows: Range<usize>, prefix: Range<usize>, causal: bool) -> Span {
        Span { rows, prefix, causal }
    }

    fn tree(shared: Range<usize>, spans: &[Span]) -> Tree {
        Tree { shared, spans: spans.to_vec() }
    }

    #[test]
    fn causal_grouped_attention_with_shared_prefixes_agrees_with_finite_differences() {
        let heads = Heads { query: 4, key_value: 2, dim: 3 };
        // A prompt with two responses; a plain sequence.
        let trees = Arc::new(vec![
            tree(0..0, &[span(0..4, 0..0, true), span(4..6, 0..4, true), span(6..7, 0..4, true)]),
            Tree::alone(7..10, true),
        ]);
        check::op(&[&[10, 24]], 1, |tape, v, _| attention(tape, &v[0], &trees, heads));
    }

    #[test]
    fn trees_that_begin_with_the_same_rows_agree_with_finite_differences() {
        let heads = Heads { query: 4, key_value: 2, dim: 3 };
        let trees = Arc::new(vec![
            Tree::alone(0..3, true),
            tree(0..3, &[span(3..5, 3..3, true), span(5..6, 3..5, true), span(6..8, 3..5, true)]),
            tree(0..3, &[span(8..10, 8..8, true)]),
        ]);
        check::op(&[&[10, 24]], 1, |tape, v, _| attention(tape, &v[0], &trees, heads));
    }

    #[test]
    fn full_attention_in_windows_agrees_with_finite_differences() {
        let heads = Heads { query: 2, key_value: 2, dim: 4 };
        let trees = Arc::new(vec![Tree::alone(3..8, false), Tree::alone(0..3, false), Tree::alone(8..9, false)]);
        check::op(&[&[9, 24]], 1, |tape, v, _| attention(tape, &v[0], &trees, heads));
    }

    #[test]
    fn sequences_longer_than_a_block_agree_with_the_composition() {
        let heads = Heads { query: 2, key_value: 1, dim: 8 };
        let trees = Arc::new(vec![
            Tree::alone(0..80, true),
            tree(0..80, &[span(80..150, 80..80, true), span(150..230, 80..150, true)]),
        ]);
        let x = check::tensor(&[230, 32], 1);
        let run = |tape: Tape| {
            let leaf = tape.leaf(x.copy().unwrap());
            let y = attention(&tape, &leaf, &trees, heads).unwrap();
            let out = y.tensor.clone();
            let seed = check::tensor(&[230, 16], 2);
            (out, tape.backward_with(vec![(y, seed)], &[&leaf]).unwrap().remove(0).unwrap())
        };
        let (fused, composed) = (run(Tape::new()), run(Tape::new().composed()));
        assert!(check::distance(&fused.0, &composed.0) < 2e-6);
        assert!(check::distance(&fused.1, &composed.1) < 1e-5);
    }

    #[test]
    fn a_response_computed_after_shared_rows_equals_one_computed_alone() {
        let heads = Heads { query: 2, key_value: 1, dim: 8 };
        let x = check::tensor(&[9, 32], 1);
        let tape = Tape::forward_only();
        let shared = Arc::new(vec![
            Tree::alone(0..2, true),
            tree(0..2, &[span(2..5, 2..2, true), span(5..7, 2..5, true), span(7..9, 2..5, true)]),
        ]);
        let y = attention(&tape, &Value::constant(x.clone()), &shared, heads).unwrap().tensor;
        let alone = Tensor::cat(&[x.narrow(0, 0, 5).unwrap(), x.narrow(0, 7, 2).unwrap()], 0).unwrap();
        let plain = Arc::new(vec![Tree::alone(0..7, true)]);
        let z = attention(&tape, &Value::constant(alone), &plain, heads).unwrap().tensor;
        assert!(check::distance(&y.narrow(0, 7, 2).unwrap(), &z.narrow(0, 5, 2).unwrap()) < 1e-6);
    }
}
