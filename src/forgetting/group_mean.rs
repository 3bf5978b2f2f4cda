//! The mean over several benchmarks: a family, or all of them. Each benchmark counts once, however many examples it has.

use super::change::{ChangeStats, IntervalMethod, possible_change, retention};
use super::overlap::overlap_groups;
use crate::stats::{Interval, Stratum, changed_clusters, mcnemar, mean_of_strata, nan_if_null};
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
    /// Mean of the changes, its interval cut to what the base's score leaves possible.
    pub change: Interval,
    /// Two-sided p-value of a mean change of 0.
    #[serde(deserialize_with = "nan_if_null")]
    pub p: f64,
    /// How the interval and p are computed.
    pub method: IntervalMethod,
    /// Questions whose score fell. A question in both styles counts once, and so do all questions about one image.
    pub worse: usize,
    /// Questions whose score rose.
    pub better: usize,
    /// Two-sided p-value of as many falling as rising: the exact sign test over the questions that changed.
    #[serde(deserialize_with = "nan_if_null")]
    pub p_sign: f64,
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
        if all.is_empty() {
            return None;
        }
        let mean = |of: fn(&ChangeStats) -> f64| all.iter().map(|x| of(x)).sum::<f64>() / m;
        let lenient_base = mean(|x| x.change.base.lenient.value);
        let base = mean(|x| x.change.base.value.value);
        let (mut strict, mut lenient, mut units) = (Vec::new(), Vec::new(), Vec::new());
        for group in overlap_groups(&all) {
            strict.push(group.strict);
            lenient.push(group.lenient);
            units.push(group.units);
        }
        let (worse, better) = changed_clusters(&strict);
        // One benchmark has the intervals of its own.
        let (change, p, method, lenient_change, retention) = match all.as_slice() {
            [one] => {
                let own = &one.change;
                (own.change, own.p, own.method, own.lenient_change, own.retention)
            }
            _ => {
                let ((change, p), (lenient_change, _)) =
                    (mean_change(&strict, base), mean_change(&lenient, lenient_base));
                (change, p, IntervalMethod::Mean, lenient_change, retention(&units, base, change))
            }
        };
        Some(GroupMean {
            name: name.to_string(),
            benchmarks: members.iter().map(|(name, _)| name.to_string()).collect(),
            n: all.iter().map(|x| x.change.n).sum(),
            base,
            tuned: mean(|x| x.change.tuned.value.value),
            change,
            p,
            method,
            worse,
            better,
            p_sign: mcnemar(better, worse),
            retention,
            lenient_change,
            unparsed: (mean(|x| x.change.base.unparsed), mean(|x| x.change.tuned.unparsed)),
            malformed: (mean(|x| x.change.base.malformed), mean(|x| x.change.tuned.malformed)),
            tokens: (mean(|x| x.change.base.tokens), mean(|x| x.change.tuned.tokens)),
        })
    }
}

/// The mean change with its p-value; `base` is the mean of the base's scores.
pub(super) fn mean_change(strata: &[Stratum], base: f64) -> (Interval, f64) {
    let estimate = mean_of_strata(strata);
    (possible_change(estimate.mean, base), estimate.p)
}
