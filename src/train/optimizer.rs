//! AdamW with f32 moments that can be saved and loaded: what torch's `AdamW` computes, updating the weights in place.
//!
//! Several ranks divide the moments, whole parameters to each (ZeRO, stage 1): a rank updates the parameters whose moments it has, and all get
//! the new weights. What is saved does not depend on the number of ranks.
//!
//! On a CPU one pass over weight, gradient and both moments, cut into fixed pieces for the threads: every element is computed
//! by the same operations whatever the number of threads, so the result does not depend on it. On other devices the same
//! formula in tensor operations. Decay applies to matrices only (tensors of two or more dimensions).

use crate::comm::{self, Communicator, Single};
use crate::io::files::FileChecksum;
use crate::model::safetensors_file::{self, Source, TensorFile, Values};
use crate::nn::{self, Parameter, in_main_memory, read, read_together};
use crate::train::settings::TrainSettings;
use crate::{Error, Result};
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Storage, Tensor};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, TensorInfo};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Elements handled by one thread at a time.
const PIECE: usize = 1 << 14;
/// Elements that are updated at a time on other devices, whose ops make a tensor each.
pub(super) const DEVICE_PIECE: usize = 1 << 24;
/// Added to the norm before dividing by it (torch's `clip_grad_norm_`).
const CLIP_EPS: f64 = 1e-6;
/// Names of the moments in a checkpoint, after that of the parameter.
const SUFFIXES: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// The optimizer and its state for a fixed list of parameters.
pub struct AdamW<'a> {
    comm: &'a dyn Communicator,
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
    Cpu {
        first: Vec<f32>,
        second: Vec<f32>,
    },
    Device {
        first: Tensor,
        second: Tensor,
    },
    /// On another rank.
    Of(usize),
}

/// The rank that has the moments of each parameter, in order: the largest first, each to the rank that has the least.
pub fn owners(sizes: &[usize], world_size: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(sizes[i]));
    let (mut held, mut owners) = (vec![0; world_size], vec![0; sizes.len()]);
    for i in order {
        let least = (0..world_size).min_by_key(|&rank| held[rank]).unwrap_or(0);
        held[least] += sizes[i];
        owners[i] = least;
    }
    owners
}

impl AdamW<'static> {
    /// State of zeros for the trainable ones of `parameters`, in one process.
    pub fn new(parameters: &[Arc<Parameter>], settings: &TrainSettings) -> Result<AdamW<'static>> {
        AdamW::on_ranks(parameters, settings, &Single)
    }
}

