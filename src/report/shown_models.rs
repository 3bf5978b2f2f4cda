//! The models whose answers a page shows, each with its base: one for each regime of a study, or each run that is compared. Where their
//! responses lie, and the data that was asked.

use super::chart::COLOURS;
use super::comparison_group::{ComparisonGroup, checkpoint_name};
use super::discover::{ReportInputs, evaluations_below};
use super::study::StudyResults;
use super::study_index::STUDY_JSON;
use crate::Result;
use crate::eval::bench::task_of;
use crate::eval::{EvalInfo, EvalResult};
use crate::forgetting::{BenchmarkChange, ModelRef, TunedResult};
use crate::sampling::{LoggedResponse, hash_examples};
use crate::tasks::Task;
use std::path::{Path, PathBuf};

/// Models beside each other at most.
pub const MAX_MODELS: usize = 12;
/// Depth at which evaluations lie below a comparison: `tuned/MODEL/BENCHMARK`.
const DEPTH: usize = 3;

/// Tuned models with the same base, asked the same.
pub struct ShownModels<'a> {
    /// Title of the study, if they are of one.
    pub study: Option<&'a str>,
    /// The base.
    pub base: &'a ModelRef,
    /// The models, at most [`MAX_MODELS`].
    pub models: Vec<ShownModel<'a>>,
    /// How many there are beyond these.
    pub more: usize,
    /// Their evaluations and those of the base.
    evaluations: Vec<FoundEvaluation>,
    /// The study's directory, if the comparisons lie in one.
    study_dir: Option<PathBuf>,
}

/// A tuned model.
pub struct ShownModel<'a> {
    /// Name: its regime's in a study, else its run's.
    pub name: String,
    /// The run that it is of, where that has another name.
    pub run: Option<String>,
    /// Number of its colour.
    pub colour: usize,
    /// Its comparison with the base.
    pub tuned: &'a TunedResult,
}

/// An evaluation that is there.
pub struct FoundEvaluation {
    /// Its directory.
    pub dir: PathBuf,
    /// What it is of.
    pub about: EvalInfo,
}

impl FoundEvaluation {
    /// The responses, in order, with what they answer as far as that is recorded.
    ///
    /// # Errors
    /// An input error for a line that is no response.
    pub fn lines(&self) -> Result<Vec<LoggedResponse<'static>>> {
        EvalResult::read_lines(&self.dir)
    }
}

/// The models of each study and of each group of comparisons that belongs to none. Of a regime the first seed at its best learning rate, of
/// a run the last model. `colour` is that of a run's name.
pub fn shown_models<'a>(
    found: &'a ReportInputs,
    groups: &[ComparisonGroup<'a>],
    studies: &[StudyResults<'a>],
    colour: &dyn Fn(&str) -> usize,
) -> Vec<ShownModels<'a>> {
    let mut all = Vec::new();
    for study in studies {
        let Some(base) = study.base else { continue };
        let models = study.regimes.iter().enumerate().filter_map(|(i, regime)| {
            let done = regime.best().and_then(|variant| variant.done().next());
            let mut under_way = regime.variants.iter().flat_map(|variant| &variant.runs);
            let (run, tuned) = done.or_else(|| under_way.find_map(|run| Some((run, *run.models.last()?))))?;
            let run = Some(run.plan.name.clone());
            Some(ShownModel { name: regime.name.to_string(), run, colour: i % COLOURS, tuned })
        });
        all.push(ShownModels::of(found, Some(&study.index.title), base, models.collect()));
    }
    for group in groups {
        let of_study = |tuned: &TunedResult| {
            let mut models = studies.iter().flat_map(StudyResults::runs).flat_map(|(_, run)| &run.models);
            models.any(|other| std::ptr::eq(*other, tuned))
        };
        if group.all_models().any(|(_, tuned)| of_study(tuned)) {
            continue;
        }
        let models = group.runs.iter().filter_map(|run| {
            let tuned = *run.models.last()?;
            let checkpoint = Some(checkpoint_name(run, tuned)).filter(|name| *name != run.name);
            Some(ShownModel { name: run.name.clone(), run: checkpoint, colour: colour(&run.name), tuned })
        });
        all.push(ShownModels::of(found, None, group.base, models.collect()));
    }
    all.retain(|shown| !shown.models.is_empty());
    all
}

