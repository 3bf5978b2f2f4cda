//! How much memory a backward pass or a rollout will take, counted from the shapes of what it keeps.

use super::batch_layout::Layout;
use super::generate::{MAX_ACTIVE, PREFILL_TOKENS};
use super::language_model::{BackwardBytes, LanguageModel, MemoryFootprint};
use super::sequence::{ImageInput, Prompt, Sequence};
use super::shapes::{DecoderShape, VisionShape};
use super::shards::{self, ShardSchedule};
use super::transformer::Model;
use crate::nn::{Heads, MAX_BATCH_SCORES, Parameter, SpanGroup, tile_width};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of an f32.
const F32: usize = 4;

/// The allocator rounds every block up, by at most an eighth.
const ROUNDING: f64 = 1.06;

/// The same for a device, with what is not counted there.
const DEVICE_ROUNDING: f64 = 1.1;

/// Logits that the output head holds at once (see `nn::token_stats`): all of them up to the first number, else one tile.
const LOGITS: (usize, usize) = (1 << 22, 512 * 4096);

/// In candle ops: tensors of the size of all attention scores that exist at once, forwards and backwards.
const SCORES: usize = 3;
const BACKWARD_SCORES: usize = 5;
/// And of a tile of logits (see `nn::tiled_logits`).
const TILES_OF_LOGITS: usize = 6;

/// Attention scores that exist at once in candle ops, which take spans of (query rows, rows seen) together that are of equal shape, up to
/// so many scores (see `nn::attention`).
fn scores(spans: impl Iterator<Item = (usize, usize)>, heads: usize) -> usize {
    let mut shapes: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    spans.for_each(|shape| *shapes.entry(shape).or_default() += 1);
    let together = |((rows, seen), count): ((usize, usize), usize)| {
        let one = heads * rows * seen;
        (count * one).min(one.max(MAX_BATCH_SCORES))
    };
    shapes.into_iter().map(together).max().unwrap_or(0)
}

/// The spans of a span group.
fn spans_of(span_group: &SpanGroup) -> impl Iterator<Item = (usize, usize)> {
    span_group
        .spans
        .iter()
        .map(|span| (span.rows.len(), span_group.shared_prefix.len() + span.prefix.len() + span.rows.len()))
}

/// The frames of an image, in which every patch sees every other.
fn frames_of(image: &ImageInput) -> impl Iterator<Item = (usize, usize)> {
    let [frames, h, w] = image.grid;
    std::iter::repeat_n((h * w, h * w), frames)
}

impl MemoryFootprint for Model {
    fn uses_cpu_kernels(&self) -> bool {
        Model::uses_cpu_kernels(self)
    }

    fn backward_bytes(&self, batch: &[Sequence]) -> BackwardBytes {
        if !self.uses_cpu_kernels() {
            let activations = (self.device_floats(batch) as f64 * F32 as f64 * DEVICE_ROUNDING) as usize;
            return BackwardBytes { activations, thread_gradients: 0 };
        }
        let shards = self.shards(batch);
        let trained = self.sharding_bytes();
        let threads = rayon::current_num_threads();
        let (at_once, separate) = match shards::schedule(shards.len(), trained) {
            ShardSchedule::PerThread(count) => (count.min(threads), count * trained),
            ShardSchedule::Pairs => {
                let ends = self.weight_bytes(|p| p.trainable() && self.is_shared(p));
                (threads.min(2), ends)
            }
            ShardSchedule::Sequential => (1, 0),
        };
        let mut sizes: Vec<usize> = shards.iter().map(|s| self.shard_floats(&batch[s.clone()])).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let floats: usize = sizes.iter().take(at_once).sum();
        BackwardBytes { activations: (floats as f64 * F32 as f64 * ROUNDING) as usize, thread_gradients: separate }
    }

