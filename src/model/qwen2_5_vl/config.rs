//! The vision tower in `config.json` of a Qwen2.5-VL checkpoint, and what holds for its decoder.

use super::vision::VisionTower;
use super::vision_config::VisionConfig;
use crate::Result;
use crate::model::architecture::VisionEncoder;
use crate::model::causal_lm::text_config::DecoderRules;
use crate::model::json_fields::{Fields, MAX_LAYERS, MAX_WIDTH};
use crate::model::qwen_vl::VisionFamily;
use crate::model::qwen_vl::vision_fields::{
    PatchConfig, QWEN2_VL_RULES, rope_theta, width_and_heads, write_rope_theta,
};
use crate::model::shapes::VisionShape;
use crate::model::weights::named::NamedWeights;
use serde_json::{Value, json};

impl VisionFamily for VisionConfig {
    const MODEL_TYPE: &'static str = "qwen2_5_vl";
    const TITLE: &'static str = "Qwen2.5-VL";
    const CLASS: &'static str = "Qwen2_5_VLForConditionalGeneration";
    const RULES: DecoderRules = QWEN2_VL_RULES;

    fn from_fields(f: &Fields) -> Result<Self> {
        f.activation("hidden_act")?;
        let depth = f.size("depth", MAX_LAYERS)?.unwrap_or(32);
        let [hidden_size, num_heads, head_dim] = width_and_heads(f, "hidden_size", 3584, 16)?;
        let patches = PatchConfig::from_fields(f, 14)?;
        let window_size = f.size("window_size", MAX_WIDTH)?.unwrap_or(112);
        let token = patches.patch_size * patches.spatial_merge_size;
        if window_size < token {
            return Err(f.error(
                "window_size",
                format!("{window_size} is smaller than one merged token, patch_size x spatial_merge_size = {token}"),
            ));
        }
        let mut fullatt = f.counts("fullatt_block_indexes")?.unwrap_or_else(|| vec![7, 15, 23, 31]);
        // transformers only asks whether a block's index is listed, so indexes beyond the depth mean nothing.
        fullatt.retain(|&i| i < depth);
        fullatt.sort_unstable();
        fullatt.dedup();
        Ok(VisionConfig {
            depth,
            hidden_size,
            intermediate_size: f.size("intermediate_size", MAX_WIDTH)?.unwrap_or(3420),
            num_heads,
            head_dim,
            patches,
            window_size,
            fullatt_block_indexes: fullatt,
            out_hidden_size: f.size("out_hidden_size", MAX_WIDTH)?.unwrap_or(3584),
            rope_theta: rope_theta(f)?,
        })
    }

    fn to_json(&self) -> Value {
        let patches = &self.patches;
        let mut vision = json!({
            "model_type": Self::MODEL_TYPE,
            "depth": self.depth,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_heads": self.num_heads,
            "in_chans": patches.in_channels,
            "in_channels": patches.in_channels,
            "out_hidden_size": self.out_hidden_size,
            "patch_size": patches.patch_size,
            "spatial_patch_size": patches.patch_size,
            "temporal_patch_size": patches.temporal_patch_size,
            "spatial_merge_size": patches.spatial_merge_size,
            "window_size": self.window_size,
            "fullatt_block_indexes": self.fullatt_block_indexes,
            "tokens_per_second": 2,
        });
        write_rope_theta(&mut vision, self.rope_theta);
        vision
    }

    fn shape(&self) -> VisionShape {
        VisionShape {
            blocks: self.depth,
            hidden_size: self.hidden_size,
            heads: self.num_heads,
            intermediate_size: self.intermediate_size,
            window_size: Some(self.window_size),
            full_attention_blocks: self.fullatt_block_indexes.clone(),
            patch_size: self.patches.patch_size,
            temporal_patch_size: self.patches.temporal_patch_size,
            merge_size: self.patches.spatial_merge_size,
            patch_len: self.patches.patch_len(),
            deepstack: 0,
        }
    }

    fn out_size(&self) -> (&'static str, usize) {
        ("out_hidden_size", self.out_hidden_size)
    }

    fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let mut out: Vec<(String, Vec<usize>)> = Vec::new();
        let mut add = |name: String, shape: &[usize]| out.push((name, shape.to_vec()));
        let (width, inner) = (self.hidden_size, self.intermediate_size);
        add("visual.patch_embed.proj.weight".into(), &self.patches.embedding_shape(width));
        for i in 0..self.depth {
            let block = format!("visual.blocks.{i}");
            add(format!("{block}.norm1.weight"), &[width]);
            add(format!("{block}.attn.qkv.weight"), &[3 * width, width]);
            add(format!("{block}.attn.qkv.bias"), &[3 * width]);
            add(format!("{block}.attn.proj.weight"), &[width, width]);
            add(format!("{block}.attn.proj.bias"), &[width]);
            add(format!("{block}.norm2.weight"), &[width]);
            for (name, rows, columns) in
                [("gate_proj", inner, width), ("up_proj", inner, width), ("down_proj", width, inner)]
            {
                add(format!("{block}.mlp.{name}.weight"), &[rows, columns]);
                add(format!("{block}.mlp.{name}.bias"), &[rows]);
            }
        }
        let merged = width * self.patches.merged();
        add("visual.merger.ln_q.weight".into(), &[width]);
        add("visual.merger.mlp.0.weight".into(), &[merged, merged]);
        add("visual.merger.mlp.0.bias".into(), &[merged]);
        add("visual.merger.mlp.2.weight".into(), &[self.out_hidden_size, merged]);
        add("visual.merger.mlp.2.bias".into(), &[self.out_hidden_size]);
        out
    }

    fn build(&self, weights: &mut NamedWeights) -> Result<Box<dyn VisionEncoder>> {
        Ok(Box::new(VisionTower::new(self, weights)?))
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
