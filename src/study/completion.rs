//! What a finished task leaves: `OUT/done/TASK.json`, written last.

use super::input_hash::Input;
use super::task::StudyTask;
use crate::io::json::named_differences;
use crate::io::{files, lock};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What stands for the study's directory in a recorded request, so that the directory may be moved.
const OUT: &str = "OUT";

/// A finished task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CompletionRecord {
    /// What it did: the request of its command, with `OUT` for the study's directory.
    pub request: Value,
    /// Its command line, for people.
    pub command: Vec<String>,
    /// Wall-clock seconds of the last attempt. One that resumed an earlier attempt took longer in all.
    pub seconds: f64,
    /// Whether the last attempt started from nothing, so that its time is that of the whole task.
    pub whole: bool,
    /// Tasks that ran at once.
    pub jobs: usize,
    /// Version of the results; 0 where it has never changed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub results_version: u32,
    /// Most intermediate checkpoints that it was to evaluate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<usize>,
    /// Hashes of the user's files that it read, by path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

fn is_zero(version: &u32) -> bool {
    *version == 0
}

fn path(out: &Path, task: &str) -> PathBuf {
    out.join("done").join(format!("{task}.json"))
}

impl CompletionRecord {
    /// The record of `task` before it runs.
    ///
    /// # Errors
    /// Its request cannot be written as JSON.
    pub fn of(task: &StudyTask, out: &Path) -> Result<CompletionRecord> {
        let checkpoints = task.checkpoints.as_ref().map(|checkpoints| checkpoints.most);
        Ok(CompletionRecord {
            request: request(task, out)?,
            command: task.arguments(),
            results_version: task.command.results_version(),
            checkpoints,
            ..CompletionRecord::default()
        })
    }

    /// The record of a task; `None` if it is not done.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(out: &Path, task: &str) -> Result<Option<CompletionRecord>> {
        let path = path(out, task);
        if path.exists() { files::read_json(&path).map(Some) } else { Ok(None) }
    }

    /// Write it.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, out: &Path, task: &str) -> Result<()> {
        let path = path(out, task);
        files::create_dir(&out.join("done"))?;
        lock::remove_temporaries_of(&path);
        files::write_json(&path, self)
    }

    /// Is the content of a file known to differ from what the task read?
    fn differs(&self, input: &Input) -> bool {
        let before = self.files.get(&input.path.display().to_string());
        before.is_some_and(|before| input.first_hash().is_some_and(|now| now != before))
    }
}

/// The request of a task's command, wherever the study's directory lies.
///
/// # Errors
/// It cannot be written as JSON.
pub fn request(task: &StudyTask, out: &Path) -> Result<Value> {
    let request = serde_json::to_value(&task.command);
    Ok(relocatable(request.map_err(|e| Error::failed(format!("{}: {e}", task.name)))?, out))
}

/// The paths of a request below `out` with [`OUT`] in place of it.
fn relocatable(value: Value, out: &Path) -> Value {
    match value {
        Value::String(text) => match Path::new(&text).strip_prefix(out) {
            Ok(rest) => Value::String(Path::new(OUT).join(rest).display().to_string()),
            Err(_) => Value::String(text),
        },
        Value::Array(values) => Value::Array(values.into_iter().map(|value| relocatable(value, out)).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, value)| (key, relocatable(value, out))).collect())
        }
        other => other,
    }
}

/// Is the task done, with the request and the number of intermediate checkpoints that it has now, by this version of the program?
///
/// # Errors
/// An input error if it was done with other settings, or a file that it read has changed since.
pub fn is_done(out: &Path, task: &StudyTask) -> Result<bool> {
    let Some(record) = CompletionRecord::read(out, &task.name)? else { return Ok(false) };
    let now = CompletionRecord::of(task, out)?;
    let growing = if task.aggregates { task.command.growing() } else { &[] };
    let mut changes = named_differences(&without(&record.request, growing), &without(&now.request, growing));
    let changed = task.inputs.iter().filter(|input| record.differs(input));
    changes.extend(changed.map(|input| format!("{}: its content has changed since", input.path.display())));
    if !changes.is_empty() {
        return Err(Error::input(format!(
            "[{}]: {} holds {} done with other settings; give the same ones, or another --out:\n  {}",
            task.section,
            out.display(),
            task.name,
            changes.join("\n  ")
        )));
    }
    Ok(record.request == now.request
        && record.checkpoints == now.checkpoints
        && record.results_version == now.results_version)
}

fn without(request: &Value, keys: &[&str]) -> Value {
    let mut request = request.clone();
    if let Some(fields) = request.as_object_mut() {
        keys.iter().for_each(|key| drop(fields.remove(*key)));
    }
    request
}

#[cfg(test)]
mod tests {
    use super::super::checkpoints::CheckpointChoice;
    use super::super::command::{Gen, GenSettings, JigsawCommand, Report, Train};
    use super::super::task::TaskKind;
    use super::*;
    use crate::tasks::jigsaw::generate::JigsawSettings;
    use std::sync::Arc;

    fn training(lr: f64, config: Option<PathBuf>, out: &Path) -> StudyTask {
        let settings = [("sft.replay".to_string(), out.join("prior").display().to_string().into())];
        let (model, data, out) = ("out-of/base".into(), out.join("puzzles/a"), out.join("runs/a"));
        let settings = settings.into_iter().collect();
        let train = Train { model, data, method: None, config, settings, learning_rate: Some(lr), seed: 1, out };
        StudyTask::new("train.a", "x", Vec::new(), JigsawCommand::Train(train), TaskKind::Sft, 1.0)
    }