    fn generate_bytes(&self, prompts: &[Arc<Prompt>], samples: usize, new_tokens: usize) -> usize {
        if !self.uses_cpu_kernels() {
            return self.device_generation(prompts, samples, new_tokens);
        }
        let (t, v, heads) = self.shapes();
        let per_token = 2 * t.layers * heads.key_value * heads.dim;
        let (tokens, patches) = prompts.iter().fold((0, 0), |(tokens, patches), p| {
            let seen = p.images.iter().map(|image| image.grid.iter().product::<usize>()).sum::<usize>();
            (tokens + p.ids.len(), patches + seen)
        });
        let active = (prompts.len() * samples).min(MAX_ACTIVE);
        let cache = per_token * (tokens + active * new_tokens.next_multiple_of(16));
        let rows = tokens.min(PREFILL_TOKENS);
        let prefill = rows * (2 * t.hidden_size + 3 * t.intermediate_size)
            + patches * (v.patch_len + 2 * v.hidden_size + 3 * v.intermediate_size);
        ((cache + prefill.max(active * 2 * t.vocab_size)) as f64 * F32 as f64 * ROUNDING) as usize
    }

    fn pixel_bytes(&self, prompt: &Prompt) -> usize {
        let width = self.architecture().vision().map_or(0, |vision| vision.patch_len);
        F32 * prompt.images.iter().map(|image| image.grid.iter().product::<usize>() * width).sum::<usize>()
    }
}

impl Model {
    /// Sizes of the decoder, of the vision tower (zeros without one), and heads.
    fn shapes(&self) -> (DecoderShape, VisionShape, Heads) {
        let architecture = self.architecture();
        (architecture.decoder(), architecture.vision().unwrap_or_default(), self.network.decoder.heads())
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
        let (t, v, heads) = self.shapes();
        let qkv = heads.stride();
        // Of a layer: two inputs of norms, rotated queries, keys and values, what was attended, gate and up. Norms and
        // products of gate and up are made again.
        let attended = t.hidden_size + qkv + heads.query * heads.dim + heads.query;
        let rest = t.hidden_size + 2 * t.intermediate_size;
        let block = 6 * v.hidden_size + v.heads + 2 * v.intermediate_size;
        let (layers, depth) = (t.layers, v.blocks);
        let text = match self.gradient_checkpointing {
            false => rows * (layers * attended + (layers - 1) * rest) + predicted * rest,
            true => rows * (layers * t.hidden_size + attended + rest),
        };
        // A frozen tower keeps nothing; one block works at a time.
        let vision = match (
            self.parameters().iter().any(|p| p.trainable() && self.part(&p.name).is_vision()),
            self.gradient_checkpointing,
        ) {
            (false, _) => patches * block,
            (true, false) => patches * depth * block,
            (true, true) => patches * (depth * v.hidden_size + block),
        };
        // Pixels, the input of the merger and what it makes of them, the features.
        let ends = patches * (v.patch_len + 4 * v.hidden_size) + rows * 2 * t.hidden_size;
        let logits = predicted * t.vocab_size;
        let logits = if logits <= LOGITS.0 { logits } else { LOGITS.1 };
        // Backwards: the gradients of gate and up, of their product, and of the residual stream of the widest part.
        let passing = (rows * (4 * t.intermediate_size + 2 * t.hidden_size))
            .max(patches * (4 * v.intermediate_size + 2 * v.hidden_size));
        text + vision + ends + logits + predicted * 3 * t.hidden_size + passing
    }

