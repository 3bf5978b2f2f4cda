//! Tensors of GPUs, exchanged by the ranks of an MPI job with NCCL, without the way through main memory. MPI joins the ranks and carries
//! everything else. One GPU for each rank.
//!
//! This compiles; it has not been run.

use super::Communicator;
use crate::{Error, Result};
use candle_core::cuda_backend::cudarc::nccl::result::NcclError;
use candle_core::cuda_backend::cudarc::nccl::{Comm, Id, ReduceOp};
use candle_core::{CpuStorage, CudaDevice, CudaStorage, InplaceOp1, Layout, Tensor};
use std::ffi::c_char;
use std::mem::ManuallyDrop;
use std::sync::{Mutex, PoisonError};

/// The GPUs of all ranks. NCCL's communicator is left to the end of the process: to end it earlier, all ranks would have to be there.
pub(super) struct NcclRanks(ManuallyDrop<Mutex<Comm>>);

// SAFETY: any thread may use NCCL's communicator, one at a time, and the lock sees to that.
unsafe impl Send for NcclRanks {}
// SAFETY: as above.
unsafe impl Sync for NcclRanks {}

impl NcclRanks {
    /// Join the GPU `device` of this rank with those of the others. Every rank calls it.
    ///
    /// # Errors
    /// NCCL's, and those of CUDA; see [`Communicator::all_gather`].
    pub(super) fn join(comm: &dyn Communicator, device: &CudaDevice) -> Result<NcclRanks> {
        let new_id = || Id::new().map(|id| id.internal().map(|byte| byte as u8).to_vec());
        let id = comm.on_root(|| new_id().map_err(|e| Error::failed(text(&e))))?;
        let mut internal = [0; 128];
        internal.iter_mut().zip(id).for_each(|(place, byte)| *place = byte as c_char);
        let stream = device.cuda_stream();
        stream.context().bind_to_thread().map_err(|e| Error::failed(format!("CUDA: {e}")))?;
        let joined = Comm::from_rank(stream, comm.rank(), comm.world_size(), Id::uninit(internal));
        let joined = joined.map_err(|e| Error::failed(text(&e)))?;
        Ok(NcclRanks(ManuallyDrop::new(Mutex::new(joined))))
    }

    /// See [`Communicator::exchange_on_device`].
    pub(super) fn exchange(&self, tensor: &Tensor, root: Option<usize>) -> Result<()> {
        let comm = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(tensor.inplace_op1(&Exchange { comm: &comm, root })?)
    }
}

/// The sum over ranks, or the tensor of rank `root`.
struct Exchange<'a> {
    comm: &'a Comm,
    root: Option<usize>,
}

impl InplaceOp1 for Exchange<'_> {
    fn name(&self) -> &'static str {
        "nccl"
    }

    fn cpu_fwd(&self, _storage: &mut CpuStorage, _layout: &Layout) -> candle_core::Result<()> {
        candle_core::bail!("NCCL exchanges tensors of GPUs alone")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> candle_core::Result<()> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("NCCL exchanges contiguous tensors alone")
        };
        let mut values = storage.as_cuda_slice_mut::<f32>()?.slice_mut(start..end);
        let done = match self.root {
            None => self.comm.all_reduce_in_place(&mut values, &ReduceOp::Sum),
            Some(root) => self.comm.broadcast_in_place(&mut values, root as i32),
        };
        done.map(drop).map_err(|e| candle_core::Error::Msg(text(&e)))
    }
}

/// An error of NCCL in words.
fn text(error: &NcclError) -> String {
    format!("NCCL: {:?}; NCCL_DEBUG=WARN tells more", error.0)
}
