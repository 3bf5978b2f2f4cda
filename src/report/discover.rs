//! Finds and reads runs, evaluations, comparisons and measurements on disk, finished or not.

use super::dynamics_section::DynamicsMeasurement;
use super::study_index::{STUDY_JSON, StudyIndex};
use crate::dynamics::{DYNAMICS_JSON, DynamicsResult, read_pairs};
use crate::eval::{EvalInfo, EvalResult};
use crate::forgetting::{FORGETTING_JSON, ForgettingResult};
use crate::io::plain::toml_fault;
use crate::io::{files, output_dir};
use crate::sampling::{ScoredResponse, Summary};
use crate::tasks::partial_credit_label;
use crate::train::metrics::{METRICS, SAMPLES, read_lines};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Depth to which a directory that is not a run is searched for runs.
const DEPTH: usize = 2;

/// A training run.
#[derive(Debug)]
pub struct TrainRun {
    /// Name on the page, unique there.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// The resolved settings as written.
    pub config: toml::Table,
    /// The same as text.
    pub config_text: String,
    /// `run.json`: command, versions, model, data.
    pub identity: Map<String, Value>,
    /// The lines of `metrics.jsonl`.
    pub metrics: Vec<Map<String, Value>>,
    /// The lines of `samples.jsonl`.
    pub samples: Vec<Map<String, Value>>,
    /// Whether it is finished.
    pub state: RunState,
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Done.
    Finished,
    /// A process is working on it.
    Running,
    /// No process is working on it, and it is not done.
    Stopped,
}

impl TrainRun {
    /// `sft` or `rft`.
    pub fn method(&self) -> &str {
        self.config.get("train").and_then(|t| t.get("method")).and_then(|m| m.as_str()).unwrap_or("")
    }

    /// It learns responses that it samples itself, not the reference responses of its data.
    pub fn learns_own_responses(&self) -> bool {
        let every =
            self.config.get("sft").and_then(|sft| sft.get("resample_every")).and_then(|every| every.as_integer());
        self.method() == "rft" || every.is_some_and(|every| every > 0)
    }

    /// The last step that was recorded.
    pub fn last_step(&self) -> u64 {
        self.metrics.iter().filter_map(|m| m.get("step")?.as_u64()).max().unwrap_or(0)
    }

    /// `(step, value)` of a metric, in order; a value that was not finite is NaN.
    pub fn series(&self, metric: &str) -> Vec<(f64, f64)> {
        let value = |m: &Map<String, Value>| {
            let y = m.get(metric)?;
            Some((m.get("step")?.as_f64()?, y.as_f64().unwrap_or(f64::NAN)))
        };
        self.metrics.iter().filter_map(value).collect()
    }
}

/// An evaluation.
#[derive(Debug)]
pub struct EvalRun {
    /// Name on the page, unique there.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Model, data and settings of the evaluation.
    pub about: EvalInfo,
    /// Summary over the responses so far; `None` if there are none.
    pub summary: Option<Summary>,
    /// The responses.
    pub outcomes: Vec<ScoredResponse>,
    /// All examples are there.
    pub finished: bool,
}

impl EvalRun {
    /// What partial credit counts here, in words; `None` where the task has none.
    pub fn partial_credit(&self) -> Option<&'static str> {
        partial_credit_label(self.about.key.scorers.keys())
    }
}

/// The inputs of a report.
#[derive(Debug, Default)]
pub struct ReportInputs {
    /// Training runs.
    pub runs: Vec<TrainRun>,
    /// Evaluations of one model on one dataset.
    pub evals: Vec<EvalRun>,
    /// Comparisons with a base, each with its directory.
    pub forgetting: Vec<(PathBuf, ForgettingResult)>,
    /// Measurements of learning dynamics, each with the directory that it was found in.
    pub dynamics: Vec<(PathBuf, DynamicsMeasurement)>,
    /// Studies among the given paths, each with its directory.
    pub studies: Vec<(PathBuf, StudyIndex)>,
}

impl ReportInputs {
    /// Nothing was found.
    pub fn is_empty(&self) -> bool {
        let ReportInputs { runs, evals, forgetting, dynamics, studies } = self;
        runs.is_empty() && evals.is_empty() && forgetting.is_empty() && dynamics.is_empty() && studies.is_empty()
    }
}

/// All runs, evaluations and comparisons with a base in and below the given directories, in that order, each once. The evaluations
/// that a comparison is made of are part of it, and not listed by themselves. Of a study also what its index names.
pub fn discover(paths: &[PathBuf]) -> Result<ReportInputs> {
    let mut found = ReportInputs::default();
    let mut seen = Vec::new();
    for path in paths {
        files::require_dir(path, "run")?;
        let before = (seen.len(), found.studies.len());
        if study(path, &mut seen, &mut found)? {
            continue;
        }
        visit(path, 0, &mut seen, &mut found)?;
        let known = path.canonicalize().is_ok_and(|p| seen.iter().any(|s: &PathBuf| s.starts_with(&p)));
        if (seen.len(), found.studies.len()) == before && !known {
            return Err(Error::input(format!(
                "no run in {}: neither a training run (config.toml, metrics.jsonl) nor an evaluation (key.json, \
                 responses.jsonl) with anything recorded, nor a {FORGETTING_JSON}, {DYNAMICS_JSON} or {STUDY_JSON} is there or in the \
                 directories below",
                path.display()
            )));
        }
    }
    let ReportInputs { runs, evals, .. } = &mut found;
    name(runs, evals);
    // Evaluations of no run (the base) first, then in the order of the runs.
    let of_run =
        |e: &EvalRun| runs.iter().position(|r| e.name == r.name || e.name.starts_with(&format!("{} (", r.name)));
    evals.sort_by_cached_key(of_run);
    Ok(found)
}

