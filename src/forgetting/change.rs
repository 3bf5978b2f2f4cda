//! The change on one set of paired responses, with its interval and its test.

use crate::sampling::ScoredResponse;
use crate::stats::{
    self, ClusterTotal, Interval, ResampleUnit, clustered_difference, clustered_mean, clustered_unit_mean, mcnemar,
    nan_if_null, paired_proportions, totals,
};
use serde::{Deserialize, Serialize};

/// Seed of all bootstraps: the same pairs have the same interval whenever and wherever it is computed.
pub const BOOTSTRAP_SEED: u64 = 0;

/// Scores of one model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ModelScores {
    /// Mean of the score, by the benchmark's published rule.
    pub value: Interval,
    /// Mean of the lenient score: the same scorer, however the answer was wrapped.
    pub lenient: Interval,
    /// Mean score if nothing but the exact form of an answer counts.
    #[serde(default = "nan", deserialize_with = "nan_if_null")]
    pub exact_form: f64,
    /// Share of responses in which no answer could be read.
    #[serde(deserialize_with = "nan_if_null")]
    pub unparsed: f64,
    /// Share of responses that break the requested format, whether or not an answer can be read.
    #[serde(deserialize_with = "nan_if_null")]
    pub malformed: f64,
    /// Share of responses that are parsed and not wholly right.
    #[serde(deserialize_with = "nan_if_null")]
    pub wrong: f64,
    /// Share of responses cut off by the length limit.
    #[serde(deserialize_with = "nan_if_null")]
    pub truncated: f64,
    /// Mean tokens per response, including the end token.
    #[serde(deserialize_with = "nan_if_null")]
    pub tokens: f64,
}

/// What files of before a number was computed have for it.
fn nan() -> f64 {
    f64::NAN
}

/// How the interval and the p-value of a change are computed; `docs/forgetting.md` has the formulas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntervalMethod {
    /// Independent 0/1 scores: Tango's score interval, McNemar's exact test.
    Mcnemar,
    /// Independent graded scores: Student's t of the differences, with one unseen loss and gain.
    T,
    /// Scores that share images or examples: t with the cluster-robust error, with one unseen loss and gain.
    ClusteredT,
    /// Base and tuned model have the same weights and scores: the change is zero by construction, not an estimate.
    Same,
    /// Mean of several benchmarks: t with the cluster-robust error, with one unseen loss and gain; examples that benchmarks share are
    /// clusters.
    Mean,
}

impl IntervalMethod {
    /// In a few words.
    pub fn describe(self) -> &'static str {
        match self {
            IntervalMethod::Mcnemar => "McNemar exact, Tango interval",
            IntervalMethod::T => "paired t",
            IntervalMethod::ClusteredT => "cluster-robust t",
            IntervalMethod::Same => "same weights",
            IntervalMethod::Mean => "mean of benchmarks, cluster-robust t",
        }
    }
}

/// Base against tuned model on one set of examples. Scores are in [0, 1].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Pairs of responses.
    pub n: usize,
    /// Groups of pairs, if the pairs are not independent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters: Option<usize>,
    /// The base model.
    pub base: ModelScores,
    /// The tuned model.
    pub tuned: ModelScores,
    /// Tuned minus base, with the paired 95 % interval, cut to what the base's score leaves possible.
    pub change: Interval,
    /// Two-sided p-value of no change.
    #[serde(deserialize_with = "nan_if_null")]
    pub p: f64,
    /// How the interval and p are computed.
    pub method: IntervalMethod,
    /// Pairs in which the tuned model scores higher.
    pub gained: usize,
    /// Pairs in which it scores lower.
    pub lost: usize,
    /// Share retained: mean score of the tuned model / that of the base, with a BCa bootstrap interval; NaN where the base scores 0.
    pub retention: Interval,
    /// Tuned minus base by the lenient score.
    pub lenient_change: Interval,
}

