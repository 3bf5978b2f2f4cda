//! Slurm as an executor of a study: its tasks are submitted as jobs with `sbatch`, and asked for with `squeue` and `sacct`.
//!
//! A job array holds the tasks of one section, one subcommand and one wave. A job waits until the jobs before it have ended, however
//! they have (`afterany`). An element of an array is one task; it calls the local executor on its node, with the study's file as it lies in
//! the study's directory. The directory `slurm` there holds for each job its script, its record (`JOB.json`) and the logs of its elements.

use super::attempt::now;
use super::executor::{RunOptions, STUDY_TOML, Work, begin};
use super::task::{Plan, StudyTask};
use crate::io::text::shell_word;
use crate::io::{files, output_dir};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Environment variable in which the script of a job says which element of which job it is.
pub const JOB: &str = "JIGSAW_STUDY_JOB";
/// Most elements of a job array: Slurm's own default is 1001 (`MaxArraySize`).
const MOST: usize = 1000;
/// Before the time limit, Slurm sends SIGUSR1 to the script, which is the study by then: the task saves, and the job is queued again.
const SIGNAL: &str = "--signal=B:USR1@120";
/// Options of sbatch that are the study's own, also by their letters.
const OWN: [(&str, &str); 5] = [
    ("--array", "-a"),
    ("--dependency", "-d"),
    ("--ntasks", "-n"),
    ("--wrap", "--wrap"),
    ("--test-only", "--test-only"),
];
/// States in which a job is over, as `squeue` and `sacct` name them. In all others it waits or runs.
const OVER: [&str; 10] = [
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
];

/// A job array that was submitted, as its record holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlurmJob {
    /// Slurm's number.
    pub job: u64,
    /// What it does.
    pub name: String,
    /// When it was submitted, in seconds since 1970.
    pub submitted: u64,
    /// Its tasks, in the order of its elements.
    pub tasks: Vec<String>,
}

/// What was submitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Submission {
    /// Tasks that were submitted now.
    pub submitted: usize,
    /// Tasks that were queued or running already.
    pub queued: usize,
    /// Tasks that are done.
    pub done: usize,
}

/// How an element of a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JobState {
    /// Slurm's word for it, such as `PENDING`.
    pub state: String,
    /// Why, such as `Dependency`; may be empty.
    pub why: String,
    /// Where; may be empty.
    pub nodes: String,
}

impl JobState {
    /// It waits or runs.
    pub fn is_active(&self) -> bool {
        !OVER.contains(&self.state.as_str())
    }

    /// It runs or is about to end.
    pub fn is_running(&self) -> bool {
        matches!(self.state.as_str(), "RUNNING" | "COMPLETING" | "SUSPENDED" | "STOPPED" | "SIGNALING")
    }
}

/// The jobs of a study, and what Slurm says of them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: Vec<SlurmJob>,
    states: HashMap<String, JobState>,
    asked: bool,
    /// What could not be asked.
    pub notes: Vec<String>,
}

