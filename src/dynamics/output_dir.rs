//! The output directory of a measurement, whose settings are checked before anything is measured.
//!
//! ```text
//! OUT/dynamics.key.json   settings, models and data, written first
//! OUT/samples.jsonl       the samples, with their responses and log-probabilities under the base
//! OUT/pairs.jsonl         the pairs, a line each
//! OUT/on-policy.jsonl     the checkpoints' own responses, if they are asked for, with their log-probabilities under the base
//! OUT/dynamics.csv        the whole result as one table, a number in each row
//! OUT/dynamics.md         the tables
//! OUT/dynamics.json       the whole result, written last
//! ```

use super::influence::InfluenceConfig;
use super::pairing::Pair;
use crate::Result;
use crate::comm::Communicator;
use crate::forgetting::ModelRef;
use crate::io::json::named_differences;
use crate::io::lock::LockFile;
use crate::io::output_dir::{self, Growing};
use crate::io::{files, jsonl};
use crate::tasks::benchmarks::Protocol;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Raised whenever the same inputs would give other numbers.
const VERSION: u32 = 3;

/// The whole result, for programs.
pub const DYNAMICS_JSON: &str = "dynamics.json";
/// The whole result as one table, a number in each row.
pub const DYNAMICS_CSV: &str = "dynamics.csv";
/// The tables, for reading.
pub const DYNAMICS_MD: &str = "dynamics.md";
/// A line for each pair.
pub const PAIRS: &str = "pairs.jsonl";
/// A line for each sample.
pub const SAMPLES: &str = "samples.jsonl";
/// A line for each response that a checkpoint sampled.
pub const ON_POLICY: &str = "on-policy.jsonl";
const KEY: &str = "dynamics.key.json";

/// What decides the samples of a set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleSetKey {
    /// Hash of the examples used.
    pub data: String,
    /// Examples used.
    pub samples: usize,
    /// How the examples are put to the model.
    pub protocol: Protocol,
    /// Token limit of the base's greedy answers.
    pub max_new_tokens: usize,
}

/// Everything that decides the numbers, except the checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasurementKey {
    /// Version of this program and of the measurement.
    pub code: String,
    /// The settings.
    pub config: InfluenceConfig,
    /// Hash of the base's weights.
    pub base: String,
    /// Hash of tokenizer, chat template and image settings.
    pub prompt: String,
    /// Names of the sets, in order.
    pub order: Vec<String>,
    /// Training data, by name.
    pub train: BTreeMap<String, SampleSetKey>,
    /// Prior knowledge, by name.
    pub prior: BTreeMap<String, SampleSetKey>,
}

impl MeasurementKey {
    /// Version of this program and of the measurement.
    pub fn code() -> String {
        format!("{} dynamics {VERSION}", env!("CARGO_PKG_VERSION"))
    }
}

/// `dynamics.key.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct KeyFile {
    key: MeasurementKey,
    checkpoints: Vec<ModelRef>,
}

/// The pairs that were measured into the output directory `dir`, in order.
///
/// # Errors
/// An input error that names the file and the line that is not a pair.
pub fn read_pairs(dir: &Path) -> Result<Vec<Pair>> {
    jsonl::read(&dir.join(PAIRS))
}

/// The directory of one measurement. Of several ranks, rank 0 alone reads and writes there; no other process does.
#[derive(Debug)]
pub struct DynamicsDir {
    path: PathBuf,
    _lock: Option<LockFile>,
}

impl DynamicsDir {
    /// Open or create `path` for the measurement `key` of `checkpoints`. An earlier measurement there may have fewer checkpoints, the first of
    /// these. With `fresh`, the results of an earlier measurement are removed first.
    ///
    /// # Errors
    /// An input error if the directory holds something else, or another process has it; it names what differs.
    pub fn open(
        path: &Path,
        key: MeasurementKey,
        checkpoints: &[ModelRef],
        fresh: bool,
        comm: &dyn Communicator,
    ) -> Result<DynamicsDir> {
        let lock = comm.root_alone(|| DynamicsDir::prepare(path, key, checkpoints, fresh))?;
        Ok(DynamicsDir { path: path.to_path_buf(), _lock: lock })
    }

