//! Which [`WeightStorage`] the weights of a model get: by what trains, by the matrix products, by the memory there is.

use super::checkpoint_files::CheckpointFiles;
use super::storage::WeightStorage;
use crate::machine::{self, MemoryLocation};
use crate::model::compute_dtype::ComputeDtype;
use crate::{Error, Result};
use std::collections::HashSet;

/// Environment variable that chooses how frozen weights are held: `f32` or `bf16`.
pub const FROZEN_VARIABLE: &str = "JIGSAW_FROZEN_WEIGHTS";

/// # Errors
/// An input error if [`FROZEN_VARIABLE`] holds another word than f32 or bf16, or asks for f32 where products are to be in bf16.
pub(crate) fn check_frozen_variable(compute: ComputeDtype) -> Result<()> {
    match (std::env::var(FROZEN_VARIABLE).ok().as_deref(), compute) {
        (Some("f32"), ComputeDtype::Bf16) => Err(Error::input(format!(
            "{FROZEN_VARIABLE}=f32 contradicts train.dtype = \"bf16\" and --dtype bf16; drop one of them"
        ))),
        (None | Some("" | "f32" | "bf16"), _) => Ok(()),
        (Some(other), _) => Err(Error::input(format!("{FROZEN_VARIABLE}={other}: must be f32 or bf16"))),
    }
}

/// For weights that do not train: bf16 if they are to be multiplied in it; else what [`FROZEN_VARIABLE`] asks for, or f32 if that takes
/// at most half of the memory that is available, of the machine or of the GPU.
///
/// # Errors
/// An input error if the variable holds another word, or asks for f32 where products are to be in bf16.
pub(crate) fn storage_for_frozen(
    stored: &CheckpointFiles,
    place: MemoryLocation,
    compute: ComputeDtype,
) -> Result<WeightStorage> {
    check_frozen_variable(compute)?;
    match (std::env::var(FROZEN_VARIABLE).ok().as_deref(), compute) {
        (None | Some("" | "bf16"), ComputeDtype::Bf16) => return Ok(WeightStorage::Bf16),
        (Some("f32"), _) => return Ok(WeightStorage::F32),
        (Some("bf16"), _) => return Ok(WeightStorage::Stored),
        _ => {}
    }
    let free = match place {
        MemoryLocation::Cpu => machine::available_memory(),
        MemoryLocation::Gpu(index) => machine::gpu_memory(index),
    };
    let fits = free.is_none_or(|free| stored.bytes(WeightStorage::F32) <= free / 2);
    Ok(if fits { WeightStorage::F32 } else { WeightStorage::Stored })
}

/// By name, for weights of which those that `frozen` knows do not train. Where all are frozen, as beside an adapter, see
/// [`storage_for_frozen`]; where some train, the others are saved with them, and none is rounded.
pub(crate) fn storage_for_trained(
    stored: &CheckpointFiles,
    place: MemoryLocation,
    compute: ComputeDtype,
    frozen: &(dyn Fn(&str) -> bool + Sync),
) -> Result<impl Fn(&str) -> WeightStorage + Sync + use<>> {
    let count = stored.tensors.iter().filter(|t| frozen(&t.name)).count();
    let held = match (count, compute) {
        (0, _) => WeightStorage::F32,
        (n, ComputeDtype::Bf16) if n < stored.tensors.len() => WeightStorage::Lossless,
        _ => storage_for_frozen(stored, place, compute)?,
    };
    let names: HashSet<String> = stored.tensors.iter().map(|t| t.name.clone()).filter(|n| frozen(n)).collect();
    Ok(move |name: &str| if names.contains(name) { held } else { WeightStorage::F32 })
}
