//! Runs a task as a child process of this program. Its output goes to a log, and a lock on the log says that the task is being worked on.
//! The output passes through the study ([`TaskLog`]).

use super::attempt::{Attempt, Ended};
use super::command::JigsawCommand;
use super::completion::{CompletionRecord, is_done, request};
use super::executor::RunOptions;
use super::study_file::ResolveConfig;
use super::task::StudyTask;
use super::task_log::TaskLog;
use crate::dynamics::DynamicsRequest;
use crate::io::files;
use crate::{Error, Result};
use serde_json::Value;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Environment variable of the processes of a study. Their standard input stays open as long as the study runs.
pub const CHILD_OF_STUDY: &str = "JIGSAW_CHILD_OF_STUDY";

/// A running task.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: TaskLog,
    /// The log, locked until the record is written: whoever gets the lock next finds the task done.
    _lock: File,
    started: Instant,
    stopping: bool,
    code: Option<i32>,
    /// What to record when it has finished, but for the time. The hashes of the inputs are those at the start.
    pub record: CompletionRecord,
    /// What is known of this attempt.
    pub attempt: Attempt,
}

/// Result of starting a task.
#[derive(Debug)]
pub enum StartResult {
    /// The process runs.
    Started(Box<Process>),
    /// Another process has finished the task in the meantime.
    Done,
    /// Another process is working on the task.
    Locked,
}

/// Log file of a task.
pub fn log(out: &Path, task: &str) -> PathBuf {
    out.join("logs").join(format!("{task}.log"))
}

impl Process {
    /// Start `task` with `threads` threads. `resolve` reads the settings of finished runs.
    ///
    /// # Errors
    /// The log or the process cannot be made.
    pub fn start(
        task: &StudyTask,
        out: &Path,
        options: &RunOptions,
        threads: Option<usize>,
        resolve: ResolveConfig,
    ) -> Result<StartResult> {
        let path = log(out, &task.name);
        files::create_dir(&out.join("logs"))?;
        let whole = !path.exists();
        let failed = |e: std::io::Error| Error::failed(format!("{}: {e}", path.display()));
        let file = OpenOptions::new().append(true).create(true).open(&path).map_err(failed)?;
        // The lock belongs to the open file, which the child inherits below: it is released when neither has it open.
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(StartResult::Locked),
            // On a file system without locks, tasks run without one.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        if !task.aggregates && is_done(out, task)? {
            return Ok(StartResult::Done);
        }
        let hashed = task.inputs.iter().filter_map(|input| Some((input.path.display().to_string(), input.hash()?)));
        let record = CompletionRecord { files: hashed.collect(), whole, ..CompletionRecord::of(task, out)? };
        let program = std::env::current_exe().map_err(|e| Error::failed(format!("cannot find this program: {e}")))?;
        let launcher = options.launched(task);
        let mut child = match launcher.split_first() {
            Some((first, words)) => {
                let mut child = std::process::Command::new(first);
                child.args(words).arg(program);
                child
            }
            None => std::process::Command::new(program),
        };
        child.args(arguments(task, out, &options.device, resolve)?).env(CHILD_OF_STUDY, "1").stdin(Stdio::piped());
        let (output, said) = std::io::pipe().map_err(failed)?;
        child.stdout(said.try_clone().map_err(failed)?).stderr(said);
        if let Some(threads) = threads {
            child.env("RAYON_NUM_THREADS", threads.to_string());
        }
        // Ctrl-C reaches the study alone, which then stops its processes.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut child, 0);
        let cannot_start = |e: std::io::Error| match launcher.first() {
            Some(launcher) if e.kind() == ErrorKind::NotFound => Error::input(format!(
                "cannot start {}: {launcher} is not on the PATH; give what starts processes of MPI here with --launcher",
                task.name
            )),
            _ => Error::failed(format!("cannot start {}: {e}", task.name)),
        };
        let log = TaskLog::start(output, file.try_clone().map_err(failed)?).map_err(cannot_start)?;
        inherit(&file, true).map_err(failed)?;
        let spawned = child.spawn().map_err(cannot_start);
        inherit(&file, false).map_err(failed)?;
        // What the command holds of the pipe is closed with it, so that the output ends with the child.
        drop(child);
        let child = spawned?;
        let attempt = Attempt::begin(child.id(), options.job.clone());
        // A full disk must not keep the task from running.
        let _ = attempt.write(out, &task.name);
        let started = Instant::now();
        let process = Process { child, log, _lock: file, started, stopping: false, code: None, record, attempt };
        Ok(StartResult::Started(Box::new(process)))
    }

    /// How it ended, or `None` while it runs.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn ended(&mut self) -> Result<Option<Ended>> {
        let status = self.child.try_wait().map_err(|e| Error::failed(format!("cannot wait for a process: {e}")))?;
        let Some(status) = status else { return Ok(None) };
        self.code = status.code();
        #[cfg(unix)]
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        #[cfg(not(unix))]
        let signal: Option<i32> = None;
        Ok(Some(match (status.code(), signal) {
            (Some(0), _) => Ended::Done,
            (Some(130 | 143), _) => Ended::Stopped,
            _ if self.stopping => Ended::Stopped,
            (Some(code), _) => Ended::Failed(format!("exit code {code}: {}", self.log.reason())),
            (None, signal) => {
                Ended::Failed(format!("killed by signal {}: {}", signal.unwrap_or_default(), self.log.reason()))
            }
        }))
    }

    /// Whether it has ended because its command or an input is not usable: the same again would end the same.
    pub fn refused(&self) -> bool {
        self.code == Some(2)
    }

    /// Ask the process to save and stop.
    pub fn stop(&mut self) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        #[cfg(unix)]
        {
            use rustix::process::{Pid, Signal, kill_process};
            // A launcher passes it on, where after SIGTERM it kills its processes before they have saved. Where a queue has sent SIGTERM to
            // all processes of a job, it is no second one, which would end the child at once.
            let _ = kill_process(Pid::from_child(&self.child), Signal::USR1);
        }
        #[cfg(not(unix))]
        let _ = self.child.kill();
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The last line that it said.
    pub fn last_line(&self) -> String {
        self.log.last_line()
    }
}

