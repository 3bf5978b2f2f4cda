//! How much memory a backward pass or a rollout will take, counted from the shapes of what it keeps.

use super::shards::SideBySide;
use super::{Model, shards};
use crate::model::{Prompt, Sequence};
use std::sync::Arc;

/// Bytes of an f32.
const F32: usize = 4;

/// What is kept is rounded up by the allocator, by at most an eighth.
const ROUNDING: f64 = 1.06;

/// Logits that the output head holds at once (see `nn::token_stats`): all of them up to the first number, else one tile.
const LOGITS: (usize, usize) = (1 << 22, 512 * 4096);

impl Model {
    /// Bytes that [`Model::backward`] of `batch` takes at its highest, beside weights and gradients: (activations of the shards
    /// worked on at once, gradients that the lanes hold for themselves).
    pub fn backward_bytes(&self, batch: &[Sequence]) -> (usize, usize) {
        let shards = self.shards(batch);
        let trained = self.trained_bytes();
        let threads = rayon::current_num_threads();
        let (at_once, apart) = match shards::side_by_side(shards.len(), trained) {
            SideBySide::Lanes(lanes) => (lanes.min(threads), lanes * trained),
            SideBySide::Pairs => {
                let ends = self.weight_bytes(|p| p.trainable() && self.several_gradients(p));
                (threads.min(2), ends)
            }
            SideBySide::Nothing => (1, 0),
        };
        let mut sizes: Vec<usize> = shards.iter().map(|s| self.shard_floats(&batch[s.clone()])).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let floats: usize = sizes.iter().take(at_once).sum();
        ((floats as f64 * F32 as f64 * ROUNDING) as usize, apart)
    }

    /// Floats kept from the forward pass of a shard, and the most that its backward pass adds for the time being.
    fn shard_floats(&self, shard: &[Sequence]) -> usize {
        let (mut rows, mut predicted, mut patches) = (0, 0, 0);
        for group in shard.chunk_by(|a, b| Arc::ptr_eq(&a.prompt, &b.prompt)) {
            let prompt = &group[0].prompt;
            patches += prompt.images.iter().map(|image| image.grid.iter().product::<usize>()).sum::<usize>();
            rows += prompt.ids.len() + group.iter().map(|s| s.response.len().saturating_sub(1)).sum::<usize>();
            predicted += group.iter().map(|s| s.response.len()).sum::<usize>();
        }
        let (t, v) = (&self.config.text, &self.config.vision);
        let heads = self.decoder.heads();
        let qkv = heads.stride();
        // Of a layer: two inputs of norms, rotated queries, keys and values, what was attended, gate and up. Norms and
        // products of gate and up are made again.
        let attended = t.hidden_size + qkv + heads.query * heads.dim + heads.query;
        let rest = t.hidden_size + 2 * t.intermediate_size;
        let block = 6 * v.hidden_size + v.num_heads + 2 * v.intermediate_size;
        let (layers, depth) = (t.num_hidden_layers, v.depth);
        let text = match self.recompute {
            false => rows * (layers * attended + (layers - 1) * rest) + predicted * rest,
            true => rows * (layers * t.hidden_size + attended + rest),
        };
        // A frozen tower keeps nothing; one block works at a time.
        let vision =
            match (self.parameters.iter().any(|p| p.trainable() && p.name.starts_with("visual.")), self.recompute) {
                (false, _) => patches * block,
                (true, false) => patches * depth * block,
                (true, true) => patches * (depth * v.hidden_size + block),
            };
        // Pixels, the input of the merger and what it makes of them, the features.
        let ends = patches * (v.patch_len() + 4 * v.hidden_size) + rows * 2 * t.hidden_size;
        let logits = predicted * t.vocab_size;
        let logits = if logits <= LOGITS.0 { logits } else { LOGITS.1 };
        // Backwards: the gradients of gate and up, of their product, and of the residual stream of the widest part.
        let passing = (rows * (4 * t.intermediate_size + 2 * t.hidden_size))
            .max(patches * (4 * v.intermediate_size + 2 * v.hidden_size));
        text + vision + ends + logits + predicted * 3 * t.hidden_size + passing
    }

    /// Bytes that [`Model::generate`] takes at its highest beside the weights: caches, prefill and logits.
    pub fn generate_bytes(&self, prompts: &[Arc<Prompt>], samples: usize, new_tokens: usize) -> usize {
        let (t, v, heads) = (&self.config.text, &self.config.vision, self.decoder.heads());
        let per_token = 2 * t.num_hidden_layers * heads.key_value * heads.dim;
        let (tokens, patches) = prompts.iter().fold((0, 0), |(tokens, patches), p| {
            let seen = p.images.iter().map(|image| image.grid.iter().product::<usize>()).sum::<usize>();
            (tokens + p.ids.len(), patches + seen)
        });
        let active = (prompts.len() * samples).min(super::generate::SLOTS);
        let cache = per_token * (tokens + active * new_tokens.next_multiple_of(16));
        let rows = tokens.min(super::generate::PREFILL_TOKENS);
        let prefill = rows * (2 * t.hidden_size + 3 * t.intermediate_size)
            + patches * (v.patch_len() + 2 * v.hidden_size + 3 * v.intermediate_size);
        ((cache + prefill.max(active * 2 * t.vocab_size)) as f64 * F32 as f64 * ROUNDING) as usize
    }
}
