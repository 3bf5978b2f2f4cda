//! The tables of a study: each cell is a value with its interval, the same on the page and in Markdown.

use super::level::{ComparedRegimes, level_of};
use super::load::{
    ACCURACY, FORMAT_LOSS, KL_NEW, KL_PRIOR, NewTask, RegimeResults, RegimeRuns, SeedRun, StudyResults, source,
};
use super::seed_stats::{AtAccuracy, IntervalSource, SeedMean, SeedValue, seed_mean};
use super::sentences::and;
use crate::forgetting::ALL;
use crate::report::trajectory::{TrajectoryPoint, highest, start, tens};
use crate::sampling::{Category, Summary};
use crate::stats::Interval;
use crate::stats::table::{Table, percent, points, short};
use crate::tasks::{PARTIAL_CREDIT, partial_credit_label};
use serde::Serialize;
use std::collections::BTreeSet;

/// Stands for a number that does not exist.
const NONE: &str = "\u{2013}";
/// Marks an interval over test examples alone, and one over seeds alone.
const DAGGER: &str = " \u{2020}";
const DOUBLE_DAGGER: &str = " \u{2021}";
/// A loss of so much (a share) has the full tint.
const FULL_TINT_LOSS: f64 = 0.5;

/// A cell.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cell {
    /// The value.
    pub text: String,
    /// Below it, smaller: the interval, or a remark.
    pub range: String,
    /// Strength of the tint of a loss, in percent.
    pub loss_tint: u32,
    /// The best of its kind.
    pub strong: bool,
    /// Colour of a swatch before the text.
    pub colour: Option<usize>,
}

/// A table with its words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableWithCaption {
    /// Title.
    pub title: &'static str,
    /// How to read it.
    pub how: String,
    /// Names of the columns.
    pub header: Vec<String>,
    /// Cells, row by row; the first column names the row.
    pub rows: Vec<Vec<Cell>>,
    /// Where its figures are from.
    pub source: String,
}

impl TableWithCaption {
    /// As a table of text.
    pub fn table(&self) -> Table {
        let cell = |cell: &Cell| match cell.range.as_str() {
            "" => cell.text.clone(),
            range => format!("{} ({range})", cell.text),
        };
        Table {
            header: self.header.clone(),
            rows: self.rows.iter().map(|row| row.iter().map(cell).collect()).collect(),
        }
    }
}

impl Cell {
    /// A value alone.
    pub fn text(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), ..Cell::default() }
    }

    /// Stands for a number that does not exist.
    pub fn none() -> Cell {
        Cell::text(NONE)
    }

    /// A value with what stands below it.
    pub fn with(text: impl Into<String>, range: impl Into<String>) -> Cell {
        Cell { range: range.into(), ..Cell::text(text) }
    }

    /// A mean over seeds.
    pub fn over(over: Option<SeedMean>, value: fn(f64) -> String, end: fn(f64) -> String) -> Cell {
        let Some(over) = over else { return Cell::none() };
        Cell::with(value(over.mean.value), range(&over, end))
    }

    /// A change over seeds, tinted where it is a drop.
    pub fn change(over: Option<SeedMean>) -> Cell {
        Cell { loss_tint: over.map_or(0, |over| tint(over.mean.value)), ..Cell::over(over, points, points) }
    }
}

/// The ends of an interval, marked by what it accounts for; empty where they are unknown.
fn range(over: &SeedMean, end: fn(f64) -> String) -> String {
    let Interval { low, high, .. } = over.mean;
    if !(low.is_finite() && high.is_finite()) {
        return String::new();
    }
    let mark = match over.basis {
        IntervalSource::SeedsAndExamples => "",
        IntervalSource::Seeds => DOUBLE_DAGGER,
        IntervalSource::Examples => DAGGER,
    };
    format!("{} to {}{mark}", end(low), end(high))
}

/// Strength of the tint: the root, so that small losses are visible.
fn tint(change: f64) -> u32 {
    (60.0 * (-change / FULL_TINT_LOSS).clamp(0.0, 1.0).sqrt()).round() as u32
}

