//! The first screen of a study: a sentence for each regime, what the numbers are, and the figures that answer at a glance.

use super::level::compared_regimes;
use super::load::{NewTask, StudyResults};
use super::measure::{ACCURACY, prior};
use super::rates;
use super::seed_stats::SeedMean;
use super::sentences::{self, RegimeResult, and};
use super::tables::families;
use crate::report::chart::{Axis, COLOURS, Chart, Figure, Mark, NamedPoint, Point, Reference, Series};
use crate::stats::table::percent;
use serde::Serialize;

/// A regime in a sentence.
#[derive(Debug, Serialize)]
pub struct RegimeSentence<'a> {
    /// Name of the regime.
    pub name: &'a str,
    /// Number of its colour.
    pub colour: usize,
    /// What it is, what it learned and what it lost.
    pub text: String,
}

/// What each measured regime learned and lost, at its best learning rate.
pub fn results<'s>(study: &'s StudyResults<'_>) -> Vec<RegimeResult<'s>> {
    let families = families(study);
    let result = |regime: &'s super::load::RegimeResults<'_>| {
        let best = regime.best()?;
        let only = match best.done().collect::<Vec<_>>().as_slice() {
            [(_, tuned)] => prior(tuned),
            _ => None,
        };
        let of = |family: &&'s str| Some((*family, best.change(Some(family))?));
        Some(RegimeResult {
            name: regime.name,
            about: regime.about,
            rate: (regime.variants.len() > 1).then(|| match best.learning_rate {
                Some(_) => format!("learning rate {}", best.name()),
                None => best.name(),
            }),
            accuracy: best.over(&ACCURACY)?,
            change: best.change(None),
            families: families.iter().filter_map(of).collect(),
            questions: only.map(|all| (all.worse, all.better, all.p_sign)),
        })
    };
    study.regimes.iter().filter_map(result).collect()
}

/// A sentence for each measured regime.
pub fn regime_sentences<'s>(study: &'s StudyResults<'_>, results: &[RegimeResult<'s>]) -> Vec<RegimeSentence<'s>> {
    let groups = compared_regimes(study);
    let sentence = |one: &RegimeResult<'s>| {
        let of = match groups.iter().find(|group| groups.len() > 1 && group.has(one.name)) {
            Some(group) => format!("{} ({})", questions(study), and(&group.names())),
            None => questions(study).to_string(),
        };
        let colour = study.regimes.iter().position(|regime| regime.name == one.name).unwrap_or(0) % COLOURS;
        RegimeSentence { name: one.name, colour, text: sentences::regime(one, &of) }
    };
    results.iter().map(sentence).collect()
}

/// What is answered on the new task.
fn questions(study: &StudyResults<'_>) -> &'static str {
    let mut tasks = study.summaries().map(|summary| summary.task.as_str()).peekable();
    if tasks.peek().is_some() && tasks.all(|task| task == "jigsaw") { "puzzles" } else { "new-task questions" }
}

/// What the sentences and figures are about, for a reader who has not met the study.
pub fn introduction(study: &StudyResults<'_>) -> Option<String> {
    let all = study.any()?.all.as_ref()?;
    let new_tasks = study.new_tasks();
    let of = |one: &NewTask<'_>| percent(one.measured.all.base.value.value);
    let base = match new_tasks.as_slice() {
        [one] => of(one),
        several => {
            let each: Vec<String> = several.iter().map(|one| format!("{} on {}", of(one), one.name)).collect();
            and(&each.iter().map(String::as_str).collect::<Vec<_>>())
        }
    };
    let seeds = study.regimes.iter().filter_map(|regime| Some(regime.best()?.done().count()));
    let over = match (seeds.clone().min()?, seeds.max()?) {
        (1, 1) => "over test examples; one seed each".to_string(),
        (low, high) if low == high => format!("over {low} seeds and the test examples"),
        (low, high) => format!("over {low} to {high} seeds and the test examples"),
    };
    Some(format!(
        "Each regime is a way to fine-tune the same base on a new task. Learned: {} answered right (base {base}). Lost: percentage points of the mean \
         score over {} benchmarks of prior knowledge (base {}). In brackets: 95 % intervals {over}.",
        questions(study),
        study.any()?.benchmarks.len(),
        percent(all.base)
    ))
}

/// The figures, those with several learning rates first.
pub fn figures(study: &StudyResults<'_>, results: &[RegimeResult<'_>]) -> Vec<Figure> {
    [rates::figure(study), gained(study, results), forest(study, results)].into_iter().flatten().collect()
}

