//! 95 % intervals of a share (Wilson), of a mean (Student's t), and of the difference of two runs on the same examples (paired t).

use super::student::{student_t_quantile, student_t_two_sided};
use serde::{Deserialize, Serialize};

/// The 0.975 quantile of the standard normal distribution.
pub(super) const Z: f64 = 1.959_963_984_540_054;

/// An estimate with its 95 % confidence interval. Without observations all three numbers are NaN (`null` in JSON).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate.
    #[serde(deserialize_with = "nan_if_null")]
    pub value: f64,
    /// Lower end.
    #[serde(deserialize_with = "nan_if_null")]
    pub low: f64,
    /// Upper end.
    #[serde(deserialize_with = "nan_if_null")]
    pub high: f64,
}

pub(crate) fn nan_if_null<'de, D: serde::Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(d)?.unwrap_or(f64::NAN))
}

impl Interval {
    pub(crate) const UNKNOWN: Interval = Interval { value: f64::NAN, low: f64::NAN, high: f64::NAN };

    /// The interval leaves out 0: a change is shown. An unknown interval shows none.
    pub fn excludes_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }

    /// The same estimate with both ends cut to what is possible, from `low` to `high`. Unknown ends stay unknown, and the estimate stays inside.
    pub fn clip(self, low: f64, high: f64) -> Interval {
        let (low, high) = (low.min(self.value), high.max(self.value));
        let cut = |end: f64| if end.is_nan() || low.is_nan() || high.is_nan() { end } else { end.clamp(low, high) };
        Interval { value: self.value, low: cut(self.low), high: cut(self.high) }
    }
}

/// How one run differs from another on the same examples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Mean of (second - first).
    pub mean: Interval,
    /// Two-sided p-value of the paired t-test (1 if no example differs).
    #[serde(deserialize_with = "nan_if_null")]
    pub p: f64,
}

/// Share `successes / n` with the Wilson score interval (Wilson 1927), which keeps its coverage near 0 and 1.
pub fn share(successes: usize, n: usize) -> Interval {
    if n == 0 {
        return Interval::UNKNOWN;
    }
    wilson(successes as f64 / n as f64, n as f64)
}

pub(super) fn wilson(p: f64, n: f64) -> Interval {
    let z2 = Z * Z;
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    // At the ends, rounding must not push the interval off the estimate.
    Interval { value: p, low: (centre - half).max(0.0).min(p), high: (centre + half).min(1.0).max(p) }
}

/// Mean of independent values with Student's t interval on n - 1 degrees of freedom. The interval of a single value is infinite.
pub fn mean(values: &[f64]) -> Interval {
    let n = values.len() as f64;
    if values.is_empty() {
        return Interval::UNKNOWN;
    }
    let value = values.iter().sum::<f64>() / n;
    if values.len() == 1 {
        return Interval { value, low: f64::NEG_INFINITY, high: f64::INFINITY };
    }
    let half = student_t_quantile(0.975, n - 1.0) * standard_error(values, value);
    Interval { value, low: value - half, high: value + half }
}

/// Mean of values that lie in [0, 1] (partial credit). Student's t interval cut to [0, 1]; where the values all agree, and
/// their spread says nothing about the next one, the wider Wilson interval of a share with that mean.
pub fn unit_mean(values: &[f64]) -> Interval {
    if values.windows(2).all(|pair| pair[0] == pair[1]) {
        return match values.first() {
            Some(&value) => wilson(value.clamp(0.0, 1.0), values.len() as f64),
            None => Interval::UNKNOWN,
        };
    }
    let Interval { value, low, high } = mean(values);
    Interval { value, low: low.max(0.0), high: high.min(1.0) }
}

/// Mean of `second - first` over the same examples in the same order, with Student's t interval and p-value.
/// `None` if the lengths differ or there are fewer than two examples.
pub fn paired_difference(first: &[f64], second: &[f64]) -> Option<Difference> {
    if first.len() != second.len() || first.len() < 2 {
        return None;
    }
    let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| b - a).collect();
    let interval = mean(&differences);
    let error = standard_error(&differences, interval.value);
    let p = if error == 0.0 {
        if interval.value == 0.0 { 1.0 } else { 0.0 }
    } else {
        student_t_two_sided(interval.value / error, differences.len() as f64 - 1.0)
    };
    Some(Difference { mean: interval, p })
}

