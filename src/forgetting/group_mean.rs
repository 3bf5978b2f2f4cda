//! The mean over several benchmarks: a family, or all of them. Each benchmark counts once, however many examples it has.

use super::change::{ChangeStats, IntervalMethod, retention};
use super::overlap::overlap_groups;
use crate::stats::{Interval, mean_is_zero, mean_of_intervals, nan_if_null};
use serde::{Deserialize, Serialize};

/// Mean change over benchmarks. Its interval is for new examples of these benchmarks, not for other benchmarks. An example that several
/// of them share (the same question in two styles) is one observation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupMean {
    /// Name of the family; `all` for the mean over everything.
    pub name: String,
    /// The benchmarks in it.
    pub benchmarks: Vec<String>,
    /// Pairs of responses in all.
    pub n: usize,
    /// Mean of the base's scores.
    #[serde(deserialize_with = "nan_if_null")]
    pub base: f64,
    /// Mean of the tuned model's scores.
    #[serde(deserialize_with = "nan_if_null")]
    pub tuned: f64,
    /// Mean of the changes.
    pub change: Interval,
    /// Two-sided p-value of a mean change of 0.
    #[serde(deserialize_with = "nan_if_null")]
    pub p: f64,
    /// How the interval and p are computed.
    pub method: IntervalMethod,
    /// Share retained: mean score of the tuned model / that of the base.
    pub retention: Interval,
    /// Mean of the lenient changes.
    pub lenient_change: Interval,
    /// Mean share of responses that cannot be parsed: base, tuned.
    pub unparsed: (f64, f64),
    /// Mean share of responses that break the format: base, tuned.
    pub malformed: (f64, f64),
    /// Mean tokens of a response: base, tuned.
    pub tokens: (f64, f64),
}

impl GroupMean {
    /// The mean over benchmarks, each with its name; `None` for no benchmarks.
    pub(super) fn of(name: &str, members: &[(&str, &ChangeStats)]) -> Option<GroupMean> {
        let all: Vec<&ChangeStats> = members.iter().map(|(_, m)| *m).collect();
        let m = all.len() as f64;
        let first = all.first()?;
        let mean = |of: fn(&ChangeStats) -> f64| all.iter().map(|x| of(x)).sum::<f64>() / m;
        let overlap_groups = overlap_groups(&all);
        let estimates: Vec<_> = overlap_groups.iter().map(|overlap_group| overlap_group.estimate).collect();
        let lenient: Vec<Interval> = overlap_groups.iter().map(|overlap_group| overlap_group.lenient).collect();
        // A overlap_group is the sum of its benchmarks.
        let of_blocks = |sums: &[Interval]| {
            let (mean, scale) = (mean_of_intervals(sums), sums.len() as f64 / m);
            Interval { value: scale * mean.value, low: scale * mean.low, high: scale * mean.high }
        };
        let change = of_blocks(&estimates.iter().map(|e| e.mean).collect::<Vec<_>>());
        let (base, units) =
            (mean(|x| x.change.base.value.value), overlap_groups.into_iter().map(|overlap_group| overlap_group.units));
        let single = all.len() == 1;
        Some(GroupMean {
            name: name.to_string(),
            benchmarks: members.iter().map(|(name, _)| name.to_string()).collect(),
            n: all.iter().map(|x| x.change.n).sum(),
            base,
            tuned: mean(|x| x.change.tuned.value.value),
            change,
            p: if single { first.change.p } else { mean_is_zero(&estimates) },
            method: if single { first.change.method } else { IntervalMethod::Mean },
            retention: if single {
                first.change.retention
            } else {
                retention(&units.collect::<Vec<_>>(), base, change)
            },
            lenient_change: of_blocks(&lenient),
            unparsed: (mean(|x| x.change.base.unparsed), mean(|x| x.change.tuned.unparsed)),
            malformed: (mean(|x| x.change.base.malformed), mean(|x| x.change.tuned.malformed)),
            tokens: (mean(|x| x.change.base.tokens), mean(|x| x.change.tuned.tokens)),
        })
    }
}
