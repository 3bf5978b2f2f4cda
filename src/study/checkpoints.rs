//! Which intermediate checkpoints of a run are evaluated besides its final model.

use super::study_file::ResolveConfig;
use crate::io::files;
use crate::train::metrics::{METRICS, read_lines};
use crate::train::run_dir::FINISHED_JSON;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Checkpoints of a run: at most `most`, without the one that is the final model, and without those that the run saved only because it was
/// stopped there. They are evenly spread over the accuracy on validation examples from the run's start to its end, where all of them were
/// evaluated during training; else over the steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointChoice {
    /// The run directory.
    pub run: PathBuf,
    /// How many, at most.
    pub most: usize,
}

impl CheckpointChoice {
    /// How they are shown before the run is there.
    pub fn pattern(&self) -> PathBuf {
        self.run.join("checkpoints/*")
    }

    /// Their directories, now that the run is finished. `resolve` reads the settings of the run.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn find(&self, resolve: ResolveConfig) -> Result<Vec<PathBuf>> {
        let (dir, most) = (&self.run, self.most);
        let finished: Option<serde_json::Value> = files::read_json(&dir.join(FINISHED_JSON)).ok();
        let ended = |path: &str| finished.as_ref().and_then(|finished| finished.pointer(path)?.as_u64());
        let (last, best) = (ended("/step"), ended("/best/step"));
        let places = dir.join("checkpoints");
        let entries =
            std::fs::read_dir(&places).map_err(|e| Error::failed(format!("cannot read {}: {e}", places.display())))?;
        let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<u64>().ok();
        let mut found: Vec<(u64, PathBuf)> =
            entries.flatten().map(|entry| entry.path()).filter_map(|path| Some((step(&path)?, path))).collect();
        let config = resolve(None, Some(&dir.join("config.toml")), &[]).ok();
        // A run saves after the round in which a multiple is reached, as it does without having been stopped.
        let due = |step: u64| match &config {
            Some(config) if config.train.save_steps > 0 => {
                let (every, round) = (config.train.save_steps as u64, config.steps_per_round() as u64);
                step / every > step.saturating_sub(round) / every
            }
            _ => true,
        };
        found.retain(|(step, _)| Some(*step) != last && *step > 0 && (due(*step) || best == Some(*step)));
        found.sort();
        let n = found.len();
        let accuracies = accuracies(dir)?;
        let of = |step: u64| accuracies.get(&step).copied();
        let all: Option<Vec<f64>> = found.iter().map(|(step, _)| of(*step)).collect();
        let chosen = match (all, of(0), last.and_then(of)) {
            _ if most >= n => (0..n).collect(),
            (Some(all), Some(first), Some(last)) => spread(&all, first, last, most),
            // The middles of as many equal parts.
            _ => (0..most).map(|i| (2 * i + 1) * n / (2 * most)).collect(),
        };
        Ok(chosen.into_iter().map(|i| found[i].1.clone()).collect())
    }
}

/// Accuracy on validation examples by step, as far as a run has measured it.
fn accuracies(dir: &Path) -> Result<BTreeMap<u64, f64>> {
    let lines = read_lines(&dir.join(METRICS))?;
    let of = |line: &Map<String, Value>| Some((line.get("step")?.as_u64()?, line.get("eval/accuracy")?.as_f64()?));
    Ok(lines.iter().filter_map(of).collect())
}

/// Indices of `most` of these values, in order: those that lie nearest to equal parts of the way from `first` to `last`.
fn spread(values: &[f64], first: f64, last: f64, most: usize) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::new();
    for part in 1..=most {
        let wanted = first + (last - first) * part as f64 / (most + 1) as f64;
        let distance = |i: &usize| (values[*i] - wanted).abs();
        let left = (0..values.len()).filter(|i| !chosen.contains(i));
        chosen.extend(left.min_by(|a, b| distance(a).total_cmp(&distance(b))));
    }
    chosen.sort_unstable();
    chosen
}
