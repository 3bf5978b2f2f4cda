//! Two measurements of the same objects: the least-squares line, the correlation, and the distance from equality.

use super::intervals::{Interval, nan_if_null};
use super::ols::Ols;
use serde::{Deserialize, Serialize};

/// The least-squares line y = intercept + slope x.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LinearFit {
    /// Points.
    pub n: usize,
    /// Clusters of points that the interval and p are robust to; 0 in files that were written before points were clustered.
    #[serde(default)]
    pub clusters: usize,
    /// Slope, with the cluster-robust interval of [`Ols::fit`] (infinite ends for a single cluster).
    pub slope: Interval,
    /// y at x = 0.
    #[serde(deserialize_with = "nan_if_null")]
    pub intercept: f64,
    /// Share of the variance of y that the line explains.
    #[serde(deserialize_with = "nan_if_null")]
    pub r2: f64,
    /// Spearman's rank correlation; NaN where x or y does not vary.
    #[serde(default = "nan", deserialize_with = "nan_if_null")]
    pub spearman: f64,
    /// Two-sided p-value of a slope of 0; NaN for a single cluster.
    #[serde(deserialize_with = "nan_if_null")]
    pub p: f64,
}

/// What files of before a number was computed have for it.
fn nan() -> f64 {
    f64::NAN
}

impl LinearFit {
    /// The line through `points` (x, y), which come in clusters that `clusters` numbers: the checkpoints of one run, or the runs of one
    /// regime, are not independent. With fewer than two points, or all at the same x, everything is NaN except their number.
    pub fn through(points: &[(f64, f64)], clusters: &[usize]) -> LinearFit {
        let (x, y): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
        let rows: Vec<Vec<f64>> = x.iter().map(|x| vec![1.0, *x]).collect();
        let (n, spearman) = (points.len(), spearman(&x, &y));
        let fit = if n < 2 || Moments::of(points).xx <= 0.0 { None } else { Ols::fit(&rows, &y, clusters) };
        let Some(fit) = fit else {
            let unknown = f64::NAN;
            let slope = Interval::UNKNOWN;
            return LinearFit { n, clusters: 0, slope, intercept: unknown, r2: unknown, spearman, p: unknown };
        };
        let slope = fit.coefficient(1);
        LinearFit {
            n,
            clusters: fit.clusters,
            slope: slope.value,
            intercept: fit.coefficients[0],
            r2: fit.r2,
            spearman,
            p: slope.p,
        }
    }
}

/// Spearman's rank correlation: Pearson's of the ranks, equal values having the mean of their ranks. NaN where x or y does not vary.
fn spearman(x: &[f64], y: &[f64]) -> f64 {
    let points: Vec<(f64, f64)> = ranks(x).into_iter().zip(ranks(y)).collect();
    Agreement::of(&points).correlation
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = |value: &f64| {
        let (below, up_to) = (sorted.partition_point(|x| x < value), sorted.partition_point(|x| x <= value));
        (below + up_to + 1) as f64 / 2.0
    };
    values.iter().map(rank).collect()
}

/// Agreement of two measurements that should be equal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Pairs of measurements.
    pub n: usize,
    /// Pearson's correlation; NaN where one of them does not vary.
    #[serde(deserialize_with = "nan_if_null")]
    pub correlation: f64,
    /// Root mean square of their difference / root mean square of both; 0 for equal ones, 2 for opposite ones.
    #[serde(deserialize_with = "nan_if_null")]
    pub difference: f64,
}

impl Agreement {
    /// The agreement of pairs (x, y).
    pub fn of(points: &[(f64, f64)]) -> Agreement {
        let moments = Moments::of(points);
        let difference: f64 = points.iter().map(|(x, y)| (x - y).powi(2)).sum();
        let both: f64 = points.iter().map(|(x, y)| 0.5 * (x * x + y * y)).sum();
        Agreement {
            n: points.len(),
            correlation: moments.xy / (moments.xx.sqrt() * moments.yy.sqrt()),
            difference: (difference / both).sqrt(),
        }
    }
}

/// Sums of squares and products about the means.
struct Moments {
    xx: f64,
    xy: f64,
    yy: f64,
}

impl Moments {
    fn of(points: &[(f64, f64)]) -> Moments {
        let n = points.len() as f64;
        let (x, y) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
        let sum = |of: fn(f64, f64) -> f64| points.iter().map(|p| of(p.0 - x, p.1 - y)).sum();
        Moments { xx: sum(|x, _| x * x), xy: sum(|x, y| x * y), yy: sum(|_, y| y * y) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture;

    fn near(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-9 * expected.abs().max(1.0), "{got} is not {expected}");
    }

    #[test]
    fn lines_have_the_clustered_slope_of_statsmodels_and_the_rank_correlation_of_scipy() {
        for case in fixture::cases("line") {
            let points: Vec<(f64, f64)> =
                fixture::numbers(&case, "x").into_iter().zip(fixture::numbers(&case, "y")).collect();
            let clusters: Vec<usize> = fixture::numbers(&case, "clusters").iter().map(|&c| c as usize).collect();
            let line = LinearFit::through(&points, &clusters);
            for (name, value) in [
                ("slope", line.slope.value),
                ("low", line.slope.low),
                ("high", line.slope.high),
                ("intercept", line.intercept),
                ("p", line.p),
                ("r2", line.r2),
                ("spearman", line.spearman),
            ] {
                fixture::close(value, fixture::number(&case, name), name);
            }
            near(Agreement::of(&points).correlation.powi(2), line.r2);
        }
    }

    #[test]
    fn points_on_a_line_are_explained_wholly_and_one_cluster_proves_nothing() {
        let on = [(0.0, 1.0), (1.0, -1.0), (3.0, -5.0)];
        let line = LinearFit::through(&on, &[0, 1, 2]);
        near(line.slope.value, -2.0);
        near(line.intercept, 1.0);
        near(line.r2, 1.0);
        near(line.spearman, -1.0);
        let two = LinearFit::through(&[(0.0, 1.0), (1.0, 3.0)], &[0, 1]);
        assert_eq!((two.slope.low, two.slope.high), (f64::NEG_INFINITY, f64::INFINITY));
        near(two.slope.value, 2.0);
        assert!(two.p.is_nan());
        let together = LinearFit::through(&[(0.0, 1.0), (1.0, 3.0), (2.0, 2.0)], &[7, 7, 7]);
        assert!(together.clusters == 1 && together.slope.high == f64::INFINITY && together.p.is_nan());
        for few in [&[][..], &[(1.0, 1.0)], &[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]] {
            let line = LinearFit::through(few, &vec![0; few.len()]);
            assert!(line.n == few.len() && line.slope.value.is_nan() && line.r2.is_nan(), "{line:?}");
        }
    }

    #[test]
    fn agreement_sees_scale_where_correlation_does_not() {
        let same = Agreement::of(&[(1.0, 1.0), (-2.0, -2.0), (0.5, 0.5)]);
        assert_eq!((same.n, same.difference), (3, 0.0));
        near(same.correlation, 1.0);
        let double = Agreement::of(&[(1.0, 2.0), (-2.0, -4.0), (0.5, 1.0)]);
        near(double.correlation, 1.0);
        near(double.difference, (1.0_f64 / 2.5).sqrt());
        let opposite = Agreement::of(&[(1.0, -1.0), (-2.0, 2.0)]);
        near(opposite.correlation, -1.0);
        near(opposite.difference, 2.0);
        assert!(Agreement::of(&[(1.0, 1.0)]).correlation.is_nan());
    }
}
