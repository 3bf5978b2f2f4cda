//! Sizes of the vision tower.

use crate::model::qwen_vl::vision_fields::PatchConfig;

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
    /// How images are cut into patches.
    pub patches: PatchConfig,
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
    /// Side of an attention window in merged tokens.
    pub fn window_tokens(&self) -> usize {
        self.window_size / self.patches.patch_size / self.patches.spatial_merge_size
    }
}