fn bare(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// The name of a regime, with its colour.
pub fn name(study: &StudyResults<'_>, regime: &RegimeResults<'_>, about: &str) -> Cell {
    let place = study.regimes.iter().position(|other| other.name == regime.name);
    Cell { colour: place, ..Cell::with(regime.name, about) }
}

/// The variants that a table is about, with their regime.
pub fn bests<'s, 'a>(study: &'s StudyResults<'a>) -> Vec<(&'a str, &'s RegimeRuns<'a>)> {
    study.regimes.iter().filter_map(|regime| Some((regime.name, regime.best()?))).collect()
}

/// A row per regime at its best learning rate. `groups`: those that are compared with each other.
pub fn top(study: &StudyResults<'_>, groups: &[ComparedRegimes<'_, '_>]) -> TableWithCaption {
    let mut rows = base_rows(study);
    rows.extend(study.regimes.iter().map(|regime| top_row(study, regime, level_of(groups, regime.name))));
    // The same level for all, unless regimes have different new tasks.
    let level = match groups {
        [group] => group.level,
        _ => None,
    };
    let matched = level
        .map_or("at equal accuracy".to_string(), |level| format!("prior knowledge at {} accuracy", percent(level)));
    let levels =
        groups.iter().filter_map(|group| Some(format!("{} on {}", percent(group.level?), and(&group.names()))));
    let levels: Vec<String> = levels.collect();
    let at_level = match (level, levels.as_slice()) {
        (Some(level), _) => format!("at {} accuracy", percent(level)),
        (None, []) => "at equal accuracy".to_string(),
        (None, some) => format!("at equal accuracy ({})", some.join("; ")),
    };
    let at_level = format!(
        " Prior knowledge {at_level}: its change where training first reaches that accuracy{}.",
        match levels.is_empty() {
            true => "",
            false => ", the highest that all seeds reach, over the regimes that gain at least 10 points",
        }
    );
    let at_criterion_alone =
        !groups.is_empty() && groups.iter().all(|group| group.level.is_none() && group.has_criterion());
    let header = [
        "regime",
        "best learning rate",
        "seeds",
        "steps",
        "new-task accuracy",
        PARTIAL_CREDIT,
        "prior knowledge (points)",
        &matched,
        "largest loss",
        "format loss",
        "KL new task",
        "KL prior",
        "training-data perplexity",
    ];
    let mut header = header.map(String::from).to_vec();
    if at_criterion_alone {
        header.remove(MATCHED_COLUMN);
        rows.iter_mut().for_each(|row| drop(row.remove(MATCHED_COLUMN)));
    }
    match partial_credit(study) {
        Some(label) => header[PARTIAL_CREDIT_COLUMN] = label.to_string(),
        None => {
            header.remove(PARTIAL_CREDIT_COLUMN);
            rows.iter_mut().for_each(|row| drop(row.remove(PARTIAL_CREDIT_COLUMN)));
        }
    }
    TableWithCaption {
        title: "Regimes at their best learning rate",
        how: format!(
            "Means over seeds with 95 % intervals over seeds and test examples, both resampled. \u{2020}: one seed, or all seeds at the same value; the \
             interval is over test examples alone. \u{2021}: over seeds alone. The best learning rate is {}the one with the highest mean accuracy on the new task at the end of \
             training{}, among equal ones the one that forgets least. Prior knowledge: \
             change of the mean score over all benchmarks. Format loss: the part of the change that the lenient score, \
             which ignores the format of the answer, does not show, net. KL(base || tuned) in nats per token. Perplexity: median, under the base, of the reference responses of the training data, \
             without replayed data; a regime that learns its own responses (RFT) has none.{}",
            if study.regimes.iter().any(|regime| regime.met_criterion()) {
                "that of those at which all seeds met their criterion that forgets least (by the questions shown here, so a little too good), else "
            } else {
                ""
            },
            if study.chosen_on_test { ", on the same test examples" } else { ", on validation examples" },
            if at_criterion_alone { String::new() } else { at_level },
        ),
        header,
        rows,
        source: source(study, &bests(study)),
    }
}

/// Place of the column in the table of regimes, if the new task gives partial credit.
const PARTIAL_CREDIT_COLUMN: usize = 5;

/// Place of the column of changes at equal accuracy.
const MATCHED_COLUMN: usize = 7;

/// What partial credit on the new task counts; `None` if it gives none.
fn partial_credit(study: &StudyResults<'_>) -> Option<&'static str> {
    let scorers: BTreeSet<&String> = study.summaries().flat_map(|summary| summary.scorers.keys()).collect();
    // Before the first evaluation it is not known.
    if scorers.is_empty() { Some(PARTIAL_CREDIT) } else { partial_credit_label(scorers) }
}

fn base_rows(study: &StudyResults<'_>) -> Vec<Vec<Cell>> {
    let new_tasks = study.new_tasks();
    let prior = study.any().and_then(|tuned| tuned.all.as_ref()).map(|all| all.base);
    let solver = |name: &str, summary: &Summary, one: &NewTask<'_>| {
        let on = if new_tasks.len() == 1 { "no model".to_string() } else { format!("no model, on {}", one.name) };
        let mut row = vec![Cell::with(name, on), Cell::none(), Cell::none(), Cell::none()];
        row.extend([share(summary.accuracy), share(summary.partial_credit)]);
        row.resize(13, Cell::none());
        row
    };
    let of = |one: &NewTask<'_>| {
        let (new_task, about) = (one.measured, before_training(one, &new_tasks));
        let mut row = vec![Cell::with("base", about), Cell::none(), Cell::none(), Cell::none()];
        row.push(share(new_task.all.base.value));
        row.push(study.base_evaluation(&new_task.data).map_or(Cell::none(), |of| share(of.partial_credit)));
        row.push(prior.map_or(Cell::none(), |score| Cell::with("0", format!("mean score {}", percent(score)))));
        row.resize(13, Cell::none());
        row
    };
    let solvers = new_tasks
        .iter()
        .flat_map(|one| study.solvers_on(&one.measured.data).map(move |(name, summary)| solver(name, summary, one)));
    new_tasks.iter().map(of).chain(solvers).collect()
}