    /// Lock the directory and see that it belongs to this measurement.
    fn prepare(path: &Path, key: MeasurementKey, checkpoints: &[ModelRef], fresh: bool) -> Result<LockFile> {
        let own = [DYNAMICS_JSON, DYNAMICS_CSV, DYNAMICS_MD, PAIRS, SAMPLES, ON_POLICY, KEY];
        let what = "measurement of learning dynamics";
        let is_own = |name: &str| own.contains(&name);
        let content = Growing { what, doing: "measuring learning dynamics", mark: Some(KEY), own: &is_own };
        let lock = output_dir::open(path, &content)?;
        if fresh {
            // Remove the result first, so that an interrupted removal never looks finished.
            own.iter().try_for_each(|name| files::remove_if_exists(&path.join(name)))?;
        }
        let about = KeyFile { key, checkpoints: checkpoints.to_vec() };
        let key_path = path.join(KEY);
        let begun = own.iter().any(|name| path.join(name).exists());
        let Some(found) = output_dir::read_key::<KeyFile>(&key_path, what, begun)? else {
            files::write_json(&key_path, &about)?;
            return Ok(lock);
        };
        let mut parts = named_differences(&found.key, &about.key);
        let differ = found.checkpoints.iter().zip(checkpoints).find(|(a, b)| a.hash != b.hash);
        if let Some((there, here)) = differ {
            parts.push(format!("checkpoints: {} -> {}", there.dir, here.dir));
        } else if found.checkpoints.len() > checkpoints.len() {
            parts.push(format!("checkpoints: {} -> {}", found.checkpoints.len(), checkpoints.len()));
        }
        if !parts.is_empty() {
            return Err(output_dir::holds_another(path, what, &parts, "", ""));
        }
        if found.checkpoints.len() < checkpoints.len() {
            files::remove_if_exists(&path.join(DYNAMICS_JSON))?;
            files::write_json(&key_path, &about)?;
        }
        Ok(lock)
    }

    /// Path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Single;
    use crate::tasks::benchmarks::Pixels;

    fn key(eta: f64, data: &str) -> MeasurementKey {
        let protocol = Protocol::of_dataset("jigsaw", Some(Pixels { min: 784, max: 784, factor: 28 }));
        let set = SampleSetKey { data: data.repeat(64), samples: 4, protocol, max_new_tokens: 8 };
        let config = InfluenceConfig { eta: Some(eta), pairs: 8, ..InfluenceConfig::default() };
        MeasurementKey {
            code: MeasurementKey::code(),
            config,
            base: "b".repeat(64),
            prompt: "p".repeat(64),
            order: vec!["sft".into(), "vqa".into()],
            train: [("sft".to_string(), set.clone())].into(),
            prior: [("vqa".to_string(), set)].into(),
        }
    }

    fn models(names: &[&str]) -> Vec<ModelRef> {
        let model =
            |name: &&str| ModelRef { name: name.to_string(), dir: format!("/{name}"), hash: name.repeat(8), run: None };
        names.iter().map(model).collect()
    }

    #[test]
    fn the_same_measurement_goes_on_and_takes_more_checkpoints_and_another_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let open = |key: MeasurementKey, names: &[&str], fresh: bool| {
            DynamicsDir::open(dir.path(), key, &models(names), fresh, &Single)
        };
        let opened = open(key(0.1, "d"), &["a"], false).unwrap();
        let result = opened.file(DYNAMICS_JSON);
        std::fs::write(&result, "{}").unwrap();
        let error = open(key(0.1, "d"), &["a"], false).unwrap_err();
        assert!(error.to_string().contains("another process is measuring"), "{error}");
        drop(opened);
        open(key(0.1, "d"), &["a"], false).unwrap();
        assert!(result.exists());
        open(key(0.1, "d"), &["a", "b"], false).unwrap();
        assert!(!result.exists(), "no longer the result of all checkpoints");
        for (key, names, said) in [
            (key(0.2, "d"), &["a", "b"][..], "config.eta: 0.1 -> 0.2"),
            (key(0.1, "e"), &["a", "b"], "train.sft.data"),
            (key(0.1, "d"), &["b", "a"], "checkpoints: /a -> /b"),
            (key(0.1, "d"), &["a"], "checkpoints: 2 -> 1"),
        ] {
            let error = open(key, names, false).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(said), "{said}: {error}");
            assert!(error.to_string().contains("--fresh"), "{error}");
        }
        open(key(0.2, "d"), &["b"], true).unwrap();
        open(key(0.2, "d"), &["b"], false).unwrap();
    }

    #[test]
    fn a_directory_of_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("holiday.txt"), "").unwrap();
        let error = DynamicsDir::open(dir.path(), key(0.1, "d"), &models(&["a"]), true, &Single).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("not empty"), "{error}");
        std::fs::write(dir.path().join(KEY), "{\"key\": 1}").unwrap();
        let error = DynamicsDir::open(dir.path(), key(0.1, "d"), &models(&["a"]), false, &Single).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(KEY), "{error}");
    }
}
