//! Operations of a model's matrix products, forward: 2 m n k each. Every row in every layer, pairs of attention that are seen; a
//! prompt once for all of its responses. What is left out by sharing more than that makes a path faster than its count.

use jigsaw::model::{Architecture, ImageInput, Sequence, VisionShape};
use std::sync::Arc;

/// Forward through tower, decoder and head for the response tokens of `batch`.
pub fn forward(architecture: &dyn Architecture, batch: &[Sequence]) -> f64 {
    let (text, vision_shape) = (architecture.decoder(), architecture.vision());
    let (width, queries) = (text.hidden_size as f64, (text.heads * text.head_dim) as f64);
    let keys = (text.key_value_heads * text.head_dim) as f64;
    let row = 2.0 * width * (2.0 * queries + 2.0 * keys + 3.0 * text.intermediate_size as f64);
    let mut sum = 0.0;
    for group in batch.chunk_by(|a, b| Arc::ptr_eq(&a.prompt, &b.prompt)) {
        let prompt = group[0].prompt.ids.len() as f64;
        let (mut rows, mut pairs, mut tokens) = (prompt, prompt * prompt / 2.0, 0.0);
        for response in group.iter().map(|s| s.response.len() as f64) {
            rows += response;
            pairs += response * (prompt + response / 2.0);
            tokens += response;
        }
        sum += text.layers as f64 * (rows * row + 4.0 * queries * pairs);
        sum += 2.0 * tokens * width * text.vocab_size as f64;
        sum += group[0]
            .prompt
            .images
            .iter()
            .map(|image| vision_shape.as_ref().map_or(0.0, |v| vision(v, text.hidden_size, image)))
            .sum::<f64>();
    }
    sum
}

fn vision(v: &VisionShape, out: usize, image: &ImageInput) -> f64 {
    let (width, inner) = (v.hidden_size as f64, v.intermediate_size as f64);
    let unit = (v.merge_size * v.merge_size) as f64;
    let patches = image.grid.iter().product::<usize>() as f64;
    let window = v.window_size.map_or(f64::INFINITY, |side| (side / v.patch_size).pow(2) as f64);
    let full = v.full_attention_blocks.len() as f64;
    let pairs = patches * (full * patches + (v.blocks as f64 - full) * window.min(patches));
    let merged = 2.0 * patches * width * (unit * width + out as f64);
    2.0 * patches * v.patch_len as f64 * width
        + v.blocks as f64 * 2.0 * patches * (4.0 * width * width + 3.0 * width * inner)
        + 4.0 * width * pairs
        + merged
}
