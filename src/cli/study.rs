//! `jigsaw study`: a whole comparison from one file.

use super::device::DeviceArgs;
use super::hub;
use super::output::{print, status};
use super::progress::{style, times};
use super::study_status::describe;
use super::train::Signals;
use crate::config::reference::commented_study;
use crate::io::text::{counted, shell_word, wrapped};
use crate::report;
use crate::stats::table::duration;
use crate::study::{
    self, Ended, Outcome, Plan, RunOptions, SlurmJob, Study, StudyEstimate, StudyObserver, StudyState, StudyTask,
    Submission, TaskKind,
};
use crate::train::settings::TrainConfig;
use crate::{Error, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::fmt::Write;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Run a whole study: puzzles, fine-tuning regimes over seeds and learning rates, what each costs and why, and a report.
///
/// A study is a list of tasks, each one `jigsaw` command, which --dry-run prints; the sections of the file hold the flags of these
/// commands. The same command resumes a study: finished tasks are not repeated, and interrupted ones continue. Regimes, learning rates
/// and seeds can be added to the file later; only they are run. A task that fails stops only the tasks that depend on it. Logs are in
/// OUT/logs.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct StudyArgs {
    /// TOML file of the study; see configs/study-quick.toml and docs/study.md
    #[arg(long, value_name = "FILE", required_unless_present = "status")]
    config: Option<PathBuf>,
    /// Set one value, overriding the file: section.key=value, such as regimes.rft.train.steps=100; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Directory for all results [default: runs/NAME, with the name of the file]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Tasks to run at once; small models are fastest with one task per core
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    jobs: u32,
    /// What runs the tasks: this process, or Slurm, to which they are submitted as jobs. Options for sbatch follow after `--`
    #[arg(long, value_enum, default_value_t = Executor::Local)]
    executor: Executor,
    /// How often a task that failed is tried again; one whose command or input is refused (exit code 2) is not
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    retries: u32,
    /// Processes of each training run, joined by MPI; needs a build with the feature mpi (docs/scaling.md)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    ntasks: u32,
    /// What starts the processes of a training run; `-n N` is put after it [default: mpirun, with Slurm `srun --kill-on-bad-exit=1`]
    #[arg(long, value_name = "WORDS")]
    launcher: Option<String>,
    /// Print what runs where, what is queued, what failed and why, and an estimate of the time left, and exit. Needs only --out or --config
    #[arg(long, conflicts_with_all = ["dry_run", "list", "only", "print_config"])]
    status: bool,
    /// Print the tasks with their commands and an estimate of time and memory, and exit
    #[arg(long, conflicts_with_all = ["list", "print_config"])]
    dry_run: bool,
    /// Print one line per task, `WAVE<TAB>TASK`, and exit. Tasks of a wave depend only on earlier waves
    #[arg(long, conflicts_with = "print_config")]
    list: bool,
    /// Run only this task; the tasks it depends on must be done (the report shows whatever is done). May be repeated. For running tasks on
    /// other machines
    #[arg(long, value_name = "TASK")]
    only: Vec<String>,
    /// Print the file with the changes of --set, each key with its meaning, and exit; the output is a file of a study
    #[arg(long)]
    print_config: bool,
    /// Options for sbatch, after `--`: partition, account, time, memory
    #[arg(last = true, value_name = "SBATCH OPTIONS")]
    sbatch: Vec<String>,
}

/// What runs the tasks of a study.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Executor {
    /// This process starts them here
    Local,
    /// They are jobs of Slurm
    Slurm,
}

const EXAMPLES: &str = "\
Examples:
  jigsaw study --config configs/study-quick.toml
  jigsaw study --config configs/study-tiny.toml --jobs 2 --out runs/tiny
  jigsaw study --config configs/study-tiny.toml --dry-run
  jigsaw study --config configs/paper-3b.toml --executor slurm --retries 2 --device cuda -- --gres=gpu:1 --time=48:00:00
  jigsaw study --config configs/paper-3b.toml --status";

