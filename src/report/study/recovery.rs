//! What came back of the lost prior knowledge after training on a few prior examples: the study's `[recovery]`.

use super::cells::{Cell, TableWithCaption, lost_points};
use super::load::{RegimeResults, RegimeRuns, SeedRun, StudyResults};
use super::measure::prior;
use super::seed_stats::{SeedMean, SeedValue, seed_mean};
use super::tables::name;
use crate::forgetting::TunedResult;
use crate::stats::mean_of_strata;

/// A run after it was trained on so many prior examples.
pub struct Recovery {
    /// Number of the examples.
    pub examples: usize,
    /// Change of prior knowledge from the base.
    pub change: SeedValue,
    /// The part that came back: the change from the run's own model.
    pub back: SeedValue,
}

/// The recoveries of a run, the fewest examples first; `tuned` is its own model.
pub fn of_run(study: &StudyResults<'_>, run: &SeedRun<'_>, tuned: &TunedResult) -> Vec<Recovery> {
    let of = |(examples, after): (usize, &TunedResult)| {
        let change = prior(after)?.change;
        let questions = after.change_since(tuned);
        let interval = questions.as_ref().map(|questions| mean_of_strata(questions).mean);
        let value = change.value - prior(tuned)?.change.value;
        let unknown = crate::stats::Interval { value, low: f64::NAN, high: f64::NAN };
        Some(Recovery {
            examples,
            change: SeedValue { interval: change, questions: after.change_by_question(None) },
            back: SeedValue { interval: interval.unwrap_or(unknown), questions },
        })
    };
    study.recoveries_of(run.plan).into_iter().filter_map(of).collect()
}

/// Means over the seeds that are done: examples, change from the base, part that came back.
pub fn over_seeds(study: &StudyResults<'_>, variant: &RegimeRuns<'_>) -> Vec<(usize, SeedMean, SeedMean)> {
    let all: Vec<Recovery> = variant.done().flat_map(|(run, tuned)| of_run(study, run, tuned)).collect();
    let mut numbers: Vec<usize> = all.iter().map(|one| one.examples).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mean = |examples: usize| {
        let values = |of: fn(&Recovery) -> &SeedValue| -> Vec<SeedValue> {
            all.iter().filter(|one| one.examples == examples).map(of).cloned().collect()
        };
        let bounds = (-1.0, 1.0);
        Some((examples, seed_mean(&values(|one| &one.change), bounds)?, seed_mean(&values(|one| &one.back), bounds)?))
    };
    numbers.into_iter().filter_map(mean).collect()
}

/// A row for each regime and learning rate that recovers; `None` if none does.
pub fn table(study: &StudyResults<'_>) -> Option<TableWithCaption> {
    type Recovering<'s, 'a> = (&'s RegimeResults<'a>, &'s RegimeRuns<'a>, Vec<(usize, SeedMean, SeedMean)>);
    let found: Vec<Recovering<'_, '_>> = study
        .variants()
        .map(|(regime, variant)| (regime, variant, over_seeds(study, variant)))
        .filter(|(.., means)| !means.is_empty())
        .collect();
    let mut numbers: Vec<usize> = found.iter().flat_map(|(.., means)| means.iter().map(|one| one.0)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let row = |(regime, variant, means): &Recovering<'_, '_>| -> Vec<Cell> {
        let lost = variant.change(None);
        let cells = numbers.iter().flat_map(|number| {
            let Some((_, change, back)) = means.iter().find(|one| one.0 == *number) else {
                return [Cell::none(), Cell::none()];
            };
            // A share of a loss that is none means nothing.
            let share = lost.filter(|lost| lost.mean.high < 0.0).map(|lost| 100.0 * back.mean.value / -lost.mean.value);
            let mut back = Cell::over(Some(*back), lost_points, lost_points);
            if let Some(share) = share {
                back.range += &format!("; {share:.0} % of the loss");
            }
            [Cell::lost(Some(*change)), back]
        });
        [name(study, regime, &variant.label()), Cell::lost(lost)].into_iter().chain(cells).collect()
    };
    let heads = numbers.iter().flat_map(|number| [format!("after {number} examples"), "came back".to_string()]);
    (!found.is_empty()).then(|| TableWithCaption {
        title: "Recovery after a few prior examples",
        how: "Each run\u{2019}s model was trained a little further, on a few gold examples of prior knowledge that no benchmark asks for, and compared with the base \
              again: points of prior knowledge lost, and points that came back, question by question. Means over seeds with \
              95 % intervals over seeds and questions. Knowledge that a few examples bring back was hidden rather than lost. \
              What came back includes anything new that the examples taught."
            .into(),
        header: ["regime".to_string(), "before".to_string()].into_iter().chain(heads).collect(),
        rows: found.iter().map(row).collect(),
    })
}
