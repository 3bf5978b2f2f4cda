//! The vision tower in `config.json` of a Qwen3-VL checkpoint, and what holds for its decoder.

use super::vision::{self, VisionTower};
use super::vision_config::VisionConfig;
use crate::Result;
use crate::model::architecture::VisionEncoder;
use crate::model::causal_lm::TextConfig;
use crate::model::causal_lm::families::QWEN3;
use crate::model::causal_lm::text_config::DecoderRules;
use crate::model::json_fields::{Fields, MAX_LAYERS, MAX_WIDTH};
use crate::model::qwen_vl::VisionFamily;
use crate::model::qwen_vl::vision_fields::{PatchConfig, rope_theta, width_and_heads, write_rope_theta};
use crate::model::shapes::VisionShape;
use crate::model::weights::named::NamedWeights;
use serde_json::{Value, json};

/// The decoder: that of Qwen3, with the defaults of transformers' `Qwen3VLTextConfig`.
const RULES: DecoderRules = DecoderRules {
    defaults: TextConfig { rope_theta: 500_000.0, max_position_embeddings: 128_000, ..QWEN3.rules.defaults },
    max_window_layers: None,
    ..QWEN3.rules
};

impl VisionFamily for VisionConfig {
    const MODEL_TYPE: &'static str = "qwen3_vl";
    const TITLE: &'static str = "Qwen3-VL";
    const CLASS: &'static str = "Qwen3VLForConditionalGeneration";
    const RULES: DecoderRules = RULES;
    const NESTED: bool = true;
    const INTERLEAVED: bool = true;
    const MROPE_SECTION: [usize; 3] = [24, 20, 20];

    fn from_fields(f: &Fields) -> Result<Self> {
        if let Some(other) = f.string("hidden_act")?.filter(|name| name != "gelu_pytorch_tanh") {
            return Err(
                f.error("hidden_act", format!("activation `{other}` is not supported; only `gelu_pytorch_tanh` is"))
            );
        }
        let depth = f.size("depth", MAX_LAYERS)?.unwrap_or(27);
        let [hidden_size, num_heads, head_dim] = width_and_heads(f, "hidden_size", 1152, 16)?;
        let positions = f.size("num_position_embeddings", MAX_WIDTH)?.unwrap_or(2304);
        if positions.isqrt().pow(2) != positions {
            return Err(f.error("num_position_embeddings", format!("{positions} is no square of a whole number")));
        }
        let deepstack = f.counts("deepstack_visual_indexes")?.unwrap_or_else(|| vec![8, 16, 24]);
        if !deepstack.is_sorted_by(|a, b| a < b) || deepstack.last().is_some_and(|&last| last >= depth) {
            return Err(f.error(
                "deepstack_visual_indexes",
                format!("{deepstack:?} must be numbers of the {depth} blocks from 0, ascending"),
            ));
        }
        Ok(VisionConfig {
            depth,
            hidden_size,
            intermediate_size: f.size("intermediate_size", MAX_WIDTH)?.unwrap_or(4304),
            num_heads,
            head_dim,
            patches: PatchConfig::from_fields(f, 16)?,
            out_hidden_size: f.size("out_hidden_size", MAX_WIDTH)?.unwrap_or(3584),
            num_position_embeddings: positions,
            deepstack_visual_indexes: deepstack,
            rope_theta: rope_theta(f)?,
        })
    }

