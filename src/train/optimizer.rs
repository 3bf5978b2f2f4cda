//! AdamW with f32 moments that can be saved and loaded: what torch's `AdamW` computes, updating the weights in place.
//!
//! On a CPU one pass over weight, gradient and both moments, cut into fixed pieces for the threads: every element is computed
//! by the same operations whatever the number of threads, so the result does not depend on it. On other devices the same
//! formula in tensor operations. Decay applies to matrices only (tensors of two or more dimensions).

use crate::config::TrainSettings;
use crate::nn::Parameter;
use crate::{Error, Result, files};
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Storage, Tensor};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Elements handled by one thread at a time.
const PIECE: usize = 1 << 14;
/// Added to the norm before dividing by it (torch's `clip_grad_norm_`).
const CLIP_EPS: f64 = 1e-6;

/// The optimizer and its state for a fixed list of parameters.
pub struct AdamW {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    step: usize,
    slots: Vec<Slot>,
}

struct Slot {
    parameter: Arc<Parameter>,
    decay: bool,
    moments: Moments,
}

/// Running averages of the gradient and of its square.
enum Moments {
    Cpu { first: Vec<f32>, second: Vec<f32> },
    Device { first: Tensor, second: Tensor },
}

impl AdamW {
    /// State of zeros for the trainable ones of `parameters`.
    pub fn new(parameters: &[Arc<Parameter>], settings: &TrainSettings) -> Result<AdamW> {
        let mut slots = Vec::new();
        for parameter in parameters.iter().filter(|p| p.trainable()) {
            let value = parameter.var.as_tensor();
            if value.dtype() != DType::F32 {
                return Err(Error::failed(format!("{} is {:?}: weights train in f32", parameter.name, value.dtype())));
            }
            let moments = match value.device() {
                Device::Cpu => {
                    Moments::Cpu { first: vec![0.0; value.elem_count()], second: vec![0.0; value.elem_count()] }
                }
                _ => Moments::Device { first: value.zeros_like()?, second: value.zeros_like()? },
            };
            slots.push(Slot { parameter: parameter.clone(), decay: value.rank() >= 2, moments });
        }
        Ok(AdamW { betas: settings.betas, eps: settings.eps, weight_decay: settings.weight_decay, step: 0, slots })
    }

    /// Optimizer steps made.
    pub fn step_count(&self) -> usize {
        self.step
    }

    /// Global norm of all gradients, summed in f64 in the order of the parameters.
    ///
    /// # Errors
    /// A gradient that is not finite: the parameters are named.
    pub fn grad_norm(&self) -> Result<f64> {
        let mut total = 0.0;
        let mut bad = Vec::new();
        for slot in &self.slots {
            let Some(grad) = slot.parameter.grad() else { continue };
            let squares = sum_of_squares(&grad)?;
            if !squares.is_finite() {
                bad.push(slot.parameter.name.as_str());
            }
            total += squares;
        }
        if !bad.is_empty() {
            return Err(Error::failed(format!("gradient not finite in {}", name_some(&bad))));
        }
        Ok(total.sqrt())
    }

    /// One step with learning rate `lr`, the gradients scaled down to `max_norm` if `norm` is above it (`max_norm` 0: never).
    /// Clears the gradients. A parameter without a gradient stays as it is.
    pub fn update(&mut self, lr: f64, norm: f64, max_norm: f64) -> Result<()> {
        self.step += 1;
        let scale = if max_norm > 0.0 { (max_norm / (norm + CLIP_EPS)).min(1.0) } else { 1.0 };
        let [beta1, beta2] = self.betas;
        let correction1 = 1.0 - beta1.powi(self.step as i32);
        let correction2 = 1.0 - beta2.powi(self.step as i32);
        for slot in &mut self.slots {
            let Some(grad) = slot.parameter.grad() else { continue };
            slot.parameter.clear_grad();
            let decay = if slot.decay { self.weight_decay } else { 0.0 };
            let numbers = Numbers {
                scale: scale as f32,
                keep: (1.0 - lr * decay) as f32,
                one_minus_beta1: (1.0 - beta1) as f32,
                beta2: beta2 as f32,
                one_minus_beta2: (1.0 - beta2) as f32,
                sqrt_correction2: correction2.sqrt() as f32,
                eps: self.eps as f32,
                step_size: (lr / correction1) as f32,
            };
            step_slot(slot, &grad, &numbers)?;
        }
        Ok(())
    }

