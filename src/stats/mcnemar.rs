//! Two 0/1 measurements of the same examples. Only discordant pairs, which gained or lost, say anything about a change.

use super::intervals::{Interval, Z};
use super::normal::bisect;
use super::student::incomplete_beta;

/// Two-sided p-value of McNemar's test by the exact binomial distribution: of `gained + lost` discordant pairs, each is a gain
/// with probability 1/2 if nothing changed. 1 if there are none. Exact for any number of pairs.
pub fn mcnemar(gained: usize, lost: usize) -> f64 {
    if gained + lost == 0 {
        return 1.0;
    }
    let (few, all) = (gained.min(lost) as f64, (gained + lost) as f64);
    // P(X <= few) = I_1/2(all - few, few + 1).
    (2.0 * incomplete_beta(all - few, few + 1.0, 0.5, 0.5)).min(1.0)
}

/// Difference of two paired proportions, `(gained - lost) / n`, with Tango's score interval (Tango 1998, Statistics in Medicine
/// 17:891-908): all differences that McNemar's score test, with the other parameter at its most likely value, does not reject.
/// Unlike the interval of the mean difference it keeps its coverage for few discordant pairs, and is not empty for none.
/// Counts need not be whole. NaN for n = 0.
pub fn paired_proportions(n: f64, gained: f64, lost: f64) -> Interval {
    if !(n > 0.0 && gained >= 0.0 && lost >= 0.0 && gained + lost <= n * (1.0 + 1e-12)) {
        return Interval::UNKNOWN;
    }
    let value = (gained - lost) / n;
    let statistic = |delta: f64| score(n, gained, lost, delta);
    // The statistic falls as the supposed difference grows.
    let low = if lost >= n { -1.0 } else { bisect(-1.0, value, |delta| statistic(delta) >= Z) };
    let high = if gained >= n { 1.0 } else { bisect(value, 1.0, |delta| statistic(delta) >= -Z) };
    Interval { value, low: low.min(value), high: high.max(value) }
}

/// Tango's statistic: how many standard errors the data lie above a difference of `delta`.
fn score(n: f64, gained: f64, lost: f64, delta: f64) -> f64 {
    // Most likely probability of a loss, given the difference: the larger root of a quadratic.
    let a = 2.0 * n;
    let b = -gained - lost + (2.0 * n - gained + lost) * delta;
    let c = -lost * delta * (1.0 - delta);
    let root = (b * b - 4.0 * a * c).max(0.0).sqrt();
    // Of the two ways to write it, the one that does not subtract equals.
    let q = if b <= 0.0 { (root - b) / (2.0 * a) } else { -2.0 * c / (root + b) };
    let variance = n * (2.0 * q + delta * (1.0 - delta));
    let distance = gained - lost - n * delta;
    if variance > 0.0 { distance / variance.sqrt() } else { distance.signum() * f64::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture;

    #[test]
    fn exact_p_values_equal_statsmodels() {
        for case in fixture::cases("mcnemar") {
            let [gained, lost] = ["gained", "lost"].map(|name| fixture::number(&case, name) as usize);
            fixture::close(mcnemar(gained, lost), fixture::number(&case, "p"), &format!("{gained} {lost}"));
            assert_eq!(mcnemar(lost, gained), mcnemar(gained, lost));
        }
        assert_eq!((mcnemar(0, 0), mcnemar(4, 4)), (1.0, 1.0));
    }

    #[test]
    fn intervals_are_those_of_the_score_test_inverted_numerically() {
        for case in fixture::cases("tango") {
            let [n, gained, lost] = ["n", "gained", "lost"].map(|name| fixture::number(&case, name));
            let got = paired_proportions(n, gained, lost);
            let what = format!("{gained} gained, {lost} lost of {n}");
            fixture::close(got.low, fixture::number(&case, "low"), &what);
            fixture::close(got.high, fixture::number(&case, "high"), &what);
            let mirrored = paired_proportions(n, lost, gained);
            fixture::close(-mirrored.low, got.high, &what);
        }
    }

    #[test]
    fn the_ends_stay_within_minus_one_and_one_and_hold_the_estimate() {
        for (n, gained, lost) in [(1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (5.0, 0.0, 5.0), (5.0, 2.0, 3.0), (1e5, 0.0, 1e5)] {
            let Interval { value, low, high } = paired_proportions(n, gained, lost);
            assert!(-1.0 <= low && low <= value && value <= high && high <= 1.0, "{n} {gained} {lost}: {low} {high}");
            assert!(high > low);
        }
        assert!(paired_proportions(0.0, 0.0, 0.0).value.is_nan());
        // Nothing changed among n: what Wilson's interval says of 0 of n, on both sides.
        let none = paired_proportions(100.0, 0.0, 0.0);
        let wilson = Z * Z / (100.0 + Z * Z);
        assert!((none.high - wilson).abs() < 1e-12 && (none.low + wilson).abs() < 1e-12);
    }

    #[test]
    fn test_and_interval_agree_where_the_exact_test_is_not_close() {
        for (gained, lost) in [(3, 20), (10, 40), (2, 14)] {
            assert!(mcnemar(gained, lost) < 0.01);
            assert!(paired_proportions(200.0, gained as f64, lost as f64).high < 0.0);
        }
        assert!(mcnemar(9, 12) > 0.3 && paired_proportions(200.0, 9.0, 12.0).high > 0.0);
    }
}
