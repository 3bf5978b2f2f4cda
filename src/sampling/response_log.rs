//! Scored responses on disk, one line each, and where an interrupted run continues.

use super::ScoredResponse;
use crate::io::jsonl::{self, JsonlLog};
use crate::tasks::Task;
use crate::{Error, Result};
use std::path::Path;

/// The responses to the first examples of a task, in order.
#[derive(Debug)]
pub struct ResponseLog(JsonlLog);

impl ResponseLog {
    /// Open the log at `path`, cut back to where a run over `examples` examples can continue: to whole examples of `samples` responses,
    /// and to whole batches of `batch` examples, where random numbers are drawn by the batch. Returns the responses that are left.
    ///
    /// # Errors
    /// An input error for a response that is not this task's, in order.
    pub fn resume(
        path: &Path,
        task: &dyn Task,
        examples: usize,
        samples: usize,
        batch: usize,
    ) -> Result<(ResponseLog, Vec<ScoredResponse>)> {
        let (mut log, mut responses) = JsonlLog::open::<ScoredResponse>(path)?;
        if responses.len() < examples * samples {
            let unit = samples * batch;
            responses.truncate(responses.len() / unit * unit);
        }
        check_order(path, &responses, task, samples)?;
        log.truncate(responses.len())?;
        Ok((ResponseLog(log), responses))
    }

    /// Append responses, in one write.
    ///
    /// # Errors
    /// A failure to write.
    pub fn append(&mut self, responses: &[ScoredResponse]) -> Result<()> {
        self.0.append(responses)
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
