//! What answers prompts, and what it is asked.

use super::response::Response;
use crate::Result;
use crate::model::{Prompt, SamplingParams};
use crate::tasks::Task;
use std::sync::Arc;

/// What answers prompts.
pub trait Responder {
    /// `options.samples` responses to each prompt, `[prompt][sample]`, in the order of the prompts.
    ///
    /// # Errors
    /// An input error for a prompt that cannot be put to it; a failure if it does not answer.
    fn respond(&self, prompts: &Prompts<'_>, options: &SampleOptions<'_>) -> Result<Vec<Vec<Response>>>;
}

/// The prompts of some examples of a task.
#[derive(Clone, Copy)]
pub struct Prompts<'a> {
    /// The task.
    pub task: &'a dyn Task,
    /// Indices of the examples.
    pub examples: &'a [usize],
    /// Their prompts as model input, in this order, if they are encoded already.
    pub encoded: Option<&'a [Arc<Prompt>]>,
}

impl<'a> Prompts<'a> {
    /// Prompts that the responder encodes.
    pub fn new(task: &'a dyn Task, examples: &'a [usize]) -> Prompts<'a> {
        Prompts { task, examples, encoded: None }
    }

    /// Prompts that are encoded already.
    pub fn encoded(task: &'a dyn Task, examples: &'a [usize], encoded: &'a [Arc<Prompt>]) -> Prompts<'a> {
        Prompts { task, examples, encoded: Some(encoded) }
    }

    /// `size` prompts at a time.
    pub(super) fn batches(self, size: usize) -> impl Iterator<Item = Prompts<'a>> {
        let mut rest = self.encoded;
        self.examples.chunks(size.max(1)).map(move |examples| {
            let (encoded, after) = rest.map(|rest| rest.split_at(examples.len())).unzip();
            rest = after;
            Prompts { task: self.task, examples, encoded }
        })
    }
}

/// How responses are sampled.
#[derive(Clone, Copy)]
pub struct SampleOptions<'a> {
    /// Responses to each prompt.
    pub num_generations: usize,
    /// How tokens are chosen. The seed is that of the whole run.
    pub sampling: &'a SamplingParams,
    /// The random stream that a model on this machine draws from for these prompts: its name, and where they stand in the run.
    pub stream: (&'a str, &'a [u64]),
}

/// A responder made of a function of the examples' indices.
#[cfg(test)]
pub(crate) fn from_fn(respond: impl FnMut(std::ops::Range<usize>) -> Result<Vec<Vec<Response>>>) -> impl Responder {
    struct FromFn<F>(std::cell::RefCell<F>);
    impl<F: FnMut(std::ops::Range<usize>) -> Result<Vec<Vec<Response>>>> Responder for FromFn<F> {
        fn respond(&self, prompts: &Prompts<'_>, _: &SampleOptions<'_>) -> Result<Vec<Vec<Response>>> {
            let first = prompts.examples.first().copied().unwrap_or(0);
            (self.0.borrow_mut())(first..first + prompts.examples.len())
        }
    }
    FromFn(std::cell::RefCell::new(respond))
}
