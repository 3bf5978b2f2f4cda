//! Loads tasks that are learned in a row: of each method and seed the accuracies after each task, with what each question contributes.

use crate::Result;
use crate::eval::EvalResult;
use crate::forgetting::{BenchmarkChange, FORGETTING_JSON, ForgettingResult, TunedResult};
use crate::report::comparison_group::comparison_key;
use crate::report::study::seed_stats::{SeedMean, SeedValue, seed_mean};
use crate::report::study_index::{RegimeEntry, SequenceIndex};
use crate::stats::{ClusterTotal, Interval, SequenceMeasure, entries_by_question, entries_sum, mean_of_strata};
use std::path::Path;

/// Tasks in a row.
pub struct SequenceResults<'a> {
    /// Names of the tasks, in order.
    pub tasks: &'a [String],
    /// What guessing earns on each, where that is known.
    pub chance: Vec<Option<f64>>,
    /// The methods, in order.
    pub methods: Vec<MethodResults<'a>>,
    /// What is not measured, or left out, and why.
    pub missing: Vec<String>,
}

/// A method with its seeds.
pub struct MethodResults<'a> {
    /// Its name, and what it is.
    pub entry: &'a RegimeEntry,
    /// The seeds of which something is measured.
    pub seeds: Vec<SeedResults>,
}

/// A row of tasks that was learned with one seed, as far as it is measured without a gap.
pub struct SeedResults {
    /// The seed.
    pub seed: u64,
    /// The matrix R: a row for each time, the base's first, and a column for each task.
    pub r: Vec<Vec<f64>>,
    /// The models after each task.
    stages: Vec<StageResult>,
}

/// A model after some task.
struct StageResult {
    /// The tasks, in order.
    tasks: Vec<BenchmarkChange>,
    /// The model with the prior sets alone.
    prior: TunedResult,
}

/// Everything about `index`, in a study that lies in `dir`, that is there.
///
/// # Errors
/// A result that exists but cannot be read.
pub fn load<'a>(dir: &Path, index: &'a SequenceIndex) -> Result<SequenceResults<'a>> {
    let mut key = None;
    let mut results =
        SequenceResults { tasks: &index.tasks, chance: Vec::new(), methods: Vec::new(), missing: Vec::new() };
    for task in &index.tasks {
        let base = EvalResult::read(&dir.join(&index.base).join(task))?;
        results.chance.push(base.and_then(|base| base.summary.chance).map(|chance| chance.accuracy));
    }
    for entry in &index.methods {
        let own: Vec<_> = index.stages.iter().filter(|stage| stage.method == entry.name).collect();
        let mut seeds: Vec<u64> = own.iter().map(|stage| stage.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        let mut method = MethodResults { entry, seeds: Vec::new() };
        for seed in seeds {
            let mut stages = Vec::new();
            for number in 1..=index.tasks.len() {
                let stage = own.iter().find(|stage| (stage.seed, stage.number) == (seed, number));
                let file = stage.map(|stage| dir.join(&stage.comparison).join(FORGETTING_JSON));
                let found = file.filter(|file| file.is_file()).map(|file| ForgettingResult::read(&file)).transpose()?;
                let Some(ForgettingResult { base, mut tuned, .. }) = found else { break };
                let Some(tuned) = tuned.pop() else { break };
                let own_key = comparison_key(&base, tuned.benchmarks.iter());
                if *key.get_or_insert_with(|| own_key.clone()) != own_key {
                    results.missing.push(format!(
                        "{}, seed {seed}: after task {number} it is compared with another base or on other sets than the first; it is left out",
                        entry.name
                    ));
                    break;
                }
                let Some(stage) = StageResult::of(tuned, &index.tasks) else { break };
                stages.push(stage);
            }
            if stages.len() < index.tasks.len() {
                let (done, of) = (stages.len(), index.tasks.len());
                results.missing.push(format!("{}, seed {seed}: measured after {done} of {of} tasks", entry.name));
            }
            method.seeds.extend(SeedResults::of(seed, stages));
        }
        results.methods.push(method);
    }
    Ok(results)
}

impl StageResult {
    /// `None` if a task is not among the sets.
    fn of(mut tuned: TunedResult, tasks: &[String]) -> Option<StageResult> {
        let (of_tasks, prior): (Vec<_>, Vec<_>) =
            std::mem::take(&mut tuned.benchmarks).into_iter().partition(|one| tasks.contains(&one.name));
        let named = |task: &String| of_tasks.iter().find(|one| one.name == *task).cloned();
        let tasks = tasks.iter().map(named).collect::<Option<_>>()?;
        Some(StageResult { tasks, prior: TunedResult { benchmarks: prior, ..tuned } })
    }
}

impl SequenceResults<'_> {
    /// Any seed's results: all have the same base and the same sets.
    pub fn any(&self) -> Option<&SeedResults> {
        self.methods.iter().find_map(|method| method.seeds.first())
    }

    /// The families of the prior sets, in order.
    pub fn families(&self) -> Vec<&str> {
        let mut families: Vec<&str> = Vec::new();
        for one in self.any().into_iter().flat_map(SeedResults::prior_sets) {
            if !families.contains(&one.family.as_str()) {
                families.push(&one.family);
            }
        }
        families
    }
}

