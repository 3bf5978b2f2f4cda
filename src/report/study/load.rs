//! Loads a study, finished or not: the results on disk, by the regimes and runs of its index.

use super::measure::{ACCURACY, Measure, family, prior};
use super::recipe::{self, Recipe};
use super::seed_stats::{AtAccuracy, SeedMean, SeedValue, best, reached, seed_mean};
use super::sequence::{self, SequenceResults};
use crate::Result;
use crate::eval::EvalResult;
use crate::forgetting::{
    BenchmarkChange, FORGETTING_JSON, ForgettingResult, GoldItem, ModelRef, NEW_TASK, TunedResult, brief, brief_data,
    gold_by_group,
};
use crate::report::comparison_group::comparison_key;
use crate::report::discover::{ReportInputs, RunState, TrainRun, canonical, evaluations_below};
use crate::report::study_index::{StudyIndex, StudyRun};
use crate::report::trajectory::{self, TrajectoryPoint, step};
use crate::sampling::Summary;
use crate::stats::Stratum;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Depth at which evaluations lie below a study or a comparison.
const DEPTH: usize = 3;

/// A study.
pub struct StudyResults<'a> {
    /// What it is made of.
    pub index: &'a StudyIndex,
    /// The base model, once a run is compared with it.
    pub base: Option<&'a ModelRef>,
    /// The regimes, in order.
    pub regimes: Vec<RegimeResults<'a>>,
    /// Evaluation of each model on the new task, including the base, by the hashes of model and data.
    evaluations: HashMap<(String, String), Summary>,
    /// The best learning rate of some regime is chosen by accuracy on the test examples, for want of accuracy on validation examples.
    pub chosen_on_test: bool,
    /// Of each final model, by its hash, what the gold answers contribute to [`GoldChange::per_answer`](crate::forgetting::GoldChange) and
    /// `answer_text`.
    gold: HashMap<String, [Vec<Stratum>; 2]>,
    /// Models that were trained further on prior examples, by the name of their run, as far as they are compared with the base.
    recoveries: Vec<(&'a str, usize, TunedResult)>,
    /// Evaluations of solvers that are no models: name, hash of the data, result.
    solvers: Vec<(&'a str, String, Summary)>,
    /// Tasks that are learned in a row, if there are any.
    pub sequence: Option<SequenceResults<'a>>,
    /// What is left out, and why.
    pub left_out: Vec<String>,
}

/// A regime with its runs.
pub struct RegimeResults<'a> {
    /// Name.
    pub name: &'a str,
    /// What it is.
    pub about: &'a str,
    /// Its runs by learning rate, the lowest first; variants without one come last.
    pub variants: Vec<RegimeRuns<'a>>,
    /// Index of the best variant: see [`best`].
    pub best: Option<usize>,
    /// What it learns, and how.
    pub recipe: Recipe,
    /// Median perplexity under the base of the reference responses that it learns, without replayed ones.
    pub perplexity: Option<f64>,
}

/// The runs of a regime at one learning rate, one for each seed.
pub struct RegimeRuns<'a> {
    /// The learning rate.
    pub learning_rate: Option<f64>,
    /// What defines a variant that has no learning rate, such as an interpolation (`alpha-0.5`).
    pub setting: &'a str,
    /// The runs, by seed.
    pub runs: Vec<SeedRun<'a>>,
}

/// A run.
pub struct SeedRun<'a> {
    /// As the index names it.
    pub plan: &'a StudyRun,
    /// Its directory, where something was trained.
    pub dir: Option<PathBuf>,
    /// Its models that are compared with the base, in order of training, each set of weights once; the final one last.
    pub models: Vec<&'a TunedResult>,
    /// The last of them is the final one.
    pub done: bool,
    /// Where it stands.
    pub state: String,
    /// Hash of the data that it is trained on.
    pub data: Option<String>,
    /// Way from the base ([`trajectory::trajectories`]): accuracy on the new task and change of prior knowledge.
    pub trajectory: Vec<TrajectoryPoint<'a>>,
}

