//! Which intermediate checkpoints of a run are evaluated besides its final model.

use super::study_file::ResolveConfig;
use crate::io::files;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// Checkpoints of a run: at most `most`, evenly spread, without the one that is the final model, and without those that the run saved
/// only because it was stopped there.
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
        let finished: Option<serde_json::Value> = files::read_json(&dir.join("finished.json")).ok();
        let last = finished.and_then(|finished| finished.get("step")?.as_u64());
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
        found.retain(|(step, _)| Some(*step) != last && *step > 0 && due(*step));
        found.sort();
        let n = found.len();
        let chosen = match most >= n {
            true => (0..n).collect::<Vec<_>>(),
            // The middles of as many equal parts.
            false => (0..most).map(|i| (2 * i + 1) * n / (2 * most)).collect(),
        };
        Ok(chosen.into_iter().map(|i| found[i].1.clone()).collect())
    }
}
