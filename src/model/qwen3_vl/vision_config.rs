//! Sizes of the vision tower.

use crate::model::qwen_vl::vision_fields::PatchConfig;

/// The vision tower: a ViT with learned and 2-D rotary positions, the patch merger, and the mergers of DeepStack.
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
    /// Width of a merged token; equals the decoder's `hidden_size`.
    pub out_hidden_size: usize,
    /// Learned positions, those of a square grid.
    pub num_position_embeddings: usize,
    /// Blocks after which features go to the decoder's first layers, ascending: those of the first to layer 0, and so on.
    pub deepstack_visual_indexes: Vec<usize>,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
}

impl VisionConfig {
    /// Side of the grid of learned positions.
    pub fn grid_side(&self) -> usize {
        self.num_position_embeddings.isqrt()
    }
}