/// A set of new-task examples.
pub struct NewTask<'a> {
    /// Name of its puzzles in the study.
    pub name: String,
    /// Name that stands for all sets that are the same puzzles in other words.
    pub puzzles: String,
    /// One model on it, beside the base.
    pub measured: &'a BenchmarkChange,
}

/// Everything about `index`, which lies in `dir`, that is in `found`.
///
/// # Errors
/// A result that exists but cannot be read.
pub fn load<'a>(dir: &Path, index: &'a StudyIndex, found: &'a ReportInputs) -> Result<StudyResults<'a>> {
    let of = |run: &StudyRun| {
        let place = canonical(&dir.join(&run.comparison));
        found.forgetting.iter().find(|(d, _)| canonical(d) == place).map(|(_, one)| one)
    };
    let first = index.runs.iter().filter_map(of).find_map(|one| Some((&one.base, one.tuned.first()?)));
    let key = first.map(|(base, tuned)| comparison_key(base, tuned.benchmarks.iter()));
    let mut study = StudyResults {
        index,
        base: first.map(|(base, _)| base),
        regimes: Vec::new(),
        evaluations: HashMap::new(),
        chosen_on_test: false,
        gold: HashMap::new(),
        recoveries: Vec::new(),
        solvers: Vec::new(),
        sequence: index.sequence.as_ref().map(|sequence| sequence::load(dir, sequence)).transpose()?,
        left_out: Vec::new(),
    };
    for regime in &index.regimes {
        let mut variants: Vec<RegimeRuns<'a>> = Vec::new();
        for plan in index.runs.iter().filter(|run| run.regime == regime.name) {
            let train = plan.dir.as_ref().and_then(|own| {
                let place = canonical(&dir.join(own));
                found.runs.iter().find(|run| canonical(&run.dir) == place)
            });
            let run = study.run(dir, plan, train, of(plan), key.as_ref());
            let setting = if plan.learning_rate.is_some() { "" } else { plan.setting() };
            match variants
                .iter_mut()
                .find(|variant| variant.learning_rate == plan.learning_rate && variant.setting == setting)
            {
                Some(variant) => variant.runs.push(run),
                None => variants.push(RegimeRuns { learning_rate: plan.learning_rate, setting, runs: vec![run] }),
            }
        }
        let last = |rate: Option<f64>| rate.unwrap_or(f64::INFINITY);
        variants.sort_by(|a, b| last(a.learning_rate).total_cmp(&last(b.learning_rate)));
        variants.iter_mut().for_each(|variant| variant.runs.sort_by_key(|run| run.plan.seed));
        let measured = || variants.iter().filter(|variant| variant.done().next().is_some());
        let validated = measured().all(|variant| variant.validation_accuracy().is_some());
        study.chosen_on_test |= !validated;
        let means = |variant: &RegimeRuns<'_>| {
            let prior = variant.change(None).map_or(f64::NEG_INFINITY, |mean| mean.mean.value);
            let on_test = variant.over(&ACCURACY)?.mean.value;
            // Variants that met their criterion with all seeds have learned the same.
            let learned = if variant.met_criterion() { Some(f64::INFINITY) } else { variant.validation_accuracy() };
            Some((learned.filter(|_| validated).unwrap_or(on_test), prior))
        };
        let best = best(&variants.iter().map(means).collect::<Vec<_>>());
        let mut regime = RegimeResults {
            name: &regime.name,
            about: &regime.about,
            variants,
            best,
            recipe: Recipe::default(),
            perplexity: None,
        };
        regime.perplexity = perplexity(dir, &study, &regime, found);
        study.regimes.push(regime);
    }
    let recipes = recipe::recipes(&study.regimes.iter().map(|regime| trained(regime, found)).collect::<Vec<_>>());
    study.regimes.iter_mut().zip(recipes).for_each(|(regime, recipe)| regime.recipe = recipe);
    study.trajectories();
    for run in study.index.runs.iter().filter(|run| of(run).is_some()) {
        new_task_below(&dir.join(&run.comparison), &mut study.evaluations)?;
    }
    // The base may be evaluated once for all runs, anywhere in the study.
    if study.base.is_some() {
        new_task_below(dir, &mut study.evaluations)?;
    }
    study.gold = gold(dir, &study)?;
    for recovery in &index.recoveries {
        let file = dir.join(&recovery.comparison).join(FORGETTING_JSON);
        let Some(found) = file.is_file().then(|| ForgettingResult::read(&file)).transpose()? else { continue };
        let ForgettingResult { base, tuned, .. } = found;
        for tuned in tuned {
            match key == Some(comparison_key(&base, tuned.benchmarks.iter())) {
                true => study.recoveries.push((&recovery.run, recovery.examples, tuned)),
                false => study.left_out.push(format!(
                    "{}: its recovery with {} examples is compared with another base or on other benchmarks; it is left out",
                    recovery.run, recovery.examples
                )),
            }
        }
    }
    for solver in &index.solvers {
        if let Some(result) = EvalResult::read(&dir.join(&solver.dir))? {
            study.solvers.push((&solver.name, result.about.key.data, result.summary));
        }
    }
    Ok(study)
}

