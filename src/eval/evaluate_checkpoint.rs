//! Evaluation of a checkpoint directory on a dataset.

use super::{EvalDir, EvalResult, evaluate_in};
use crate::Result;
use crate::comm::Communicator;
use crate::model::{ModelLoader, Processor, SamplingParams};
use crate::sampling::{LocalModel, SamplePlan, SampleProgress, checkpoint_key};
use crate::tasks;
use std::path::{Path, PathBuf};

/// An evaluation of a checkpoint directory on a dataset directory.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalRequest {
    /// Checkpoint directory.
    pub model: PathBuf,
    /// Dataset directory.
    pub data: PathBuf,
    /// Split of it.
    pub split: String,
    /// Which examples, how often, how many at a time.
    pub plan: SamplePlan,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Directory for responses and result.
    pub out: PathBuf,
    /// Start over, whatever is in `out`.
    pub fresh: bool,
}

/// Run an evaluation, or what is left of it; a finished one is only read. Every rank calls it; one that gets an error must end the others
/// ([`Communicator::abort`]).
pub fn evaluate_checkpoint(
    request: &EvalRequest,
    loader: &ModelLoader,
    comm: &dyn Communicator,
    progress: impl FnMut(SampleProgress),
) -> Result<EvalResult> {
    let EvalRequest { model, data, split, plan, sampling, out, fresh } = request;
    let task = tasks::load(data, split)?;
    let key = checkpoint_key(model, loader.compute(), task.as_ref(), plan, sampling)?;
    key.check_ranks(comm, plan, loader)?;
    let directory = EvalDir::open(out, key, model, (data, split_of(data, split)), *fresh, comm)?;
    if let Some(result) = directory.finished()? {
        return Ok(result);
    }
    let processor = Processor::from_dir(model)?;
    let model = loader.frozen(model)?;
    let responder = LocalModel::new(&model, &processor);
    evaluate_in(&directory, &responder, task.as_ref(), plan, sampling, progress)
}

/// The split that is written down: a file has none.
pub(crate) fn split_of<'a>(data: &Path, split: &'a str) -> &'a str {
    if data.is_dir() { split } else { "" }
}
