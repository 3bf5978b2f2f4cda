//! The standard normal distribution, on `libm`'s error function.
//!
//! Why not the crate statrs (0.19): against scipy its distribution function is off by up to 9e-11 of the value, this one by 3e-15.

use std::f64::consts::FRAC_1_SQRT_2;

/// P(Z <= x).
pub fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

/// The p-quantile; infinite for p = 0 and p = 1.
pub fn normal_quantile(p: f64) -> f64 {
    if p.is_nan() || !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }
    if p == 0.0 {
        return f64::NEG_INFINITY;
    }
    // Below -39 the distribution function is 0 in f64.
    bisect(-40.0, 0.0, |x| normal_cdf(x) <= p)
}

/// The largest x in [low, high] for which `holds`, to the last bit; it holds up to some x and not beyond.
pub(super) fn bisect(mut low: f64, mut high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    // 200 steps are more than a double has room for.
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if holds(middle) { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture;

    #[test]
    fn the_distribution_and_its_quantiles_equal_scipys() {
        for case in fixture::cases("normal") {
            let [x, cdf] = ["x", "cdf"].map(|name| fixture::number(&case, name));
            fixture::close(normal_cdf(x), cdf, "cdf");
            let [p, quantile] = ["p", "quantile"].map(|name| fixture::number(&case, name));
            fixture::close(normal_quantile(p), quantile, "quantile");
        }
    }

    #[test]
    fn quantiles_of_0_and_1_are_infinite_and_of_other_numbers_nan() {
        assert!(normal_quantile(0.5).abs() < 1e-15);
        assert_eq!((normal_quantile(0.0), normal_quantile(1.0)), (f64::NEG_INFINITY, f64::INFINITY));
        assert!(normal_quantile(-0.1).is_nan() && normal_quantile(f64::NAN).is_nan());
    }
}
