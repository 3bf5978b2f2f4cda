//! `config.json` of a Qwen2.5-VL checkpoint: both Hugging Face layouts in, one checked [`Config`] out.
//!
//! The published checkpoints keep the decoder's keys at the top level and call the rotary settings `rope_scaling`;
//! transformers 5 writes them under `text_config` and calls them `rope_parameters`. A key that is absent has the value
//! that transformers' `Qwen2_5_VLConfig` gives it, because transformers does not write keys that have their default.

use crate::model::json_fields::{Fields, MAX_LAYERS, MAX_WIDTH};
use crate::model::causal_lm::TextConfig;
use crate::model::causal_lm::text_config::{DecoderRules, HeadDim, RotaryFields, one_or_list};
use crate::{Error, Result};
use serde_json::{Value, json};

/// `model_type` of the family.
pub const MODEL_TYPE: &str = "qwen2_5_vl";

/// Epsilon of every RMSNorm of the vision tower and its merger; not a setting of the architecture.
pub const VISION_NORM_EPS: f64 = 1e-6;

/// Base of the vision tower's rotary frequencies in every published checkpoint, which do not state it.
const VISION_ROPE_THETA: f64 = 10_000.0;

/// Largest side of a patch, in pixels or frames, and of what the merger makes one token of, in patches.
const MAX_PATCH: usize = 1 << 10;

/// The decoder: that of Qwen2.5, with the defaults of transformers' `Qwen2_5_VLTextConfig`.
const RULES: DecoderRules = DecoderRules {
    defaults: TextConfig {
        vocab_size: 152_064,
        hidden_size: 8192,
        intermediate_size: 29_568,
        num_hidden_layers: 80,
        num_attention_heads: 64,
        num_key_value_heads: 8,
        head_dim: 128,
        qkv_bias: true,
        qk_norm: false,
        rms_norm_eps: 1e-5,
        rope_theta: 1_000_000.0,
        rope_scaling: None,
        max_position_embeddings: 32_768,
    },
    head_dim: HeadDim::Derived,
    max_window_layers: Some(80),
};

/// The architecture of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The decoder: that of Qwen2.5.
    pub text: TextConfig,
    /// How many of the decoder's `head_dim / 2` rotary frequencies follow the temporal, height and width position.
    pub mrope_section: Vec<usize>,
    /// The vision tower and its merger.
    pub vision: VisionConfig,
    /// Id of `<|image_pad|>`.
    pub image_token_id: u32,
    /// Id of `<|video_pad|>`.
    pub video_token_id: u32,
    /// Id of `<|vision_start|>`.
    pub vision_start_token_id: u32,
    /// Id of `<|vision_end|>`.
    pub vision_end_token_id: u32,
    /// Id of the beginning-of-sequence token (unused by the chat template).
    pub bos_token_id: Option<u32>,
    /// Ids that end a sequence, as `config.json` has them (`generation_config.json` says more).
    pub eos_token_ids: Vec<u32>,
    /// The output head is the embedding matrix.
    pub tie_word_embeddings: bool,
}

/// The vision tower: a ViT with window attention and 2-D rotary positions, and the patch merger.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Blocks.
    pub depth: usize,
    /// Width of a patch's hidden state.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Width of a head: `hidden_size / num_heads`.
    pub head_dim: usize,
    /// Colour channels.
    pub in_channels: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Frames that one patch spans (a still image is repeated).
    pub temporal_patch_size: usize,
    /// Side, in patches, of the square that the merger turns into one token.
    pub spatial_merge_size: usize,
    /// Side of an attention window in pixels.
    pub window_size: usize,
    /// Blocks that attend over the whole image, ascending; all others attend within windows.
    pub fullatt_block_indexes: Vec<usize>,
    /// Width of a merged token; equals the decoder's `hidden_size`.
    pub out_hidden_size: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
}