/// What the base's row is about.
fn before_training(new_task: &NewTask<'_>, all: &[NewTask<'_>]) -> String {
    if all.len() == 1 { "before training".to_string() } else { format!("on {}", new_task.name) }
}

fn top_row(study: &StudyResults<'_>, regime: &RegimeResults<'_>, level: Option<f64>) -> Vec<Cell> {
    let planned: usize = regime.variants.iter().map(|variant| variant.runs.len()).sum();
    let Some(variant) = regime.best() else {
        let mut row = vec![name(study, regime, regime.about), Cell::none()];
        row.push(Cell::with(NONE, format!("0 of {planned} runs measured")));
        row.resize(13, Cell::none());
        return row;
    };
    let done = variant.done().count();
    let variants = regime.variants.iter().filter(|variant| variant.done().next().is_some()).count();
    let seeds = if done == variant.runs.len() { String::new() } else { format!("of {}", variant.runs.len()) };
    let of_rates = match regime.variants.len() {
        1 => String::new(),
        all if variants == all => format!("of {all} tried"),
        all => format!("{variants} of {all} tried"),
    };
    let steps = match variant.steps() {
        Some((low, high)) if low == high => low.to_string(),
        Some((low, high)) => format!("{low} to {high}"),
        None => NONE.into(),
    };
    let partial: Vec<SeedValue> =
        variant.done().filter_map(|(_, tuned)| Some(study.evaluation(tuned)?.partial_credit.into())).collect();
    let worst = families(study).into_iter().filter_map(|family| Some((family, variant.change(Some(family))?)));
    let worst = worst.min_by(|a, b| a.1.mean.value.total_cmp(&b.1.mean.value));
    let worst = match worst {
        Some((family, over)) if over.mean.value < 0.0 => Cell::with(points(over.mean.value), family),
        Some(_) => Cell::text("no loss"),
        None => Cell::none(),
    };
    let nats = |over: Option<SeedMean>| Cell::over(over, short, short);
    vec![
        name(study, regime, regime.about),
        Cell::with(variant.name(), of_rates),
        Cell::with(done.to_string(), seeds),
        Cell::with(steps, unmet(variant)),
        Cell::over(variant.over(&ACCURACY), percent, bare),
        Cell::over(seed_mean(&partial, (0.0, 1.0)), percent, bare),
        Cell::change(variant.change(None)),
        level.map_or(Cell::none(), |level| reached_cell(&variant.reached(level))),
        worst,
        Cell::over(variant.over(&FORMAT_LOSS), points, points),
        nats(variant.over(&KL_NEW)),
        nats(variant.over(&KL_PRIOR)),
        regime.perplexity.map_or(Cell::none(), |value| Cell::text(short(value))),
    ]
}