impl<'a> StudyResults<'a> {
    /// What solvers that are no models reach on the new task of this hash, by name.
    pub fn solvers_on(&self, data: &str) -> impl Iterator<Item = (&'a str, &Summary)> {
        self.solvers.iter().filter(move |(_, of, _)| of == data).map(|(name, _, summary)| (*name, summary))
    }

    fn run(
        &mut self,
        dir: &Path,
        plan: &'a StudyRun,
        train: Option<&TrainRun>,
        found: Option<&'a ForgettingResult>,
        key: Option<&Vec<String>>,
    ) -> SeedRun<'a> {
        let mut models: Vec<&'a TunedResult> = Vec::new();
        let mut elsewhere = 0;
        for (one, tuned) in found.iter().flat_map(|one| one.tuned.iter().map(move |tuned| (one, tuned))) {
            match key == Some(&comparison_key(&one.base, tuned.benchmarks.iter())) {
                true => models.push(tuned),
                false => elsewhere += 1,
            }
        }
        if elsewhere > 0 {
            self.left_out.push(format!(
                "{}: {elsewhere} of its models are compared with another base or on other benchmarks than the first run; they \
                 are left out",
                plan.name
            ));
        }
        // Checkpoints in order of training, however they were listed.
        models.sort_by(|a, b| step(a).unwrap_or(f64::INFINITY).total_cmp(&step(b).unwrap_or(f64::INFINITY)));
        let whole = models.iter().rposition(|tuned| !is_checkpoint(&tuned.model)).map(|i| models.remove(i));
        if let Some(whole) = whole {
            models.retain(|tuned| tuned.model.hash != whole.model.hash);
            models.push(whole);
        }
        // A finished run's last checkpoint is its final model.
        let ended = |tuned: &&TunedResult| {
            train.is_some_and(|run| {
                run.state == RunState::Finished
                    && tuned.model.run.as_ref().and_then(|r| r.step) == Some(run.last_step())
            })
        };
        let done = whole.is_some() || models.last().is_some_and(ended);
        let hash = |tuned: &&TunedResult| tuned.model.run.as_ref().map(|run| run.data_hash.clone());
        let recorded = train.and_then(|run| Some(run.identity.get("data_hash")?.as_str()?.to_string()));
        SeedRun {
            plan,
            dir: plan.dir.as_ref().map(|own| dir.join(own)),
            done,
            state: state(train, plan, &models, done),
            data: recorded.or_else(|| models.last().and_then(hash)).filter(|hash| !hash.is_empty()),
            models,
            trajectory: Vec::new(),
        }
    }

    /// The way of each run, once all are there: one may go on from another.
    fn trajectories(&mut self) {
        let models: Vec<Vec<&'a TunedResult>> = self.runs().map(|(_, run)| run.models.clone()).collect();
        let models: Vec<&[&'a TunedResult]> = models.iter().map(Vec::as_slice).collect();
        let trajectories = trajectory::trajectories(&models, self.base.map_or("", |base| base.hash.as_str()));
        let runs =
            self.regimes.iter_mut().flat_map(|regime| &mut regime.variants).flat_map(|variant| &mut variant.runs);
        runs.zip(trajectories).for_each(|(run, trajectory)| run.trajectory = trajectory);
    }

    /// What the gold answers contribute to the change per answer, and to that of the answer's text, if that is known.
    pub fn gold_by_group(&self, tuned: &TunedResult) -> Option<&[Vec<Stratum>; 2]> {
        self.gold.get(&tuned.model.hash)
    }

    /// The model of a run after it was trained on so many prior examples, with their number, the fewest first.
    pub fn recoveries_of(&self, run: &StudyRun) -> Vec<(usize, &TunedResult)> {
        let own = self.recoveries.iter().filter(|(name, ..)| *name == run.name);
        let mut own: Vec<_> = own.map(|(_, examples, tuned)| (*examples, tuned)).collect();
        own.sort_by_key(|(examples, _)| *examples);
        own
    }

    /// The evaluation of a model on the new task.
    pub fn evaluation(&self, tuned: &TunedResult) -> Option<&Summary> {
        self.summary_of(&tuned.model.hash, &tuned.new_task.as_ref()?.data)
    }

    /// The evaluation of the base on the new task of this hash.
    pub fn base_evaluation(&self, data: &str) -> Option<&Summary> {
        self.summary_of(&self.base?.hash, data)
    }

    fn summary_of(&self, model: &str, data: &str) -> Option<&Summary> {
        self.evaluations.get(&(model.to_string(), data.to_string()))
    }

    /// All evaluations on the new task.
    pub fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.evaluations.values()
    }

    /// All variants, each with its regime.
    pub fn variants(&self) -> impl Iterator<Item = (&RegimeResults<'a>, &RegimeRuns<'a>)> {
        self.regimes.iter().flat_map(|regime| regime.variants.iter().map(move |variant| (regime, variant)))
    }

    /// All runs, with the number of their regime.
    pub fn runs(&self) -> impl Iterator<Item = (usize, &SeedRun<'a>)> {
        let regimes = self.regimes.iter().enumerate();
        regimes
            .flat_map(|(i, regime)| regime.variants.iter().flat_map(|variant| &variant.runs).map(move |run| (i, run)))
    }

    /// The sets of new-task examples, each once: regimes may be asked in different words, or different things.
    pub fn new_tasks(&self) -> Vec<NewTask<'a>> {
        let mut found: Vec<NewTask<'a>> = Vec::new();
        for (plan, models) in self.runs().map(|(_, run)| (run.plan, &run.models)) {
            for measured in models.iter().filter_map(|tuned| tuned.new_task.as_ref()) {
                if found.iter().any(|one| one.measured.data == measured.data) {
                    continue;
                }
                let taken = |name: &&String| !found.iter().any(|one| one.name == **name);
                let (name, puzzles) = match plan.new_task.as_ref().filter(taken) {
                    Some(name) => (name.clone(), self.index.puzzles_of(name).to_string()),
                    // Of a study of an earlier version, which does not name them.
                    None => {
                        let name = format!("set {}", found.len() + 1);
                        (name.clone(), name)
                    }
                };
                found.push(NewTask { name, puzzles, measured });
            }
        }
        found
    }

    /// Any model of the study: all have the same base and the same benchmarks.
    pub fn any(&self) -> Option<&'a TunedResult> {
        self.runs().find_map(|(_, run)| run.models.last().copied())
    }

    /// Number of the regime that a training run or a model belongs to.
    pub fn regime_of(&self, dir: &Path, hash: &str) -> Option<usize> {
        let place = canonical(dir);
        let own = |run: &SeedRun<'_>| {
            run.dir.as_ref().is_some_and(|dir| canonical(dir) == place)
                || run.models.iter().any(|t| t.model.hash == hash)
        };
        self.runs().find(|(_, run)| own(run)).map(|(regime, _)| regime)
    }
}