/// Bessel's standard deviation / sqrt(n), for two or more values.
fn standard_error(values: &[f64], mean: f64) -> f64 {
    let n = values.len() as f64;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: Interval, value: f64, low: f64, high: f64) {
        for (got, expected) in [(got.value, value), (got.low, low), (got.high, high)] {
            assert!((got - expected).abs() <= 1e-10, "{got} is not {expected}");
        }
    }

    #[test]
    fn shares_have_the_wilson_interval_of_statsmodels() {
        // statsmodels 0.15.0: statsmodels.stats.proportion.proportion_confint(k, n, alpha=0.05, method="wilson")
        for (k, n, low, high) in WILSON {
            close(share(k, n), k as f64 / n as f64, low, high);
        }
    }

    #[test]
    fn means_have_scipys_t_interval() {
        // x = ...; scipy.stats.t.interval(0.95, len(x) - 1, loc=x.mean(), scale=scipy.stats.sem(x))
        let (value, low, high) = MEAN;
        close(mean(&X), value, low, high);
        close(unit_mean(&X), value, low, high);
    }

    #[test]
    fn paired_runs_have_scipys_paired_t_test() {
        // r = scipy.stats.ttest_rel(y, x); r.pvalue, r.confidence_interval(0.95)
        let (value, low, high, p) = PAIRED;
        let got = paired_difference(&X, &Y).unwrap();
        close(got.mean, value, low, high);
        assert!((got.p - p).abs() <= 1e-10, "{}", got.p);
        assert_eq!(paired_difference(&X, &Y[1..]), None);
        assert_eq!(paired_difference(&X, &X).unwrap().p, 1.0);
    }

    #[test]
    fn an_interval_of_equal_unit_values_is_not_empty_and_stays_in_the_unit() {
        let all = unit_mean(&[1.0; 20]);
        assert_eq!((all.value, all.high), (1.0, 1.0));
        assert!(all.low < 0.9 && all.low > 0.8, "{}", all.low);
        let near = unit_mean(&[1.0, 1.0, 0.75, 1.0]);
        assert!(near.high <= 1.0 && near.low < near.value);
    }

    #[test]
    fn ends_are_cut_to_what_is_possible_and_keep_the_estimate_inside() {
        let wide = Interval { value: 0.0, low: -0.5, high: f64::INFINITY };
        assert_eq!(wide.clip(-0.2, 0.1), Interval { value: 0.0, low: -0.2, high: 0.1 });
        // The bound is off by rounding.
        assert_eq!(wide.clip(1e-17, 0.1).low, 0.0);
        assert!(Interval::UNKNOWN.clip(0.0, 1.0).low.is_nan());
        let bare = Interval { value: 0.3, low: f64::NAN, high: f64::NAN }.clip(0.0, 1.0);
        assert!(bare.value == 0.3 && bare.low.is_nan() && bare.high.is_nan());
    }

    #[test]
    fn nothing_observed_is_unknown_and_survives_json() {
        for unknown in [share(0, 0), mean(&[]), unit_mean(&[])] {
            assert!(unknown.value.is_nan() && unknown.low.is_nan() && unknown.high.is_nan());
            let text = serde_json::to_string(&unknown).unwrap();
            assert_eq!(text, r#"{"value":null,"low":null,"high":null}"#);
            assert!(serde_json::from_str::<Interval>(&text).unwrap().value.is_nan());
        }
    }

    const WILSON: [(usize, usize, f64, f64); 6] = [
        (0, 20, 0.0, 0.1611251580528194),
        (1, 7, 0.02567962434474355, 0.5131278292743189),
        (50, 100, 0.4038315303659956, 0.5961684696340044),
        (199, 200, 0.9722262956021069, 0.9991168312843989),
        (200, 200, 0.9811546736227335, 1.0),
        (3, 1000, 0.0010207838811386195, 0.008783014053503176),
    ];
    const X: [f64; 10] = [0.25, 0.5, 1.0, 0.0, 0.25, 1.0, 0.5, 0.25, 0.0, 0.5];
    const Y: [f64; 10] = [0.5, 0.5, 1.0, 0.25, 0.25, 1.0, 1.0, 0.0, 0.5, 1.0];
    const MEAN: (f64, f64, f64) = (0.425, 0.17138156663598364, 0.6786184333640164);
    const PAIRED: (f64, f64, f64, f64) = (0.175, -0.014453317679580663, 0.36445331767958067, 0.06622864074858156);
}
