//! The border between a device and main memory. Everything that comes from a device passes here and is counted: such a read waits until the
//! device has done all that it was asked for.
//!
//! A test can have the CPU's tensors treated as those of another device ([`emulate_device`]): ops then take the path of a GPU, and what looks
//! into a tensor's memory without passing here fails, as it would on one.

use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

static READS: AtomicUsize = AtomicUsize::new(0);
static EMULATED: AtomicBool = AtomicBool::new(false);

/// Reads from devices so far, in the whole process.
pub fn device_reads() -> usize {
    READS.load(Ordering::Relaxed)
}

/// From now on, and in the whole process, treat tensors of the CPU as those of another device. For tests of the path that a GPU takes.
pub fn emulate_device() {
    EMULATED.store(true, Ordering::Relaxed);
}

/// Whether tensors of `device` are in main memory, where the CPU's kernels work on them.
pub fn in_main_memory(device: &Device) -> bool {
    device.is_cpu() && !EMULATED.load(Ordering::Relaxed)
}

/// A device's tensor in main memory.
pub(super) fn bring(tensor: &Tensor) -> Result<Tensor> {
    READS.fetch_add(1, Ordering::Relaxed);
    // A part of a larger tensor would bring all of it.
    Ok(tensor.force_contiguous()?.to_device(&Device::Cpu)?)
}

/// The numbers of several tensors of one device, in one read.
pub fn read_together(tensors: &[Tensor]) -> Result<Vec<Vec<f64>>> {
    let Some(first) = tensors.first() else { return Ok(Vec::new()) };
    let flat = tensors.iter().map(|tensor| tensor.flatten_all()?.to_dtype(DType::F64));
    let all = Tensor::cat(&flat.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
    let all = if in_main_memory(first.device()) { all } else { bring(&all)? };
    let all = all.to_vec1::<f64>()?;
    let mut rest = all.as_slice();
    let part = |tensor: &Tensor| rest.split_off(..tensor.elem_count()).map(<[f64]>::to_vec);
    tensors.iter().map(part).collect::<Option<_>>().ok_or_else(|| Error::failed("a device gave too few numbers"))
}
