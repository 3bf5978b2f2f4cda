//! The CPU kernel: one span group of spans and one key-value head at a time.
//!
//! A span's keys and values are gathered once, and the query heads that share them are stacked, so that its few, small
//! products are as large as they can be.

use super::{Heads, Span, SpanGroup};
use crate::nn::math::{exp, fold2, max, sum};
use crate::nn::matmul::matmul_raw;
use multiversion::multiversion;
use std::cell::RefCell;
use std::ops::Range;

/// A pointer that tasks write through, each to elements of its own.
#[derive(Clone, Copy)]
pub struct Shared(pub *mut f32);
// SAFETY: a task writes only to the rows of its span group in the columns of its heads, and no two tasks share both.
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

impl Shared {
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

/// Memory that the tasks of a thread use again and again.
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

/// One span group of spans and one key-value head with the query heads that share it.
pub struct Task<'a> {
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
struct Block {
    rows: Range<usize>,
    /// Keys that any of the rows sees: the first ones of the span's.
    keys: usize,
    /// Keys that the first row sees.
    first: usize,
    causal: bool,
}

impl Block {
    /// Keys that row `i` of the block sees.
    fn visible(&self, i: usize) -> usize {
        if self.causal { self.first + i } else { self.keys }
    }
}

/// The first `len` elements of a scratch vector.
fn sized(scratch: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    &mut scratch[..len]
}

impl Task<'_> {
    /// Rows that a span sees, in order: those shared with other span groups, its prefix, its own.
    fn seen(&self, span: &Span) -> impl Iterator<Item = usize> {
        self.span_group.shared.clone().chain(span.prefix.clone()).chain(span.rows.clone())
    }

