//! A model's passes shared out between ranks, with results that do not depend on the number of ranks.

use crate::comm::Communicator;
use crate::model::{LanguageModel, Sequence};
use crate::nn::{GradOrder, Parameter, ParameterGrads, in_main_memory, numbers, read};
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Add sets of gradients to those of the parameters, set by set. Rank 0 holds the first of all sets, and each rank those after the sets of
/// the rank before it. The parameters' own gradients are the same on every rank, before and after.
pub(super) fn add_gradients(
    comm: &dyn Communicator,
    parameters: &[Arc<Parameter>],
    sets: &[ParameterGrads],
) -> Result<()> {
    if comm.world_size() == 1 {
        return parameters.par_iter().try_for_each(|parameter| {
            sets.iter().filter_map(|set| set.get(parameter)).try_for_each(|grad| {
                let grad = read(grad)?;
                parameter.accumulate(|sum, filled| match filled {
                    true => sum.iter_mut().zip(grad.iter()).for_each(|(s, g)| *s += g),
                    false => sum.copy_from_slice(&grad),
                })
            })
        });
    }
    // How many gradients of each parameter every rank has: shards without images give the vision tower none.
    let count = |parameter: &Arc<Parameter>| sets.iter().filter(|set| set.get(parameter).is_some()).count();
    let counts = parameters.iter().map(|parameter| count(parameter) as u8).collect::<Vec<_>>();
    let counts = comm.all_gather(&counts)?;
    if counts.iter().any(|counts| counts.len() != parameters.len()) {
        return Err(Error::failed("the ranks have models of different architectures"));
    }
    for (i, parameter) in parameters.iter().enumerate() {
        let counts: Vec<usize> = counts.iter().map(|counts| counts[i].into()).collect();
        if counts.iter().sum::<usize>() == 0 {
            continue;
        }
        let own: Vec<&Tensor> = sets.iter().filter_map(|set| set.get(parameter)).collect();
        if add_on_device(comm, parameter, &own)? {
            continue;
        }
        let own = own.into_iter().map(numbers).collect::<Result<Vec<_>>>()?;
        let own: Vec<&[f32]> = own.iter().map(|own| &own[..]).collect();
        change(parameter, |sum, filled| comm.all_reduce_sum(sum, filled, &own, &counts))?;
    }
    Ok(())
}

/// Add up the gradients of all ranks where they are, on GPUs; whether that was done.
fn add_on_device(comm: &dyn Communicator, parameter: &Parameter, own: &[&Tensor]) -> Result<bool> {
    if in_main_memory(parameter.var.device()) {
        return Ok(false);
    }
    // A copy: parameters may share a gradient.
    let own = own.iter().try_fold(parameter.var.zeros_like()?, |sum, own| sum + *own)?;
    if !comm.exchange_on_device(&own, None)? {
        return Ok(false);
    }
    parameter.set_grad(Some(match parameter.grad() {
        Some(before) => (before + own)?,
        None => own,
    }));
    Ok(true)
}

/// Give the gradients of rank `root` to every rank.
pub(super) fn broadcast_gradients(comm: &dyn Communicator, parameters: &[Arc<Parameter>], root: usize) -> Result<()> {
    let mut present: Vec<u8> = parameters.iter().map(|parameter| parameter.grad().is_some().into()).collect();
    comm.broadcast(root, &mut present)?;
    for (parameter, _) in parameters.iter().zip(present).filter(|(_, present)| *present == 1) {
        change(parameter, |sum, _| comm.broadcast_f32(root, sum))?;
    }
    Ok(())
}

/// The order of two backward passes on two ranks: the first sends each gradient on as soon as it has added its own.
pub(super) struct RankOrder<'a> {
    comm: &'a dyn Communicator,
    /// The rank of the other pass.
    other: usize,
    /// By address, the parameters whose gradients are still to be sent or received, with their numbers.
    left: Mutex<HashMap<usize, (usize, &'a Arc<Parameter>)>>,
}

