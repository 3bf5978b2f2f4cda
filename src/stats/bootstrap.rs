//! The bootstrap over paired, possibly clustered and stratified observations, with BCa intervals (bias-corrected and
//! accelerated; Efron 1987, JASA 82:171-185). Deterministic: a function of data and seed, whatever the number of threads.

use super::intervals::{Interval, Z};
use super::normal::{normal_cdf, normal_quantile};
use crate::rng;
use rand::Rng as _;
use rand_distr::{Binomial, Distribution as _};
use rayon::prelude::*;
use std::collections::HashMap;

/// Default number of resamples: with it, the ends of an interval move by about 1 % of its width from seed to seed.
pub const RESAMPLES: usize = 10_000;

/// Resamples that share one stream of random numbers.
const BLOCK: usize = 64;

/// The unit of resampling: a pair of measurements, or the sums over the pairs of a cluster.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResampleUnit {
    /// Sum of the first measurement.
    pub first: f64,
    /// Sum of the second.
    pub second: f64,
    /// Number of pairs.
    pub count: f64,
}

/// The means of both measurements in each stratum, from which a statistic is computed.
pub type Means<'a> = &'a [(f64, f64)];

/// A statistic of the means with its BCa interval. Units are drawn with replacement within each stratum. An undefined value of
/// the statistic in a resample (a share of nothing) counts as +infinity, so that it widens the interval. An interval that is not
/// finite has infinite or NaN ends.
pub fn bootstrap(
    strata: &[Vec<ResampleUnit>],
    statistic: impl Fn(Means<'_>) -> f64 + Sync,
    resamples: usize,
    seed: u64,
) -> Interval {
    if strata.is_empty() || strata.iter().any(Vec::is_empty) || resamples == 0 {
        return Interval::UNKNOWN;
    }
    let totals: Vec<[f64; 3]> = strata.iter().map(|units| units.iter().fold([0.0; 3], add)).collect();
    let sources: Vec<Resampler<'_>> = strata.iter().map(|units| Resampler::of(units)).collect();
    let means = |totals: &[[f64; 3]]| -> Vec<(f64, f64)> { totals.iter().map(mean).collect() };
    let estimate = statistic(&means(&totals));
    let mut drawn = vec![0.0; resamples];
    drawn.par_chunks_mut(BLOCK).enumerate().for_each(|(block, values)| {
        let mut random = rng::stream(seed, "bootstrap", &[block as u64]);
        let mut sums = vec![(0.0, 0.0); strata.len()];
        for value in values {
            for (sum, source) in sums.iter_mut().zip(&sources) {
                *sum = mean(&source.resample(&mut random));
            }
            let drawn = statistic(&sums);
            *value = if drawn.is_nan() { f64::INFINITY } else { drawn };
        }
    });
    let mut left_out: Vec<Vec<f64>> = Vec::with_capacity(strata.len());
    for (stratum, units) in strata.iter().enumerate() {
        let mut means = means(&totals);
        let mut without = |unit: &ResampleUnit| {
            let [first, second, count] = totals[stratum];
            means[stratum] = mean(&[first - unit.first, second - unit.second, count - unit.count]);
            statistic(&means)
        };
        left_out.push(if units.len() > 1 { units.iter().map(&mut without).collect() } else { Vec::new() });
    }
    bca(estimate, &mut drawn, &left_out)
}

fn add([first, second, count]: [f64; 3], unit: &ResampleUnit) -> [f64; 3] {
    [first + unit.first, second + unit.second, count + unit.count]
}

fn mean(&[first, second, count]: &[f64; 3]) -> (f64, f64) {
    (first / count, second / count)
}

/// Draws resamples of a stratum.
enum Resampler<'a> {
    /// One unit at a time.
    Units(&'a [ResampleUnit]),
    /// The distinct units with their counts, and the total count. Scores have few values, so the number of draws of each distinct unit is
    /// drawn at once.
    Distinct(Vec<(ResampleUnit, u64)>, u64),
}

impl Resampler<'_> {
    /// Drawing distinct units pays off from this number of equal units on.
    const MIN_REPEATS: usize = 8;

    fn of(units: &[ResampleUnit]) -> Resampler<'_> {
        let mut kinds: HashMap<[u64; 3], u64> = HashMap::new();
        for unit in units {
            *kinds.entry([unit.first, unit.second, unit.count].map(f64::to_bits)).or_insert(0) += 1;
            if kinds.len() * Self::MIN_REPEATS > units.len() {
                return Resampler::Units(units);
            }
        }
        let mut kinds: Vec<([u64; 3], u64)> = kinds.into_iter().collect();
        kinds.sort_unstable();
        let unit = |(bits, number): ([u64; 3], u64)| {
            let [first, second, count] = bits.map(f64::from_bits);
            (ResampleUnit { first, second, count }, number)
        };
        Resampler::Distinct(kinds.into_iter().map(unit).collect(), units.len() as u64)
    }

    /// Totals of as many units as there are, drawn with replacement.
    fn resample(&self, random: &mut rng::Rng) -> [f64; 3] {
        let mut totals = [0.0; 3];
        match self {
            // An index is made of 32 random bits: the bias of a unit is at most n / 2^32.
            Resampler::Units(units) => {
                let n = units.len() as u64;
                for _ in 0..n / 2 {
                    let bits = random.next_u64();
                    totals = add(totals, &units[(((bits & 0xffff_ffff) * n) >> 32) as usize]);
                    totals = add(totals, &units[(((bits >> 32) * n) >> 32) as usize]);
                }
                if n % 2 == 1 {
                    totals = add(totals, &units[((u64::from(random.next_u32()) * n) >> 32) as usize]);
                }
            }
            // A multinomial draw, one distinct unit at a time: how many of the remaining draws are of this unit rather than a later one.
            Resampler::Distinct(kinds, n) => {
                let (mut to_draw, mut remaining) = (*n, *n);
                for (unit, number) in kinds {
                    let share = *number as f64 / remaining as f64;
                    let drawn = Binomial::new(to_draw, share).map_or(0, |binomial| binomial.sample(random));
                    let times = drawn as f64;
                    totals = [
                        totals[0] + times * unit.first,
                        totals[1] + times * unit.second,
                        totals[2] + times * unit.count,
                    ];
                    (to_draw, remaining) = (to_draw - drawn, remaining - number);
                }
            }
        }
        totals
    }
}

