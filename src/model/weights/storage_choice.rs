//! Which [`Storage`] the weights of a model get: by what trains, by the matrix products, by the memory there is.

use super::checkpoint_files::CheckpointFiles;
use super::storage::Storage;
use crate::machine::{self, Place};
use crate::model::compute_dtype::Compute;
use crate::{Error, Result};
use std::collections::HashSet;

/// Environment variable that chooses how frozen weights are held: `f32` or `bf16`.
pub const FROZEN_VARIABLE: &str = "JIGSAW_FROZEN_WEIGHTS";

/// # Errors
/// An input error if [`FROZEN_VARIABLE`] holds another word than f32 or bf16, or asks for f32 where products are to be in bf16.
pub(crate) fn check_frozen_variable(compute: Compute) -> Result<()> {
    match (std::env::var(FROZEN_VARIABLE).ok().as_deref(), compute) {
        (Some("f32"), Compute::Bf16) => {
            Err(Error::input(format!("{FROZEN_VARIABLE}=f32 contradicts train.dtype = \"bf16\"; drop one of them")))
        }
        (None | Some("" | "f32" | "bf16"), _) => Ok(()),
        (Some(other), _) => Err(Error::input(format!("{FROZEN_VARIABLE}={other}: must be f32 or bf16"))),
    }
}

/// For weights that do not train: bf16 if they are to be multiplied in it; else what [`FROZEN_VARIABLE`] asks for, or f32 if that takes
/// at most half of the memory that is available, of the machine or of the GPU.
///
/// # Errors
/// An input error if the variable holds another word, or asks for f32 where products are to be in bf16.
pub(crate) fn storage_for_frozen(stored: &CheckpointFiles, place: Place, compute: Compute) -> Result<Storage> {
    check_frozen_variable(compute)?;
    match (std::env::var(FROZEN_VARIABLE).ok().as_deref(), compute) {
        (None | Some("" | "bf16"), Compute::Bf16) => return Ok(Storage::Bf16),
        (Some("f32"), _) => return Ok(Storage::F32),
        (Some("bf16"), _) => return Ok(Storage::Stored),
        _ => {}
    }
    let free = match place {
        Place::Cpu => machine::available_memory(),
        Place::Gpu(index) => machine::gpu_memory(index),
    };
    let fits = free.is_none_or(|free| stored.bytes(Storage::F32) <= free / 2);
    Ok(if fits { Storage::F32 } else { Storage::Stored })
}

/// By name, for weights of which those that `frozen` knows do not train. Where all are frozen, as beside an adapter, see
/// [`storage_for_frozen`]; where some train, the others are saved with them, and none is rounded.
pub(crate) fn storage_for_trained(
    stored: &CheckpointFiles,
    place: Place,
    compute: Compute,
    frozen: &(dyn Fn(&str) -> bool + Sync),
) -> Result<impl Fn(&str) -> Storage + Sync + use<>> {
    let count = stored.tensors.iter().filter(|t| frozen(&t.name)).count();
    let held = match (count, compute) {
        (0, _) => Storage::F32,
        (n, Compute::Bf16) if n < stored.tensors.len() => Storage::Lossless,
        _ => storage_for_frozen(stored, place, compute)?,
    };
    let names: HashSet<String> = stored.tensors.iter().map(|t| t.name.clone()).filter(|n| frozen(n)).collect();
    Ok(move |name: &str| if names.contains(name) { held } else { Storage::F32 })
}
