//! The section about learning dynamics: what training data does to prior knowledge, a step at a time.

use super::chart::{Axis, COLOURS, Chart, Figure, Mark, Point, Series};
use crate::dynamics::{
    CheckpointResult, DynamicsResult, KlPoint, OnPolicyResult, Pair, PairSummary, SampleSetResult, checkpoint_tables,
    divergence, influence_over_checkpoints, likelihood, notes, on_policy_table,
};
use crate::forgetting::brief;
use crate::stats::Interval;
use serde_json::{Value, json};

/// A measurement with its pairs.
#[derive(Debug)]
pub struct DynamicsMeasurement {
    /// What was found.
    pub found: DynamicsResult,
    /// The pairs, under all checkpoints.
    pub pairs: Vec<Pair>,
}

/// The values of the page's template. The regimes have colours of their own, listed in the section.
pub fn view(measurement: &DynamicsMeasurement) -> Value {
    let found = &measurement.found;
    let sets = found.regimes.iter().chain(&found.priors).enumerate();
    let legend: Vec<Value> = sets.map(|(i, set)| json!({"name": set.name, "colour": i % COLOURS})).collect();
    let config = &found.config;
    let kl = found.kl.as_ref().map(|kl| {
        let (table, lines) = divergence(kl);
        json!({"table": table, "lines": lines})
    });
    let tables = found.checkpoints.iter().map(|checkpoint| {
        let tables = checkpoint_tables(checkpoint, config)
            .into_iter()
            .map(|(title, table)| json!({"title": title, "table": table}));
        json!({
            "name": checkpoint.model.name,
            "provenance": checkpoint.model.provenance(),
            "tables": tables.collect::<Vec<_>>(),
        })
    });
    json!({
        "base": found.base.name,
        "base_hash": brief(&found.base.hash),
        "config": format!(
            "steps of {}, {} loss, up to {} pairs of each regime with each family, seed {}",
            config.steps(),
            format!("{:?}", config.loss).to_lowercase(),
            config.pairs,
            config.seed
        ),
        "legend": legend,
        "notices": notes(found),
        "charts": charts(measurement),
        "likelihood": likelihood(found),
        "over_checkpoints": influence_over_checkpoints(found).into_iter().chain(on_policy_table(found)).collect::<Vec<_>>(),
        "checkpoints": tables.collect::<Vec<_>>(),
        "kl": kl,
    })
}

fn charts(measurement: &DynamicsMeasurement) -> Vec<Figure> {
    let found = &measurement.found;
    let last = found.checkpoints.last();
    let magnitude = match found.checkpoints.len() {
        0 | 1 => last.map(|checkpoint| by_family(found, checkpoint, "LBK", |summary| summary.lbk)),
        _ => Some(over_checkpoints(found, "LBK", of_regimes(found, |summary| summary.lbk))),
    };
    let adam_label = "KL(pi(v) || pi'(v)), nats per token";
    let adam = match found.checkpoints.len() {
        0 | 1 => last.map(|checkpoint| by_family(found, checkpoint, adam_label, |summary| summary.adam_kl)),
        _ => Some(over_checkpoints(found, adam_label, of_regimes(found, |summary| summary.adam_kl))),
    };
    let direction = last.map(|checkpoint| {
        by_family(found, checkpoint, "change of log-likelihood (nats / eta)", |summary| summary.change)
    });
    let figures = [
        (
            "Magnitude",
            "LBK, lower bound of the squared norm of the kernel between training data and prior knowledge, with 95 % intervals",
            magnitude,
        ),
        (
            "A step of Adam",
            "How far the first step of Adam on a training sample moves what the model says of prior knowledge, with 95 % intervals",
            adam,
        ),
        ("Perplexity under the base", "Share of the responses of each set, by nats per token", Some(histogram(found))),
        (
            "Direction",
            "Change of prior knowledge by steps on training data, per unit of step size, under the last checkpoint, with 95 % intervals",
            direction,
        ),
        (
            "Direction and perplexity",
            "A dot for each pair, under the last checkpoint: how likely the base finds the training sample, and what a step of Adam on it does to prior knowledge",
            Some(change_and_perplexity(measurement)),
        ),
        (
            "On-policy perplexity",
            "How likely the base, and the checkpoint itself, finds the responses that each checkpoint samples, with 95 % intervals",
            on_policy(found),
        ),
        (
            "Distance and forgetting",
            "A dot for each model: KL(base || tuned) on the new task\u{2019}s prompts, and the mean loss of prior knowledge",
            distance(found),
        ),
    ];
    figures.into_iter().filter_map(|(title, caption, chart)| Figure::new(title, caption, &chart?)).collect()
}

