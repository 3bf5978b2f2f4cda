//! Evaluation of a model behind a server: the same prompts, scorers and files as for a checkpoint. There are no weights to hash, so the key
//! holds the model's name and address.
//!
//! Every response is written to `api-cache.jsonl` as it comes, so that none is paid for twice. Images are sent in their own size; the
//! server resizes them.

use super::eval_dir::API_CACHE;
use super::evaluate_checkpoint::split_of;
use super::{EvalDir, EvalResult, evaluate_in, predict_in};
use crate::model::SamplingParams;
use crate::sampling::chat_api::{ChatClient, Endpoint, Note, TokenUsage};
use crate::sampling::{SamplePlan, SampleProgress, SamplingKey};
use crate::tasks::benchmarks::{PredictionTable, Protocol};
use crate::tasks::{self, Task};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// Examples in a batch, for each request under way at once.
const ROUNDS: usize = 8;

/// An evaluation of a model behind an address on a dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerEvalRequest {
    /// Where the model is.
    pub endpoint: Endpoint,
    /// Dataset directory, or a file of records.
    pub data: PathBuf,
    /// Split of a directory.
    pub split: String,
    /// Which examples, how often. How many at a time is the endpoint's concurrency.
    pub plan: SamplePlan,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Directory for responses and result.
    pub out: PathBuf,
    /// Start over, whatever is in `out`.
    pub fresh: bool,
}

/// Run an evaluation, or finish an interrupted one; a finished one is only read. `key` is the API key, if the server needs one; `note` receives a message for each
/// long pause.
///
/// # Errors
/// An input error for data that cannot be used, an `out` that holds something else, or a server that refuses; a failure if it does not
/// answer. What has been answered by then is kept.
pub fn evaluate_server(
    request: &ServerEvalRequest,
    key: Option<String>,
    note: Note<'_>,
    progress: impl FnMut(SampleProgress),
) -> Result<(EvalResult, TokenUsage)> {
    let ServerEvalRequest { endpoint, data, split, plan, sampling, out, fresh } = request;
    let task = tasks::load(data, split)?;
    let server = Server { endpoint, key: &key, note };
    let questions = Questions { task: task.as_ref(), predictions: None, plan, sampling };
    let directory = server.open(out, &questions, None, (data, split_of(data, split)), *fresh)?;
    let (result, usage) = server.evaluate(directory, &questions, progress)?;
    let result = result.ok_or_else(|| Error::failed("a dataset without a result"))?;
    Ok((result, usage))
}

/// What is asked, and how.
pub(super) struct Questions<'a> {
    pub task: &'a dyn Task,
    /// What the responses are written beside, if there are no answers to score them by.
    pub predictions: Option<&'a PredictionTable>,
    pub plan: &'a SamplePlan,
    pub sampling: &'a SamplingParams,
}

/// Who is asked.
#[derive(Clone, Copy)]
pub(super) struct Server<'a> {
    pub endpoint: &'a Endpoint,
    pub key: &'a Option<String>,
    pub note: Note<'a>,
}

impl Server<'_> {
    /// The directory of this evaluation; `place` is the data and its split.
    pub fn open(
        &self,
        out: &Path,
        questions: &Questions<'_>,
        bench: Option<Protocol>,
        (data, split): (&Path, &str),
        fresh: bool,
    ) -> Result<EvalDir<'static>> {
        let Questions { task, plan, sampling, .. } = *questions;
        let name = self.endpoint.name();
        // Each response has a random stream of its own, whatever it is asked for together with.
        let key = SamplingKey { bench, batch_size: None, ..SamplingKey::new(&name, "", task, plan, sampling)? };
        EvalDir::open_for_server(out, key, &name, data, split, fresh)
    }

    /// Ask for what is missing there. There is no result without answers to score by.
    pub fn evaluate(
        &self,
        directory: EvalDir<'_>,
        questions: &Questions<'_>,
        progress: impl FnMut(SampleProgress),
    ) -> Result<(Option<EvalResult>, TokenUsage)> {
        let Questions { task, predictions, plan, sampling } = *questions;
        let cache = directory.path().join(API_CACHE);
        let client = ChatClient::open(self.endpoint, self.key.clone(), &cache)?.with_note(self.note);
        let plan = SamplePlan { batch_size: ROUNDS * self.endpoint.concurrency.max(1), ..plan.clone() };
        let result = match predictions {
            Some(table) => {
                predict_in(&directory, &client, (task, table), &plan, sampling, progress)?;
                None
            }
            None => Some(evaluate_in(&directory, &client, task, &plan, sampling, progress)?),
        };
        Ok((result, client.usage()))
    }
}

/// The error of asking for a processor where a server reads the prompts.
pub(super) fn no_weights(what: &str) -> Error {
    Error::failed(format!("{what} was prepared for a server: there is no tokenizer to read it by"))
}
