//! Means over seeds. Pure: numbers in, numbers out.

use crate::report::trajectory::{TrajectoryPoint, at, highest, starts_above};
use crate::stats::{Interval, mean};

/// What an interval accounts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntervalSource {
    /// The choice of seeds: Student's t over the seeds of the study.
    Seeds,
    /// The choice of test examples: with one seed, or all seeds at the same value, there is no spread over seeds.
    Examples,
}

/// A mean over seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SeedMean {
    /// The mean with its 95 % interval; unknown ends are NaN.
    pub mean: Interval,
    /// What the interval accounts for.
    pub basis: IntervalSource,
    /// Seeds.
    pub seeds: usize,
}

/// The mean of one value per seed, each with its interval over test examples; values lie within `bounds`. `None` without a value. If all
/// values are equal, the interval is the widest interval of one seed: all seeds answer the same examples, so several seeds say no more about
/// other examples than one.
pub fn seed_mean(of_seeds: &[Interval], bounds: (f64, f64)) -> Option<SeedMean> {
    let known: Vec<Interval> = of_seeds.iter().copied().filter(|one| one.value.is_finite()).collect();
    let values: Vec<f64> = known.iter().map(|one| one.value).collect();
    let first = *values.first()?;
    let (found, basis) = match values.iter().all(|value| *value == first) {
        true => {
            let low = known.iter().map(|one| one.low).fold(f64::NAN, f64::min);
            let high = known.iter().map(|one| one.high).fold(f64::NAN, f64::max);
            (Interval { value: first, low, high }, IntervalSource::Examples)
        }
        false => (mean(&values), IntervalSource::Seeds),
    };
    Some(SeedMean { mean: found.clip(bounds.0, bounds.1), basis, seeds: values.len() })
}

/// The best of several learning rates, each with its mean accuracy and mean change of prior knowledge: the highest accuracy, among
/// equal ones the change that is least of a loss. A variant that is not measured is `None`.
pub fn best(variants: &[Option<(f64, f64)>]) -> Option<usize> {
    let known = variants.iter().enumerate().filter_map(|(i, variant)| Some((i, (*variant)?)));
    // The first of those that are equal in both.
    let better = |a: (f64, f64), b: (f64, f64)| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)).is_gt();
    known
        .fold(None, |best: Option<(usize, (f64, f64))>, one| match best {
            Some(so_far) if !better(one.1, so_far.1) => Some(so_far),
            _ => Some(one),
        })
        .map(|(i, _)| i)
}

/// A regime at an accuracy on the new task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AtAccuracy {
    /// Mean change of prior knowledge where the accuracy is first reached, over the seeds that reach it.
    pub change: Option<SeedMean>,
    /// Seeds that reach it.
    pub seeds: usize,
    /// Seeds whose way begins above it, at a model that is not the base.
    pub above: usize,
    /// Seeds in all.
    pub of: usize,
}

/// Each seed's way read where it first reaches `accuracy`; the mean change lies within `bounds`.
pub fn reached(trajectories: &[Vec<TrajectoryPoint>], accuracy: f64, bounds: (f64, f64)) -> AtAccuracy {
    let bare = |value| Interval { value, low: f64::NAN, high: f64::NAN };
    let values: Vec<Interval> =
        trajectories.iter().filter_map(|trajectory| Some(bare(at(trajectory, accuracy)?.value))).collect();
    let above = trajectories.iter().filter(|trajectory| starts_above(trajectory, accuracy)).count();
    AtAccuracy { change: seed_mean(&values, bounds), seeds: values.len(), above, of: trajectories.len() }
}

/// Gain on the new task that counts as having learned it, when regimes are compared at equal accuracy.
pub const LEARNED: f64 = 0.1;

