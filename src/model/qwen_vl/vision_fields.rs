//! What the families share of `vision_config`, and of what holds for their decoders.

use crate::Result;
use crate::model::causal_lm::TextConfig;
use crate::model::causal_lm::text_config::{DecoderRules, HeadDim};
use crate::model::json_fields::{Fields, MAX_WIDTH};
use serde_json::{Value, json};

/// Epsilon of every norm of the vision towers and mergers; not a setting of the architectures.
pub const VISION_NORM_EPS: f64 = 1e-6;

/// Base of the towers' rotary frequencies in every published checkpoint, which do not state it.
pub const VISION_ROPE_THETA: f64 = 10_000.0;

/// Largest side of a patch, in pixels or frames, and of what the merger makes one token of, in patches.
const MAX_PATCH: usize = 1 << 10;

/// The decoder of Qwen2-VL and Qwen2.5-VL: that of Qwen2.5, with the defaults of transformers' `Qwen2_5_VLTextConfig`.
pub const QWEN2_VL_RULES: DecoderRules = DecoderRules {
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

/// How images are cut into patches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PatchConfig {
    /// Colour channels.
    pub in_channels: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Frames that one patch spans (a still image is repeated).
    pub temporal_patch_size: usize,
    /// Side, in patches, of the square that the merger turns into one token.
    pub spatial_merge_size: usize,
}

impl PatchConfig {
    /// Read and check the fields.
    pub fn from_fields(f: &Fields, default_patch: usize) -> Result<Self> {
        let patch_size = f.small_square("patch_size", MAX_PATCH)?.unwrap_or(default_patch);
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
        Ok(PatchConfig {
            in_channels,
            patch_size,
            temporal_patch_size: f.small_square("temporal_patch_size", MAX_PATCH)?.unwrap_or(2),
            spatial_merge_size: f.size("spatial_merge_size", MAX_PATCH)?.unwrap_or(2),
        })
    }

    /// Values of one flattened patch: channels x frames x height x width.
    pub fn patch_len(&self) -> usize {
        self.in_channels * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// The shape of the convolution that embeds patches into `width`.
    pub fn embedding_shape(&self, width: usize) -> [usize; 5] {
        [width, self.in_channels, self.temporal_patch_size, self.patch_size, self.patch_size]
    }

    /// Patches that become one token.
    pub fn merged(&self) -> usize {
        self.spatial_merge_size * self.spatial_merge_size
    }
}

/// A width (the value of `key`), its heads, and the width of one.
pub fn width_and_heads(f: &Fields, key: &str, width: usize, heads: usize) -> Result<[usize; 3]> {
    let width = f.size(key, MAX_WIDTH)?.unwrap_or(width);
    let heads = f.positive("num_heads")?.unwrap_or(heads);
    if width % heads != 0 {
        return Err(f.error(key, format!("{width} is not divisible by num_heads {heads}")));
    }
    let head_dim = width / heads;
    if head_dim % 4 != 0 {
        return Err(f.error(key, format!("gives heads of width {head_dim}; 2-D rotary positions need a multiple of 4")));
    }
    Ok([width, heads, head_dim])
}

/// Base of the rotary frequencies.
pub fn rope_theta(f: &Fields) -> Result<f64> {
    let rope = f.section("rope_parameters")?;
    let theta = rope.as_ref().map(|r| r.positive_number("rope_theta")).transpose()?.flatten();
    Ok(theta.unwrap_or(VISION_ROPE_THETA))
}

/// Write the base of the rotary frequencies, if it is another than the published checkpoints have.
pub fn write_rope_theta(vision: &mut Value, theta: f64) {
    if theta != VISION_ROPE_THETA {
        vision["rope_parameters"] = json!({ "rope_type": "axial", "rope_theta": theta });
    }
}
