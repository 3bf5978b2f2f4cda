//! The section about learning dynamics: what training data does to prior knowledge, a step at a time.

use super::bars::{self, Bar, Bars};
use super::chart::{Chart, Point, Series};
use super::plane::{Marks, Plane};
use crate::dynamics::{
    CheckpointResult, DynamicsResult, Pair, PairSummary, SampleSetResult, divergence, influence_over_checkpoints,
    influence_table, likelihood, notes,
};
use crate::forgetting::brief;
use crate::stats::Interval;
use crate::stats::table::Table;
use serde_json::{Value, json};

/// Colours that the page has.
const COLOURS: usize = 8;

/// A measurement with its pairs.
#[derive(Debug)]
pub struct Measurement {
    /// What was found.
    pub found: DynamicsResult,
    /// The pairs, under all checkpoints.
    pub pairs: Vec<Pair>,
}

/// The values of the page's template. The regimes have colours of their own, listed in the section.
pub fn view(measurement: &Measurement) -> Value {
    let found = &measurement.found;
    let sets = found.regimes.iter().chain(&found.priors).enumerate();
    let legend: Vec<Value> = sets.map(|(i, set)| json!({"name": set.name, "colour": i % COLOURS})).collect();
    let setting = &found.setting;
    let kl = found.kl.as_ref().map(|kl| {
        let (table, lines) = divergence(kl);
        json!({"table": grid(&table), "lines": lines})
    });
    let tables = found.checkpoints.iter().map(|checkpoint| {
        json!({"name": checkpoint.model.name, "provenance": checkpoint.model.provenance(), "table": grid(&influence_table(checkpoint))})
    });
    json!({
        "base": found.base.name,
        "base_hash": brief(&found.base.hash),
        "setting": format!("eta {}, {:?} loss, up to {} pairs of each regime with each family, seed {}", setting.eta, setting.loss, setting.pairs, setting.seed).to_lowercase(),
        "legend": legend,
        "notices": notes(found),
        "charts": charts(measurement),
        "likelihood": grid(&likelihood(found)),
        "over_checkpoints": influence_over_checkpoints(found).as_ref().map(grid),
        "checkpoints": tables.collect::<Vec<_>>(),
        "kl": kl,
    })
}

fn grid(table: &Table) -> Value {
    json!({"header": table.header, "rows": table.rows})
}

fn charts(measurement: &Measurement) -> Vec<Value> {
    let found = &measurement.found;
    let figure = |title: &str, caption: &str, svg: Option<String>| {
        svg.map(|svg| json!({"title": title, "caption": caption, "svg": svg}))
    };
    let last = found.checkpoints.last();
    let magnitude = match found.checkpoints.len() {
        0 | 1 => last.and_then(|c| bars::svg(&by_family(found, c, |cell| cell.lbk), "LBK")),
        _ => over_checkpoints(found).svg(),
    };
    let change =
        last.and_then(|c| bars::svg(&by_family(found, c, |cell| cell.change), "change of log-likelihood (nats)"));
    let figures = [
        figure(
            "Magnitude",
            "LBK, lower bound of the kernel's squared norm between training data and prior knowledge, with 95 % intervals",
            magnitude,
        ),
        figure(
            "Perplexity under the base",
            "Share of the responses of each set, by nats per token",
            histogram(found).svg(),
        ),
        figure(
            "Direction",
            "Change of prior knowledge after one step on training data, under the last checkpoint, with 95 % intervals",
            change,
        ),
        figure(
            "Symmetry",
            "A dot a pair, under the last checkpoint: to first order both changes are the same (dashed)",
            symmetry(measurement).svg(),
        ),
        figure(
            "Distance and forgetting",
            "A dot a model: KL(base || tuned) on the new task's prompts, and the mean loss of prior knowledge",
            distance(found).and_then(|plane| plane.svg()),
        ),
    ];
    figures.into_iter().flatten().collect()
}

fn colour(sets: &[SampleSetResult], name: &str) -> usize {
    sets.iter().position(|set| set.name == name).unwrap_or(0) % COLOURS
}

/// A group of bars for each prior family, a bar a regime.
fn by_family(found: &DynamicsResult, checkpoint: &CheckpointResult, of: fn(&PairSummary) -> Interval) -> Vec<Bars> {
    let group = |prior: &SampleSetResult| {
        let cells = checkpoint.summaries.iter().filter(|cell| cell.prior.as_deref() == Some(&prior.name));
        let bar = |cell: &PairSummary| {
            let Interval { value, low, high } = of(cell);
            Bar {
                name: cell.regime.clone(),
                colour: colour(&found.regimes, &cell.regime),
                value,
                interval: (low, high),
            }
        };
        Bars { name: prior.name.clone(), bars: cells.map(bar).collect() }
    };
    found.priors.iter().map(group).collect()
}

