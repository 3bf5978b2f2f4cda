//! Two measurements of the same objects: the least-squares line, the correlation, and the distance from equality.

use super::intervals::{Interval, nan_if_null};
use super::student::{student_t_quantile, student_t_two_sided};
use serde::{Deserialize, Serialize};

/// The least-squares line y = intercept + slope x.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LinearFit {
    /// Points.
    pub n: usize,
    /// Slope, with Student's t interval on n - 2 degrees of freedom (infinite ends for two points).
    pub slope: Interval,
    /// y at x = 0.
    #[serde(deserialize_with = "nan_if_null")]
    pub intercept: f64,
    /// Share of the variance of y that the line explains.
    #[serde(deserialize_with = "nan_if_null")]
    pub r2: f64,
    /// Two-sided p-value of a slope of 0; NaN for two points.
    #[serde(deserialize_with = "nan_if_null")]
    pub p: f64,
}

impl LinearFit {
    /// The line through `points` (x, y). With fewer than two points, or all at the same x, everything is NaN except their number.
    pub fn through(points: &[(f64, f64)]) -> LinearFit {
        let n = points.len() as f64;
        let moments = Moments::of(points);
        if points.len() < 2 || moments.xx <= 0.0 {
            let unknown = f64::NAN;
            return LinearFit {
                n: points.len(),
                slope: Interval::UNKNOWN,
                intercept: unknown,
                r2: unknown,
                p: unknown,
            };
        }
        let slope = moments.xy / moments.xx;
        let intercept = moments.y - slope * moments.x;
        let residual: f64 = points.iter().map(|(x, y)| (y - intercept - slope * x).powi(2)).sum();
        let r2 = if moments.yy > 0.0 { 1.0 - residual / moments.yy } else { f64::NAN };
        if points.len() == 2 {
            let slope = Interval { value: slope, low: f64::NEG_INFINITY, high: f64::INFINITY };
            return LinearFit { n: 2, slope, intercept, r2, p: f64::NAN };
        }
        let error = (residual / (n - 2.0) / moments.xx).sqrt();
        let half = student_t_quantile(0.975, n - 2.0) * error;
        let p = match error {
            0.0 if slope == 0.0 => 1.0,
            0.0 => 0.0,
            _ => student_t_two_sided(slope / error, n - 2.0),
        };
        let slope = Interval { value: slope, low: slope - half, high: slope + half };
        LinearFit { n: points.len(), slope, intercept, r2, p }
    }
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

/// Means, and sums of squares and products about them.
struct Moments {
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
    yy: f64,
}

impl Moments {
    fn of(points: &[(f64, f64)]) -> Moments {
        let n = points.len() as f64;
        let (x, y) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
        let sum = |of: fn(f64, f64) -> f64| points.iter().map(|p| of(p.0 - x, p.1 - y)).sum();
        Moments { x, y, xx: sum(|x, _| x * x), xy: sum(|x, y| x * y), yy: sum(|_, y| y * y) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-9 * expected.abs().max(1.0), "{got} is not {expected}");
    }

    #[test]
    fn line_and_r_squared_are_those_of_anscombes_first_set() {
        // Anscombe, Graphs in statistical analysis, The American Statistician 27 (1973): y = 3.0001 + 0.5001 x, R^2 = 0.66654,
        // standard error of the slope 0.1179.
        let x = [10.0, 8.0, 13.0, 9.0, 11.0, 14.0, 6.0, 4.0, 12.0, 7.0, 5.0];
        let y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68];
        let points: Vec<(f64, f64)> = x.into_iter().zip(y).collect();
        let line = LinearFit::through(&points);
        assert!((line.slope.value - 0.50009).abs() < 1e-5 && (line.intercept - 3.00009).abs() < 1e-5, "{line:?}");
        assert!((line.r2 - 0.66654).abs() < 1e-5 && (line.p - 0.00217).abs() < 1e-5, "{line:?}");
        let half = 2.262_157 * 0.117_906;
        assert!((line.slope.high - line.slope.value - half).abs() < 1e-4, "{line:?}");
        near(Agreement::of(&points).correlation, line.r2.sqrt());
    }

    #[test]
    fn points_on_a_line_are_explained_wholly_and_two_points_prove_nothing() {
        let line = LinearFit::through(&[(0.0, 1.0), (1.0, -1.0), (3.0, -5.0)]);
        near(line.slope.value, -2.0);
        near(line.intercept, 1.0);
        near(line.r2, 1.0);
        let two = LinearFit::through(&[(0.0, 1.0), (1.0, 3.0)]);
        assert_eq!((two.slope.value, two.slope.low, two.r2), (2.0, f64::NEG_INFINITY, 1.0));
        assert!(two.p.is_nan());
        for few in [&[][..], &[(1.0, 1.0)], &[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]] {
            let line = LinearFit::through(few);
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
