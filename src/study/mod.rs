//! `jigsaw study`: puzzles, a short supervised start, and from there once SFT and once GRPO; each evaluated; one report.
//!
//! Every stage calls what the command of its name calls, and leaves what that command leaves. A stage that is finished is
//! not run again, and one that was interrupted goes on, so the same command resumes the study.

mod plan;

pub use plan::{EvalPlan, ModelPlan, Plan, StudyPlan};

use crate::data::generate;
use crate::eval::{self, EvalResult, Request, evaluate_checkpoint};
use crate::model::Sampling;
use crate::model::init::write_checkpoint;
use crate::train::launch::{Launch, launch};
use crate::train::{self, Ended};
use crate::{Error, Result, config, files, report};
use candle_core::Device;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Who is told how a study goes on.
pub trait Progress {
    /// A stage begins: its number (from 1), of how many, and what it does.
    fn stage(&mut self, number: usize, of: usize, what: &str);
    /// A puzzle of `total` is made.
    fn puzzles(&mut self, total: usize) -> Box<dyn Fn() + Sync + '_>;
    /// For a training stage.
    fn training(&mut self) -> Box<dyn train::Progress + Send + '_>;
    /// An evaluation goes on.
    fn evaluating(&mut self, progress: eval::Progress);
    /// A stage has a result to tell.
    fn result(&mut self, name: &str, result: &EvalResult);
}

/// How a call of [`run`] ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All done; the report is there.
    Finished(PathBuf),
    /// Stopped on request in the stage of this name, or before it; the same call goes on.
    Stopped(String),
}

/// The training stages that go on from the start.
const BRANCHES: [&str; 2] = ["sft", "rft"];
const START: &str = "start";

/// Run the study, or what is left of it, in `out`.
///
/// # Errors
/// `out` holds another study (the differing settings are named), or what the stages themselves refuse or fail with.
pub fn run(
    plan: &Plan,
    out: &Path,
    device: &Device,
    command: &[String],
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Outcome> {
    claim(plan, out)?;
    let total = 2 + 2 * (1 + BRANCHES.len()) + 1;
    let mut number = 0;
    let mut stage = |progress: &mut dyn Progress, what: &str| {
        number += 1;
        progress.stage(number, total, what);
    };

    let puzzles = out.join("puzzles");
    stage(progress, "puzzles");
    if !puzzles.join("manifest.json").exists() {
        let on_puzzle = progress.puzzles(plan.gen_.count);
        generate::generate(&plan.gen_, &puzzles, true, &*on_puzzle)?;
    }

    stage(progress, "base model");
    let base = match &plan.model.dir {
        Some(dir) => dir.clone(),
        None => {
            let dir = out.join("base");
            if !dir.join("config.json").exists() {
                write_checkpoint(&dir, plan.model.preset()?, plan.model.seed)?;
            }
            dir
        }
    };

    let model_of = |name: &str| out.join(name).join("model");
    let start = model_of(START);
    for (name, from) in [(START, &base), (BRANCHES[0], &start), (BRANCHES[1], &start)] {
        stage(progress, &format!("training: {name}"));
        let task = Launch {
            config: plan.training(name).clone(),
            model: from.clone(),
            data: puzzles.clone(),
            out: out.join(name),
            device: device.clone(),
            command: command.to_vec(),
        };
        let mut training = progress.training();
        let ended = launch(&task, stop, &mut *training).map_err(|e| e.context(format!("training stage {name}")))?;
        if let Ended::Stopped(_) = ended {
            return Ok(Outcome::Stopped(name.to_string()));
        }
    }

    for name in [START, BRANCHES[0], BRANCHES[1]] {
        if stop.load(Ordering::SeqCst) {
            return Ok(Outcome::Stopped(format!("evaluation: {name}")));
        }
        stage(progress, &format!("evaluation: {name}"));
        let request = Request {
            model: model_of(name),
            data: puzzles.clone(),
            split: "test".into(),
            plan: eval::Plan { limit: plan.eval.limit, samples: 1, batch: plan.eval.batch },
            sampling: Sampling::greedy(plan.eval.max_new_tokens),
            out: out.join("eval").join(name),
            fresh: false,
        };
        let result = evaluate_checkpoint(&request, device, |p| progress.evaluating(p))
            .map_err(|e| e.context(format!("evaluation of {name}")))?;
        progress.result(name, &result);
    }

    stage(progress, "report");
    let file = out.join("report.html");
    report::write(&[out.to_path_buf()], &plan.study.title, &file)?;
    Ok(Outcome::Finished(file))
}

/// Make the directory this study's, or see that it already is.
fn claim(plan: &Plan, out: &Path) -> Result<()> {
    let file = out.join("study.toml");
    let text = plan.to_toml()?;
    if !file.exists() {
        let occupied = std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
        if occupied {
            return Err(Error::input(format!("{} is not empty and holds no study; give another --out", out.display())));
        }
        files::create_dir(out)?;
        return files::write_atomic(&file, text.as_bytes());
    }
    let read = |text: &str| -> Result<toml::Table> {
        text.parse().map_err(|e| Error::input(format!("{}: {e}", file.display())))
    };
    let differing = config::differences(&read(&files::read_text(&file)?)?, &read(&text)?);
    if differing.is_empty() {
        return Ok(());
    }
    Err(Error::input(format!(
        "{} holds a study with other settings; give the same ones to go on with it, or another --out:\n  {}",
        out.display(),
        differing.join("\n  ")
    )))
}

#[cfg(test)]
mod tests;