fn colour(sets: &[SampleSetResult], name: &str) -> usize {
    sets.iter().position(|set| set.name == name).unwrap_or(0) % COLOURS
}

/// A mark for each regime in each family of prior knowledge.
fn by_family(
    found: &DynamicsResult,
    checkpoint: &CheckpointResult,
    label: &str,
    of: fn(&PairSummary) -> Interval,
) -> Chart {
    let marks = |regime: &SampleSetResult| {
        let mark = |(i, prior): (usize, &SampleSetResult)| {
            let both = |s: &&PairSummary| s.regime == regime.name && s.prior.as_deref() == Some(prior.name.as_str());
            let Interval { value, low, high } = of(checkpoint.summaries.iter().find(both)?);
            Some(Point::new(value, i as f64).with(Some((low, high))))
        };
        let points = found.priors.iter().enumerate().filter_map(mark).collect();
        Series { name: regime.name.clone(), colour: colour(&found.regimes, &regime.name), mark: Mark::Forest, points }
    };
    let categories = found.priors.iter().map(|prior| prior.name.clone()).collect();
    Chart::forest(Axis::from_zero(label), categories, found.regimes.iter().map(marks).collect())
}

/// A line for each regime: a measure under each checkpoint that has it.
fn of_regimes(
    found: &DynamicsResult,
    measure: fn(&PairSummary) -> Interval,
) -> Vec<(String, usize, Vec<Option<Interval>>)> {
    let values = |regime: &SampleSetResult| {
        let of =
            |checkpoint: &CheckpointResult| checkpoint.overall().find(|cell| cell.regime == regime.name).map(measure);
        let values = found.checkpoints.iter().map(of).collect();
        (regime.name.clone(), colour(&found.regimes, &regime.name), values)
    };
    found.regimes.iter().map(values).collect()
}

/// Lines (name, colour, a value for each checkpoint) over training steps, or over the checkpoints in their order where some do not say their step.
fn over_checkpoints(found: &DynamicsResult, label: &str, lines: Vec<(String, usize, Vec<Option<Interval>>)>) -> Chart {
    let steps: Vec<Option<u64>> =
        found.checkpoints.iter().map(|c| c.model.run.as_ref().and_then(|run| run.step)).collect();
    // A first model that belongs to no run is where training began.
    let from_start = steps.iter().enumerate().map(|(i, step)| step.or((i == 0).then_some(0)));
    let known: Option<Vec<u64>> = from_start.collect();
    let rising = known.filter(|steps| steps.windows(2).all(|pair| pair[0] < pair[1]));
    let place = |i: usize| rising.as_ref().map_or((i + 1) as f64, |steps| steps[i] as f64);
    let line = |(name, colour, values): (String, usize, Vec<Option<Interval>>)| {
        let point = |(i, value): (usize, Option<Interval>)| {
            let Interval { value, low, high } = value?;
            Some(Point::new(place(i), value).with(Some((low, high))))
        };
        Series { name, colour, mark: Mark::Line, points: values.into_iter().enumerate().filter_map(point).collect() }
    };
    let x = Axis { label: if rising.is_some() { "training step" } else { "checkpoint" }.into(), ..Axis::steps() };
    Chart::new(x, Axis::from_zero(label), lines.into_iter().map(line).collect())
}

/// The checkpoints' own responses under the base and under themselves; `None` if there are none.
fn on_policy(found: &DynamicsResult) -> Option<Chart> {
    let line = |name: &str, colour: usize, of: fn(&OnPolicyResult) -> Interval| {
        let values = found.checkpoints.iter().map(|checkpoint| checkpoint.on_policy.as_ref().map(of)).collect();
        (name.to_string(), colour, values)
    };
    let lines = vec![
        line("under the base", 0, |own| own.base.whole.nats_per_token),
        line("under itself", 1, |own| own.own.nats_per_token),
    ];
    found.checkpoints.iter().any(|c| c.on_policy.is_some()).then(|| over_checkpoints(found, "nats per token", lines))
}

/// The outline of the histogram of each set.
fn histogram(found: &DynamicsResult) -> Chart {
    let outline = |(i, set): (usize, &SampleSetResult)| {
        let share = |n: usize| n as f64 / set.perplexity.whole.responses.max(1) as f64;
        let heights = set.perplexity.histogram.iter().map(|&n| share(n)).chain([0.0]);
        let points = found.bin_edges.iter().zip(heights).map(|(&x, y)| Point::new(x, y)).collect();
        Series { name: set.name.clone(), colour: i % COLOURS, mark: Mark::Steps, points }
    };
    let series = found.regimes.iter().chain(&found.priors).enumerate().map(outline).collect();
    Chart::new(Axis::from_zero("nats per token"), Axis::from_zero("share of responses"), series)
}

