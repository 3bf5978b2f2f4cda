//! Runs the tasks of a study that are missing, some at a time, each when what it needs is done.

use super::process::{Ended, Process, StartResult};
use super::record::{Record, Throughput, done};
use super::task::{Plan, Task};
use crate::io::files;
use crate::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What was asked for.
const STUDY_TOML: &str = "study.toml";
/// Between two looks at the processes.
const LOOK: Duration = Duration::from_millis(100);

/// How to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Tasks at once.
    pub jobs: usize,
    /// Where to compute: `cpu`, `cuda`, `cuda:N`.
    pub device: String,
    /// Only these tasks, whose needs must be done; all when empty.
    pub only: Vec<String>,
}

/// Who is told how it goes on.
pub trait Progress {
    /// A task begins.
    fn begins(&mut self, task: &Task, state: &State<'_>);
    /// A task ended, after so many seconds.
    fn ended(&mut self, task: &Task, ended: &Ended, seconds: f64, state: &State<'_>);
    /// Another process works on a task.
    fn elsewhere(&mut self, task: &Task);
    /// Time passes.
    fn tick(&mut self, state: &State<'_>);
}

/// How far it has come.
#[derive(Debug)]
pub struct State<'a> {
    /// Tasks done, before and now.
    pub done: usize,
    /// Tasks in all.
    pub total: usize,
    /// Names, seconds and last words of those under way.
    pub under_way: Vec<(&'a str, f64, String)>,
    /// Seconds that are left, as far as they can be told.
    pub left: Option<f64>,
}

/// How a call of [`run`] ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All is done that was asked for.
    Finished,
    /// Stopped on request; the same call goes on.
    Stopped,
    /// Some tasks failed: name and reason. The rest is done, but for what needs them.
    Failed(Vec<(String, String)>),
}

/// Run what is missing of `plan` in `out`. `stop`, once set, ends the tasks under way after they have saved.
///
/// # Errors
/// An input error before anything is begun: `out` holds something else, or a task done with other settings; `settings.only` names
/// what is not there, or what needs something that is not done (but for the report, which is made of what there is).
pub fn run(
    plan: &Plan,
    toml: &str,
    out: &Path,
    settings: &Settings,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Outcome> {
    check(out)?;
    let mut finished = HashSet::new();
    for task in &plan.tasks {
        if done(out, task)? && !task.aggregates {
            finished.insert(task.name.as_str());
        }
    }
    let wanted = wanted(plan, settings, &finished)?;
    claim(plan, toml, out)?;
    // What sums up, and has grown no further, is not done again.
    let fresh = wanted.iter().any(|task| !task.aggregates && !finished.contains(task.name.as_str()));
    for task in plan.tasks.iter().filter(|task| task.aggregates && task.name != "report" && !fresh) {
        if done(out, task)? {
            finished.insert(&task.name);
        }
    }
    let mut work =
        Work { out, settings, wanted, finished, failed: Vec::new(), here: HashMap::new(), told: HashSet::new() };
    let mut throughput = Throughput::of(&plan.tasks, out)?;
    while work.step(&mut throughput, stop, progress)? {
        progress.tick(&work.state(&throughput));
        std::thread::sleep(LOOK);
    }
    if !work.failed.is_empty() {
        return Ok(Outcome::Failed(work.failed));
    }
    let left = work.wanted.iter().any(|task| !work.finished.contains(task.name.as_str()));
    Ok(if left { Outcome::Stopped } else { Outcome::Finished })
}

/// The directory must be a study's, or new or empty.
fn check(out: &Path) -> Result<()> {
    // A queue may have put its own things there first.
    if !out.join(STUDY_TOML).exists() && files::has_other_files(out, |name| name == "slurm") {
        return Err(Error::input(format!("{} is not empty and holds no study; give another --out", out.display())));
    }
    Ok(())
}

/// Make the directory the study's; write what it is.
fn claim(plan: &Plan, toml: &str, out: &Path) -> Result<()> {
    files::create_dir(out)?;
    files::write_atomic(&out.join(STUDY_TOML), toml.as_bytes())?;
    plan.index.write(out)
}

fn wanted<'a>(plan: &'a Plan, settings: &Settings, finished: &HashSet<&str>) -> Result<Vec<&'a Task>> {
    if settings.only.is_empty() {
        return Ok(plan.tasks.iter().collect());
    }
    let find = |name: &String| {
        let found = plan.tasks.iter().find(|task| task.name == *name);
        found.ok_or_else(|| Error::input(format!("--only {name}: there is no such task; --list names them")))
    };
    let wanted: Vec<&Task> = settings.only.iter().map(find).collect::<Result<_>>()?;
    for task in &wanted {
        // A report is made of what there is.
        let missing = |need: &&String| {
            task.name != "report"
                && !finished.contains(need.as_str())
                && !settings.only.contains(need)
                && !plan.tasks.iter().any(|t| t.aggregates && t.name == **need)
        };
        if let Some(need) = task.needs.iter().find(missing) {
            return Err(Error::input(format!("--only {}: it needs {need}, which is not done", task.name)));
        }
    }
    Ok(wanted)
}

struct Work<'a> {
    out: &'a Path,
    settings: &'a Settings,
    wanted: Vec<&'a Task>,
    finished: HashSet<&'a str>,
    failed: Vec<(String, String)>,
    here: HashMap<&'a str, Process>,
    /// Tasks that somebody else was said to be working on.
    told: HashSet<&'a str>,
}

