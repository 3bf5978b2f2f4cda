//! Several estimates together: adjusted p-values, and the mean of estimates that each have an interval.

use super::intervals::Interval;

/// Holm's step-down adjustment of p-values (Holm 1979, Scandinavian Journal of Statistics 6:65-70). Rejecting every hypothesis whose adjusted
/// p is below 5 % makes any false rejection with a probability of at most 5 %, whatever the dependence between the tests. A NaN stays NaN
/// and does not count as a test.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).filter(|&i| !p[i].is_nan()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![f64::NAN; p.len()];
    let mut largest = 0.0_f64;
    for (rank, &i) in order.iter().enumerate() {
        largest = largest.max((p[i] * (order.len() - rank) as f64).min(1.0));
        adjusted[i] = largest;
    }
    adjusted
}

/// The mean of independent estimates, each counting once, with an interval recovered from their intervals (MOVER: Zou and
/// Donner 2008, Statistics in Medicine 27:1693-1702), which may be asymmetric. The interval of a single estimate is unchanged.
pub fn mean_of_intervals(estimates: &[Interval]) -> Interval {
    let m = estimates.len() as f64;
    if estimates.is_empty() {
        return Interval::UNKNOWN;
    }
    let value = estimates.iter().map(|e| e.value).sum::<f64>() / m;
    let squares = |end: fn(&Interval) -> f64| estimates.iter().map(|e| (e.value - end(e)).powi(2)).sum::<f64>().sqrt();
    Interval { value, low: value - squares(|e| e.low) / m, high: value + squares(|e| e.high) / m }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture;

    #[test]
    fn adjusted_p_values_equal_statsmodels() {
        for case in fixture::cases("holm") {
            let got = holm(&fixture::numbers(&case, "p"));
            for (got, expected) in got.iter().zip(fixture::numbers(&case, "adjusted")) {
                fixture::close(*got, expected, "holm");
            }
        }
        let with_gap = holm(&[0.01, f64::NAN, 0.03]);
        assert!(with_gap[0] == 0.02 && with_gap[1].is_nan() && with_gap[2] == 0.03, "{with_gap:?}");
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn one_interval_stays_itself_and_four_equal_ones_halve() {
        let one = Interval { value: -0.1, low: -0.3, high: 0.0 };
        let same = mean_of_intervals(&[one]);
        assert!((same.low - one.low).abs() < 1e-15 && (same.high - one.high).abs() < 1e-15);
        let four = mean_of_intervals(&[one; 4]);
        assert!((four.low - -0.2).abs() < 1e-12 && (four.high - -0.05).abs() < 1e-12, "{four:?}");
        let unbounded = Interval { value: 0.0, low: f64::NEG_INFINITY, high: f64::INFINITY };
        assert_eq!(mean_of_intervals(&[one, unbounded]).low, f64::NEG_INFINITY);
        assert!(mean_of_intervals(&[]).value.is_nan());
    }
}
