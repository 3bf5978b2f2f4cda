//! What is left of a task that is done: `OUT/done/TASK.json`, written last.

use super::input::Input;
use super::task::{Kind, Task, is_checkpoint_glob};
use crate::io::files;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// A task that is done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its command line.
    pub command: Vec<String>,
    /// Wall-clock seconds of the last attempt. One that went on from an earlier attempt took longer in all.
    pub seconds: f64,
    /// Whether the last attempt began from nothing, so that its time is that of the whole task.
    pub whole: bool,
    /// Tasks that ran at once.
    pub jobs: usize,
    /// Checkpoints on the way that it was to take, at most, where its command has some. Earlier versions did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<usize>,
    /// Hashes of the content of the user's files that it read, by path. Earlier versions did not record them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
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

    /// Its command line, with the study's directory named as in `task`'s own: that may have been written otherwise then, or have
    /// lain elsewhere.
    pub fn command_for(&self, out: &Path, task: &Task) -> Vec<String> {
        let place = |command: &[String]| command.iter().skip_while(|word| *word != "--out").nth(1).cloned();
        let now = out.display().to_string();
        let now = now.trim_end_matches('/');
        let (here, there) = (place(&task.command), place(&self.command));
        let own = here.as_deref().and_then(|here| here.strip_prefix(now));
        let before = there.as_deref().zip(own).and_then(|(there, own)| there.strip_suffix(own));
        let Some(before) = before else { return self.command.clone() };
        let word_for = |word: &String| match task.command.contains(word) {
            true => word.clone(),
            false => renamed(word, before, now).unwrap_or_else(|| word.clone()),
        };
        self.command.iter().map(word_for).collect()
    }

    /// Is the content of a file known to be another than the one that the task read?
    fn differs(&self, input: &Input) -> bool {
        let before = self.files.get(&input.path.display().to_string());
        before.is_some_and(|before| input.seen().is_some_and(|now| now != before))
    }
}

/// A word of a command line with the directory `now` in place of `before`: `PATH`, `NAME=PATH` or `KEY="PATH"`; `None` if it is not there.
fn renamed(word: &str, before: &str, now: &str) -> Option<String> {
    let path = |path: &str| {
        let rest = path.strip_prefix(before)?;
        let ends = |c: char| std::path::is_separator(c) || c == '"';
        let rest = if rest == "/" { "" } else { rest };
        (rest.is_empty() || rest.starts_with(ends)).then(|| format!("{now}{rest}"))
    };
    path(word).or_else(|| {
        let value = word.find('=')? + 1;
        let value = value + usize::from(word[value..].starts_with('"'));
        Some(format!("{}{}", &word[..value], path(&word[value..])?))
    })
}

