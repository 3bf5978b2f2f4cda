//! Weights on disk and in memory: safetensors, one file or sharded, under published or newer names, f32, bf16 or f16.

mod checkpoint_files;
mod index;
mod load;
pub(super) mod named;
mod storage;
mod storage_choice;
mod write;

pub(crate) use checkpoint_files::{CheckpointFiles, StoredTensor};
pub(crate) use index::{INDEX, Index};
pub use load::read;
pub(crate) use load::{enable_bf16_matmul, load, meta};
pub use named::NamedWeights;
pub use storage::WeightStorage;
pub use storage_choice::FROZEN_VARIABLE;
pub(crate) use storage_choice::{check_frozen_variable, storage_for_frozen, storage_for_trained};
pub use write::write;
pub(crate) use write::write_with;