impl StudyArgs {
    /// Run it and print the path of the report; the code is 130 or 143 when a signal ended it early, 1 when tasks failed.
    pub fn run(self) -> Result<ExitCode> {
        let out = match (&self.out, self.config.as_ref().and_then(|config| config.file_stem())) {
            (Some(out), _) => out.clone(),
            (None, Some(name)) => PathBuf::from("runs").join(name),
            (None, None) => return Err(Error::input("--out is missing")),
        };
        // `o/` is `o`.
        let out: PathBuf = out.components().collect();
        if self.status {
            let status = study::status(&out, TrainConfig::resolve, true)?;
            let missing = || Error::input(format!("no study in {}: name the --out of a study", out.display()));
            return print(&describe(&out, &status.ok_or_else(missing)?)).map(|()| ExitCode::SUCCESS);
        }
        let config = self.config.as_ref().ok_or_else(|| Error::input("--config is missing"))?;
        let study = Study::read(config, &self.sets, TrainConfig::resolve)?;
        let toml = study.to_toml()?;
        if self.print_config {
            return print(&commented_study(&study.table)?).map(|()| ExitCode::SUCCESS);
        }
        match self.executor {
            Executor::Local => self.device.open().map(drop)?,
            // The nodes have it.
            Executor::Slurm => self.device.place().map(drop)?,
        }
        let plan = study::plan(&study, &out)?;
        if self.list {
            return print(&list(&plan)).map(|()| ExitCode::SUCCESS);
        }
        let options = self.options()?;
        if self.dry_run {
            status("measuring a few steps of each regime");
            let mut here = study.clone();
            if let Some(base) = hub::cached(&study.head.base)? {
                here.head.base = base;
            }
            let estimate = study::estimate(&here, &plan)?;
            return print(&dry(&study, &plan, &estimate, options.jobs)).map(|()| ExitCode::SUCCESS);
        }
        // The tasks of the study then find the model in the cache.
        hub::prepare(&study.head.base)?;
        if self.executor == Executor::Slurm {
            return self.submit(&plan, &toml, &out, &options);
        }
        let signals = Signals::listen()?;
        let mut view = StudyProgress::new(&out);
        let outcome = study::run(&plan, &toml, &out, &options, &signals.stop, &mut view);
        view.clear();
        match outcome? {
            Outcome::Finished => {
                let made = if self.only.is_empty() { found(&out)? } else { String::new() };
                print(&made).map(|()| ExitCode::SUCCESS)
            }
            Outcome::Stopped => {
                match options.job.as_ref().filter(|_| signals.is_before_limit()).map(|job| study::requeue(job)) {
                    Some(Ok(())) => status("stopped and saved before the job's time limit; the job is queued again"),
                    Some(Err(e)) => status(&format!("stopped and saved; the job cannot be queued again: {e}")),
                    None => status("stopped and saved; the same command resumes"),
                }
                Ok(ExitCode::from(signals.exit_code()))
            }
            Outcome::Failed(failed) => {
                if self.only.is_empty() {
                    print(&found(&out)?)?;
                }
                let names: Vec<String> = failed.iter().map(|(name, why)| format!("  {name}: {why}")).collect();
                Err(Error::failed(format!(
                    "{} failed; all others are done, except those that need a failed one. Logs are in {}; the same command tries again:\n{}",
                    counted(failed.len(), "task"),
                    out.join("logs").display(),
                    names.join("\n")
                )))
            }
        }
    }
}