    fn to_json(&self) -> Value {
        let patches = &self.patches;
        let mut vision = json!({
            "deepstack_visual_indexes": self.deepstack_visual_indexes,
            "depth": self.depth,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": self.hidden_size,
            "in_channels": patches.in_channels,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "model_type": Self::MODEL_TYPE,
            "num_heads": self.num_heads,
            "num_position_embeddings": self.num_position_embeddings,
            "out_hidden_size": self.out_hidden_size,
            "patch_size": patches.patch_size,
            "spatial_merge_size": patches.spatial_merge_size,
            "temporal_patch_size": patches.temporal_patch_size,
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
            window_size: None,
            full_attention_blocks: Vec::new(),
            patch_size: self.patches.patch_size,
            temporal_patch_size: self.patches.temporal_patch_size,
            merge_size: self.patches.spatial_merge_size,
            patch_len: self.patches.patch_len(),
            deepstack: self.deepstack_visual_indexes.len(),
        }
    }

    fn out_size(&self) -> (&'static str, usize) {
        ("out_hidden_size", self.out_hidden_size)
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
    use crate::model::{Part, parse_architecture};
    use serde_json::{Value, json};

    /// The published `config.json` of the 2B checkpoint, shortened to what is read.
    fn published() -> Value {
        json!({
            "architectures": ["Qwen3VLForConditionalGeneration"], "model_type": "qwen3_vl", "tie_word_embeddings": true,
            "text_config": {"model_type": "qwen3_vl_text", "head_dim": 128, "hidden_size": 2048, "intermediate_size": 6144,
                "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rope_theta": 5e6, "vocab_size": 151936,
                "rope_scaling": {"mrope_interleaved": true, "mrope_section": [24, 20, 20], "rope_type": "default"}},
            "vision_config": {"deepstack_visual_indexes": [5, 11, 17], "depth": 24, "hidden_act": "gelu_pytorch_tanh",
                "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2048, "patch_size": 16},
        })
    }

    #[test]
    fn the_2b_checkpoint_has_its_published_names_and_is_written_as_it_was_read() {
        let config = parse_architecture(&published()).unwrap();
        let shapes = config.parameter_shapes();
        let count: usize = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        // `Qwen/Qwen3-VL-2B-Instruct` in transformers.
        assert_eq!((shapes.len(), count), (625, 2_127_532_032));
        for (name, _) in &shapes {
            assert!(["model.language_model.", "model.visual."].iter().any(|start| name.starts_with(start)), "{name}");
            assert!(config.published_name(name) == *name && config.transformers_name(name) == *name);
        }
        assert_eq!(config.published_name("visual.pos_embed.weight"), "model.visual.pos_embed.weight");
        for (name, part) in [
            ("model.visual.deepstack_merger_list.0.norm.weight", Part::Merger),
            ("model.visual.pos_embed.weight", Part::Vision),
            ("model.language_model.embed_tokens.weight", Part::Embeddings),
            ("model.language_model.layers.0.self_attn.q_norm.weight", Part::Decoder),
        ] {
            assert_eq!(config.part(name), part, "{name}");
        }
        let again = parse_architecture(&config.to_json()).unwrap();
        assert_eq!((again.to_json(), again.vision()), (config.to_json(), config.vision()));
    }

    #[test]
    fn what_would_compute_otherwise_is_refused_by_name() {
        for (pointer, bad, said) in [
            (
                "/vision_config/deepstack_visual_indexes",
                json!([5, 24]),
                "[5, 24] must be numbers of the 24 blocks from 0, ascending",
            ),
            ("/vision_config/deepstack_visual_indexes", json!([5, 5]), "[5, 5] must be numbers"),
            ("/text_config/num_hidden_layers", json!(3), "has 3 blocks; they must be fewer than num_hidden_layers 3"),
            (
                "/vision_config/hidden_act",
                json!("gelu"),
                "vision_config.hidden_act: activation `gelu` is not supported",
            ),
            (
                "/vision_config/num_position_embeddings",
                json!(2300),
                "vision_config.num_position_embeddings: 2300 is no square",
            ),
            (
                "/text_config/rope_scaling/mrope_interleaved",
                json!(false),
                "mrope_interleaved: must be true in this family",
            ),
            ("/text_config/attention_bias", json!(true), "text_config.attention_bias: biases are not supported"),
        ] {
            let mut value = published();
            value["vision_config"]["num_position_embeddings"] = json!(2304);
            value["text_config"]["attention_bias"] = json!(false);
            *value.pointer_mut(pointer).unwrap() = bad;
            let error = parse_architecture(&value).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(said), "{error}");
        }
    }
}