impl<'a> RegimeResults<'a> {
    /// Whether a model of the regime is measured on the new task with this hash.
    pub fn is_measured_on(&self, data: &str) -> bool {
        let mut models = self.variants.iter().flat_map(|variant| &variant.runs).flat_map(|run| &run.models);
        models.any(|tuned| tuned.new_task.as_ref().is_some_and(|one| one.data == data))
    }

    /// Whether its best learning rate was chosen among those at which every run met its criterion.
    pub fn met_criterion(&self) -> bool {
        self.best().is_some_and(RegimeRuns::met_criterion)
    }

    /// The best learning rate, once something is measured.
    pub fn best(&self) -> Option<&RegimeRuns<'a>> {
        self.variants.get(self.best?)
    }
}

impl<'a> RegimeRuns<'a> {
    /// Final models, with their runs.
    pub fn done(&self) -> impl Iterator<Item = (&SeedRun<'a>, &'a TunedResult)> {
        self.runs.iter().filter(|run| run.done).filter_map(|run| Some((run, *run.models.last()?)))
    }

    /// Mean over seeds of the accuracy on validation examples at the end of training, if all that are done have measured it.
    pub fn validation_accuracy(&self) -> Option<f64> {
        let of = |(run, _): (&SeedRun<'_>, _)| run.plan.training.as_ref()?.metrics.get("eval/accuracy")?.as_f64();
        let all: Vec<f64> = self.done().map(of).collect::<Option<_>>()?;
        (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
    }

    /// Of the runs that are done and were trained to a criterion: those that met it, and all of them. `None` if there are none.
    pub fn criterion(&self) -> Option<(usize, usize)> {
        let of = |(run, _): (&SeedRun<'_>, _)| Some(run.plan.training.as_ref()?.criterion.as_ref()?.met);
        let met: Vec<bool> = self.done().filter_map(of).collect();
        (!met.is_empty()).then(|| (met.iter().filter(|met| **met).count(), met.len()))
    }

    /// Whether every run that is done met its criterion.
    pub fn met_criterion(&self) -> bool {
        self.criterion().is_some_and(|(met, all)| met == all && all == self.done().count())
    }

    /// Mean of a measure of the final models over seeds.
    pub fn over(&self, measure: &Measure) -> Option<SeedMean> {
        let of = |tuned: &TunedResult| {
            Some(SeedValue { interval: (measure.value)(tuned)?, questions: (measure.questions)(tuned) })
        };
        seed_mean(&self.done().filter_map(|(_, tuned)| of(tuned)).collect::<Vec<_>>(), measure.bounds)
    }

    /// Mean change of a family, or of all benchmarks, over seeds, its interval cut to what the base's score leaves possible.
    pub fn change(&self, of: Option<&str>) -> Option<SeedMean> {
        let group = |tuned: &'a TunedResult| match of {
            Some(name) => family(tuned, name),
            None => prior(tuned),
        };
        let base = self.done().find_map(|(_, tuned)| group(tuned))?.base;
        let value = |(_, tuned): (&SeedRun<'a>, &'a TunedResult)| {
            Some(SeedValue { interval: group(tuned)?.change, questions: tuned.change_by_question(of) })
        };
        seed_mean(&self.done().filter_map(value).collect::<Vec<_>>(), (-base, 1.0 - base))
    }

    /// The variant where its training first reaches `accuracy` on the new task.
    pub fn reached(&self, accuracy: f64) -> AtAccuracy {
        let base = self.done().find_map(|(_, tuned)| prior(tuned)).map_or(f64::NAN, |all| all.base);
        reached(&self.trajectories(), accuracy, (-base, 1.0 - base))
    }

    /// The trajectories of the runs that are done, a seed each.
    pub fn trajectories(&self) -> Vec<Vec<TrajectoryPoint<'a>>> {
        self.done()
            .map(|(run, _)| run.trajectory.clone())
            .filter(|trajectory| trajectory.iter().any(|point| point.model.is_some()))
            .collect()
    }

    /// The variant with its parameter: `lr 5e-5`, `alpha 0.5`; empty if there is none.
    pub fn label(&self) -> String {
        match (self.learning_rate, self.setting) {
            (Some(_), _) => format!("lr {}", self.name()),
            (None, "") => String::new(),
            (None, _) => self.name(),
        }
    }

    /// The value alone: `5e-5`.
    pub fn name(&self) -> String {
        match (self.learning_rate, self.setting) {
            (Some(lr), _) => format!("{lr:e}"),
            (None, "") => "\u{2013}".into(),
            (None, setting) => setting.replacen('-', " ", 1),
        }
    }

    /// Steps of the final models, smallest and largest.
    pub fn steps(&self) -> Option<(u64, u64)> {
        let steps: Vec<u64> = self.done().filter_map(|(_, tuned)| tuned.model.run.as_ref()?.step).collect();
        Some((*steps.iter().min()?, *steps.iter().max()?))
    }
}

/// `RUN/checkpoints/step-N` rather than `RUN/model` or a model of its own.
fn is_checkpoint(model: &ModelRef) -> bool {
    let name = Path::new(&model.dir).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.strip_prefix("step-").is_some_and(|number| number.parse::<u64>().is_ok())
}

fn state(train: Option<&TrainRun>, plan: &StudyRun, models: &[&TunedResult], done: bool) -> String {
    let measured = match models.last().and_then(|tuned| step(tuned)) {
        _ if done => return "measured".into(),
        Some(step) => format!(", compared with the base up to step {step:.0}"),
        None => String::new(),
    };
    match train.map(|run| (run.state, run.last_step())) {
        Some((RunState::Finished, step)) => {
            format!("trained ({step} steps), not compared with the base to the end{measured}")
        }
        Some((RunState::Running, step)) => format!("in training, step {step}{measured}"),
        Some((RunState::Stopped, step)) => format!("training stopped at step {step}{measured}"),
        None if plan.dir.is_some() => format!("not begun{measured}"),
        None => format!("not made yet{measured}"),
    }
}

/// The data and the training run of a regime's first run.
fn trained<'f>(regime: &RegimeResults<'_>, found: &'f ReportInputs) -> (Option<PathBuf>, Option<&'f TrainRun>) {
    let first = regime.variants.first().and_then(|variant| variant.runs.first());
    let place = first.and_then(|run| Some(canonical(run.dir.as_ref()?)));
    let run = place.and_then(|place| found.runs.iter().find(|run| canonical(&run.dir) == place));
    (first.and_then(|run| run.plan.data.clone()), run)
}