impl<'a> RankOrder<'a> {
    pub(super) fn new(comm: &'a dyn Communicator, parameters: &'a [Arc<Parameter>], other: usize) -> RankOrder<'a> {
        let trained = parameters.iter().enumerate().filter(|(_, parameter)| parameter.trainable());
        let left = trained.map(|(number, parameter)| (Arc::as_ptr(parameter).addr(), (number, parameter))).collect();
        RankOrder { comm, other, left: Mutex::new(left) }
    }

    fn take(&self, parameter: &Arc<Parameter>) -> Option<usize> {
        let mut left = self.left.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        left.remove(&Arc::as_ptr(parameter).addr()).map(|(number, _)| number)
    }

    /// What is left, by number.
    fn rest(&self) -> Vec<(usize, &'a Arc<Parameter>)> {
        let mut left = self.left.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut rest: Vec<_> = left.drain().map(|(_, parameter)| parameter).collect();
        rest.sort_unstable_by_key(|(number, _)| *number);
        rest
    }

    /// Send the gradients that the first pass has not added to, or has added to several times, and wait until all that was sent is received.
    pub(super) fn send_rest(&self) -> Result<()> {
        self.rest().into_iter().try_for_each(|(number, parameter)| self.send(number, parameter))?;
        self.comm.wait_for_sent()
    }

    /// Receive the gradients for which the second pass did not wait.
    pub(super) fn receive_rest(&self) -> Result<()> {
        self.rest().into_iter().try_for_each(|(number, parameter)| self.receive(number, parameter))
    }

    fn send(&self, number: usize, parameter: &Parameter) -> Result<()> {
        let grad = parameter.grad();
        let grad = grad.as_ref().map(numbers).transpose()?;
        self.comm.send_f32(self.other, number, grad.as_deref())
    }

    fn receive(&self, number: usize, parameter: &Parameter) -> Result<()> {
        match self.comm.sends_f32(self.other, number)? {
            true => change(parameter, |sum, _| self.comm.receive_f32(self.other, number, sum)),
            false => Ok(()),
        }
    }
}

impl GradOrder for RankOrder<'_> {
    fn mark_added(&self, parameter: &Arc<Parameter>) -> Result<()> {
        match self.take(parameter) {
            Some(number) => self.send(number, parameter),
            None => Err(Error::failed(format!(
                "{} takes two gradients in one pass, which two concurrent passes do not allow",
                parameter.name
            ))),
        }
    }

    fn wait_for(&self, parameter: &Arc<Parameter>) -> Result<()> {
        self.take(parameter).map_or(Ok(()), |number| self.receive(number, parameter))
    }
}

/// Let `exchange` change the gradient of a parameter in place. Its second argument says whether the parameter already had a gradient.
fn change(parameter: &Parameter, exchange: impl FnOnce(&mut [f32], bool) -> Result<()>) -> Result<()> {
    let device = parameter.var.device();
    if in_main_memory(device) {
        let mut result = Ok(());
        parameter.accumulate(|sum, filled| result = exchange(sum, filled))?;
        return result;
    }
    let (mut sum, filled) = match parameter.grad() {
        Some(grad) => (numbers(&grad)?.to_vec(), true),
        None => (vec![0.0; parameter.var.elem_count()], false),
    };
    exchange(&mut sum, filled)?;
    parameter.set_grad(Some(Tensor::from_vec(sum, parameter.var.shape(), device)?));
    Ok(())
}

/// The log-probabilities of every response token of `batch`, of which each rank computes a run of sequences. See [`LanguageModel::score`].
pub fn score(
    comm: &dyn Communicator,
    model: &dyn LanguageModel,
    batch: &[Sequence],
    temperature: f32,
) -> Result<Vec<f32>> {
    // Sequences of one prompt stay together: the prompt is computed once for all of them.
    let groups: Vec<&[Sequence]> = batch.chunk_by(|a, b| Arc::ptr_eq(&a.prompt, &b.prompt)).collect();
    let share = comm.share(groups.len());
    let length = |groups: &[&[Sequence]]| groups.iter().map(|group| group.len()).sum::<usize>();
    let first = length(&groups[..share.start]);
    let own = &batch[first..first + length(&groups[share])];
    comm.gather_f32(comm.agree(model.score(own, temperature))?.logprobs)
}
