//! Qwen2.5-VL: Qwen2's decoder with positions in time, height and width, and a vision tower before it.

pub mod config;
mod mrope;
mod vision;
mod weight_names;

pub use config::Config;

use super::architecture::{Architecture, Network};
use super::causal_lm;
use super::parts::Part;
use super::positions::Positions;
use super::shapes::{DecoderShape, ImageTokens, VisionShape};
use super::weights::named::NamedWeights;
use crate::Result;
use serde_json::Value;
use vision::VisionTower;

impl Architecture for Config {
    fn model_type(&self) -> &'static str {
        config::MODEL_TYPE
    }

    fn title(&self) -> &'static str {
        "Qwen2.5-VL"
    }

    fn to_json(&self) -> Value {
        Config::to_json(self)
    }

    fn decoder(&self) -> DecoderShape {
        DecoderShape { mrope_section: self.mrope_section.clone(), ..self.text.shape(self.tie_word_embeddings) }
    }

    fn vision(&self) -> Option<VisionShape> {
        let v = &self.vision;
        Some(VisionShape {
            blocks: v.depth,
            hidden_size: v.hidden_size,
            heads: v.num_heads,
            intermediate_size: v.intermediate_size,
            window_size: v.window_size,
            full_attention_blocks: v.fullatt_block_indexes.clone(),
            patch_size: v.patch_size,
            temporal_patch_size: v.temporal_patch_size,
            merge_size: v.spatial_merge_size,
            patch_len: v.patch_len(),
        })
    }

    fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)> {
        weight_names::parameter_shapes(self)
    }

    fn published_name(&self, stored: &str) -> String {
        weight_names::published_name(stored)
    }

    fn transformers_name(&self, published: &str) -> String {
        weight_names::transformers_name(published)
    }

    fn decoder_module_pattern(&self) -> &'static str {
        r"(.*\.)?language_model\.layers\.\d+\.(self_attn|mlp)\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    }

    fn part(&self, parameter: &str) -> Part {
        weight_names::part(parameter)
    }

    fn eos_token_ids(&self) -> &[u32] {
        &self.eos_token_ids
    }

    fn image_tokens(&self) -> Option<ImageTokens> {
        Some(ImageTokens {
            image: self.image_token_id,
            video: self.video_token_id,
            start: self.vision_start_token_id,
            end: self.vision_end_token_id,
        })
    }

    fn positions(&self, ids: &[u32], grids: &[[usize; 3]]) -> Result<Positions> {
        mrope::get_rope_index(ids, grids, self.image_token_id, self.vision.spatial_merge_size)
    }

    fn build(&self, weights: &mut NamedWeights) -> Result<Network> {
        let vision = VisionTower::new(&self.vision, weights)?;
        let rotary = self.text.rotary().with_sections(&self.mrope_section);
        let decoder = causal_lm::decoder(&self.text, self.tie_word_embeddings, rotary, weights)?;
        Ok(Network { vision: Some(Box::new(vision)), decoder })
    }
}