/// LBK by regime over training steps, or over the checkpoints in their order where some do not say their step.
fn over_checkpoints(found: &DynamicsResult) -> Chart {
    let steps: Vec<Option<u64>> =
        found.checkpoints.iter().map(|c| c.model.run.as_ref().and_then(|run| run.step)).collect();
    // A first model that belongs to no run is where training began.
    let from_start = steps.iter().enumerate().map(|(i, step)| step.or((i == 0).then_some(0)));
    let known: Option<Vec<u64>> = from_start.collect();
    let rising = known.filter(|steps| steps.windows(2).all(|pair| pair[0] < pair[1]));
    let place = |i: usize| rising.as_ref().map_or((i + 1) as f64, |steps| steps[i] as f64);
    let line = |regime: &SampleSetResult| {
        let point = |(i, checkpoint): (usize, &CheckpointResult)| {
            let cell = checkpoint.overall().find(|cell| cell.regime == regime.name)?;
            Some(Point { x: place(i), y: cell.lbk.value, interval: Some((cell.lbk.low, cell.lbk.high)) })
        };
        Series {
            name: regime.name.clone(),
            colour: colour(&found.regimes, &regime.name),
            points: found.checkpoints.iter().enumerate().filter_map(point).collect(),
        }
    };
    Chart {
        x_label: if rising.is_some() { "training step" } else { "checkpoint" }.into(),
        y_label: "LBK".into(),
        x_percent: false,
        percent: false,
        from_zero: true,
        noisy: false,
        reference: None,
        series: found.regimes.iter().map(line).collect(),
    }
}

/// The outline of each set's histogram.
fn histogram(found: &DynamicsResult) -> Plane {
    let line = |(i, set): (usize, &SampleSetResult)| {
        let share = |n: usize| n as f64 / set.perplexity.responses.max(1) as f64;
        let heights = set.perplexity.histogram.iter().map(|&n| share(n)).chain([0.0]);
        let points = found.edges.iter().zip(heights).map(|(&x, y)| Point { x, y, interval: None });
        Series { name: set.name.clone(), colour: i % COLOURS, points: points.collect() }
    };
    let series = found.regimes.iter().chain(&found.priors).enumerate().map(line).collect();
    Plane::new("nats per token", "share of responses", Marks::Steps, series)
}

fn symmetry(measurement: &Measurement) -> Plane {
    let Measurement { found, pairs } = measurement;
    let last = found.checkpoints.len().saturating_sub(1);
    let series = |regime: &SampleSetResult| {
        let own = pairs.iter().filter(|pair| pair.checkpoint == last && pair.regime == regime.name);
        let point = |pair: &Pair| Point { x: pair.influence.v_change, y: pair.influence.u_change, interval: None };
        Series {
            name: regime.name.clone(),
            colour: colour(&found.regimes, &regime.name),
            points: own.map(point).collect(),
        }
    };
    let series = found.regimes.iter().map(series).collect();
    Plane::new("change of v by a step on u (nats)", "change of u by a step on v", Marks::Equal, series)
}

fn distance(found: &DynamicsResult) -> Option<Plane> {
    let kl = found.kl.as_ref()?;
    let series = |(i, point): (usize, &crate::dynamics::KlPoint)| Series {
        name: point.model.clone(),
        colour: i % COLOURS,
        points: vec![Point { x: point.per_token, y: 100.0 * point.forgetting, interval: None }],
    };
    let series = kl.points.iter().enumerate().map(series).collect();
    Some(Plane::new("KL(base || tuned), nats per token", "mean loss (points)", Marks::Dots, series))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamics::fixtures::{dynamics, pairs};

    #[test]
    fn the_section_shows_magnitude_over_steps_perplexity_direction_and_symmetry() {
        let pairs = pairs();
        let measurement = Measurement { found: dynamics(&pairs), pairs };
        let seen = view(&measurement);
        let titles: Vec<&str> = seen["charts"].as_array().unwrap().iter().filter_map(|c| c["title"].as_str()).collect();
        assert_eq!(titles, ["Magnitude", "Perplexity under the base", "Direction", "Symmetry"]);
        let chart = over_checkpoints(&measurement.found);
        assert_eq!(chart.x_label, "training step");
        let points: Vec<(f64, f64)> = chart.series[1].points.iter().map(|p| (p.x, p.y)).collect();
        assert!(points[0].0 == 0.0 && points[1].0 == 100.0 && (points[0].1 - 0.55).abs() < 1e-12, "{points:?}");
        // Two regimes, ten pairs with each of two families, the last checkpoint alone.
        let dots = symmetry(&measurement);
        assert_eq!(dots.series.iter().map(|s| s.points.len()).collect::<Vec<_>>(), [20, 20]);
        let heights: f64 = histogram(&measurement.found).series[0].points.iter().map(|p| p.y).sum();
        assert!((heights - 1.0).abs() < 1e-12);
        assert_eq!(seen["legend"].as_array().unwrap().len(), 4);
        assert!(!seen.to_string().contains("NaN"));
    }

    #[test]
    fn a_single_checkpoint_has_bars_by_family() {
        let pairs: Vec<Pair> = pairs().into_iter().filter(|pair| pair.checkpoint == 0).collect();
        let mut found = dynamics(&pairs);
        found.checkpoints.truncate(1);
        let groups = by_family(&found, &found.checkpoints[0], |cell| cell.lbk);
        assert_eq!(
            groups.iter().map(|g| (g.name.as_str(), g.bars.len())).collect::<Vec<_>>(),
            [("vqa", 2), ("ocr", 2)]
        );
        assert_eq!((groups[0].bars[0].colour, groups[0].bars[1].colour), (0, 1));
        let svg = view(&Measurement { found, pairs })["charts"][0]["svg"].to_string();
        assert!(svg.contains("<rect"), "{svg}");
    }
}