    fn blocks(&self, span: &Span) -> impl Iterator<Item = Block> {
        let at_once = (128 / self.heads.group()).clamp(16, 64);
        let before = self.span_group.shared.len() + span.prefix.len();
        let (own, causal) = (span.rows.clone(), span.causal);
        span.rows.clone().step_by(at_once).map(move |start| {
            let rows = start..own.end.min(start + at_once);
            let keys = before + if causal { rows.end - own.start } else { own.len() };
            Block { keys, first: before + start - own.start + 1, rows, causal }
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
    fn gather_group(&self, to: &mut [f32], from: &[f32], stride: usize, block: &Block) {
        let size = block.rows.len() * self.heads.dim;
        for (to, head) in to.chunks_exact_mut(size).zip(self.group()) {
            self.gather(to, from, stride, self.heads.query_at(head), block.rows.clone());
        }
    }

    /// Write the group's heads of the block's rows back.
    fn scatter_group(&self, from: &[f32], to: Shared, stride: usize, block: &Block) {
        let dim = self.heads.dim;
        for (from, head) in from.chunks_exact(block.rows.len() * dim).zip(self.group()) {
            for (from, row) in from.chunks_exact(dim).zip(block.rows.clone()) {
                // SAFETY: the rows of the span group, in the columns of its heads, belong to this task.
                unsafe { to.slice(row * stride + self.heads.query_at(head), dim) }.copy_from_slice(from);
            }
        }
    }

    /// Writes the group's heads of `out` (`[rows, q dim]`) and of `lse` (`[q, rows]`).
    pub fn forward(&self, out: Shared, lse: Shared) {
        let heads = self.heads;
        let (dim, stride, width) = (heads.dim, heads.stride(), heads.query * heads.dim);
        let scale = 1.0 / (dim as f32).sqrt();
        SCRATCH.with_borrow_mut(|scratch| {
            for span in &self.span_group.spans {
                let count = self.seen(span).count();
                let keys = sized(&mut scratch.keys, count * dim);
                self.gather(keys, self.qkv, stride, heads.key_at(self.kv_head), self.seen(span));
                let values = sized(&mut scratch.values, count * dim);
                self.gather(values, self.qkv, stride, heads.value_at(self.kv_head), self.seen(span));
                for block in self.blocks(span) {
                    let rows = heads.group() * block.rows.len();
                    let query = sized(&mut scratch.query, rows * dim);
                    self.gather_group(query, self.qkv, stride, &block);
                    let scores = sized(&mut scratch.scores, rows * block.keys);
                    product((rows, block.keys, dim), scores, (query, dim, 1), (keys, 1, dim), false);
                    for (i, row) in scores.chunks_exact_mut(block.keys).enumerate() {
                        let (head, i) = (self.group().start + i / block.rows.len(), i % block.rows.len());
                        let total = softmax(row, block.visible(i), scale);
                        // SAFETY: element (head, row) of lse belongs to this task.
                        unsafe { lse.slice(head * self.rows + block.rows.start + i, 1)[0] = total };
                    }
                    let result = sized(&mut scratch.out, rows * dim);
                    product((rows, dim, block.keys), result, (scores, block.keys, 1), (values, dim, 1), false);
                    self.scatter_group(result, out, width, &block);
                }
            }
        });
    }

    /// Writes dq, adds to dk and dv (which start at zero) of the key-value head. Returns dk and dv of the shared rows:
    /// `[shared rows, 2 dim]`.
    pub fn backward(&self, grad: &[f32], lse: &[f32], d_qkv: Shared) -> Vec<f32> {
        let heads = self.heads;
        let (dim, stride, width) = (heads.dim, heads.stride(), heads.query * heads.dim);
        let scale = 1.0 / (dim as f32).sqrt();
        let mut kept = vec![0.0; self.span_group.shared.len() * 2 * dim];
        SCRATCH.with_borrow_mut(|scratch| {
            for span in &self.span_group.spans {
                let count = self.seen(span).count();
                let keys = sized(&mut scratch.keys, count * dim);
                self.gather(keys, self.qkv, stride, heads.key_at(self.kv_head), self.seen(span));
                let values = sized(&mut scratch.values, count * dim);
                self.gather(values, self.qkv, stride, heads.value_at(self.kv_head), self.seen(span));
                let (d_keys, d_values) =
                    (sized(&mut scratch.d_keys, count * dim), sized(&mut scratch.d_values, count * dim));
                d_keys.fill(0.0);
                d_values.fill(0.0);
                for block in self.blocks(span) {
                    let rows = heads.group() * block.rows.len();
                    let size = rows * block.keys;
                    let query = sized(&mut scratch.query, rows * dim);
                    self.gather_group(query, self.qkv, stride, &block);
                    let d_out = sized(&mut scratch.out, rows * dim);
                    self.gather_group(d_out, grad, width, &block);
                    let (p, ds) = (sized(&mut scratch.scores, size), sized(&mut scratch.d_scores, size));
                    product((rows, block.keys, dim), p, (query, dim, 1), (keys, 1, dim), false);
                    product((rows, block.keys, dim), ds, (d_out, dim, 1), (values, 1, dim), false);
                    for (i, (p, ds)) in p.chunks_exact_mut(block.keys).zip(ds.chunks_exact_mut(block.keys)).enumerate()
                    {
                        let (head, i) = (self.group().start + i / block.rows.len(), i % block.rows.len());
                        let lse = lse[head * self.rows + block.rows.start + i];
                        softmax_backward(p, ds, block.visible(i), lse, scale);
                    }
                    // dk += ds^T q, dv += p^T do, then dq = ds k in the place of do.
                    product((block.keys, dim, rows), d_keys, (ds, 1, block.keys), (query, dim, 1), true);
                    product((block.keys, dim, rows), d_values, (p, 1, block.keys), (d_out, dim, 1), true);
                    product((rows, dim, block.keys), d_out, (ds, block.keys, 1), (keys, dim, 1), false);
                    self.scatter_group(d_out, d_qkv, stride, &block);
                }
                let shared = kept.len() / 2;
                for ((kept, dk), dv) in kept.chunks_exact_mut(2 * dim).zip(d_keys.chunks(dim)).zip(d_values.chunks(dim))
                {
                    add(&mut kept[..dim], dk);
                    add(&mut kept[dim..], dv);
                }
                for (from, column) in
                    [(&*d_keys, heads.key_at(self.kv_head)), (&*d_values, heads.value_at(self.kv_head))]
                {
                    let rows = span.prefix.clone().chain(span.rows.clone());
                    for (from, row) in from[shared..].chunks_exact(dim).zip(rows) {
                        // SAFETY: the rows of the span group, in the columns of this key-value head, belong to this task.
                        add(unsafe { d_qkv.slice(row * stride + column, dim) }, from);
                    }
                }
            }
        });
        kept
    }
}

fn add(sums: &mut [f32], more: &[f32]) {
    for (s, m) in sums.iter_mut().zip(more) {
        *s += m;
    }
}

/// `c = a b` or `c += a b` for `c` `[m, n]` in one run and operands given with row and column stride; (m, n, inner).
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

/// Softmax of `scale * row[..visible]` in place, zero beyond; returns the log-sum-exp.
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
