//! Differentiable kernels, each with its own forward and backward pass, recorded on a [`Tape`].
//!
//! Activations are ragged: a batch is `[rows, width]` with its sequences laid end to end, and a [`Span`] says which rows attend to
//! which. On the CPU an op runs a fused kernel over f32 slices. On any other device, and with [`Tape::reference`], it runs the same
//! mathematics in candle ops; its backward pass is written out in them too, except for the smallest ops, which use candle's autograd.
//! Every op has a backward pass: training code uses no tensor op that is not on the tape.

mod attention;
#[cfg(target_arch = "x86_64")]
mod bf16_kernel;
mod bf16_matmul;
mod decode;
mod embed;
#[cfg(target_arch = "x86_64")]
mod few_rows;
mod gelu;
mod host;
mod interpolate;
mod kl;
mod layer_norm;
mod linear;
mod lora;
mod math;
mod matmul;
mod ordered_backward;
mod parallel_map;
mod parameter;
mod rms_norm;
mod rope;
mod slice;
mod softmax;
mod swiglu;
mod tape;
mod tiled_logits;
mod token_stats;
mod weight_matrix;

#[cfg(test)]
mod gradcheck;

pub use attention::{Heads, MAX_BATCH_SCORES, Span, SpanGroup, attention};
pub use bf16_matmul::bf16_instructions;
pub use decode::{KvBuffer, decode_attention};
pub use embed::{RowSource, embed, gather_rows, merge_rows};
pub use gelu::{Gelu, gelu};
pub use host::{device_reads, emulate_device, in_main_memory, read_together};
pub use interpolate::{Taps, add_rows, interpolate_rows};
pub use kl::{LazyLogits, kl_from};
pub use layer_norm::{LayerNorm, layer_norm};
pub use linear::{Linear, linear};
pub use lora::Lora;
pub use matmul::{Matrix, MatrixMut, matmul};
pub use ordered_backward::{GradOrder, ThreadOrder, join_ordered};
pub use parallel_map::{parallel_map, share_threads};
pub use parameter::Parameter;
pub use rms_norm::{head_norm, rms_norm};
pub use rope::{RopeTable, Rotary, rope};
pub use slice::{Numbers, from_vec, mutate, numbers, read};
pub use softmax::{kl_divergence, log_sum_exp, sample_index, unnormalized_softmax};
pub use swiglu::swiglu;
pub use tape::{GradTarget, Grads, IsShared, ParameterGrads, Tape, Value};
pub use tiled_logits::{MAX_TILE_LOGITS, tile_width};
pub use token_stats::token_stats;
pub use weight_matrix::WeightMatrix;
