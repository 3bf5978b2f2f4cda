//! How a study stands, read from its directory by a process that does not run it, and from Slurm's queue where tasks were submitted there.

use super::attempt::{Attempt, Ended};
use super::completion::CompletionRecord;
use super::executor::STUDY_TOML;
use super::plan::plan;
use super::process;
use super::slurm::{JobState, Queue, job_log};
use super::study_file::{ResolveConfig, Study};
use super::task::StudyTask;
use super::task_log::{last_line, reason, tail};
use super::throughput::Throughput;
use crate::Result;
use crate::report::{StudyTasks, TaskUnderWay};
use std::collections::{HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::path::Path;

/// How a task stands that is not done.
enum Standing {
    /// A process works on it.
    Running,
    /// It waits in a queue.
    Queued,
    /// It failed.
    Failed,
    /// It has begun, and no process works on it.
    Stopped,
    /// It has not begun.
    Left,
}

/// The tasks of the study in `out`; `None` if there is no study. Slurm is asked only if `ask` says so, which may take seconds.
///
/// # Errors
/// The study's file or a record of a task or a job cannot be read.
pub fn status(out: &Path, resolve: ResolveConfig, ask: bool) -> Result<Option<StudyTasks>> {
    let file = out.join(STUDY_TOML);
    if !file.is_file() {
        return Ok(None);
    }
    let plan = plan(&Study::read(&file, &[], resolve)?, out)?;
    let mut records: HashMap<&str, Option<CompletionRecord>> = HashMap::new();
    for task in &plan.tasks {
        records.insert(&task.name, CompletionRecord::read(out, &task.name)?);
    }
    let is_done = |task: &str| records.get(task).is_some_and(Option::is_some);
    let mut queue = if ask { Queue::read(out)? } else { Queue::default() };
    let missing: Vec<&StudyTask> = plan.tasks.iter().filter(|task| !is_done(&task.name)).collect();
    if let Err(e) = queue.ask(missing.iter().map(|task| task.name.as_str())) {
        queue.notes.push(format!("what is queued is not known: {e}"));
    }
    let mut tasks = StudyTasks { total: plan.tasks.len(), ..StudyTasks::default() };
    tasks.done = plan.tasks.iter().map(|task| task.name.clone()).filter(|task| is_done(task)).collect();
    // Failed, or in need of one that failed.
    let mut hopeless: HashSet<&str> = HashSet::new();
    let mut spent: HashMap<&str, f64> = HashMap::new();
    for task in &missing {
        let ready = task.name == "report" || task.needs.iter().all(|need| is_done(need));
        let attempt = Attempt::read(out, &task.name);
        let (standing, place, said) = stand(task, out, attempt.as_ref(), &queue, ready);
        let one = TaskUnderWay { name: task.name.clone(), place, said };
        match standing {
            Standing::Running => {
                spent.insert(&task.name, attempt.map_or(0.0, |attempt| attempt.elapsed()));
                tasks.running.push(one);
            }
            Standing::Queued => tasks.queued.push(one),
            Standing::Failed => {
                hopeless.insert(&task.name);
                tasks.failed.push(one);
            }
            Standing::Stopped => tasks.stopped.push(one),
            Standing::Left => {
                if task.name != "report" && task.needs.iter().any(|need| hopeless.contains(need.as_str())) {
                    hopeless.insert(&task.name);
                    tasks.blocked += 1;
                }
                tasks.left.push(one.name);
            }
        }
    }
    let jobs = records.values().flatten().map(|record| record.jobs).max();
    tasks.at_once = jobs.unwrap_or(1).max(tasks.running.len()).max(1);
    let throughput = Throughput::of(&plan.tasks, out)?;
    let to_come = |task: &&StudyTask| !hopeless.contains(task.name.as_str());
    let to_come: Vec<&StudyTask> = missing.into_iter().filter(to_come).collect();
    tasks.not_timed = to_come.iter().filter(|task| throughput.seconds(task).is_none()).count();
    let seconds = |task: &StudyTask| {
        let spent = spent.get(task.name.as_str()).copied().unwrap_or_default();
        (throughput.seconds(task).unwrap_or_default() - spent).max(0.0)
    };
    tasks.seconds_left = seconds_left(&to_come, seconds, tasks.at_once);
    tasks.notes = queue.notes;
    Ok(Some(tasks))
}

/// How a task stands that is not done, where, and what is said of it.
fn stand(
    task: &StudyTask,
    out: &Path,
    attempt: Option<&Attempt>,
    queue: &Queue,
    ready: bool,
) -> (Standing, String, String) {
    let log = process::log(out, &task.name);
    let job = queue.latest(&task.name);
    let state = job.as_ref().and_then(|(_, element)| queue.state(element));
    // The attempt is part of the last job, or later than it.
    let attempt = attempt.filter(|attempt| {
        job.as_ref().is_none_or(|(job, element)| {
            attempt.job.as_ref() == Some(element) || attempt.job.is_none() && attempt.started >= job.submitted
        })
    });
    let place = place(attempt, job.as_ref().map(|(_, element)| element.as_str()), state);
    let said = last_line(&tail(&log)).trim().to_string();
    if is_at_work(&log, attempt) {
        return (Standing::Running, place, said);
    }
    match (state.filter(|state| state.is_active()), attempt.and_then(|attempt| attempt.ended.as_ref())) {
        (Some(state), _) if state.is_running() => (Standing::Running, place, said),
        (Some(state), _) => (Standing::Queued, place, state.why.clone()),
        (None, Some(Ended::Failed(why) | Ended::Retried(why))) => (Standing::Failed, place, why.clone()),
        (None, Some(Ended::Stopped | Ended::Done)) => (Standing::Stopped, place, said),
        (None, None) => match (&job, state, attempt) {
            (Some((_, element)), Some(state), _) => over(state, out, element, ready || attempt.is_some(), place),
            (Some((job, element)), None, _) if queue.was_asked() => {
                let log = job_log(out, element);
                let why = format!(
                    "job {element} ({}) is gone: Slurm does not know it, and it has left no result; the same command submits the task again ({})",
                    job.name,
                    log.display()
                );
                (Standing::Stopped, place, why)
            }
            (_, _, Some(_)) => (Standing::Stopped, place, said),
            _ if log.exists() => (Standing::Stopped, place, said),
            _ => (Standing::Left, place, String::new()),
        },
    }
}

/// How a task stands whose job is over and which has neither ended nor failed by itself.
fn over(state: &JobState, out: &Path, element: &str, ready: bool, place: String) -> (Standing, String, String) {
    let log = job_log(out, element);
    let what = match state.state.as_str() {
        "CANCELLED" => "the job was cancelled",
        "TIMEOUT" | "DEADLINE" => "the job reached its time limit and was not queued again",
        "PREEMPTED" | "REVOKED" => "the job was preempted and not queued again",
        "NODE_FAIL" | "BOOT_FAIL" => "the node died, and the job was not queued again",
        "OUT_OF_MEMORY" => {
            return (Standing::Failed, place, "the job needed more memory than it has (--mem of sbatch)".into());
        }
        // What it needs is not there, and it has said so.
        _ if !ready => return (Standing::Left, place, String::new()),
        _ => {
            let text = tail(&log);
            let why = if text.contains("error: ") { reason(&text) } else { "the job ended without a word".into() };
            return (Standing::Failed, place, format!("{why} ({})", log.display()));
        }
    };
    (Standing::Stopped, place, format!("{what}; the same command goes on"))
}

/// Where a task runs or ran: the machine with the process, or Slurm's job with its nodes.
fn place(attempt: Option<&Attempt>, element: Option<&str>, state: Option<&JobState>) -> String {
    let nodes = state.map(|state| state.nodes.as_str()).filter(|nodes| !nodes.is_empty());
    let host = nodes.or(attempt.map(|attempt| attempt.host.as_str())).unwrap_or_default();
    let job = attempt.map_or(element, |attempt| attempt.job.as_deref());
    let which = match (job, state, attempt) {
        (Some(job), Some(state), _) => format!("job {job} {}", state.state),
        (Some(job), None, _) => format!("job {job}"),
        (None, _, Some(attempt)) => format!("process {}", attempt.process),
        (None, _, None) => String::new(),
    };
    [host, &which].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(", ")
}

/// Whether a process holds the lock of a log; where there are no locks, whether the process of the attempt lives on this machine.
fn is_at_work(log: &Path, attempt: Option<&Attempt>) -> bool {
    let Ok(log) = File::open(log) else { return false };
    match log.try_lock_shared() {
        Ok(()) => false,
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Error(_)) => attempt.is_some_and(|attempt| attempt.ended.is_none() && attempt.is_alive()),
    }
}

