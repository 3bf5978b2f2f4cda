//! Scored responses on disk, one line each with what it answers, and where an interrupted run continues.

use super::{SamplePlan, ScoredResponse};
use crate::comm::{Communicator, RootLog};
use crate::io::jsonl::{self, JsonlLog};
use crate::tasks::Task;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::Path;

/// A line of the log: a response, and what it answers, so that a person can read it without the data. Logs of earlier versions have the
/// response alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoggedResponse<'a> {
    /// The response.
    #[serde(flatten)]
    pub response: Cow<'a, ScoredResponse>,
    /// The question as it was put, with an `<image>` for each image; of several turns, their texts apart by empty lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The gold answer, as the scorer reads it; empty where nothing is scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<String>,
    /// Where each image is: see [`Task::image_places`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
}

/// The responses to the first examples of a task, in order. Of several ranks, rank 0 alone has the file; the others write nothing.
#[derive(Debug)]
pub struct ResponseLog(Option<JsonlLog>);

impl ResponseLog {
    /// Open the log at `path`, cut back to where a run of the plan can continue: to whole examples, and to whole batches of `batch` examples,
    /// where random numbers are drawn by the batch. Returns the responses that are left, on every rank.
    ///
    /// # Errors
    /// An input error for a response that is not this task's, in order.
    pub fn resume(
        path: &Path,
        task: &dyn Task,
        plan: &SamplePlan,
        batch: Option<usize>,
        comm: &dyn Communicator,
    ) -> Result<(ResponseLog, Vec<ScoredResponse>)> {
        let samples = plan.num_generations;
        let RootLog { file, lines } = RootLog::open(path, comm, |_, responses: &[ScoredResponse]| {
            let mut usable = responses.len();
            if usable < plan.examples(task) * samples {
                usable -= usable % (samples * batch.unwrap_or(1));
            }
            check_order(path, &responses[..usable], task, samples)?;
            Ok(usable)
        })?;
        Ok((ResponseLog(file), lines))
    }

    /// Append responses to examples of `task`, in one write.
    ///
    /// # Errors
    /// A failure to write.
    pub fn append(&mut self, task: &dyn Task, responses: &[ScoredResponse]) -> Result<()> {
        match &mut self.0 {
            Some(log) => log.append(&logged(task, responses)?),
            None => Ok(()),
        }
    }

    /// Write the log at `path` as a whole, or not at all.
    ///
    /// # Errors
    /// A failure to write.
    pub fn write(path: &Path, task: &dyn Task, responses: &[ScoredResponse]) -> Result<()> {
        jsonl::write(path, &logged(task, responses)?)
    }

    /// Every line of the log at `path`, with what it answers.
    ///
    /// # Errors
    /// An input error that names file and line of what is no response.
    pub fn lines(path: &Path) -> Result<Vec<LoggedResponse<'static>>> {
        jsonl::read(path)
    }

    /// The responses in the log at `path`, which are those to the first examples of `task`.
    ///
    /// # Errors
    /// As [`ResponseLog::resume`].
    pub fn read(path: &Path, task: &dyn Task, samples: usize) -> Result<Vec<ScoredResponse>> {
        let responses: Vec<ScoredResponse> = jsonl::read(path)?;
        check_order(path, &responses, task, samples)?;
        Ok(responses)
    }
}

/// Responses with what they answer.
fn logged<'a>(task: &dyn Task, responses: &'a [ScoredResponse]) -> Result<Vec<LoggedResponse<'a>>> {
    let mut lines: Vec<LoggedResponse<'a>> = Vec::with_capacity(responses.len());
    for response in responses {
        let line = match lines.last() {
            Some(before) if before.response.index == response.index => {
                LoggedResponse { response: Cow::Borrowed(response), ..before.clone() }
            }
            _ => {
                let record = task.example(response.index)?;
                let turns: Vec<&str> = record.prompt().iter().map(|turn| turn.content.as_str()).collect();
                LoggedResponse {
                    response: Cow::Borrowed(response),
                    prompt: Some(turns.join("\n\n")),
                    gold: Some(record.answer.clone()),
                    images: task.image_places(response.index)?,
                }
            }
        };
        lines.push(line);
    }
    Ok(lines)
}

/// See that these responses, read from `path`, are those to the first examples of `task`, in order.
fn check_order(path: &Path, responses: &[ScoredResponse], task: &dyn Task, samples: usize) -> Result<()> {
    for (at, response) in responses.iter().enumerate() {
        let (index, sample) = (at / samples, at % samples);
        let expected = if index < task.len() { task.example(index)?.id.clone() } else { String::new() };
        if (response.index, response.sample, response.id.as_str()) != (index, sample, expected.as_str()) {
            return Err(Error::input(format!(
                "{}:{}: a response to {} (sample {}) where {expected:?} (sample {sample}) was expected; \
                 --fresh starts over",
                path.display(),
                at + 1,
                response.id,
                response.sample
            )));
        }
    }
    Ok(())
}
