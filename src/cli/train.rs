//! `jigsaw train`: one training run.

use super::device::DeviceArgs;
use super::hub;
use super::output::{print, status};
use super::progress::{bar, times};
use super::ranks::undo_if_refused;
use crate::comm::Communicator;
use crate::io::files;
use crate::io::text::{counted, hide_keys};
use crate::train::dry_run::dry_run;
use crate::train::metrics::Metrics;
use crate::train::run_dir::{BestCheckpoint, RunManifest, RunSummary};
use crate::train::settings::{Method, TrainConfig};
use crate::train::start::{TrainRequest, launch};
use crate::train::{MetricsCommand, TrainOutcome, TrainerCallback};
use crate::{Error, Result};
use candle_core::Device;
use indicatif::ProgressBar;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Environment variable that stands for `--metrics-command`.
const METRICS_COMMAND_VARIABLE: &str = "JIGSAW_METRICS_COMMAND";

/// Train a model: supervised (sft) or by reinforcement (rft, GRPO).
///
/// The run directory holds everything about the run: the resolved configuration, the command, hashes of model and data, metrics.jsonl
/// (one line per step), TensorBoard events, samples of responses, checkpoints, and finally the trained model. To resume a run that was
/// stopped or killed, give the same command again: on a CPU it ends with the same weights, byte for byte.
///
/// On SIGINT (Ctrl-C) or SIGTERM the run finishes its step, saves and exits with 130 or 143. A second signal ends the process at once.
#[derive(Debug, Clone, clap::Args)]
#[command(
    override_usage = "jigsaw train [OPTIONS] --model <MODEL> --data <DIR|FILE> --out <DIR>",
    after_help = "\
Examples:
  jigsaw train --method sft --model MODEL --data runs/puzzles --out runs/sft
  jigsaw train --model runs/sft/model --data runs/puzzles --config configs/rft.toml --set train.learning_rate=1e-5 --out runs/rft
  jigsaw train --resume runs/sft --set train.steps=4000
  jigsaw train --method rft --print-config        every setting with its default"
)]
pub struct TrainArgs {
    /// Training method; may also be set in the configuration as train.method
    #[arg(long, value_enum)]
    method: Option<Method>,
    /// Model to start from: a directory in Hugging Face form, or a name on the Hub, OWNER/NAME or OWNER/NAME@REVISION
    #[arg(long, value_name = "MODEL", required_unless_present_any = ["print_config", "resume"])]
    model: Option<PathBuf>,
    /// Dataset directory as written by `jigsaw gen`: its train split is trained on, its validation split is evaluated during training. Or
    /// FILE.jsonl or FILE.json with conversations from another tool (docs/other-tools.md)
    #[arg(long, value_name = "DIR|FILE", required_unless_present_any = ["print_config", "resume"])]
    data: Option<PathBuf>,
    /// TOML file of settings that override the method's defaults; examples are in configs/
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one value, overriding the file: section.key=value; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Run directory: a new one, or one to resume
    #[arg(long, value_name = "DIR", required_unless_present_any = ["print_config", "dry_run", "resume"])]
    out: Option<PathBuf>,
    /// Go on with the run in this directory, with the model, data and settings that it began with. With --set, a run can be given more
    /// steps (train.steps, train.epochs) or other criteria (train.stop_when, train.stop_patience, train.stop_when_forgotten), also
    /// when it is finished: training continues from the last checkpoint, with the saved state of the optimizer and of the random streams
    #[arg(long, value_name = "DIR", conflicts_with_all = ["method", "model", "data", "config", "out"])]
    resume: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Send each line of metrics.jsonl, with the run's name, to the standard input of this shell command, which is started once, with the
    /// run's directory in JIGSAW_RUN_DIR; scripts/trackers has W&B, trackio and MLflow. For the runs of a study, set JIGSAW_METRICS_COMMAND.
    /// If the command fails, training continues
    #[arg(long, value_name = "COMMAND")]
    metrics_command: Option<String>,
    /// Print the resolved settings, each with its meaning, and exit; the output is a configuration
    #[arg(long)]
    print_config: bool,
    /// Print the planned memory and steps, whether the run fits, and settings that would make it fit; train and write nothing
    #[arg(long)]
    dry_run: bool,
}

