//! What a run records as it goes: `metrics.jsonl` (one line a step or evaluation, flushed), TensorBoard events, and
//! `samples.jsonl` (responses a person can read).

use super::tensorboard::EventWriter;
use crate::io::files;
use crate::io::jsonl::JsonlLog;
use crate::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value};
use std::path::Path;

/// The numbers of a run, a line for each step and evaluation.
pub const METRICS: &str = "metrics.jsonl";
/// Responses that a run has kept.
pub const SAMPLES: &str = "samples.jsonl";

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

/// The whole lines of `metrics.jsonl` or `samples.jsonl`, which may still be growing; none if there is no such file.
///
/// # Errors
/// An input error that names file and line of what no run has written: no JSON object, or one without its `step`.
pub fn read_lines(path: &Path) -> Result<Vec<Map<String, Value>>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    check_lines(path, &files::read(path)?)
}

/// The whole lines of `bytes`, the content of `path` or the beginning of it.
fn check_lines(path: &Path, bytes: &[u8]) -> Result<Vec<Map<String, Value>>> {
    let whole = bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let read = |(i, line): (usize, &[u8])| {
        let damaged = |why: &dyn std::fmt::Display| {
            Error::input(format!(
                "{}:{}: this line is damaged ({why}); put the file back as it was, or train again to another --out",
                path.display(),
                i + 1
            ))
        };
        let row: Map<String, Value> = serde_json::from_slice(line).map_err(|e| damaged(&e))?;
        match row.get("step").and_then(Value::as_u64) {
            Some(_) => Ok(row),
            None => Err(damaged(&"it has no `step`")),
        }
    };
    whole.enumerate().map(read).collect()
}

/// Check the first `size` bytes of a file, which stay when a run is resumed: whole lines that a run has written.
fn check_kept(path: &Path, size: u64) -> Result<()> {
    if size == 0 || !path.exists() {
        return Ok(());
    }
    let bytes = files::read(path)?;
    let kept = &bytes[..bytes.len().min(usize::try_from(size).unwrap_or(usize::MAX))];
    let lines = check_lines(path, kept)?.len();
    if kept.len() as u64 == size && !kept.ends_with(b"\n") {
        return Err(Error::input(format!(
            "{}:{}: the last checkpoint was made where a line ended, and now none ends there: the file was changed; put it back as it was, \
             or train again to another --out",
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
    events: EventWriter,
}

impl Log {
    /// Open the files in `dir`, cut back to `sizes`; a resumed run continues in a new event file from `step`.
    ///
    /// # Errors
    /// An input error that names file and line of what was damaged before that; a failure to open the files, or one that is shorter.
    pub fn open(dir: &Path, sizes: LogSizes, step: usize) -> Result<Log> {
        let (metrics, samples) = (dir.join(METRICS), dir.join(SAMPLES));
        // Both are looked at before one is cut.
        check_kept(&metrics, sizes.metrics)?;
        check_kept(&samples, sizes.samples)?;
        Ok(Log {
            metrics: JsonlLog::open_at(&metrics, sizes.metrics)?,
            samples: JsonlLog::open_at(&samples, sizes.samples)?,
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

    #[test]
    fn a_damaged_line_before_the_checkpoint_is_named_and_one_after_it_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(METRICS);
        let whole = "{\"step\":1,\"loss\":1.5}\n{\"step\":2,\"loss\":null}\n";
        let open = |text: &[u8], size: usize| {
            std::fs::write(&path, text).unwrap();
            Log::open(dir.path(), LogSizes { metrics: size as u64, samples: 0 }, 2).map(|_| ())
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
        let error = open(b"{\"step\":1,\"loss\":\"\xff\"}\n", 23).unwrap_err();
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
