//! The type of a model's matrix products.

use serde::{Deserialize, Serialize};

/// The type of the factors of a model's matrix products. Norms, softmax, losses, gradients and the optimizer are in f32 always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ComputeDtype {
    /// f32.
    #[default]
    F32,
    /// bf16 (mixed precision): products are with a working copy of each matrix in bf16, which is renewed after every step of the
    /// optimizer from the master copy in f32; what does not train is held in bf16 alone where nothing is lost by it. The other factor is
    /// rounded to bf16, too, and sums are in f32. On a GPU the result is rounded as well (logits are not). On a CPU the result stays f32, and
    /// so do the products of attention and of adapters; a CPU that is not faster in bf16 widens the copy and computes in f32.
    Bf16,
}
