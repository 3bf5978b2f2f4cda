//! Attention in decoding: new rows over cached keys and values, for several samples that share the cache of their prompt.

use super::attention::Heads;
use super::softmax::softmax;
use multiversion::multiversion;

/// Tokens (of keys) or dimensions (of values) per vector step; both are padded to a multiple of it.
const LANES: usize = 16;

/// Query rows per pass over the cache.
const ROWS: usize = 4;

/// Cached keys and values of one layer for a run of tokens, with a fixed capacity.
/// Keys are `[kv heads, dim, capacity]` (contiguous over tokens, so that scores vectorise over them), values
/// `[kv heads, capacity, dim]`; the capacity and the values' dim are padded.
#[derive(Debug, Clone, Default)]
pub struct KvBuffer {
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Requested capacity in tokens.
    capacity: usize,
    /// The same, padded: as allocated.
    padded_capacity: usize,
    len: usize,
}

impl KvBuffer {
    /// An empty buffer for `capacity` tokens.
    pub fn with_capacity(heads: Heads, capacity: usize) -> Self {
        let padded_capacity = capacity.next_multiple_of(LANES);
        let size = heads.key_value * padded_capacity;
        KvBuffer {
            keys: vec![0.0; size * heads.dim],
            values: vec![0.0; size * heads.dim.next_multiple_of(LANES)],
            capacity,
            padded_capacity,
            len: 0,
        }
    }

    /// Floats of a buffer for `capacity` tokens, keys and values.
    pub fn floats(heads: Heads, capacity: usize) -> usize {
        heads.key_value * capacity.next_multiple_of(LANES) * (heads.dim + heads.dim.next_multiple_of(LANES))
    }

    /// Number of tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Remove the tokens, keep the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Append the key and value heads of one `qkv` row (rotation applied).
    ///
    /// # Panics
    /// If the buffer is full.
    pub fn push(&mut self, qkv: &[f32], heads: Heads) {
        assert!(self.len < self.capacity, "the key-value cache is full");
        let padded = heads.dim.next_multiple_of(LANES);
        let (keys, values) = qkv[heads.query * heads.dim..].split_at(heads.key_value * heads.dim);
        for (h, (key, value)) in keys.chunks_exact(heads.dim).zip(values.chunks_exact(heads.dim)).enumerate() {
            for (d, k) in key.iter().enumerate() {
                self.keys[(h * heads.dim + d) * self.padded_capacity + self.len] = *k;
            }
            let at = (h * self.padded_capacity + self.len) * padded;
            self.values[at..at + heads.dim].copy_from_slice(value);
        }
        self.len += 1;
    }
}

/// Attention of samples that share `prefix`: sample i has the query heads of row i of `qkv` (`[samples, (q + 2 kv) dim]`), and
/// `own[i]` holds its tokens after the prefix, the new one included. `out` is `[samples, q dim]`; `scratch` is a reusable buffer.
/// A sample's result does not depend on the others.
pub fn decode_attention(
    out: &mut [f32],
    qkv: &[f32],
    prefix: &KvBuffer,
    own: &[&KvBuffer],
    heads: Heads,
    scratch: &mut Vec<f32>,
) {
    let (dim, group) = (heads.dim, heads.query / heads.key_value);
    let (width, padded) = (heads.query * dim, dim.next_multiple_of(LANES));
    let longest = own.iter().map(|own| own.len).max().unwrap_or(0);
    // A row of scores: the prefix, then the sample's own tokens, each padded.
    let before = prefix.len.next_multiple_of(LANES);
    let stride = before + longest.next_multiple_of(LANES);
    let rows = own.len() * group;
    scratch.clear();
    scratch.resize(rows * (dim + stride + padded), 0.0);
    let (queries, rest) = scratch.split_at_mut(rows * dim);
    let (scores, results) = rest.split_at_mut(rows * stride);
    let scale = 1.0 / (dim as f32).sqrt();
    for kv in 0..heads.key_value {
        let columns = kv * group * dim..(kv + 1) * group * dim;
        for (query, row) in queries.chunks_exact_mut(group * dim).zip(qkv.chunks_exact(heads.stride())) {
            query.copy_from_slice(&row[columns.clone()]);
        }
        results.fill(0.0);
        score(scores, stride, queries, dim, prefix, kv);
        for (i, own) in own.iter().enumerate() {
            let rows = i * group..(i + 1) * group;
            let queries = &queries[rows.start * dim..rows.end * dim];
            score(&mut scores[rows.start * stride + before..], stride, queries, dim, own, kv);
        }
        for (row, scores) in scores.chunks_exact_mut(stride).enumerate() {
            // Close the gap between the two parts.
            let own = own[row / group].len;
            scores.copy_within(before..before + own, prefix.len);
            softmax(&mut scores[..prefix.len + own], scale);
            scores.copy_within(prefix.len..prefix.len + own, before);
        }
        weigh(results, padded, scores, stride, prefix, kv);
        for (i, own) in own.iter().enumerate() {
            let rows = i * group..(i + 1) * group;
            let scores = &scores[rows.start * stride + before..];
            weigh(&mut results[rows.start * padded..rows.end * padded], padded, scores, stride, own, kv);
        }
        for (out, results) in out.chunks_exact_mut(width).zip(results.chunks_exact(group * padded)) {
            for (out, result) in out[columns.clone()].chunks_exact_mut(dim).zip(results.chunks_exact(padded)) {
                out.copy_from_slice(&result[..dim]);
            }
        }
    }
}