/// The highest accuracy that all seeds of all regimes reach, leaving out the regimes of which a seed stays within [`LEARNED`] of
/// `base`. `None` if fewer than two regimes are left.
pub fn common_accuracy(regimes: &[&[Vec<TrajectoryPoint>]], base: f64) -> Option<f64> {
    let least = |trajectories: &&[Vec<TrajectoryPoint>]| {
        trajectories.iter().map(|trajectory| highest(trajectory)).reduce(f64::min)
    };
    // An accuracy is a ratio of whole numbers: what is 0.1 above must not fail by the last bit.
    let learned: Vec<f64> = regimes.iter().filter_map(least).filter(|&most| most >= base + LEARNED - 1e-9).collect();
    if learned.len() < 2 {
        return None;
    }
    learned.into_iter().reduce(f64::min)
}

/// Group intervals that are sorted by value, highest first: everything in a group lies above everything in the next. Within a group no
/// order is claimed. An interval with unknown ends is separated from nothing.
pub fn separated_groups(sorted: &[Interval]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for i in 0..sorted.len() {
        let known = sorted.iter().all(|one| !one.low.is_nan() && !one.high.is_nan());
        let lowest = sorted[..i].iter().map(|one| one.low).fold(f64::INFINITY, f64::min);
        let highest = sorted[i..].iter().map(|one| one.high).fold(f64::NEG_INFINITY, f64::max);
        match groups.last_mut() {
            Some(group) if !(known && lowest > highest) => group.push(i),
            _ => groups.push(vec![i]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-9, "{got} is not {expected}");
    }

    fn one(value: f64) -> Interval {
        Interval { value, low: value - 0.05, high: value + 0.04 }
    }

    #[test]
    fn several_seeds_have_scipys_t_interval() {
        // scipy.stats.t.interval(0.95, 2, loc=np.mean(x), scale=scipy.stats.sem(x)), x = [0.41, 0.35, 0.44]
        let three = seed_mean(&[one(0.41), one(0.35), one(0.44)], (0.0, 1.0)).unwrap();
        assert_eq!((three.basis, three.seeds), (IntervalSource::Seeds, 3));
        near(three.mean.value, 0.4);
        near(three.mean.low, T3.0);
        near(three.mean.high, T3.1);
        // Two seeds: half the difference times t(0.975, 1) = 12.7062..., cut to what is possible.
        let two = seed_mean(&[one(-0.1), one(-0.12)], (-1.0, 1.0)).unwrap();
        near(two.mean.value, -0.11);
        near(two.mean.low, -0.11 - 0.01 * 12.706_204_736_174_694);
        let wide = seed_mean(&[one(0.2), one(0.6)], (0.0, 1.0)).unwrap();
        assert_eq!((wide.mean.low, wide.mean.high), (0.0, 1.0));
    }

    #[test]
    fn one_seed_and_equal_seeds_have_the_interval_over_examples() {
        let alone = seed_mean(&[one(0.3)], (0.0, 1.0)).unwrap();
        assert_eq!((alone.basis, alone.seeds), (IntervalSource::Examples, 1));
        near(alone.mean.low, 0.25);
        near(alone.mean.high, 0.34);
        // On the same examples: no narrower than one.
        let wider = Interval { high: 0.4, ..one(0.3) };
        let equal = seed_mean(&[one(0.3), wider, one(0.3)], (0.0, 1.0)).unwrap();
        assert_eq!((equal.basis, equal.mean.value), (IntervalSource::Examples, 0.3));
        near(equal.mean.low, 0.25);
        near(equal.mean.high, 0.4);
        let nowhere = seed_mean(&[Interval { value: 0.02, low: f64::NAN, high: f64::NAN }], (0.0, 1.0)).unwrap();
        assert!(nowhere.mean.low.is_nan() && nowhere.mean.high.is_nan());
        assert_eq!(seed_mean(&[], (0.0, 1.0)), None);
        assert_eq!(seed_mean(&[Interval { value: f64::NAN, low: 0.0, high: 0.0 }], (0.0, 1.0)), None);
    }

    #[test]
    fn the_best_rate_is_the_most_accurate_and_among_equals_the_one_that_loses_least() {
        assert_eq!(best(&[Some((0.3, -0.1)), Some((0.5, -0.4)), None]), Some(1));
        assert_eq!(best(&[Some((0.5, -0.4)), Some((0.5, -0.1)), Some((0.5, -0.2))]), Some(1));
        assert_eq!(best(&[Some((0.5, -0.1)), Some((0.5, -0.1))]), Some(0));
        assert_eq!(best(&[None, None]), None);
    }

    fn trajectory(points: &[(f64, f64)]) -> Vec<TrajectoryPoint> {
        points
            .iter()
            .map(|&(accuracy, value)| TrajectoryPoint { accuracy, value, step: 0.0, base: value == 0.0 })
            .collect()
    }

    #[test]
    fn an_accuracy_is_read_on_each_seeds_way() {
        let trajectories = [
            trajectory(&[(0.0, 0.0), (0.4, -0.04)]),
            trajectory(&[(0.0, 0.0), (0.5, -0.15)]),
            trajectory(&[(0.0, 0.0), (0.1, -0.3)]),
        ];
        let reached = |trajectories: &[Vec<TrajectoryPoint>], accuracy| reached(trajectories, accuracy, (-0.9, 0.1));
        let at_20 = reached(&trajectories, 0.2);
        assert_eq!((at_20.seeds, at_20.of), (2, 3));
        // -0.02 and -0.06.
        let change = at_20.change.unwrap();
        near(change.mean.value, -0.04);
        // -0.04 + 0.02 t(0.975, 1) = 0.21: no more than the base had wrong.
        near(change.mean.low, -0.04 - 0.02 * 12.706_204_736_174_694);
        near(change.mean.high, 0.1);
        assert_eq!(reached(&trajectories, 0.6), AtAccuracy { change: None, seeds: 0, above: 0, of: 3 });
        let late = [trajectory(&[(0.3, -0.04), (0.5, -0.05)])];
        assert_eq!(reached(&late, 0.2), AtAccuracy { change: None, seeds: 0, above: 1, of: 1 });
    }

    #[test]
    fn the_common_accuracy_leaves_out_who_has_not_learned() {
        let (far, near_by) = (
            vec![trajectory(&[(0.04, 0.0), (0.6, -0.2)]), trajectory(&[(0.04, 0.0), (0.5, -0.2)])],
            vec![trajectory(&[(0.04, 0.0), (0.3, -0.2)])],
        );
        let idle = vec![trajectory(&[(0.04, 0.0), (0.05, 0.0)])];
        assert_eq!(common_accuracy(&[&far, &near_by, &idle], 0.04), Some(0.3));
        assert_eq!(common_accuracy(&[&far, &idle], 0.04), None);
        assert_eq!(common_accuracy(&[&far, &[]], 0.04), None);
    }

    #[test]
    fn groups_are_told_apart_only_where_no_interval_overlaps() {
        let of = |value: f64, half: f64| Interval { value, low: value - half, high: value + half };
        let sorted = [of(0.9, 0.02), of(0.7, 0.05), of(0.62, 0.05), of(0.3, 0.1)];
        assert_eq!(separated_groups(&sorted), [vec![0], vec![1, 2], vec![3]]);
        // A wide interval at the top bridges everything.
        assert_eq!(separated_groups(&[of(0.9, 0.5), of(0.7, 0.01), of(0.5, 0.01)]), [vec![0, 1, 2]]);
        assert_eq!(separated_groups(&[of(0.9, f64::NAN), of(0.1, 0.01)]), [vec![0, 1]]);
        assert!(separated_groups(&[]).is_empty());
    }

    /// Ends of the interval of 0.41, 0.35, 0.44.
    const T3: (f64, f64) = (0.286_162_508_992_017_2, 0.513_837_491_007_902_8);
}