/// The change of v by the step of Adam on u against the perplexity of u under the base.
fn change_and_perplexity(measurement: &DynamicsMeasurement) -> Chart {
    let DynamicsMeasurement { found, pairs } = measurement;
    let last = found.checkpoints.len().saturating_sub(1);
    let dots = |regime: &SampleSetResult| {
        let own = pairs.iter().filter(|pair| pair.checkpoint == last && pair.regime == regime.name);
        let points = own.map(|pair| Point::new(pair.u_perplexity(), pair.influence.adam_change)).collect();
        Series { name: regime.name.clone(), colour: colour(&found.regimes, &regime.name), mark: Mark::Dots, points }
    };
    let series = found.regimes.iter().map(dots).collect();
    let (x, y) = (Axis::new("u under the base (nats per token)"), Axis::new("change of v (nats)"));
    Chart::new(x, y, series)
}

fn distance(found: &DynamicsResult) -> Option<Chart> {
    let kl = found.kl.as_ref()?;
    let dot = |(i, point): (usize, &KlPoint)| {
        let points = vec![Point::new(point.per_token, 100.0 * point.forgetting)];
        Series { name: point.model.clone(), colour: i % COLOURS, mark: Mark::Dots, points }
    };
    let series = kl.points.iter().enumerate().map(dot).collect();
    Some(Chart::new(Axis::new("KL(base || tuned), nats per token"), Axis::new("mean loss (points)"), series))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamics::fixtures::{dynamics, pairs};

    #[test]
    fn the_section_shows_magnitude_over_steps_perplexity_and_direction() {
        let pairs = pairs();
        let measurement = DynamicsMeasurement { found: dynamics(&pairs), pairs };
        let seen = view(&measurement);
        let titles: Vec<&str> = seen["charts"].as_array().unwrap().iter().filter_map(|c| c["title"].as_str()).collect();
        let expected =
            ["Magnitude", "A step of Adam", "Perplexity under the base", "Direction", "Direction and perplexity"];
        assert_eq!(titles, expected);
        let chart = over_checkpoints(&measurement.found, "LBK", of_regimes(&measurement.found, |s| s.lbk));
        assert_eq!(chart.x.label, "training step");
        let points: Vec<(f64, f64)> = chart.series[1].points.iter().map(|p| (p.x, p.y)).collect();
        assert!(points[0].0 == 0.0 && points[1].0 == 100.0 && (points[0].1 - 0.55).abs() < 1e-12, "{points:?}");
        // Two regimes, ten pairs with each of two families, the last checkpoint alone.
        let dots = change_and_perplexity(&measurement);
        assert_eq!(dots.series.iter().map(|s| s.points.len()).collect::<Vec<_>>(), [20, 20]);
        let heights: f64 = histogram(&measurement.found).series[0].points.iter().map(|p| p.y).sum();
        assert!((heights - 1.0).abs() < 1e-12);
        assert_eq!(seen["legend"].as_array().unwrap().len(), 4);
        assert!(!seen.to_string().contains("NaN"));
        assert!(on_policy(&measurement.found).is_none());
        let mut found = measurement.found;
        let (base, own) = (found.regimes[1].perplexity.clone(), found.regimes[0].perplexity.whole.clone());
        found.checkpoints[1].on_policy = Some(OnPolicyResult { base, own });
        let lines = on_policy(&found).unwrap().series;
        assert_eq!(lines.iter().map(|line| line.points.len()).collect::<Vec<_>>(), [1, 1], "only where responses are");
        assert!((lines[0].points[0].y - 0.95).abs() < 1e-12 && lines[0].points[0].x == 100.0, "{lines:?}");
    }

    #[test]
    fn a_single_checkpoint_has_marks_by_family() {
        let pairs: Vec<Pair> = pairs().into_iter().filter(|pair| pair.checkpoint == 0).collect();
        let mut found = dynamics(&pairs);
        found.checkpoints.truncate(1);
        let chart = by_family(&found, &found.checkpoints[0], "LBK", |summary| summary.lbk);
        assert_eq!(chart.categories, ["vqa", "ocr"]);
        assert_eq!(chart.series.iter().map(|s| (s.colour, s.points.len())).collect::<Vec<_>>(), [(0, 2), (1, 2)]);
        let svg = view(&DynamicsMeasurement { found, pairs })["charts"][0]["svg"].to_string();
        assert!(svg.contains("cy="), "{svg}");
    }
}