/// How many runs did not meet their criterion; empty if none.
fn unmet(variant: &RegimeRuns<'_>) -> String {
    match variant.criterion() {
        Some((met, all)) if met < all => format!("criterion not met by {} of {all}", all - met),
        _ => String::new(),
    }
}

/// Change at an accuracy, and how many seeds reach it.
fn reached_cell(reached: &AtAccuracy) -> Cell {
    if reached.seeds == 0 {
        return match (reached.of, reached.before) {
            (0, _) => Cell::none(),
            (all, _) if reached.above == all => Cell::text("starts above"),
            (all, before) if before == all => Cell::text("before the first checkpoint"),
            (_, 0) => Cell::text("not reached"),
            (all, before) => Cell::with("not read", format!("{before} of {all} seeds before their first checkpoint")),
        };
    }
    let cell = Cell::change(reached.change);
    let seeds = match reached.seeds == reached.of {
        true => String::new(),
        false => format!("{} of {} seeds", reached.seeds, reached.of),
    };
    let before = match reached.before {
        0 => String::new(),
        before => format!("{before} before their first checkpoint"),
    };
    let parts: Vec<String> = [cell.range.clone(), seeds, before].into_iter().filter(|part| !part.is_empty()).collect();
    Cell { range: parts.join("; "), ..cell }
}

/// The new task by category of its examples (photos and scenes), a row per regime; `None` where it has none.
pub fn by_category(study: &StudyResults<'_>) -> Option<TableWithCaption> {
    let new_tasks = study.new_tasks();
    let bases: Vec<(&NewTask<'_>, &Summary)> =
        new_tasks.iter().filter_map(|one| Some((one, study.base_evaluation(&one.measured.data)?))).collect();
    let models = study.runs().flat_map(|(_, run)| run.models.last()).filter_map(|tuned| study.evaluation(tuned));
    let mut names: Vec<&str> = Vec::new();
    for name in bases.iter().map(|(_, of)| *of).chain(models).flat_map(|of| of.categories.keys()) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.sort_unstable();
    if names.is_empty() {
        return None;
    }
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    type Part<'a> = (&'a str, fn(&Category) -> Interval);
    let mut parts: Vec<Part<'_>> = vec![("accuracy", |c| c.accuracy)];
    if let Some(label) = partial_credit(study) {
        parts.push((label, |c| c.partial_credit));
    }
    for (new_task, of) in &bases {
        let about = before_training(new_task, &new_tasks);
        let cells = names.iter().flat_map(|name| {
            let category = of.categories.get(*name);
            parts.iter().map(move |(_, part)| category.map(part).map_or(Cell::none(), share))
        });
        rows.push([Cell::with("base", about)].into_iter().chain(cells).collect());
    }
    for regime in &study.regimes {
        let of = |name: &str, part: fn(&Category) -> Interval| {
            let of_model = |tuned| study.evaluation(tuned)?.categories.get(name).map(part).map(SeedValue::from);
            let over = regime
                .best()
                .map(|variant| variant.done().filter_map(|(_, tuned)| of_model(tuned)).collect::<Vec<_>>());
            Cell::over(over.and_then(|values| seed_mean(&values, (0.0, 1.0))), percent, bare)
        };
        let at = regime.best().map_or("not measured yet".to_string(), |variant| variant.label());
        let cells = names.iter().flat_map(|category| parts.iter().map(|(_, part)| of(category, *part)));
        rows.push([name(study, regime, &at)].into_iter().chain(cells).collect());
    }
    let heads = names.iter().flat_map(|name| parts.iter().map(move |(part, _)| format!("{name}: {part}")));
    Some(TableWithCaption {
        title: "New task by category",
        how: "At each regime\u{2019}s best learning rate: mean over seeds with 95 % intervals \
              over seeds and test examples (\u{2020}: over test examples alone)."
            .into(),
        header: ["regime".to_string()].into_iter().chain(heads).collect(),
        rows,
        source: source(study, &bests(study)),
    })
}