/// Median perplexity of a regime's training data under the study's base: of the data of its best learning rate, else of a set with
/// the regime's name. The mean where seeds have sets of their own. `None` for a regime that learns its own responses (RFT, SFT with
/// `sft.resample_every`): it never sees those of the data.
fn perplexity(dir: &Path, study: &StudyResults<'_>, regime: &RegimeResults<'_>, found: &ReportInputs) -> Option<f64> {
    let places: Vec<PathBuf> = study.index.dynamics.iter().map(|own| canonical(&dir.join(own))).collect();
    let measured = found.dynamics.iter().filter(|(place, _)| places.contains(&canonical(place)));
    let same_base = measured.filter(|(_, one)| study.base.is_none_or(|base| base.hash == one.found.base.hash));
    let sets: Vec<_> = same_base.flat_map(|(_, one)| &one.found.regimes).collect();
    let variant = regime.best().or(regime.variants.first())?;
    let trained = |run: &SeedRun<'_>| {
        let place = canonical(run.dir.as_ref()?);
        found.runs.iter().find(|train| canonical(&train.dir) == place)
    };
    if variant.runs.iter().filter_map(trained).any(TrainRun::learns_own_responses) {
        return None;
    }
    let mut of_data: Vec<f64> = Vec::new();
    for data in variant.runs.iter().filter_map(|run| run.plan.data.as_ref()) {
        let place = canonical(&dir.join(data));
        let own = |path: &Path| canonical(path) == place || path.ends_with(data);
        of_data.extend(sets.iter().find(|set| own(Path::new(&set.path))).map(|set| set.perplexity.whole.median));
    }
    if of_data.is_empty() {
        of_data.extend(sets.iter().find(|set| set.name == regime.name).map(|set| set.perplexity.whole.median));
    }
    of_data.retain(|value| value.is_finite());
    (!of_data.is_empty()).then(|| of_data.iter().sum::<f64>() / of_data.len() as f64)
}