/// Seconds until the tasks have ended, `at_once` of them at a time, each after those that it needs: always the one is taken that can begin
/// first.
fn seconds_left(tasks: &[&StudyTask], seconds: impl Fn(&StudyTask) -> f64, at_once: usize) -> f64 {
    let mut ends: HashMap<&str, f64> = HashMap::new();
    let mut free = vec![0.0f64; at_once];
    let mut waiting: Vec<&StudyTask> = tasks.to_vec();
    let mut names: HashSet<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
    let needs = |task: &StudyTask, ends: &HashMap<&str, f64>| {
        task.needs.iter().filter_map(|need| ends.get(need.as_str())).fold(0.0, |last: f64, end| last.max(*end))
    };
    while let Some((begin, at)) = waiting
        .iter()
        .enumerate()
        .filter(|(_, task)| !task.needs.iter().any(|need| names.contains(need.as_str())))
        .map(|(at, task)| (needs(task, &ends), at))
        .min_by(|one, other| one.0.total_cmp(&other.0))
        && let Some(worker) = free.iter_mut().min_by(|one, other| one.total_cmp(other))
    {
        let task = waiting.remove(at);
        names.remove(task.name.as_str());
        *worker = worker.max(begin) + seconds(task);
        ends.insert(&task.name, *worker);
    }
    ends.into_values().fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::super::command::{JigsawCommand, Report};
    use super::super::task::TaskKind;
    use super::*;

    fn task(name: &str, needs: &[&str]) -> StudyTask {
        let command = JigsawCommand::Report(Report { runs: Vec::new(), title: String::new(), out: "r.html".into() });
        let needs = needs.iter().map(|need| need.to_string()).collect();
        StudyTask::new(name, "x", needs, command, TaskKind::Small, 1.0)
    }

    #[test]
    fn the_end_depends_on_what_waits_for_what_and_on_how_many_run_at_once() {
        let tasks = [task("a", &["done"]), task("b", &["a"]), task("c", &[]), task("d", &["b", "c"])];
        let tasks: Vec<&StudyTask> = tasks.iter().collect();
        let each = |task: &StudyTask| if task.name == "c" { 25.0 } else { 10.0 };
        let left = [1, 2, 9].map(|at_once| seconds_left(&tasks, each, at_once));
        assert_eq!(left, [55.0, 35.0, 35.0]);
        assert_eq!(seconds_left(&[], each, 1), 0.0);
    }

    #[test]
    fn a_job_that_is_over_says_what_became_of_its_task() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("slurm")).unwrap();
        std::fs::write(job_log(dir.path(), "7_0"), "slurmstepd: x\nerror: no such file\n").unwrap();
        let said = |state: &str, ready: bool| {
            let state = JobState { state: state.into(), why: String::new(), nodes: "node1".into() };
            let (standing, _, said) = over(&state, dir.path(), "7_0", ready, String::new());
            let kind = match standing {
                Standing::Failed => "failed",
                Standing::Stopped => "stopped",
                Standing::Left => "left",
                Standing::Running | Standing::Queued => "other",
            };
            format!("{kind}: {said}")
        };
        let log = job_log(dir.path(), "7_0");
        assert_eq!(said("FAILED", true), format!("failed: no such file ({})", log.display()));
        assert_eq!(said("FAILED", false), "left: ");
        std::fs::write(&log, "[1/1] train.a\n").unwrap();
        assert!(said("FAILED", true).starts_with("failed: the job ended without a word"));
        assert!(said("OUT_OF_MEMORY", true).starts_with("failed: the job needed more memory"));
        for (state, part) in [("CANCELLED", "was cancelled"), ("NODE_FAIL", "node died"), ("TIMEOUT", "time limit")] {
            assert!(said(state, true).starts_with("stopped: ") && said(state, false).contains(part), "{state}");
        }
    }
}