/// A share with its interval over test examples.
fn share(interval: Interval) -> Cell {
    Cell::with(percent(interval.value), format!("{} to {}{DAGGER}", bare(interval.low), bare(interval.high)))
}

/// The families of prior knowledge.
pub fn families<'a>(study: &StudyResults<'a>) -> Vec<&'a str> {
    study.any().map(|tuned| tuned.families.iter().map(|family| family.name.as_str()).collect()).unwrap_or_default()
}

/// Change of each family, a row per regime; `None` while nothing is measured.
pub fn by_family(study: &StudyResults<'_>) -> Option<TableWithCaption> {
    let any = study.any()?;
    let names = families(study);
    let base = any.families.iter().chain(&any.all).map(|family| {
        let about = if family.name == ALL { String::new() } else { family.benchmarks.join(", ") };
        Cell::with(percent(family.base), about)
    });
    let mut rows = vec![[Cell::with("base", "score")].into_iter().chain(base).collect::<Vec<_>>()];
    for regime in &study.regimes {
        let cells =
            names.iter().map(|family| Cell::change(regime.best().and_then(|variant| variant.change(Some(family)))));
        let mean = any.all.iter().map(|_| Cell::change(regime.best().and_then(|variant| variant.change(None))));
        let at = regime.best().map_or("not measured yet".to_string(), |variant| variant.label());
        rows.push([name(study, regime, &at)].into_iter().chain(cells).chain(mean).collect());
    }
    let heads =
        names.iter().map(|name| (*name).to_string()).chain(any.all.iter().map(|_| "all benchmarks".to_string()));
    Some(TableWithCaption {
        title: "Change by family",
        how: "Change of the mean score of each family of benchmarks, in points, at each regime\u{2019}s best learning rate: mean over seeds \
              with 95 % intervals, not adjusted for the number of families. The larger the loss, the darker the cell."
            .into(),
        header: ["regime".to_string()].into_iter().chain(heads).collect(),
        rows,
        source: source(study, &bests(study)),
    })
}

/// Accuracy and change of prior knowledge at each learning rate; `None` if no regime has several.
pub fn ladder(study: &StudyResults<'_>) -> Option<TableWithCaption> {
    if study.regimes.iter().all(|regime| regime.variants.len() < 2) {
        return None;
    }
    // Learning rates from low to high, then variants without one.
    let mut all_variants: Vec<&RegimeRuns<'_>> = Vec::new();
    for variant in study.regimes.iter().flat_map(|regime| &regime.variants) {
        if !all_variants
            .iter()
            .any(|other| other.learning_rate == variant.learning_rate && other.setting == variant.setting)
        {
            all_variants.push(variant);
        }
    }
    all_variants
        .sort_by(|a, b| a.learning_rate.unwrap_or(f64::INFINITY).total_cmp(&b.learning_rate.unwrap_or(f64::INFINITY)));
    let cell = |(i, variant): (usize, &RegimeRuns<'_>), regime: &RegimeResults<'_>| {
        let done = variant.done().count();
        let count = format!("{done} of {} seeds", variant.runs.len());
        let Some(right) = variant.over(&ACCURACY) else { return Cell::with(NONE, count) };
        let change = variant.change(None);
        let lost = change.map_or(NONE.to_string(), |over| points(over.mean.value));
        let count = if done == variant.runs.len() { String::new() } else { count };
        let range = change.map_or(String::new(), |over| range(&over, points));
        let below: Vec<String> = [range, count, unmet(variant)].into_iter().filter(|part| !part.is_empty()).collect();
        Cell {
            strong: regime.best == Some(i),
            loss_tint: change.map_or(0, |over| tint(over.mean.value)),
            ..Cell::with(format!("{} / {lost}", percent(right.mean.value)), below.join("; "))
        }
    };
    let row = |regime: &RegimeResults<'_>| {
        let at = |column: &&RegimeRuns<'_>| {
            let same = |(_, own): &(usize, &RegimeRuns<'_>)| {
                own.learning_rate == column.learning_rate && own.setting == column.setting
            };
            regime.variants.iter().enumerate().find(same).map_or(Cell::default(), |found| cell(found, regime))
        };
        [name(study, regime, "")].into_iter().chain(all_variants.iter().map(at)).collect()
    };
    let all: Vec<(&str, &RegimeRuns<'_>)> =
        study.regimes.iter().flat_map(|r| r.variants.iter().map(|variant| (r.name, variant))).collect();
    Some(TableWithCaption {
        title: "Learning rates",
        how: "New-task accuracy / change of prior knowledge in points, means over seeds, at each learning rate, with the 95 % interval of the change; \
              bold: the best learning rate of the regime. An empty cell is not part of the study."
            .into(),
        header: ["regime".to_string()].into_iter().chain(all_variants.iter().map(|variant| variant.name())).collect(),
        rows: study.regimes.iter().map(row).collect(),
        source: source(study, &all),
    })
}

