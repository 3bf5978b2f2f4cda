//! The tables of a study.

use super::cells::{Cell, NONE, TableWithCaption, bare, fixed, lost_points, nats, range, share, tint};
use super::level::{ComparedRegimes, level_of};
use super::load::{NewTask, RegimeResults, RegimeRuns, SeedRun, StudyResults};
use super::measure::{ACCURACY, FORMAT_LOSS, KL_NEW, KL_PRIOR};
use super::seed_stats::{AtAccuracy, SeedValue, seed_mean};
use super::sentences::and;
use crate::report::trajectory::{TrajectoryPoint, highest, start, tens};
use crate::sampling::{Category, Summary};
use crate::stats::Interval;
use crate::stats::table::percent;
use crate::tasks::{PARTIAL_CREDIT, partial_credit_label};
use std::collections::BTreeSet;

/// The name of a regime, with its colour.
pub fn name(study: &StudyResults<'_>, regime: &RegimeResults<'_>, about: &str) -> Cell {
    let place = study.regimes.iter().position(|other| other.name == regime.name);
    Cell { colour: place, ..Cell::with(regime.name, about) }
}

/// What each regime learned and lost at its best learning rate, a row per regime. `groups`: those that are compared with each other.
pub fn answers(study: &StudyResults<'_>, groups: &[ComparedRegimes<'_, '_>]) -> TableWithCaption {
    let mut rows = base_rows(study, groups);
    rows.extend(study.regimes.iter().map(|regime| answer_row(study, regime, level_of(groups, regime.name))));
    // The same level for all, unless regimes have different new tasks.
    let level = match groups {
        [group] => group.level,
        _ => None,
    };
    let levels =
        groups.iter().filter_map(|group| Some(format!("{} on {}", percent(group.level?), and(&group.names()))));
    let levels: Vec<String> = levels.collect();
    let at_level = match (level, levels.as_slice()) {
        (Some(level), _) => format!("at {} accuracy", percent(level)),
        (None, []) => "at equal accuracy".to_string(),
        (None, some) => format!("at equal accuracy ({})", some.join("; ")),
    };
    let column = level.map_or("points lost at equal accuracy".into(), |_| format!("points lost {at_level}"));
    let chosen = if study.chosen_on_test { "the same test examples" } else { "validation examples" };
    let header =
        ["regime", "new-task accuracy", "points lost", "largest loss", &column, "learning rate", "steps", "seeds"];
    let table = TableWithCaption {
        title: "Learned and lost",
        how: format!(
            "Each regime at its best learning rate: {}the one with the highest accuracy at the end of training, on {chosen}; among equal ones the one \
             that loses least. Means over seeds with 95 % intervals over seeds and test examples. Points lost: drop of the mean score over \
             all benchmarks, in percentage points; below 0 it is a gain. Largest loss: the family that loses most.{}",
            match study.regimes.iter().any(|regime| regime.met_criterion()) {
                true =>
                    "of those at which all seeds met their criterion the one that loses least (by the questions shown here, so a little too \
                     good), else ",
                false => "",
            },
            match levels.is_empty() {
                true => String::new(),
                false => format!(
                    " Points lost {at_level}: where training first reaches it, the highest that all seeds reach, over the regimes that gain at \
                     least 10 points."
                ),
            }
        ),
        header: header.map(String::from).to_vec(),
        rows,
    };
    table.without_uniform(3)
}

/// Form of the answers and distance from the base, a row per regime at its best learning rate.
pub fn distances(study: &StudyResults<'_>) -> Option<TableWithCaption> {
    let row = |regime: &RegimeResults<'_>| {
        let variant = regime.best()?;
        let partial: Vec<SeedValue> =
            variant.done().filter_map(|(_, tuned)| Some(study.evaluation(tuned)?.partial_credit.into())).collect();
        Some(vec![
            name(study, regime, ""),
            Cell::over(seed_mean(&partial, (0.0, 1.0)), percent, bare),
            Cell::over(variant.over(&FORMAT_LOSS), lost_points, lost_points),
            Cell::over(variant.over(&KL_NEW), nats, nats),
            Cell::over(variant.over(&KL_PRIOR), nats, nats),
            regime.perplexity.map_or(Cell::none(), |value| Cell::text(fixed(value, 2))),
        ])
    };
    let new_tasks = study.new_tasks();
    let base = |one: &NewTask<'_>| {
        let credit = share(study.base_evaluation(&one.measured.data)?.partial_credit);
        let mut row = vec![Cell::with("base", before_training(one, &new_tasks)), credit];
        row.resize(6, Cell::none());
        Some(row)
    };
    let mut rows: Vec<Vec<Cell>> = new_tasks.iter().filter_map(base).collect();
    rows.extend(study.regimes.iter().filter_map(row));
    let credit = partial_credit(study);
    let header = [
        "regime",
        credit.unwrap_or(PARTIAL_CREDIT),
        "format loss",
        "KL new task",
        "KL prior",
        "training-data perplexity",
    ];
    let mut table = TableWithCaption {
        title: "Form of the answers and distance from the base",
        how: "Format loss: the part of the points lost that is only a change of form: a lenient reading still finds the answer. KL: KL(base || tuned) in nats per \
              token, on the prompts of the new task and of prior knowledge. Perplexity: median, under the base, of the reference responses that the regime \
              learns, without replayed data; a regime that learns its own responses has none."
            .into(),
        header: header.map(String::from).to_vec(),
        rows,
    };
    if credit.is_none() {
        table.drop_column(1);
    }
    let table = table.without_uniform(1);
    (table.header.len() > 1).then_some(table)
}

