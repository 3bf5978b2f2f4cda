//! The mean change over strata (benchmarks), from the differences of clusters of pairs.
//!
//! A change of answers is rare. In a stratum where all pairs are equal, and in one where few differ, the spread of the differences says too
//! little about new pairs. The variance therefore holds one unseen loss and one unseen gain besides, in the manner of the adjusted Wald
//! interval of paired proportions (Bonett and Price 2012, Journal of Educational and Behavioral Statistics 37:479-488; Agresti and Min 2005,
//! Statistics in Medicine 24:729-740). They are added once for the whole mean, in the stratum whose clusters weigh most (as Fay and Feuer
//! 1997, Statistics in Medicine 16:791-801, bound a weighted sum of rates), and not once for each stratum: the chance that nothing was seen
//! falls with the number of pairs in all strata together. `docs/forgetting.md` has the coverage of the intervals.

use super::clustered::{ClusterTotal, Estimate, agree};
use super::intervals::Interval;
use super::mcnemar::mcnemar;
use super::student::{student_t_quantile, student_t_two_sided};

/// What a cluster contributes to a mean change.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Contribution {
    /// The part of the mean change that its pairs make; the mean change is the sum over all clusters.
    pub change: f64,
    /// Its weight: the part that its pairs would make if each changed by 1.
    pub size: f64,
    /// By how much `change` deviates from that of a cluster of this size that changes like the stratum. The squares are scaled to add up to
    /// the variance of the mean.
    pub deviation: f64,
}

impl Contribution {
    /// This and another one as one cluster.
    pub fn and(self, other: Contribution) -> Contribution {
        Contribution {
            change: self.change + other.change,
            size: self.size + other.size,
            deviation: self.deviation + other.deviation,
        }
    }

    /// This one, counting so many times.
    pub fn times(self, weight: f64) -> Contribution {
        Contribution { change: weight * self.change, size: weight * self.size, deviation: weight * self.deviation }
    }

    /// -1, 0 or 1. What rounding leaves of differences that cancel is no change.
    fn sign(self) -> i8 {
        match self.change {
            change if change.abs() <= 1e-9 * self.size => 0,
            change if change < 0.0 => -1,
            _ => 1,
        }
    }
}

/// Clusters that are alike and independent, and independent of those in other strata.
#[derive(Debug, Clone, PartialEq)]
pub struct Stratum {
    /// The clusters.
    pub clusters: Vec<Contribution>,
    /// Degrees of freedom of the variance.
    pub degrees: f64,
}

impl Stratum {
    /// A stratum whose mean difference counts `weight` times in the mean. The variance is cluster-robust, with the CR1 factor G / (G - 1) for
    /// G clusters.
    pub fn new(totals: &[ClusterTotal], weight: f64) -> Stratum {
        let clusters = totals.len() as f64;
        let (sum, count) = totals.iter().fold((0.0, 0.0), |(s, c), total| (s + total.0, c + total.1));
        let scale = if clusters > 1.0 { (clusters / (clusters - 1.0)).sqrt() } else { 0.0 };
        let of = |&(own, n): &ClusterTotal| Contribution {
            change: weight * own / count,
            size: weight * n / count,
            deviation: scale * weight * (own - sum / count * n) / count,
        };
        Stratum { clusters: totals.iter().map(of).collect(), degrees: clusters - 1.0 }
    }

    /// As [`Stratum::new`], of differences without bounds (nats): every one of them is seen, so no unseen loss or gain is added.
    pub fn unbounded(totals: &[ClusterTotal]) -> Stratum {
        let mut stratum = Stratum::new(totals, 1.0);
        stratum.clusters.iter_mut().for_each(|cluster| cluster.size = 0.0);
        stratum
    }

    /// `clusters` clusters whose change is known to be 0.
    pub fn unchanged(clusters: usize) -> Stratum {
        Stratum { clusters: vec![Contribution::default(); clusters], degrees: f64::INFINITY }
    }

    fn variance(&self) -> f64 {
        self.clusters.iter().map(|cluster| cluster.deviation.powi(2)).sum()
    }