impl Queue {
    /// The jobs that were submitted for the study in `out`, not asked for yet.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn read(out: &Path) -> Result<Queue> {
        let entries = std::fs::read_dir(out.join("slurm")).into_iter().flatten().flatten();
        let records = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
        let mut jobs = records.map(|path| files::read_json(&path)).collect::<Result<Vec<SlurmJob>>>()?;
        jobs.sort_by_key(|job| (job.submitted, job.job));
        Ok(Queue { jobs, ..Queue::default() })
    }

    /// The last job that a task was submitted in, and Slurm's name of its element.
    pub fn latest(&self, task: &str) -> Option<(&SlurmJob, String)> {
        let place = |job: &SlurmJob| job.tasks.iter().position(|name| name == task);
        self.jobs.iter().rev().find_map(|job| Some((job, format!("{}_{}", job.job, place(job)?))))
    }

    /// Ask how the last jobs of these tasks stand. `squeue` knows what waits and runs, and for some minutes what has ended; `sacct` knows the
    /// rest, where Slurm keeps accounts.
    ///
    /// # Errors
    /// `squeue` is not there or fails.
    pub fn ask<'t>(&mut self, tasks: impl Iterator<Item = &'t str>) -> Result<()> {
        let mut numbers: Vec<String> =
            tasks.filter_map(|task| self.latest(task)).map(|(job, _)| job.job.to_string()).collect();
        numbers.sort();
        numbers.dedup();
        if numbers.is_empty() {
            return Ok(());
        }
        let jobs = format!("--jobs={}", numbers.join(","));
        let format = "--format=%i|%T|%r|%N";
        let queued = match call("squeue", &["--noheader", "--array", "--states=all", format, &jobs]) {
            // So it says where it knows none of them any more.
            Err(e) if e.to_string().contains("Invalid job id") => String::new(),
            queued => queued?,
        };
        self.asked = true;
        let kept =
            call("sacct", &["--noheader", "--parsable2", "--allocations", "--format=JobID,State,NodeList", &jobs]);
        let kept = kept.unwrap_or_else(|e| {
            let why = e.to_string();
            self.notes.push(format!(
                "Slurm's accounts cannot be asked ({}): how jobs ended that it has forgotten is known from logs alone",
                why.split(": type this").next().unwrap_or_default()
            ));
            String::new()
        });
        for line in kept.lines() {
            if let [id, state, nodes] = line.split('|').collect::<Vec<_>>()[..] {
                // `CANCELLED by 1000`.
                let state = state.split(' ').next().unwrap_or_default().to_string();
                let known = JobState { state, why: String::new(), nodes: nodes.to_string() };
                // A job that the queue has lost may run for ever in the accounts.
                if !known.is_active() {
                    self.states.insert(id.to_string(), known);
                }
            }
        }
        for line in queued.lines() {
            if let [id, state, why, nodes] = line.split('|').collect::<Vec<_>>()[..] {
                let why = if why == "None" { "" } else { why };
                let known = JobState { state: state.into(), why: why.into(), nodes: nodes.into() };
                self.states.insert(id.trim().to_string(), known);
            }
        }
        Ok(())
    }

    /// Whether Slurm has answered.
    pub fn was_asked(&self) -> bool {
        self.asked
    }

    /// How an element of a job stands, if Slurm knows it.
    pub fn state(&self, element: &str) -> Option<&JobState> {
        self.states.get(element)
    }
}

/// The log of an element of a job: what Slurm and the study itself said.
pub(super) fn job_log(out: &Path, element: &str) -> PathBuf {
    out.join("slurm").join(format!("{element}.log"))
}

/// Submit the tasks of `plan` that are neither done nor queued, with more options for sbatch. `submitted` is called for each job.
///
/// # Errors
/// As [`super::run()`] before anything is started; an input error for options that are the study's own, and where Slurm's commands are missing.
/// A failure if one of them fails: jobs that were submitted before stay queued, and the same call submits the rest.
pub fn submit(
    plan: &Plan,
    toml: &str,
    out: &Path,
    options: &RunOptions,
    sbatch: &[String],
    submitted: &mut dyn FnMut(&SlurmJob),
) -> Result<Submission> {
    check(sbatch)?;
    let Work { wanted, finished } = begin(plan, toml, out, options)?;
    let dir = out.join("slurm");
    files::create_dir(&dir)?;
    let _lock = output_dir::lock(&dir, "submitting jobs")?;
    let mut queue = Queue::read(out)?;
    let names = wanted.iter().map(|task| task.name.as_str());
    let missing: HashSet<&str> = names.filter(|name| !finished.contains(name)).collect();
    queue
        .ask(missing.iter().copied())
        .map_err(|e| e.context("cannot see which tasks are queued already, so nothing was submitted"))?;
    let Chosen { new, mut placed, stale } = choose(plan, &missing, &queue);
    if !stale.is_empty() {
        call("scancel", &stale)?;
    }
    let mut made = Submission { queued: placed.len(), done: finished.len(), submitted: 0 };
    for (number, group) in alike(plan, &new).iter().enumerate() {
        let name = format!("{}.{}", group[0].command.subcommand(), group[0].section);
        let plain = |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' };
        let path = dir.join(format!("{number:03}.{}.sh", name.chars().map(plain).collect::<String>()));
        files::write_atomic(&path, script(group, out, options)?.as_bytes())?;
        let mut needs: Vec<u64> = Vec::new();
        for need in group.iter().flat_map(|task| &task.needs) {
            needs.extend(placed.get(need.as_str()).filter(|job| !needs.contains(job)));
        }
        let ntasks = if group[0].trains() { options.ntasks } else { 1 };
        let mut words = arguments(&dir, &name, group.len(), ntasks, &needs);
        words.extend(sbatch.iter().cloned().chain([path.display().to_string()]));
        let said = call("sbatch", &words).map_err(|e| match made.submitted {
            0 => e,
            n => e.context(format!(
                "{} submitted and stay queued, the same command submits the rest",
                if n == 1 { "1 task was".to_string() } else { format!("{n} tasks were") }
            )),
        })?;
        let job = said.trim().split(';').next().and_then(|number| number.parse().ok());
        let job =
            job.ok_or_else(|| Error::failed(format!("sbatch said {:?}, which is no number of a job", said.trim())))?;
        let tasks = group.iter().map(|task| task.name.clone()).collect();
        let record = SlurmJob { job, name, submitted: now(), tasks };
        files::write_json(&dir.join(format!("{job}.json")), &record)?;
        submitted(&record);
        made.submitted += group.len();
        placed.extend(group.iter().map(|task| (task.name.as_str(), job)));
    }
    Ok(made)
}

