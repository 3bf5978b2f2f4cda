//! The charts of what runs have learned and forgotten.

use super::chart::{Axis, Chart, Figure, Mark, Point, Reference, Series};
use super::comparison_group::{ComparisonGroup, MeasuredRun, checkpoint_name};
use super::trajectory::{lineage, step};
use crate::forgetting::{ALL, TunedResult};
use crate::stats::Interval;

/// Number of the colour of a name.
pub type ColourOf<'a> = &'a dyn Fn(&str) -> usize;

/// The change by family, learned against retained, and what changes over the steps of training.
pub fn main_charts(group: &ComparisonGroup<'_>, colour: ColourOf<'_>) -> Vec<Figure> {
    let all = |tuned: &TunedResult| tuned.all.as_ref().map(|mean| points(mean.change));
    let figures = [
        Figure::new(
            "Change by family",
            "The last model of each run against the base: mean change over the benchmarks of a family, with 95 % intervals",
            &families(group, colour),
        ),
        Figure::new(
            "Learned and retained",
            "A line for each run, from the base through its checkpoints: to the right the new task is learned, downwards prior \
             knowledge is forgotten",
            &learned_and_retained(group, colour),
        ),
        over_steps(group, colour, &all, "change (points)").and_then(|chart| {
            let caption = "Mean change over all benchmarks at each checkpoint, with 95 % intervals";
            Figure::new("Prior knowledge over training", caption, &chart)
        }),
        over_steps(group, colour, &TunedResult::new_task_kl, "nats per token").and_then(|chart| {
            let caption =
                "KL(base || tuned) on the new task\u{2019}s prompts, exact over the vocabulary, with 95 % intervals";
            Figure::new("Distance from the base", caption, &chart)
        }),
    ];
    figures.into_iter().flatten().collect()
}

/// The change of each family over the steps of training, if there are several families.
pub fn family_charts(group: &ComparisonGroup<'_>, colour: ColourOf<'_>) -> Vec<Figure> {
    let families = &group.runs[0].last().families;
    let draw = |name: &String| {
        let value = |tuned: &TunedResult| tuned.families.iter().find(|f| f.name == *name).map(|f| points(f.change));
        let caption = format!("Mean change over the benchmarks of the family {name}, with 95 % intervals");
        Figure::new(name, &caption, &over_steps(group, colour, &value, "change (points)")?)
    };
    families.iter().filter(|_| families.len() > 1).filter_map(|family| draw(&family.name)).collect()
}

/// Shares to percentage points.
fn points(share: Interval) -> Interval {
    Interval { value: 100.0 * share.value, low: 100.0 * share.low, high: 100.0 * share.high }
}

fn families(group: &ComparisonGroup<'_>, colour: ColourOf<'_>) -> Chart {
    let first = group.runs[0].last();
    // One family alone is the mean of all.
    let all = first.all.iter().filter(|_| first.families.len() != 1);
    let names: Vec<&str> = first.families.iter().chain(all).map(|mean| mean.name.as_str()).collect();
    let marks = |run: &MeasuredRun<'_>| {
        let last = run.last();
        let mark = |(i, name): (usize, &&str)| {
            let Interval { value, low, high } =
                points(last.families.iter().chain(&last.all).find(|mean| mean.name == *name)?.change);
            Some(Point::new(value, i as f64).with(Some((low, high))))
        };
        Series {
            name: checkpoint_name(run, last),
            colour: colour(&run.name),
            mark: Mark::Forest,
            points: names.iter().enumerate().filter_map(mark).collect(),
        }
    };
    let categories = names.iter().map(|name| if *name == ALL { "mean of all".into() } else { name.to_string() });
    Chart::forest(
        Axis::points("change (percentage points)"),
        categories.collect(),
        group.runs.iter().map(marks).collect(),
    )
}

/// Accuracy on the new task against the mean prior score, a line for each run.
fn learned_and_retained(group: &ComparisonGroup<'_>, colour: ColourOf<'_>) -> Chart {
    let mut base = None;
    let mut series = Vec::new();
    let models = group.models();
    for (i, run) in group.runs.iter().enumerate() {
        let mut points = Vec::new();
        for tuned in &run.models {
            let (Some(new_task), Some(all)) = (&tuned.new_task, &tuned.all) else { continue };
            if points.is_empty() {
                base = Some(Reference::Level(all.base, "base".into()));
                let before = lineage(&models, i, &group.base.hash);
                points.extend(before.iter().map(|p| Point::new(p.accuracy, all.base + p.value)));
            }
            let interval = Some((all.base + all.change.low, all.base + all.change.high));
            points.push(Point::new(new_task.all.tuned.value.value, all.tuned).with(interval));
        }
        series.push(Series { name: run.name.clone(), colour: colour(&run.name), mark: Mark::Line, points });
    }
    let mut chart = Chart::new(Axis::percent("new-task accuracy"), Axis::percent("mean prior score (%)"), series);
    chart.references.extend(base);
    chart
}

/// A distance from the base over the steps of training, a line for each run. The line of a run that was started from the base begins at
/// step 0. `None` if no run has several checkpoints.
fn over_steps(
    group: &ComparisonGroup<'_>,
    colour: ColourOf<'_>,
    value: &dyn Fn(&TunedResult) -> Option<Interval>,
    y_label: &str,
) -> Option<Chart> {
    let of_run = |run: &MeasuredRun<'_>| {
        let point = |tuned: &&TunedResult| {
            let Interval { value, low, high } = value(tuned)?;
            Some(Point::new(step(tuned)?, value).with(Some((low, high))))
        };
        let mut points: Vec<Point> = run.models.iter().filter_map(point).collect();
        if points.len() > 1 && run.started_from(group.base) {
            points.insert(0, Point::new(0.0, 0.0));
        }
        Series { name: run.name.clone(), colour: colour(&run.name), mark: Mark::Line, points }
    };
    let series: Vec<Series> = group.runs.iter().map(of_run).collect();
    if series.iter().all(|one| one.points.len() < 2) {
        return None;
    }
    let mut chart = Chart::new(Axis::steps(), Axis::from_zero(y_label), series);
    chart.references.push(Reference::Level(0.0, "base".into()));
    Some(chart)
}
