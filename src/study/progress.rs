//! How far a study has come, read from its directory by a process that does not run it.

use super::completion::CompletionRecord;
use super::plan::plan;
use super::process;
use super::run::STUDY_TOML;
use super::study_file::{ResolveConfig, Study};
use super::task::StudyTask;
use super::throughput::Throughput;
use crate::Result;
use crate::report::{StudyTasks, TaskUnderWay};
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes at the end of a log in which its last line is looked for.
const TAIL: u64 = 4000;

/// The tasks of the study in `out`; `None` if there is no study.
///
/// # Errors
/// The study's file or a record of a task cannot be read.
pub fn progress(out: &Path, resolve: ResolveConfig) -> Result<Option<StudyTasks>> {
    let file = out.join(STUDY_TOML);
    if !file.is_file() {
        return Ok(None);
    }
    let plan = plan(&Study::read(&file, &[], resolve)?, out)?;
    let mut tasks = StudyTasks { total: plan.tasks.len(), ..StudyTasks::default() };
    let (mut missing, mut jobs, mut spent): (Vec<&StudyTask>, usize, f64) = (Vec::new(), 1, 0.0);
    for task in &plan.tasks {
        if let Some(record) = CompletionRecord::read(out, &task.name)? {
            jobs = jobs.max(record.jobs);
            tasks.done.push(task.name.clone());
            continue;
        }
        missing.push(task);
        let Ok(mut log) = File::open(process::log(out, &task.name)) else {
            tasks.left.push(task.name.clone());
            continue;
        };
        let begun = TaskUnderWay { name: task.name.clone(), said: last_line(&mut log) };
        if matches!(log.try_lock_shared(), Err(TryLockError::WouldBlock)) {
            let started = log.metadata().and_then(|found| found.created()).ok().and_then(|at| at.elapsed().ok());
            spent += started.map_or(0.0, |time| time.as_secs_f64());
            tasks.running.push(begun);
        } else {
            tasks.stopped.push(begun);
        }
    }
    let jobs = jobs.max(tasks.running.len());
    let throughput = Throughput::of(&plan.tasks, out)?;
    let timed: Vec<f64> = missing.iter().filter_map(|task| throughput.seconds(task)).collect();
    tasks.not_timed = missing.len() - timed.len();
    tasks.seconds_left = ((timed.iter().sum::<f64>() - spent) / jobs as f64).max(0.0);
    Ok(Some(tasks))
}

/// The last line with a letter in it, if it can be read.
fn last_line(log: &mut File) -> String {
    let length = log.metadata().map_or(0, |found| found.len());
    let mut end = Vec::new();
    let _ = log.seek(SeekFrom::Start(length.saturating_sub(TAIL))).and_then(|_| log.read_to_end(&mut end));
    String::from_utf8_lossy(&end).lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_string()
}