/// What the gold answers contribute to the means of each final model. A model whose file is not there is left out.
fn gold(dir: &Path, study: &StudyResults<'_>) -> Result<HashMap<String, [Vec<Stratum>; 2]>> {
    let mut found = HashMap::new();
    for (run, tuned) in study.variants().flat_map(|(_, variant)| variant.done()) {
        let file = tuned.gold_file.as_ref().map(|own| dir.join(&run.plan.comparison).join(own));
        if let Some(file) = file.filter(|file| file.is_file()) {
            found.insert(tuned.model.hash.clone(), gold_by_group(&GoldItem::read(&file)?));
        }
    }
    Ok(found)
}

/// Add the evaluations on the new task in and below `dir`, by the hashes of model and data.
fn new_task_below(dir: &Path, into: &mut HashMap<(String, String), Summary>) -> Result<()> {
    let mut result = Ok(());
    evaluations_below(dir, DEPTH, &mut |dir| {
        if result.is_err() || dir.file_name().is_none_or(|name| name != NEW_TASK) {
            return;
        }
        match EvalResult::read(dir) {
            Ok(Some(found)) => drop(into.insert((found.about.key.model, found.about.key.data), found.summary)),
            Ok(None) => {}
            Err(e) => result = Err(e),
        }
    });
    result
}