/// `scores[row, token] = queries[row] . key[token]`, for all rows of `queries` (`[rows, dim]`).
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn score(scores: &mut [f32], stride: usize, queries: &[f32], dim: usize, cache: &KvBuffer, kv: usize) {
    for (block, queries) in queries.chunks(ROWS * dim).enumerate() {
        let scores = &mut scores[block * ROWS * stride..];
        match queries.len() / dim {
            4 => score_rows::<4>(scores, stride, queries, dim, cache, kv),
            3 => score_rows::<3>(scores, stride, queries, dim, cache, kv),
            2 => score_rows::<2>(scores, stride, queries, dim, cache, kv),
            _ => score_rows::<1>(scores, stride, queries, dim, cache, kv),
        }
    }
}

#[inline(always)]
fn score_rows<const N: usize>(
    scores: &mut [f32],
    stride: usize,
    queries: &[f32],
    dim: usize,
    cache: &KvBuffer,
    kv: usize,
) {
    let keys = &cache.keys[kv * dim * cache.padded_capacity..(kv + 1) * dim * cache.padded_capacity];
    for first in (0..cache.len).step_by(LANES) {
        let mut sums = [[0.0f32; LANES]; N];
        for d in 0..dim {
            let keys: &[f32; LANES] = keys[d * cache.padded_capacity + first..].first_chunk().unwrap_or(&[0.0; LANES]);
            for (n, sums) in sums.iter_mut().enumerate() {
                let q = queries[n * dim + d];
                for (s, k) in sums.iter_mut().zip(keys) {
                    *s = q.mul_add(*k, *s);
                }
            }
        }
        for (n, sums) in sums.iter().enumerate() {
            scores[n * stride + first..][..LANES].copy_from_slice(sums);
        }
    }
}

/// `out[row] += sum over tokens of weights[row, token] value[token]`, for all rows of `out` (`[rows, padded dim]`).
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn weigh(out: &mut [f32], padded: usize, weights: &[f32], stride: usize, cache: &KvBuffer, kv: usize) {
    for (block, out) in out.chunks_mut(ROWS * padded).enumerate() {
        let weights = &weights[block * ROWS * stride..];
        match out.len() / padded {
            4 => weigh_rows::<4>(out, padded, weights, stride, cache, kv),
            3 => weigh_rows::<3>(out, padded, weights, stride, cache, kv),
            2 => weigh_rows::<2>(out, padded, weights, stride, cache, kv),
            _ => weigh_rows::<1>(out, padded, weights, stride, cache, kv),
        }
    }
}