    /// Write the moments as safetensors: `{name}.exp_avg` and `{name}.exp_avg_sq`, and the step count as metadata.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut blocks: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        for slot in &self.slots {
            let shape = slot.parameter.var.as_tensor().dims().to_vec();
            let (first, second) = match &slot.moments {
                Moments::Cpu { first, second } => (bytes(first), bytes(second)),
                Moments::Device { first, second } => {
                    (bytes(&first.flatten_all()?.to_vec1()?), bytes(&second.flatten_all()?.to_vec1()?))
                }
            };
            blocks.push((format!("{}.exp_avg", slot.parameter.name), shape.clone(), first));
            blocks.push((format!("{}.exp_avg_sq", slot.parameter.name), shape, second));
        }
        let fail = |e: safetensors::SafeTensorError| Error::failed(format!("cannot write {}: {e}", path.display()));
        let mut views = Vec::new();
        for (name, shape, data) in &blocks {
            views.push((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), data).map_err(fail)?));
        }
        let metadata = [("step".to_string(), self.step.to_string())].into();
        files::write_safetensors(path, views, metadata)
    }

    /// Read what [`AdamW::save`] wrote. Every parameter must be there with its shape, and nothing else.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let content = files::read(path)?;
        let fail = |what: String| Error::input(format!("{}: {what}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&content).map_err(|e| fail(e.to_string()))?;
        let step = header.metadata().as_ref().and_then(|m| m.get("step")).and_then(|s| s.parse().ok());
        let stored = SafeTensors::deserialize(&content).map_err(|e| fail(e.to_string()))?;
        if stored.len() != 2 * self.slots.len() {
            return Err(fail(format!(
                "moments of {} parameters, but {} are trained",
                stored.len() / 2,
                self.slots.len()
            )));
        }
        for slot in &mut self.slots {
            let value = slot.parameter.var.as_tensor();
            let read = |suffix: &str| -> Result<Vec<f32>> {
                let name = format!("{}.{suffix}", slot.parameter.name);
                let view = stored.tensor(&name).map_err(|_| fail(format!("{name} is missing")))?;
                if view.shape() != value.dims() || view.dtype() != Dtype::F32 {
                    return Err(fail(format!("{name} is {:?}, the weight is {:?}", view.shape(), value.dims())));
                }
                Ok(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
            };
            let (first, second) = (read("exp_avg")?, read("exp_avg_sq")?);
            slot.moments = match value.device() {
                Device::Cpu => Moments::Cpu { first, second },
                device => Moments::Device {
                    first: Tensor::from_vec(first, value.shape(), device)?,
                    second: Tensor::from_vec(second, value.shape(), device)?,
                },
            };
        }
        self.step = step.ok_or_else(|| fail("no step count".into()))?;
        Ok(())
    }
}

/// The scalars of one update, rounded to f32 where torch rounds them.
#[derive(Clone, Copy)]
struct Numbers {
    scale: f32,
    keep: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    sqrt_correction2: f32,
    eps: f32,
    step_size: f32,
}

fn step_slot(slot: &mut Slot, grad: &Tensor, n: &Numbers) -> Result<()> {
    let value = slot.parameter.var.as_tensor();
    if grad.dims() != value.dims() {
        let (g, w) = (grad.dims(), value.dims());
        return Err(Error::failed(format!("gradient of {} has shape {g:?}, the weight {w:?}", slot.parameter.name)));
    }
    match &mut slot.moments {
        Moments::Cpu { first, second } => {
            let grad = grad.contiguous()?;
            value.inplace_op1(&CpuStep { grad: &grad, moments: Mutex::new((first, second)), numbers: *n })?;
        }
        Moments::Device { first, second } => {
            let grad = (grad * f64::from(n.scale))?.detach();
            let m = (&*first + ((&grad - &*first)? * f64::from(n.one_minus_beta1))?)?;
            let v = ((&*second * f64::from(n.beta2))? + (grad.sqr()? * f64::from(n.one_minus_beta2))?)?;
            let denominator = ((v.sqrt()? / f64::from(n.sqrt_correction2))? + f64::from(n.eps))?;
            let kept = (value.detach() * f64::from(n.keep))?;
            let next = (kept - ((&m / denominator)? * f64::from(n.step_size))?)?;
            slot.parameter.var.set(&next)?;
            (*first, *second) = (m, v);
        }
    }
    Ok(())
}

struct CpuStep<'a> {
    grad: &'a Tensor,
    moments: Mutex<(&'a mut Vec<f32>, &'a mut Vec<f32>)>,
    numbers: Numbers,
}

