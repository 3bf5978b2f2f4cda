//! What a study will take: a few steps of each kind of work, measured, times how much of it there is.

use super::file::Study;
use super::record::Throughput;
use super::task::{Kind, Plan, Task};
use crate::io::files;
use crate::model::read_architecture;
use crate::{Error, Result};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Puzzles of the stand-in that steps are measured on.
const PUZZLES: usize = 96;
/// Steps that are measured, after one that is not.
const STEPS: usize = 3;
/// Responses that are measured.
const RESPONSES: usize = 64;
/// A base of more parameters is not measured: a step of it may take minutes and more memory than there is.
const MOST: usize = 100_000_000;

/// What a study will take.
#[derive(Debug, Clone, Default)]
pub struct Estimate {
    /// Seconds for each kind of work.
    pub throughput: Throughput,
    /// What each training task says of its memory, by the name of its regime.
    pub memory: Vec<(String, String)>,
    /// Why some of it is not known.
    pub notes: Vec<String>,
}

/// Measure a few steps with the base, in a temporary directory.
///
/// # Errors
/// The temporary directory cannot be made. That something could not be measured is a note.
pub fn estimate(study: &Study, plan: &Plan) -> Result<Estimate> {
    let mut found = Estimate::default();
    let base = &study.head.base;
    let Ok(architecture) = read_architecture(base) else {
        found.notes.push(format!(
            "the base {} is not there (or not downloaded yet), or no model of a supported family: no estimate of time and memory",
            base.display()
        ));
        return Ok(found);
    };
    let parameters: usize =
        architecture.parameter_shapes().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    if parameters > MOST {
        // Weights, gradients and two moments in f32.
        found.notes.push(format!(
            "the base has {:.2} billion parameters: full fine-tuning in f32 holds about {} for weights, gradients and moments alone. \
             Its steps are not measured here",
            parameters as f64 / 1e9,
            files::format_bytes(16 * parameters)
        ));
        return Ok(found);
    }
    let dir = std::env::temp_dir().join(format!("jigsaw-estimate-{}", std::process::id()));
    files::create_dir(&dir)?;
    measure(plan, &dir, base, &mut found);
    let _ = std::fs::remove_dir_all(&dir);
    Ok(found)
}

fn measure(plan: &Plan, dir: &Path, base: &Path, found: &mut Estimate) {
    let Some(puzzles) = plan.tasks.iter().find(|task| task.name.starts_with("puzzles.")) else { return };
    let data = dir.join("puzzles").display().to_string();
    let mut make = without(&puzzles.command, &["--count", "--split", "--out"]);
    make.extend([
        "--count".into(),
        PUZZLES.to_string(),
        "--split".into(),
        "1,0,1".into(),
        "--out".into(),
        data.clone(),
    ]);
    if let Err(why) = call(&make) {
        found.notes.push(format!("no estimate: {why}"));
        return;
    }
    let base = base.display().to_string();
    let mut regimes: Vec<&str> = Vec::new();
    for task in plan.tasks.iter().filter(|task| task.name.starts_with("train.")) {
        if regimes.contains(&task.section.as_str()) {
            continue;
        }
        regimes.push(&task.section);
        let out = dir.join(&task.section);
        match steps(task, &base, &data, &out) {
            Ok((seconds, sequences, memory)) => {
                found.throughput.add(task.work.kind, sequences, seconds);
                found.memory.extend(memory.map(|text| (task.section.clone(), text)));
            }
            Err(why) => found.notes.push(format!("{} could not be measured: {why}", task.name)),
        }
    }
    let out = dir.join("eval").display().to_string();
    let answer =
        ["eval", "--model", &base, "--data", &data, "--limit", &RESPONSES.to_string(), "--max-new-tokens", "48"];
    let mut answer: Vec<String> = answer.map(String::from).to_vec();
    answer.extend(["--batch".into(), "64".into(), "--out".into(), out]);
    let begun = Instant::now();
    match call(&answer) {
        Ok(_) => found.throughput.add(Kind::Respond, RESPONSES as f64, begun.elapsed().as_secs_f64()),
        Err(why) => found.notes.push(format!("responses could not be measured: {why}")),
    }
    if plan.tasks.iter().any(|task| task.work.kind == Kind::Pair) {
        let out = dir.join("dynamics").display().to_string();
        let sets = [format!("a={data}"), format!("b={data}")];
        let pairs = [
            "dynamics", "--model", &base, "--base", &base, "--train", &sets[0], "--prior", &sets[1], "--pairs", "16",
            "--out", &out,
        ];
        let begun = Instant::now();
        match call(&pairs.map(String::from)) {
            Ok(_) => found.throughput.add(Kind::Pair, 16.0, begun.elapsed().as_secs_f64()),
            Err(why) => found.notes.push(format!("pairs could not be measured: {why}")),
        }
    }
}