impl StudyArgs {
    /// How tasks are run.
    fn options(&self) -> Result<RunOptions> {
        let slurm = self.executor == Executor::Slurm;
        if !slurm && !self.sbatch.is_empty() {
            return Err(Error::input(format!("{}: options for sbatch need --executor slurm", self.sbatch.join(" "))));
        }
        if slurm && self.jobs > 1 {
            return Err(Error::input("--jobs: Slurm decides how many tasks run at once; leave it out"));
        }
        if self.ntasks > 1 && !cfg!(feature = "mpi") {
            return Err(Error::input(format!(
                "--ntasks {}: this jigsaw was built without MPI; build it with `cargo build --release --features mpi`",
                self.ntasks
            )));
        }
        let launcher = self.launcher.as_deref().unwrap_or(if slurm { SRUN } else { "mpirun" });
        let launcher: Vec<String> = launcher.split_whitespace().map(String::from).collect();
        if launcher.is_empty() {
            return Err(Error::input("--launcher: give what starts processes of MPI, such as mpirun"));
        }
        Ok(RunOptions {
            jobs: self.jobs as usize,
            device: self.device.device.clone(),
            only: self.only.clone(),
            retries: self.retries as usize,
            ntasks: self.ntasks as usize,
            launcher,
            job: std::env::var(study::JOB).ok(),
        })
    }

    /// Submit the tasks to Slurm, and print the jobs.
    fn submit(&self, plan: &Plan, toml: &str, out: &Path, options: &RunOptions) -> Result<ExitCode> {
        let mut say = |job: &SlurmJob| {
            status(&format!("job {}: {}, {}", job.job, job.name, counted(job.tasks.len(), "task")));
        };
        let Submission { submitted, queued, done } = study::submit(plan, toml, out, options, &self.sbatch, &mut say)?;
        print(&format!(
            "{} submitted, {queued} queued before, {done} done; jigsaw study --status --out {} says how they stand
",
            counted(submitted, "task"),
            shell_word(&out.display().to_string())
        ))
        .map(|()| ExitCode::SUCCESS)
    }
}

/// What starts the processes of a training run in a job of Slurm.
const SRUN: &str = "srun --kill-on-bad-exit=1";
/// Width of a paragraph, in characters; two more for the indent.
const COLUMNS: usize = 78;

/// What the study has found, in the sentences of its page, and where the page is; empty where there is none.
fn found(out: &Path) -> Result<String> {
    let page = out.join("report.html");
    if !page.is_file() {
        return Ok(String::new());
    }
    let mut text = String::from("\n");
    for paragraph in report::headline(out)? {
        let lines = wrapped(&paragraph, |line| line.chars().count() <= COLUMNS);
        text += &format!("{}\n", lines.join("\n  "));
    }
    Ok(format!("{text}\n{}\n", page.display()))
}

fn list(plan: &Plan) -> String {
    let mut text = String::new();
    for (wave, tasks) in plan.waves().iter().enumerate() {
        for task in tasks {
            let _ = writeln!(text, "{wave}\t{}", task.name);
        }
    }
    text
}