#[inline(always)]
fn weigh_rows<const N: usize>(
    out: &mut [f32],
    padded: usize,
    weights: &[f32],
    stride: usize,
    cache: &KvBuffer,
    kv: usize,
) {
    let values = &cache.values[kv * cache.padded_capacity * padded..(kv + 1) * cache.padded_capacity * padded];
    for first in (0..padded).step_by(LANES) {
        let mut sums = [[0.0f32; LANES]; N];
        for (n, sums) in sums.iter_mut().enumerate() {
            sums.copy_from_slice(&out[n * padded + first..][..LANES]);
        }
        for (token, value) in values.chunks_exact(padded).take(cache.len).enumerate() {
            let value: &[f32; LANES] = value[first..].first_chunk().unwrap_or(&[0.0; LANES]);
            for (n, sums) in sums.iter_mut().enumerate() {
                let w = weights[n * stride + token];
                for (s, v) in sums.iter_mut().zip(value) {
                    *s = w.mul_add(*v, *s);
                }
            }
        }
        for (n, sums) in sums.iter().enumerate() {
            out[n * padded + first..][..LANES].copy_from_slice(sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attention by its definition, in f64.
    fn definition(qkv: &[f32], tokens: &[Vec<f32>], heads: Heads) -> Vec<f64> {
        let (dim, mut out) = (heads.dim, Vec::new());
        for head in 0..heads.query {
            let kv = head * heads.key_value / heads.query;
            let key = |t: &[f32], d: usize| f64::from(t[(heads.query + kv) * dim + d]);
            let value = |t: &[f32], d: usize| f64::from(t[(heads.query + heads.key_value + kv) * dim + d]);
            let score = |t: &[f32]| {
                (0..dim).map(|d| f64::from(qkv[head * dim + d]) * key(t, d)).sum::<f64>() / (dim as f64).sqrt()
            };
            let weights: Vec<f64> = tokens.iter().map(|t| score(t).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..dim {
                out.push(tokens.iter().zip(&weights).map(|(t, w)| w * value(t, d)).sum::<f64>() / total);
            }
        }
        out
    }

    #[test]
    fn samples_sharing_a_prefix_attend_as_defined_and_independently() {
        for (heads, before) in [
            (Heads { query: 4, key_value: 2, dim: 8 }, 21),
            (Heads { query: 7, key_value: 1, dim: 20 }, 16),
            (Heads { query: 2, key_value: 2, dim: 32 }, 0),
        ] {
            let row = |seed: usize| -> Vec<f32> {
                (0..heads.stride()).map(|i| ((i * 37 + seed * 101) as f32 * 0.713).sin()).collect()
            };
            let prefix_rows: Vec<Vec<f32>> = (0..before).map(row).collect();
            let mut prefix = KvBuffer::with_capacity(heads, before);
            prefix_rows.iter().for_each(|r| prefix.push(r, heads));
            let own_rows: Vec<Vec<Vec<f32>>> =
                [1usize, 19, 3, 4, 16].iter().map(|&n| (0..n).map(|i| row(1000 * n + i)).collect()).collect();
            let owns: Vec<KvBuffer> = own_rows
                .iter()
                .map(|rows| {
                    let mut own = KvBuffer::with_capacity(heads, 20);
                    rows.iter().for_each(|r| own.push(r, heads));
                    own
                })
                .collect();
            let qkv: Vec<f32> = own_rows.iter().flat_map(|rows| rows.last().unwrap().clone()).collect();
            let width = heads.query * heads.dim;
            let mut scratch = Vec::new();
            let mut out = vec![9.0; owns.len() * width];
            decode_attention(&mut out, &qkv, &prefix, &owns.iter().collect::<Vec<_>>(), heads, &mut scratch);
            for (i, rows) in own_rows.iter().enumerate() {
                let seen: Vec<Vec<f32>> = prefix_rows.iter().chain(rows).cloned().collect();
                let want = definition(rows.last().unwrap(), &seen, heads);
                for (got, want) in out[i * width..].iter().zip(want) {
                    assert!((f64::from(*got) - want).abs() < 1e-5, "sample {i}: {got} {want}");
                }
                let mut alone = vec![0.0; width];
                let qkv = &qkv[i * heads.stride()..(i + 1) * heads.stride()];
                decode_attention(&mut alone, qkv, &prefix, &[&owns[i]], heads, &mut scratch);
                assert_eq!(alone, out[i * width..(i + 1) * width]);
            }
        }
    }
}
