//! The vision tower in `config.json` of a Qwen2-VL checkpoint, and what holds for its decoder.

use super::vision::{self, VisionTower};
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

/// Largest `mlp_ratio`.
const MAX_RATIO: usize = 1 << 10;

impl VisionFamily for VisionConfig {
    const MODEL_TYPE: &'static str = "qwen2_vl";
    const TITLE: &'static str = "Qwen2-VL";
    const CLASS: &'static str = "Qwen2VLForConditionalGeneration";
    const RULES: DecoderRules = QWEN2_VL_RULES;

    fn from_fields(f: &Fields) -> Result<Self> {
        if let Some(other) = f.string("hidden_act")?.filter(|name| name != "quick_gelu") {
            return Err(f.error("hidden_act", format!("activation `{other}` is not supported; only `quick_gelu` is")));
        }
        let [embed_dim, num_heads, head_dim] = width_and_heads(f, "embed_dim", 1280, 16)?;
        Ok(VisionConfig {
            depth: f.size("depth", MAX_LAYERS)?.unwrap_or(32),
            embed_dim,
            mlp_ratio: f.size("mlp_ratio", MAX_RATIO)?.unwrap_or(4),
            num_heads,
            head_dim,
            patches: PatchConfig::from_fields(f, 14)?,
            hidden_size: f.size("hidden_size", MAX_WIDTH)?.unwrap_or(3584),
            rope_theta: rope_theta(f)?,
        })
    }

    fn to_json(&self) -> Value {
        let patches = &self.patches;
        let mut vision = json!({
            "model_type": Self::MODEL_TYPE,
            "depth": self.depth,
            "embed_dim": self.embed_dim,
            "hidden_act": "quick_gelu",
            "hidden_size": self.hidden_size,
            "mlp_ratio": self.mlp_ratio,
            "num_heads": self.num_heads,
            "in_chans": patches.in_channels,
            "in_channels": patches.in_channels,
            "patch_size": patches.patch_size,
            "spatial_patch_size": patches.patch_size,
            "temporal_patch_size": patches.temporal_patch_size,
            "spatial_merge_size": patches.spatial_merge_size,
        });
        write_rope_theta(&mut vision, self.rope_theta);
        vision
    }

    fn shape(&self) -> VisionShape {
        VisionShape {
            blocks: self.depth,
            hidden_size: self.embed_dim,
            heads: self.num_heads,
            intermediate_size: self.embed_dim * self.mlp_ratio,
            window_size: None,
            full_attention_blocks: Vec::new(),
            patch_size: self.patches.patch_size,
            temporal_patch_size: self.patches.temporal_patch_size,
            merge_size: self.patches.spatial_merge_size,
            patch_len: self.patches.patch_len(),
            deepstack: 0,
        }
    }

    fn out_size(&self) -> (&'static str, usize) {
        ("hidden_size", self.hidden_size)
    }

    fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)> {
        vision::parameter_shapes(self)
    }

    fn build(&self, weights: &mut NamedWeights) -> Result<Box<dyn VisionEncoder>> {
        Ok(Box::new(VisionTower::new(self, weights)?))
    }
}

#[cfg(test)]
mod tests {
    use crate::model::parse_architecture;
    use serde_json::{Value, json};

    /// The published `config.json` of the 2B checkpoint, shortened to what is read.
    fn published() -> Value {
        json!({
            "architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl", "hidden_size": 1536,
            "intermediate_size": 8960, "num_attention_heads": 12, "num_hidden_layers": 28, "num_key_value_heads": 2,
            "rms_norm_eps": 1e-6, "rope_theta": 1e6, "vocab_size": 151936, "tie_word_embeddings": true,
            "use_sliding_window": false, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
            "vision_config": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_chans": 3, "hidden_size": 1536,
                "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2},
        })
    }

    #[test]
    fn the_2b_checkpoint_has_its_published_number_of_tensors_and_parameters_and_is_written_as_it_was_read() {
        let config = parse_architecture(&published()).unwrap();
        let shapes = config.parameter_shapes();
        let count: usize = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        // `Qwen/Qwen2-VL-2B-Instruct` in transformers.
        assert_eq!((shapes.len(), count), (729, 2_208_985_600));
        assert!(shapes.iter().all(|(name, _)| config.published_name(name) == *name));
        let again = parse_architecture(&config.to_json()).unwrap();
        assert_eq!((again.to_json(), again.vision()), (config.to_json(), config.vision()));
    }

    #[test]
    fn what_would_compute_otherwise_is_refused_by_name() {
        for (pointer, bad, said) in [
            (
                "/vision_config/hidden_size",
                json!(1280),
                "vision_config.hidden_size is 1280 but the decoder's hidden_size is 1536",
            ),
            ("/vision_config/num_heads", json!(7), "vision_config.embed_dim: 1280 is not divisible by num_heads 7"),
            ("/vision_config/mlp_ratio", json!(4096), "vision_config.mlp_ratio: 4096 is too large"),
            ("/rope_scaling/type", json!("yarn"), "`yarn` is not supported"),
        ] {
            let mut value = published();
            *value.pointer_mut(pointer).unwrap() = bad;
            let error = parse_architecture(&value).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(said), "{error}");
        }
        let mut value = published();
        value["vision_config"]["hidden_act"] = json!("silu");
        let error = parse_architecture(&value).unwrap_err().to_string();
        assert!(error.contains("vision_config.hidden_act: activation `silu`"), "{error}");
    }
}