impl InplaceOp1 for CpuStep<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(weights) = storage else { candle_core::bail!("adamw: the weight is not f32") };
        let Some((from, to)) = layout.contiguous_offsets() else { candle_core::bail!("adamw: the weight is strided") };
        let weights = &mut weights[from..to];
        let (grad, grad_layout) = self.grad.storage_and_layout();
        let (Storage::Cpu(CpuStorage::F32(grad)), Some((from, to))) = (&*grad, grad_layout.contiguous_offsets()) else {
            candle_core::bail!("adamw: the gradient is not contiguous f32 in main memory")
        };
        let grad = &grad[from..to];
        let mut moments = self.moments.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (first, second) = &mut *moments;
        let pieces = weights.par_chunks_mut(PIECE).zip(grad.par_chunks(PIECE));
        let moments = first.par_chunks_mut(PIECE).zip(second.par_chunks_mut(PIECE));
        pieces.zip(moments).for_each(|((w, g), (m, v))| step_piece(w, g, m, v, self.numbers));
        Ok(())
    }
}

/// The order of operations of torch's `_single_tensor_adamw`; no fused multiply-add, so every target gives the same bits.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn step_piece(weights: &mut [f32], grads: &[f32], first: &mut [f32], second: &mut [f32], n: Numbers) {
    let len = weights.len();
    let (grads, first, second) = (&grads[..len], &mut first[..len], &mut second[..len]);
    for i in 0..len {
        let g = grads[i] * n.scale;
        let m = first[i] + (g - first[i]) * n.one_minus_beta1;
        let v = second[i] * n.beta2 + g * g * n.one_minus_beta2;
        first[i] = m;
        second[i] = v;
        let denominator = v.sqrt() / n.sqrt_correction2 + n.eps;
        weights[i] = weights[i] * n.keep - n.step_size * (m / denominator);
    }
}

/// Sum of squares in f64, in an order that does not depend on the number of threads (CPU).
pub fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(values)), Some((from, to))) = (&*storage, layout.contiguous_offsets()) else {
        drop(storage);
        return Ok(f64::from(tensor.detach().sqr()?.sum_all()?.to_scalar::<f32>()?));
    };
    let piece = |values: &[f32]| {
        // Four running sums in a fixed pattern: faster than one, and the same on every machine.
        let mut sums = [0.0f64; 4];
        for four in values.chunks(4) {
            for (sum, value) in sums.iter_mut().zip(four) {
                *sum += f64::from(*value) * f64::from(*value);
            }
        }
        (sums[0] + sums[1]) + (sums[2] + sums[3])
    };
    let pieces: Vec<f64> = values[from..to].par_chunks(PIECE).map(piece).collect();
    Ok(pieces.iter().sum())
}

/// Up to eight names, and how many more there are.
pub fn name_some(names: &[&str]) -> String {
    let shown = names.iter().take(8).copied().collect::<Vec<_>>().join(", ");
    match names.len() {
        n if n > 8 => format!("{shown} and {} more", n - 8),
        _ => shown,
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[cfg(test)]
#[path = "optimizer_tests.rs"]
mod tests;
