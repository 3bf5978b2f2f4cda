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
    /// The step as `metrics.jsonl` counts it: the first that trains on the response, or of an evaluation, the last before it.
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

/// The examples of an optimizer step: a line of `examples.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExamplesLine<'a> {
    /// The step as `metrics.jsonl` counts it.
    pub step: usize,
    /// Their ids, in the order of the batch.
    pub ids: &'a [String],
}

/// A response that is trained on, as an outside check needs it: a line of `rollouts.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RolloutLine<'a> {
    /// The first step that trains on it, as `metrics.jsonl` counts it.
    pub step: usize,
    /// Id of the example.
    pub id: &'a str,
    /// Which of the responses to this example, from 0.
    pub sample: usize,
    /// The text, without special tokens.
    pub response: &'a str,
    /// The tokens as sampled, with the closing one.
    pub token_ids: &'a [u32],
    /// Log-probability of each, in nats, under the model that sampled it, of logits / temperature before top-k and top-p.
    pub logprobs: &'a [f32],
    /// Ended by itself rather than by the length limit.
    pub finished: bool,
    /// The terms of the reward before weighting, by the names that `metrics.jsonl` has for them.
    pub reward_terms: Map<String, Value>,
    /// Their weighted sum.
    pub reward: f64,
    /// The advantage that the loss takes it with.
    pub advantage: f64,
}

/// Where the logs of a run end, to be cut back to when it is resumed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogSizes {
    /// Bytes of `metrics.jsonl`.
    pub metrics: u64,
    /// Bytes of `samples.jsonl`.
    pub samples: u64,
    /// Bytes of `examples.jsonl`.
    pub examples: u64,
    /// Bytes of `rollouts.jsonl`.
    pub rollouts: u64,
}

/// The open files of a run.
pub struct Log {
    metrics: JsonlLog,
    samples: JsonlLog,
    examples: JsonlLog,
    rollouts: Option<JsonlLog>,
    events: EventWriter,
}

impl Log {
    /// Open the files in `dir`, cut back to `sizes`; a resumed run continues in a new event file from `step`. `rollouts`: whether there is a
    /// `rollouts.jsonl`.
    pub fn open(dir: &Path, sizes: LogSizes, step: usize, rollouts: bool) -> Result<Log> {
        let open = |name: &str, size: u64| JsonlLog::open_at(&dir.join(name), size);
        Ok(Log {
            metrics: open("metrics.jsonl", sizes.metrics)?,
            samples: open("samples.jsonl", sizes.samples)?,
            examples: open("examples.jsonl", sizes.examples)?,
            rollouts: rollouts.then(|| open("rollouts.jsonl", sizes.rollouts)).transpose()?,
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

    /// Name the examples of a step.
    pub fn examples(&mut self, line: &ExamplesLine<'_>) -> Result<()> {
        self.examples.append(&[line])
    }

    /// Log the responses of a step, where the run keeps them all.
    pub fn rollouts(&mut self, lines: &[RolloutLine<'_>]) -> Result<()> {
        self.rollouts.as_mut().map_or(Ok(()), |log| log.append(lines))
    }

    /// Where the files end now, everything written being on disk.
    pub fn sizes(&mut self) -> Result<LogSizes> {
        Ok(LogSizes {
            metrics: self.metrics.sync()?,
            samples: self.samples.sync()?,
            examples: self.examples.sync()?,
            rollouts: self.rollouts.as_mut().map_or(Ok(0), JsonlLog::sync)?,
        })
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
        let mut log = Log::open(dir.path(), LogSizes::default(), 0, false).unwrap();
        log.write(1, &metrics).unwrap();
        let sizes = log.sizes().unwrap();
        log.write(2, &metrics).unwrap();
        drop(log);
        let mut log = Log::open(dir.path(), sizes, 1, false).unwrap();
        log.write(7, &metrics).unwrap();
        let text = std::fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text, "{\"step\":1,\"loss\":1.5,\"kl\":null}\n{\"step\":7,\"loss\":1.5,\"kl\":null}\n");
        let error =
            Log::open(dir.path(), LogSizes { metrics: 999, ..LogSizes::default() }, 1, false).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("metrics.jsonl"));
    }
}
