//! Differentiable kernels, each with its own forward and backward, on a tape of our own.
//!
//! Activations are ragged: a batch is `[rows, width]`, its sequences laid end to end, and [`Span`] says which rows may see
//! which. On a CPU each op runs a fused kernel over f32 slices; on any other device (or with [`Tape::composed`]) it runs
//! the same mathematics in candle ops, its backward pass written out in them too; only the smallest take theirs from candle's autograd. No op of a training
//! path is ever without a backward: an op that is not on the tape does not exist here.

mod attention;
mod decode;
mod distribution;
mod embed;
mod gelu;
mod kl;
mod lanes;
mod linear;
mod lora;
mod math;
mod matmul;
mod matrix;
mod pair;
mod parameter;
mod rms_norm;
mod rope;
mod slice;
mod swiglu;
mod tape;
mod tiles;
mod token_stats;

#[cfg(test)]
mod check;

pub use attention::{GROUP_SCORES, Heads, Span, Tree, attention};
pub use decode::{KeyValues, attend};
pub use distribution::{kl_divergence, log_sum_exp, pick, softmax_weights};
pub use embed::{RowSource, embed, regroup, select};
pub use gelu::gelu;
pub use kl::{LazyLogits, kl_from};
pub use lanes::lanes;
pub use linear::{Affine, linear};
pub use lora::Lora;
pub use matmul::{Matrix, MatrixMut, matmul};
pub use matrix::WeightMatrix;
pub use pair::{Lead, pair};
pub use parameter::Parameter;
pub use rms_norm::rms_norm;
pub use rope::{RopeTable, rope};
pub use slice::{from_vec, mutate, read};
pub use swiglu::swiglu;
pub use tape::{Grads, ParameterGrads, Several, Sink, Tape, Value};
pub use tiles::tile_of;
pub use token_stats::token_stats;