impl TrainArgs {
    /// Train; the code is 130 or 143 when a signal ended the run early.
    pub fn run(mut self, comm: &dyn Communicator) -> Result<ExitCode> {
        if (self.print_config || self.dry_run) && !comm.is_root() {
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(dir) = &self.resume {
            files::require_dir(dir, "run")?;
            let identity = dir.join("run.json");
            if !identity.is_file() {
                return Err(Error::input(format!(
                    "no run in {}: it has no run.json; name the --out of a run",
                    dir.display()
                )));
            }
            let manifest: RunManifest = files::read_json(&identity)?;
            (self.model, self.data) = (Some(manifest.model.into()), Some(manifest.data.into()));
            (self.config, self.out) = (Some(dir.join("config.toml")), Some(dir.clone()));
        }
        let config = TrainConfig::resolve(self.method, self.config.as_deref(), &self.sets)?;
        if self.print_config {
            return print(&config.to_commented_toml()?).map(|()| ExitCode::SUCCESS);
        }
        let missing = |flag: &str| Error::input(format!("{flag} is missing"));
        let data = self.data.ok_or_else(|| missing("--data"))?;
        if !data.is_file() {
            files::require_dir(&data, "dataset")?;
        }
        // A plan may be for a GPU that is not here.
        let place = self.device.place()?;
        let device = if self.dry_run { Device::Cpu } else { self.device.open()? };
        let model = self.model.ok_or_else(|| missing("--model"))?;
        let task = TrainRequest {
            config,
            model: if self.dry_run { hub::model(&model)? } else { comm.on_root(|| hub::model(&model))? },
            data,
            out: self.out.or_else(|| self.dry_run.then(PathBuf::new)).ok_or_else(|| missing("--out"))?,
            lengthen: self.resume.is_some(),
            device,
            command: recorded_command(std::env::args()),
        };
        if self.dry_run {
            return print(&dry_run(&task, place)?.to_string()).map(|()| ExitCode::SUCCESS);
        }
        let signals = Signals::listen()?;
        let mut progress = TrainProgress::new();
        let train = |callback: &mut (dyn TrainerCallback + Send)| {
            undo_if_refused(comm, &task.out, || launch(&task, comm, &signals.stop, callback))
        };
        let command = self
            .metrics_command
            .or_else(|| std::env::var(METRICS_COMMAND_VARIABLE).ok().filter(|command| !command.is_empty()));
        let ended = match command.filter(|_| comm.is_root()) {
            None => train(&mut progress),
            Some(command) => {
                let mut report = MetricsCommand::new(&command, &task.out, &mut progress)?;
                let ended = train(&mut report);
                report.close();
                ended
            }
        };
        progress.close();
        match ended? {
            TrainOutcome::Stopped(step) => {
                if comm.is_root() {
                    progress.note(&format!("stopped after step {step}, saved; the same command resumes the run"));
                }
                return Ok(ExitCode::from(if comm.any(signals.exit_code() == 143)? { 143 } else { 130 }));
            }
            TrainOutcome::Finished(finished) => {
                print(&format!("{}\n{}\n", describe(&finished), task.out.join("model").display()))?;
            }
            TrainOutcome::AlreadyFinished(finished) => {
                let out = task.out.display();
                print(&format!("{out} is finished already: {}\n{out}/model\n", describe(&finished)))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The command line as it is recorded: without the keys in addresses, and without the metrics command, which often has a key in it and
/// decides nothing about the run.
fn recorded_command(arguments: impl Iterator<Item = String>) -> Vec<String> {
    const FLAG: &str = "--metrics-command";
    const LEFT_OUT: &str = "(not recorded)";
    let mut command: Vec<String> = Vec::new();
    for argument in arguments {
        let value = command.last().is_some_and(|last| last == FLAG);
        command.push(match argument.strip_prefix(FLAG) {
            _ if value => LEFT_OUT.to_string(),
            Some(rest) if rest.starts_with('=') => format!("{FLAG}={LEFT_OUT}"),
            _ => hide_keys(&argument).into_owned(),
        });
    }
    command
}

fn describe(finished: &RunSummary) -> String {
    let number = |name: &str| finished.metrics.get(name).and_then(serde_json::Value::as_f64);
    let mut text = counted(finished.step, "step");
    if let (Some(accuracy), Some(n)) = (number("eval/accuracy"), number("eval/examples")) {
        text += &format!(": {:.1} % of {n} validation examples right", 100.0 * accuracy);
    }
    if let Some(share) = number("eval/partial_credit") {
        text += &format!(", partial credit {:.1} %", 100.0 * share);
    }
    if let Some(criterion) = &finished.criterion {
        text += &format!("; {} {}", criterion.stop_when, if criterion.met { "is met" } else { "was not met" });
    }
    if let Some(BestCheckpoint { checkpoint, evaluation }) = &finished.best {
        text += &format!("; best {} {:.4} in {checkpoint}", evaluation.measure, evaluation.value);
    }
    if let Some(forgotten) = &finished.forgotten {
        text += &format!("; {}", forgotten.describe());
    }
    text
}

/// The first SIGINT or SIGTERM raises a flag, the second ends the process.
pub(super) struct Signals {
    pub(super) stop: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
    /// SIGINT or SIGTERM has come.
    asked: Arc<AtomicBool>,
    /// SIGUSR1 has come.
    warned: Arc<AtomicBool>,
}

impl Signals {
    /// SIGUSR1 counts as SIGTERM: it is what `mpirun` passes on to its processes, and a study to its tasks. A second one ends nothing.
    pub(super) fn listen() -> Result<Signals> {
        let [stop, terminated, asked, warned] = <[Arc<AtomicBool>; 4]>::default();
        let signals = Signals { stop, terminated, asked, warned };
        let register = || -> std::io::Result<()> {
            for (signal, code) in [(SIGINT, 130), (SIGTERM, 143)] {
                // In this order: the shutdown looks at the flag as it was before this signal.
                flag::register_conditional_shutdown(signal, code, signals.asked.clone())?;
                flag::register(signal, signals.asked.clone())?;
                flag::register(signal, signals.stop.clone())?;
            }
            flag::register(SIGUSR1, signals.stop.clone())?;
            flag::register(SIGUSR1, signals.warned.clone())?;
            for signal in [SIGTERM, SIGUSR1] {
                flag::register(signal, signals.terminated.clone())?;
            }
            Ok(())
        };
        register().map_err(|e| Error::failed(format!("cannot listen for signals: {e}")))?;
        Ok(signals)
    }

    /// Whether SIGUSR1 alone has come, which Slurm sends before the time limit of a job. SIGTERM comes when the job is cancelled, or queued again
    /// by Slurm itself.
    pub(super) fn is_before_limit(&self) -> bool {
        self.warned.load(Ordering::SeqCst) && !self.asked.load(Ordering::SeqCst)
    }

    pub(super) fn exit_code(&self) -> u8 {
        if self.terminated.load(Ordering::SeqCst) { 143 } else { 130 }
    }
}

/// A bar on a terminal, otherwise a line every few seconds; all on stderr.
struct TrainProgress {
    bar: Option<ProgressBar>,
    total: usize,
    /// When this process began, and the step that it began at.
    began: (Instant, usize),
    last: Option<Instant>,
}

/// Time between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

impl TrainProgress {
    fn new() -> TrainProgress {
        TrainProgress { bar: None, total: 0, began: (Instant::now(), 0), last: None }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| status(text)),
            None => status(text),
        }
    }

    fn close(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl TrainerCallback for TrainProgress {
    fn start(&mut self, step: usize, total: usize) {
        (self.total, self.began) = (total, (Instant::now(), step));
        if std::io::stderr().is_terminal() {
            let bar = bar(total, "step {pos}/{len}{msg}").with_position(step as u64);
            bar.reset_eta();
            self.bar = Some(bar);
        }
    }

    fn step(&mut self, step: usize, metrics: &Metrics) {
        let number = |name: &str| metrics.get(name).unwrap_or(f64::NAN);
        // Adding 0 takes the sign off what rounds to 0.
        let mut text = format!("loss {:.4}", (1e4 * number("loss")).round() / 1e4 + 0.0);
        if let Some(reward) = metrics.get("reward") {
            text += &format!(
                ", reward {reward:.3}, entropy {:.2}, length {:.0}",
                number("entropy"),
                number("response_length")
            );
        }
        text += &format!(", {:.0} tokens/s", number("tokens_per_second"));
        if let Some(bar) = &self.bar {
            bar.set_position(step as u64);
            bar.set_message(format!(": {text}"));
        } else if step == self.total || self.last.is_none_or(|last| last.elapsed() >= LINE_INTERVAL) {
            self.last = Some(Instant::now());
            let (elapsed, made) = (self.began.0.elapsed().as_secs_f64(), step.saturating_sub(self.began.1));
            let left = elapsed / made.max(1) as f64 * self.total.saturating_sub(step) as f64;
            let times = times(elapsed, (step < self.total).then_some(left));
            self.line(&format!("step {step}/{}: {text}, {times}", self.total));
        }
    }

    fn evaluation(&mut self, step: usize, metrics: &Metrics, partial_credit: Option<&'static str>) {
        let percent = |name: &str| 100.0 * metrics.get(name).unwrap_or(f64::NAN);
        let place = format!("step {step}/{}", self.total);
        if metrics.get("eval/prior_change").is_some() {
            self.line(&format!(
                "{place}: prior knowledge {:.1} %, {:+.1} points (95 % interval {:+.1} to {:+.1})",
                percent("eval/prior_score"),
                percent("eval/prior_change"),
                percent("eval/prior_change_low"),
                percent("eval/prior_change_high"),
            ));
        }
        if metrics.get("eval/accuracy").is_none() {
            return;
        }
        let parts = partial_credit
            .map(|label| format!("{label} {:.1} %, ", percent("eval/partial_credit")))
            .unwrap_or_default();
        let number = |name: &str, label: &str| {
            metrics.get(name).map(|value| format!(", {label} {value:.4}")).unwrap_or_default()
        };
        let criterion = number("eval/loss", "loss") + &number("eval/reward", "reward");
        self.line(&format!(
            "{place}: validation {:.1} % right (95 % interval {:.1} to {:.1}), {parts}{:.1} % format failures{criterion}",
            percent("eval/accuracy"),
            percent("eval/accuracy_low"),
            percent("eval/accuracy_high"),
            percent("eval/format_failures"),
        ));
    }

    fn note(&mut self, text: &str) {
        self.line(&format!("note: {text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_recorded_with_the_command() {
        let recorded = |line: &[&str]| recorded_command(line.iter().map(|word| word.to_string()));
        let given =
            ["jigsaw", "train", "--metrics-command", "KEY=sk-1 log", "--metrics-command=KEY=sk-1 log", "--out", "o"];
        let expected = [
            "jigsaw",
            "train",
            "--metrics-command",
            "(not recorded)",
            "--metrics-command=(not recorded)",
            "--out",
            "o",
        ];
        assert_eq!(recorded(&given), expected);
        assert_eq!(recorded(&["--model", "https://me:sk-1@host/m"]), ["--model", "https://***@host/m"]);
    }
}