/// Where a table's figures are from: seeds, training data, new task, benchmarks, base. `variants` are those whose runs are in it.
pub fn source(study: &StudyResults<'_>, variants: &[(&str, &RegimeRuns<'_>)]) -> String {
    let mut seeds: Vec<u64> =
        variants.iter().flat_map(|(_, variant)| variant.done().map(|(run, _)| run.plan.seed)).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let mut data: Vec<(&str, Vec<String>)> = Vec::new();
    for (name, variant) in variants {
        let hashes = variant.done().filter_map(|(run, _)| run.data.as_deref()).map(brief_data);
        let known = match data.iter().position(|(other, _)| other == name) {
            Some(i) => i,
            None => {
                data.push((name, Vec::new()));
                data.len() - 1
            }
        };
        for hash in hashes {
            if !data[known].1.contains(&hash) {
                data[known].1.push(hash);
            }
        }
    }
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    let listed = data.iter().filter(|(_, hashes)| !hashes.is_empty());
    let trained: Vec<String> = listed.map(|(name, hashes)| format!("{name} {}", hashes.join(" "))).collect();
    let named = |one: &NewTask<'_>| format!("{} {}", one.name, brief(&one.measured.data));
    let new_tasks: Vec<String> = study.new_tasks().iter().map(named).collect();
    let benchmarks = study.any().map(|tuned| &tuned.benchmarks[..]).unwrap_or_default();
    let benchmarks: Vec<String> = benchmarks.iter().map(|one| format!("{} {}", one.name, brief(&one.data))).collect();
    let base = study.base.map(|base| format!("{} {}", base.name, brief(&base.hash)));
    let parts = [
        ("Seeds", seeds.join(", ")),
        ("base", base.unwrap_or_default()),
        ("trained on", trained.join(", ")),
        ("new task", new_tasks.join(", ")),
        ("benchmarks", benchmarks.join(", ")),
    ];
    let known = parts.iter().filter(|(_, value)| !value.is_empty());
    known.map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("; ")
}
