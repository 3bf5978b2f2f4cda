//! A task as a process of its own: this program again, its output in a log that says by a lock whether somebody is at work.

use super::record::done;
use super::task::{Task, checkpoints};
use crate::{Error, Result, files};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Set in the processes of a study: their standard input is open as long as the study lives.
pub const OF_A_STUDY: &str = "JIGSAW_OF_A_STUDY";
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
}

/// What became of an attempt to begin.
#[derive(Debug)]
pub enum Begun {
    /// It is under way.
    Here(Process),
    /// Another process has done it meanwhile.
    Already,
    /// Another process, of another call perhaps, is working on it.
    Elsewhere,
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
    pub fn begin(task: &Task, out: &Path, way: usize, device: &str, threads: Option<usize>) -> Result<Begun> {
        let path = log(out, &task.name);
        files::create_dir(&out.join("logs"))?;
        let whole = !path.exists();
        let failed = |e: std::io::Error| Error::failed(format!("{}: {e}", path.display()));
        let file = OpenOptions::new().append(true).create(true).open(&path).map_err(failed)?;
        // The lock belongs to the open file, which the process inherits: it is let go when neither has it open.
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(Begun::Elsewhere),
            // A file system without locks stops nobody.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        if !task.sums_up && done(out, task)? {
            return Ok(Begun::Already);
        }
        let program = std::env::current_exe().map_err(|e| Error::failed(format!("cannot find this program: {e}")))?;
        let mut command = Command::new(program);
        command.args(arguments(task, way, device)?).env(OF_A_STUDY, "1").stdin(Stdio::piped());
        command.stdout(file.try_clone().map_err(failed)?).stderr(file.try_clone().map_err(failed)?);
        if let Some(threads) = threads {
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        // Ctrl-C reaches the study alone, which tells its processes.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().map_err(|e| Error::failed(format!("cannot start {}: {e}", task.name)))?;
        Ok(Begun::Here(Process { child, log: path, _lock: file, started: Instant::now(), told: false, whole }))
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
fn arguments(task: &Task, way: usize, device: &str) -> Result<Vec<String>> {
    let mut all = Vec::new();
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
    Ok(all)
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