    /// As [`Model::backward_bytes`] in candle ops, which take a batch whole and keep the inputs of every op; what an op's own backward pass
    /// makes for the time being comes on top, that of the widest.
    fn device_floats(&self, batch: &[Sequence]) -> usize {
        // A batch that does not fit the model is an error when it is run, not when it is planned.
        let Ok(layout) = Layout::meta(batch, self.architecture()) else { return 0 };
        let (t, v, heads) = self.shapes();
        let (rows, predicted) = (layout.rows.len(), layout.predictors.len());
        let patches: usize = layout.images.iter().map(|image| image.grid.iter().product::<usize>()).sum();
        let trained = |vision: bool| {
            let of = |p: &&Arc<Parameter>| p.trainable() && self.part(&p.name).is_vision() == vision;
            self.parameters().iter().filter(of).map(|p| p.var.elem_count()).max().unwrap_or(0)
        };
        // Factors of an adapter's dropout, if all maps of a layer have one.
        let dropped = if self.dropout() > 0.0 { 6 * t.hidden_size + t.intermediate_size } else { 0 };
        let layer =
            4 * t.hidden_size + 2 * heads.stride() + heads.query * heads.dim + 3 * t.intermediate_size + dropped;
        let block = 4 * v.hidden_size + 7 * v.hidden_size + 3 * v.intermediate_size;
        let kept = |layers: usize, rows: usize, width: usize, layer: usize| match self.gradient_checkpointing {
            true => rows * (layers * width + layer),
            false => rows * layers * layer,
        };
        let text = kept(t.layers, rows, t.hidden_size, layer);
        let vision = match trained(true) {
            0 => patches * block,
            _ => kept(v.blocks, patches, v.hidden_size, block),
        };
        let ends =
            patches * (v.patch_len + 4 * v.hidden_size) + rows * 4 * t.hidden_size + predicted * 6 * t.hidden_size;
        // Backwards through attention: what is made of the scores, and queries, keys and values with their gradients.
        let text_scores = scores(layout.span_groups.iter().flat_map(spans_of), heads.query);
        let frames = scores(layout.images.iter().flat_map(|image| frames_of(image)), v.heads);
        let attention = (BACKWARD_SCORES * text_scores + rows * 12 * heads.query * heads.dim)
            .max(BACKWARD_SCORES * frames + patches * 14 * v.hidden_size);
        // Of a linear map: the gradient of its input and of its result; of a trained weight the new part, the sum before and the one after.
        let maps = (rows * 10 * t.intermediate_size).max(patches * 10 * v.intermediate_size);
        let largest = trained(true).max(trained(false));
        let tile = predicted * tile_width(predicted, t.vocab_size);
        text + vision + ends + attention.max(maps + 3 * largest).max(TILES_OF_LOGITS * tile + 3 * largest)
    }

    /// As [`Model::generate_bytes`] in candle ops: the cache of a wave is padded to its longest prompt, with room for all new tokens, and
    /// a layer is copied when prompts join or samples leave.
    fn device_generation(&self, prompts: &[Arc<Prompt>], samples: usize, new_tokens: usize) -> usize {
        let (t, v, heads) = self.shapes();
        let longest = prompts.iter().map(|p| p.ids.len()).max().unwrap_or(0);
        let active = prompts.len().min((MAX_ACTIVE / samples.max(1)).max(1)) * samples;
        // Prompts that are taken in at once, of a wave that may be filled in several goes.
        let at_once = prompts.len().min((PREFILL_TOKENS / longest.max(1)).max(1));
        let of_layer = 2 * active * (longest + new_tokens) * heads.key_value * heads.dim;
        let cache = (t.layers + 2) * of_layer;
        let patches =
            |p: &Arc<Prompt>| p.images.iter().map(|image| image.grid.iter().product::<usize>()).sum::<usize>();
        let mut all: Vec<usize> = prompts.iter().map(patches).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        let patches = all.iter().take(at_once).sum::<usize>();
        let frames = prompts.iter().take(at_once).flat_map(|p| p.images.iter().flat_map(|image| frames_of(image)));
        let frames = scores(frames, v.heads);
        let text_scores = scores(prompts.iter().take(at_once).map(|p| (p.ids.len(), p.ids.len())), heads.query);
        let rows = at_once * longest;
        let text = rows * (3 * t.hidden_size + 2 * heads.stride() + 3 * t.intermediate_size)
            + rows * 5 * heads.query * heads.dim
            + SCORES * text_scores;
        let vision = patches * (v.patch_len + 14 * v.hidden_size + 3 * v.intermediate_size) + SCORES * frames;
        let step =
            active * (heads.query * (longest + new_tokens) * SCORES + 2 * t.vocab_size + 3 * t.intermediate_size);
        F32 * (cache + text.max(vision).max(step))
    }
}