/// Points lost against accuracy: each regime with its intervals, the trajectories of its runs, the base, and what solvers reach.
fn gained(study: &StudyResults<'_>, results: &[RegimeResult<'_>]) -> Option<Figure> {
    let mut series: Vec<Series> = Vec::new();
    let mut named: Vec<NamedPoint> = Vec::new();
    let mut references: Vec<Reference> = Vec::new();
    let new_tasks = study.new_tasks();
    for one in &new_tasks {
        let name = if new_tasks.len() > 1 { format!("base ({})", one.name) } else { "base".into() };
        let point = Point::new(one.measured.all.base.value.value, 0.0);
        named.push(NamedPoint { name, point, colour: None });
        // The same puzzles in other words have the same line.
        for (name, summary) in study.solvers_on(&one.measured.data) {
            let line = Reference::At(summary.accuracy.value, name.to_string());
            if !references.contains(&line) {
                references.push(line);
            }
        }
    }
    for (i, regime) in study.regimes.iter().enumerate() {
        let (Some(best), Some(own)) = (regime.best(), results.iter().find(|own| own.name == regime.name)) else {
            continue;
        };
        for run in best.runs.iter().filter(|run| !run.trajectory.is_empty()) {
            let points = run.trajectory.iter().map(|p| Point::new(p.accuracy, 0.0 - 100.0 * p.value)).collect();
            series.push(Series { name: run.plan.name.clone(), colour: i % COLOURS, mark: Mark::Thin, points });
        }
        let Some((lost, interval)) = own.change.map(lost) else { continue };
        let accuracy = own.accuracy.mean;
        let x_interval = Some((accuracy.low, accuracy.high));
        let point = Point { x_interval, ..Point::new(accuracy.value, lost).with(Some(interval)) };
        named.push(NamedPoint { name: own.name.into(), point, colour: Some(i % COLOURS) });
    }
    let (x, y) = (Axis::percent("new-task accuracy"), Axis::points("prior knowledge lost (points)"));
    let chart = Chart { named, references, ..Chart::new(x, y, series) };
    let caption = "To the right more is learned, upwards more is lost. Each regime at its best learning rate, with 95 % intervals; thin lines: its runs \
                   through their checkpoints.";
    Figure::new("Points lost against accuracy gained", caption, &chart)
}

/// Points lost in each family of prior knowledge.
fn forest(study: &StudyResults<'_>, results: &[RegimeResult<'_>]) -> Option<Figure> {
    let families = families(study);
    let mut categories: Vec<String> = families.iter().map(|name| name.to_string()).collect();
    if families.len() != 1 {
        categories.push("all benchmarks".into());
    }
    let series = |(i, name): (usize, &str)| {
        let own = results.iter().find(|own| own.name == name)?;
        let point = |(row, category): (usize, &String)| {
            let change = own.families.iter().find(|(family, _)| family == category).map(|(_, change)| *change);
            let (lost, interval) = lost(change.or(own.change)?);
            Some(Point::new(lost, row as f64).with(Some(interval)))
        };
        let points = categories.iter().enumerate().filter_map(point).collect();
        Some(Series { name: name.into(), colour: i % COLOURS, mark: Mark::Forest, points })
    };
    let series = study.regimes.iter().map(|regime| regime.name).enumerate().filter_map(series).collect();
    let chart = Chart::forest(Axis::points("points lost"), categories.clone(), series);
    let caption = "Each regime at its best learning rate, with 95 % intervals. Left of 0 is a gain.";
    Figure::new("Points lost by family", caption, &chart)
}

/// Points lost with their interval.
fn lost(change: SeedMean) -> (f64, (f64, f64)) {
    let lost = change.negated().mean;
    (100.0 * lost.value, (100.0 * lost.low, 100.0 * lost.high))
}
