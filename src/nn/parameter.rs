//! A model weight: its value, whether it trains, and the gradient that has been accumulated for it.

use crate::Result;
use crate::nn::slice;
use candle_core::{Tensor, Var};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

/// One named weight of a model.
pub struct Parameter {
    /// Published name, e.g. `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// The f32 value.
    pub var: Var,
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
        Parameter { name: name.into(), var, trainable: AtomicBool::new(true), grad: Mutex::default() }
    }

    /// False for a frozen weight: no gradient is ever computed for it.
    pub fn trainable(&self) -> bool {
        self.trainable.load(Ordering::Relaxed)
    }

    /// Freeze or thaw. Freezing also frees the gradient.
    pub fn set_trainable(&self, trainable: bool) {
        self.trainable.store(trainable, Ordering::Relaxed);
        if !trainable {
            *self.lock() = Gradient::default();
        }
    }

    /// The gradient accumulated since the last [`Parameter::clear_grad`], of the shape of the weight; `None` if nothing
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

    /// Forget the accumulated gradient (its memory is kept for the next one).
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

    /// Let a CPU kernel add to the gradient in place. `kernel` gets the elements and whether they hold a sum already: if
    /// not, it must overwrite every one of them.
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
