//! `jigsaw study`: the whole comparison from one file.

use super::output::{bar, print, say};
use super::train::{Signals, Terminal};
use crate::eval::{self, EvalResult};
use crate::study::{self, Outcome, Plan};
use crate::{Error, Result};
use indicatif::ProgressBar;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run a whole study: puzzles, a short supervised start, from there once SFT and once GRPO, evaluations, a report.
///
/// Finished stages are skipped and an interrupted one goes on, so the same command resumes the study. The output
/// directory holds what the single commands would have left: puzzles/, base/, start/, sft/, rft/, eval/, and report.html.
#[derive(Debug, Clone, clap::Args)]
pub struct StudyArgs {
    /// The study (TOML); see configs/quickstart.toml
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// One setting, over the file: section.key=value, such as sft.train.lr=1e-4; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Directory for everything; runs/NAME with the name of the file when not given
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where to compute: cpu, cuda, cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
    /// Print the resolved settings and exit
    #[arg(long)]
    print_config: bool,
}

impl StudyArgs {
    /// Run it and print the path of the report; the code is 130 or 143 when a signal ended it early.
    pub fn run(self) -> Result<ExitCode> {
        let plan = Plan::resolve(&self.config, &self.sets)?;
        if self.print_config {
            return print(&plan.to_toml()?).map(|()| ExitCode::SUCCESS);
        }
        let out = match (self.out, self.config.file_stem()) {
            (Some(out), _) => out,
            (None, Some(name)) => PathBuf::from("runs").join(name),
            (None, None) => return Err(Error::input("--out is missing")),
        };
        let device = super::device(&self.device)?;
        if let Some(warning) = plan.gen_.warning() {
            say(&format!("warning: {warning}"));
        }
        let signals = Signals::listen()?;
        let command: Vec<String> = std::env::args().collect();
        let mut progress = Lines { bar: None };
        let ended = study::run(&plan, &out, &device, &command, &signals.stop, &mut progress);
        progress.clear();
        match ended? {
            Outcome::Finished(report) => {
                print(&format!("{}\n", report.display()))?;
                Ok(ExitCode::SUCCESS)
            }
            Outcome::Stopped(stage) => {
                say(&format!("stopped in stage {stage}, saved; the same command goes on from there"));
                Ok(ExitCode::from(signals.exit_code()))
            }
        }
    }
}

/// One line a stage on stderr, and a bar while it works if that is a terminal.
struct Lines {
    bar: Option<ProgressBar>,
}

impl Lines {
    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn bar(&mut self, length: usize, what: &str) -> &ProgressBar {
        self.bar.get_or_insert_with(|| bar(length, &format!("{{pos}}/{{len}} {what}, {{eta}} left")))
    }
}

impl study::Progress for Lines {
    fn stage(&mut self, number: usize, of: usize, what: &str) {
        self.clear();
        say(&format!("[{number}/{of}] {what}"));
    }

    fn puzzles(&mut self, total: usize) -> Box<dyn Fn() + Sync + '_> {
        let bar = self.bar(total, "puzzles").clone();
        Box::new(move || bar.inc(1))
    }

    fn training(&mut self) -> Box<dyn crate::train::Progress + Send + '_> {
        Box::new(Training(Terminal::new()))
    }

    fn evaluating(&mut self, p: eval::Progress) {
        self.bar(p.total, "examples").set_position(p.done as u64);
    }

    fn result(&mut self, _name: &str, result: &EvalResult) {
        self.clear();
        say(super::eval::table(result).trim_end());
    }
}

/// The bar of a training stage, cleared when the stage ends.
struct Training(Terminal);

impl Drop for Training {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl crate::train::Progress for Training {
    fn start(&mut self, step: usize, total: usize) {
        self.0.start(step, total);
    }

    fn step(&mut self, step: usize, metrics: &crate::train::metrics::Metrics) {
        self.0.step(step, metrics);
    }

    fn evaluation(&mut self, step: usize, metrics: &crate::train::metrics::Metrics) {
        self.0.evaluation(step, metrics);
    }

    fn note(&mut self, text: &str) {
        self.0.note(text);
    }
}