/// Seconds and sequences of a few steps of a training task on stand-in data, and what it says of memory.
fn steps(task: &Task, base: &str, data: &str, out: &Path) -> Result<(f64, f64, Option<String>)> {
    let mut train = Vec::new();
    let mut arguments = task.command.iter();
    while let Some(argument) = arguments.next() {
        let value = arguments.as_slice().first().map(String::as_str).unwrap_or_default();
        let replaced = match argument.as_str() {
            "--model" | "--data" | "--out" => true,
            "--set" => [
                "train.steps=",
                "train.epochs=",
                "train.warmup_steps=",
                "train.save_every=",
                "eval.every=",
                "sft.replay",
            ]
            .iter()
            .any(|key| value.starts_with(key)),
            _ => false,
        };
        if replaced {
            arguments.next();
        } else {
            train.push(argument.clone());
        }
    }
    train.extend(["--model", base, "--data", data, "--out"].map(String::from));
    train.push(out.display().to_string());
    for set in [&format!("train.steps={}", 1 + STEPS), "train.warmup_steps=0", "eval.every=0"] {
        train.extend(["--set".to_string(), set.to_string()]);
    }
    let said = call(&train)?;
    let lines = files::read_text(&out.join("metrics.jsonl"))?;
    let seconds: Vec<f64> = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()?.get("step_seconds")?.as_f64())
        .collect();
    let counted = seconds.len().saturating_sub(1);
    if counted == 0 {
        return Err(Error::failed("no step was timed"));
    }
    let config: toml::Table =
        files::read_text(&out.join("config.toml"))?.parse().map_err(|e| Error::failed(format!("config.toml: {e}")))?;
    let number = |section: &str, key: &str| config.get(section)?.get(key)?.as_integer().map(|n| n as f64);
    let each = if task.work.kind == Kind::Rft { number("rollout", "num_generations").unwrap_or(1.0) } else { 1.0 };
    let per_step = number("train", "batch_size").unwrap_or(1.0)
        * number("train", "gradient_accumulation_steps").unwrap_or(1.0)
        * each;
    let memory = said.lines().find_map(|line| {
        let plan = line.strip_prefix("note: memory: ").or_else(|| line.strip_prefix("note: memory of the GPU: "));
        plan.map(String::from)
    });
    Ok((seconds[1..].iter().sum(), counted as f64 * per_step, memory))
}

/// A command line without some flags and their values.
fn without(command: &[String], flags: &[&str]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut arguments = command.iter();
    while let Some(argument) = arguments.next() {
        if flags.contains(&argument.as_str()) {
            arguments.next();
        } else {
            kept.push(argument.clone());
        }
    }
    kept
}

/// Run a command of this program to its end; what it said on stderr.
fn call(arguments: &[String]) -> Result<String> {
    let program = std::env::current_exe().map_err(|e| Error::failed(format!("cannot find this program: {e}")))?;
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|e| Error::failed(format!("cannot start {}: {e}", arguments[0])))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.success() {
        true => Ok(said),
        false => Err(Error::failed(said.lines().last().unwrap_or("it failed").to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_left_out_with_their_values() {
        let all: Vec<String> = ["gen", "--count", "5", "--strict", "--out", "x"].map(String::from).to_vec();
        assert_eq!(without(&all, &["--count", "--out"]), ["gen", "--strict"]);
    }
}
