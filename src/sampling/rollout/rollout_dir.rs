//! The output directory of a rollout: its key, and every response with its score as it comes.
//!
//! `rollout.json` is written first. `samples.jsonl` grows batch by batch; after an interruption it is cut back to whole batches, as
//! random numbers are drawn by the batch, and continues from there.

use crate::io::files;
use crate::sampling::{ResponseLog, SamplePlan, SamplingKey, ScoredResponse};
use crate::tasks::Task;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
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

/// An open output directory. It is locked, so that no other process samples into it.
#[derive(Debug)]
pub(super) struct RolloutDir {
    dir: PathBuf,
    pub about: RolloutInfo,
    _lock: File,
}

impl RolloutDir {
    /// Open `dir` for these samples, making it if need be. With `fresh`, what an earlier rollout left there is removed.
    ///
    /// # Errors
    /// An input error if the directory holds something else, or if another process samples into it; for other samples it names what
    /// differs.
    pub fn open(dir: &Path, about: RolloutInfo, fresh: bool) -> Result<RolloutDir> {
        files::create_dir(dir)?;
        let path = dir.join(INFO);
        let here = dir.display();
        let begun = || {
            let holds_some = |name: &&str| fs::metadata(dir.join(name)).is_ok_and(|file| file.len() > 0);
            // A directory without a single sample may be used for another rollout.
            SIDE_FILES[1..].iter().any(holds_some) || files::has_other_files(dir, |name| SIDE_FILES.contains(&name))
        };
        let foreign = || Error::input(format!("{here} is not empty and holds no rollout; give another --out"));
        // Before the lock, which would leave a file in a directory of something else.
        if !path.exists() && begun() {
            return Err(foreign());
        }
        let lock = files::lock(dir, "sampling")?;
        if path.exists() && fresh {
            remove(dir)?;
        }
        let begun = begun();
        if !path.exists() && begun {
            return Err(foreign());
        }
        if begun {
            let found: RolloutInfo = files::read_json(&path)?;
            let mut differences = found.key.differences(&about.key);
            if found.split != about.split {
                differences.push(("split".into(), format!("{} -> {}", found.split, about.split)));
            }
            if !differences.is_empty() {
                let parts: Vec<String> = differences.iter().map(|(name, change)| format!("{name}: {change}")).collect();
                let paid = match dir.join(API_CACHE).exists() {
                    true => {
                        format!(
                            ", which removes {API_CACHE} too: the responses in it would be asked and paid for again"
                        )
                    }
                    false => String::new(),
                };
                return Err(Error::input(format!(
                    "{here} holds another rollout ({}); give another --out, or --fresh to start over{paid}",
                    parts.join("; ")
                )));
            }
        } else {
            files::write_json(&path, &about)?;
        }
        Ok(RolloutDir { dir: dir.to_path_buf(), about, _lock: lock })
    }

    /// The log of responses and those already in it, cut back to where the rollout can continue.
    ///
    /// # Errors
    /// An input error for responses that are not this task's.
    pub fn resume(&self, task: &dyn Task, plan: &SamplePlan) -> Result<(ResponseLog, Vec<ScoredResponse>)> {
        let batch = self.about.key.batch_size.unwrap_or(1);
        ResponseLog::resume(&self.dir.join(SAMPLES), task, plan.examples(task), plan.num_generations, batch)
    }
}

/// Remove what a rollout writes: the manifest first, so that the dataset does not look complete, and `rollout.json` last.
fn remove(dir: &Path) -> Result<()> {
    let splits = ["train", "validation", "test"];
    for name in [crate::data::MANIFEST].iter().chain(&splits).chain(SIDE_FILES.iter().rev()) {
        files::remove_if_exists(&dir.join(name))?;
    }
    Ok(())
}
