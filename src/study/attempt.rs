//! Where a task was last begun and how that ended: `OUT/attempts/TASK.json`, for people who ask how a study stands. What is done is known by the
//! records of finished tasks alone.

use crate::Result;
use crate::io::files;
use crate::machine::host_name;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Finished.
    Done,
    /// Stopped by a signal after saving.
    Stopped,
    /// Failed, with the reason.
    Failed(String),
    /// Failed, with the reason, and is tried again.
    Retried(String),
}

/// An attempt at a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Name of the machine.
    pub host: String,
    /// Id of the process there.
    pub process: u32,
    /// The job that it was part of, as the queue names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// How it ended; nothing as long as it runs, and where whoever ran it was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

fn path(out: &Path, task: &str) -> PathBuf {
    out.join("attempts").join(format!("{task}.json"))
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl Attempt {
    /// An attempt that begins now, as a process of this machine.
    pub fn begin(process: u32, job: Option<String>) -> Attempt {
        Attempt { host: host_name(), process, job, started: now(), ended: None }
    }

    /// The last attempt at a task, if it can be read.
    pub fn read(out: &Path, task: &str) -> Option<Attempt> {
        files::read_json(&path(out, task)).ok()
    }

    /// Write it.
    ///
    /// # Errors
    /// A file that cannot be written. It keeps nobody from the work.
    pub fn write(&self, out: &Path, task: &str) -> Result<()> {
        files::create_dir(&out.join("attempts"))?;
        files::write_json(&path(out, task), self)
    }

    /// Whether its process lives on this machine.
    pub fn is_alive(&self) -> bool {
        #[cfg(unix)]
        let lives = |pid| rustix::process::test_kill_process(pid).is_ok();
        #[cfg(unix)]
        return self.host == host_name()
            && i32::try_from(self.process).ok().and_then(rustix::process::Pid::from_raw).is_some_and(lives);
        #[cfg(not(unix))]
        return false;
    }

    /// Seconds since it began.
    pub fn elapsed(&self) -> f64 {
        now().saturating_sub(self.started) as f64
    }
}
