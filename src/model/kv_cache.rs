//! Key-value caches of the samples being decoded.

use crate::nn::{Heads, KvBuffer, decode_attention, from_vec, read};
use crate::{Error, Result};
use candle_core::{D, Tensor};
use rayon::prelude::*;
use std::cell::RefCell;
use std::sync::Arc;

/// Keys and values of every active sample. The order of the samples is that in which they were added.
pub trait KvCache {
    /// Whether samples can be added while others are active.
    fn accepts_more(&self) -> bool;
    /// For one layer, in order from layer 0: `prompts` are the rows of `qkv` that each prompt has; each gets `samples` samples.
    fn prefill(&mut self, layer: usize, qkv: &Tensor, prompts: &[Vec<usize>], samples: usize) -> Result<()>;
    /// Append row i's key and value to sample i and attend with its query heads: `[samples, q dim]`.
    fn attend(&mut self, layer: usize, qkv: &Tensor) -> Result<Tensor>;
    /// Drop the samples whose flag is false.
    fn retain(&mut self, keep: &[bool]) -> Result<()>;
}

/// The CPU's cache: a prompt's part is held once for all of its samples, and a sample's own part is allocated once.
pub struct FusedKvCache {
    layers: usize,
    heads: Heads,
    room: usize,
    samples: Vec<SampleCache>,
    spare: Vec<Vec<KvBuffer>>,
}

struct SampleCache {
    /// Per layer, shared by the samples of a prompt.
    prompt: Vec<Arc<KvBuffer>>,
    /// Per layer.
    own: Vec<KvBuffer>,
}

/// Most samples of one prompt that attend together.
const MAX_ATTENTION_GROUP: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl FusedKvCache {
    /// An empty cache with room for `room` new tokens a sample.
    pub fn new(layers: usize, heads: Heads, room: usize) -> Self {
        FusedKvCache { layers, heads, room, samples: Vec::new(), spare: Vec::new() }
    }
}

impl KvCache for FusedKvCache {
    fn accepts_more(&self) -> bool {
        true
    }

    fn prefill(&mut self, layer: usize, qkv: &Tensor, prompts: &[Vec<usize>], samples: usize) -> Result<()> {
        let heads = self.heads;
        let first = match layer {
            0 => self.samples.len(),
            _ => self.samples.len() - prompts.len() * samples,
        };
        let data = read(qkv)?;
        for (i, rows) in prompts.iter().enumerate() {
            let mut prompt = KvBuffer::with_capacity(heads, rows.len());
            for row in rows {
                prompt.push(&data[row * heads.stride()..(row + 1) * heads.stride()], heads);
            }
            let prompt = Arc::new(prompt);
            for j in 0..samples {
                if layer == 0 {
                    let new = || (0..self.layers).map(|_| KvBuffer::with_capacity(heads, self.room)).collect();
                    let own = self.spare.pop().unwrap_or_else(new);
                    self.samples.push(SampleCache { prompt: Vec::new(), own });
                }
                self.samples[first + i * samples + j].prompt.push(Arc::clone(&prompt));
            }
        }
        Ok(())
    }

    fn attend(&mut self, layer: usize, qkv: &Tensor) -> Result<Tensor> {
        let (heads, rows) = (self.heads, self.samples.len());
        let width = heads.query * heads.dim;
        let mut out = vec![0.0; rows * width];
        let data = read(qkv)?;
        let data = &*data;
        self.samples.par_iter_mut().zip(data.par_chunks(heads.stride())).with_min_len(16).for_each(|(sample, row)| {
            sample.own[layer].push(row, heads);
        });
        let same_prompt = |a: &SampleCache, b: &SampleCache| Arc::ptr_eq(&a.prompt[layer], &b.prompt[layer]);
        let groups = self.samples.chunk_by(same_prompt).flat_map(|group| group.chunks(MAX_ATTENTION_GROUP));
        let mut tasks = Vec::new();
        let (mut out_left, mut data_left) = (&mut out[..], data);
        for group in groups {
            let (out, data);
            (out, out_left) = out_left.split_at_mut(group.len() * width);
            (data, data_left) = data_left.split_at(group.len() * heads.stride());
            tasks.push((group, out, data));
        }
        tasks.into_par_iter().for_each(|(group, out, data)| {
            let own: Vec<&KvBuffer> = group.iter().map(|sample| &sample.own[layer]).collect();
            SCRATCH
                .with_borrow_mut(|scratch| decode_attention(out, data, &group[0].prompt[layer], &own, heads, scratch));
        });
        from_vec(out, (rows, width))
    }

    fn retain(&mut self, keep: &[bool]) -> Result<()> {
        let mut keep = keep.iter();
        for mut gone in self.samples.extract_if(.., |_| keep.next() == Some(&false)) {
            gone.own.iter_mut().for_each(KvBuffer::clear);
            self.spare.push(gone.own);
        }
        Ok(())
    }
}

/// Any device's cache, in candle ops: the samples of one wave, prompts padded on the left and masked, all at the same step. A wave may be
/// filled in several goes before its first step.
pub struct ReferenceKvCache {
    heads: Heads,
    /// New tokens of a sample, at most.
    room: usize,
    /// Per layer, keys and values `[samples, kv heads, tokens + room, dim]`, of which the first [`ReferenceKvCache::tokens`] are there.
    layers: Vec<Option<(Tensor, Tensor)>>,
    /// Per layer, tokens that are there.
    tokens: Vec<usize>,
    /// 0 for a token, -1e30 for padding: `[samples, 1, 1, tokens + room]`.
    mask: Option<Tensor>,
    /// Whether a step has been made.
    stepped: bool,
}

