//! The vision tower: patches -> ViT blocks with window or full attention -> one merged feature per 2 x 2 patches.
//!
//! Patches are put into window order before the first matrix product, so that a window is a run of rows; the order is undone
//! where the features are spliced into the text.

use super::vision_config::VisionConfig;
use crate::Result;
use crate::model::architecture::{Features, VisionEncoder};
use crate::model::qwen_vl::vision_fields::VISION_NORM_EPS;
use crate::model::qwen_vl::window_order::{WindowOrder, spans};
use crate::model::sequence::ImageInput;
use crate::model::weights::named::NamedWeights;
use crate::nn::{
    Gelu, Heads, Linear, Parameter, RopeTable, SpanGroup, Tape, Value, attention, gelu, linear, merge_rows, rms_norm,
    rope, swiglu,
};
use candle_core::Device;
use std::sync::Arc;

/// The tower's weights.
pub struct VisionTower {
    config: VisionConfig,
    patch_embed: Linear,
    blocks: Vec<Arc<Block>>,
    merger: Merger,
}

struct Block {
    norm1: Arc<Parameter>,
    qkv: Linear,
    proj: Linear,
    norm2: Arc<Parameter>,
    gate: Linear,
    up: Linear,
    down: Linear,
    full_attention: bool,
}

struct Merger {
    norm: Arc<Parameter>,
    inner: Linear,
    outer: Linear,
}

impl VisionTower {
    /// Take the tower's weights.
    pub fn new(config: &VisionConfig, weights: &mut NamedWeights) -> Result<Self> {
        let blocks = (0..config.depth)
            .map(|i| {
                let name = |part: &str| format!("visual.blocks.{i}.{part}");
                Ok(Arc::new(Block {
                    norm1: weights.take(&name("norm1.weight"))?,
                    qkv: weights.linear(&name("attn.qkv"), true)?,
                    proj: weights.linear(&name("attn.proj"), true)?,
                    norm2: weights.take(&name("norm2.weight"))?,
                    gate: weights.linear(&name("mlp.gate_proj"), true)?,
                    up: weights.linear(&name("mlp.up_proj"), true)?,
                    down: weights.linear(&name("mlp.down_proj"), true)?,
                    full_attention: config.fullatt_block_indexes.contains(&i),
                }))
            })
            .collect::<Result<_>>()?;
        Ok(VisionTower {
            config: config.clone(),
            patch_embed: weights.linear("visual.patch_embed.proj", false)?,
            blocks,
            merger: Merger {
                norm: weights.take("visual.merger.ln_q.weight")?,
                inner: weights.linear("visual.merger.mlp.0", true)?,
                outer: weights.linear("visual.merger.mlp.2", true)?,
            },
        })
    }
}

impl VisionEncoder for VisionTower {
    fn forward(&self, tape: &Tape, images: &[Arc<ImageInput>], device: &Device, recompute: bool) -> Result<Features> {
        let config = &self.config;
        let order = WindowOrder::new(images, config.patches.spatial_merge_size, config.window_tokens());
        let pixels = order.pixels(images, config.patches.patch_len(), device)?;
        let heads = Heads { query: config.num_heads, key_value: config.num_heads, dim: config.head_dim };
        let table = Arc::new(RopeTable::spatial(&order.positions, config.head_dim, config.rope_theta));
        let (windows, frames) = (spans(&order.windows), spans(&order.frames));
        let mut x = linear(tape, &Value::constant(pixels), &[&self.patch_embed], None)?;
        for block in &self.blocks {
            let (seen, table) = (if block.full_attention { &frames } else { &windows }, &table);
            x = match recompute {
                false => block.forward(tape, x, table, seen, heads)?,
                true => {
                    let (block, seen, table) = (Arc::clone(block), Arc::clone(seen), Arc::clone(table));
                    let trains = block.is_trainable();
                    tape.gradient_checkpoint(&x, trains, move |tape, x| block.forward(tape, x, &table, &seen, heads))?
                }
            };
        }
        let h = rms_norm(tape, &x, &self.merger.norm, VISION_NORM_EPS)?;
        let h = merge_rows(tape, &h, config.patches.merged())?;
        let h = gelu(tape, &linear(tape, &h, &[&self.merger.inner], None)?, Gelu::Exact)?;
        let rows = linear(tape, &h, &[&self.merger.outer], None)?;
        Ok(Features { rows, deep: Vec::new(), places: order.places })
    }
}

impl Block {
    fn forward(
        &self,
        tape: &Tape,
        mut x: Value,
        table: &Arc<RopeTable>,
        seen: &Arc<Vec<SpanGroup>>,
        heads: Heads,
    ) -> Result<Value> {
        let h = rms_norm(tape, &x, &self.norm1, VISION_NORM_EPS)?;
        let qkv = rope(tape, linear(tape, &h, &[&self.qkv], None)?, table, heads)?;
        let a = attention(tape, &qkv, seen, heads)?;
        x = linear(tape, &a, &[&self.proj], Some(&x))?;
        let h = rms_norm(tape, &x, &self.norm2, VISION_NORM_EPS)?;
        let h = swiglu(tape, &linear(tape, &h, &[&self.gate, &self.up], None)?)?;
        linear(tape, &h, &[&self.down], Some(&x))
    }

    fn is_trainable(&self) -> bool {
        let maps = [&self.qkv, &self.proj, &self.gate, &self.up, &self.down];
        [&self.norm1, &self.norm2].iter().any(|p| p.trainable()) || maps.iter().any(|m| m.is_trainable())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::init::{Preset, write_checkpoint};
    use crate::model::qwen2_5_vl::Config;
    use crate::model::weights;
    use std::collections::HashMap;

    #[test]
    fn the_base_of_the_rotary_frequencies_is_the_one_of_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        write_checkpoint(dir.path(), Preset::Tiny, 1).unwrap();
        let mut value: serde_json::Value = crate::io::files::read_json(&dir.path().join("config.json")).unwrap();
        let mut features = |theta: Option<f64>| {
            if let Some(theta) = theta {
                value["vision_config"]["rope_parameters"] = serde_json::json!({ "rope_theta": theta });
            }
            let config = Config::from_json(&value).unwrap();
            let read = weights::read(dir.path(), &config, &Device::Cpu).unwrap();
            let mut weights = NamedWeights::of(read, HashMap::new());
            let tower = VisionTower::new(&config.vision, &mut weights).unwrap();
            let side = 2 * config.vision.patches.spatial_merge_size;
            let count = side * side * config.vision.patches.patch_len();
            let patches = (0..count).map(|i| (i * 7919 % 1009) as f32 / 1009.0).collect();
            let image = Arc::new(ImageInput { patches, grid: [1, side, side] });
            let found = tower.forward(&Tape::no_grad(), &[image], &Device::Cpu, false).unwrap();
            found.rows.tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let published = features(None);
        assert!(features(Some(10_000.0)) == published);
        assert!(features(Some(100.0)) != published);
    }
}
