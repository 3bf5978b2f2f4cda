//! The run directory: what was asked for, with what, and how far it has come.
//!
//! ```text
//! config.toml     every setting, resolved
//! run.json        command, versions, model and data with their hashes, seed
//! metrics.jsonl   one line a step and evaluation        events.out.tfevents.*   the same for TensorBoard
//! samples.jsonl   responses
//! best.json       with train.save_best: the best checkpoint so far
//! checkpoints/    step-*: model directories that a run resumes from
//! model/          the trained model, when the run is finished        finished.json   written last
//! ```

use super::checkpoint::{self, Checkpoint};
use super::metrics::METRICS;
use super::schedule::learning_rate;
use super::state::BestEvaluation;
use crate::comm::Communicator;
use crate::io::json::differences;
use crate::io::lock::LockFile;
use crate::io::plain::toml_fault;
use crate::io::toml::to_table;
use crate::io::{files, output_dir};
use crate::stats::Interval;
use crate::train::settings::TrainConfig;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Written when a run is done.
pub const FINISHED_JSON: &str = "finished.json";

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
    /// How the run was lengthened ([`RunDir::lengthen`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lengthened: Vec<Lengthened>,
}

/// Settings that a run was given after it had begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lengthened {
    /// The steps that were made with the earlier ones.
    pub after: usize,
    /// Each as `name: before -> after`.
    pub settings: Vec<String>,
}

/// `finished.json`: written when a run is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Optimizer steps made.
    pub step: usize,
    /// The last evaluation's numbers, or the last step's, by name.
    pub metrics: serde_json::Map<String, serde_json::Value>,
    /// What became of `train.stop_when`; none where none was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub criterion: Option<CriterionResult>,
    /// With `train.save_best`: the best checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<BestCheckpoint>,
    /// The loss that ended the run by `train.stop_when_forgotten`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<Forgotten>,
}

/// How a run ended that had a criterion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CriterionResult {
    /// The criterion.
    pub stop_when: String,
    /// It was met; otherwise the run made all its steps, or was ended by a loss of prior knowledge.
    pub met: bool,
}

/// The checkpoint that was best at an evaluation: `best.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BestCheckpoint {
    /// Its directory, in the run directory.
    pub checkpoint: String,
    /// The evaluation.
    #[serde(flatten)]
    pub evaluation: BestEvaluation,
}

/// A loss of prior knowledge that ended a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Change of the score on `eval.prior`, with its paired 95 % interval.
    pub change: Interval,
    /// The last checkpoint that was evaluated before, in the run directory; none if that was the model that the run started from.
    pub checkpoint_before: Option<String>,
}