/// Is the task done, by the command that it has now, with as many checkpoints on the way?
///
/// # Errors
/// An input error if it was done by another command, or a file that it read has changed since.
pub fn done(out: &Path, task: &Task) -> Result<bool> {
    let Some(record) = Record::read(out, &task.name)? else { return Ok(false) };
    let all = record.command_for(out, task);
    let without_checkpoints =
        |all: &[String]| all.iter().filter(|word| !is_checkpoint_glob(word)).cloned().collect::<Vec<_>>();
    let (before, now) = (without_checkpoints(&all), without_checkpoints(&task.command));
    let mut changes = Vec::new();
    if before != now && !(task.aggregates && settings(&before) == settings(&now)) {
        changes.push(differing(&before, &now));
    }
    let changed = task.inputs.iter().filter(|input| record.differs(input));
    changes.extend(changed.map(|input| format!("{}: its content is another than it was then", input.path.display())));
    if !changes.is_empty() {
        return Err(Error::input(format!(
            "[{}]: {} holds {} done with other settings; give the same ones, or another --out:\n  {}",
            task.section,
            out.display(),
            task.name,
            changes.join("\n  ")
        )));
    }
    let had_checkpoints = all.iter().any(|word| is_checkpoint_glob(word));
    let same_checkpoints = had_checkpoints == task.way.is_some() && (record.way.is_none() || record.way == task.way);
    Ok(before == now && same_checkpoints)
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
pub struct Throughput {
    seconds: HashMap<Kind, f64>,
    units: HashMap<Kind, f64>,
}

impl Throughput {
    /// Count a task.
    pub fn add(&mut self, kind: Kind, units: f64, seconds: f64) {
        *self.seconds.entry(kind).or_default() += seconds;
        *self.units.entry(kind).or_default() += units;
    }

    /// Of the tasks that are done in `out`.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn of(tasks: &[Task], out: &Path) -> Result<Throughput> {
        let mut throughput = Throughput::default();
        for task in tasks {
            if let Some(record) = Record::read(out, &task.name)?.filter(|record| record.whole) {
                throughput.add(task.work.kind, task.work.units, record.seconds);
            }
        }
        Ok(throughput)
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
    use std::sync::Arc;

    fn task(name: &str, command: &[&str], kind: Kind, units: f64) -> Task {
        let command = command.iter().map(|arg| arg.to_string()).collect();
        let work = Work { kind, units };
        let (name, section) = (name.into(), "x".into());
        Task { name, section, needs: Vec::new(), command, way: None, inputs: Vec::new(), work, aggregates: false }
    }

    #[test]
    fn a_task_done_with_other_settings_is_refused_and_one_that_sums_up_is_done_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = task("train.a", &["train", "--set", "train.learning_rate=1"], Kind::Sft, 10.0);
        assert!(!done(dir.path(), &one).unwrap());
        let record = Record { command: one.command.clone(), ..Record::default() };
        record.write(dir.path(), "train.a").unwrap();
        assert!(done(dir.path(), &one).unwrap());
        one.command[2] = "train.learning_rate=2".into();
        let error = done(dir.path(), &one).unwrap_err();
        assert!(
            error.exit_code() == 2
                && error.to_string().contains("--set train.learning_rate=1 -> --set train.learning_rate=2"),
            "{error}"
        );
        // What sums up may have grown, by another run to compare; its own settings stay.
        let measured = |more: &[&str]| {
            task("dynamics.base", &[&["dynamics", "--forgetting", "compare/a"], more].concat(), Kind::Pair, 10.0)
        };
        let dynamics = Task { aggregates: true, ..measured(&["--pairs", "4"]) };
        let record = Record { command: dynamics.command.clone(), ..Record::default() };
        record.write(dir.path(), "dynamics.base").unwrap();
        assert!(done(dir.path(), &dynamics).unwrap());
        assert!(!done(dir.path(), &Task { aggregates: true, ..measured(&["compare/b", "--pairs", "4"]) }).unwrap());
        let other = done(dir.path(), &Task { aggregates: true, ..measured(&["--pairs", "5"]) }).unwrap_err();
        assert!(other.to_string().contains("--pairs 4 -> --pairs 5"), "{other}");
    }

    #[test]
    fn a_file_whose_content_has_changed_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sft.toml");
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        // Asked anew each time, as each call of the program does.
        let now = || {
            let inputs = vec![Arc::new(Input::new(file.clone()))];
            Task { inputs, ..task("train.a", &["train", "--config", "sft.toml"], Kind::Sft, 1.0) }
        };
        write("[train]\nsteps = 5\n");
        let hash = now().inputs[0].hash().unwrap();
        let files = BTreeMap::from([(file.display().to_string(), hash)]);
        Record { command: now().command, files, ..Record::default() }.write(dir.path(), "train.a").unwrap();
        assert!(done(dir.path(), &now()).unwrap());
        write("[train]\nsteps = 6\n");
        let error = done(dir.path(), &now()).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(&file.display().to_string()), "{error}");
        assert!(error.to_string().contains("train.a done with other settings"), "{error}");
        // An earlier version's record says nothing of files.
        let old = r#"{"command": ["train", "--config", "sft.toml"], "seconds": 1.0, "whole": true, "jobs": 1}"#;
        std::fs::write(path(dir.path(), "train.a"), old).unwrap();
        assert!(done(dir.path(), &now()).unwrap());
    }

    #[test]
    fn another_number_of_checkpoints_on_the_way_has_the_task_done_again() {
        let dir = tempfile::tempdir().unwrap();
        let with = |way: Option<usize>| {
            let words: &[&str] = match way {
                Some(_) => &["eval", "--model", "o/runs/a/checkpoints/*", "o/runs/a/model"],
                None => &["eval", "--model", "o/runs/a/model"],
            };
            Task { way, ..task("compare.a", words, Kind::Respond, 1.0) }
        };
        let record = |task: Task, way| Record { command: task.command, way, ..Record::default() };
        record(with(Some(2)), Some(2)).write(dir.path(), "compare.a").unwrap();
        let again = |way| !done(dir.path(), &with(way)).unwrap();
        assert_eq!([Some(2), Some(4), Some(1), None].map(again), [false, true, true, true]);
        // An earlier version's record says only whether there are any.
        record(with(Some(2)), None).write(dir.path(), "compare.a").unwrap();
        assert_eq!([Some(2), Some(4), None].map(again), [false, false, true]);
    }

    #[test]
    fn the_directory_may_be_named_otherwise_or_have_been_moved() {
        let dir = tempfile::tempdir().unwrap();
        let words = |out: &str, lr: &str| {
            let replay = format!("sft.replay=\"{out}/prior\"");
            let (data, bench) = (format!("{out}/puzzles/a"), format!("vqa={out}/prior/vqa.tsv"));
            let all =
                ["train", "--model", "out-of/base", "--data", &data, "--bench", &bench, "--set", &replay, "--set", lr];
            let all = all.into_iter().map(String::from);
            all.chain(["--out".to_string(), format!("{out}/runs/a"), "--overwrite".to_string()]).collect::<Vec<_>>()
        };
        let out = dir.path().display().to_string();
        let now = |lr: &str| Task { command: words(&out, lr), ..task("train.a", &[], Kind::Sft, 1.0) };
        for before in ["out", "/elsewhere/o", &out] {
            Record { command: words(before, "lr=1"), ..Record::default() }.write(dir.path(), "train.a").unwrap();
            assert!(done(dir.path(), &now("lr=1")).unwrap(), "{before}");
            let error = done(dir.path(), &now("lr=2")).unwrap_err();
            assert!(error.to_string().ends_with("\n  --set lr=1 -> --set lr=2"), "only what differs: {error}");
        }
        // Other data is other data, wherever it lies.
        let mut other = words("out", "lr=1");
        other[4] = "out/puzzles/b".into();
        Record { command: other, ..Record::default() }.write(dir.path(), "train.a").unwrap();
        assert!(done(dir.path(), &now("lr=1")).is_err());
        // The report's own argument is the directory itself.
        let report =
            |out: &str, at: &str| ["report".to_string(), out.into(), "--out".into(), format!("{at}/report.html")];
        let slash = format!("{out}/");
        for (before, at) in [("o", "o"), ("o/", "o"), (slash.as_str(), out.as_str())] {
            Record { command: report(before, at).to_vec(), ..Record::default() }.write(dir.path(), "report").unwrap();
            let now = Task { command: report(&out, &out).to_vec(), ..task("report", &[], Kind::Small, 1.0) };
            assert!(done(dir.path(), &now).unwrap(), "{before}");
        }
    }

    #[test]
    fn time_is_expected_by_kind_and_unknown_where_nothing_was_measured() {
        let mut throughput = Throughput::default();
        throughput.add(Kind::Sft, 100.0, 10.0);
        throughput.add(Kind::Sft, 300.0, 10.0);
        let (known, unknown) = (task("a", &[], Kind::Sft, 40.0), task("b", &[], Kind::Rft, 40.0));
        assert_eq!((throughput.seconds(&known), throughput.seconds(&unknown)), (Some(2.0), None));
        assert_eq!(throughput.total([&known, &known].into_iter(), 2), Some(2.0));
        assert_eq!(throughput.total([&known, &unknown].into_iter(), 1), None);
    }
}