/// What a submission does with the tasks that are not done.
#[derive(Default)]
struct Chosen<'a> {
    /// They are submitted.
    new: HashSet<&'a str>,
    /// They wait or run already, in these jobs.
    placed: HashMap<&'a str, u64>,
    /// Elements of jobs that wait for one that is over without its task done: their tasks are submitted again, to wait for the new one.
    stale: Vec<String>,
}

fn choose<'a>(plan: &'a Plan, missing: &HashSet<&str>, queue: &Queue) -> Chosen<'a> {
    let mut chosen = Chosen::default();
    for task in plan.tasks.iter().filter(|task| missing.contains(task.name.as_str())) {
        let active = queue.latest(&task.name).and_then(|(job, element)| {
            let state = queue.state(&element).filter(|state| state.is_active())?;
            Some((job.job, element, state.is_running()))
        });
        match active {
            Some((_, element, false)) if task.needs.iter().any(|need| chosen.new.contains(need.as_str())) => {
                chosen.stale.push(element);
                chosen.new.insert(&task.name);
            }
            Some((job, ..)) => {
                chosen.placed.insert(&task.name, job);
            }
            None => {
                chosen.new.insert(&task.name);
            }
        }
    }
    chosen
}

/// The tasks of these names in groups, each after those that it needs: a group is one job array.
fn alike<'a>(plan: &'a Plan, names: &HashSet<&str>) -> Vec<Vec<&'a StudyTask>> {
    let mut groups: Vec<Vec<&StudyTask>> = Vec::new();
    for wave in plan.waves() {
        let first = groups.len();
        for task in wave.into_iter().filter(|task| names.contains(task.name.as_str())) {
            let key = |task: &StudyTask| (task.section.clone(), task.command.subcommand());
            match groups[first..].iter_mut().find(|group| group.len() < MOST && key(group[0]) == key(task)) {
                Some(group) => group.push(task),
                None => groups.push(vec![task]),
            }
        }
    }
    groups
}

/// The study's own options of sbatch for an array of so many elements.
fn arguments(dir: &Path, name: &str, elements: usize, ntasks: usize, needs: &[u64]) -> Vec<String> {
    let mut words = vec![
        "--parsable".to_string(),
        format!("--job-name=jigsaw.{name}"),
        format!("--array=0-{}", elements - 1),
        format!("--output={}/%A_%a.log", dir.display().to_string().replace('%', "%%")),
        "--open-mode=append".into(),
        "--requeue".into(),
        SIGNAL.into(),
        format!("--ntasks={ntasks}"),
    ];
    if !needs.is_empty() {
        let jobs: Vec<String> = needs.iter().map(u64::to_string).collect();
        words.push(format!("--dependency=afterany:{}", jobs.join(":")));
    }
    words
}

/// Have Slurm queue this job again, which then ends: it goes on where its task has saved.
///
/// # Errors
/// `scontrol` is not there or refuses.
pub fn requeue(job: &str) -> Result<()> {
    call("scontrol", &["requeue", job]).map(drop)
}