impl Forgotten {
    /// In words.
    pub fn describe(&self) -> String {
        let Interval { value, low, high } = self.change;
        let before = self.checkpoint_before.as_deref().unwrap_or("the model that the run started from");
        format!(
            "prior knowledge has changed by {:.1} points (95 % interval {:.1} to {:.1}); before that: {before}",
            100.0 * value,
            100.0 * low,
            100.0 * high
        )
    }
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
        let finished = dir.join(FINISHED_JSON);
        if finished.exists() {
            return Ok(Found::Finished(files::read_json(&finished)?));
        }
        files::create_dir(&checkpoints)?;
        let (mut newest, damaged) = Checkpoint::latest(&checkpoints)?;
        if let Some(newest) = &mut newest {
            newest.prune_older(config.train.save_total_limit)?;
            let manifest: RunManifest = files::read_json(&identity_file)?;
            if manifest.lengthened.last().is_some_and(|last| last.after == newest.state.step) {
                newest.state.reset_decisions();
            }
        }
        Ok(Found::Unfinished(newest, damaged))
    }

    /// Give the run in `dir` more steps, or other criteria that end it, and have it go on from its last checkpoint when it is opened next: with
    /// its weights, optimizer and random streams. Returns a note if the steps that are made had other learning rates than a run of the new
    /// length has.
    ///
    /// # Errors
    /// An input error, which leaves the run as it is: another process is training there; there is no run, or no whole checkpoint of its last
    /// step; settings differ that cannot be changed on the way; or the run would end where it is.
    pub fn lengthen(dir: &Path, config: &TrainConfig, identity: &RunManifest) -> Result<Option<String>> {
        let refused = |why: String| Error::input(format!("{}: {why}", dir.display()));
        if !has_begun(dir) {
            return Err(refused("no run that has begun; start it with --model, --data and --out".into()));
        }
        let _lock = output_dir::lock(dir, "training")?;
        let (changed, other): (Vec<_>, Vec<_>) = differences_from(dir, config, identity)?
            .into_iter()
            .partition(|(name, _)| CHANGEABLE.contains(&name.as_str()));
        if !other.is_empty() {
            return Err(other_settings(dir, &other));
        }
        if changed.is_empty() {
            return Ok(None);
        }
        let finished = dir.join(FINISHED_JSON);
        let summary: Option<RunSummary> = finished.exists().then(|| files::read_json(&finished)).transpose()?;
        let Some(newest) = Checkpoint::latest(&dir.join("checkpoints"))?.0 else {
            return Err(refused("there is no whole checkpoint to go on from".into()));
        };
        let step = newest.state.step;
        if let Some(end) = summary.as_ref().map(|summary| summary.step).filter(|&end| end != step) {
            return Err(refused(format!(
                "the checkpoint of its last step, {end}, is gone or damaged; that of {step} is older"
            )));
        }
        let total = config.total_steps(identity.examples);
        if total <= step {
            return Err(refused(format!(
                "{step} steps are made already, and train.steps or train.epochs ask for {total}; ask for more"
            )));
        }
        let unchanged = |names: &[&str]| !changed.iter().any(|(name, _)| names.contains(&name.as_str()));
        if let Some(met) =
            summary.as_ref().and_then(|summary| summary.criterion.as_ref()).filter(|criterion| criterion.met)
            && unchanged(&["train.stop_when", "train.stop_patience"])
        {
            return Err(refused(format!(
                "the run ended because {} was met; change train.stop_when too (\"\" for never)",
                met.stop_when
            )));
        }
        if summary.as_ref().is_some_and(|summary| summary.forgotten.is_some())
            && unchanged(&["train.stop_when_forgotten"])
        {
            return Err(refused("prior knowledge was lost; raise train.stop_when_forgotten too".into()));
        }
        let before = TrainConfig::deserialize(read_config(dir)?).map_err(|e| refused(format!("config.toml: {e}")))?;
        let note = schedule_note(&before, config, identity.examples, step);
        let mut manifest: RunManifest = files::read_json(&dir.join("run.json"))?;
        let settings = changed.into_iter().map(|(name, change)| format!("{name}: {change}")).collect();
        let lengthened = Lengthened { after: step, settings };
        if manifest.lengthened.last() != Some(&lengthened) {
            manifest.lengthened.push(lengthened);
            files::write_json(&dir.join("run.json"), &manifest)?;
        }
        // A kill between these leaves the run as it was: not finished, to be lengthened or finished by the next call.
        files::remove_if_exists(&finished)?;
        files::write_atomic(&dir.join("config.toml"), config.to_toml()?.as_bytes())?;
        Ok(note)
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

    /// Name the best checkpoint so far.
    pub fn name_best(&self, best: &BestCheckpoint) -> Result<()> {
        files::write_json(&self.dir.join("best.json"), best)
    }

    /// Mark the run as done.
    pub fn finish(&self, finished: &RunSummary) -> Result<()> {
        finished.best.as_ref().map_or(Ok(()), |best| self.name_best(best))?;
        files::write_json(&self.dir.join(FINISHED_JSON), finished)
    }
}

/// Whether anything has been trained or measured. A run that was refused at its start has not begun, and may be given other settings.
fn has_begun(dir: &Path) -> bool {
    dir.join(FINISHED_JSON).exists() || std::fs::metadata(dir.join(METRICS)).is_ok_and(|m| m.len() > 0)
}

