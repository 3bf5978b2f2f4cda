//! An evaluation on disk: what it is keyed by, its responses as they come, its result written last.

use crate::Result;
use crate::comm::{Communicator, Single};
use crate::io::files::absolute;
use crate::io::json::named_differences;
use crate::io::lock::LockFile;
use crate::io::{files, jsonl, output_dir};
use crate::sampling::{LoggedResponse, ResponseLog, SamplePlan, SamplingKey, ScoredResponse, Summary};
use crate::tasks::Task;
use crate::tasks::benchmarks::UNSCORED;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const KEY: &str = "key.json";
const RESPONSES: &str = "responses.jsonl";
const RESULT: &str = "result.json";
/// The responses to a benchmark without answers, written last.
pub const PREDICTIONS: &str = "predictions.tsv";
/// The responses of a server as they come, so that none is paid for twice.
pub(super) const API_CACHE: &str = "api-cache.jsonl";

const CONTENT: output_dir::Growing<'_> = output_dir::Growing {
    what: "evaluation",
    doing: "evaluating",
    mark: Some(KEY),
    own: &|name| [RESPONSES, RESULT, API_CACHE].contains(&name),
};

/// What is evaluated: `key.json`, written first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalInfo {
    /// What decides the result. The rest is for people and for the report.
    pub key: SamplingKey,
    /// The checkpoint directory; of a server, the model's name and the address.
    pub model: PathBuf,
    /// The dataset directory.
    pub data: PathBuf,
    /// The split of it.
    pub split: String,
}

impl EvalInfo {
    /// Whether there is an evaluation in `dir`.
    pub fn is_in(dir: &Path) -> bool {
        dir.join(KEY).exists()
    }

    /// Read what the evaluation in `dir` is of; `None` if there is none.
    pub fn read(dir: &Path) -> Result<Option<EvalInfo>> {
        let path = dir.join(KEY);
        if path.exists() { files::read_json(&path).map(Some) } else { Ok(None) }
    }

    /// Whether there are no answers to score the responses by.
    pub fn is_unscored(&self) -> bool {
        self.key.scorers.contains_key(UNSCORED)
    }
}

/// A finished evaluation: `result.json`, written last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalResult {
    /// What was evaluated.
    #[serde(flatten)]
    pub about: EvalInfo,
    /// What was found.
    pub summary: Summary,
}

impl EvalResult {
    /// Read the result of an evaluation directory; `None` if it is not finished.
    pub fn read(dir: &Path) -> Result<Option<EvalResult>> {
        let path = dir.join(RESULT);
        if path.exists() { files::read_json(&path).map(Some) } else { Ok(None) }
    }

    /// The responses of an evaluation directory, complete lines only, in order.
    pub fn read_responses(dir: &Path) -> Result<Vec<ScoredResponse>> {
        jsonl::read(&dir.join(RESPONSES))
    }

    /// The same with what they answer, as far as that is recorded.
    pub fn read_lines(dir: &Path) -> Result<Vec<LoggedResponse<'static>>> {
        ResponseLog::lines(&dir.join(RESPONSES))
    }
}

/// The output directory of one evaluation. While it is not finished, no other process evaluates in it. Of several ranks, rank 0 alone reads and
/// writes; every rank calls the same functions.
#[derive(Debug)]
pub struct EvalDir<'a> {
    path: PathBuf,
    about: EvalInfo,
    comm: &'a dyn Communicator,
    _lock: Option<LockFile>,
}