/// The BCa interval (Efron 1987) of an estimate, from its values in resamples, which are reordered, and with each unit left out, by stratum.
pub fn bca(estimate: f64, drawn: &mut [f64], left_out: &[Vec<f64>]) -> Interval {
    if !estimate.is_finite() || drawn.is_empty() {
        return Interval::UNKNOWN;
    }
    drawn.sort_unstable_by(f64::total_cmp);
    let below = drawn.partition_point(|&x| x < estimate);
    let up_to = drawn.partition_point(|&x| x <= estimate);
    let bias = normal_quantile((below + up_to) as f64 / (2 * drawn.len()) as f64);
    let (mut cubes, mut squares) = (0.0, 0.0);
    for values in left_out.iter().filter(|values| !values.is_empty()) {
        let n = values.len() as f64;
        let centre = values.iter().sum::<f64>() / n;
        for value in values {
            let influence = (n - 1.0) * (centre - value) / n;
            cubes += influence.powi(3);
            squares += influence.powi(2);
        }
    }
    let acceleration = if squares > 0.0 { cubes / (6.0 * squares.powf(1.5)) } else { 0.0 };
    let end = |z: f64| {
        let corrected = match bias.is_finite() && acceleration.is_finite() {
            true => normal_cdf(bias + (bias + z) / (1.0 - acceleration * (bias + z))),
            // All resamples lie on one side, or one unit decides everything: use the plain percentile.
            false => normal_cdf(z),
        };
        percentile(drawn, corrected)
    };
    Interval { value: estimate, low: end(-Z), high: end(Z) }
}