/// The settings that [`RunDir::lengthen`] changes.
const CHANGEABLE: [&str; 5] =
    ["train.steps", "train.epochs", "train.stop_when", "train.stop_patience", "train.stop_when_forgotten"];

/// Settings that say where a server is, which may move between two calls: what it samples follows from the others.
const MOVABLE: [&str; 4] =
    ["rollout.server", "rollout.adapter_dir", "rollout.adapter_dir_on_server", "rollout.server_timeout"];

fn same_run(dir: &Path, config: &TrainConfig, identity: &RunManifest) -> Result<()> {
    match differences_from(dir, config, identity)? {
        differing if differing.is_empty() => Ok(()),
        differing => Err(other_settings(dir, &differing)),
    }
}

fn read_config(dir: &Path) -> Result<toml::Table> {
    let place = dir.join("config.toml");
    files::read_text(&place)?.parse().map_err(|e| Error::input(format!("{}: {}", place.display(), toml_fault(&e))))
}

/// How settings, model and data differ from those of the run in `dir`: what, and how.
fn differences_from(dir: &Path, config: &TrainConfig, identity: &RunManifest) -> Result<Vec<(String, String)>> {
    let before = read_config(dir)?;
    // A run of an earlier version, which did not know a setting, has its default.
    let before = match before.clone().try_into::<TrainConfig>() {
        Ok(config) => to_table(&config)?,
        Err(_) => before,
    };
    let now = to_table(config)?;
    let mut differing = differences(&before, &now);
    let has_server =
        |config: &toml::Table| config.get("rollout").is_some_and(|rollout| rollout.get("server").is_some());
    if has_server(&before) && has_server(&now) {
        differing.retain(|(name, _)| !MOVABLE.contains(&name.as_str()));
    }
    let old: RunManifest = files::read_json(&dir.join("run.json"))?;
    for (what, before, now, path) in [
        ("model", &old.model_hash, &identity.model_hash, &old.model),
        ("data", &old.data_hash, &identity.data_hash, &old.data),
    ] {
        if before != now {
            differing.push((what.into(), format!("its content differs from what the run began with ({path})")));
        }
    }
    if let (Some(before), Some(now)) = (&old.prompt_hash, &identity.prompt_hash)
        && before != now
    {
        differing.push((
            "model".into(),
            format!(
                "its tokenizer, chat template, image or generation settings differ from those that the run began with ({})",
                old.model
            ),
        ));
    }
    Ok(differing)
}

fn other_settings(dir: &Path, differing: &[(String, String)]) -> Error {
    let dir = dir.display();
    let lengthen = match differing.iter().all(|(name, _)| CHANGEABLE.contains(&name.as_str())) {
        true => format!(", or give the run more steps (jigsaw train --resume {dir} --set train.steps=N)"),
        false => String::new(),
    };
    let differing: Vec<String> = differing.iter().map(|(name, change)| format!("{name}: {change}")).collect();
    Error::input(format!(
        "{dir} holds a run with other settings; give the same ones to resume it, or another --out{lengthen}:\n  {}",
        differing.join("\n  ")
    ))
}

/// What is to be said if the first `step` steps had other learning rates than a run of the new length has there.
fn schedule_note(before: &TrainConfig, now: &TrainConfig, examples: usize, step: usize) -> Option<String> {
    let (old, new) = (before.total_steps(examples), now.total_steps(examples));
    let rate = |step: usize, total: usize| learning_rate(&now.train, step, total);
    (0..step).find(|&made| rate(made, old) != rate(made, new))?;
    Some(format!(
        "the {step} steps so far had the learning rates of a run of {old} steps, the last {:e}; from here on they are those of a run of {new} \
         steps, the next {:e}. The end differs from that of a run that had {new} steps from the start",
        rate(step.saturating_sub(1), old),
        rate(step, new)
    ))
}
