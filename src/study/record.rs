//! What is left of a task that is done: `OUT/done/TASK.json`, written last.

use super::task::{Kind, Task};
use crate::{Error, Result, files};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A task that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its command line.
    pub command: Vec<String>,
    /// Wall-clock seconds of the last attempt. One that went on from an earlier attempt took longer in all.
    pub seconds: f64,
    /// Whether the last attempt began from nothing, so that its time is that of the whole task.
    pub whole: bool,
    /// Tasks that ran at once.
    pub jobs: usize,
}

fn path(out: &Path, task: &str) -> PathBuf {
    out.join("done").join(format!("{task}.json"))
}

impl Record {
    /// The record of a task; `None` if it is not done.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(out: &Path, task: &str) -> Result<Option<Record>> {
        let path = path(out, task);
        if path.exists() { files::read_json(&path).map(Some) } else { Ok(None) }
    }

    /// Write it.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, out: &Path, task: &str) -> Result<()> {
        files::create_dir(&out.join("done"))?;
        files::write_json(&path(out, task), self)
    }
}

/// Is the task done, by the command that it has now?
///
/// # Errors
/// An input error if it was done by another command.
pub fn done(out: &Path, task: &Task) -> Result<bool> {
    match Record::read(out, &task.name)? {
        None => Ok(false),
        Some(record) if record.command == task.command => Ok(true),
        Some(record) if task.sums_up && settings(&record.command) == settings(&task.command) => Ok(false),
        Some(record) => Err(Error::input(format!(
            "[{}]: {} holds {} done with other settings; give the same ones, or another --out:\n  {}",
            task.section,
            out.display(),
            task.name,
            differing(&record.command, &task.command)
        ))),
    }
}

/// What may grow in a task that sums up, or is only shown.
const GROWS: [&str; 5] = ["--model", "--train", "--prior", "--forgetting", "--title"];

/// The flags of a command line with their values, without those that may grow.
fn settings(command: &[String]) -> Vec<String> {
    flags(command).into_iter().filter(|flag| !GROWS.iter().any(|name| flag.split(' ').next() == Some(name))).collect()
}

/// The flags of a command line, each with its values; what comes before the first is one too.
fn flags(command: &[String]) -> Vec<String> {
    let mut flags: Vec<String> = Vec::new();
    for argument in command {
        match flags.last_mut() {
            Some(last) if !argument.starts_with("--") => *last += &format!(" {argument}"),
            _ => flags.push(argument.clone()),
        }
    }
    flags
}

/// What one command line has and the other has not.
fn differing(before: &[String], now: &[String]) -> String {
    let only = |a: &[String], b: &[String]| -> String {
        let own: Vec<&str> = a.iter().filter(|word| !b.contains(word)).map(String::as_str).collect();
        if own.is_empty() { "(nothing)".into() } else { own.join(" ") }
    };
    let (before, now) = (flags(before), flags(now));
    format!("{} -> {}", only(&before, &now), only(&now, &before))
}

/// Seconds that a unit of work takes, by kind, as measured on tasks that are done.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    seconds: HashMap<Kind, f64>,
    units: HashMap<Kind, f64>,
}

impl Pace {
    /// Count a task.
    pub fn add(&mut self, kind: Kind, units: f64, seconds: f64) {
        *self.seconds.entry(kind).or_default() += seconds;
        *self.units.entry(kind).or_default() += units;
    }

    /// Of the tasks that are done in `out`.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn of(tasks: &[Task], out: &Path) -> Result<Pace> {
        let mut pace = Pace::default();
        for task in tasks {
            if let Some(record) = Record::read(out, &task.name)?.filter(|record| record.whole) {
                pace.add(task.work.kind, task.work.units, record.seconds);
            }
        }
        Ok(pace)
    }

    /// Expected seconds of a task; `None` if no task of its kind was measured.
    pub fn seconds(&self, task: &Task) -> Option<f64> {
        let kind = task.work.kind;
        match (self.seconds.get(&kind), self.units.get(&kind)) {
            (Some(seconds), Some(units)) if *units > 0.0 => Some(task.work.units * seconds / units),
            _ if matches!(kind, Kind::Small | Kind::Make) => Some(1.0),
            _ => None,
        }
    }

    /// Expected seconds of tasks of which `jobs` run at once; `None` if some kind among them is unknown.
    pub fn total<'t>(&self, tasks: impl Iterator<Item = &'t Task>, jobs: usize) -> Option<f64> {
        tasks.map(|task| self.seconds(task)).sum::<Option<f64>>().map(|sum| sum / jobs as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::task::Work;
    use super::*;

    fn task(name: &str, command: &[&str], kind: Kind, units: f64) -> Task {
        let command = command.iter().map(|arg| arg.to_string()).collect();
        let work = Work { kind, units };
        Task { name: name.into(), section: "x".into(), needs: Vec::new(), command, work, sums_up: false }
    }

    #[test]
    fn a_task_done_with_other_settings_is_refused_and_one_that_sums_up_is_done_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = task("train.a", &["train", "--set", "train.lr=1"], Kind::Sft, 10.0);
        assert!(!done(dir.path(), &one).unwrap());
        let record = Record { command: one.command.clone(), seconds: 5.0, whole: true, jobs: 1 };
        record.write(dir.path(), "train.a").unwrap();
        assert!(done(dir.path(), &one).unwrap());
        one.command[2] = "train.lr=2".into();
        let error = done(dir.path(), &one).unwrap_err();
        assert!(
            error.exit_code() == 2 && error.to_string().contains("--set train.lr=1 -> --set train.lr=2"),
            "{error}"
        );
        // What sums up may have grown, by another run to compare; its own settings stay.
        let measured = |more: &[&str]| {
            task("why.base", &[&["dynamics", "--forgetting", "cost/a"], more].concat(), Kind::Pair, 10.0)
        };
        let why = Task { sums_up: true, ..measured(&["--pairs", "4"]) };
        let record = Record { command: why.command.clone(), seconds: 5.0, whole: true, jobs: 1 };
        record.write(dir.path(), "why.base").unwrap();
        assert!(done(dir.path(), &why).unwrap());
        assert!(!done(dir.path(), &Task { sums_up: true, ..measured(&["cost/b", "--pairs", "4"]) }).unwrap());
        let other = done(dir.path(), &Task { sums_up: true, ..measured(&["--pairs", "5"]) }).unwrap_err();
        assert!(other.to_string().contains("--pairs 4 -> --pairs 5"), "{other}");
    }

    #[test]
    fn time_is_expected_by_kind_and_unknown_where_nothing_was_measured() {
        let mut pace = Pace::default();
        pace.add(Kind::Sft, 100.0, 10.0);
        pace.add(Kind::Sft, 300.0, 10.0);
        let (known, unknown) = (task("a", &[], Kind::Sft, 40.0), task("b", &[], Kind::Rft, 40.0));
        assert_eq!((pace.seconds(&known), pace.seconds(&unknown)), (Some(2.0), None));
        assert_eq!(pace.total([&known, &known].into_iter(), 2), Some(2.0));
        assert_eq!(pace.total([&known, &unknown].into_iter(), 1), None);
    }
}
