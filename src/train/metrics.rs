//! What a run records as it goes: `metrics.jsonl` (one line a step or evaluation, flushed), TensorBoard events, and
//! `samples.jsonl` (responses a person can read).

use super::tensorboard::EventWriter;
use crate::io::jsonl::{self, JsonlLog};
use crate::io::plain::json_fault;
use crate::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// The numbers of a run, a line for each step and evaluation.
pub const METRICS: &str = "metrics.jsonl";
/// Responses that a run has kept.
pub const SAMPLES: &str = "samples.jsonl";
/// The examples of each step.
const EXAMPLES: &str = "examples.jsonl";
/// The responses that are trained on.
const ROLLOUTS: &str = "rollouts.jsonl";

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

/// The numbers of the last line of `metrics.jsonl` in the run directory `dir`.
///
/// # Errors
/// An input error for a line that cannot be read.
pub(super) fn last_logged(dir: &Path) -> Result<Map<String, Value>> {
    let lines: Vec<Map<String, Value>> = jsonl::read(&dir.join(METRICS))?;
    let mut last = lines.into_iter().next_back().unwrap_or_default();
    last.shift_remove("step");
    Ok(last)
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

/// The whole lines of a log of a run, which may still be growing; none if there is no such file.
///
/// # Errors
/// An input error that names file and line of what no run has written: no JSON object, or one without its `step`.
pub fn read_lines(path: &Path) -> Result<Vec<Map<String, Value>>> {
    let mut rows = Vec::new();
    if path.exists() {
        scan(path, u64::MAX, &mut |row| rows.push(row))?;
    }
    Ok(rows)
}

/// Read the whole lines in the first `size` bytes of a log; how many there are, and their bytes.
fn scan(path: &Path, size: u64, each: &mut dyn FnMut(Map<String, Value>)) -> Result<(usize, u64)> {
    let unreadable = |e: std::io::Error| Error::input(format!("cannot read {}: {e}", path.display()));
    let mut reader = BufReader::new(File::open(path).map_err(unreadable)?.take(size));
    let (mut lines, mut bytes, mut line) = (0, 0, Vec::new());
    loop {
        line.clear();
        reader.read_until(b'\n', &mut line).map_err(unreadable)?;
        if !line.ends_with(b"\n") {
            return Ok((lines, bytes));
        }
        (lines, bytes) = (lines + 1, bytes + line.len() as u64);
        let damaged = |why: &dyn std::fmt::Display| {
            Error::input(format!(
                "{}:{lines}: this line is damaged ({why}); put the file back as it was, or train again to another --out",
                path.display()
            ))
        };
        let row: Map<String, Value> = serde_json::from_slice(&line).map_err(|e| damaged(&json_fault(&e)))?;
        if row.get("step").and_then(Value::as_u64).is_none() {
            return Err(damaged(&"it has no `step`"));
        }
        each(row);
    }
}

/// Check the first `size` bytes of a log, which stay when a run is resumed: whole lines that a run has written. A log that is shorter is for
/// [`JsonlLog::open_at`] to refuse.
fn check_kept(path: &Path, size: u64) -> Result<()> {
    if size == 0 || std::fs::metadata(path).map_or(0, |file| file.len()) < size {
        return Ok(());
    }
    let (lines, bytes) = scan(path, size, &mut |_| {})?;
    if bytes < size {
        return Err(Error::input(format!(
            "{}:{}: this line is damaged (it ended where the last checkpoint was made, and no longer does); put the file back as it was, or \
             train again to another --out",
            path.display(),
            lines + 1
        )));
    }
    Ok(())
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
    ///
    /// # Errors
    /// An input error that names file and line of what was damaged before that; a failure to open the files, or one that is shorter.
    pub fn open(dir: &Path, sizes: LogSizes, step: usize, rollouts: bool) -> Result<Log> {
        let kept = [(METRICS, sizes.metrics), (SAMPLES, sizes.samples), (EXAMPLES, sizes.examples)];
        let kept = kept.into_iter().chain(rollouts.then_some((ROLLOUTS, sizes.rollouts)));
        // All are looked at before one is cut.
        kept.into_iter().try_for_each(|(name, size)| check_kept(&dir.join(name), size))?;
        let open = |name: &str, size: u64| JsonlLog::open_at(&dir.join(name), size);
        Ok(Log {
            metrics: open(METRICS, sizes.metrics)?,
            samples: open(SAMPLES, sizes.samples)?,
            examples: open(EXAMPLES, sizes.examples)?,
            rollouts: rollouts.then(|| open(ROLLOUTS, sizes.rollouts)).transpose()?,
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
        assert_eq!(Value::Object(last_logged(dir.path()).unwrap()), serde_json::json!({"loss": 1.5, "kl": null}));
        let error =
            Log::open(dir.path(), LogSizes { metrics: 999, ..LogSizes::default() }, 1, false).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("metrics.jsonl"));
    }

    #[test]
    fn a_damaged_line_before_the_checkpoint_is_named_and_one_after_it_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(METRICS);
        let whole = "{\"step\":1,\"loss\":1.5}\n{\"step\":2,\"loss\":null}\n";
        let open = |text: &[u8], size: usize| {
            std::fs::write(&path, text).unwrap();
            Log::open(dir.path(), LogSizes { metrics: size as u64, ..LogSizes::default() }, 2, false).map(|_| ())
        };
        let torn = whole.replace(",\"loss\":null", "\0\0");
        for (text, line) in [
            (whole.replace("1.5}", "1.5 "), 1),
            (torn, 2),
            (whole.replace("\"step\":2", "\"stop\":2"), 2),
            (whole.replace("2,\"loss\":null}\n", "2,\"loss\":null} "), 2),
            (whole.replace("{\"step\":1,\"loss\":1.5}", &" ".repeat(21)), 1),
        ] {
            let error = open(text.as_bytes(), text.len()).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(&format!("metrics.jsonl:{line}:")), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "nothing is cut where the run is refused");
        }
        let not_utf8 = b"{\"step\":1,\"loss\":\"\xff\"}\n";
        let error = open(not_utf8, not_utf8.len()).unwrap_err();
        assert!(error.to_string().contains("metrics.jsonl:1:"), "{error}");
        open(format!("{whole}{{\"step\":3,\"lo\0\nnonsense\n").as_bytes(), whole.len()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
    }

    #[test]
    fn a_line_being_written_is_left_out_and_a_damaged_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(METRICS);
        std::fs::write(&path, "{\"step\":1,\"loss\":null}\n{\"step\":2,\"lo").unwrap();
        assert_eq!(read_lines(&path).unwrap().len(), 1);
        std::fs::write(&path, "{\"step\":1}\nnonsense\n{\"step\":3}\n").unwrap();
        let error = read_lines(&path).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("metrics.jsonl:2:"), "{error}");
        assert!(read_lines(&dir.path().join("none")).unwrap().is_empty());
    }
}
