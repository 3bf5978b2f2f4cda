//! Which curves of a run are drawn, and how they are labelled.

use super::chart::{Axis, Chart, Figure, Mark, Point, Reference, Series};
use super::discover::TrainRun;
use crate::tasks::Chance;

/// One metric of `metrics.jsonl` and its chart.
struct Metric {
    key: &'static str,
    /// Only runs of this method; empty for all.
    method: &'static str,
    title: &'static str,
    caption: &'static str,
    y: &'static str,
    /// A share of examples or responses: percentages.
    percent: bool,
    from_zero: bool,
    /// Recorded at every step rather than at evaluations.
    noisy: bool,
}

const fn evaluated(key: &'static str, title: &'static str, caption: &'static str, y: &'static str) -> Metric {
    Metric { key, method: "", title, caption, y, percent: true, from_zero: true, noisy: false }
}

const fn stepwise(key: &'static str, title: &'static str, caption: &'static str, y: &'static str) -> Metric {
    Metric { key, method: "", title, caption, y, percent: false, from_zero: true, noisy: true }
}

const fn only(method: &'static str, metric: Metric) -> Metric {
    Metric { method, ..metric }
}

const fn percent(metric: Metric) -> Metric {
    Metric { percent: true, ..metric }
}

const MAIN: [Metric; 4] = [
    evaluated(
        "eval/accuracy",
        "Accuracy",
        "Validation examples answered wholly right, greedy decoding",
        "whole answers right",
    ),
    evaluated(
        "eval/partial_credit",
        "Partial credit",
        "Validation examples, mean share of the answer that is right",
        "partial credit",
    ),
    stepwise("reward", "Reward", "Mean over the responses sampled at each step (RFT)", "reward"),
    only(
        "sft",
        stepwise("loss", "SFT loss", "Cross-entropy on the tokens of the reference responses", "loss (nats per token)"),
    ),
];

const MORE: [Metric; 15] = [
    only(
        "rft",
        Metric {
            from_zero: false,
            ..stepwise(
                "loss",
                "GRPO loss",
                "The surrogate: near zero by construction, not a measure of progress",
                "loss",
            )
        },
    ),
    stepwise("reward_partial_credit", "Reward: partial credit", "Mean before weighting (RFT)", "reward"),
    stepwise("reward_accuracy", "Reward: accuracy", "Mean before weighting (RFT)", "reward"),
    stepwise("reward_format", "Reward: format", "Mean before weighting (RFT)", "reward"),
    stepwise(
        "reward_std",
        "Spread of the reward",
        "Standard deviation within a group, mean over groups (RFT)",
        "reward",
    ),
    percent(stepwise(
        "frac_reward_zero_std",
        "Groups without a signal",
        "Groups whose responses all earn the same (RFT)",
        "groups",
    )),
    stepwise("entropy", "Entropy", "Of the next-token distribution, mean over response tokens", "entropy (nats)"),
    stepwise("kl", "KL to the start", "k3 estimate over the sampled tokens (RFT)", "KL (nats per token)"),
    percent(stepwise("clip_ratio", "Clipped tokens", "Tokens whose importance ratio was clipped (RFT)", "tokens")),
    percent(stepwise(
        "format_failures",
        "Format failures",
        "Sampled responses that do not keep the format (RFT)",
        "responses",
    )),
    evaluated(
        "eval/format_failures",
        "Format failures, validation",
        "Validation responses that do not keep the format",
        "responses",
    ),
    stepwise("response_length", "Response length", "Mean over sampled responses (RFT)", "tokens"),
    stepwise("grad_norm", "Gradient norm", "Global norm before clipping", "norm"),
    Metric { noisy: false, ..stepwise("learning_rate", "Learning rate", "As scheduled", "learning rate") },
    stepwise("tokens_per_second", "Throughput", "Tokens in training sequences, prompts included", "tokens per second"),
];

/// The charts that have something to show: the main ones, and the rest.
pub fn curves(runs: &[(&TrainRun, usize)], chance: Option<Chance>) -> (Vec<Figure>, Vec<Figure>) {
    let draw = |metrics: &[Metric], zeros: bool| metrics.iter().filter_map(|m| curve(m, runs, chance, zeros)).collect();
    (draw(&MAIN, true), draw(&MORE, false))
}

/// The chart of one metric. A metric that is zero throughout (no KL, nothing clipped) is left out unless `zeros`.
fn curve(metric: &Metric, runs: &[(&TrainRun, usize)], chance: Option<Chance>, zeros: bool) -> Option<Figure> {
    let of_method = |run: &TrainRun| metric.method.is_empty() || run.method() == metric.method;
    let drawn = |run: &TrainRun| of_method(run) && !repeats_accuracy(run, metric.key);
    let series = runs.iter().filter(|(run, _)| drawn(run)).map(|&(run, colour)| Series {
        name: run.name.clone(),
        colour,
        mark: if metric.noisy { Mark::Smoothed } else { Mark::Line },
        points: points(run, metric.key),
    });
    let series: Vec<Series> = series.collect();
    if !zeros && series.iter().flat_map(|s| &s.points).all(|p| p.y == 0.0 || !p.y.is_finite()) {
        return None;
    }
    let level = match metric.key {
        "eval/accuracy" => chance.map(|c| c.accuracy),
        "eval/partial_credit" => chance.map(|c| c.partial_credit),
        _ => None,
    };
    let label = if metric.percent { format!("{} (%)", metric.y) } else { metric.y.to_string() };
    let y = Axis { percent: metric.percent, from_zero: metric.from_zero, ..Axis::new(&label) };
    let mut chart = Chart::new(Axis::steps(), y, series);
    chart.references.extend(level.map(|level| Reference::Level(level, "chance".into())));
    Figure::new(metric.title, metric.caption, &chart)
}

/// Whether a partial credit is the accuracy again at every step: answers are right or wrong, and the task gives none.
fn repeats_accuracy(run: &TrainRun, key: &str) -> bool {
    let accuracy = match key {
        "eval/partial_credit" => "eval/accuracy",
        "reward_partial_credit" => "reward_accuracy",
        _ => return false,
    };
    run.series(key) == run.series(accuracy) && run.series(key).iter().any(|(_, value)| *value > 0.0)
}

/// The values of a metric. A metric that is recorded with an interval (`<metric>_low`, `<metric>_high`) is drawn with it.
fn points(run: &TrainRun, key: &str) -> Vec<Point> {
    let (low, high) = (run.series(&format!("{key}_low")), run.series(&format!("{key}_high")));
    let at = |ends: &[(f64, f64)], x: f64| ends.iter().find(|(step, _)| *step == x).map(|(_, y)| *y);
    let interval = |x: f64| Some((at(&low, x)?, at(&high, x)?));
    let mut points: Vec<Point> = run.series(key).into_iter().map(|(x, y)| Point::new(x, y).with(interval(x))).collect();
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    points
}
