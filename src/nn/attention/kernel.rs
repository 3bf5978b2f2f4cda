//! The CPU kernel: one span group and one key-value head at a time.
//!
//! The keys and values of a span are gathered once, and the query heads that share them are stacked: few products, as large as
//! possible.

use super::heads::Heads;
use super::span::{Span, SpanGroup};
use crate::nn::math::{exp, fold2, max, sum};
use crate::nn::matmul::matmul_raw;
use multiversion::multiversion;
use std::cell::RefCell;
use std::ops::Range;

/// A pointer through which several [`GroupHead`]s write, each to elements of its own.
#[derive(Clone, Copy)]
pub struct SharedOutput(pub *mut f32);
// SAFETY: a `GroupHead` writes only to the rows of its span group in the columns of its heads, and no two share both.
unsafe impl Send for SharedOutput {}
unsafe impl Sync for SharedOutput {}

impl SharedOutput {
    /// `count` elements from `offset` on.
    ///
    /// # Safety
    /// They must be in bounds, and nothing else may access them meanwhile.
    unsafe fn slice<'a>(self, offset: usize, count: usize) -> &'a mut [f32] {
        // SAFETY: as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(offset), count) }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Buffers that a thread reuses.
#[derive(Default)]
struct Scratch {
    /// `[keys, dim]` each.
    keys: Vec<f32>,
    values: Vec<f32>,
    d_keys: Vec<f32>,
    d_values: Vec<f32>,
    /// `[group * rows, dim]` each: head after head.
    query: Vec<f32>,
    out: Vec<f32>,
    /// `[group * rows, keys]` each.
    scores: Vec<f32>,
    d_scores: Vec<f32>,
}

/// One span group and one key-value head with the query heads that share it.
pub struct GroupHead<'a> {
    /// All rows: `[rows, (q + 2 kv) dim]`.
    pub qkv: &'a [f32],
    /// Their number.
    pub rows: usize,
    /// Head counts.
    pub heads: Heads,
    /// The span group.
    pub span_group: &'a SpanGroup,
    /// The head.
    pub kv_head: usize,
}

/// Some query rows of a span.
struct QueryBlock {
    rows: Range<usize>,
    /// Number of keys that any of the rows attends to: the first ones of the span.
    keys: usize,
    /// Number of keys that the first row attends to.
    first: usize,
    causal: bool,
}

impl QueryBlock {
    /// Number of keys that row `i` of the block attends to.
    fn visible(&self, i: usize) -> usize {
        if self.causal { self.first + i } else { self.keys }
    }
}

/// The first `len` elements of a scratch vector.
fn scratch_slice(scratch: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    &mut scratch[..len]
}

impl GroupHead<'_> {
    /// Rows that a span attends to, in order: the shared prefix, its own prefix, its rows.
    fn key_rows(&self, span: &Span) -> impl Iterator<Item = usize> {
        self.span_group.shared_prefix.clone().chain(span.prefix.clone()).chain(span.rows.clone())
    }

    fn blocks(&self, span: &Span) -> impl Iterator<Item = QueryBlock> {
        let block_rows = (128 / self.heads.group()).clamp(16, 64);
        let before = self.span_group.shared_prefix.len() + span.prefix.len();
        let (own, causal) = (span.rows.clone(), span.causal);
        span.rows.clone().step_by(block_rows).map(move |start| {
            let rows = start..own.end.min(start + block_rows);
            let keys = before + if causal { rows.end - own.start } else { own.len() };
            QueryBlock { keys, first: before + start - own.start + 1, rows, causal }
        })
    }

    /// Copy one head of `rows` of a matrix of `stride` columns: `[rows, dim]`.
    fn gather(&self, to: &mut [f32], from: &[f32], stride: usize, column: usize, rows: impl Iterator<Item = usize>) {
        let dim = self.heads.dim;
        for (to, row) in to.chunks_exact_mut(dim).zip(rows) {
            to.copy_from_slice(&from[row * stride + column..][..dim]);
        }
    }

    /// The query heads of the group, one after the other.
    fn group(&self) -> Range<usize> {
        self.kv_head * self.heads.group()..(self.kv_head + 1) * self.heads.group()
    }

