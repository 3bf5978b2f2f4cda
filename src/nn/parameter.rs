//! A model weight: its value, whether it trains, and the gradient that has been accumulated for it.

use crate::nn::host::in_main_memory;
use crate::nn::slice::{self, read};
use crate::{Error, Result};
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Tensor, Var};
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

/// Elements that one thread rounds to bf16 at a time.
const CHUNK: usize = 1 << 16;

/// One named weight of a model.
pub struct Parameter {
    /// Published name, e.g. `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// The value: f32 for a trained weight (the master copy, if there is a bf16 copy), f32 or bf16 for a frozen one.
    pub var: Var,
    /// The value rounded to bf16, for products.
    bf16_copy: OnceLock<Var>,
    /// Whether products round the activations to bf16, too, where the device computes in it.
    bf16_matmul: AtomicBool,
    trainable: AtomicBool,
    grad: Mutex<Gradient>,
}

/// The buffer stays allocated between steps; `filled` says whether it holds a gradient.
#[derive(Default)]
struct Gradient {
    buffer: Option<Tensor>,
    filled: bool,
}

impl Parameter {
    /// A trainable weight without a gradient.
    pub fn new(name: impl Into<String>, var: Var) -> Self {
        let (bf16_copy, bf16_matmul, trainable, grad) =
            (OnceLock::new(), AtomicBool::new(false), AtomicBool::new(true), Mutex::default());
        Parameter { name: name.into(), var, bf16_copy, bf16_matmul, trainable, grad }
    }

    /// The tensor that products read: the bf16 copy if there is one, else the value.
    pub fn compute_var(&self) -> &Var {
        self.bf16_copy.get().unwrap_or(&self.var)
    }

    /// Whether products are in bf16 on devices that compute in it. If not, a bf16 weight is converted to f32 first.
    pub fn uses_bf16_matmul(&self) -> bool {
        self.bf16_matmul.load(Ordering::Relaxed)
    }

    /// Switch products to bf16: with the value itself if it is bf16, else with a bf16 copy (2 more bytes per element).
    pub fn enable_bf16_matmul(&self) -> Result<()> {
        self.bf16_matmul.store(true, Ordering::Relaxed);
        if self.var.dtype() == DType::BF16 || self.bf16_copy.get().is_some() {
            return Ok(());
        }
        self.set_bf16_copy(Var::from_tensor(&self.var.as_tensor().to_dtype(DType::BF16)?)?)
    }

    /// Set the bf16 copy to `copy`, of the value's shape.
    ///
    /// # Errors
    /// If there is one already.
    pub(crate) fn set_bf16_copy(&self, copy: Var) -> Result<()> {
        self.bf16_copy.set(copy).map_err(|_| Error::failed(format!("{} has a bf16 copy already", self.name)))
    }

    /// Round the value to the bf16 copy, if there is one. To be called whenever the value has changed.
    pub fn sync_bf16_copy(&self) -> Result<()> {
        let Some(copy) = self.bf16_copy.get() else { return Ok(()) };
        match in_main_memory(copy.device()) {
            true => copy.as_tensor().inplace_op1(&RoundToBf16(self.var.as_tensor()))?,
            false => copy.set(&self.var.as_tensor().to_dtype(DType::BF16)?)?,
        }
        Ok(())
    }

    /// Bytes of the value, and of the bf16 copy.
    pub fn bytes(&self) -> (usize, usize) {
        let of = |var: &Var| var.elem_count() * var.dtype().size_in_bytes();
        (of(&self.var), self.bf16_copy.get().map_or(0, of))
    }

    /// Whether the weight trains. No gradient is computed for a frozen one.
    pub fn trainable(&self) -> bool {
        self.trainable.load(Ordering::Relaxed)
    }

    /// Freeze or unfreeze. Freezing also frees the gradient.
    pub fn set_trainable(&self, trainable: bool) {
        self.trainable.store(trainable, Ordering::Relaxed);
        if !trainable {
            *self.lock() = Gradient::default();
        }
    }

