//! The vision tower: patches -> ViT blocks -> one merged feature per 2 x 2 patches.

use super::vision_config::VisionConfig;
use crate::Result;
use crate::model::architecture::{Features, VisionEncoder};
use crate::model::qwen_vl::vit::{Block, Merger, MlpNames, Shapes};
use crate::model::qwen_vl::window_order::{WHOLE_IMAGES, WindowOrder, spans};
use crate::model::sequence::ImageInput;
use crate::model::weights::named::NamedWeights;
use crate::nn::{Gelu, Heads, Linear, RopeTable, Tape, Value, linear};
use candle_core::Device;
use std::sync::Arc;

const MLP: MlpNames = ["fc1", "fc2"];
const MERGER: [&str; 3] = ["visual.merger.ln_q", "visual.merger.mlp.0", "visual.merger.mlp.2"];

/// The tower's weights.
pub struct VisionTower {
    config: VisionConfig,
    patch_embed: Linear,
    blocks: Vec<Arc<Block>>,
    merger: Merger,
}

/// Every weight with its shape, in the order of the computation, under its published name.
pub fn parameter_shapes(config: &VisionConfig) -> Shapes {
    let (width, patches) = (config.embed_dim, &config.patches);
    let mut out = vec![("visual.patch_embed.proj.weight".to_string(), patches.embedding_shape(width).to_vec())];
    for i in 0..config.depth {
        Block::shapes(&format!("visual.blocks.{i}"), MLP, [width, width * config.mlp_ratio], &mut out);
    }
    Merger::shapes(MERGER, [width, patches.merged(), config.hidden_size], false, &mut out);
    out
}

impl VisionTower {
    /// Take the tower's weights.
    pub fn new(config: &VisionConfig, weights: &mut NamedWeights) -> Result<Self> {
        let heads = Heads { query: config.num_heads, key_value: config.num_heads, dim: config.head_dim };
        let block = |i| Block::new(&format!("visual.blocks.{i}"), MLP, Gelu::Quick, heads, weights).map(Arc::new);
        let blocks = (0..config.depth).map(block).collect::<Result<_>>()?;
        Ok(VisionTower {
            config: config.clone(),
            patch_embed: weights.linear("visual.patch_embed.proj", false)?,
            blocks,
            merger: Merger::new(MERGER, config.patches.merged(), false, weights)?,
        })
    }
}

impl VisionEncoder for VisionTower {
    fn forward(&self, tape: &Tape, images: &[Arc<ImageInput>], device: &Device, recompute: bool) -> Result<Features> {
        let config = &self.config;
        let order = WindowOrder::new(images, config.patches.spatial_merge_size, WHOLE_IMAGES);
        let pixels = order.pixels(images, config.patches.patch_len(), device)?;
        let table = Arc::new(RopeTable::spatial(&order.positions, config.head_dim, config.rope_theta));
        let frames = spans(&order.frames);
        let mut x = linear(tape, &Value::constant(pixels), &[&self.patch_embed], None)?;
        for block in &self.blocks {
            x = block.forward(tape, x, &table, &frames, recompute)?;
        }
        Ok(Features { rows: self.merger.forward(tape, &x)?, deep: Vec::new(), places: order.places })
    }
}
