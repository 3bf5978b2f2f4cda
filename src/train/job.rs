//! What a training run needs: its configuration, its models, and its examples with where each comes from.

use crate::comm::Communicator;
use crate::data::Record;
use crate::model::{LanguageModel, Prompt, PromptEncoder, Sequence};
use crate::sampling::LocalModel;
use crate::tasks::{Task, encode_demonstrated, encode_example, reference_sequence};
use crate::train::settings::TrainConfig;
use crate::{Error, Result};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Everything a run needs. Nothing in it changes but the weights of `model`.
pub struct TrainJob<'a> {
    /// The settings.
    pub config: &'a TrainConfig,
    /// The model that trains, with the weights of the start or of the checkpoint that the run resumes from.
    pub model: &'a dyn LanguageModel,
    /// A frozen copy of the model that the run started from, if the objective or a penalty needs one.
    pub reference: Option<&'a dyn LanguageModel>,
    /// The model directory that the run started from, for the files beside the weights.
    pub base: &'a Path,
    /// Tokenizer and image preprocessing.
    pub encoder: &'a dyn PromptEncoder,
    /// Training examples of the run's own dataset.
    pub train: &'a dyn Task,
    /// Training examples of the dataset that is replayed (`sft.replay`).
    pub replay: Option<&'a dyn Task>,
    /// Training examples of the dataset of the KL penalty (`[prior_kl]`).
    pub prior: Option<&'a dyn Task>,
    /// Validation examples, if there are any.
    pub validation: Option<&'a dyn Task>,
    /// Questions of prior knowledge that evaluations ask too (`eval.prior`).
    pub prior_eval: Option<&'a dyn Task>,
    /// Set from outside, on any rank, to end the run after the current round.
    pub stop: &'a AtomicBool,
    /// The ranks that train together. All of them have the same examples and settings.
    pub comm: &'a dyn Communicator,
}

/// A training example, by the dataset that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExampleId {
    /// Of the run's own dataset.
    Dataset(usize),
    /// Of the dataset that is replayed.
    Replay(usize),
    /// Of the dataset of the KL penalty.
    Prior(usize),
}

impl TrainJob<'_> {
    /// The training examples that are looked at before a run, but for those of the KL penalty, those of its own dataset first: all, or so many that
    /// they stand for all ([`Task::measured`]).
    pub fn examples(&self) -> impl Iterator<Item = ExampleId> + use<> {
        let (own, replayed) = (self.train.measured(), self.replay.map_or(0, |replay| replay.measured()));
        (0..own).map(ExampleId::Dataset).chain((0..replayed).map(ExampleId::Replay))
    }

    /// Whether anything is measured on the way.
    pub fn evaluates(&self) -> bool {
        let asks = self.validation.is_some_and(|task| !task.is_empty()) || self.prior_eval.is_some();
        self.config.eval.steps > 0 && asks
    }

    /// The dataset of an example, and its index there.
    ///
    /// # Errors
    /// An example of a dataset that the run does not have.
    pub fn locate(&self, id: ExampleId) -> Result<(&dyn Task, usize)> {
        let (task, i) = match id {
            ExampleId::Dataset(i) => (Some(self.train), i),
            ExampleId::Replay(i) => (self.replay, i),
            ExampleId::Prior(i) => (self.prior, i),
        };
        Ok((task.ok_or_else(|| Error::failed("an example of a dataset that the run does not have"))?, i))
    }

    /// The model that trains, as what responds to prompts: on all ranks.
    pub fn responder(&self) -> LocalModel<'_> {
        LocalModel::new(self.model, self.encoder).on_ranks(self.comm)
    }

    /// The record of an example.
    pub fn record(&self, id: ExampleId) -> Result<Cow<'_, Record>> {
        let (task, i) = self.locate(id)?;
        task.example(i)
    }

    /// Whether the model itself responds to the example, so that its reference response is not used. Replayed examples always train on
    /// their reference responses.
    pub fn is_sampled(&self, id: ExampleId) -> bool {
        matches!(id, ExampleId::Dataset(_)) && self.config.rollout.is_some()
    }

    /// The prompt of an example with its reference response in it, as a demonstration.
    pub fn demonstrated_prompt(&self, id: ExampleId) -> Result<Arc<Prompt>> {
        let (task, i) = self.locate(id)?;
        encode_demonstrated(task, self.encoder, i)
    }

    /// The example as model input, with its reference response; with an empty one where the model itself is to respond.
    pub fn encode(&self, id: ExampleId) -> Result<Sequence> {
        let (task, i) = self.locate(id)?;
        match self.is_sampled(id) {
            true => Ok(Sequence { prompt: encode_example(task, self.encoder, i)?, response: Vec::new() }),
            false => reference_sequence(task, self.encoder, i),
        }
    }
}
