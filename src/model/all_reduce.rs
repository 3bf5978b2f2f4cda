//! A model's passes shared out between ranks, with results that do not depend on the number of ranks.

use crate::comm::Communicator;
use crate::model::{LanguageModel, Sequence};
use crate::nn::{Parameter, ParameterGrads, in_main_memory, numbers, read};
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;
use std::sync::Arc;

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
        let own = sets.iter().filter_map(|set| set.get(parameter)).map(numbers).collect::<Result<Vec<_>>>()?;
        let own: Vec<&[f32]> = own.iter().map(|own| &own[..]).collect();
        change(parameter, |sum, filled| comm.all_reduce_sum(sum, filled, &own, &counts))?;
    }
    Ok(())
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