impl<'a> Work<'a> {
    /// See what has ended, begin what can be; whether there is more to wait for.
    fn step(&mut self, throughput: &mut Throughput, stop: &AtomicBool, progress: &mut dyn Progress) -> Result<bool> {
        let stopping = stop.load(Ordering::SeqCst);
        for task in self.wanted.clone() {
            let Some(process) = self.here.get_mut(task.name.as_str()) else { continue };
            if stopping {
                process.stop();
            }
            let Some(ended) = process.ended()? else { continue };
            let (seconds, whole) = (process.elapsed().as_secs_f64(), process.whole);
            let files = std::mem::take(&mut process.files);
            // Its lock is kept until the record is there.
            let process = self.here.remove(task.name.as_str());
            match &ended {
                Ended::Done => {
                    let (command, jobs, way) = (task.command.clone(), self.settings.jobs, task.way);
                    Record { command, seconds, whole, jobs, way, files }.write(self.out, &task.name)?;
                    self.finished.insert(&task.name);
                    if whole {
                        throughput.add(task.work.kind, task.work.units, seconds);
                    }
                }
                Ended::Stopped => {}
                Ended::Failed(why) => self.failed.push((task.name.clone(), why.clone())),
            }
            drop(process);
            progress.ended(task, &ended, seconds, &self.state(throughput));
        }
        if stopping {
            return Ok(!self.here.is_empty());
        }
        let mut waits = false;
        for task in self.wanted.clone() {
            if self.here.len() >= self.settings.jobs {
                break;
            }
            if !self.ready(task) {
                continue;
            }
            match Process::begin(task, self.out, &self.settings.device, self.threads())? {
                StartResult::Started(process) => {
                    self.here.insert(&task.name, process);
                    progress.begins(task, &self.state(throughput));
                }
                StartResult::Done => {
                    self.finished.insert(&task.name);
                    // What needs it can be begun.
                    waits = true;
                }
                StartResult::Locked => {
                    waits = true;
                    if self.told.insert(&task.name) {
                        progress.elsewhere(task);
                    }
                }
            }
        }
        Ok(waits || !self.here.is_empty())
    }

    fn ready(&self, task: &Task) -> bool {
        let name = task.name.as_str();
        let failed = |name: &str| self.failed.iter().any(|(failed, _)| failed == name);
        let wanted = |name: &str| self.wanted.iter().any(|task| task.name == name);
        let over = |need: &String| {
            self.finished.contains(need.as_str())
                // A report is made of what there is.
                || task.name == "report" && !self.may_come(need)
                || !wanted(need) && task.aggregates
        };
        !self.finished.contains(name) && !self.here.contains_key(name) && !failed(name) && task.needs.iter().all(over)
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

    /// Threads of a process: the machine's shared between those at work; `None` leaves it to the process.
    fn threads(&self) -> Option<usize> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        (self.settings.jobs > 1).then(|| (cores / self.settings.jobs).max(1))
    }

    fn state(&self, throughput: &Throughput) -> State<'_> {
        let under_way = self.wanted.iter().filter_map(|task| {
            let process = self.here.get(task.name.as_str())?;
            Some((task.name.as_str(), process.elapsed().as_secs_f64(), process.last_line()))
        });
        let missing = self.wanted.iter().filter(|task| !self.finished.contains(task.name.as_str())).copied();
        let spent: f64 = self.here.values().map(|process| process.elapsed().as_secs_f64()).sum();
        let jobs = self.settings.jobs;
        let left = throughput.total(missing, jobs).map(|left| (left - spent / jobs as f64).max(0.0));
        let done = self.wanted.iter().filter(|task| self.finished.contains(task.name.as_str())).count();
        State { done, total: self.wanted.len(), under_way: under_way.collect(), left }
    }
}