impl VisionConfig {
    /// Values of one flattened patch: channels x frames x height x width.
    pub fn patch_len(&self) -> usize {
        self.in_channels * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Side of an attention window in merged tokens.
    pub fn window_tokens(&self) -> usize {
        self.window_size / self.patch_size / self.spatial_merge_size
    }
}

impl Config {
    /// The configuration in a parsed `config.json`; errors name the field.
    pub fn from_json(value: &Value) -> Result<Self> {
        let root = Fields::root(value)?;
        let nested = root.section("text_config")?;
        let text_fields = nested.clone().unwrap_or_else(|| root.clone());
        let vision_fields = root.section("vision_config")?.unwrap_or_else(|| Fields::empty("vision_config"));
        // transformers: the root's value, or true if an older nested layout says so.
        let tied = root.boolean("tie_word_embeddings")?.unwrap_or(false)
            || nested.as_ref().map(|t| t.boolean("tie_word_embeddings")).transpose()?.flatten().unwrap_or(false);
        let eos = match root.ids("eos_token_id")? {
            Some(ids) => ids,
            None => text_fields.ids("eos_token_id")?.unwrap_or_else(|| vec![151645]),
        };
        let bos = match root.ids("bos_token_id")? {
            Some(ids) => Some(ids),
            None => text_fields.ids("bos_token_id")?,
        };
        let rotary = RotaryFields::read(&text_fields, &["default", "mrope"])?;
        let text = TextConfig::from_fields(&text_fields, &RULES, &rotary)?;
        let sections = rotary.section().map(|rope| rope.counts("mrope_section")).transpose()?.flatten();
        let mrope_section = sections.unwrap_or_else(|| vec![16, 24, 24]);
        let half = text.head_dim / 2;
        if mrope_section.len() != 3 || mrope_section.iter().fold(0, |sum: usize, n| sum.saturating_add(*n)) != half {
            return Err(text_fields.error(
                "mrope_section",
                format!("{mrope_section:?} must be three numbers that sum to half the head width, {half}"),
            ));
        }
        let config = Config {
            text,
            mrope_section,
            vision: VisionConfig::from_fields(&vision_fields)?,
            image_token_id: root.id("image_token_id")?.unwrap_or(151655),
            video_token_id: root.id("video_token_id")?.unwrap_or(151656),
            vision_start_token_id: root.id("vision_start_token_id")?.unwrap_or(151652),
            vision_end_token_id: root.id("vision_end_token_id")?.unwrap_or(151653),
            bos_token_id: bos.and_then(|ids| ids.first().copied()),
            eos_token_ids: eos,
            tie_word_embeddings: tied,
        };
        config.check()?;
        Ok(config)
    }

    /// What contradicts itself between the parts.
    fn check(&self) -> Result<()> {
        if self.vision.out_hidden_size != self.text.hidden_size {
            return Err(Error::input(format!(
                "vision_config.out_hidden_size is {} but the decoder's hidden_size is {}: image tokens would not fit \
                 between text tokens",
                self.vision.out_hidden_size, self.text.hidden_size
            )));
        }
        for (name, id) in [
            ("image_token_id", self.image_token_id),
            ("video_token_id", self.video_token_id),
            ("vision_start_token_id", self.vision_start_token_id),
            ("vision_end_token_id", self.vision_end_token_id),
        ] {
            if id as usize >= self.text.vocab_size {
                return Err(Error::input(format!("{name} is {id}, beyond vocab_size {}", self.text.vocab_size)));
            }
        }
        Ok(())
    }