    /// Mean square of the changes of its clusters that changed, and of one more that changes as a whole.
    fn unseen(&self) -> f64 {
        let of = |value: fn(&Contribution) -> f64| self.clusters.iter().map(value).sum::<f64>();
        let (size, squares) = (of(|cluster| cluster.size), of(|cluster| cluster.size.powi(2)));
        if size <= 0.0 {
            return 0.0;
        }
        let changed = self.clusters.iter().filter(|cluster| cluster.sign() != 0).count() as f64;
        // A pair chosen at random lies in a cluster of this size on average.
        (of(|cluster| cluster.change.powi(2)) + (squares / size).powi(2)) / (changed + 1.0)
    }
}

/// Variance of the sum of all changes, without unseen ones, and its degrees of freedom (Welch and Satterthwaite).
fn spread(strata: &[Stratum]) -> (f64, f64) {
    let variances: Vec<(f64, f64)> = strata.iter().map(|stratum| (stratum.variance(), stratum.degrees)).collect();
    let variance: f64 = variances.iter().map(|(own, _)| own).sum();
    let known = variances.iter().filter(|(own, _)| *own > 0.0);
    (variance, variance.powi(2) / known.map(|(own, degrees)| own.powi(2) / degrees).sum::<f64>())
}

/// The mean change: the sum of the changes of all clusters. Its variance is that of the clusters with one unseen loss and one unseen gain, the
/// interval and the p-value are Student's t with the degrees of freedom of Welch and Satterthwaite. NaN without a cluster.
pub fn mean_of_strata(strata: &[Stratum]) -> Estimate {
    if strata.iter().all(|stratum| stratum.clusters.is_empty()) {
        return Estimate { mean: Interval::UNKNOWN, error: f64::NAN, degrees: f64::NAN, p: f64::NAN };
    }
    let value: f64 = strata.iter().flat_map(|stratum| &stratum.clusters).map(|cluster| cluster.change).sum();
    let (seen, degrees) = spread(strata);
    let unseen = strata.iter().map(Stratum::unseen).fold(0.0, f64::max);
    let variance = seen + 2.0 * unseen;
    if variance == 0.0 {
        let mean = Interval { value, low: value, high: value };
        return Estimate { mean, error: 0.0, degrees: f64::INFINITY, p: if value == 0.0 { 1.0 } else { 0.0 } };
    }
    let degrees = if seen > 0.0 { degrees * (variance / seen).powi(2) } else { f64::INFINITY };
    let error = variance.sqrt();
    let half = student_t_quantile(0.975, degrees) * error;
    let mean = Interval { value, low: value - half, high: value + half };
    Estimate { mean, error, degrees, p: student_t_two_sided(value / error, degrees) }
}

/// Clusters that lost, and clusters that gained.
pub fn changed_clusters(strata: &[Stratum]) -> (usize, usize) {
    let clusters = || strata.iter().flat_map(|stratum| &stratum.clusters);
    (clusters().filter(|cluster| cluster.sign() < 0).count(), clusters().filter(|cluster| cluster.sign() > 0).count())
}

