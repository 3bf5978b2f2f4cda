//! CPU tensors as f32 slices, for reading and for writing in place.

use crate::nn::host::{bring, in_main_memory};
use crate::{Error, Result};
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Shape, Storage, StorageRef, Tensor};
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::sync::Mutex;

/// Read access to the elements of a contiguous f32 CPU tensor.
pub struct Slice<'a> {
    storage: StorageRef<'a>,
    start: usize,
    len: usize,
}

impl Deref for Slice<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(data)) => &data[self.start..self.start + self.len],
            _ => unreachable!("checked when the slice was made"),
        }
    }
}

/// The elements of a contiguous f32 CPU tensor.
///
/// # Errors
/// If the tensor is not contiguous, not f32 or not on the CPU.
pub fn read(tensor: &Tensor) -> Result<Slice<'_>> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(_)), Some((start, end))) if in_main_memory(tensor.device()) => {
            Ok(Slice { start, len: end - start, storage })
        }
        _ => Err(Error::failed(format!(
            "kernel needs a contiguous f32 CPU tensor, got {:?} {:?} on {:?}",
            tensor.dtype(),
            tensor.shape(),
            tensor.device().location()
        ))),
    }
}

/// Numbers of a tensor in main memory.
pub enum Numbers<'a> {
    /// Where they are.
    Here(Slice<'a>),
    /// Brought from a device, or converted.
    Brought(Vec<f32>),
}

impl Deref for Numbers<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Numbers::Here(slice) => slice,
            Numbers::Brought(numbers) => numbers,
        }
    }
}

/// The numbers of a tensor as f32, row by row: as they lie in main memory, or in one read from its device.
pub fn numbers(tensor: &Tensor) -> Result<Numbers<'_>> {
    let here = in_main_memory(tensor.device());
    if here && tensor.dtype() == DType::F32 && tensor.is_contiguous() {
        return Ok(Numbers::Here(read(tensor)?));
    }
    let tensor = if here { tensor.clone() } else { bring(tensor)? };
    Ok(Numbers::Brought(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?))
}

/// A CPU tensor that owns `data`.
pub fn from_vec(data: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(data, shape.into(), &Device::Cpu)?)
}

/// Write to the elements of a contiguous f32 CPU tensor in place. Every other handle to its storage sees the change.
pub fn mutate<R>(tensor: &Tensor, f: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
    if !in_main_memory(tensor.device()) {
        return Err(Error::failed("in-place kernel needs a tensor in main memory"));
    }
    let op = Mutate(Mutex::new((Some(f), None)));
    tensor.inplace_op1(&op)?;
    let result = op.0.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).1;
    result.ok_or_else(|| Error::failed("in-place kernel did not run"))
}

/// A vector of `len` elements written by `fill`. Saves clearing memory that a kernel overwrites anyway.
///
/// # Safety
/// `fill` must initialise every element.
pub unsafe fn uninit_vec(len: usize, fill: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut data = Vec::with_capacity(len);
    fill(&mut data.spare_capacity_mut()[..len]);
    // SAFETY: the capacity is there, and `fill` has initialised the elements.
    unsafe { data.set_len(len) };
    data
}

struct Mutate<F, R>(Mutex<(Option<F>, Option<R>)>);

impl<R, F: FnOnce(&mut [f32]) -> R> InplaceOp1 for Mutate<F, R> {
    fn name(&self) -> &'static str {
        "mutate"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(data), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("in-place kernel needs a contiguous f32 tensor");
        };
        let mut state = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(f) = state.0.take() {
            state.1 = Some(f(&mut data[start..end]));
        }
        Ok(())
    }
}