/// If `dir` is a study's, read what is below it and the parts that its index names, as far as they exist.
fn study(dir: &Path, seen: &mut Vec<PathBuf>, found: &mut ReportInputs) -> Result<bool> {
    let Some(index) = StudyIndex::read(dir)? else { return Ok(false) };
    if found.studies.iter().any(|(other, _)| canonical(other) == canonical(dir)) {
        return Ok(true);
    }
    let parts = index.runs.iter().flat_map(|run| run.dir.iter().chain([&run.comparison])).chain(&index.dynamics);
    let parts: Vec<PathBuf> = parts.map(|part| dir.join(part)).filter(|path| path.is_dir()).collect();
    found.studies.push((dir.to_path_buf(), index));
    visit(dir, 0, seen, found)?;
    parts.iter().try_for_each(|part| visit(part, DEPTH, seen, found))?;
    Ok(true)
}

fn visit(dir: &Path, depth: usize, seen: &mut Vec<PathBuf>, found: &mut ReportInputs) -> Result<()> {
    let unreadable = |e: std::io::Error| Error::input(format!("cannot read {}: {e}", dir.display()));
    let canonical = dir.canonicalize().map_err(unreadable)?;
    let new = !seen.contains(&canonical);
    if let Some(about) = EvalInfo::read(dir)? {
        // Predictions without scores are no evaluation.
        if new
            && !about.is_unscored()
            && let Some(eval) = read_eval(dir, about)?
        {
            seen.push(canonical);
            found.evals.push(eval);
        }
        return Ok(());
    }
    let comparison = dir.join(FORGETTING_JSON);
    if comparison.is_file() {
        if new {
            seen.push(canonical);
            found.forgetting.push((dir.to_path_buf(), ForgettingResult::read(&comparison)?));
        }
        return Ok(());
    }
    let measurement = dir.join(DYNAMICS_JSON);
    if measurement.is_file() {
        if new {
            seen.push(canonical);
            let measurement =
                DynamicsMeasurement { found: DynamicsResult::read(&measurement)?, pairs: read_pairs(dir)? };
            found.dynamics.push((dir.to_path_buf(), measurement));
        }
        return Ok(());
    }
    if new
        && dir.join("config.toml").is_file()
        && dir.join("run.json").is_file()
        && let Some(run) = read_run(dir)?
    {
        seen.push(canonical);
        found.runs.push(run);
    }
    if depth == DEPTH {
        return Ok(());
    }
    let mut below: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') && !["checkpoints", "model", "images"].contains(&name.as_str()) {
            below.push(path);
        }
    }
    // In order of start, so that a run comes before the runs that continue it.
    below.sort_by_cached_key(|path| (started(path), path.clone()));
    for path in below {
        if !study(&path, seen, found)? {
            visit(&path, depth + 1, seen, found)?;
        }
    }
    Ok(())
}

/// Give `found` every directory of an evaluation in and below `dir`, down to a depth. A directory that cannot be read is passed over.
pub(super) fn evaluations_below(dir: &Path, depth: usize, found: &mut dyn FnMut(&Path)) {
    if EvalInfo::is_in(dir) {
        return found(dir);
    }
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut below: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    below.sort();
    for path in below.iter().filter(|path| depth > 0 && path.is_dir()) {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if !name.starts_with('.') && !["checkpoints", "images", "divergence"].contains(&name.as_str()) {
            evaluations_below(path, depth - 1, found);
        }
    }
}

/// Start of a run in seconds since 1970; a run that does not record it comes last.
fn started(dir: &Path) -> u64 {
    let identity = files::read_json::<Map<String, Value>>(&dir.join("run.json")).ok();
    identity.and_then(|i| i.get("started")?.as_u64()).unwrap_or(u64::MAX)
}