impl<'a> EvalDir<'a> {
    /// Open `path` for the evaluation `key` of `model` on `data`'s `split` by the ranks of `comm`, making it if need be. With `fresh`, what an
    /// earlier evaluation left there is removed.
    ///
    /// # Errors
    /// Input error if the directory holds another evaluation, of which it names the parts of the key that differ, or if another
    /// process evaluates in it.
    pub fn open(
        path: &Path,
        key: SamplingKey,
        model: &Path,
        (data, split): (&Path, &str),
        fresh: bool,
        comm: &'a dyn Communicator,
    ) -> Result<EvalDir<'a>> {
        let about = EvalInfo { key, model: absolute(model), data: absolute(data), split: split.to_string() };
        EvalDir::open_for(path, about, fresh, comm)
    }

    /// As [`EvalDir::open`], for the answers of a server; `server` is its model and address.
    pub fn open_for_server(
        path: &Path,
        key: SamplingKey,
        server: &str,
        data: &Path,
        split: &str,
        fresh: bool,
    ) -> Result<EvalDir<'a>> {
        let about = EvalInfo { key, model: PathBuf::from(server), data: absolute(data), split: split.to_string() };
        EvalDir::open_for(path, about, fresh, &Single)
    }

    fn open_for(path: &Path, about: EvalInfo, fresh: bool, comm: &'a dyn Communicator) -> Result<EvalDir<'a>> {
        let lock = comm.root_alone(|| EvalDir::prepare(path, &about, fresh))?.flatten();
        Ok(EvalDir { path: path.to_path_buf(), about, comm, _lock: lock })
    }

    /// Lock the directory and see that it belongs to this evaluation.
    fn prepare(path: &Path, about: &EvalInfo, fresh: bool) -> Result<Option<LockFile>> {
        // A finished evaluation is only read, which several processes may do.
        let lock = match !fresh && path.join(RESULT).exists() {
            true => {
                output_dir::tidy(path);
                None
            }
            false => Some(output_dir::open(path, &CONTENT)?),
        };
        if fresh {
            // The result goes first, so that what an interruption leaves never looks finished.
            for name in [RESULT, PREDICTIONS, RESPONSES, API_CACHE, KEY] {
                files::remove_if_exists(&path.join(name))?;
            }
        }
        let begun = [RESPONSES, RESULT].iter().any(|name| path.join(name).exists());
        let Some(found) = output_dir::read_key::<EvalInfo>(&path.join(KEY), CONTENT.what, begun)? else {
            files::write_json(&path.join(KEY), about)?;
            return Ok(lock);
        };
        let differences = named_differences(&found.key, &about.key);
        if differences.is_empty() {
            return Ok(lock);
        }
        let rescore = match found.key.differs_in_scoring_only(&about.key) {
            true => "--rescore to score its responses again, ",
            false => "",
        };
        Err(output_dir::holds_another(path, CONTENT.what, &differences, rescore, ""))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The ranks that evaluate.
    pub fn comm(&self) -> &'a dyn Communicator {
        self.comm
    }

    /// The result, if this evaluation is finished.
    pub fn finished(&self) -> Result<Option<EvalResult>> {
        self.comm.on_root(|| EvalResult::read(&self.path))
    }

    /// The log of responses and those already in it, cut back to where the evaluation can continue.
    ///
    /// # Errors
    /// An input error for responses that are not this task's.
    pub fn resume(&self, task: &dyn Task, plan: &SamplePlan) -> Result<(ResponseLog, Vec<ScoredResponse>)> {
        ResponseLog::resume(&self.path.join(RESPONSES), task, plan, self.about.key.batch_size, self.comm)
    }

    /// Whether there is a file of predictions, where nothing is scored.
    pub fn has_predictions(&self) -> Result<bool> {
        self.comm.on_root(|| Ok(self.path.join(PREDICTIONS).exists()))
    }

    /// Write the file of predictions: the evaluation is done.
    pub fn write_predictions(&self, table: &[u8]) -> Result<()> {
        self.comm.on_root(|| files::write_atomic(&self.path.join(PREDICTIONS), table))
    }

    /// Write the result, that of rank 0: the evaluation is done.
    pub fn finish(&self, summary: Summary) -> Result<EvalResult> {
        let result = EvalResult { about: self.about.clone(), summary };
        self.comm.on_root(|| files::write_json(&self.path.join(RESULT), &result).map(|()| result))
    }
}

/// Keep other processes from evaluating in `dir` until the lock is dropped.
pub(super) fn lock(dir: &Path) -> Result<LockFile> {
    output_dir::lock(dir, CONTENT.doing)
}

/// Write the responses of an evaluation with new scores, its key, and its result if it is finished, in this order: after an
/// interruption the same call puts right what does not fit together.
pub(super) fn rewrite(
    dir: &Path,
    about: &EvalInfo,
    task: &dyn Task,
    outcomes: &[ScoredResponse],
    summary: Option<Summary>,
) -> Result<()> {
    ResponseLog::write(&dir.join(RESPONSES), task, outcomes)?;
    files::write_json(&dir.join(KEY), about)?;
    match summary {
        Some(summary) => files::write_json(&dir.join(RESULT), &EvalResult { about: about.clone(), summary }),
        None => Ok(()),
    }
}

/// The responses stored in `dir`, which are those to the first examples of `task`.
pub(super) fn stored(dir: &Path, task: &dyn Task, samples: usize) -> Result<Vec<ScoredResponse>> {
    ResponseLog::read(&dir.join(RESPONSES), task, samples)
}
