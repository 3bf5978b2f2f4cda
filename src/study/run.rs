//! Runs the tasks of a study that are not done, several at a time, each when the tasks that it needs are done.

use super::attempt::Ended;
use super::completion::CompletionRecord;
use super::executor::{RunOptions, Work, begin};
use super::process::{Process, StartResult};
use super::task::{Plan, StudyTask};
use super::throughput::Throughput;
use crate::Result;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time between two looks at the processes.
const POLL: Duration = Duration::from_millis(100);

/// Follows the progress of a study.
pub trait StudyObserver {
    /// A task has started.
    fn started(&mut self, task: &StudyTask, state: &StudyState<'_>);
    /// A task ended, after so many seconds.
    fn ended(&mut self, task: &StudyTask, ended: &Ended, seconds: f64, state: &StudyState<'_>);
    /// Another process is working on a task.
    fn locked(&mut self, task: &StudyTask);
    /// Called a few times a second.
    fn tick(&mut self, state: &StudyState<'_>);
}

/// How far a study has come.
#[derive(Debug)]
pub struct StudyState<'a> {
    /// Tasks done, before and now.
    pub done: usize,
    /// Tasks in all.
    pub total: usize,
    /// Running tasks: name, seconds so far, last line of the log.
    pub running: Vec<(&'a str, f64, String)>,
    /// Estimated seconds left, if every kind of task that is left has been measured.
    pub left: Option<f64>,
}

/// How a call of [`run`] ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that was asked for is done.
    Finished,
    /// Stopped on request; the same call resumes.
    Stopped,
    /// Some tasks failed: name and reason. All others are done, except those that need them.
    Failed(Vec<(String, String)>),
}

/// Run the tasks of `plan` that are not done in `out`. `stop`, once set, makes the running tasks save and stop.
///
/// # Errors
/// Input errors before anything is started: `out` holds something else, or a task done with other settings; `options.only` names an
/// unknown task, or one that needs a task that is not done (the report is made of whatever is there). Later, an input error if tasks of a sequence
/// share examples: what runs then saves and stops.
pub fn run(
    plan: &Plan,
    toml: &str,
    out: &Path,
    options: &RunOptions,
    stop: &AtomicBool,
    progress: &mut dyn StudyObserver,
) -> Result<Outcome> {
    let Work { wanted, finished } = begin(plan, toml, out, options)?;
    let mut runner = Runner {
        out,
        options,
        plan,
        wanted,
        finished,
        failed: Vec::new(),
        retried: HashMap::new(),
        running: HashMap::new(),
        reported_locked: HashSet::new(),
    };
    let mut throughput = Throughput::of(&plan.tasks, out)?;
    while runner.step(&mut throughput, stop, progress)? {
        progress.tick(&runner.state(&throughput));
        std::thread::sleep(POLL);
    }
    if !runner.failed.is_empty() {
        return Ok(Outcome::Failed(runner.failed));
    }
    let left = runner.wanted.iter().any(|task| !runner.finished.contains(task.name.as_str()));
    Ok(if left { Outcome::Stopped } else { Outcome::Finished })
}

struct Runner<'a> {
    out: &'a Path,
    options: &'a RunOptions,
    plan: &'a Plan,
    wanted: Vec<&'a StudyTask>,
    finished: HashSet<&'a str>,
    failed: Vec<(String, String)>,
    /// How often tasks were tried again.
    retried: HashMap<&'a str, usize>,
    running: HashMap<&'a str, Box<Process>>,
    /// Tasks that were reported as being worked on by another process.
    reported_locked: HashSet<&'a str>,
}

impl<'a> Runner<'a> {
    /// Record the tasks that have ended and start those that can be; returns whether there is more to wait for.
    fn step(
        &mut self,
        throughput: &mut Throughput,
        stop: &AtomicBool,
        progress: &mut dyn StudyObserver,
    ) -> Result<bool> {
        let stopping = stop.load(Ordering::SeqCst);
        for task in self.wanted.clone() {
            let Some(process) = self.running.get_mut(task.name.as_str()) else { continue };
            if stopping {
                process.stop();
            }
            let Some(mut ended) = process.ended()? else { continue };
            let seconds = process.elapsed().as_secs_f64();
            if let Ended::Failed(why) = &ended
                && !process.refused()
                && !stopping
            {
                let retried = self.retried.entry(&task.name).or_default();
                if *retried < self.options.retries {
                    *retried += 1;
                    ended = Ended::Retried(why.clone());
                }
            }
            // The lock is kept until the record is written.
            let Some(mut process) = self.running.remove(task.name.as_str()) else { continue };
            match &ended {
                Ended::Done => {
                    let record = CompletionRecord { seconds, jobs: self.options.jobs, ..process.record.clone() };
                    record.write(self.out, &task.name)?;
                    self.finished.insert(&task.name);
                    if task.trains() {
                        self.plan.index.with_trained(self.out)?.write(self.out)?;
                    }
                    if record.whole {
                        throughput.add(task.work.kind, task.work.units, seconds);
                    }
                }
                Ended::Stopped | Ended::Retried(_) => {}
                Ended::Failed(why) => self.failed.push((task.name.clone(), why.clone())),
            }
            process.attempt.ended = Some(ended.clone());
            let _ = process.attempt.write(self.out, &task.name);
            drop(process);
            progress.ended(task, &ended, seconds, &self.state(throughput));
        }
        if stopping {
            return Ok(!self.running.is_empty());
        }
        let mut waits = false;
        for task in self.wanted.clone() {
            if self.running.len() >= self.options.jobs {
                break;
            }
            if !self.ready(task) {
                continue;
            }
            if let Some(apart) = &task.apart {
                apart.check().map_err(|e| e.context(format!("[{}]", task.section)))?;
            }
            match Process::start(task, self.out, self.options, self.threads(), self.plan.resolve)? {
                StartResult::Started(process) => {
                    self.running.insert(&task.name, process);
                    progress.started(task, &self.state(throughput));
                }
                StartResult::Done => {
                    self.finished.insert(&task.name);
                    // Tasks that need it can start now.
                    waits = true;
                }
                StartResult::Locked => {
                    waits = true;
                    if self.reported_locked.insert(&task.name) {
                        progress.locked(task);
                    }
                }
            }
        }
        Ok(waits || !self.running.is_empty())
    }

