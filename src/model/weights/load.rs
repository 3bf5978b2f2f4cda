//! Reading the weights of a checkpoint into memory, and weights that have only shapes.

use super::checkpoint_files::{CheckpointFiles, StoredTensor, is_matrix};
use super::storage::WeightStorage;
use crate::Result;
use crate::model::architecture::Architecture;
use crate::model::compute_dtype::ComputeDtype;
use crate::nn::Parameter;
use candle_core::{Device, Var};
use half::bf16;
use half::vec::HalfBitsVecExt;
use rayon::prelude::*;
use std::path::Path;
use std::sync::Arc;

/// Read the weights of a checkpoint directory, as f32, to `device`.
///
/// # Errors
/// An input error that names the file and the tensor: missing or unreadable files, a missing or unexpected tensor, one that is stored
/// twice or not where the index has it, another shape than the configuration asks for, an unsupported dtype, a head that is tied and
/// differs.
pub fn read(dir: &Path, architecture: &dyn Architecture, device: &Device) -> Result<Vec<Arc<Parameter>>> {
    load(&CheckpointFiles::open(dir, architecture)?, device, &|_| WeightStorage::F32)
}

/// Read all weights of a checkpoint directory, in the order of the architecture, each held as `storage` says of its name.
pub(crate) fn load(
    stored: &CheckpointFiles,
    device: &Device,
    storage: &(dyn Fn(&str) -> WeightStorage + Sync),
) -> Result<Vec<Arc<Parameter>>> {
    stored.check_head()?;
    let load = |tensor: &StoredTensor| stored.load(tensor, device, storage(&tensor.name));
    match device {
        Device::Cpu => stored.tensors.par_iter().map(load).collect(),
        _ => stored.tensors.iter().map(load).collect(),
    }
}

/// As PyTorch's meta device: weights with shapes and types, whose zeros take no memory until they are written to. `compute` says
/// whether matrices in f32 have working copies in bf16.
pub(crate) fn meta(
    stored: &CheckpointFiles,
    storage: &dyn Fn(&str) -> WeightStorage,
    compute: ComputeDtype,
) -> Result<Vec<Arc<Parameter>>> {
    let zeros = |tensor: &StoredTensor| -> Result<Arc<Parameter>> {
        let (shape, count) = (tensor.shape.as_slice(), tensor.shape.iter().product());
        // Zeros of a primitive type come from the system without being written.
        let half = || Var::from_vec(vec![0u16; count].reinterpret_into::<bf16>(), shape, &Device::Cpu);
        if tensor.is_bf16_in(storage(&tensor.name)) {
            return Ok(Arc::new(Parameter::new(tensor.name.clone(), half()?)));
        }
        let parameter = Parameter::new(tensor.name.clone(), Var::from_vec(vec![0f32; count], shape, &Device::Cpu)?);
        if compute == ComputeDtype::Bf16 && is_matrix(shape) {
            parameter.set_bf16_copy(half()?)?;
        }
        Ok(Arc::new(parameter))
    };
    stored.tensors.iter().map(zeros).collect()
}

/// Let every matrix be multiplied in bf16: those in f32 get a working copy.
pub(crate) fn enable_bf16_matmul(parameters: &[Arc<Parameter>]) -> Result<()> {
    parameters.iter().filter(|p| is_matrix(p.var.dims())).try_for_each(|p| p.enable_bf16_matmul())
}
