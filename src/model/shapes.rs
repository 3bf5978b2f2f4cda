//! Sizes of a model's parts, for whatever plans, describes or lays out without computing.

use crate::nn::Heads;
use serde::Serialize;

/// Sizes of a decoder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DecoderShape {
    /// Layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Query and key heads are normalised before they are rotated.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub qk_norm: bool,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Rows of the embedding matrix.
    pub vocab_size: usize,
    /// Rotary frequencies that follow time, height and width; empty where positions are plain numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mrope_section: Vec<usize>,
    /// Longest sequence the checkpoint was made for.
    pub max_positions: usize,
    /// The output head is the embedding matrix.
    pub tied: bool,
}

impl DecoderShape {
    /// Head counts of a layer.
    pub fn attention_heads(&self) -> Heads {
        Heads { query: self.heads, key_value: self.key_value_heads, dim: self.head_dim }
    }
}

/// Sizes of a vision tower.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct VisionShape {
    /// Blocks.
    pub blocks: usize,
    /// Width.
    pub hidden_size: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Side of an attention window in pixels; none where every block attends over the whole image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_size: Option<usize>,
    /// Blocks that attend over the whole image, where others do not.
    pub full_attention_blocks: Vec<usize>,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Frames that one patch spans.
    pub temporal_patch_size: usize,
    /// Side, in patches, of the square that becomes one token.
    pub merge_size: usize,
    /// Floats of one flattened patch.
    pub patch_len: usize,
    /// Blocks after which features go to the decoder's first layers.
    #[serde(skip_serializing_if = "is_zero")]
    pub deepstack: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Ids of the tokens around images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageTokens {
    /// `<|image_pad|>`: one for each merged patch.
    pub image: u32,
    /// `<|video_pad|>`.
    pub video: u32,
    /// `<|vision_start|>`.
    pub start: u32,
    /// `<|vision_end|>`.
    pub end: u32,
}
