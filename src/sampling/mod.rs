//! Scored responses to the prompts of a task: one function, [`sample`], for rollouts, evaluation, on-policy training, training dynamics
//! and divergence.
//!
//! A [`Responder`] answers: a model on this machine ([`LocalModel`]), or one behind a server ([`server::ChatClient`]). The task scores,
//! so that reward and accuracy cannot disagree. [`sample_task`] runs a whole task batch by batch; [`ResponseLog`] keeps the responses
//! on disk, so that an interrupted run continues.

pub mod decoding;
mod example_hash;
mod key;
mod local;
mod response;
mod response_log;
pub mod rollout;
mod run;
pub mod server;
mod summary;

pub(crate) use key::differences;
pub use key::{SamplingKey, checkpoint_key};
pub use local::LocalModel;
pub use response::{Generated, ScoredResponse};
pub use response_log::ResponseLog;
pub use run::{BATCH_SIZE, SamplePlan, SampleProgress, sample_task};
pub(crate) use run::{generated_tokens, progress_of, run};
pub use summary::{Category, Summary};

use crate::model::{Prompt, Sampling};
use crate::tasks::{Score, Task};
use crate::{Error, Result};
use std::sync::Arc;

/// What answers prompts.
pub trait Responder {
    /// `options.samples` responses to each prompt, `[prompt][sample]`, in the order of the prompts.
    ///
    /// # Errors
    /// An input error for a prompt that cannot be put to it; a failure if it does not answer.
    fn respond(&self, prompts: &Prompts<'_>, options: &SampleOptions<'_>) -> Result<Vec<Vec<Generated>>>;
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
    fn batches(self, size: usize) -> impl Iterator<Item = Prompts<'a>> {
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
    pub samples: usize,
    /// How tokens are chosen. The seed is that of the whole run.
    pub sampling: &'a Sampling,
    /// The random stream that a model on this machine draws from for these prompts: its name, and where they stand in the run.
    pub stream: (&'a str, &'a [u64]),
}

/// Sample `options.samples` responses to each prompt, and score them by the task: `[prompt][sample]`.
///
/// # Errors
/// See [`Responder::respond`].
pub fn sample(
    responder: &dyn Responder,
    prompts: &Prompts<'_>,
    options: &SampleOptions<'_>,
) -> Result<Vec<Vec<ScoredResponse>>> {
    let Prompts { task, examples, .. } = *prompts;
    let groups = responder.respond(prompts, options)?;
    if groups.len() != examples.len() || groups.iter().any(|group| group.len() != options.samples) {
        return Err(Error::failed(format!(
            "{} groups of responses for {} examples with {} samples each",
            groups.len(),
            examples.len(),
            options.samples
        )));
    }
    let score = |(&index, group): (&usize, Vec<Generated>)| {
        let id = &task.example(index)?.id;
        let score = |(sample, generated): (usize, Generated)| ScoredResponse {
            index,
            id: id.clone(),
            sample,
            score: match generated.no_answer {
                Some(why) => Score::without_answer(why),
                None => task.score(index, &generated.text),
            },
            response: generated.text,
            tokens: generated.tokens,
            finished: generated.finished,
            token_ids: generated.token_ids,
        };
        Ok(group.into_iter().enumerate().map(score).collect())
    };
    examples.iter().zip(groups).map(score).collect()
}

/// As [`sample`], `batch_size` prompts at a time. The number of the batch, from 0, is added to the position in the random stream.
///
/// # Errors
/// See [`sample`].
pub fn sample_in_batches(
    responder: &dyn Responder,
    prompts: &Prompts<'_>,
    options: &SampleOptions<'_>,
    batch_size: usize,
) -> Result<Vec<Vec<ScoredResponse>>> {
    let mut all = Vec::with_capacity(prompts.examples.len());
    for (batch, prompts) in prompts.batches(batch_size).enumerate() {
        let (name, position) = options.stream;
        let position = [position, &[batch as u64]].concat();
        all.extend(sample(responder, &prompts, &SampleOptions { stream: (name, &position), ..*options })?);
    }
    Ok(all)
}

/// A responder made of a function of the examples' indices.
#[cfg(test)]
pub(crate) fn from_fn(respond: impl FnMut(std::ops::Range<usize>) -> Result<Vec<Vec<Generated>>>) -> impl Responder {
    struct FromFn<F>(std::cell::RefCell<F>);
    impl<F: FnMut(std::ops::Range<usize>) -> Result<Vec<Vec<Generated>>>> Responder for FromFn<F> {
        fn respond(&self, prompts: &Prompts<'_>, _: &SampleOptions<'_>) -> Result<Vec<Vec<Generated>>> {
            let first = prompts.examples.first().copied().unwrap_or(0);
            (self.0.borrow_mut())(first..first + prompts.examples.len())
        }
    }
    FromFn(std::cell::RefCell::new(respond))
}