    /// The flat layout of the published checkpoints, which every version of transformers and this program read.
    pub fn to_json(&self) -> Value {
        let (t, v) = (&self.text, &self.vision);
        let mut vision = json!({
            "model_type": MODEL_TYPE,
            "depth": v.depth,
            "hidden_act": "silu",
            "hidden_size": v.hidden_size,
            "intermediate_size": v.intermediate_size,
            "num_heads": v.num_heads,
            "in_chans": v.in_channels,
            "in_channels": v.in_channels,
            "out_hidden_size": v.out_hidden_size,
            "patch_size": v.patch_size,
            "spatial_patch_size": v.patch_size,
            "temporal_patch_size": v.temporal_patch_size,
            "spatial_merge_size": v.spatial_merge_size,
            "window_size": v.window_size,
            "fullatt_block_indexes": v.fullatt_block_indexes,
            "tokens_per_second": 2,
        });
        if v.rope_theta != VISION_ROPE_THETA {
            vision["rope_parameters"] = json!({ "rope_type": "axial", "rope_theta": v.rope_theta });
        }
        json!({
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": one_or_list(&self.eos_token_ids),
            "vision_start_token_id": self.vision_start_token_id,
            "vision_end_token_id": self.vision_end_token_id,
            "image_token_id": self.image_token_id,
            "video_token_id": self.video_token_id,
            "hidden_act": "silu",
            "hidden_size": t.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": t.intermediate_size,
            "max_position_embeddings": t.max_position_embeddings,
            "model_type": MODEL_TYPE,
            "num_attention_heads": t.num_attention_heads,
            "num_hidden_layers": t.num_hidden_layers,
            "num_key_value_heads": t.num_key_value_heads,
            "rms_norm_eps": t.rms_norm_eps,
            "rope_theta": t.rope_theta,
            "rope_scaling": { "type": "mrope", "mrope_section": self.mrope_section },
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "use_cache": true,
            "use_sliding_window": false,
            "vision_config": vision,
            "vocab_size": t.vocab_size,
        })
    }
}

impl VisionConfig {
    fn from_fields(f: &Fields) -> Result<Self> {
        f.activation("hidden_act")?;
        let depth = f.size("depth", MAX_LAYERS)?.unwrap_or(32);
        let hidden_size = f.size("hidden_size", MAX_WIDTH)?.unwrap_or(3584);
        let num_heads = f.positive("num_heads")?.unwrap_or(16);
        if hidden_size % num_heads != 0 {
            return Err(f.error("hidden_size", format!("{hidden_size} is not divisible by num_heads {num_heads}")));
        }
        let head_dim = hidden_size / num_heads;
        if head_dim % 4 != 0 {
            return Err(f.error(
                "hidden_size",
                format!("gives heads of width {head_dim}; 2-D rotary positions need a multiple of 4"),
            ));
        }
        let patch_size = f.small_square("patch_size", MAX_PATCH)?.unwrap_or(14);
        if let Some(spatial) = f.square("spatial_patch_size")?
            && spatial != patch_size
        {
            return Err(f.error("spatial_patch_size", format!("{spatial} differs from patch_size {patch_size}")));
        }
        let in_channels = match f.positive("in_channels")? {
            Some(channels) => channels,
            None => f.positive("in_chans")?.unwrap_or(3),
        };
        if in_channels != 3 {
            return Err(f.error("in_channels", format!("{in_channels} is not supported; images have 3 channels")));
        }
        let spatial_merge_size = f.size("spatial_merge_size", MAX_PATCH)?.unwrap_or(2);
        let window_size = f.size("window_size", MAX_WIDTH)?.unwrap_or(112);
        if window_size < patch_size * spatial_merge_size {
            return Err(f.error(
                "window_size",
                format!(
                    "{window_size} is smaller than one merged token, patch_size x spatial_merge_size = {}",
                    patch_size * spatial_merge_size
                ),
            ));
        }
        let mut fullatt = f.counts("fullatt_block_indexes")?.unwrap_or_else(|| vec![7, 15, 23, 31]);
        // transformers only asks whether a block's index is listed, so indexes beyond the depth mean nothing.
        fullatt.retain(|&i| i < depth);
        fullatt.sort_unstable();
        fullatt.dedup();
        let rope = f.section("rope_parameters")?;
        let rope_theta = rope.as_ref().map(|r| r.positive_number("rope_theta")).transpose()?.flatten();
        Ok(VisionConfig {
            depth,
            hidden_size,
            intermediate_size: f.size("intermediate_size", MAX_WIDTH)?.unwrap_or(3420),
            num_heads,
            head_dim,
            in_channels,
            patch_size,
            temporal_patch_size: f.small_square("temporal_patch_size", MAX_PATCH)?.unwrap_or(2),
            spatial_merge_size,
            window_size,
            fullatt_block_indexes: fullatt,
            out_hidden_size: f.size("out_hidden_size", MAX_WIDTH)?.unwrap_or(3584),
            rope_theta: rope_theta.unwrap_or(VISION_ROPE_THETA),
        })
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
