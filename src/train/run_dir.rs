//! The run directory: what was asked for, with what, and how far it has come.
//!
//! ```text
//! config.toml     every setting, resolved
//! run.json        command, versions, model and data with their hashes, seed
//! metrics.jsonl   one line a step and evaluation        events.out.tfevents.*   the same for TensorBoard
//! samples.jsonl   responses
//! checkpoints/    step-*: model directories that a run resumes from
//! model/          the trained model, when the run is finished        finished.json   written last
//! ```

use super::checkpoint::{self, Checkpoint};
use super::metrics::METRICS;
use crate::comm::Communicator;
use crate::io::json::named_differences;
use crate::io::lock::LockFile;
use crate::io::{files, output_dir};
use crate::train::settings::TrainConfig;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a run is made of besides its settings: `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunManifest {
    /// Version of this program.
    pub jigsaw: String,
    /// The command line.
    pub command: Vec<String>,
    /// Model directory as given.
    pub model: String,
    /// Hash of the model's configuration and weights.
    pub model_hash: String,
    /// Hash of its tokenizer, chat template, image and generation settings; earlier versions did not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_hash: Option<String>,
    /// Dataset directory as given.
    pub data: String,
    /// Hash of the dataset's content.
    pub data_hash: String,
    /// Training examples.
    pub examples: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// Operating system and architecture.
    pub platform: String,
    /// Seconds since 1970 when the run was first started.
    pub started: u64,
}

/// Written when a run is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Optimizer steps made.
    pub step: usize,
    /// The last evaluation's numbers, or the last step's, by name.
    pub metrics: serde_json::Map<String, serde_json::Value>,
}

/// An open run directory. Held open by one process at a time.
pub struct RunDir {
    dir: PathBuf,
    damaged: Vec<PathBuf>,
    /// Held by rank 0.
    _lock: Option<LockFile>,
}

/// How far the run in a directory has come.
pub enum ResumeState {
    /// Nothing has been trained yet.
    Fresh(RunDir),
    /// There is a checkpoint to resume from.
    Resumed(RunDir, Checkpoint),
    /// It is done.
    Finished(RunSummary),
}

/// What rank 0 found in a run directory: a finished run, or the newest checkpoint, if there is one, and the damaged newer ones.
#[derive(Serialize, Deserialize)]
enum Found {
    Finished(RunSummary),
    Unfinished(Option<Checkpoint>, Vec<PathBuf>),
}

impl RunDir {
    /// Open or start the run in `dir`.
    ///
    /// # Errors
    /// Another process is training there; the directory holds something else; or it holds a run with other settings,
    /// another model or other data: every difference is named.
    pub fn open(
        dir: &Path,
        config: &TrainConfig,
        identity: &RunManifest,
        comm: &dyn Communicator,
    ) -> Result<ResumeState> {
        let mut lock = None;
        let found = comm.on_root(|| RunDir::prepare(dir, config, identity, &mut lock))?;
        let run = |damaged| RunDir { dir: dir.to_path_buf(), damaged, _lock: lock };
        Ok(match found {
            Found::Finished(summary) => ResumeState::Finished(summary),
            Found::Unfinished(Some(checkpoint), damaged) => ResumeState::Resumed(run(damaged), checkpoint),
            Found::Unfinished(None, damaged) => ResumeState::Fresh(run(damaged)),
        })
    }

    /// Lock the directory, see that it belongs to this run, and look how far the run has come.
    fn prepare(dir: &Path, config: &TrainConfig, identity: &RunManifest, lock: &mut Option<LockFile>) -> Result<Found> {
        let (config_file, identity_file) = (dir.join("config.toml"), dir.join("run.json"));
        let content =
            output_dir::Growing { what: "run", doing: "training", mark: Some("config.toml"), own: &|_| false };
        *lock = Some(output_dir::open(dir, &content)?);
        if identity_file.exists() && has_begun(dir) {
            same_run(dir, config, identity)?;
        } else {
            files::write_atomic(&config_file, config.to_toml()?.as_bytes())?;
            files::write_json(&identity_file, identity)?;
        }
        // What an interrupted call has left behind.
        let checkpoints = dir.join("checkpoints");
        checkpoint::clean(dir)?;
        checkpoint::clean(&checkpoints)?;
        let finished = dir.join("finished.json");
        if finished.exists() {
            return Ok(Found::Finished(files::read_json(&finished)?));
        }
        files::create_dir(&checkpoints)?;
        let (newest, damaged) = Checkpoint::latest(&checkpoints)?;
        if let Some(newest) = &newest {
            newest.prune_older(config.train.save_total_limit)?;
        }
        Ok(Found::Unfinished(newest, damaged))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Checkpoints that are newer than the one to resume from, but incomplete or damaged.
    pub fn damaged(&self) -> &[PathBuf] {
        &self.damaged
    }

    /// Where checkpoints go.
    pub fn checkpoints(&self) -> PathBuf {
        self.dir.join("checkpoints")
    }

    /// Where the trained model goes.
    pub fn model(&self) -> PathBuf {
        self.dir.join("model")
    }

    /// Mark the run as done.
    pub fn finish(&self, finished: &RunSummary) -> Result<()> {
        files::write_json(&self.dir.join("finished.json"), finished)
    }
}

/// Whether anything has been trained or measured. A run that was refused at its start has not begun, and may be given other settings.
fn has_begun(dir: &Path) -> bool {
    dir.join("finished.json").exists() || std::fs::metadata(dir.join(METRICS)).is_ok_and(|m| m.len() > 0)
}

fn same_run(dir: &Path, config: &TrainConfig, identity: &RunManifest) -> Result<()> {
    let read = |text: &str| {
        text.parse::<toml::Table>().map_err(|e| Error::input(format!("{}/config.toml: {e}", dir.display())))
    };
    let before = read(&files::read_text(&dir.join("config.toml"))?)?;
    // A run of an earlier version, which did not know a setting, has its default.
    let before = match before.clone().try_into::<TrainConfig>() {
        Ok(config) => read(&config.to_toml()?)?,
        Err(_) => before,
    };
    let mut differing = named_differences(&before, &read(&config.to_toml()?)?);
    let old: RunManifest = files::read_json(&dir.join("run.json"))?;
    for (what, before, now, path) in [
        ("model", &old.model_hash, &identity.model_hash, &old.model),
        ("data", &old.data_hash, &identity.data_hash, &old.data),
    ] {
        if before != now {
            differing.push(format!("{what}: its content differs from what the run began with ({path})"));
        }
    }
    if let (Some(before), Some(now)) = (&old.prompt_hash, &identity.prompt_hash)
        && before != now
    {
        differing.push(format!(
            "model: its tokenizer, chat template, image or generation settings differ from those that the run began with ({})",
            old.model
        ));
    }
    if differing.is_empty() {
        return Ok(());
    }
    Err(Error::input(format!(
        "{} holds a run with other settings; give the same ones to resume it, or another --out:\n  {}",
        dir.display(),
        differing.join("\n  ")
    )))
}
