//! The type of a model's matrix products.

use crate::nn::bf16_instructions;
use serde::{Deserialize, Serialize};

/// The type of the factors of a model's matrix products. Norms, softmax, losses, gradients and the optimizer are in f32 always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, schemars::JsonSchema)]
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

impl ComputeDtype {
    /// Whether it is f32, which files do not mention.
    pub fn is_f32(&self) -> bool {
        *self == ComputeDtype::F32
    }

    /// What this machine's CPU does with bf16, as `setting` asks for it; for a note to the user.
    pub fn bf16_on_cpu(setting: &str) -> String {
        match bf16_instructions() {
            Some(name) => format!("{setting}: matrix products in bf16, by {name}"),
            None => format!(
                "{setting}: this processor has neither AMX nor (as AMD's have) a fast AVX512-BF16; products are computed in f32, with weights \
                 rounded to bf16"
            ),
        }
    }
}
