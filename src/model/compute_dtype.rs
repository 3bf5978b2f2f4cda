//! The type of a model's matrix products.

use serde::{Deserialize, Serialize};

/// The type of the factors of a model's matrix products. Norms, softmax, losses, gradients and the optimizer are in f32 always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComputeDtype {
    /// f32.
    #[default]
    F32,
    /// bf16 (mixed precision): products are with a working copy of each matrix in bf16, which is renewed after every step of the
    /// optimizer from the master copy in f32; what does not train is held in bf16 alone where nothing is lost by it. On a GPU the other factor
    /// and the result are rounded to bf16, too (logits are not), and sums are in f32; a CPU, which has no arithmetic in bf16, widens the copy.
    Bf16,
}