/// Change of prior knowledge of the regimes of a group at common accuracies; `None` if nobody learned. `named`: the new task is to be named.
pub fn matched(study: &StudyResults<'_>, group: &ComparedRegimes<'_, '_>, named: bool) -> Option<TableWithCaption> {
    let measured: Vec<(&RegimeResults<'_>, &RegimeRuns<'_>)> =
        group.regimes.iter().filter_map(|regime| Some((*regime, regime.best()?))).collect();
    let levels =
        equal_levels(&measured.iter().flat_map(|(_, variant)| variant.trajectories()).collect::<Vec<_>>(), group.level);
    let read = |level: f64| measured.iter().filter(|(_, variant)| variant.reached(level).seeds > 0).count();
    // Regimes that are measured only where they met their criterion are compared there.
    if levels.is_empty() || group.has_criterion() && levels.iter().all(|level| read(*level) < 2) {
        return None;
    }
    let row = |(regime, variant): &(&RegimeResults<'_>, &RegimeRuns<'_>)| {
        let cells = levels.iter().map(|level| reached_cell(&variant.reached(*level)));
        [name(study, regime, "")].into_iter().chain(cells).collect()
    };
    let new_task = if named { format!("New task {}. ", and(&group.names())) } else { String::new() };
    Some(TableWithCaption {
        title: "At equal accuracy on the new task",
        how: new_task
            + "A run that has learned less has had less reason to forget. Change of prior knowledge, in points, where each run first reaches an \
              accuracy, at a measured checkpoint or interpolated linearly between two of them; mean over the seeds that can be read there, with 95 % \
              intervals over seeds and test examples. Nothing is read on the line from the base to a run\u{2019}s first checkpoint (\u{201c}before the \
              first checkpoint\u{201d}). A run that continued from another run\u{2019}s model includes that run\u{2019}s trajectory; where that model is \
              not measured, the run \u{201c}starts above\u{201d} accuracies below its first checkpoint.",
        header: ["regime".to_string()].into_iter().chain(levels.iter().map(|level| percent(*level))).collect(),
        rows: measured.iter().map(row).collect(),
        source: source(study, &measured.iter().map(|(regime, variant)| (regime.name, *variant)).collect::<Vec<_>>()),
    })
}

/// The accuracies at which trajectories are compared: every 10 points that one passes, and `level`, at which regimes are compared.
pub fn equal_levels(trajectories: &[Vec<TrajectoryPoint<'_>>], level: Option<f64>) -> Vec<f64> {
    let most = trajectories.iter().map(|trajectory| highest(trajectory)).fold(f64::NEG_INFINITY, f64::max);
    let mut levels = tens(start(trajectories), most);
    levels.extend(level.filter(|own| levels.iter().all(|ten| (ten - own).abs() > 1e-9)));
    levels.sort_by(f64::total_cmp);
    levels
}

/// Runs that are not measured to the end, with where they stand.
pub fn missing(study: &StudyResults<'_>) -> Vec<String> {
    let open = study.runs().filter(|(_, run)| !run.done);
    open.map(|(_, run): (usize, &SeedRun<'_>)| format!("{}: {}", run.plan.name, run.state)).collect()
}
