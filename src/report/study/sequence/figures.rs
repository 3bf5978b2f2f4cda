//! Curves over the tasks in a row.

use super::load::{MethodResults, SequenceResults};
use crate::report::chart::{Axis, COLOURS, Chart, Figure, Mark, Point, Reference, Series};
use crate::report::study::seed_stats::SeedMean;
use crate::stats::SequenceMeasure::{AverageAccuracy, Forgetting};

/// Pixels between the intervals of curves at the same time.
const APART: i16 = 7;

/// All of them: average accuracy, forgetting, prior knowledge, then each task.
pub fn figures(sequence: &SequenceResults<'_>) -> Vec<Figure> {
    let all = sequence.tasks.len();
    let average = curves(sequence, 1..=all, |method, time| share(method.measure(AverageAccuracy, time)?));
    let forgetting = curves(sequence, 2..=all, |method, time| lost(method.measure(Forgetting, time)?.negated()));
    let prior = curves(sequence, 0..=all, |method, time| match time {
        0 => Some(Point::new(0.0, 0.0)),
        time => lost(method.prior(None, time)?),
    });
    let x = || Axis { whole: true, ..Axis::from_zero("tasks learned") };
    let percent = |label: &str| Axis { from_zero: true, ..Axis::percent(label) };
    let mut figures = vec![
        Figure::new(
            "Average accuracy on the tasks learned",
            "The mean over the tasks that were learned so far, with 95 % intervals.",
            &Chart::new(x(), percent("average accuracy"), average),
        ),
        Figure::new(
            "Forgetting of the tasks learned",
            "The mean over the tasks before the last: the best accuracy after an earlier task minus that now, with 95 % intervals. Below 0 the last is the best.",
            &Chart::new(x(), Axis::points("forgetting (points)"), forgetting),
        ),
        Figure::new(
            "Prior knowledge lost, task by task",
            "Drop of the mean score over all prior sets from the base, with 95 % intervals.",
            &Chart::new(x(), Axis::points("prior knowledge lost (points)"), prior),
        ),
    ];
    for (i, task) in sequence.tasks.iter().enumerate() {
        let own = curves(sequence, 0..=all, |method, time| share(method.accuracy(time, i)?));
        let mut chart = Chart::new(x(), percent("accuracy"), own);
        chart.references.push(Reference::At((i + 1) as f64, "learned".into()));
        chart.references.extend(sequence.chance[i].map(|chance| Reference::Level(chance, "chance".into())));
        let caption = format!(
            "Accuracy on {task} before and after each task, with 95 % intervals; it is task {} in the row.",
            i + 1
        );
        figures.push(Figure::new(&format!("Accuracy on {task}"), &caption, &chart));
    }
    figures.into_iter().flatten().collect()
}

/// A curve for each method through its values at these times.
fn curves(
    sequence: &SequenceResults<'_>,
    times: std::ops::RangeInclusive<usize>,
    value: impl Fn(&MethodResults<'_>, usize) -> Option<Point>,
) -> Vec<Series> {
    let middle = (sequence.methods.len() as i16 - 1) * APART / 2;
    let curve = |(i, method): (usize, &MethodResults<'_>)| Series {
        name: method.entry.name.clone(),
        colour: i % COLOURS,
        mark: Mark::Shifted(i as i16 * APART - middle),
        points: match method.seeds.is_empty() {
            true => Vec::new(),
            false => times.clone().filter_map(|time| Some(Point { x: time as f64, ..value(method, time)? })).collect(),
        },
    };
    sequence.methods.iter().enumerate().map(curve).collect()
}

fn share(mean: SeedMean) -> Option<Point> {
    Some(Point::new(0.0, mean.mean.value).with(Some((mean.mean.low, mean.mean.high))))
}

/// The points lost by a change.
fn lost(change: SeedMean) -> Option<Point> {
    let lost = change.negated().mean;
    Some(Point::new(0.0, 100.0 * lost.value).with(Some((100.0 * lost.low, 100.0 * lost.high))))
}