    fn ready(&self, task: &StudyTask) -> bool {
        let name = task.name.as_str();
        let failed = |name: &str| self.failed.iter().any(|(failed, _)| failed == name);
        let wanted = |name: &str| self.wanted.iter().any(|task| task.name == name);
        let over = |need: &String| {
            self.finished.contains(need.as_str())
                // A report shows the tasks that are done.
                || task.name == "report" && !self.may_come(need)
                || !wanted(need) && task.aggregates
        };
        !self.finished.contains(name)
            && !self.running.contains_key(name)
            && !failed(name)
            && task.needs.iter().all(over)
    }

    /// A task may still be done in this call: nothing that it needs has failed.
    fn may_come(&self, name: &str) -> bool {
        if self.failed.iter().any(|(failed, _)| failed == name) {
            return false;
        }
        let task = self.wanted.iter().find(|task| task.name == name);
        task.is_some_and(|task| {
            task.needs.iter().all(|need| self.finished.contains(need.as_str()) || self.may_come(need))
        })
    }

    /// Threads of a process: the machine's cores shared between the jobs; `None` leaves it to the process.
    fn threads(&self) -> Option<usize> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        (self.options.jobs > 1).then(|| (cores / self.options.jobs).max(1))
    }

    fn state(&self, throughput: &Throughput) -> StudyState<'_> {
        let running = self.wanted.iter().filter_map(|task| {
            let process = self.running.get(task.name.as_str())?;
            Some((task.name.as_str(), process.elapsed().as_secs_f64(), process.last_line()))
        });
        let missing = self.wanted.iter().filter(|task| !self.finished.contains(task.name.as_str())).copied();
        let spent: f64 = self.running.values().map(|process| process.elapsed().as_secs_f64()).sum();
        let jobs = self.options.jobs;
        let left = throughput.total(missing, jobs).map(|left| (left - spent / jobs as f64).max(0.0));
        let done = self.wanted.iter().filter(|task| self.finished.contains(task.name.as_str())).count();
        StudyState { done, total: self.wanted.len(), running: running.collect(), left }
    }
}
