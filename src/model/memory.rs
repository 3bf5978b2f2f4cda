//! How much memory a backward pass or a rollout will take, counted from the sizes of what it keeps.

use super::generate::{MAX_ACTIVE, PREFILL_TOKENS, lanes};
use super::language_model::{BackwardBytes, GroupSize, LanguageModel, MemoryFootprint, PromptSize};
use super::shapes::{DecoderShape, VisionShape};
use super::shards::ShardSchedule;
use super::transformer::Model;
use crate::nn::{Heads, KvBuffer, MAX_BATCH_SCORES, MAX_TILE_LOGITS, tile_width};
use std::collections::BTreeMap;

/// Bytes of an f32.
const F32: usize = 4;

/// What a device takes beyond what is counted: the shapes of its ops' scratch are not known here.
const DEVICE_ROUNDING: f64 = 1.1;

/// Logits that the output head holds at once (see `nn::token_stats`): all of them up to the first number, else one tile.
const LOGITS: (usize, usize) = (1 << 22, 512 * 4096);

/// In candle ops: tensors of the size of all attention scores that exist at once, forwards and backwards.
const SCORES: usize = 3;
const BACKWARD_SCORES: usize = 5;
/// And of a tile of logits (see `nn::tiled_logits`).
const TILES_OF_LOGITS: usize = 6;
/// And of the logits from which tokens are chosen at once (see `model::device_sampler`).
const CHOOSING: usize = 12;

/// Attention scores that exist at once in candle ops, which take spans of (query rows, rows seen) together that are of equal shape, and long ones
/// in parts, up to so many scores (see `nn::attention`).
fn scores(spans: impl Iterator<Item = ((usize, usize), usize)>, heads: usize) -> usize {
    let mut shapes: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    spans.for_each(|(shape, count)| *shapes.entry(shape).or_default() += count);
    let together = |((rows, seen), count): ((usize, usize), usize)| {
        (count * heads * rows * seen).min(MAX_BATCH_SCORES.max(heads * seen))
    };
    shapes.into_iter().map(together).max().unwrap_or(0)
}

/// The spans of a group, with their numbers: the prompt, and the responses after it.
fn spans_of(group: &GroupSize) -> [((usize, usize), usize); 2] {
    let (prompt, response) = (group.prompt.tokens, group.response_tokens.saturating_sub(1));
    [((prompt, prompt), 1), ((response, prompt + response), group.responses)]
}

/// The images of a prompt, in each of which every patch sees every other: as if all were as large as the largest.
fn frames_of(prompt: &PromptSize) -> ((usize, usize), usize) {
    let largest = prompt.largest_image.max(1);
    ((largest, largest), prompt.patches.div_ceil(largest))
}

/// Floats of a row's queries, keys and values, rotated; where heads are normalised also as they were before, and the scales.
fn qkv_floats(decoder: &DecoderShape) -> usize {
    let heads = decoder.attention_heads();
    match decoder.qk_norm {
        true => 2 * heads.stride() + heads.query + heads.key_value,
        false => heads.stride(),
    }
}

/// Sums over the groups of a batch.
#[derive(Default)]
struct BatchSize {
    /// Rows of the decoder.
    rows: usize,
    /// Of them, those that predict a response token.
    predicted: usize,
    patches: usize,
}

impl BatchSize {
    fn of(batch: &[GroupSize]) -> BatchSize {
        let mut all = BatchSize::default();
        for group in batch {
            all.rows += group.rows();
            all.predicted += group.predicted();
            all.patches += group.prompt.patches;
        }
        all
    }
}

impl MemoryFootprint for Model {
    fn uses_cpu_kernels(&self) -> bool {
        Model::uses_cpu_kernels(self)
    }

    fn backward_bytes(&self, batch: &[GroupSize], ranks: usize) -> BackwardBytes {
        if !self.uses_cpu_kernels() {
            let activations = (self.device_floats(batch) as f64 * F32 as f64 * DEVICE_ROUNDING) as usize;
            return BackwardBytes { activations, thread_gradients: 0 };
        }
        let sharding = self.sharding();
        let shards = sharding.shards_of_sizes(batch);
        let threads = rayon::current_num_threads();
        let (at_once, separate) = match sharding.schedule(shards.len()) {
            ShardSchedule::PerThread(count) | ShardSchedule::Separate(count) => {
                let own = count.div_ceil(ranks);
                (own.min(threads), own * sharding.bytes)
            }
            ShardSchedule::Pairs => {
                let ends = self.weight_bytes(|p| p.trainable() && self.is_shared(p));
                (threads.min(2usize.div_ceil(ranks)), ends)
            }
            ShardSchedule::Sequential => (1, 0),
        };
        let mut sizes: Vec<usize> = shards.into_iter().map(|shard| self.shard_floats(&batch[shard])).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        BackwardBytes { activations: F32 * sizes.iter().take(at_once).sum::<usize>(), thread_gradients: separate }
    }