    /// Copy the group's heads of the block's rows: `[group * rows, dim]`.
    fn gather_group(&self, to: &mut [f32], from: &[f32], stride: usize, block: &QueryBlock) {
        let size = block.rows.len() * self.heads.dim;
        for (to, head) in to.chunks_exact_mut(size).zip(self.group()) {
            self.gather(to, from, stride, self.heads.query_at(head), block.rows.clone());
        }
    }

    /// Write the group's heads of the block's rows back.
    fn scatter_group(&self, from: &[f32], to: SharedOutput, stride: usize, block: &QueryBlock) {
        let dim = self.heads.dim;
        for (from, head) in from.chunks_exact(block.rows.len() * dim).zip(self.group()) {
            for (from, row) in from.chunks_exact(dim).zip(block.rows.clone()) {
                // SAFETY: the rows of the span group, in the columns of its heads, are written only here.
                unsafe { to.slice(row * stride + self.heads.query_at(head), dim) }.copy_from_slice(from);
            }
        }
    }

    /// Writes the group's heads of `out` (`[rows, q dim]`) and of `lse` (`[q, rows]`).
    pub fn forward(&self, out: SharedOutput, lse: SharedOutput) {
        let heads = self.heads;
        let (dim, stride, width) = (heads.dim, heads.stride(), heads.query * heads.dim);
        let scale = 1.0 / (dim as f32).sqrt();
        SCRATCH.with_borrow_mut(|scratch| {
            for span in &self.span_group.spans {
                let count = self.key_rows(span).count();
                let keys = scratch_slice(&mut scratch.keys, count * dim);
                self.gather(keys, self.qkv, stride, heads.key_at(self.kv_head), self.key_rows(span));
                let values = scratch_slice(&mut scratch.values, count * dim);
                self.gather(values, self.qkv, stride, heads.value_at(self.kv_head), self.key_rows(span));
                for block in self.blocks(span) {
                    let rows = heads.group() * block.rows.len();
                    let query = scratch_slice(&mut scratch.query, rows * dim);
                    self.gather_group(query, self.qkv, stride, &block);
                    let scores = scratch_slice(&mut scratch.scores, rows * block.keys);
                    product((rows, block.keys, dim), scores, (query, dim, 1), (keys, 1, dim), false);
                    for (i, row) in scores.chunks_exact_mut(block.keys).enumerate() {
                        let (head, i) = (self.group().start + i / block.rows.len(), i % block.rows.len());
                        let total = softmax(row, block.visible(i), scale);
                        // SAFETY: element (head, row) of lse is written only here.
                        unsafe { lse.slice(head * self.rows + block.rows.start + i, 1)[0] = total };
                    }
                    let result = scratch_slice(&mut scratch.out, rows * dim);
                    product((rows, dim, block.keys), result, (scores, block.keys, 1), (values, dim, 1), false);
                    self.scatter_group(result, out, width, &block);
                }
            }
        });
    }

