//! What a study will take: a few steps of each kind of work are measured and multiplied by how much of it there is.

use super::command::{Eval, Gen, JigsawCommand, Train};
use super::study_file::Study;
use super::task::{Plan, StudyTask, TaskKind};
use super::throughput::Throughput;
use crate::dynamics::{DynamicsRequest, InfluenceConfig};
use crate::eval::bench::{self, BenchmarkSpec};
use crate::io::plain::toml_fault;
use crate::io::{files, output_dir};
use crate::model::SamplingParams;
use crate::model::read_architecture;
use crate::sampling::SamplePlan;
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

/// How the name of the temporary directory begins.
const DIR: &str = "jigsaw-estimate-";
/// Puzzles of the dataset that steps are measured on.
const PUZZLES: usize = 96;
/// Measured steps, after one that is not counted.
const STEPS: usize = 3;
/// Measured responses.
const RESPONSES: usize = 64;
/// Longest measured response, in tokens.
const NEW_TOKENS: usize = 48;
/// Measured pairs.
const PAIRS: usize = 16;
/// Most parameters of a base that is measured: a step of a larger one may take minutes and more memory than there is.
const MAX_PARAMETERS: usize = 100_000_000;

/// What a study will take.
#[derive(Debug, Clone, Default)]
pub struct StudyEstimate {
    /// Seconds for each kind of work.
    pub throughput: Throughput,
    /// The memory that each training task plans, by the section of its regime.
    pub memory: Vec<(String, String)>,
    /// Why some of it is unknown.
    pub notes: Vec<String>,
}

/// Measure a few steps with the base, in a temporary directory.
///
/// # Errors
/// The temporary directory cannot be made. A measurement that fails is a note.
pub fn estimate(study: &Study, plan: &Plan) -> Result<StudyEstimate> {
    let mut found = StudyEstimate::default();
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
    if parameters > MAX_PARAMETERS {
        // Weights, gradients and two moments in f32.
        found.notes.push(format!(
            "the base has {:.2} billion parameters: full fine-tuning in f32 holds about {} for weights, gradients and moments alone. \
             Its steps are not measured here",
            parameters as f64 / 1e9,
            files::format_bytes(16 * parameters)
        ));
        return Ok(found);
    }
    let temporary = std::env::temp_dir();
    remove_abandoned(&temporary);
    let dir = temporary.join(format!("{DIR}{}", std::process::id()));
    files::create_dir(&dir)?;
    let lock = output_dir::lock(&dir, "estimating")?;
    measure(study, plan, &dir, &mut found);
    let _ = std::fs::remove_dir_all(&dir);
    drop(lock);
    Ok(found)
}