    /// The gradient accumulated since the last [`Parameter::clear_grad`], of the weight's shape; `None` if no backward pass
    /// reached it. The tensor shares storage with the accumulator: read it before the next backward pass.
    pub fn grad(&self) -> Option<Tensor> {
        let slot = self.lock();
        if slot.filled { slot.buffer.clone() } else { None }
    }

    /// Replace the accumulated gradient.
    pub fn set_grad(&self, grad: Option<Tensor>) {
        let filled = grad.is_some();
        *self.lock() = Gradient { buffer: grad, filled };
    }

    /// Clear the gradient, keeping its memory for the next one.
    pub fn clear_grad(&self) {
        self.lock().filled = false;
    }

    /// Add `grad` (same shape) to the accumulated gradient.
    pub fn add_grad(&self, grad: Tensor) -> Result<()> {
        let mut slot = self.lock();
        slot.buffer = Some(match slot.buffer.take() {
            Some(sum) if slot.filled => (sum + grad)?,
            _ => grad,
        });
        slot.filled = true;
        Ok(())
    }

    /// Let a CPU kernel add to the gradient in place. `kernel` gets the elements and whether they hold a sum already; if
    /// not, it must overwrite all of them.
    pub fn accumulate(&self, kernel: impl FnOnce(&mut [f32], bool)) -> Result<()> {
        let mut slot = self.lock();
        let filled = slot.filled;
        let buffer = match &slot.buffer {
            Some(buffer) => buffer.clone(),
            None => {
                let shape = self.var.shape();
                let buffer = slice::from_vec(vec![0.0; shape.elem_count()], shape.clone())?;
                slot.buffer = Some(buffer.clone());
                buffer
            }
        };
        slice::mutate(&buffer, |data| kernel(data, filled))?;
        slot.filled = true;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Gradient> {
        self.grad.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Overwrites a bf16 tensor with an f32 tensor, rounded.
struct RoundToBf16<'a>(&'a Tensor);

impl InplaceOp1 for RoundToBf16<'_> {
    fn name(&self) -> &'static str {
        "round"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::BF16(copy) = storage else { candle_core::bail!("round: the copy is not bf16") };
        let Some((from, to)) = layout.contiguous_offsets() else { candle_core::bail!("round: the copy is strided") };
        let value = read(self.0).map_err(|e| candle_core::Error::Msg(e.to_string()))?;
        let pieces = copy[from..to].par_chunks_mut(CHUNK).zip(value.par_chunks(CHUNK));
        pieces.for_each(|(copy, value)| copy.convert_from_f32_slice(value));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{gradcheck, mutate};
    use half::bf16;

    #[test]
    fn the_bf16_copy_is_the_rounded_value_and_follows_it_after_a_sync() {
        let parameter = gradcheck::parameter("w", &[300, 500], 1);
        let bits = |var: &Var| -> Vec<u16> {
            let tensor = var.as_tensor().to_dtype(DType::BF16).unwrap().flatten_all().unwrap();
            tensor.to_vec1::<bf16>().unwrap().into_iter().map(bf16::to_bits).collect()
        };
        assert_eq!(parameter.bytes(), (600_000, 0));
        parameter.enable_bf16_matmul().unwrap();
        assert_eq!((parameter.compute_var().dtype(), parameter.var.dtype()), (DType::BF16, DType::F32));
        assert_eq!(parameter.bytes(), (600_000, 300_000));
        let before = bits(parameter.compute_var());
        assert!(before == bits(&parameter.var));
        mutate(parameter.var.as_tensor(), |value| value.iter_mut().for_each(|v| *v = 1.0 - *v)).unwrap();
        assert!(before == bits(parameter.compute_var()));
        parameter.sync_bf16_copy().unwrap();
        assert!(before != bits(&parameter.var) && bits(parameter.compute_var()) == bits(&parameter.var));
    }

    #[test]
    fn a_bf16_value_needs_no_copy() {
        let value = gradcheck::tensor(&[2, 3], 1).to_dtype(DType::BF16).unwrap();
        let parameter = Parameter::new("w", Var::from_tensor(&value).unwrap());
        parameter.enable_bf16_matmul().unwrap();
        parameter.sync_bf16_copy().unwrap();
        assert_eq!(parameter.bytes(), (12, 0));
    }
}
