//! An evaluation whose responses come from a server: the same prompts, scorers and files as for a checkpoint, but no weights, and so
//! no hash of any: its key holds the model's name and the address.
//!
//! Every response is written down as it comes (`paid.jsonl`), so that none is paid for twice. Images are sent in the size they have;
//! what the server makes of them is its own affair.

use super::engine::split_of;
use super::store::PAID;
use super::{Directory, EvalResult, Generated, Key, Plan, Progress, evaluate_in};
use crate::model::Sampling;
use crate::sampling::server::{Billed, Chat, Endpoint, Paid};
use crate::tasks::benchmarks::Protocol;
use crate::tasks::{self, Task};
use crate::{Error, Result};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Examples asked for before the next ones are begun, for each request under way at once.
const ROUNDS: usize = 8;

/// An evaluation of a model behind an address on a dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerRequest {
    /// Where the model is.
    pub endpoint: Endpoint,
    /// Dataset directory, or a file of records.
    pub data: PathBuf,
    /// Split of a directory.
    pub split: String,
    /// Which examples, how often. How many at a time is the endpoint's concurrency.
    pub plan: Plan,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Directory for responses and result.
    pub out: PathBuf,
    /// Start over, whatever is in `out`.
    pub fresh: bool,
}

/// Run an evaluation, or what is left of it; a finished one is only read. `key` is what the server wants to see, if anything.
///
/// # Errors
/// An input error for data that cannot be used, an `out` that holds something else, or a server that refuses; a failure if it does not
/// answer. What has been answered by then is kept.
pub fn evaluate_server(
    request: &ServerRequest,
    key: Option<String>,
    progress: impl FnMut(Progress),
) -> Result<(EvalResult, Billed)> {
    let ServerRequest { endpoint, data, split, plan, sampling, out, fresh } = request;
    let task = tasks::load(data, split)?;
    let server = Server { endpoint, key: &key };
    let questions = Questions { task: task.as_ref(), plan, sampling };
    let directory = server.open(out, &questions, None, (data, split_of(data, split)), *fresh)?;
    server.evaluate(directory, &questions, progress)
}

/// What is asked, and how.
pub(super) struct Questions<'a> {
    pub task: &'a dyn Task,
    pub plan: &'a Plan,
    pub sampling: &'a Sampling,
}

/// Who is asked.
#[derive(Clone, Copy)]
pub(super) struct Server<'a> {
    pub endpoint: &'a Endpoint,
    pub key: &'a Option<String>,
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
    ) -> Result<Directory> {
        let Questions { task, plan, sampling } = *questions;
        let name = self.endpoint.name();
        // Each response has a random stream of its own, whatever it is asked for together with.
        let key = Key { bench, batch: None, ..Key::new(&name, "", task, plan, sampling)? };
        Directory::open_for_server(out, key, &name, data, split, fresh)
    }

    /// Ask for what is missing there.
    pub fn evaluate(
        &self,
        mut directory: Directory,
        questions: &Questions<'_>,
        progress: impl FnMut(Progress),
    ) -> Result<(EvalResult, Billed)> {
        let Questions { task, plan, sampling } = *questions;
        let chat = Chat::open(self.endpoint, sampling, self.key.clone(), &directory.path().join(PAID))?;
        let plan = Plan { batch: ROUNDS * self.endpoint.concurrency.max(1), ..plan.clone() };
        let generate = |examples: Range<usize>| answers(&chat, task, examples, plan.samples);
        let result = evaluate_in(&mut directory, task, &plan, generate, progress)?;
        Ok((result, chat.billed()))
    }
}

/// Responses of a server as those of a model.
pub(crate) fn answers(
    chat: &Chat<'_>,
    task: &dyn Task,
    examples: Range<usize>,
    samples: usize,
) -> Result<Vec<Vec<Generated>>> {
    let groups = chat.respond(task, examples, samples)?;
    let read = |paid: Paid| {
        let unanswered = paid.unanswered();
        // What a content filter has cut off is no answer: nobody is to read one out of it.
        let text = if unanswered.is_some() { String::new() } else { paid.response };
        Generated { text, tokens: paid.completion_tokens, finished: paid.finished, unanswered }
    };
    Ok(groups.into_iter().map(|group| group.into_iter().map(read).collect()).collect())
}

/// An evaluation by a server is not one of a checkpoint directory.
pub(super) fn no_weights(what: &str) -> Error {
    Error::failed(format!("{what} was prepared for a server: there is no tokenizer to read it by"))
}
