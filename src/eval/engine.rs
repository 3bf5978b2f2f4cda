//! The model side of an evaluation: a checkpoint directory and a dataset in, responses and a result out.

use super::{Directory, EvalResult, Generated, Plan, Progress, evaluate_in, key_of};
use crate::model::{Completion, Compute, ModelLoader, Processor, Sampling};
use crate::model::{LanguageModel, PromptEncoder};
use crate::tasks::encode_example;
use crate::tasks::{self, Task};
use crate::{Result, rng};
use candle_core::Device;
use rand::Rng as _;
use rayon::prelude::*;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// An evaluation of a checkpoint directory on a dataset directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Checkpoint directory.
    pub model: PathBuf,
    /// Dataset directory.
    pub data: PathBuf,
    /// Split of it.
    pub split: String,
    /// Which examples, how often, how many at a time.
    pub plan: Plan,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Directory for responses and result.
    pub out: PathBuf,
    /// Start over, whatever is in `out`.
    pub fresh: bool,
}

/// Run an evaluation, or what is left of it; a finished one is only read.
pub fn evaluate_checkpoint(request: &Request, device: &Device, progress: impl FnMut(Progress)) -> Result<EvalResult> {
    let Request { model, data, split, plan, sampling, out, fresh } = request;
    let task = tasks::load(data, split)?;
    let key = key_of(model, task.as_ref(), plan, sampling)?;
    let mut directory = Directory::open(out, key, model, data, split_of(data, split), *fresh)?;
    if let Some(result) = directory.finished()? {
        return Ok(result);
    }
    let processor = Processor::from_dir(model)?;
    let model = ModelLoader::new(device, Compute::F32).frozen(model)?;
    let engine = Engine { policy: &model, codec: &processor, task: task.as_ref(), sampling, samples: plan.samples };
    evaluate_in(&mut directory, task.as_ref(), plan, |examples| engine.generate(examples), progress)
}

/// The split that is written down: a file has none.
pub(crate) fn split_of<'a>(data: &Path, split: &'a str) -> &'a str {
    if data.is_dir() { split } else { "" }
}

/// A model with what it needs to answer the examples of a task.
pub struct Engine<'a> {
    /// The model.
    pub policy: &'a dyn LanguageModel,
    /// Text and images to model input.
    pub codec: &'a dyn PromptEncoder,
    /// The examples.
    pub task: &'a dyn Task,
    /// How tokens are chosen. `seed` is that of the whole evaluation; each batch draws from its own.
    pub sampling: &'a Sampling,
    /// Responses to each example.
    pub samples: usize,
}

impl Engine<'_> {
    /// Responses to a batch of examples; `[example][sample]`.
    pub fn generate(&self, examples: Range<usize>) -> Result<Vec<Vec<Generated>>> {
        let mut sampling = self.sampling.clone();
        sampling.seed = rng::stream(self.sampling.seed, "eval", &[examples.start as u64]).next_u64();
        let prompts = examples.into_par_iter().map(|i| encode_example(self.task, self.codec, i)).collect::<Vec<_>>();
        let prompts = prompts.into_iter().collect::<Result<Vec<_>>>()?;
        let (eos, banned) = (self.codec.eos_ids(), self.codec.banned_ids());
        let groups = self.policy.generate(&prompts, self.samples, &sampling, eos, banned)?;
        let read = |c: &Completion| -> Result<Generated> {
            let text = self.codec.decode(&c.ids)?;
            Ok(Generated { text, tokens: c.ids.len(), finished: c.finished, unanswered: None })
        };
        groups.iter().map(|group| group.iter().map(read).collect()).collect()
    }
}