/// A [`Change`] with the statistics that a mean over benchmarks needs.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeStats {
    /// The change.
    pub change: Change,
    /// The clusters, as the bootstrap draws them.
    pub units: Vec<ResampleUnit>,
    /// Sum and number of the differences of each cluster.
    pub differences: Vec<ClusterTotal>,
    /// The same of the lenient differences.
    pub lenient_differences: Vec<ClusterTotal>,
    /// The cluster of each pair.
    pub clusters: Vec<usize>,
    /// What each cluster may have in common with other benchmarks ([`super::ExampleLabel::shares`]); empty for nothing.
    pub shares: Vec<Vec<String>>,
}

/// Measure the change over `pairs`; `groups` holds the number of each pair's group (any numbers). Pairs of one group are not
/// independent. `same_model`: both sides are the same weights.
pub fn measure(pairs: &[&(ScoredResponse, ScoredResponse)], groups: &[usize], same_model: bool) -> ChangeStats {
    let clusters = dense(groups);
    let count = clusters.iter().max().map_or(0, |&last| last + 1);
    let independent = count == pairs.len();
    let scores =
        |of: fn(&ScoredResponse) -> f64| -> (Vec<f64>, Vec<f64>) { pairs.iter().map(|(a, b)| (of(a), of(b))).unzip() };
    let (base, tuned) = scores(|o| o.score.value);
    let (base_lenient, tuned_lenient) = scores(|o| o.score.lenient);
    let certain = same_model && base == tuned && base_lenient == tuned_lenient;
    let (interval, p, method) = difference(&base, &tuned, &clusters, independent, certain);
    let (lenient_change, ..) = difference(&base_lenient, &tuned_lenient, &clusters, independent, certain);
    let units = units(&base, &tuned, &clusters);
    let side = |values: &[f64], lenient: &[f64], of: fn(&(ScoredResponse, ScoredResponse)) -> &ScoredResponse| {
        let share = |holds: fn(&ScoredResponse) -> bool| {
            pairs.iter().filter(|pair| holds(of(pair))).count() as f64 / pairs.len() as f64
        };
        ModelScores {
            value: mean_score(values, &clusters, independent),
            lenient: mean_score(lenient, &clusters, independent),
            exact_form: pairs.iter().map(|pair| of(pair).score.exact_form()).sum::<f64>() / pairs.len() as f64,
            unparsed: share(|o| !o.score.parsed),
            malformed: share(|o| !o.score.well_formed),
            wrong: share(|o| o.score.parsed && !o.score.correct),
            truncated: share(|o| !o.finished),
            tokens: pairs.iter().map(|pair| of(pair).tokens as f64).sum::<f64>() / pairs.len() as f64,
        }
    };
    let between = |base: &[f64], tuned: &[f64]| totals(base.iter().zip(tuned).map(|(a, b)| b - a), &clusters);
    let (differences, lenient_differences) = (between(&base, &tuned), between(&base_lenient, &tuned_lenient));
    let retention = retention(std::slice::from_ref(&units), mean_of(&units), interval);
    let change = Change {
        n: pairs.len(),
        clusters: (!independent).then_some(count),
        base: side(&base, &base_lenient, |pair| &pair.0),
        tuned: side(&tuned, &tuned_lenient, |pair| &pair.1),
        change: interval,
        p,
        method,
        gained: base.iter().zip(&tuned).filter(|(a, b)| b > a).count(),
        lost: base.iter().zip(&tuned).filter(|(a, b)| b < a).count(),
        retention,
        lenient_change,
    };
    let shares = Vec::new();
    ChangeStats { change, units, differences, lenient_differences, clusters, shares }
}

/// Groups renumbered from 0 in order of appearance.
fn dense(groups: &[usize]) -> Vec<usize> {
    let mut numbers = std::collections::HashMap::new();
    groups
        .iter()
        .map(|group| {
            let next = numbers.len();
            *numbers.entry(*group).or_insert(next)
        })
        .collect()
}

