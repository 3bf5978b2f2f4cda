//! Attention of one new row over cached keys and values.

use super::attention::Heads;
use super::distribution::softmax;
use multiversion::multiversion;

/// Cached keys and values of one layer for a run of tokens, with room for more.
/// Keys are `[kv heads, dim, room]` (a dimension's values lie side by side, so that scores vectorise over tokens), values
/// `[kv heads, room, dim]`.
#[derive(Debug, Clone, Default)]
pub struct KeyValues {
    keys: Vec<f32>,
    values: Vec<f32>,
    room: usize,
    len: usize,
}

impl KeyValues {
    /// Room for `room` tokens.
    pub fn with_room(heads: Heads, room: usize) -> Self {
        let size = heads.key_value * heads.dim * room;
        KeyValues { keys: vec![0.0; size], values: vec![0.0; size], room, len: 0 }
    }

    /// Number of tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forget the tokens, keep the room.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Append the key and value heads of one `qkv` row (rotation applied).
    ///
    /// # Panics
    /// If there is no room.
    pub fn push(&mut self, qkv: &[f32], heads: Heads) {
        assert!(self.len < self.room, "no room in the key-value cache");
        let (keys, values) = qkv[heads.query * heads.dim..].split_at(heads.key_value * heads.dim);
        for (h, (key, value)) in keys.chunks_exact(heads.dim).zip(values.chunks_exact(heads.dim)).enumerate() {
            for (d, k) in key.iter().enumerate() {
                self.keys[(h * heads.dim + d) * self.room + self.len] = *k;
            }
            let at = (h * self.room + self.len) * heads.dim;
            self.values[at..at + heads.dim].copy_from_slice(value);
        }
        self.len += 1;
    }
}

/// Attention of the query heads of one `qkv` row over `prefix`, then `own` (which holds the row's own key already):
/// `out` `[q dim]`. `scores` is scratch memory.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn attend_row(
    out: &mut [f32],
    qkv: &[f32],
    prefix: &KeyValues,
    own: &KeyValues,
    heads: Heads,
    scores: &mut Vec<f32>,
) {
    let dim = heads.dim;
    let scale = 1.0 / (dim as f32).sqrt();
    out.fill(0.0);
    scores.resize(prefix.len + own.len, 0.0);
    for (head, (out, query)) in out.chunks_exact_mut(dim).zip(qkv.chunks_exact(dim)).enumerate() {
        let kv = head * heads.key_value / heads.query;
        scores.fill(0.0);
        let (first, second) = scores.split_at_mut(prefix.len);
        for (cache, scores) in [(prefix, first), (own, second)] {
            for (d, q) in query.iter().enumerate() {
                let at = (kv * dim + d) * cache.room;
                for (s, k) in scores.iter_mut().zip(&cache.keys[at..at + cache.len]) {
                    *s += q * k;
                }
            }
        }
        softmax(scores, scale);
        let (first, second) = scores.split_at(prefix.len);
        for (cache, weights) in [(prefix, first), (own, second)] {
            let at = kv * cache.room * dim;
            for (w, value) in weights.iter().zip(cache.values[at..].chunks_exact(dim)) {
                for (o, v) in out.iter_mut().zip(value) {
                    *o += w * v;
                }
            }
        }
    }
}
