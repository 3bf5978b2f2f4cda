//! What the executors of a study share: how its tasks are run, and what a call of `jigsaw study` does before it runs or submits any.
//!
//! The local executor ([`super::run()`]) runs the tasks as processes of its own. The other one ([`super::slurm::submit`]) has a queue run them,
//! each by a call of the local one on a node.
//!
//! The directory of a study may lie on a file system that several machines share, such as NFS. Two things are relied on: a file that is renamed
//! within its directory is there whole, and a directory that is opened shows what others have written ([`await_needs`]). Each file is written by
//! one process at a time. A lock keeps a second process from a task where locks are known to all machines; elsewhere the queue does, which
//! runs a job once.

use super::attempt::{Attempt, Ended};
use super::completion::CompletionRecord;
use super::remaining::{finished_aggregates, finished_tasks, wanted_tasks};
use super::task::{Plan, StudyTask};
use crate::io::{files, output_dir};
use crate::{Error, Result};
use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};
use walkdir::WalkDir;

/// The file of a study, as it was asked for.
pub(super) const STUDY_TOML: &str = "study.toml";
/// Longest wait for what another machine has written. A client of NFS may believe for a minute that a file is not there (`acdirmax`).
const PATIENCE: Duration = Duration::from_secs(65);
/// Depth to which directories are opened for it: the files of a model of a run.
const LOOK: usize = 4;

/// How to run a study.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Tasks at once.
    pub jobs: usize,
    /// Where to compute: `cpu`, `cuda`, `cuda:N`.
    pub device: String,
    /// Only these tasks, whose needs must be done; all when empty.
    pub only: Vec<String>,
    /// How often a task that failed is tried again in the same call.
    pub retries: usize,
    /// Processes of a training run.
    pub ntasks: usize,
    /// The words before a training run of several processes, such as `mpirun`, without their number.
    pub launcher: Vec<String>,
    /// The job that this process is, as the queue names it.
    pub job: Option<String>,
}

impl RunOptions {
    /// The words before the program for a task: the launcher with the number of processes. None for what runs as one process.
    pub(super) fn launched(&self, task: &StudyTask) -> Vec<String> {
        match self.ntasks {
            n if n > 1 && task.trains() => {
                self.launcher.iter().cloned().chain(["-n".to_string(), n.to_string()]).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// What a call is to do.
pub(super) struct Work<'a> {
    /// The tasks that it was asked for.
    pub wanted: Vec<&'a StudyTask>,
    /// Names of the tasks that are finished.
    pub finished: HashSet<&'a str>,
}

/// See what is to be done, and make `out` the study's.
///
/// # Errors
/// Input errors before anything is changed: `out` holds something else, or a task done with other settings; `options.only` names an unknown task,
/// or one that needs a task that is not done.
pub(super) fn begin<'a>(plan: &'a Plan, toml: &str, out: &Path, options: &RunOptions) -> Result<Work<'a>> {
    if !out.join(STUDY_TOML).exists() && files::has_other_files(out, |_| false) {
        return Err(Error::input(format!("{} is not empty and holds no study; give another --out", out.display())));
    }
    if options.job.is_some() {
        await_needs(plan, out, &options.only);
    }
    let mut finished = finished_tasks(plan, out)?;
    let wanted = wanted_tasks(plan, &options.only, &finished)?;
    claim(plan, toml, out)?;
    finished.extend(finished_aggregates(plan, out, &wanted, &finished)?);
    Ok(Work { wanted, finished })
}

/// Make the directory the study's.
fn claim(plan: &Plan, toml: &str, out: &Path) -> Result<()> {
    files::create_dir(out)?;
    // Several processes may work on a study. What is tidied up is what processes of this machine have left that are gone.
    output_dir::tidy(out);
    files::write_changed(&out.join(STUDY_TOML), toml.as_bytes())?;
    plan.index.with_trained(out)?.write(out)
}

/// Wait until the tasks that `only` needs are seen to be done, unless one is known to be lost: a job is started when the jobs before it have ended,
/// and what they have written on other machines may not be seen here yet. A client of NFS looks again when a directory is opened.
fn await_needs(plan: &Plan, out: &Path, only: &[String]) {
    let needs = only.iter().filter_map(|name| plan.find(name)).flat_map(|task| &task.needs);
    let mut missing: Vec<&String> = needs.filter(|need| !only.contains(need)).collect();
    let begun = Instant::now();
    loop {
        let entries = WalkDir::new(out).max_depth(LOOK).into_iter();
        entries.filter_entry(|entry| entry.file_name() != "images").for_each(drop);
        missing.retain(|need| !is_recorded(out, need) && !is_lost(plan, out, need));
        if missing.is_empty() || begun.elapsed() > PATIENCE {
            return;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Whether a task is known to have failed or stopped, or to need one that has.
fn is_lost(plan: &Plan, out: &Path, task: &str) -> bool {
    let ended = Attempt::read(out, task).and_then(|attempt| attempt.ended);
    let lost = |need: &String| !is_recorded(out, need) && is_lost(plan, out, need);
    matches!(ended, Some(Ended::Failed(_) | Ended::Stopped))
        || plan.find(task).is_some_and(|task| task.needs.iter().any(lost))
}

fn is_recorded(out: &Path, task: &str) -> bool {
    CompletionRecord::read(out, task).is_ok_and(|record| record.is_some())
}