    fn record(task: &StudyTask, dir: &Path, out: &Path) {
        CompletionRecord::of(task, out).unwrap().write(dir, &task.name).unwrap();
    }

    #[test]
    fn a_task_done_with_other_settings_is_refused_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let one = training(1e-4, None, dir.path());
        assert!(!is_done(dir.path(), &one).unwrap());
        record(&one, dir.path(), dir.path());
        assert!(is_done(dir.path(), &one).unwrap());
        let error = is_done(dir.path(), &training(2e-4, None, dir.path())).unwrap_err();
        assert!(
            error.exit_code() == 2 && error.to_string().ends_with("\n  learning_rate: 0.0001 -> 0.0002"),
            "{error}"
        );
        let puzzles = |count: usize| {
            let settings = JigsawSettings { count, ..Default::default() };
            let dataset = GenSettings::Jigsaw { settings, preview: None };
            let command = JigsawCommand::Gen(Gen { dataset, split: None, out: dir.path().join("puzzles/a") });
            StudyTask::new("puzzles.a", "x", Vec::new(), command, TaskKind::Make, 1.0)
        };
        record(&puzzles(24), dir.path(), dir.path());
        let error = is_done(dir.path(), &puzzles(25)).unwrap_err();
        assert!(error.to_string().contains("count: 24 -> 25"), "{error}");
    }

    #[test]
    fn results_of_another_version_are_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let one = training(1e-4, None, dir.path());
        let now = CompletionRecord::of(&one, dir.path()).unwrap();
        CompletionRecord { results_version: now.results_version + 1, ..now }.write(dir.path(), &one.name).unwrap();
        assert!(!is_done(dir.path(), &one).unwrap());
    }

    #[test]
    fn a_task_that_aggregates_is_done_again_when_there_is_more_and_refused_with_other_settings() {
        let dir = tempfile::tempdir().unwrap();
        let report = |title: &str, out: &str| {
            let (runs, out) = (vec![dir.path().to_path_buf()], dir.path().join(out));
            let command = JigsawCommand::Report(Report { runs, title: title.into(), out });
            StudyTask { aggregates: true, ..StudyTask::new("report", "x", Vec::new(), command, TaskKind::Small, 1.0) }
        };
        record(&report("a", "r.html"), dir.path(), dir.path());
        assert!(is_done(dir.path(), &report("a", "r.html")).unwrap());
        assert!(!is_done(dir.path(), &report("b", "r.html")).unwrap());
        let error = is_done(dir.path(), &report("a", "q.html")).unwrap_err();
        assert!(error.to_string().contains("out: \"OUT/r.html\" -> \"OUT/q.html\""), "{error}");
    }

    #[test]
    fn a_file_whose_content_has_changed_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sft.toml");
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        // A new Input each time, as in each call of the program.
        let now = || {
            let inputs = vec![Arc::new(Input::new(file.clone()))];
            StudyTask { inputs, ..training(1e-4, Some(file.clone()), dir.path()) }
        };
        write("[train]\nsteps = 5\n");
        let hash = now().inputs[0].hash().unwrap();
        let files = BTreeMap::from([(file.display().to_string(), hash)]);
        let record = CompletionRecord { files, ..CompletionRecord::of(&now(), dir.path()).unwrap() };
        record.write(dir.path(), "train.a").unwrap();
        assert!(is_done(dir.path(), &now()).unwrap());
        write("[train]\nsteps = 6\n");
        let error = is_done(dir.path(), &now()).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(&file.display().to_string()), "{error}");
        assert!(error.to_string().contains("train.a done with other settings"), "{error}");
    }

    #[test]
    fn another_number_of_intermediate_checkpoints_has_the_task_done_again() {
        let dir = tempfile::tempdir().unwrap();
        let with = |most: Option<usize>| {
            let checkpoints = most.map(|most| CheckpointChoice { run: dir.path().join("runs/a"), most });
            StudyTask { checkpoints, ..training(1e-4, None, dir.path()) }
        };
        record(&with(Some(2)), dir.path(), dir.path());
        let again = |most| !is_done(dir.path(), &with(most)).unwrap();
        assert_eq!([Some(2), Some(4), Some(1), None].map(again), [false, true, true, true]);
    }

    #[test]
    fn the_directory_may_be_named_otherwise_or_have_been_moved() {
        let dir = tempfile::tempdir().unwrap();
        let now = |lr: f64| training(lr, None, dir.path());
        for before in [Path::new("out"), Path::new("/elsewhere/o/"), dir.path()] {
            record(&training(1e-4, None, before), dir.path(), before);
            assert!(is_done(dir.path(), &now(1e-4)).unwrap(), "{}", before.display());
            let error = is_done(dir.path(), &now(2e-4)).unwrap_err();
            assert!(error.to_string().ends_with("\n  learning_rate: 0.0001 -> 0.0002"), "only what differs: {error}");
        }
        // Other data is other data, wherever it lies.
        let mut other = training(1e-4, None, Path::new("out"));
        if let JigsawCommand::Train(train) = &mut other.command {
            train.data = "out/puzzles/b".into();
        }
        record(&other, dir.path(), Path::new("out"));
        assert!(is_done(dir.path(), &now(1e-4)).is_err());
    }
}