impl ReferenceKvCache {
    /// An empty cache with room for `room` new tokens a sample.
    pub fn new(layers: usize, heads: Heads, room: usize) -> Self {
        ReferenceKvCache {
            heads,
            room,
            layers: vec![None; layers],
            tokens: vec![0; layers],
            mask: None,
            stepped: false,
        }
    }

    /// `tensor` with its tokens, in dimension `dim`, from `from` on at the end of `to`, in front of the room; `before` fills what is left.
    fn widened(&self, tensor: &Tensor, dim: usize, (from, to): (usize, usize), before: f64) -> Result<Tensor> {
        if from == to {
            return Ok(tensor.clone());
        }
        let mut shape = tensor.dims().to_vec();
        shape[dim] = to - from;
        let fill = (Tensor::ones(shape, tensor.dtype(), tensor.device())? * before)?;
        Ok(Tensor::cat(&[&fill, tensor], dim)?)
    }
}

impl KvCache for ReferenceKvCache {
    fn accepts_more(&self) -> bool {
        !self.stepped
    }

    fn prefill(&mut self, layer: usize, qkv: &Tensor, prompts: &[Vec<usize>], samples: usize) -> Result<()> {
        let heads = self.heads;
        let (rows, _) = qkv.dims2()?;
        let device = qkv.device();
        let before = self.tokens[layer];
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0).max(before);
        let (mut index, mut mask) = (Vec::new(), Vec::new());
        for prompt in prompts {
            for _ in 0..samples {
                let pad = longest - prompt.len();
                index.extend(std::iter::repeat_n(0, pad).chain(prompt.iter().map(|&row| row as u32)));
                mask.extend(
                    std::iter::repeat_n(-1e30f32, pad).chain(std::iter::repeat_n(0.0, prompt.len() + self.room)),
                );
            }
        }
        let count = prompts.len() * samples;
        let index = Tensor::from_vec(index, count * longest, device)?;
        let room = Tensor::zeros((count, heads.key_value, self.room, heads.dim), qkv.dtype(), device)?;
        let part = |first: usize| -> Result<Tensor> {
            let part = qkv.narrow(1, first * heads.dim, heads.key_value * heads.dim)?.contiguous()?;
            let part = part.reshape((rows, heads.key_value, heads.dim))?.index_select(&index, 0)?;
            let part = part.reshape((count, longest, heads.key_value, heads.dim))?.transpose(1, 2)?.contiguous()?;
            Ok(Tensor::cat(&[&part, &room], 2)?)
        };
        let (mut keys, mut values) = (part(heads.query)?, part(heads.query + heads.key_value)?);
        if let Some((k, v)) = self.layers[layer].take() {
            let joined = |old: &Tensor, new: &Tensor| -> Result<Tensor> {
                Ok(Tensor::cat(&[&self.widened(old, 2, (before, longest), 0.0)?, new], 0)?)
            };
            (keys, values) = (joined(&k, &keys)?, joined(&v, &values)?);
        }
        self.layers[layer] = Some((keys, values));
        self.tokens[layer] = longest;
        // The last layer's call is the last to see how long the prompts were.
        if layer + 1 == self.layers.len() {
            let new = Tensor::from_vec(mask, (count, 1, 1, longest + self.room), device)?;
            self.mask = Some(match self.mask.take() {
                Some(old) => Tensor::cat(&[&self.widened(&old, 3, (before, longest), -1e30)?, &new], 0)?,
                None => new,
            });
        }
        Ok(())
    }

    fn attend(&mut self, layer: usize, qkv: &Tensor) -> Result<Tensor> {
        let heads = self.heads;
        let (rows, _) = qkv.dims2()?;
        let part = |first: usize, count: usize| -> Result<Tensor> {
            let part = qkv.narrow(1, first * heads.dim, count * heads.dim)?.contiguous()?;
            Ok(part.reshape((rows, count, 1, heads.dim))?)
        };
        let group = heads.query / heads.key_value;
        let query = part(0, heads.query)?.reshape((rows, heads.key_value, group, heads.dim))?;
        let (Some((keys, values)), Some(mask)) = (&self.layers[layer], &self.mask) else {
            return Err(Error::failed("a step before its prompts"));
        };
        let at = self.tokens[layer];
        keys.slice_set(&part(heads.query, heads.key_value)?, 2, at)?;
        values.slice_set(&part(heads.query + heads.key_value, heads.key_value)?, 2, at)?;
        let (keys, values) = (keys.narrow(2, 0, at + 1)?, values.narrow(2, 0, at + 1)?);
        let scores = (query.matmul(&keys.t()?)? / (heads.dim as f64).sqrt())?;
        let weights = candle_nn::ops::softmax(&scores.broadcast_add(&mask.narrow(3, 0, at + 1)?)?, D::Minus1)?;
        let out = weights.matmul(&values)?.reshape((rows, heads.query * heads.dim))?;
        self.tokens[layer] = at + 1;
        self.stepped = true;
        Ok(out)
    }

    fn retain(&mut self, keep: &[bool]) -> Result<()> {
        let index: Vec<u32> = (0..keep.len() as u32).filter(|&i| keep[i as usize]).collect();
        if index.is_empty() {
            self.layers.iter_mut().for_each(|layer| *layer = None);
            self.tokens.fill(0);
            (self.mask, self.stepped) = (None, false);
            return Ok(());
        }
        let Some(mask) = &self.mask else { return Ok(()) };
        let index = Tensor::from_slice(&index, index.len(), mask.device())?;
        self.mask = Some(mask.index_select(&index, 0)?);
        for (keys, values) in self.layers.iter_mut().flatten() {
            *keys = keys.index_select(&index, 0)?;
            *values = values.index_select(&index, 0)?;
        }
        Ok(())
    }
}
