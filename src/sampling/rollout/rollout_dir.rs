//! The output directory of a rollout: its key, and every response with its score as it comes.
//!
//! `rollout.json` is written first. `samples.jsonl` grows batch by batch; after an interruption it is cut back to whole batches, as
//! random numbers are drawn by the batch, and continues from there.

use crate::Result;
use crate::comm::Communicator;
use crate::data::{MANIFEST, dataset_names};
use crate::io::files;
use crate::io::json::named_differences;
use crate::io::lock::LockFile;
use crate::io::output_dir::{self, UNFINISHED};
use crate::sampling::{ResponseLog, SamplePlan, SamplingKey, ScoredResponse};
use crate::tasks::Task;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

const INFO: &str = "rollout.json";
const SAMPLES: &str = "samples.jsonl";
/// The responses of a server as they come, so that none is paid for twice.
pub(super) const API_CACHE: &str = "api-cache.jsonl";

/// The files beside the dataset.
pub(super) const SIDE_FILES: [&str; 3] = [INFO, SAMPLES, API_CACHE];

/// What the samples in a directory come from: `rollout.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutInfo {
    /// Everything that decides the samples and their scores.
    pub key: SamplingKey,
    /// Who answered, for people: a checkpoint directory, `scripted`, or a model and its address.
    pub teacher: String,
    /// The dataset that the prompts are from.
    pub data: PathBuf,
    /// The split of it; empty for a file.
    pub split: String,
}

/// An open output directory. It is locked, so that no other process samples into it. Of several ranks, rank 0 alone reads and writes.
#[derive(Debug)]
pub(super) struct RolloutDir {
    dir: PathBuf,
    pub about: RolloutInfo,
    _lock: Option<LockFile>,
}

impl RolloutDir {
    /// Open `dir` for these samples, making it if need be. With `fresh`, what an earlier rollout left there is removed.
    ///
    /// # Errors
    /// An input error if the directory holds something else, or if another process samples into it; for other samples it names what
    /// differs.
    pub fn open(dir: &Path, about: RolloutInfo, fresh: bool, comm: &dyn Communicator) -> Result<RolloutDir> {
        let lock = comm.root_alone(|| RolloutDir::prepare(dir, &about, fresh))?;
        Ok(RolloutDir { dir: dir.to_path_buf(), about, _lock: lock })
    }

    /// Lock the directory and see that it belongs to this rollout.
    fn prepare(dir: &Path, about: &RolloutInfo, fresh: bool) -> Result<LockFile> {
        let path = dir.join(INFO);
        let begun = || {
            let holds_some = |name: &&str| fs::metadata(dir.join(name)).is_ok_and(|file| file.len() > 0);
            // A directory without a single sample may be used for another rollout.
            SIDE_FILES[1..].iter().any(holds_some) || files::has_other_files(dir, |name| SIDE_FILES.contains(&name))
        };
        let own =
            |name: &str| SIDE_FILES.contains(&name) && fs::metadata(dir.join(name)).is_ok_and(|file| file.len() == 0);
        let content = output_dir::Growing { what: "rollout", doing: "sampling", mark: Some(INFO), own: &own };
        let lock = output_dir::open(dir, &content)?;
        if fresh && path.exists() {
            remove(dir)?;
        }
        if dir.join(MANIFEST).exists() {
            // Killed after the manifest was written.
            files::remove_if_exists(&dir.join(UNFINISHED))?;
        }
        if !begun() {
            files::write_json(&path, about)?;
            return Ok(lock);
        }
        let Some(found) = output_dir::read_key::<RolloutInfo>(&path, content.what, true)? else { return Ok(lock) };
        let mut differences = named_differences(&found.key, &about.key);
        if found.split != about.split {
            differences.push(format!("split: {} -> {}", found.split, about.split));
        }
        if differences.is_empty() {
            return Ok(lock);
        }
        let paid = match dir.join(API_CACHE).exists() {
            true => format!(", which removes {API_CACHE} too: the responses in it would be asked and paid for again"),
            false => String::new(),
        };
        Err(output_dir::holds_another(dir, content.what, &differences, "", &paid))
    }

    /// The log of responses and those already in it, cut back to where the rollout can continue.
    ///
    /// # Errors
    /// An input error for responses that are not this task's.
    pub fn resume(
        &self,
        task: &dyn Task,
        plan: &SamplePlan,
        comm: &dyn Communicator,
    ) -> Result<(ResponseLog, Vec<ScoredResponse>)> {
        ResponseLog::resume(&self.dir.join(SAMPLES), task, plan, self.about.key.batch_size, comm)
    }
}

/// Remove what a rollout writes: the manifest first, so that the dataset does not look complete, and `rollout.json` last.
fn remove(dir: &Path) -> Result<()> {
    output_dir::mark_unfinished(dir)?;
    let dataset = dataset_names(dir)?;
    let dataset = dataset.iter().map(String::as_str).filter(|name| *name != MANIFEST);
    let names = std::iter::once(MANIFEST).chain(dataset).chain([UNFINISHED]).chain(SIDE_FILES.into_iter().rev());
    names.into_iter().try_for_each(|name| files::remove_if_exists(&dir.join(name)))
}