impl MethodResults<'_> {
    /// The mean of a value over the seeds that have it.
    fn over(&self, bounds: (f64, f64), of: impl Fn(&SeedResults) -> Option<SeedValue>) -> Option<SeedMean> {
        seed_mean(&self.seeds.iter().filter_map(of).collect::<Vec<_>>(), bounds)
    }

    /// Accuracy on a task (from 0) after so many tasks; of the base after none.
    pub fn accuracy(&self, time: usize, task: usize) -> Option<SeedMean> {
        self.over((0.0, 1.0), |seed| seed.accuracy(time, task))
    }

    /// A measure after so many tasks.
    pub fn measure(&self, measure: SequenceMeasure, learned: usize) -> Option<SeedMean> {
        self.over(measure.bounds(), |seed| seed.measure(measure, learned))
    }

    /// Change from the base of the mean score over the prior sets, or those of a family, after so many tasks, at least one.
    pub fn prior(&self, family: Option<&str>, time: usize) -> Option<SeedMean> {
        let base = self.seeds.first()?.prior_base(family)?;
        self.over((-base, 1.0 - base), |seed| seed.prior(family, time))
    }
}

impl SeedResults {
    /// `None` if nothing is measured.
    fn of(seed: u64, stages: Vec<StageResult>) -> Option<SeedResults> {
        let base = stages.first()?.tasks.iter().map(|one| one.all.base.value.value).collect();
        let after = stages.iter().map(|stage| stage.tasks.iter().map(|one| one.all.tuned.value.value).collect());
        let r = std::iter::once(base).chain(after).collect();
        Some(SeedResults { seed, r, stages })
    }

    /// A task at a time, with whether it is the base that answers.
    fn entry(&self, time: usize, task: usize) -> Option<(&BenchmarkChange, bool)> {
        let stage = self.stages.get(time.saturating_sub(1))?;
        Some((stage.tasks.get(task)?, time == 0))
    }

    /// The scores of each question of a task at a time.
    fn scores(&self, time: usize, task: usize) -> Option<Vec<ClusterTotal>> {
        let (one, of_base) = self.entry(time, task)?;
        let score = |one: &crate::forgetting::QuestionScore| if of_base { one.base } else { one.tuned };
        let scores: Vec<ClusterTotal> = one.questions.iter().map(|one| (score(one), one.responses)).collect();
        (!scores.is_empty()).then_some(scores)
    }

    /// See [`MethodResults::accuracy`].
    pub fn accuracy(&self, time: usize, task: usize) -> Option<SeedValue> {
        let (one, of_base) = self.entry(time, task)?;
        let interval = if of_base { one.all.base.value } else { one.all.tuned.value };
        let questions = if of_base { None } else { one.score_by_question() };
        Some(SeedValue { interval, questions })
    }

    /// See [`MethodResults::measure`].
    pub fn measure(&self, measure: SequenceMeasure, learned: usize) -> Option<SeedValue> {
        let entries = measure.entries(&self.r, learned)?;
        let scores: Vec<Vec<Option<Vec<ClusterTotal>>>> =
            (0..=learned).map(|time| (0..learned).map(|task| self.scores(time, task)).collect()).collect();
        let questions = entries_by_question(&entries, |time, task| scores[time][task].as_deref());
        let value = entries_sum(&self.r, &entries);
        let unknown = Interval { value, low: f64::NAN, high: f64::NAN };
        let interval = questions.as_ref().map_or(unknown, |questions| mean_of_strata(questions).mean);
        Some(SeedValue { interval, questions })
    }

    /// The prior sets, as the first model answers them.
    pub fn prior_sets(&self) -> &[BenchmarkChange] {
        self.stages.first().map(|stage| &stage.prior.benchmarks[..]).unwrap_or_default()
    }

    /// The mean of a number over the prior sets of a family, or over all, after so many tasks.
    fn prior_mean(&self, family: Option<&str>, time: usize, of: fn(&BenchmarkChange) -> f64) -> Option<f64> {
        let stage = self.stages.get(time.checked_sub(1)?)?;
        let own = stage.prior.benchmarks.iter().filter(|one| family.is_none_or(|family| one.family == family));
        let values: Vec<f64> = own.map(of).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }

    /// The base's mean score on them.
    pub fn prior_base(&self, family: Option<&str>) -> Option<f64> {
        self.prior_mean(family, 1, |one| one.all.base.value.value)
    }

    /// See [`MethodResults::prior`].
    pub fn prior(&self, family: Option<&str>, time: usize) -> Option<SeedValue> {
        let value = self.prior_mean(family, time, |one| one.all.change.value)?;
        let questions = self.stages.get(time.checked_sub(1)?)?.prior.change_by_question(family);
        let unknown = Interval { value, low: f64::NAN, high: f64::NAN };
        let interval = questions.as_ref().map_or(unknown, |questions| mean_of_strata(questions).mean);
        Some(SeedValue { interval, questions })
    }
}