/// What partial credit on the new task counts; `None` if it gives none.
fn partial_credit(study: &StudyResults<'_>) -> Option<&'static str> {
    let scorers: BTreeSet<&String> = study.summaries().flat_map(|summary| summary.scorers.keys()).collect();
    // Before the first evaluation it is not known.
    if scorers.is_empty() { Some(PARTIAL_CREDIT) } else { partial_credit_label(scorers) }
}

/// The base on each wording of the new task, and the solvers that are no models.
fn base_rows(study: &StudyResults<'_>, groups: &[ComparedRegimes<'_, '_>]) -> Vec<Vec<Cell>> {
    let new_tasks = study.new_tasks();
    let prior = study.any().and_then(|tuned| tuned.all.as_ref()).map(|all| all.base);
    let row = |cells: Vec<Cell>| {
        let mut row = cells;
        row.resize(8, Cell::none());
        row
    };
    let of = |one: &NewTask<'_>| {
        let lost = prior.map_or(Cell::none(), |score| Cell::with("0.0", format!("mean score {}", percent(score))));
        row(vec![Cell::with("base", before_training(one, &new_tasks)), share(one.measured.all.base.value), lost])
    };
    let mut rows: Vec<Vec<Cell>> = new_tasks.iter().map(of).collect();
    for one in &new_tasks {
        for (name, summary) in study.solvers_on(&one.measured.data) {
            let about = if groups.len() > 1 { format!("no model, on {}", one.puzzles) } else { "no model".to_string() };
            let solver = row(vec![Cell::with(name, about), share(summary.accuracy)]);
            // The same puzzles in other words are the same to a solver.
            if !rows.contains(&solver) {
                rows.push(solver);
            }
        }
    }
    rows
}

/// What the base's row is about.
fn before_training(new_task: &NewTask<'_>, all: &[NewTask<'_>]) -> String {
    if all.len() == 1 { "before training".to_string() } else { format!("on {}", new_task.name) }
}

fn answer_row(study: &StudyResults<'_>, regime: &RegimeResults<'_>, level: Option<f64>) -> Vec<Cell> {
    let planned: usize = regime.variants.iter().map(|variant| variant.runs.len()).sum();
    let Some(variant) = regime.best() else {
        let measured = Cell::with(NONE, format!("0 of {planned} runs measured"));
        let mut row = vec![name(study, regime, regime.about), measured];
        row.resize(8, Cell::none());
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
    let worst = families(study).into_iter().filter_map(|family| Some((family, variant.change(Some(family))?)));
    let worst = worst.min_by(|a, b| a.1.mean.value.total_cmp(&b.1.mean.value));
    let worst = match worst {
        Some((family, over)) if over.mean.value < 0.0 => Cell::with(lost_points(-over.mean.value), family),
        Some(_) => Cell::text("no loss"),
        None => Cell::none(),
    };
    vec![
        name(study, regime, regime.about),
        Cell::over(variant.over(&ACCURACY), percent, bare),
        Cell::lost(variant.change(None)),
        worst,
        level.map_or(Cell::none(), |level| reached_cell(&variant.reached(level))),
        Cell::with(variant.name(), of_rates),
        Cell::with(steps, unmet(variant)),
        Cell::with(done.to_string(), seeds),
    ]
}

/// How many runs did not meet their criterion; empty if none.
fn unmet(variant: &RegimeRuns<'_>) -> String {
    match variant.criterion() {
        Some((met, all)) if met < all => format!("criterion not met by {} of {all}", all - met),
        _ => String::new(),
    }
}

/// Points lost at an accuracy, and how many seeds reach it.
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
    let cell = Cell::lost(reached.change);
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
    for (regime, best) in study.regimes.iter().filter_map(|regime| Some((regime, regime.best()?))) {
        let of = |name: &str, part: fn(&Category) -> Interval| {
            let of_model = |tuned| study.evaluation(tuned)?.categories.get(name).map(part).map(SeedValue::from);
            let values: Vec<SeedValue> = best.done().filter_map(|(_, tuned)| of_model(tuned)).collect();
            Cell::over(seed_mean(&values, (0.0, 1.0)), percent, bare)
        };
        let cells = names.iter().flat_map(|category| parts.iter().map(|(_, part)| of(category, *part)));
        rows.push([name(study, regime, &best.label())].into_iter().chain(cells).collect());
    }
    let heads = names.iter().flat_map(|name| parts.iter().map(move |(part, _)| format!("{name}: {part}")));
    Some(TableWithCaption {
        title: "New task by category",
        how: "At each regime\u{2019}s best learning rate: mean over seeds with 95 % intervals over seeds and test examples.".into(),
        header: ["regime".to_string()].into_iter().chain(heads).collect(),
        rows,
    })
}