    fn generate_bytes(&self, prompts: &[PromptSize], samples: usize, new_tokens: usize) -> usize {
        let mut prompts = prompts.to_vec();
        prompts.sort_unstable_by_key(|prompt| std::cmp::Reverse(prompt.tokens + prompt.patches));
        match self.uses_cpu_kernels() {
            true => self.kernel_generation(&prompts, samples.max(1), new_tokens),
            false => self.device_generation(&prompts, samples.max(1), new_tokens),
        }
    }

    fn pixel_bytes(&self, prompt: &PromptSize) -> usize {
        F32 * prompt.patches * self.architecture().vision().map_or(0, |vision| vision.patch_len)
    }
}

impl Model {
    /// Sizes of the decoder, of the vision tower (zeros without one), and heads.
    fn shapes(&self) -> (DecoderShape, VisionShape, Heads) {
        let architecture = self.architecture();
        (architecture.decoder(), architecture.vision().unwrap_or_default(), self.network.decoder.heads())
    }

    /// Whether a weight of the vision tower trains.
    fn trains_vision(&self) -> bool {
        self.parameters().iter().any(|p| p.trainable() && self.part(&p.name).is_vision())
    }

    /// Floats that an adapter keeps of each row: what its first matrices make of it, in the decoder or in the vision tower.
    fn adapter_floats(&self, vision: bool) -> usize {
        let first = self.parameters().iter().filter(|p| p.name.ends_with(".lora_A.weight"));
        first.filter(|p| self.part(&p.name).is_vision() == vision).map(|p| p.var.dims()[0]).sum()
    }

    /// The most floats that a shard holds at once on its way forwards and back, beside weights and gradients.
    fn shard_floats(&self, shard: &[GroupSize]) -> usize {
        let BatchSize { rows, predicted, patches } = BatchSize::of(shard);
        let (t, v, heads) = self.shapes();
        let (hidden, inner) = (t.hidden_size, t.intermediate_size);
        // Of a layer: two inputs of norms, rotated queries, keys and values, what was attended, gate and up. Norms and
        // products of gate and up are made again. After its attention, the last layer has rows that predict alone.
        let attended = hidden + qkv_floats(&t) + heads.query * heads.dim + heads.query;
        let rest = hidden + 2 * inner;
        let last = rows * attended + predicted * (rest + heads.query * heads.dim + hidden);
        let layer = rows * (attended + rest);
        let adapters = self.adapter_floats(false);
        let block = 6 * v.hidden_size + v.heads + 2 * v.intermediate_size;
        let blocks = v.blocks * block + self.adapter_floats(true);
        // Pixels where the patch embedding trains, the input of the merger and what it makes of them, the embedded rows, rotations.
        let (trains_vision, recompute) = (self.trains_vision(), self.gradient_checkpointing);
        let vision = match (trains_vision, recompute) {
            (false, _) => 0,
            (true, false) => patches * (v.patch_len + blocks + 3 * v.hidden_size * (1 + v.deepstack)),
            (true, true) => patches * (v.patch_len + v.blocks * v.hidden_size + (4 + 3 * v.deepstack) * v.hidden_size),
        };
        let ends = rows * (hidden + 2 * heads.dim) + predicted * 2 * hidden + patches / 4 * hidden * (1 + v.deepstack);
        // Backwards through a layer: the gradients of the residual stream and its sum, of gate and up, and of their product.
        let passing = 3 * inner + 2 * hidden;
        let logits = predicted * t.vocab_size;
        let logits = if logits <= LOGITS.0 { logits } else { LOGITS.1 };
        let head = logits + predicted * 2 * hidden;
        let text = match recompute {
            false => {
                let kept = (t.layers - 1) * layer + last + rows * adapters;
                let from_last = kept + head.max(predicted * passing);
                from_last.max(kept - last + rows * passing)
            }
            true => rows * t.layers * hidden + head.max(layer + rows * (passing + adapters / t.layers)),
        };
        // The decoder's are gone when the gradient reaches the tower.
        let of_block = patches * (3 * v.intermediate_size + 2 * v.hidden_size);
        let tower = match (trains_vision, recompute) {
            // Nothing is kept; the widest moment of the forward pass.
            (false, _) => patches * (v.patch_len + v.hidden_size).max(6 * v.hidden_size).max(block),
            (true, false) => vision + of_block,
            (true, true) => vision + of_block + patches * block,
        };
        (vision + text).max(tower) + ends
    }