impl<'a> AdamW<'a> {
    /// State of zeros for the trainable ones of `parameters`, which are the same on every rank.
    pub fn on_ranks(
        parameters: &[Arc<Parameter>],
        settings: &TrainSettings,
        comm: &'a dyn Communicator,
    ) -> Result<AdamW<'a>> {
        let trained: Vec<&Arc<Parameter>> = parameters.iter().filter(|p| p.trainable()).collect();
        let sizes: Vec<usize> = trained.iter().map(|parameter| parameter.var.elem_count()).collect();
        let mut slots = Vec::new();
        for (parameter, owner) in trained.into_iter().zip(owners(&sizes, comm.world_size())) {
            let value = parameter.var.as_tensor();
            if value.dtype() != DType::F32 {
                return Err(Error::failed(format!("{} is {:?}: weights train in f32", parameter.name, value.dtype())));
            }
            let moments = match in_main_memory(value.device()) {
                _ if owner != comm.rank() => Moments::Of(owner),
                true => Moments::Cpu { first: vec![0.0; value.elem_count()], second: vec![0.0; value.elem_count()] },
                false => Moments::Device { first: value.zeros_like()?, second: value.zeros_like()? },
            };
            slots.push(Slot { parameter: parameter.clone(), decay: value.rank() >= 2, moments });
        }
        let TrainSettings { betas, eps, weight_decay, .. } = *settings;
        Ok(AdamW { comm, betas, eps, weight_decay, step: 0, slots })
    }

    /// Optimizer steps made.
    pub fn step_count(&self) -> usize {
        self.step
    }

    /// [`grad_squares`] of the trained parameters.
    pub fn grad_squares(&self, more: &[Tensor]) -> Result<(GradSquares<'_>, Vec<Vec<f64>>)> {
        grad_squares(self.slots.iter().map(|slot| (slot.parameter.name.as_str(), slot.parameter.grad())), more)
    }

    /// Global norm of all gradients, summed in f64 in the order of the parameters.
    ///
    /// # Errors
    /// A gradient that is not finite: the parameters are named.
    pub fn grad_norm(&self) -> Result<f64> {
        norm_of(&self.grad_squares(&[])?.0)
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
                fresh: self.step == 1,
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
        self.share_weights()
    }

    /// Give every rank the weights that this one has updated.
    fn share_weights(&self) -> Result<()> {
        let ranks = self.comm.world_size();
        if ranks == 1 {
            return Ok(());
        }
        // By rank, pieces of the parameters in main memory. They go in rounds: a piece of each rank at a time.
        let mut pieces: Vec<Vec<(&Slot, Range<usize>)>> = vec![Vec::new(); ranks];
        for slot in &self.slots {
            let value = slot.parameter.var.as_tensor();
            let (owner, count) = (self.owner(slot), value.elem_count());
            if in_main_memory(value.device()) {
                let starts = (0..count).step_by(comm::PIECE);
                pieces[owner].extend(starts.map(|start| (slot, start..(start + comm::PIECE).min(count))));
                continue;
            }
            if !self.comm.exchange_on_device(value, Some(owner))? {
                let is_own = owner == self.comm.rank();
                let mut values = if is_own { nn::numbers(value)?.to_vec() } else { vec![0.0; count] };
                self.comm.broadcast_f32(owner, &mut values)?;
                if !is_own {
                    value.slice_set(&Tensor::from_vec(values, value.dims(), value.device())?, 0, 0)?;
                }
            }
            slot.parameter.sync_bf16_copy()?;
        }
        for round in 0..pieces.iter().map(Vec::len).max().unwrap_or(0) {
            let piece = |rank: usize| pieces[rank].get(round).map(|(slot, range)| (*slot, range.clone()));
            let lengths: Vec<usize> = (0..ranks).map(|rank| piece(rank).map_or(0, |(_, range)| range.len())).collect();
            let own = piece(self.comm.rank());
            let own =
                own.map(|(slot, range)| Ok::<_, Error>((read(slot.parameter.var.as_tensor())?, range))).transpose()?;
            let own: &[f32] = own.as_ref().map_or(&[], |(values, range)| &values[range.clone()]);
            self.comm.exchange_f32(own, &lengths, &mut |rank, bytes| {
                let Some((slot, range)) = piece(rank) else { return Ok(()) };
                let write = |values: &mut [f32]| {
                    values[range].iter_mut().zip(comm::f32_values(bytes)).for_each(|(to, value)| *to = value);
                };
                nn::mutate(slot.parameter.var.as_tensor(), write)
            })?;
        }
        let received = pieces.iter().enumerate().filter(|(rank, _)| *rank != self.comm.rank()).flat_map(|(_, of)| of);
        received.filter(|(_, range)| range.start == 0).try_for_each(|(slot, _)| slot.parameter.sync_bf16_copy())
    }

    /// The rank that has the moments.
    fn owner(&self, slot: &Slot) -> usize {
        match slot.moments {
            Moments::Of(rank) => rank,
            _ => self.comm.rank(),
        }
    }

    /// One of the two moments of a parameter, from the rank that has it. Every rank calls it.
    fn moment(&self, slot: &Slot, second: bool) -> Result<Vec<f32>> {
        let mut values = match (&slot.moments, second) {
            (Moments::Cpu { first, .. }, false) => first.clone(),
            (Moments::Cpu { second, .. }, true) => second.clone(),
            (Moments::Device { first, .. }, false) => nn::numbers(first)?.to_vec(),
            (Moments::Device { second, .. }, true) => nn::numbers(second)?.to_vec(),
            (Moments::Of(_), _) => vec![0.0; slot.parameter.var.elem_count()],
        };
        self.comm.broadcast_f32(self.owner(slot), &mut values)?;
        Ok(values)
    }

    /// Ask the other ranks, which are in [`AdamW::save_with`], for a moment.
    fn ask(&self, slot: usize, second: bool) -> Result<Vec<f32>> {
        self.comm.broadcast(0, &mut (2 * slot + usize::from(second)).to_le_bytes().to_vec())?;
        self.moment(&self.slots[slot], second)
    }

    /// Save with all ranks: `save` on rank 0, which may call [`AdamW::save`] as often as it has to, while the others give it their moments.
    ///
    /// # Errors
    /// Those of `save`, the same on every rank.
    pub fn save_with<T: Serialize + DeserializeOwned>(&self, save: impl FnOnce() -> Result<T>) -> Result<T> {
        while self.comm.rank() > 0 {
            let mut asked = Vec::new();
            self.comm.broadcast(0, &mut asked)?;
            let Some((number, [])) = asked.split_first_chunk() else { break };
            let number = usize::from_le_bytes(*number);
            let slot = self.slots.get(number / 2).ok_or_else(|| Error::failed("the ranks train other parameters"))?;
            self.moment(slot, number % 2 == 1)?;
        }
        self.comm.on_root(|| {
            let saved = save();
            // Nothing more is asked for.
            self.comm.broadcast(0, &mut Vec::new())?;
            saved
        })
    }

    /// Write the moments as safetensors: `{name}.exp_avg` and `{name}.exp_avg_sq`, and the step count as metadata. Returns
    /// what the file is meant to hold.
    pub fn save(&self, path: &Path) -> Result<FileChecksum> {
        type Ask<'a> = Box<dyn Fn() -> Result<Vec<f32>> + 'a>;
        let ask = |slot: usize| [false, true].map(|second| Box::new(move || self.ask(slot, second)) as Ask<'_>);
        let asked: Vec<[Ask<'_>; 2]> = (0..self.slots.len()).map(ask).collect();
        let mut sources = Vec::with_capacity(2 * self.slots.len());
        for (slot, [ask_first, ask_second]) in self.slots.iter().zip(&asked) {
            let (first, second) = match &slot.moments {
                Moments::Cpu { first, second } => (Values::Slice(first), Values::Slice(second)),
                Moments::Device { first, second } => (Values::Tensor(first), Values::Tensor(second)),
                Moments::Of(_) => (Values::Computed(ask_first), Values::Computed(ask_second)),
            };
            for (suffix, values) in SUFFIXES.into_iter().zip([first, second]) {
                let shape = slot.parameter.var.as_tensor().dims().to_vec();
                sources.push(Source { name: format!("{}.{suffix}", slot.parameter.name), shape, values });
            }
        }
        safetensors_file::write(path, sources, Dtype::F32, &[("step", self.step.to_string())])
    }

    /// Read what [`AdamW::save`] wrote. Every parameter must be there with its shape, and nothing else.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let file = TensorFile::open(path)?;
        let fail = |what: String| Error::input(format!("{}: {what}", path.display()));
        let stored = file.tensors().count();
        if stored != 2 * self.slots.len() {
            return Err(fail(format!("moments of {} parameters, but {} are trained", stored / 2, self.slots.len())));
        }
        let step = file.about("step").and_then(|s| s.parse().ok()).ok_or_else(|| fail("no step count".into()))?;
        let find = |slot: &Slot, suffix: &str| -> Result<&TensorInfo> {
            let name = format!("{}.{suffix}", slot.parameter.name);
            let info = file.tensor(&name).ok_or_else(|| fail(format!("{name} is missing")))?;
            let dims = slot.parameter.var.as_tensor().dims();
            if info.shape != dims || info.dtype != Dtype::F32 {
                return Err(fail(format!("{name} is {:?}, the weight is {dims:?}", info.shape)));
            }
            Ok(info)
        };
        let read = |slot: &mut Slot| -> Result<()> {
            let [one, two] = [find(slot, SUFFIXES[0])?, find(slot, SUFFIXES[1])?];
            match &mut slot.moments {
                Moments::Cpu { first, second } => file.read(one, first).and_then(|()| file.read(two, second)),
                Moments::Device { first, second } => {
                    let load = |info: &TensorInfo, to: &mut Tensor| -> Result<()> {
                        let mut values = vec![0.0; to.elem_count()];
                        file.read(info, &mut values)?;
                        *to = Tensor::from_vec(values, to.shape(), to.device())?;
                        Ok(())
                    };
                    load(one, first).and_then(|()| load(two, second))
                }
                Moments::Of(_) => Ok(()),
            }
        };
        self.slots.iter_mut().try_for_each(read)?;
        self.step = step;
        Ok(())
    }
}

