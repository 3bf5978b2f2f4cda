//! A task as a process of its own: this program again, its output in a log that says by a lock whether somebody is at work.

use super::record::{Record, done};
use super::task::{Task, checkpoints};
use crate::io::files;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Set in the processes of a study: their standard input is open as long as the study lives.
pub const CHILD_OF_STUDY: &str = "JIGSAW_CHILD_OF_STUDY";
/// Bytes at the end of a log in which its last line is looked for.
const TAIL: u64 = 2000;

/// A process under way.
#[derive(Debug)]
pub struct Process {
    child: std::process::Child,
    log: PathBuf,
    /// The log, locked until its record is written: what others see then is done.
    _lock: File,
    started: Instant,
    told: bool,
    /// Nothing was there of the task when it was begun.
    pub whole: bool,
    /// Hashes of the task's inputs as they were when it was begun.
    pub files: BTreeMap<String, String>,
}

/// What became of an attempt to begin.
#[derive(Debug)]
pub enum StartResult {
    /// It is under way.
    Started(Process),
    /// Another process has done it meanwhile.
    Done,
    /// Another process, of another call perhaps, is working on it.
    Locked,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// All done.
    Done,
    /// Stopped by a signal, saved.
    Stopped,
    /// Failed, with the last words of its log.
    Failed(String),
}

/// Where the log of a task is.
pub fn log(out: &Path, task: &str) -> PathBuf {
    out.join("logs").join(format!("{task}.log"))
}

impl Process {
    /// Begin `task` with `threads` threads.
    ///
    /// # Errors
    /// The log or the process cannot be made.
    pub fn begin(task: &Task, out: &Path, device: &str, threads: Option<usize>) -> Result<StartResult> {
        let path = log(out, &task.name);
        files::create_dir(&out.join("logs"))?;
        let whole = !path.exists();
        let failed = |e: std::io::Error| Error::failed(format!("{}: {e}", path.display()));
        let file = OpenOptions::new().append(true).create(true).open(&path).map_err(failed)?;
        // The lock belongs to the open file, which the process inherits: it is let go when neither has it open.
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(StartResult::Locked),
            // A file system without locks stops nobody.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        if !task.aggregates && done(out, task)? {
            return Ok(StartResult::Done);
        }
        let hashed = task.inputs.iter().filter_map(|input| Some((input.path.display().to_string(), input.hash()?)));
        let files = hashed.collect();
        let program = std::env::current_exe().map_err(|e| Error::failed(format!("cannot find this program: {e}")))?;
        let mut command = Command::new(program);
        command.args(arguments(task, out, device)?).env(CHILD_OF_STUDY, "1").stdin(Stdio::piped());
        command.stdout(file.try_clone().map_err(failed)?).stderr(file.try_clone().map_err(failed)?);
        if let Some(threads) = threads {
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        // Ctrl-C reaches the study alone, which tells its processes.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().map_err(|e| Error::failed(format!("cannot start {}: {e}", task.name)))?;
        let started = Instant::now();
        Ok(StartResult::Started(Process { child, log: path, _lock: file, started, told: false, whole, files }))
    }

    /// How it ended, or `None` while it goes on.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn ended(&mut self) -> Result<Option<Ended>> {
        let status = self.child.try_wait().map_err(|e| Error::failed(format!("cannot wait for a process: {e}")))?;
        let Some(status) = status else { return Ok(None) };
        #[cfg(unix)]
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        #[cfg(not(unix))]
        let signal: Option<i32> = None;
        Ok(Some(match (status.code(), signal) {
            (Some(0), _) => Ended::Done,
            (Some(130 | 143), _) => Ended::Stopped,
            _ if self.told => Ended::Stopped,
            (Some(code), _) => Ended::Failed(format!("exit code {code}: {}", self.last_line())),
            (None, signal) => {
                Ended::Failed(format!("killed by signal {}: {}", signal.unwrap_or_default(), self.last_line()))
            }
        }))
    }

    /// Ask it to save and stop.
    pub fn stop(&mut self) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        #[cfg(unix)]
        let _ =
            rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM);
        #[cfg(not(unix))]
        let _ = self.child.kill();
    }

    /// Since it was begun.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The last line that it has said.
    pub fn last_line(&self) -> String {
        last_line(&self.log).unwrap_or_default()
    }
}

/// The command line with what stands for something else put in.
fn arguments(task: &Task, out: &Path, device: &str) -> Result<Vec<String>> {
    let (mut all, way) = (Vec::new(), task.way.unwrap_or(0));
    for argument in &task.command {
        match argument.strip_suffix("/checkpoints/*") {
            Some(run) => all.extend(checkpoints(Path::new(run), way)?.iter().map(|path| path.display().to_string())),
            None => all.push(argument.clone()),
        }
    }
    let computes = matches!(task.command.first().map(String::as_str), Some("train" | "eval" | "rollout" | "dynamics"));
    if computes && device != "cpu" {
        all.extend(["--device".into(), device.into()]);
    }
    if task.command.first().is_some_and(|command| command == "dynamics") && measures_anew(task, out, &all)? {
        all.push("--fresh".into());
    }
    Ok(all)
}

