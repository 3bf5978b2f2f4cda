//! The first figure of a study with several learning rates: points lost against the learning rate, a curve for each regime.

use super::load::{RegimeRuns, StudyResults};
use crate::report::chart::{Axis, COLOURS, Chart, Figure, Mark, Point, Reference, Series};

/// Pixels between the intervals of curves at the same rate.
const APART: i16 = 7;

/// Points lost at each learning rate; `None` if no regime was measured at several.
pub fn figure(study: &StudyResults<'_>) -> Option<Figure> {
    let mut series: Vec<Series> = Vec::new();
    for (i, regime) in study.regimes.iter().enumerate() {
        let points: Vec<Point> = regime.variants.iter().filter_map(point).collect();
        if !points.is_empty() {
            series.push(Series { name: regime.name.to_string(), colour: i % COLOURS, mark: Mark::Line, points });
        }
    }
    if series.iter().all(|one| one.points.len() < 2) {
        return None;
    }
    let middle = (series.len() as i16 - 1) * APART / 2;
    for (i, one) in series.iter_mut().enumerate() {
        one.mark = Mark::Shifted(i as i16 * APART - middle);
    }
    let x = Axis::log("peak learning rate");
    let mut chart = Chart::new(x, Axis::points("prior knowledge lost (points)"), series);
    chart.references.push(Reference::Level(0.0, "base".into()));
    let caption = format!(
        "{}. Curves that coincide speak for the rate, curves apart for the data or the method.",
        at_the_end(study)
    );
    Figure::new("Points lost against learning rate", &caption, &chart)
}

fn point(variant: &RegimeRuns<'_>) -> Option<Point> {
    let lost = variant.change(None)?.negated().mean;
    Some(Point::new(variant.learning_rate?, 100.0 * lost.value).with(Some((100.0 * lost.low, 100.0 * lost.high))))
}

/// Where the runs ended: at their criterion, or at the end of their steps. The notes name the runs that did not meet it.
fn at_the_end(study: &StudyResults<'_>) -> String {
    let mut criteria: Vec<&str> = Vec::new();
    let trained = study.runs().filter(|(_, run)| run.done).filter_map(|(_, run)| run.plan.training.as_ref());
    for criterion in trained.filter_map(|training| training.criterion.as_ref()) {
        if !criteria.contains(&criterion.stop_when.as_str()) {
            criteria.push(&criterion.stop_when);
        }
    }
    match criteria.as_slice() {
        [] => "At the end of each run".into(),
        met => format!("Where each run met its criterion ({}), or at its end", met.join("; ")),
    }
}