/// The families of prior knowledge.
pub fn families<'a>(study: &StudyResults<'a>) -> Vec<&'a str> {
    study.any().map(|tuned| tuned.families.iter().map(|family| family.name.as_str()).collect()).unwrap_or_default()
}

/// Points lost in each family, a row per regime; `None` while nothing is measured.
pub fn by_family(study: &StudyResults<'_>) -> Option<TableWithCaption> {
    let any = study.any()?;
    let names = families(study);
    let base = any.families.iter().chain(&any.all).map(|family| Cell::text(percent(family.base)));
    let mut rows = vec![[Cell::with("base", "score")].into_iter().chain(base).collect::<Vec<_>>()];
    for (regime, best) in study.regimes.iter().filter_map(|regime| Some((regime, regime.best()?))) {
        let cell = |family: Option<&str>| {
            let change = best.change(family);
            Cell { strong: change.is_some_and(|over| over.mean.excludes_zero()), ..Cell::lost(change) }
        };
        let cells = names.iter().map(|family| cell(Some(family))).chain(any.all.iter().map(|_| cell(None)));
        rows.push([name(study, regime, &best.label())].into_iter().chain(cells).collect());
    }
    let heads =
        names.iter().map(|name| (*name).to_string()).chain(any.all.iter().map(|_| "all benchmarks".to_string()));
    let members: Vec<String> =
        any.families.iter().map(|family| format!("{} ({})", family.name, family.benchmarks.join(", "))).collect();
    Some(TableWithCaption {
        title: "Points lost by family",
        how: format!(
            "Drop of the mean score of each family of benchmarks, in points, at each regime\u{2019}s best learning rate: mean over seeds with 95 % \
             intervals over seeds and test examples, not adjusted for the number of families. Bold: the interval leaves out 0. The larger the loss, the darker the cell. Families: {}.",
            members.join(", ")
        ),
        header: ["regime".to_string()].into_iter().chain(heads).collect(),
        rows,
    })
}

/// Accuracy and points lost at each learning rate; `None` if no regime has several.
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
        let lost = change.map_or(NONE.to_string(), |over| lost_points(-over.mean.value));
        let count = if done == variant.runs.len() { String::new() } else { count };
        let range = change.map_or(String::new(), |over| range(&over.negated(), lost_points));
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
    Some(TableWithCaption {
        title: "Learning rates",
        how: "New-task accuracy / points lost at each learning rate, means over seeds, with the 95 % interval of the points lost over seeds and test \
              examples; bold: the best learning rate of the regime. An empty cell is not part of the study."
            .into(),
        header: ["regime".to_string()].into_iter().chain(all_variants.iter().map(|variant| variant.name())).collect(),
        rows: study.regimes.iter().map(row).collect(),
    })
}

/// Points lost by the regimes of a group at common accuracies; `None` if nobody learned. `named`: the new task is to be named.
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
    let table = TableWithCaption {
        title: "At equal accuracy on the new task",
        how: new_task
            + "A run that has learned less has had less reason to forget. Points lost where each run first reaches an accuracy, at a measured \
              checkpoint or interpolated linearly between two of them; mean over the seeds that can be read there, with 95 % intervals over seeds and test \
              examples. Nothing is read on the line from the base to a run\u{2019}s first checkpoint (\u{201c}before the first checkpoint\u{201d}). A run \
              that continued from another run\u{2019}s model includes that run\u{2019}s trajectory; where that model is not measured, the run \
              \u{201c}starts above\u{201d} accuracies below its first checkpoint.",
        header: ["regime".to_string()].into_iter().chain(levels.iter().map(|level| percent(*level))).collect(),
        rows: measured.iter().map(row).collect(),
    };
    let table = table.without_uniform(1);
    (table.header.len() > 1).then_some(table)
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