fn binary(values: &[f64]) -> bool {
    values.iter().all(|&v| v == 0.0 || v == 1.0)
}

/// Mean of `tuned - base` with interval and p-value.
fn difference(
    base: &[f64],
    tuned: &[f64],
    clusters: &[usize],
    independent: bool,
    certain: bool,
) -> (Interval, f64, IntervalMethod) {
    if certain {
        return (Interval { value: 0.0, low: 0.0, high: 0.0 }, 1.0, IntervalMethod::Same);
    }
    let before = base.iter().sum::<f64>() / base.len() as f64;
    let differences = || base.iter().zip(tuned).map(|(a, b)| b - a);
    if !(independent && binary(base) && binary(tuned)) {
        let by_spread = clustered_difference(&totals(differences(), clusters));
        let method = if independent { IntervalMethod::T } else { IntervalMethod::ClusteredT };
        return (possible_change(by_spread.mean, before), by_spread.p, method);
    }
    let gained = differences().filter(|d| *d > 0.0).count();
    let lost = differences().filter(|d| *d < 0.0).count();
    let mean = paired_proportions(base.len() as f64, gained as f64, lost as f64);
    (possible_change(mean, before), mcnemar(gained, lost), IntervalMethod::Mcnemar)
}

/// A change with its interval cut to what is possible where the base's mean score is `base`: no more can be lost than was right, and no more
/// gained than was wrong.
pub fn possible_change(change: Interval, base: f64) -> Interval {
    change.clip(-base, 1.0 - base)
}

/// One model's mean score.
fn mean_score(values: &[f64], clusters: &[usize], independent: bool) -> Interval {
    if independent && binary(values) {
        return stats::share(values.iter().filter(|v| **v == 1.0).count(), values.len());
    }
    clustered_unit_mean(&totals(values.iter().copied(), clusters))
}

fn units(base: &[f64], tuned: &[f64], clusters: &[usize]) -> Vec<ResampleUnit> {
    let (first, second) = (totals(base.iter().copied(), clusters), totals(tuned.iter().copied(), clusters));
    first.iter().zip(&second).map(|(a, b)| ResampleUnit { first: a.0, second: b.0, count: a.1 }).collect()
}

/// Share retained: mean over benchmarks of the tuned model's scores / that of the base's. `base` is the latter, `change` the difference of the
/// two. A stratum is a benchmark, or several benchmarks that share examples, with the sum of their means. The interval is cut to what is
/// possible, from 0 to 1 / `base`.
pub fn retention(strata: &[Vec<ResampleUnit>], base: f64, change: Interval) -> Interval {
    let ratio = |means: stats::Means<'_>| {
        let (base, tuned) = means.iter().fold((0.0, 0.0), |(a, b), (first, second)| (a + first, b + second));
        tuned / base
    };
    if base.is_nan() || base <= 0.0 {
        return Interval::UNKNOWN;
    }
    let found = stats::bootstrap(strata, ratio, stats::RESAMPLES, BOOTSTRAP_SEED);
    if found.low == found.high {
        // All resamples are equal if all pairs are (nothing changed, everything lost). New pairs need not be: use the interval of the change.
        let ratio = |end: f64| found.value + (end - change.value) / base;
        return Interval { low: ratio(change.low), high: ratio(change.high), ..found }.clip(0.0, 1.0 / base);
    }
    if found.low.is_finite() && found.high.is_finite() {
        return found.clip(0.0, 1.0 / base);
    }
    // The base is right too rarely to bound the ratio.
    Interval { low: f64::NAN, high: f64::NAN, ..found }
}

/// The base's mean score.
fn mean_of(units: &[ResampleUnit]) -> f64 {
    clustered_mean(&units.iter().map(|unit| (unit.first, unit.count)).collect::<Vec<_>>()).mean.value
}