/// The share-quantile of sorted values, linear between neighbours (numpy's default).
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = share.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    if low == high { low } else { low + (high - low) * at.fract() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture;
    use rand::RngExt;

    fn single(pairs: &[(f64, f64)]) -> Vec<Vec<ResampleUnit>> {
        vec![pairs.iter().map(|&(first, second)| ResampleUnit { first, second, count: 1.0 }).collect()]
    }

    fn retention(means: Means<'_>) -> f64 {
        means[0].1 / means[0].0
    }

    #[test]
    fn from_the_same_resamples_the_interval_is_scipys() {
        for case in fixture::cases("bca") {
            let mut drawn = fixture::numbers(&case, "distribution");
            let (first, second) = (fixture::numbers(&case, "base"), fixture::numbers(&case, "tuned"));
            let ratio = case["statistic"] == "ratio";
            let statistic = |without: Option<usize>| {
                let keep = |values: &[f64]| -> f64 {
                    values.iter().enumerate().filter(|(i, _)| Some(*i) != without).map(|(_, v)| v).sum()
                };
                let (a, b) = (keep(&first), keep(&second));
                let n = (first.len() - usize::from(without.is_some())) as f64;
                if ratio { b / a } else { (b - a) / n }
            };
            let left_out = vec![(0..first.len()).map(|i| statistic(Some(i))).collect()];
            // Among resamples there are ties with the estimate, and its last bit decides them.
            fixture::close(statistic(None), fixture::number(&case, "estimate"), "estimate");
            let got = bca(fixture::number(&case, "estimate"), &mut drawn, &left_out);
            for (name, value) in [("estimate", got.value), ("low", got.low), ("high", got.high)] {
                fixture::close(value, fixture::number(&case, name), name);
            }
        }
    }

    #[test]
    fn the_interval_does_not_depend_on_threads_and_moves_with_the_seed_only_a_little() {
        let pairs: Vec<(f64, f64)> =
            (0..200).map(|i| (f64::from(u8::from(i % 3 > 0)), f64::from(u8::from(i % 5 > 1)))).collect();
        let of = |seed| bootstrap(&single(&pairs), retention, 4000, seed);
        let single_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let (alone, here) = (single_thread.install(|| of(1)), of(1));
        assert_eq!(alone, here);
        let other = of(2);
        assert_ne!(other, here);
        let width = here.high - here.low;
        assert!((other.low - here.low).abs() < 0.1 * width && (other.high - here.high).abs() < 0.1 * width);
    }

    #[test]
    fn the_interval_of_a_mean_is_close_to_its_t_interval() {
        let mut random = rng::stream(3, "test", &[]);
        let pairs: Vec<(f64, f64)> = (0..300).map(|_| (random.random::<f64>(), random.random::<f64>())).collect();
        let got = bootstrap(&single(&pairs), |m| m[0].1 - m[0].0, RESAMPLES, 0);
        let (x, y): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        let t = crate::stats::paired_difference(&x, &y).unwrap().mean;
        assert!((got.value - t.value).abs() < 1e-12);
        let width = t.high - t.low;
        assert!((got.low - t.low).abs() < 0.05 * width && (got.high - t.high).abs() < 0.05 * width, "{got:?} {t:?}");
    }

    #[test]
    fn clusters_widen_the_interval_by_what_they_repeat() {
        let pairs: Vec<(f64, f64)> = (0..60).map(|i| (1.0, f64::from(u8::from(i % 4 > 0)))).collect();
        let eight =
            |&(first, second): &(f64, f64)| ResampleUnit { first: 8.0 * first, second: 8.0 * second, count: 8.0 };
        let clustered = vec![pairs.iter().map(eight).collect()];
        let spread: Vec<(f64, f64)> = pairs.iter().flat_map(|&p| [p; 8]).collect();
        let width = |strata: &[Vec<ResampleUnit>]| {
            let interval = bootstrap(strata, retention, 4000, 5);
            interval.high - interval.low
        };
        let (whole, apart) = (width(&clustered), width(&single(&spread)));
        assert!((whole / apart - 8.0_f64.sqrt()).abs() < 0.2, "{whole} {apart}");
        assert_eq!(bootstrap(&clustered, retention, 500, 5), bootstrap(&single(&pairs), retention, 500, 5));
    }

    #[test]
    fn units_drawn_by_kind_spread_like_units_drawn_one_by_one() {
        let units: Vec<ResampleUnit> = (0..500)
            .map(|i| ResampleUnit {
                first: f64::from(i % 3),
                second: f64::from(i % 7 / 2),
                count: f64::from(1 + i % 2),
            })
            .collect();
        let Resampler::Distinct(kinds, 500) = Resampler::of(&units) else { panic!("few kinds") };
        assert_eq!(kinds.iter().map(|(_, number)| number).sum::<u64>(), 500);
        let moments = |source: &Resampler<'_>, seed: u64| {
            let mut random = rng::stream(seed, "test", &[]);
            let draws: Vec<f64> = (0..4000).map(|_| mean(&source.resample(&mut random)).1).collect();
            let centre = draws.iter().sum::<f64>() / 4000.0;
            (centre, draws.iter().map(|d| (d - centre).powi(2)).sum::<f64>() / 3999.0)
        };
        let (by_kind, apart) = (moments(&Resampler::of(&units), 1), moments(&Resampler::Units(&units), 2));
        let error = (apart.1 / 2000.0).sqrt();
        assert!((by_kind.0 - apart.0).abs() < 4.0 * error, "{by_kind:?} {apart:?}");
        // The standard error of a variance is sqrt(2 / n) of it.
        assert!((by_kind.1 / apart.1 - 1.0).abs() < 4.0 * (2.0_f64 / 2000.0).sqrt(), "{by_kind:?} {apart:?}");
    }

    #[test]
    fn two_strata_are_drawn_apart() {
        let stratum = |value: f64| vec![ResampleUnit { first: 1.0, second: value, count: 1.0 }; 40];
        // Different means, but no spread within: nothing can vary.
        let got = bootstrap(&[stratum(0.2), stratum(0.8)], |m| (m[0].1 + m[1].1) / 2.0, 300, 0);
        assert!((got.low - 0.5).abs() < 1e-12 && (got.high - 0.5).abs() < 1e-12, "{got:?}");
    }

    #[test]
    fn a_ratio_to_almost_nothing_has_no_finite_end_and_to_nothing_no_value() {
        let mut pairs = vec![(0.0, 0.0); 50];
        assert!(bootstrap(&single(&pairs), retention, 500, 0).value.is_nan());
        pairs[0] = (1.0, 1.0);
        let got = bootstrap(&single(&pairs), retention, 500, 0);
        assert!(got.value == 1.0 && !got.high.is_finite(), "{got:?}");
        assert!(bootstrap(&[], retention, 500, 0).value.is_nan());
    }

    #[test]
    fn the_interval_covers_the_truth_as_often_as_it_says() {
        // 300 experiments of 80 pairs: right before with probability 0.8, kept with 0.7.
        let covered = (0..300).filter(|&i| {
            let mut random = rng::stream(9, "coverage", &[i]);
            let mut pair = || {
                let before = random.random::<f64>() < 0.8;
                (f64::from(u8::from(before)), f64::from(u8::from(before && random.random::<f64>() < 0.7)))
            };
            let pairs: Vec<(f64, f64)> = (0..80).map(|_| pair()).collect();
            let got = bootstrap(&single(&pairs), retention, 1000, i);
            got.low <= 0.7 && 0.7 <= got.high
        });
        // 95 % of 300 is 285; 3 standard errors are 11.
        let covered = covered.count();
        assert!((272..=297).contains(&covered), "{covered}");
    }
}