/// The scalars of one update, rounded to f32 where torch rounds them.
#[derive(Clone, Copy)]
struct Numbers {
    /// The first step: both moments are zero.
    fresh: bool,
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
        Moments::Device { first, second } => step_on_device([value, grad, first, second], n, DEVICE_PIECE)?,
        Moments::Of(_) => return Ok(()),
    }
    slot.parameter.sync_bf16_copy()
}

/// The same in candle ops, some rows of the tensors at a time: weight, gradient, both moments; all but the gradient are written to.
fn step_on_device([value, grad, first, second]: [&Tensor; 4], n: &Numbers, piece: usize) -> Result<()> {
    let rows = value.dims().first().copied().unwrap_or(1);
    let at_once = (piece * rows / value.elem_count().max(1)).max(1);
    for start in (0..rows).step_by(at_once) {
        let some = |tensor: &Tensor| tensor.detach().narrow(0, start, at_once.min(rows - start));
        let grad = (some(grad)? * f64::from(n.scale))?;
        let m = some(first)?;
        let m = (&m + ((&grad - &m)? * f64::from(n.one_minus_beta1))?)?;
        let v = ((some(second)? * f64::from(n.beta2))? + (grad.sqr()? * f64::from(n.one_minus_beta2))?)?;
        let denominator = ((v.sqrt()? / f64::from(n.sqrt_correction2))? + f64::from(n.eps))?;
        let kept = (some(value)? * f64::from(n.keep))?;
        let next = (kept - ((&m / denominator)? * f64::from(n.step_size))?)?;
        for (whole, part) in [(value, next), (first, m), (second, v)] {
            whole.slice_set(&part, 0, start)?;
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
        pieces.zip(moments).for_each(|((w, g), (m, v))| {
            // Fresh zeros are not in memory yet. Reading them first would map every page twice.
            if self.numbers.fresh {
                m.fill(0.0);
                v.fill(0.0);
            }
            step_piece(w, g, m, v, self.numbers);
        });
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

/// Parameters by name, each with the sum of squares of its gradient; `None` where no gradient is.
pub type GradSquares<'a> = Vec<(&'a str, Option<f64>)>;

/// The sums of squares of these gradients. The numbers of `more` tensors come from the device in the same read.
pub fn grad_squares<'a>(
    grads: impl Iterator<Item = (&'a str, Option<Tensor>)>,
    more: &[Tensor],
) -> Result<(GradSquares<'a>, Vec<Vec<f64>>)> {
    let mut on_device = more.to_vec();
    let mut squares = Vec::new();
    for (name, grad) in grads {
        squares.push((
            name,
            match grad.as_ref().map(sum_of_squares).transpose()? {
                Some(Squares::Device(sum)) => {
                    on_device.push(sum);
                    None
                }
                Some(Squares::Host(sum)) => Some(Some(sum)),
                None => Some(None),
            },
        ));
    }
    let mut read = read_together(&on_device)?;
    let mut sums = read.split_off(more.len()).into_iter().flatten();
    let squares = squares.into_iter().map(|(name, known)| (name, known.unwrap_or_else(|| sums.next())));
    Ok((squares.collect(), read))
}

/// The norm of what [`AdamW::grad_squares`] gives.
///
/// # Errors
/// See [`AdamW::grad_norm`].
pub fn norm_of(squares: &[(&str, Option<f64>)]) -> Result<f64> {
    let known = || squares.iter().filter_map(|(name, squares)| Some((*name, (*squares)?)));
    let bad: Vec<&str> = known().filter(|(_, s)| !s.is_finite()).map(|(name, _)| name).collect();
    if !bad.is_empty() {
        return Err(Error::failed(format!("gradient not finite in {}", name_some(&bad))));
    }
    Ok(known().map(|(_, s)| s).sum::<f64>().sqrt())
}

/// A sum of squares in f64, where the numbers are.
pub enum Squares {
    /// In main memory.
    Host(f64),
    /// On a device: `[1]`.
    Device(Tensor),
}

impl Squares {
    /// The sum of several sums, in order; those on a device come in one read.
    pub fn total(sums: &[Squares]) -> Result<f64> {
        let (mut total, mut on_device) = (0.0, Vec::new());
        for sum in sums {
            match sum {
                Squares::Host(sum) => total += sum,
                Squares::Device(sum) => on_device.push(sum.clone()),
            }
        }
        Ok(read_together(&on_device)?.iter().flatten().fold(total, |total, sum| total + sum))
    }
}

/// Sum of squares, in an order that does not depend on the number of threads (CPU).
pub fn sum_of_squares(tensor: &Tensor) -> Result<Squares> {
    if !(in_main_memory(tensor.device()) && tensor.dtype() == DType::F32) {
        return Ok(Squares::Device(squares_on_device(tensor)?));
    }
    let tensor = tensor.contiguous()?;
    let pieces: Vec<f64> = nn::read(&tensor)?.par_chunks(PIECE).map(piece_squares).collect();
    Ok(Squares::Host(pieces.iter().sum()))
}

/// The same in candle ops, `[1]`: sums of rows, some rows at a time. A sum of everything at once is one block's work on a GPU.
fn squares_on_device(tensor: &Tensor) -> Result<Tensor> {
    const WIDTH: usize = 1024;
    let flat = tensor.detach().flatten_all()?;
    let count = flat.elem_count();
    let whole = count / WIDTH * WIDTH;
    let mut total = Tensor::zeros(1, DType::F64, flat.device())?;
    let mut add = |start: usize, len: usize, width: usize| -> Result<()> {
        let rows = flat.narrow(0, start, len)?.reshape(((), width))?.sqr()?.sum(1)?;
        total = (&total + rows.to_dtype(DType::F64)?.sum_keepdim(0)?)?;
        Ok(())
    };
    for start in (0..whole).step_by(DEVICE_PIECE) {
        add(start, DEVICE_PIECE.min(whole - start), WIDTH)?;
    }
    if whole < count {
        add(whole, count - whole, count - whole)?;
    }
    Ok(total)
}

/// Running sums in a fixed pattern: faster than one, and the same on every machine.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn piece_squares(values: &[f32]) -> f64 {
    let mut sums = [0.0f64; 32];
    let (groups, rest) = values.as_chunks::<32>();
    for group in groups {
        for (sum, value) in sums.iter_mut().zip(group) {
            *sum += f64::from(*value) * f64::from(*value);
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += f64::from(*value) * f64::from(*value);
    }
    sums.iter().sum()
}

/// Up to eight names, and how many more there are.
pub fn name_some(names: &[&str]) -> String {
    let shown = names.iter().take(8).copied().collect::<Vec<_>>().join(", ");
    match names.len() {
        n if n > 8 => format!("{shown} and {} more", n - 8),
        _ => shown,
    }
}

#[cfg(test)]
#[path = "optimizer_tests.rs"]
mod tests;
