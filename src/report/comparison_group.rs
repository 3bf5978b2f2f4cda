//! Models that can be compared with each other: tuned from one base and measured on the same examples by the same scorers.

use super::discover::{ReportInputs, canonical, shortest_unique_name};
use super::trajectory::step;
use crate::forgetting::{BenchmarkChange, ModelRef, RunRef, TunedResult};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The models of one base and one set of benchmarks.
pub struct ComparisonGroup<'a> {
    /// The base.
    pub base: &'a ModelRef,
    /// The models by training run. A model that belongs to no run stands alone.
    pub runs: Vec<MeasuredRun<'a>>,
}

impl<'a> ComparisonGroup<'a> {
    /// The models of each run.
    pub fn models(&self) -> Vec<&[&'a TunedResult]> {
        self.runs.iter().map(|run| run.models.as_slice()).collect()
    }

    /// Each model with its run.
    pub fn all_models(&self) -> impl Iterator<Item = (&MeasuredRun<'a>, &'a TunedResult)> {
        self.runs.iter().flat_map(|run| run.models.iter().map(move |model| (run, *model)))
    }
}

/// The measured models of a training run.
pub struct MeasuredRun<'a> {
    /// Name on the page.
    pub name: String,
    /// The models in order of training; never empty.
    pub models: Vec<&'a TunedResult>,
}

impl MeasuredRun<'_> {
    /// The run was started from this model.
    pub fn started_from(&self, base: &ModelRef) -> bool {
        self.last().model.run.as_ref().is_some_and(|run| run.model_hash == base.hash)
    }

    /// The last model.
    pub fn last(&self) -> &TunedResult {
        self.models[self.models.len() - 1]
    }

    /// The run as a model, for table rows about all of it.
    pub fn as_model(&self) -> ModelRef {
        let last = &self.last().model;
        let run = last.run.clone().map(|run| RunRef { step: None, ..run });
        ModelRef { name: self.name.clone(), run, ..last.clone() }
    }
}

/// Name of a run's model, with its step.
pub fn checkpoint_name(run: &MeasuredRun<'_>, tuned: &TunedResult) -> String {
    match tuned.model.run.as_ref().and_then(|run| run.step) {
        Some(step) => format!("{}, step {step}", run.name),
        None => run.name.clone(),
    }
}

/// Group the models of all comparisons by base and benchmarks, then by run. A training run that is in the report too keeps its name
/// there. New tasks that a study knows to be the same puzzles in other words are one.
pub fn group_comparisons<'a>(found: &'a ReportInputs) -> Vec<ComparisonGroup<'a>> {
    let (comparisons, train_runs) = (&found.forgetting, &found.runs);
    let same_puzzles = same_puzzles(found);
    let mut groups: Vec<(Vec<String>, &ModelRef, Vec<&TunedResult>)> = Vec::new();
    for (_, one) in comparisons {
        for tuned in &one.tuned {
            let mut key = comparison_key(&one.base, tuned.benchmarks.iter());
            key.extend(tuned.new_task.iter().map(|task| {
                let data = same_puzzles.get(task.data.as_str()).copied().unwrap_or(&task.data);
                benchmark_key(task, data)
            }));
            // The last checkpoint of a run and its final model have the same weights.
            let same =
                |m: &&TunedResult| m.model.hash == tuned.model.hash && run_dir(&m.model) == run_dir(&tuned.model);
            match groups.iter_mut().find(|(k, ..)| *k == key) {
                Some((.., members)) if members.iter().any(same) => {}
                Some((.., members)) => members.push(tuned),
                None => groups.push((key, &one.base, vec![tuned])),
            }
        }
    }
    let mut dirs: Vec<PathBuf> = Vec::new();
    for dir in groups.iter().flat_map(|(.., members)| members.iter().map(|m| run_dir(&m.model))) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    let name = |dir: &Path| {
        let run = train_runs.iter().find(|run| canonical(&run.dir) == canonical(dir));
        let i = dirs.iter().position(|other| other == dir).unwrap_or(0);
        run.map_or_else(|| shortest_unique_name(&dirs, i), |run| run.name.clone())
    };
    let by_run = |members: Vec<&'a TunedResult>| {
        let mut runs: Vec<(PathBuf, Vec<&TunedResult>)> = Vec::new();
        for tuned in members {
            let dir = run_dir(&tuned.model);
            match runs.iter_mut().find(|(other, _)| *other == dir) {
                Some((_, models)) => models.push(tuned),
                None => runs.push((dir, vec![tuned])),
            }
        }
        let sorted = runs.into_iter().map(|(dir, mut models)| {
            // A model that does not know its step is the final one.
            let order = |m: &TunedResult| step(m).unwrap_or(f64::INFINITY);
            models.sort_by(|a, b| order(a).total_cmp(&order(b)));
            MeasuredRun { name: name(&dir), models }
        });
        sorted.collect()
    };
    groups.into_iter().map(|(_, base, members)| ComparisonGroup { base, runs: by_run(members) }).collect()
}

/// Directory of the model's run, or of the model if it belongs to no run.
fn run_dir(model: &ModelRef) -> PathBuf {
    PathBuf::from(model.run.as_ref().map_or(&model.dir, |run| &run.dir))
}

/// What must be the same for two models to be compared, as far as these benchmarks go.
pub fn comparison_key<'a>(base: &ModelRef, benchmarks: impl Iterator<Item = &'a BenchmarkChange>) -> Vec<String> {
    [base.hash.clone()]
        .into_iter()
        .chain(benchmarks.map(|benchmark| benchmark_key(benchmark, &benchmark.data)))
        .collect()
}

/// The same for one benchmark, whose examples `data` stands for.
fn benchmark_key(benchmark: &BenchmarkChange, data: &str) -> String {
    format!("{} {data} {} {}", benchmark.name, benchmark.scorer, benchmark.samples)
}

/// The hash of each new task of a study, with the one that stands for all that are the same puzzles in other words.
fn same_puzzles(found: &ReportInputs) -> HashMap<&str, &str> {
    let mut same = HashMap::new();
    for (dir, index) in &found.studies {
        let mut first: HashMap<&str, &str> = HashMap::new();
        for run in &index.runs {
            let Some(name) = &run.new_task else { continue };
            let place = canonical(&dir.join(&run.comparison));
            let comparisons = found.forgetting.iter().filter(|(other, _)| canonical(other) == place);
            for task in comparisons.flat_map(|(_, one)| &one.tuned).filter_map(|tuned| tuned.new_task.as_ref()) {
                let stands_for_all = *first.entry(index.puzzles_of(name)).or_insert(&task.data);
                same.insert(task.data.as_str(), stands_for_all);
            }
        }
    }
    same
}
