//! Operations of a model's matrix products, forward: 2 m n k each. Every row in every layer, pairs of attention that are seen; a
//! prompt once for all of its responses. What is left out by sharing more than that makes a path faster than its count.

use jigsaw::model::qwen2_5_vl::Config;
use jigsaw::model::{ImageInput, Sequence};
use std::sync::Arc;

/// Forward through tower, decoder and head for the response tokens of `batch`.
pub fn forward(config: &Config, batch: &[Sequence]) -> f64 {
    let text = &config.text;
    let (width, queries) = (text.hidden_size as f64, (text.num_attention_heads * text.head_dim) as f64);
    let keys = (text.num_key_value_heads * text.head_dim) as f64;
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
        sum += text.num_hidden_layers as f64 * (rows * row + 4.0 * queries * pairs);
        sum += 2.0 * tokens * width * text.vocab_size as f64;
        sum += group[0].prompt.images.iter().map(|image| vision(config, image)).sum::<f64>();
    }
    sum
}

fn vision(config: &Config, image: &ImageInput) -> f64 {
    let v = &config.vision;
    let (width, inner) = (v.hidden_size as f64, v.intermediate_size as f64);
    let unit = (v.spatial_merge_size * v.spatial_merge_size) as f64;
    let patches = image.grid.iter().product::<usize>() as f64;
    let window = (v.window_size / v.patch_size).pow(2) as f64;
    let full = v.fullatt_block_indexes.len() as f64;
    let pairs = patches * (full * patches + (v.depth as f64 - full) * window.min(patches));
    let merged = 2.0 * patches * width * (unit * width + v.out_hidden_size as f64);
    2.0 * patches * v.patch_len() as f64 * width
        + v.depth as f64 * 2.0 * patches * (4.0 * width * width + 3.0 * width * inner)
        + 4.0 * width * pairs
        + merged
}
