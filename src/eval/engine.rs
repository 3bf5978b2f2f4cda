//! The model side of an evaluation: examples in, responses out.

use super::Generated;
use crate::model::qwen2_5_vl::Model;
use crate::model::{Completion, Processor, Prompt, Sampling};
use crate::tasks::Task;
use crate::{Error, Result, rng};
use rand::Rng as _;
use std::ops::Range;
use std::sync::Arc;

/// A model with what it needs to answer the examples of a task.
pub struct Engine<'a> {
    /// The weights.
    pub model: &'a Model,
    /// Text and images to model input.
    pub processor: &'a Processor,
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
        let prompts = examples.map(|i| encode_prompt(self.processor, self.task, i)).collect::<Result<Vec<_>>>()?;
        let (eos, banned) = (self.processor.eos_ids(), self.processor.banned_ids());
        let groups = self.model.generate(&prompts, self.samples, &sampling, eos, banned)?;
        let read = |c: &Completion| -> Result<Generated> {
            Ok(Generated { text: self.processor.decode(&c.ids)?, tokens: c.ids.len(), finished: c.finished })
        };
        groups.iter().map(|group| group.iter().map(read).collect()).collect()
    }
}

/// The prompt of an example as model input.
pub(super) fn encode_prompt(processor: &Processor, task: &dyn Task, i: usize) -> Result<Arc<Prompt>> {
    let record = task.example(i)?;
    let named = |e: Error| e.context(format!("example {}", record.id));
    processor.encode_prompt(record.prompt(), &task.images(i).map_err(named)?).map_err(named)
}