    /// Writes dq and adds to dk and dv (zero at first) of the key-value head. Returns dk and dv of the shared prefix:
    /// `[prefix rows, 2 dim]`.
    pub fn backward(&self, grad: &[f32], lse: &[f32], d_qkv: SharedOutput) -> Vec<f32> {
        let heads = self.heads;
        let (dim, stride, width) = (heads.dim, heads.stride(), heads.query * heads.dim);
        let scale = 1.0 / (dim as f32).sqrt();
        let mut prefix_grads = vec![0.0; self.span_group.shared_prefix.len() * 2 * dim];
        SCRATCH.with_borrow_mut(|scratch| {
            for span in &self.span_group.spans {
                let count = self.key_rows(span).count();
                let keys = scratch_slice(&mut scratch.keys, count * dim);
                self.gather(keys, self.qkv, stride, heads.key_at(self.kv_head), self.key_rows(span));
                let values = scratch_slice(&mut scratch.values, count * dim);
                self.gather(values, self.qkv, stride, heads.value_at(self.kv_head), self.key_rows(span));
                let (d_keys, d_values) = (
                    scratch_slice(&mut scratch.d_keys, count * dim),
                    scratch_slice(&mut scratch.d_values, count * dim),
                );
                d_keys.fill(0.0);
                d_values.fill(0.0);
                for block in self.blocks(span) {
                    let rows = heads.group() * block.rows.len();
                    let size = rows * block.keys;
                    let query = scratch_slice(&mut scratch.query, rows * dim);
                    self.gather_group(query, self.qkv, stride, &block);
                    let d_out = scratch_slice(&mut scratch.out, rows * dim);
                    self.gather_group(d_out, grad, width, &block);
                    let (p, ds) =
                        (scratch_slice(&mut scratch.scores, size), scratch_slice(&mut scratch.d_scores, size));
                    product((rows, block.keys, dim), p, (query, dim, 1), (keys, 1, dim), false);
                    product((rows, block.keys, dim), ds, (d_out, dim, 1), (values, 1, dim), false);
                    for (i, (p, ds)) in p.chunks_exact_mut(block.keys).zip(ds.chunks_exact_mut(block.keys)).enumerate()
                    {
                        let (head, i) = (self.group().start + i / block.rows.len(), i % block.rows.len());
                        let lse = lse[head * self.rows + block.rows.start + i];
                        softmax_backward(p, ds, block.visible(i), lse, scale);
                    }
                    // dk += ds^T q, dv += p^T do, then dq = ds k, which overwrites do.
                    product((block.keys, dim, rows), d_keys, (ds, 1, block.keys), (query, dim, 1), true);
                    product((block.keys, dim, rows), d_values, (p, 1, block.keys), (d_out, dim, 1), true);
                    product((rows, dim, block.keys), d_out, (ds, block.keys, 1), (keys, dim, 1), false);
                    self.scatter_group(d_out, d_qkv, stride, &block);
                }
                let shared = prefix_grads.len() / 2;
                for ((prefix_grads, dk), dv) in
                    prefix_grads.chunks_exact_mut(2 * dim).zip(d_keys.chunks(dim)).zip(d_values.chunks(dim))
                {
                    add(&mut prefix_grads[..dim], dk);
                    add(&mut prefix_grads[dim..], dv);
                }
                for (from, column) in
                    [(&*d_keys, heads.key_at(self.kv_head)), (&*d_values, heads.value_at(self.kv_head))]
                {
                    let rows = span.prefix.clone().chain(span.rows.clone());
                    for (from, row) in from[shared..].chunks_exact(dim).zip(rows) {
                        // SAFETY: the rows of the span group, in the columns of this key-value head, are written only here.
                        add(unsafe { d_qkv.slice(row * stride + column, dim) }, from);
                    }
                }
            }
        });
        prefix_grads
    }
}

fn add(sums: &mut [f32], more: &[f32]) {
    for (s, m) in sums.iter_mut().zip(more) {
        *s += m;
    }
}

/// `c = a b` or `c += a b` for contiguous `c` `[m, n]`, operands as (data, row stride, column stride), sizes (m, n, inner).
fn product(
    sizes: (usize, usize, usize),
    c: &mut [f32],
    a: (&[f32], usize, usize),
    b: (&[f32], usize, usize),
    add: bool,
) {
    let (m, n, inner) = sizes;
    let fits = |(x, row, column): (&[f32], usize, usize), rows: usize, columns: usize| {
        rows == 0 || columns == 0 || (rows - 1) * row + (columns - 1) * column < x.len()
    };
    assert!(m * n <= c.len() && fits(a, m, inner) && fits(b, inner, n), "attention product out of bounds");
    // SAFETY: every element addressed is in bounds (just checked), and `c` is borrowed exclusively.
    unsafe {
        matmul_raw(sizes, (c.as_mut_ptr(), n, 1), (a.0.as_ptr(), a.1, a.2), (b.0.as_ptr(), b.1, b.2), add);
    }
}

/// Softmax of `scale * row[..visible]` in place, zeros after; returns the log-sum-exp.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn softmax(row: &mut [f32], visible: usize, scale: f32) -> f32 {
    let (seen, hidden) = row.split_at_mut(visible);
    let top = max(seen) * scale;
    for x in seen.iter_mut() {
        *x = exp(*x * scale - top);
    }
    let total = sum(seen);
    let inverse = 1.0 / total;
    for x in seen.iter_mut() {
        *x *= inverse;
    }
    hidden.fill(0.0);
    top + total.ln()
}

/// From scores in `p` and dP in `dp`: probabilities in `p`, scale * dS in `dp`; zeros after `visible`.
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