/// Remove the directories of estimates that were killed.
fn remove_abandoned(temporary: &Path) {
    for entry in std::fs::read_dir(temporary).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(DIR);
        if is_ours && let Ok(_lock) = output_dir::lock(&entry.path(), "estimating") {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn measure(study: &Study, plan: &Plan, dir: &Path, found: &mut StudyEstimate) {
    let Some((_, puzzles)) = study.puzzles.first() else { return };
    let (base, data) = (&study.head.base, dir.join("puzzles"));
    let dataset = puzzles.dataset.clone().with_count(PUZZLES);
    if let Err(why) = call(&JigsawCommand::Gen(Gen { dataset, split: Some("1,0,1".into()), out: data.clone() })) {
        found.notes.push(format!("no estimate: {why}"));
        return;
    }
    let mut regimes: Vec<&str> = Vec::new();
    for task in &plan.tasks {
        let JigsawCommand::Train(train) = &task.command else { continue };
        if regimes.contains(&task.section.as_str()) {
            continue;
        }
        regimes.push(&task.section);
        match steps(task, train, base, &data, dir.join(&task.section)) {
            Ok((seconds, sequences, memory)) => {
                found.throughput.add(task.work.kind, sequences, seconds);
                found.memory.extend(memory.map(|text| (task.section.clone(), text)));
            }
            Err(why) => found.notes.push(format!("{} could not be measured: {why}", task.name)),
        }
    }
    let spec = |name: &str, split: &str| BenchmarkSpec {
        name: name.into(),
        path: data.clone(),
        kind: None,
        split: split.into(),
    };
    let settings = bench::BenchmarkSettings {
        plan: SamplePlan { limit: Some(RESPONSES), num_generations: 1, batch_size: RESPONSES },
        sampling: SamplingParams::greedy(NEW_TOKENS),
        max_new_tokens: Some(NEW_TOKENS),
        min_pixels: None,
        max_pixels: None,
    };
    let (benchmarks, out) = (vec![spec("puzzles", "test")], dir.join("eval"));
    let started = Instant::now();
    match call(&JigsawCommand::Eval(Eval { model: base.clone(), benchmarks, settings, out })) {
        Ok(_) => found.throughput.add(TaskKind::Respond, RESPONSES as f64, started.elapsed().as_secs_f64()),
        Err(why) => found.notes.push(format!("responses could not be measured: {why}")),
    }
    if plan.tasks.iter().any(|task| task.work.kind == TaskKind::Pair) {
        let request = DynamicsRequest {
            models: vec![base.clone()],
            base: base.clone(),
            train: vec![spec("a", "train")],
            prior: vec![spec("b", "test")],
            config: InfluenceConfig { pairs: PAIRS, ..InfluenceConfig::default() },
            max_new_tokens: None,
            forgetting: Vec::new(),
            out: dir.join("dynamics"),
            fresh: false,
        };
        let started = Instant::now();
        match call(&JigsawCommand::Dynamics(request)) {
            Ok(_) => found.throughput.add(TaskKind::Pair, PAIRS as f64, started.elapsed().as_secs_f64()),
            Err(why) => found.notes.push(format!("pairs could not be measured: {why}")),
        }
    }
}

/// Seconds and sequences of a few steps of a training task on the puzzles in `data`, and the memory that it plans.
fn steps(
    task: &StudyTask,
    train: &Train,
    base: &Path,
    data: &Path,
    out: PathBuf,
) -> Result<(f64, f64, Option<String>)> {
    let mut train = Train { model: base.into(), data: data.into(), out, ..train.clone() };
    let ends = ["train.stop_when", "train.stop_patience", "train.save_best", "train.stop_when_forgotten"];
    let others = [
        "train.steps",
        "train.epochs",
        "train.save_steps",
        "train.prompts_of",
        "train.mix",
        "train.max_examples",
        "sft.replay",
        "sft.replay_share",
        "eval.prior",
    ];
    for key in ends.into_iter().chain(others) {
        train.settings.remove(key);
    }
    // Its data is not there yet.
    train.settings.retain(|key, _| !key.starts_with("prior_kl."));
    for (key, value) in [("train.steps", 1 + STEPS as i64), ("train.warmup_steps", 0), ("eval.steps", 0)] {
        train.settings.insert(key.into(), value.into());
    }
    let out = train.out.clone();
    let stderr = call(&JigsawCommand::Train(train))?;
    let lines = files::read_text(&out.join("metrics.jsonl"))?;
    let seconds: Vec<f64> = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()?.get("step_seconds")?.as_f64())
        .collect();
    let counted = seconds.len().saturating_sub(1);
    if counted == 0 {
        return Err(Error::failed("no step was timed"));
    }
    let config: toml::Table = files::read_text(&out.join("config.toml"))?
        .parse()
        .map_err(|e| Error::failed(format!("config.toml: {}", toml_fault(&e))))?;
    let number = |section: &str, key: &str| config.get(section)?.get(key)?.as_integer().map(|n| n as f64);
    let each = if task.work.kind == TaskKind::Rft { number("rollout", "num_generations").unwrap_or(1.0) } else { 1.0 };
    let per_step = number("train", "batch_size").unwrap_or(1.0)
        * number("train", "gradient_accumulation_steps").unwrap_or(1.0)
        * each;
    let memory = stderr.lines().find_map(|line| {
        let plan = line.strip_prefix("note: memory: ").or_else(|| line.strip_prefix("note: memory of the GPU: "));
        plan.map(String::from)
    });
    Ok((seconds[1..].iter().sum(), counted as f64 * per_step, memory))
}

/// Run a command of this program to its end; what it wrote to stderr.
fn call(command: &JigsawCommand) -> Result<String> {
    let program = std::env::current_exe().map_err(|e| Error::failed(format!("cannot find this program: {e}")))?;
    let output = std::process::Command::new(program).args(command.arguments()).stdin(Stdio::null()).output();
    let output = output.map_err(|e| Error::failed(format!("cannot start jigsaw {}: {e}", command.subcommand())))?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.success() {
        true => Ok(stderr),
        false => Err(Error::failed(stderr.lines().last().unwrap_or("it failed").to_string())),
    }
}
