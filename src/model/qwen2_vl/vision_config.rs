//! Sizes of the vision tower.

use crate::model::qwen_vl::vision_fields::PatchConfig;

/// The vision tower: a ViT with 2-D rotary positions, and the patch merger.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Blocks.
    pub depth: usize,
    /// Width of a patch's hidden state.
    pub embed_dim: usize,
    /// Width inside the MLP, in widths of a patch.
    pub mlp_ratio: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Width of a head: `embed_dim / num_heads`.
    pub head_dim: usize,
    /// How images are cut into patches.
    pub patches: PatchConfig,
    /// Width of a merged token; equals the decoder's `hidden_size`.
    pub hidden_size: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
}
