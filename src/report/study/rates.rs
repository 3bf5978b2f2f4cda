//! The first figure of a study with several learning rates: points lost against the learning rate, a curve for each regime.

use super::load::{RegimeRuns, StudyResults};
use super::sentences::and;
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
    let mut chart = Chart::new(x, Axis::from_zero("prior knowledge lost (points)"), series);
    chart.references.push(Reference::Level(0.0, "base".into()));
    let caption = format!(
        "Points of prior knowledge lost {}: mean over seeds with 95 % intervals over seeds and test examples, both resampled. Curves of different \
         regimes that coincide speak for the rate; curves beside each other for what is learnt, or how. Curves are moved apart a little so that their \
         intervals can be told apart.",
        at_the_end(study)
    );
    Figure::new("Points lost against learning rate", &caption, &chart)
}

fn point(variant: &RegimeRuns<'_>) -> Option<Point> {
    let lost = variant.change(None)?.mean;
    // `0.0 - x`, because `-x` would write no change as -0.
    let points = |change: f64| 0.0 - 100.0 * change;
    Some(Point {
        x: variant.learning_rate?,
        y: points(lost.value),
        interval: Some((points(lost.high), points(lost.low))),
    })
}

/// Where the runs ended: at their criterion, all or some of them, or at the end of their steps.
fn at_the_end(study: &StudyResults<'_>) -> String {
    let mut criteria: Vec<&str> = Vec::new();
    let mut unmet: Vec<String> = Vec::new();
    for (regime, variant) in study.regimes.iter().flat_map(|one| one.variants.iter().map(move |variant| (one, variant)))
    {
        let trained: Vec<_> =
            variant.done().filter_map(|(run, _)| run.plan.training.as_ref()?.criterion.as_ref()).collect();
        for criterion in &trained {
            if !criteria.contains(&criterion.stop_when.as_str()) {
                criteria.push(&criterion.stop_when);
            }
        }
        let without = trained.iter().filter(|criterion| !criterion.met).count();
        if without > 0 {
            unmet.push(format!("{} at {} ({without} of {})", regime.name, variant.name(), trained.len()));
        }
    }
    let unmet: Vec<&str> = unmet.iter().map(String::as_str).collect();
    match (criteria.as_slice(), unmet.as_slice()) {
        ([], _) => "at the end of each run".into(),
        (met, []) => format!("where each run first met its criterion on validation examples ({})", met.join("; ")),
        (met, unmet) => format!(
            "where each run first met its criterion on validation examples ({}), or at the end of its steps where it did not: {}",
            met.join("; "),
            and(unmet)
        ),
    }
}