/// Whether a process is working in a directory.
fn is_locked(dir: &Path) -> bool {
    File::open(dir.join(output_dir::LOCK)).is_ok_and(|f| matches!(f.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// The run in `dir`; `None` if nobody works on it and it has recorded nothing: it was stopped before its first step.
fn read_run(dir: &Path) -> Result<Option<TrainRun>> {
    let config_file = dir.join("config.toml");
    let config_text = files::read_text(&config_file)?;
    let config = config_text
        .parse()
        .map_err(|e: toml::de::Error| Error::input(format!("{}: {}", config_file.display(), toml_fault(&e))))?;
    let state = if dir.join("finished.json").is_file() {
        RunState::Finished
    } else if is_locked(dir) {
        RunState::Running
    } else {
        RunState::Stopped
    };
    let metrics = read_lines(&dir.join(METRICS))?;
    if metrics.is_empty() && state == RunState::Stopped {
        return Ok(None);
    }
    Ok(Some(TrainRun {
        name: String::new(),
        dir: dir.to_path_buf(),
        config,
        config_text,
        identity: files::read_json(&dir.join("run.json"))?,
        metrics,
        samples: read_lines(&dir.join(SAMPLES))?,
        state,
    }))
}

/// The evaluation in `dir`; `None` if nobody works on it and nothing has been answered.
fn read_eval(dir: &Path, about: EvalInfo) -> Result<Option<EvalRun>> {
    let outcomes = EvalResult::read_responses(dir)?;
    if outcomes.is_empty() && !is_locked(dir) {
        return Ok(None);
    }
    let whole = |n: usize| n / about.key.num_generations.max(1) * about.key.num_generations.max(1);
    let so_far = &outcomes[..whole(outcomes.len())];
    let (summary, finished) = match EvalResult::read(dir)? {
        Some(result) => (Some(result.summary), true),
        None if so_far.is_empty() => (None, false),
        None => {
            (Some(Summary::of(&about.key.task, None, so_far, about.key.num_generations, 0, Duration::ZERO)?), false)
        }
    };
    Ok(Some(EvalRun { name: String::new(), dir: dir.to_path_buf(), about, summary, outcomes, finished }))
}

/// Name each run after its directory, with as much of the path above as makes names unique. An evaluation of a run's model has the name
/// of the run.
fn name(runs: &mut [TrainRun], evals: &mut [EvalRun]) {
    let dirs: Vec<PathBuf> = runs.iter().map(|r| canonical(&r.dir)).collect();
    for (i, run) in runs.iter_mut().enumerate() {
        run.name = shortest_unique_name(&dirs, i);
    }
    let of_run = |eval: &EvalRun| {
        let model = canonical(&eval.about.model);
        dirs.iter().position(|dir| model.starts_with(dir))
    };
    let owners: Vec<Option<usize>> = evals.iter().map(of_run).collect();
    let eval_dirs: Vec<PathBuf> = evals.iter().map(|e| canonical(&e.dir)).collect();
    for (i, eval) in evals.iter_mut().enumerate() {
        let own = shortest_unique_name(&eval_dirs, i);
        eval.name = match owners[i] {
            Some(run) if owners.iter().filter(|o| **o == Some(run)).count() == 1 => runs[run].name.clone(),
            Some(run) => format!("{} ({own})", runs[run].name),
            None if runs.iter().any(|r| r.name == own) => format!("{own} (evaluation)"),
            None => own,
        };
    }
}

pub(super) fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// The shortest end of path `i` that no other path has.
pub(super) fn shortest_unique_name(paths: &[PathBuf], i: usize) -> String {
    let end = |path: &Path, parts: usize| -> Vec<String> {
        let all: Vec<String> = path.components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect();
        all[all.len().saturating_sub(parts)..].to_vec()
    };
    let most = paths[i].components().count();
    let unique = (1..=most).find(|&n| {
        paths.iter().enumerate().all(|(j, other)| j == i || other == &paths[i] || end(other, n) != end(&paths[i], n))
    });
    end(&paths[i], unique.unwrap_or(most)).join("/")
}

#[cfg(test)]
impl TrainRun {
    /// A finished run with these settings, and nothing else.
    pub fn of_config(config: &str) -> TrainRun {
        TrainRun {
            name: String::new(),
            dir: PathBuf::new(),
            config: config.parse().unwrap(),
            config_text: String::new(),
            identity: Map::new(),
            metrics: Vec::new(),
            samples: Vec::new(),
            state: RunState::Finished,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_short_as_they_can_be_told_apart() {
        let paths: Vec<PathBuf> = ["/a/x/sft", "/a/y/sft", "/a/y/rft"].map(PathBuf::from).to_vec();
        assert_eq!((0..3).map(|i| shortest_unique_name(&paths, i)).collect::<Vec<_>>(), ["x/sft", "y/sft", "rft"]);
    }

    #[test]
    fn only_sft_without_refreshing_learns_the_reference_responses() {
        for (config, own) in [
            ("[train]\nmethod = \"sft\"\n[sft]\nresample_every = 0", false),
            ("[train]\nmethod = \"sft\"\n[sft]\nresample_every = 50", true),
            ("[train]\nmethod = \"sft\"", false),
            ("[train]\nmethod = \"rft\"", true),
        ] {
            assert_eq!(TrainRun::of_config(config).learns_own_responses(), own, "{config}");
        }
    }

    #[test]
    fn a_directory_without_runs_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let error = discover(&[dir.path().to_path_buf()]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("metrics.jsonl"), "{error}");
        assert!(discover(&[dir.path().join("missing")]).unwrap_err().to_string().contains("no such directory"));
    }
}