/// Refuse options of sbatch that the study gives itself.
fn check(sbatch: &[String]) -> Result<()> {
    let own = |word: &str| {
        OWN.iter().find(|(name, letter)| {
            word.split('=').next() == Some(name) || !word.starts_with("--") && word.starts_with(letter)
        })
    };
    match sbatch.iter().find_map(|word| Some((word, own(word)?.0))) {
        Some((word, "--ntasks")) => Err(Error::input(format!(
            "{word} among the options of sbatch: give --ntasks before the --, where it counts for training runs alone"
        ))),
        Some((word, _)) => {
            Err(Error::input(format!("{word} among the options of sbatch: the study gives that itself; leave it out")))
        }
        None => Ok(()),
    }
}

/// The script of a job array.
fn script(group: &[&StudyTask], out: &Path, options: &RunOptions) -> Result<String> {
    let program = std::env::current_exe().map_err(|e| Error::failed(format!("cannot find this program: {e}")))?;
    let path = |path: &Path| path.display().to_string();
    let mut words = vec![path(&program), "study".into(), "--config".into(), path(&out.join(STUDY_TOML))];
    words.extend(["--out".into(), path(out), "--device".into(), options.device.clone()]);
    words.extend(["--retries".into(), options.retries.to_string()]);
    if options.ntasks > 1 {
        words.extend(["--ntasks".into(), options.ntasks.to_string()]);
        words.extend(["--launcher".into(), options.launcher.join(" ")]);
    }
    let line = |words: &[String]| words.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ");
    let tasks: Vec<String> = group.iter().map(|task| task.name.clone()).collect();
    Ok(format!(
        "#!/bin/sh\n\
         # Tasks of a study, one for each element of the array. Written by `jigsaw study --executor slurm`.\n\
         set -- {}\n\
         shift \"$SLURM_ARRAY_TASK_ID\"\n\
         export {JOB}=\"${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID\"\n\
         if [ -n \"$SLURM_CPUS_PER_TASK\" ]; then\n    \
             export RAYON_NUM_THREADS=\"$SLURM_CPUS_PER_TASK\" SRUN_CPUS_PER_TASK=\"$SLURM_CPUS_PER_TASK\"\n\
         fi\n\
         exec {} --only \"$1\"\n",
        line(&tasks),
        line(&words)
    ))
}

/// Call a command of Slurm; what it printed.
fn call<W: AsRef<OsStr>>(program: &str, arguments: &[W]) -> Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|e| match e.kind() {
        ErrorKind::NotFound => Error::input(format!(
            "{program} is not on the PATH: type this on a machine that has Slurm's commands, or leave --executor out to run here"
        )),
        _ => Error::failed(format!("cannot start {program}: {e}")),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
    let said = if said.is_empty() { output.status.to_string() } else { said };
    Err(Error::failed(format!("{program} refuses: {said}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_job_of_a_task_counts() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("slurm")).unwrap();
        let write = |job: u64, submitted: u64, tasks: &[&str]| {
            let tasks = tasks.iter().map(|task| task.to_string()).collect();
            let record = SlurmJob { job, name: "train.regimes.a".into(), submitted, tasks };
            files::write_json(&dir.path().join(format!("slurm/{job}.json")), &record).unwrap();
        };
        write(9, 100, &["a", "b"]);
        write(10, 200, &["b"]);
        // Slurm has begun its numbers again.
        write(2, 300, &["c", "a"]);
        let queue = Queue::read(dir.path()).unwrap();
        let latest = |task: &str| queue.latest(task).map(|(_, element)| element);
        assert_eq!(
            ["a", "b", "c", "d"].map(latest),
            [Some("2_1".into()), Some("10_0".into()), Some("2_0".into()), None]
        );
        std::fs::write(dir.path().join("slurm/11.json"), "{").unwrap();
        assert!(Queue::read(dir.path()).unwrap_err().to_string().contains("11.json"));
    }

    #[test]
    fn options_of_the_study_are_refused_by_name() {
        let said = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
            check(&words).map_err(|e| (e.exit_code(), e.to_string()))
        };
        assert_eq!(said(&["--partition=cpu", "-t", "10"]), Ok(()));
        let (code, text) = said(&["--time=1", "--array=1-9"]).unwrap_err();
        assert!(code == 2 && text.starts_with("--array=1-9 among the options of sbatch"), "{text}");
        assert!(said(&["-n", "4"]).unwrap_err().1.contains("give --ntasks before the --"));
    }
}
