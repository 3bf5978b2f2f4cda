//! A model weight: its value, whether it trains, and the gradient that has been accumulated for it.

use crate::Result;
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
    grad: Mutex<Option<Tensor>>,
}

impl Parameter {
    /// A trainable weight without a gradient.
    pub fn new(name: impl Into<String>, var: Var) -> Self {
        Parameter { name: name.into(), var, trainable: AtomicBool::new(true), grad: Mutex::new(None) }
    }

    /// False for a frozen weight: no gradient is ever computed for it.
    pub fn trainable(&self) -> bool {
        self.trainable.load(Ordering::Relaxed)
    }

    /// Freeze or unfreeze the weight.
    pub fn set_trainable(&self, trainable: bool) {
        self.trainable.store(trainable, Ordering::Relaxed);
    }

    /// The gradient accumulated since the last [`Parameter::clear_grad`], of the shape of the weight; `None` if nothing reached it.
    pub fn grad(&self) -> Option<Tensor> {
        self.lock().clone()
    }

    /// Replace the accumulated gradient.
    pub fn set_grad(&self, grad: Option<Tensor>) {
        *self.lock() = grad;
    }

    /// Forget the accumulated gradient.
    pub fn clear_grad(&self) {
        *self.lock() = None;
    }

    /// Add `grad` (same shape) to the accumulated gradient.
    pub fn add_grad(&self, grad: Tensor) -> Result<()> {
        let mut slot = self.lock();
        *slot = Some(match slot.take() {
            None => grad,
            Some(sum) => (sum + grad)?,
        });
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Tensor>> {
        self.grad.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