impl<'a> ShownModels<'a> {
    fn of(
        found: &'a ReportInputs,
        study: Option<&'a str>,
        base: &'a ModelRef,
        mut models: Vec<ShownModel<'a>>,
    ) -> Self {
        let more = models.len().saturating_sub(MAX_MODELS);
        models.truncate(MAX_MODELS);
        let is_shown = |tuned: &TunedResult| models.iter().any(|model| std::ptr::eq(model.tuned, tuned));
        let comparisons = found.forgetting.iter().filter(|(_, one)| one.tuned.iter().any(is_shown));
        let mut shown = ShownModels { study, base, more, evaluations: Vec::new(), study_dir: None, models: Vec::new() };
        let mut places: Vec<PathBuf> = Vec::new();
        for (dir, one) in comparisons {
            let of_study = std::path::absolute(dir).ok().and_then(|full| {
                full.ancestors().take(DEPTH).find(|dir| dir.join(STUDY_JSON).is_file()).map(Path::to_path_buf)
            });
            let of_base = one.base_results.as_ref().map(PathBuf::from);
            let beside = of_study.iter().map(|study| study.join("base"));
            for place in [dir.clone()].into_iter().chain(of_base).chain(beside) {
                if !places.contains(&place) {
                    places.push(place);
                }
            }
            shown.study_dir = shown.study_dir.or(of_study);
        }
        for place in places {
            evaluations_below(&place, DEPTH, &mut |dir| {
                // What cannot be read is missed where it is shown.
                if let Ok(Some(about)) = EvalInfo::read(dir) {
                    shown.evaluations.push(FoundEvaluation { dir: dir.to_path_buf(), about });
                }
            });
        }
        shown.models = models;
        shown
    }

    /// The evaluation of the model of this hash on a benchmark, or on the new task.
    pub fn evaluation(&self, model: &str, benchmark: &BenchmarkChange) -> Option<&FoundEvaluation> {
        self.evaluations.iter().find(|found| {
            let named = found.dir.file_name().is_some_and(|name| *name == *benchmark.name);
            named && found.about.key.model == model && found.about.key.data == benchmark.data
        })
    }

    /// What was asked, as long as it is where it was, or where it was in a study that has been moved; `Err` says why it is not shown.
    pub fn task(&self, about: &EvalInfo) -> std::result::Result<Box<dyn Task>, String> {
        let mut about = about.clone();
        if let (false, Some(study)) = (about.data.exists(), &self.study_dir) {
            let parts: Vec<_> = about.data.components().collect();
            let ends = (1..parts.len()).map(|i| study.join(parts[i..].iter().collect::<PathBuf>()));
            about.data = ends.into_iter().find(|path| path.exists()).unwrap_or(about.data);
        }
        let task = task_of(&about).map_err(|e| e.to_string())?;
        let changed = ExampleCheck::new(task.as_ref()).changed(&about).map_err(|e| e.to_string())?;
        changed.map_or(Ok(task), Err)
    }
}

/// Whether examples are still those that were answered. Remembers their hashes.
pub struct ExampleCheck<'t> {
    task: &'t dyn Task,
    hashes: Vec<(usize, (String, String))>,
}

impl<'t> ExampleCheck<'t> {
    /// Of these examples as they are now.
    pub fn new(task: &'t dyn Task) -> Self {
        ExampleCheck { task, hashes: Vec::new() }
    }

    /// Why answers of an evaluation are no answers to these examples, as a clause; `None` if they are.
    ///
    /// # Errors
    /// An example that cannot be read.
    pub fn changed(&mut self, about: &EvalInfo) -> Result<Option<String>> {
        let (key, place) = (&about.key, about.data.display());
        if key.examples > self.task.len() {
            return Ok(Some(format!("{place} has {} examples where {} were answered", self.task.len(), key.examples)));
        }
        if !self.hashes.iter().any(|(examples, _)| *examples == key.examples) {
            self.hashes.push((key.examples, hash_examples(self.task, key.examples)?));
        }
        let same = |(examples, (data, gold)): &(usize, (String, String))| {
            (*examples == key.examples).then_some((*data == key.data, *gold == key.gold))
        };
        Ok(match self.hashes.iter().find_map(same) {
            Some((true, true)) => None,
            Some((true, false)) => Some(format!("{place} has other right answers than those that were scored by")),
            _ => Some(format!("{place} has other questions or pictures than those that were answered")),
        })
    }
}