/// Whether processes that are started now inherit the open file.
#[cfg(unix)]
fn inherit(file: &File, inherited: bool) -> std::io::Result<()> {
    use rustix::io::{FdFlags, fcntl_setfd};
    fcntl_setfd(file, if inherited { FdFlags::empty() } else { FdFlags::CLOEXEC }).map_err(Into::into)
}

/// Elsewhere none do: a task that outlives its study is then not seen to be at work.
#[cfg(not(unix))]
fn inherit(_file: &File, _inherited: bool) -> std::io::Result<()> {
    Ok(())
}

/// The command line of the process: with the checkpoints that the run has kept, and the device.
fn arguments(task: &StudyTask, out: &Path, device: &str, resolve: ResolveConfig) -> Result<Vec<String>> {
    let checkpoints = task.checkpoints.as_ref().map(|checkpoints| checkpoints.find(resolve)).transpose()?;
    let mut command = task.command.with_checkpoints(&checkpoints.unwrap_or_default());
    if let JigsawCommand::Dynamics(request) = &mut command {
        request.fresh = starts_over(task, request, out)?;
    }
    let mut arguments = command.arguments();
    if command.uses_device() && device != "cpu" {
        arguments.extend(["--device".into(), device.into()]);
    }
    Ok(arguments)
}