/// The tasks with their commands, the time that each will take, and totals.
fn dry(study: &Study, plan: &Plan, estimate: &StudyEstimate, jobs: usize) -> String {
    let mut text = String::new();
    for task in &plan.tasks {
        let time =
            estimate.throughput.seconds(task).map_or("time unknown".to_string(), |s| format!("about {}", duration(s)));
        let _ = writeln!(text, "# {} ({time})", task.name);
        let words: Vec<String> = task.arguments().iter().map(|word| shell_word(word)).collect();
        let _ = writeln!(text, "jigsaw {}", words.join(" "));
    }
    let count = |prefix: &str| plan.tasks.iter().filter(|task| task.name.starts_with(prefix)).count();
    let _ = writeln!(
        text,
        "\n{}: {}, {}, {}",
        study.head.title,
        counted(plan.tasks.len(), "task"),
        counted(count("train."), "training run"),
        counted(count("compare."), "comparison of a model with the base")
    );
    for (what, kinds) in [
        ("puzzles and suites", &[TaskKind::Make][..]),
        ("SFT", &[TaskKind::Sft]),
        ("RFT", &[TaskKind::Rft]),
        ("evaluation and rollouts", &[TaskKind::Respond]),
        ("dynamics", &[TaskKind::Pair]),
    ] {
        let tasks: Vec<&StudyTask> = plan.tasks.iter().filter(|task| kinds.contains(&task.work.kind)).collect();
        if !tasks.is_empty() {
            let time = estimate.throughput.total(tasks.iter().copied(), 1);
            let time = time.map_or("unknown".to_string(), |seconds| format!("about {}", duration(seconds)));
            let _ = writeln!(text, "  {what:<24} {:>10}  {time}", counted(tasks.len(), "task"));
        }
    }
    match estimate.throughput.total(plan.tasks.iter(), 1) {
        Some(seconds) => {
            let _ = writeln!(text, "time: about {} on this machine, one task at a time", duration(seconds));
        }
        None => text += "time: unknown\n",
    }
    for (section, memory) in &estimate.memory {
        let _ = writeln!(text, "memory of [{section}]: {memory}");
    }
    if jobs > 1 {
        let _ = writeln!(text, "{jobs} tasks at once need {jobs} times that memory");
    }
    for note in &estimate.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

/// On a terminal, a bar for the study and a line for each running task; elsewhere, a line when a task starts and ends.
struct StudyProgress {
    out: PathBuf,
    began: Instant,
    bars: Option<(MultiProgress, ProgressBar, Vec<ProgressBar>)>,
}

impl StudyProgress {
    fn new(out: &Path) -> StudyProgress {
        let bars = std::io::stderr().is_terminal().then(|| {
            let all = MultiProgress::new();
            let total = all.add(ProgressBar::new(0).with_style(style("{wide_bar} {pos}/{len} tasks, {msg}")));
            (all, total, Vec::new())
        });
        StudyProgress { out: out.to_path_buf(), began: Instant::now(), bars }
    }

    fn clear(&mut self) {
        if let Some((all, ..)) = self.bars.take() {
            let _ = all.clear();
        }
    }

    /// Time since this process began, and what is left.
    fn times(&self, state: &StudyState<'_>) -> String {
        times(self.began.elapsed().as_secs_f64(), state.left.filter(|_| state.done < state.total))
    }

    fn line(&self, text: &str) {
        match &self.bars {
            Some((all, ..)) => all.suspend(|| status(text)),
            None => status(text),
        }
    }
}

impl StudyObserver for StudyProgress {
    fn started(&mut self, task: &StudyTask, state: &StudyState<'_>) {
        if self.bars.is_none() {
            self.line(&format!("[{}/{}] {}", state.done + state.running.len(), state.total, task.name));
        }
    }

    fn ended(&mut self, task: &StudyTask, ended: &Ended, seconds: f64, state: &StudyState<'_>) {
        let (name, time) = (&task.name, duration(seconds));
        match ended {
            Ended::Done if self.bars.is_some() => {}
            Ended::Done => {
                let all = format!("{} of {} done, {}", state.done, counted(state.total, "task"), self.times(state));
                self.line(&format!("    {name}: done in {time}; {all}"));
            }
            Ended::Stopped => self.line(&format!("    {name}: stopped after {time}, saved")),
            Ended::Failed(why) | Ended::Retried(why) => {
                let log = study::log(&self.out, name);
                let again = if matches!(ended, Ended::Retried(_)) { "; it is tried again" } else { "" };
                self.line(&format!("    {name}: failed after {time}: {why} ({}){again}", log.display()));
            }
        }
    }

    fn locked(&mut self, task: &StudyTask) {
        self.line(&format!("    {}: another process is working on it; waiting", task.name));
    }

    fn tick(&mut self, state: &StudyState<'_>) {
        let times = self.times(state);
        let Some((all, total, lines)) = &mut self.bars else { return };
        total.set_length(state.total as u64);
        total.set_position(state.done as u64);
        total.set_message(times);
        while lines.len() < state.running.len() {
            let style = ProgressStyle::with_template("  {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
            lines.push(all.add(ProgressBar::new_spinner().with_style(style)));
        }
        while lines.len() > state.running.len() {
            if let Some(line) = lines.pop() {
                line.finish_and_clear();
                all.remove(&line);
            }
        }
        for (line, (name, seconds, said)) in lines.iter().zip(&state.running) {
            line.set_message(format!("{name}  {}  {said}", duration(*seconds)));
        }
    }
}