/// Mean of differences of values in [0, 1], by cluster: [`mean_of_strata`] of one stratum, cut to [-1, 1]. If all clusters have the same mean,
/// the p-value is that of the exact sign test.
pub fn clustered_difference(totals: &[ClusterTotal]) -> Estimate {
    let estimate = mean_of_strata(&[Stratum::new(totals, 1.0)]);
    let p = match agree(totals) && estimate.mean.value != 0.0 {
        true => mcnemar(0, totals.len()),
        false => estimate.p,
    };
    Estimate { mean: estimate.mean.clip(-1.0, 1.0), p, ..estimate }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{clustered_mean, fixture};

    fn near(got: f64, expected: f64) {
        assert!((got - expected).abs() <= 1e-12 * expected.abs().max(1.0), "{got} is not {expected}");
    }

    /// `n` clusters of `size` equal weights, of which `lost` lose all and `gained` gain all.
    fn stratum(n: usize, lost: usize, gained: usize, weight: f64) -> Stratum {
        let change = |i: usize| if i < lost { -1.0 } else { f64::from(u8::from(i < lost + gained)) };
        Stratum::new(&(0..n).map(|i| (change(i), 1.0)).collect::<Vec<_>>(), weight)
    }

    #[test]
    fn without_unseen_changes_the_test_of_two_means_is_welchs() {
        for case in fixture::cases("welch") {
            let of = |name: &str, sign: f64| {
                let totals: Vec<_> = fixture::numbers(&case, name).iter().map(|v| (sign * v, 1.0)).collect();
                Stratum::new(&totals, 1.0)
            };
            let strata = [of("first", 1.0), of("second", -1.0)];
            let (variance, degrees) = spread(&strata);
            let got = student_t_two_sided(mean_of_strata(&strata).mean.value / variance.sqrt(), degrees);
            fixture::close(got, fixture::number(&case, "p"), "welch");
        }
    }

    #[test]
    fn without_unseen_changes_the_error_of_clusters_equals_statsmodels() {
        for case in fixture::cases("clustered") {
            let clusters: Vec<usize> = fixture::numbers(&case, "clusters").iter().map(|&c| c as usize).collect();
            let totals = crate::stats::totals(fixture::numbers(&case, "values"), &clusters);
            let (variance, degrees) = spread(&[Stratum::new(&totals, 1.0)]);
            fixture::close(variance.sqrt(), fixture::number(&case, "error"), "error");
            near(degrees, clustered_mean(&totals).degrees);
        }
    }

    #[test]
    fn one_unseen_loss_and_one_unseen_gain_are_added_once_for_all_strata() {
        // 8 losses and 3 gains of 100: 100 / 99 (11 - 0.25) + 2, in squares of a pair's weight.
        let one = mean_of_strata(&[stratum(100, 8, 3, 1.0)]);
        near(one.mean.value, -0.05);
        near(one.error, (100.0_f64 / 99.0 * 10.75 + 2.0).sqrt() / 100.0);
        near(one.mean.high, -0.05 + student_t_quantile(0.975, one.degrees) * one.error);
        // Thirteen strata without a change beside it: no more than in one of them.
        let strata: Vec<Stratum> = (0..14)
            .map(|i| if i == 0 { stratum(100, 8, 3, 1.0 / 14.0) } else { stratum(100, 0, 0, 1.0 / 14.0) })
            .collect();
        let all = mean_of_strata(&strata);
        near(14.0 * all.error, one.error);
        assert_eq!(changed_clusters(&strata), (8, 3));
    }

    #[test]
    fn nothing_seen_leaves_room_in_proportion_to_the_heaviest_pair() {
        let half = |strata: &[Stratum]| mean_of_strata(strata).mean.high;
        // 1.96 sqrt(2) = 2.77 pairs: a chance of 6 % to see none of as many.
        let equal = half(&[stratum(50, 0, 0, 0.5), stratum(50, 0, 0, 0.5)]);
        near(equal, 1.959_963_984_540_054 * 2.0_f64.sqrt() / 100.0);
        near(half(&[stratum(1000, 0, 0, 0.5), stratum(50, 0, 0, 0.5)]), equal);
        let none = mean_of_strata(&[Stratum::unchanged(10), Stratum::unchanged(3)]);
        assert_eq!((none.mean, none.p), (Interval { value: 0.0, low: 0.0, high: 0.0 }, 1.0));
        assert!(mean_of_strata(&[]).mean.value.is_nan());
    }

    #[test]
    fn an_unseen_change_is_as_large_as_the_seen_ones() {
        // Graded scores that all change by about 0.1: (100 x 0.01 + 1) / 101 in squares of a pair's weight.
        let totals: Vec<ClusterTotal> = (0..100).map(|i| (if i % 2 == 0 { 0.1 } else { -0.1 }, 1.0)).collect();
        let got = mean_of_strata(&[Stratum::new(&totals, 1.0)]);
        near(got.error, (100.0_f64 / 99.0 + 2.0 * 2.0 / 101.0).sqrt() / 100.0);
    }

    #[test]
    fn agreement_is_no_certainty() {
        let lost = clustered_difference(&[(-2.0, 2.0); 12]);
        assert_eq!((lost.mean.value, lost.mean.low), (-1.0, -1.0));
        assert!(lost.mean.high > -1.0 && lost.mean.high < -0.5, "{}", lost.mean.high);
        near(lost.p, 2.0 * 0.5_f64.powi(12));
        let none = clustered_difference(&[(0.0, 3.0); 12]);
        assert!((none.mean.value, none.p) == (0.0, 1.0) && none.mean.low < 0.0 && none.mean.high > 0.0);
        // A single pair in [-1, 1] has an interval, however wide.
        let pair = clustered_difference(&[(-1.0, 1.0)]);
        assert!(pair.mean.low == -1.0 && (pair.p - 1.0).abs() < 1e-12, "{pair:?}");
    }
}