/// Must a measurement of learning dynamics start over? It cannot resume with other sets of samples, in another order, or over other
/// checkpoints than those that its directory holds.
fn starts_over(task: &StudyTask, now: &DynamicsRequest, out: &Path) -> Result<bool> {
    let Ok(found) = files::read_json::<Value>(&now.out.join("dynamics.key.json")) else { return Ok(false) };
    let list = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let order: Vec<String> =
        list(&found["key"]["order"]).iter().filter_map(|name| name.as_str().map(String::from)).collect();
    let names: Vec<&str> = now.train.iter().chain(&now.prior).map(|spec| spec.name.as_str()).collect();
    let step = |model: &Path| {
        let name = model.file_name()?.to_str()?;
        name.starts_with("step-").then(|| name.to_string())
    };
    let steps: Vec<String> =
        list(&found["checkpoints"]).iter().filter_map(|model| step(Path::new(model["dir"].as_str()?))).collect();
    let steps_now: Vec<String> = now.models.iter().filter_map(|model| step(model)).collect();
    if order != names || steps != steps_now {
        return Ok(true);
    }
    // The same names may stand for other data.
    let Some(before) = CompletionRecord::read(out, &task.name)? else { return Ok(false) };
    let data = |request: &Value| ["train", "prior"].map(|sets| request[sets].clone());
    let names =
        |sets: &[Value; 2]| -> Vec<Value> { sets.iter().flat_map(list).map(|spec| spec["name"].clone()).collect() };
    let (before, now) = (data(&before.request), data(&request(task, out)?));
    Ok(names(&before) == names(&now) && before != now)
}

#[cfg(test)]
mod tests {
    use super::super::task::TaskKind;
    use super::*;
    use crate::dynamics::InfluenceConfig;
    use crate::eval::bench::BenchmarkSpec;

    #[test]
    fn dynamics_start_over_with_other_sets_or_checkpoints_and_resume_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("dynamics/base");
        let measurement = |train: &[&str], steps: &[&str]| -> StudyTask {
            let models = steps.iter().copied().chain(["runs/a/model"]).map(PathBuf::from).collect();
            let specs =
                |texts: &[&str]| texts.iter().map(|text| BenchmarkSpec::parse(text, "train").unwrap()).collect();
            let request = DynamicsRequest {
                models,
                base: "b".into(),
                train: specs(train),
                prior: specs(&["vqa=v.tsv"]),
                config: InfluenceConfig::default(),
                max_new_tokens: None,
                forgetting: Vec::new(),
                out: place.clone(),
                fresh: false,
            };
            let command = JigsawCommand::Dynamics(request);
            StudyTask {
                aggregates: true,
                ..StudyTask::new("dynamics.base", "dynamics", Vec::new(), command, TaskKind::Pair, 1.0)
            }
        };
        let fresh = |train: &[&str], steps: &[&str]| {
            let resolve: ResolveConfig = |_, _, _| unreachable!("no intermediate checkpoints are asked for");
            let all = arguments(&measurement(train, steps), dir.path(), "cpu", resolve).unwrap();
            all.iter().any(|word| word == "--fresh")
        };
        let first = "runs/a/checkpoints/step-00000002";
        assert!(!fresh(&["a=1"], &[first]), "nothing is there");
        std::fs::create_dir_all(&place).unwrap();
        let key = serde_json::json!({
            "key": { "order": ["a", "vqa"] },
            "checkpoints": [{ "dir": format!("/elsewhere/{first}") }, { "dir": "/elsewhere/runs/a/model" }],
        });
        std::fs::write(place.join("dynamics.key.json"), key.to_string()).unwrap();
        assert!(!fresh(&["a=1"], &[first]), "it resumes");
        assert!(fresh(&["a=1", "c=2"], &[first]), "another set of samples");
        assert!(fresh(&["a=1"], &[first, "runs/a/checkpoints/step-00000004"]), "a checkpoint before the last model");
        let record = CompletionRecord::of(&measurement(&["a=1"], &[first]), dir.path()).unwrap();
        record.write(dir.path(), "dynamics.base").unwrap();
        assert!(!fresh(&["a=1"], &[first]), "the same again");
        assert!(fresh(&["a=2"], &[first]), "other data of the same name");
    }
}