    /// As [`MemoryFootprint::generate_bytes`] with the kernels. Each lane takes prompts in as samples leave it, and works on the largest.
    fn kernel_generation(&self, prompts: &[PromptSize], samples: usize, new_tokens: usize) -> usize {
        let (t, v, heads) = self.shapes();
        let (hidden, inner) = (t.hidden_size, t.intermediate_size);
        let lanes = lanes(self, prompts.len());
        let slots = (prompts.len() * samples).div_ceil(lanes.max(1)).clamp(1, MAX_ACTIVE);
        let in_lane = (slots / samples).max(1);
        let active = (lanes * in_lane).min(prompts.len());
        let prompt_floats = prompts[..active].iter().map(|p| KvBuffer::floats(heads, p.tokens)).sum::<usize>();
        let cache = t.layers * (prompt_floats + active * samples * KvBuffer::floats(heads, new_tokens));
        // Prompts that each lane takes in together.
        let mut tokens = 0;
        let together = prompts.iter().take(in_lane).take_while(|p| {
            tokens += p.tokens;
            tokens <= PREFILL_TOKENS
        });
        let at_once = (lanes * together.count().max(1)).min(prompts.len());
        let sum = |of: fn(&PromptSize) -> usize| prompts[..at_once].iter().map(of).sum::<usize>();
        let (rows, patches) = (sum(|p| p.tokens), sum(|p| p.patches));
        let text =
            rows * (3 * hidden + 2 * heads.dim) + rows * (qkv_floats(&t) + heads.query * heads.dim).max(3 * inner);
        let block =
            (v.patch_len + v.hidden_size).max(6 * v.hidden_size).max(2 * v.hidden_size + 3 * v.intermediate_size);
        let vision = patches * block;
        let step = active * samples * (t.vocab_size + 3 * inner + 3 * hidden);
        F32 * (cache + text.max(vision).max(step))
    }

    /// As [`Model::shard_floats`] in candle ops, which take a batch whole and keep the inputs of every op; what an op's own backward pass
    /// makes for the time being comes on top, that of the widest.
    fn device_floats(&self, batch: &[GroupSize]) -> usize {
        let BatchSize { rows, predicted, patches } = BatchSize::of(batch);
        let (t, v, heads) = self.shapes();
        let trained = |vision: bool| {
            let of = self.parameters().iter().filter(|p| p.trainable() && self.part(&p.name).is_vision() == vision);
            of.map(|p| p.var.elem_count()).max().unwrap_or(0)
        };
        // Factors of an adapter's dropout, if all maps of a layer have one.
        let dropped = if self.dropout() > 0.0 { 6 * t.hidden_size + t.intermediate_size } else { 0 };
        let layer = 4 * t.hidden_size
            + heads.stride()
            + qkv_floats(&t)
            + heads.query * heads.dim
            + 3 * t.intermediate_size
            + dropped;
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
        let text_scores = scores(batch.iter().flat_map(spans_of), heads.query);
        let frames = scores(batch.iter().map(|group| frames_of(&group.prompt)), v.heads);
        let attention = (BACKWARD_SCORES * text_scores + rows * 12 * heads.query * heads.dim)
            .max(BACKWARD_SCORES * frames + patches * 14 * v.hidden_size);
        // Of a linear map: the gradient of its input and of its result; of a trained weight the new part, the sum before and the one after.
        let maps = (rows * 10 * t.intermediate_size).max(patches * 10 * v.intermediate_size);
        let largest = trained(true).max(trained(false));
        let tile = predicted * tile_width(predicted, t.vocab_size);
        text + vision + ends + attention.max(maps + 3 * largest).max(TILES_OF_LOGITS * tile + 3 * largest)
    }

    /// As [`MemoryFootprint::generate_bytes`] in candle ops: the cache of a wave is padded to its longest prompt, with room for all new
    /// tokens, and a layer is copied when prompts join or samples leave.
    fn device_generation(&self, prompts: &[PromptSize], samples: usize, new_tokens: usize) -> usize {
        let (t, v, heads) = self.shapes();
        let longest = prompts.iter().map(|p| p.tokens).max().unwrap_or(0);
        let active = prompts.len().min((MAX_ACTIVE / samples).max(1)) * samples;
        // Prompts that are taken in at once, of a wave that may be filled in several goes.
        let at_once = prompts.len().min((PREFILL_TOKENS / longest.max(1)).max(1));
        let of_layer = 2 * active * (longest + new_tokens) * heads.key_value * heads.dim;
        let cache = (t.layers + 2) * of_layer;
        let mut all: Vec<usize> = prompts.iter().map(|p| p.patches).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        let patches = all.iter().take(at_once).sum::<usize>();
        let frames = scores(prompts.iter().take(at_once).map(frames_of), v.heads);
        let text_scores = scores(prompts.iter().take(at_once).map(|p| ((p.tokens, p.tokens), 1)), heads.query);
        let rows = at_once * longest;
        let text = rows * (3 * t.hidden_size + heads.stride() + qkv_floats(&t) + 3 * t.intermediate_size)
            + rows * 5 * heads.query * heads.dim
            + SCORES * text_scores;
        let vision = patches * (v.patch_len + 14 * v.hidden_size + 3 * v.intermediate_size) + SCORES * frames;
        let logits = active * t.vocab_size;
        let step = active * (heads.query * (longest + new_tokens) * SCORES + 3 * t.intermediate_size)
            + logits
            + CHOOSING * logits.min(MAX_TILE_LOGITS);
        F32 * (cache + text.max(vision).max(step))
    }
}