/// The values of a flag that is given once.
fn values<'c>(command: &'c [String], flag: &str) -> Vec<&'c str> {
    let after = command.iter().skip_while(|word| *word != flag).skip(1);
    after.take_while(|word| !word.starts_with("--")).map(String::as_str).collect()
}

/// Does a measurement of learning dynamics begin anew? It cannot go on over other sets of samples, in another order, or over other
/// checkpoints than those whose directory it finds.
fn measures_anew(task: &Task, out: &Path, command: &[String]) -> Result<bool> {
    let key = values(command, "--out").first().map(|place| Path::new(place).join("dynamics.key.json"));
    let Some(Ok(found)) = key.map(|key| files::read_json::<serde_json::Value>(&key)) else { return Ok(false) };
    let sets = |command: &[String]| {
        ["--train", "--prior"].map(|flag| values(command, flag).into_iter().map(String::from).collect::<Vec<_>>())
    };
    let names = |sets: &[Vec<String>; 2]| -> Vec<String> {
        sets.iter().flatten().map(|set| set.split('=').next().unwrap_or_default().to_string()).collect()
    };
    let step = |model: &str| {
        let name = Path::new(model).file_name()?.to_str()?;
        name.starts_with("step-").then(|| name.to_string())
    };
    let (now, list) = (sets(command), |list: &serde_json::Value| list.as_array().cloned().unwrap_or_default());
    let order: Vec<String> =
        list(&found["key"]["order"]).iter().filter_map(|name| name.as_str().map(String::from)).collect();
    let steps: Vec<String> =
        list(&found["checkpoints"]).iter().filter_map(|model| step(model["dir"].as_str()?)).collect();
    let steps_now: Vec<String> = values(command, "--model").into_iter().filter_map(step).collect();
    if order != names(&now) || steps != steps_now {
        return Ok(true);
    }
    // The same names may stand for other data.
    let before = Record::read(out, &task.name)?.map(|record| sets(&record.command_for(out, task)));
    Ok(before.is_some_and(|before| names(&before) == names(&now) && before != now))
}

fn last_line(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().to_string())
}

#[cfg(test)]
mod tests {
    use super::super::task::{Kind, Work};
    use super::*;

    #[test]
    fn dynamics_begin_anew_over_other_sets_or_checkpoints_and_go_on_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("dynamics/base");
        let measurement = |train: &[&str], steps: &[&str]| -> Task {
            let models = steps.iter().copied().chain(["runs/a/model"]);
            let words = ["dynamics", "--model"].into_iter().chain(models).chain(["--base", "b", "--train"]);
            let words = words.chain(train.iter().copied()).chain(["--prior", "vqa=v.tsv", "--out"]).map(String::from);
            let command = words.chain([place.display().to_string()]).collect();
            let work = Work { kind: Kind::Pair, units: 1.0 };
            let (name, section) = ("dynamics.base".into(), "dynamics".into());
            Task { name, section, needs: Vec::new(), command, way: None, inputs: Vec::new(), work, aggregates: true }
        };
        let fresh = |train: &[&str], steps: &[&str]| {
            let all = arguments(&measurement(train, steps), dir.path(), "cpu").unwrap();
            all.last().is_some_and(|last| last == "--fresh")
        };
        let first = "runs/a/checkpoints/step-00000002";
        assert!(!fresh(&["a=1"], &[first]), "nothing is there");
        std::fs::create_dir_all(&place).unwrap();
        let key = serde_json::json!({
            "key": { "order": ["a", "vqa"] },
            "checkpoints": [{ "dir": format!("/elsewhere/{first}") }, { "dir": "/elsewhere/runs/a/model" }],
        });
        std::fs::write(place.join("dynamics.key.json"), key.to_string()).unwrap();
        assert!(!fresh(&["a=1"], &[first]), "it goes on");
        assert!(fresh(&["a=1", "c=2"], &[first]), "another set of samples");
        assert!(fresh(&["a=1"], &[first, "runs/a/checkpoints/step-00000004"]), "a checkpoint before the last model");
        let record = Record { command: measurement(&["a=1"], &[first]).command, ..Record::default() };
        record.write(dir.path(), "dynamics.base").unwrap();
        assert!(!fresh(&["a=1"], &[first]), "the same again");
        assert!(fresh(&["a=2"], &[first]), "other data of the same name");
    }
}
