//! What a run records as it goes: `metrics.jsonl` (one line a step or evaluation, flushed), TensorBoard events, and
//! `samples.jsonl` (responses a person can read).

use super::tensorboard::EventWriter;
use crate::Result;
use crate::io::jsonl::JsonlLog;
use serde::Serialize;
use serde_json::{Map, Value};
use std::path::Path;

/// Named numbers of one step, in the order they are written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(Vec<(&'static str, f64)>);

impl Metrics {
    /// Add a number.
    pub fn push(&mut self, name: &'static str, value: f64) {
        self.0.push((name, value));
    }

    /// Add all numbers of `other`.
    pub fn extend(&mut self, other: &Metrics) {
        self.0.extend_from_slice(&other.0);
    }

    /// The number called `name`.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &(&'static str, f64)> {
        self.0.iter()
    }
}

/// A line of `metrics.jsonl`. A number that is not finite is `null`.
pub(super) fn line(step: usize, metrics: &Metrics) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("step".into(), step.into());
    for (name, value) in metrics.iter() {
        line.insert((*name).into(), serde_json::Number::from_f64(*value).map_or(Value::Null, Value::Number));
    }
    line
}

/// A response kept for people to read: a line of `samples.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SampleLine {
    /// Optimizer steps made when it was sampled.
    pub step: usize,
    /// `rollout`, `resample` or `eval`.
    pub source: &'static str,
    /// Example.
    pub id: String,
    /// What the model said.
    pub response: String,
    /// The right answer.
    pub answer: String,
    /// Its reward (rollouts).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward: Option<f64>,
    /// The task's verdict.
    pub score: crate::tasks::Score,
}

/// Where `metrics.jsonl` and `samples.jsonl` end, to be cut back to when a run is resumed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogSizes {
    /// Bytes of `metrics.jsonl`.
    pub metrics: u64,
    /// Bytes of `samples.jsonl`.
    pub samples: u64,
}

/// The open files of a run.
pub struct Log {
    metrics: JsonlLog,
    samples: JsonlLog,
    events: EventWriter,
}

impl Log {
    /// Open the files in `dir`, cut back to `sizes`; a resumed run continues in a new event file from `step`.
    pub fn open(dir: &Path, sizes: LogSizes, step: usize) -> Result<Log> {
        Ok(Log {
            metrics: JsonlLog::open_at(&dir.join("metrics.jsonl"), sizes.metrics)?,
            samples: JsonlLog::open_at(&dir.join("samples.jsonl"), sizes.samples)?,
            events: EventWriter::create(dir, step)?,
        })
    }

    /// One line and one event. A number that is not finite is `null` in the file.
    pub fn write(&mut self, step: usize, metrics: &Metrics) -> Result<()> {
        self.metrics.append(&[line(step, metrics)])?;
        let tagged: Vec<(&str, f64)> = metrics.iter().map(|(n, v)| (*n, *v)).collect();
        self.events.scalars(step, &tagged)
    }

    /// Keep a response.
    pub fn keep(&mut self, sample: &SampleLine) -> Result<()> {
        self.samples.append(&[sample])
    }

    /// Where the files end now, everything written being on disk.
    pub fn sizes(&mut self) -> Result<LogSizes> {
        Ok(LogSizes { metrics: self.metrics.sync()?, samples: self.samples.sync()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_log_forgets_what_came_after_the_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::default();
        metrics.push("loss", 1.5);
        metrics.push("kl", f64::NAN);
        let mut log = Log::open(dir.path(), LogSizes::default(), 0).unwrap();
        log.write(1, &metrics).unwrap();
        let sizes = log.sizes().unwrap();
        log.write(2, &metrics).unwrap();
        drop(log);
        let mut log = Log::open(dir.path(), sizes, 1).unwrap();
        log.write(7, &metrics).unwrap();
        let text = std::fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text, "{\"step\":1,\"loss\":1.5,\"kl\":null}\n{\"step\":7,\"loss\":1.5,\"kl\":null}\n");
        let error = Log::open(dir.path(), LogSizes { metrics: 999, samples: 0 }, 1).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("metrics.jsonl"));
    }
}
