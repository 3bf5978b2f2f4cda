//! Means of values that come in clusters (several questions about one image, several responses to one question). A cluster is one
//! observation, however many values it has.

use super::intervals::{Interval, wilson};
use super::student::{student_t_quantile, student_t_two_sided};

/// A mean with the statistics for testing it and for combining it with other means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean with its 95 % interval.
    pub mean: Interval,
    /// Its standard error; NaN for a single cluster.
    pub error: f64,
    /// Degrees of freedom of the standard error.
    pub degrees: f64,
    /// Two-sided p-value of a mean of 0; NaN for a single cluster.
    pub p: f64,
}

/// Sum and number of the values of one cluster.
pub type ClusterTotal = (f64, f64);

/// Sum and number of values of each cluster; `clusters` holds the number of each value's cluster, from 0 on.
pub fn totals(values: impl IntoIterator<Item = f64>, clusters: &[usize]) -> Vec<ClusterTotal> {
    weighted_totals(values.into_iter().map(|value| (value, 1.0)), clusters)
}

/// As [`totals`], of values that are sums over something that is counted, such as the tokens of a response: the sum of the values and of the
/// counts of each cluster.
pub fn weighted_totals(values: impl IntoIterator<Item = ClusterTotal>, clusters: &[usize]) -> Vec<ClusterTotal> {
    let mut totals = vec![(0.0, 0.0); clusters.iter().max().map_or(0, |&last| last + 1)];
    for ((value, count), &cluster) in values.into_iter().zip(clusters) {
        totals[cluster].0 += value;
        totals[cluster].1 += count;
    }
    totals.retain(|&(_, count)| count > 0.0);
    totals
}

/// Mean over all values of all clusters (sum of sums / sum of counts) with the cluster-robust standard error (Liang and Zeger 1986, with the
/// CR1 factor G / (G - 1) for G clusters) and Student's t on G - 1 degrees of freedom. With one value per cluster these are the t interval
/// and t-test of the mean. `count` may be any weight that belongs to the sum, such as the tokens of a response.
///
/// The interval of one cluster is infinite; everything is NaN without a cluster.
pub fn clustered_mean(totals: &[ClusterTotal]) -> Estimate {
    let clusters = totals.len() as f64;
    let (sum, count) = totals.iter().fold((0.0, 0.0), |(s, c), (sum, count)| (s + sum, c + count));
    if totals.is_empty() || count <= 0.0 {
        return Estimate { mean: Interval::UNKNOWN, error: f64::NAN, degrees: f64::NAN, p: f64::NAN };
    }
    let value = sum / count;
    if totals.len() == 1 {
        let mean = Interval { value, low: f64::NEG_INFINITY, high: f64::INFINITY };
        return Estimate { mean, error: f64::NAN, degrees: 0.0, p: f64::NAN };
    }
    let squares: f64 = totals.iter().map(|(sum, count)| (sum - value * count).powi(2)).sum();
    let (error, degrees) = ((clusters / (clusters - 1.0) * squares).sqrt() / count, clusters - 1.0);
    let half = student_t_quantile(0.975, degrees) * error;
    let p = match error {
        0.0 if value == 0.0 => 1.0,
        0.0 => 0.0,
        _ => student_t_two_sided(value / error, degrees),
    };
    Estimate { mean: Interval { value, low: value - half, high: value + half }, error, degrees, p }
}

/// [`clustered_mean`] of values in [0, 1], with the interval cut to [0, 1]. If all clusters have the same mean, it is the Wilson interval of a
/// share among as many observations as clusters.
pub fn clustered_unit_mean(totals: &[ClusterTotal]) -> Interval {
    let mean = clustered_mean(totals).mean;
    if agree(totals) {
        return wilson(mean.value.clamp(0.0, 1.0), totals.len() as f64);
    }
    Interval { low: mean.low.max(0.0), high: mean.high.min(1.0), ..mean }
}

/// All clusters have the same mean.
pub(super) fn agree(totals: &[ClusterTotal]) -> bool {
    !totals.is_empty() && totals.windows(2).all(|pair| pair[0].0 * pair[1].1 == pair[1].0 * pair[0].1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{fixture, mean, paired_difference};

    #[test]
    fn error_interval_and_p_equal_statsmodels_cluster_robust_regression() {
        for case in fixture::cases("clustered") {
            let values = fixture::numbers(&case, "values");
            let clusters: Vec<usize> = fixture::numbers(&case, "clusters").iter().map(|&c| c as usize).collect();
            let got = clustered_mean(&totals(values, &clusters));
            for (name, value) in [
                ("mean", got.mean.value),
                ("error", got.error),
                ("low", got.mean.low),
                ("high", got.mean.high),
                ("p", got.p),
            ] {
                fixture::close(value, fixture::number(&case, name), name);
            }
        }
    }

    #[test]
    fn clusters_of_one_give_the_t_interval_and_the_paired_t_test() {
        let (x, y) = ([0.25, 0.5, 1.0, 0.0, 0.25, 1.0], [0.5, 0.5, 1.0, 0.25, 0.0, 1.0]);
        let all: Vec<usize> = (0..6).collect();
        let got = clustered_mean(&totals(x.iter().zip(&y).map(|(x, y)| y - x), &all));
        let expected = paired_difference(&x, &y).unwrap();
        for (a, b) in [
            (got.mean.value, expected.mean.value),
            (got.mean.low, expected.mean.low),
            (got.mean.high, expected.mean.high),
            (got.p, expected.p),
        ] {
            assert!((a - b).abs() < 1e-14, "{a} {b}");
        }
        assert!((clustered_unit_mean(&totals(x, &all)).high - mean(&x).high.min(1.0)).abs() < 1e-14);
    }

    #[test]
    fn values_that_only_repeat_their_cluster_say_no_more_than_one_of_them() {
        let single = [-1.0, 0.0, 0.0, 1.0, -1.0];
        let one = clustered_mean(&totals(single, &[0, 1, 2, 3, 4]));
        let repeated = single.iter().flat_map(|&v| [v; 7]);
        let clusters: Vec<usize> = (0..5).flat_map(|c| [c; 7]).collect();
        let seven = clustered_mean(&totals(repeated, &clusters));
        assert!((one.mean.low - seven.mean.low).abs() < 1e-12 && (one.p - seven.p).abs() < 1e-12);
    }

    #[test]
    fn agreement_is_no_certainty() {
        let right = clustered_unit_mean(&[(2.0, 2.0); 12]);
        assert!(right.high == 1.0 && right.low < 0.9);
    }

    #[test]
    fn one_cluster_is_no_spread_and_none_is_unknown() {
        let one = clustered_mean(&[(3.0, 4.0)]);
        assert_eq!((one.mean.value, one.mean.high), (0.75, f64::INFINITY));
        assert!(one.p.is_nan());
        assert!(clustered_mean(&[]).mean.value.is_nan());
    }
}
