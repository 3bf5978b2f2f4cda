//! Means over seeds. Pure: numbers in, numbers out.

use crate::report::trajectory::{Reading, TrajectoryPoint, at, highest};
use crate::stats::{Interval, Stratum, mean, mean_over_seeds, mean_over_seeds_of, weighted_sum};

/// What an interval accounts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntervalSource {
    /// The choice of seeds and the choice of test examples.
    SeedsAndExamples,
    /// The choice of seeds alone: Student's t over the seeds of the study, of a value that has no interval over examples.
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

impl SeedMean {
    /// A loss for a change.
    pub fn negated(self) -> SeedMean {
        let Interval { value, low, high } = self.mean;
        // `0.0 - x`, because `-x` would write no change as -0.
        SeedMean { mean: Interval { value: 0.0 - value, low: 0.0 - high, high: 0.0 - low }, ..self }
    }
}

/// The value of one seed.
#[derive(Debug, Clone, PartialEq)]
pub struct SeedValue {
    /// With its interval over test examples; unknown ends are NaN.
    pub interval: Interval,
    /// What each question contributes to it, if that is known.
    pub questions: Option<Vec<Stratum>>,
}

impl From<Interval> for SeedValue {
    fn from(interval: Interval) -> SeedValue {
        SeedValue { interval, questions: None }
    }
}

/// The mean of one value per seed; values lie within `bounds`. `None` without a value. Seeds and questions are both resampled, the same
/// questions for all seeds ([`mean_over_seeds`]). Where it is not known what each question contributes, the seeds' own intervals bound it
/// ([`mean_over_seeds_of`]). If all values are equal, the interval is the widest interval of one seed: all seeds answer the same examples, so
/// several seeds say no more about other examples than one.
pub fn seed_mean(of_seeds: &[SeedValue], bounds: (f64, f64)) -> Option<SeedMean> {
    let known: Vec<&SeedValue> = of_seeds.iter().filter(|one| one.interval.value.is_finite()).collect();
    let intervals: Vec<Interval> = known.iter().map(|one| one.interval).collect();
    let values: Vec<f64> = intervals.iter().map(|one| one.value).collect();
    let first = *values.first()?;
    let (found, basis) = if values.iter().all(|value| *value == first) {
        let low = intervals.iter().map(|one| one.low).fold(f64::NAN, f64::min);
        let high = intervals.iter().map(|one| one.high).fold(f64::NAN, f64::max);
        (Interval { value: first, low, high }, IntervalSource::Examples)
    } else {
        let questions: Option<Vec<Vec<Stratum>>> = known.iter().map(|one| one.questions.clone()).collect();
        let jointly = questions.and_then(|questions| mean_over_seeds(&values, &questions));
        match jointly.or_else(|| mean_over_seeds_of(&intervals)) {
            Some(found) => (found.mean, IntervalSource::SeedsAndExamples),
            None => (mean(&values), IntervalSource::Seeds),
        }
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
    /// Mean change of prior knowledge where the accuracy is first reached, over the seeds that are read there.
    pub change: Option<SeedMean>,
    /// Seeds that are read there.
    pub seeds: usize,
    /// Seeds that pass it before their first measured checkpoint: they cannot be read there.
    pub before: usize,
    /// Seeds whose way begins above it, at a model that is not the base.
    pub above: usize,
    /// Seeds in all.
    pub of: usize,
}

/// Each seed's way read where it first reaches `accuracy`; the mean change lies within `bounds`.
pub fn reached(trajectories: &[Vec<TrajectoryPoint<'_>>], accuracy: f64, bounds: (f64, f64)) -> AtAccuracy {
    let readings: Vec<Reading<'_>> = trajectories.iter().map(|trajectory| at(trajectory, accuracy)).collect();
    let values: Vec<SeedValue> = readings.iter().filter_map(value).collect();
    let count = |kind: Reading<'_>| readings.iter().filter(|reading| **reading == kind).count();
    AtAccuracy {
        change: seed_mean(&values, bounds),
        seeds: values.len(),
        before: count(Reading::BeforeFirst),
        above: count(Reading::StartsAbove),
        of: trajectories.len(),
    }
}

/// The change that was read, with the interval of the nearer of the two models about it, and the contributions of both in proportion.
fn value(reading: &Reading<'_>) -> Option<SeedValue> {
    let Reading::Between { value, models, share, .. } = *reading else { return None };
    let Some([first, second]) = models else {
        return Some(Interval { value, low: f64::NAN, high: f64::NAN }.into());
    };
    let nearer = if share < 0.5 { first } else { second }.all.as_ref().map(|all| all.change);
    let about = |end: fn(&Interval) -> f64| nearer.map_or(f64::NAN, |own| value + end(&own) - own.value);
    let interval = Interval { value, low: about(|own| own.low), high: about(|own| own.high) };
    let both = first.change_by_question(None).zip(second.change_by_question(None));
    let questions = both.and_then(|(a, b)| weighted_sum(&[&a, &b], &[1.0 - share, share]));
    Some(SeedValue { interval, questions })
}

/// Gain on the new task that counts as having learned it, when regimes are compared at equal accuracy.
pub const LEARNED: f64 = 0.1;

/// The highest accuracy that all seeds of all regimes reach, leaving out the regimes of which a seed stays within [`LEARNED`] of
/// `base`. `None` if fewer than two regimes are left.
pub fn common_accuracy(regimes: &[&[Vec<TrajectoryPoint<'_>>]], base: f64) -> Option<f64> {
    let least = |trajectories: &&[Vec<TrajectoryPoint<'_>>]| {
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
    use crate::forgetting::fixtures::{compared, model, paired_scores};
    use crate::forgetting::{NEW_TASK, TunedResult};

    fn near(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-9, "{got} is not {expected}");
    }

    /// With an interval over examples, or without.
    fn one(value: f64) -> SeedValue {
        Interval { value, low: value - 0.05, high: value + 0.04 }.into()
    }

    fn bare(value: f64) -> SeedValue {
        Interval { value, low: f64::NAN, high: f64::NAN }.into()
    }

    #[test]
    fn several_seeds_of_a_value_without_questions_have_scipys_t_interval() {
        // scipy.stats.t.interval(0.95, 2, loc=np.mean(x), scale=scipy.stats.sem(x)), x = [0.41, 0.35, 0.44]
        let three = seed_mean(&[bare(0.41), bare(0.35), bare(0.44)], (0.0, 1.0)).unwrap();
        assert_eq!((three.basis, three.seeds), (IntervalSource::Seeds, 3));
        near(three.mean.value, 0.4);
        near(three.mean.low, T3.0);
        near(three.mean.high, T3.1);
        // Two seeds: half the difference times t(0.975, 1) = 12.7062..., cut to what is possible.
        let two = seed_mean(&[bare(-0.1), bare(-0.12)], (-1.0, 1.0)).unwrap();
        near(two.mean.value, -0.11);
        near(two.mean.low, -0.11 - 0.01 * 12.706_204_736_174_694);
        let wide = seed_mean(&[bare(0.2), bare(0.6)], (0.0, 1.0)).unwrap();
        assert_eq!((wide.mean.low, wide.mean.high), (0.0, 1.0));
    }

    #[test]
    fn questions_widen_the_interval_over_seeds_and_the_more_so_the_more_seeds_share_them() {
        let values = [0.40, 0.39, 0.41];
        let bounded = seed_mean(&values.map(one), (0.0, 1.0)).unwrap();
        assert_eq!(bounded.basis, IntervalSource::SeedsAndExamples);
        // 40, 39 and 41 of 100 are right, from this one on.
        let with = |value: f64, first: usize| {
            let right = |i: usize| f64::from(u8::from((i + 100 - first) % 100 < (100.0 * value).round() as usize));
            let totals: Vec<(f64, f64)> = (0..100).map(|i| (right(i), 1.0)).collect();
            SeedValue { questions: Some(vec![Stratum::new(&totals, 1.0)]), ..one(value) }
        };
        let width = |of: &[SeedValue]| {
            let mean = seed_mean(of, (0.0, 1.0)).unwrap().mean;
            mean.high - mean.low
        };
        // The same questions right in all seeds, or other ones in each; widths computed by numpy and scipy from the formula.
        near(width(&[with(0.40, 0), with(0.39, 0), with(0.41, 0)]), 0.201_357_767_136_073_23);
        near(width(&[with(0.40, 0), with(0.39, 33), with(0.41, 66)]), 0.059_051_807_867_939_95);
        assert!(width(&values.map(bare)) < 0.05);
    }

    #[test]
    fn one_seed_and_equal_seeds_have_the_interval_over_examples() {
        let alone = seed_mean(&[one(0.3)], (0.0, 1.0)).unwrap();
        assert_eq!((alone.basis, alone.seeds), (IntervalSource::Examples, 1));
        near(alone.mean.low, 0.25);
        near(alone.mean.high, 0.34);
        // On the same examples: no narrower than one.
        let wider = Interval { value: 0.3, low: 0.25, high: 0.4 }.into();
        let equal = seed_mean(&[one(0.3), wider, one(0.3)], (0.0, 1.0)).unwrap();
        assert_eq!((equal.basis, equal.mean.value), (IntervalSource::Examples, 0.3));
        near(equal.mean.low, 0.25);
        near(equal.mean.high, 0.4);
        let nowhere = seed_mean(&[bare(0.02)], (0.0, 1.0)).unwrap();
        assert!(nowhere.mean.low.is_nan() && nowhere.mean.high.is_nan());
        assert_eq!(seed_mean(&[], (0.0, 1.0)), None);
        assert_eq!(seed_mean(&[bare(f64::NAN)], (0.0, 1.0)), None);
    }

    #[test]
    fn the_best_rate_is_the_most_accurate_and_among_equals_the_one_that_loses_least() {
        assert_eq!(best(&[Some((0.3, -0.1)), Some((0.5, -0.4)), None]), Some(1));
        assert_eq!(best(&[Some((0.5, -0.4)), Some((0.5, -0.1)), Some((0.5, -0.2))]), Some(1));
        assert_eq!(best(&[Some((0.5, -0.1)), Some((0.5, -0.1))]), Some(0));
        assert_eq!(best(&[None, None]), None);
    }

    /// Models of which these are right on the new task and lost, of 100 each; the first is the base.
    fn models(of: &[(usize, usize)]) -> Vec<TunedResult> {
        let one = |&(right, lost): &(usize, usize)| {
            let new_task = compared(NEW_TASK, &paired_scores(100, 0, 0, right));
            TunedResult::of(
                model("m"),
                Some(new_task),
                vec![compared("prior", &paired_scores(100, 90, lost, 0))],
                Vec::new(),
            )
        };
        of.iter().map(one).collect()
    }

    fn trajectory(models: &[TunedResult]) -> Vec<TrajectoryPoint<'_>> {
        let base = TrajectoryPoint { accuracy: 0.0, value: 0.0, step: 0.0, model: None };
        let points = models.iter().map(|tuned| TrajectoryPoint {
            accuracy: tuned.new_task.as_ref().unwrap().all.tuned.value.value,
            value: tuned.all.as_ref().unwrap().change.value,
            step: 0.0,
            model: Some(tuned),
        });
        [base].into_iter().chain(points).collect()
    }

    #[test]
    fn an_accuracy_is_read_on_each_seeds_way_between_measured_models() {
        let of = [models(&[(10, 0), (40, 4)]), models(&[(10, 3), (50, 15)]), models(&[(10, 30)]), models(&[(60, 9)])];
        let trajectories: Vec<_> = of.iter().map(|one| trajectory(one)).collect();
        let reached =
            |trajectories: &[Vec<TrajectoryPoint<'_>>], accuracy| reached(trajectories, accuracy, (-0.9, 0.1));
        let at_25 = reached(&trajectories, 0.25);
        assert_eq!((at_25.seeds, at_25.before, at_25.above, at_25.of), (2, 1, 0, 4));
        // Halfway: -0.02, and 3 / 8 of the way from -0.03 to -0.15: -0.075.
        let change = at_25.change.unwrap();
        assert_eq!(change.basis, IntervalSource::SeedsAndExamples);
        near(change.mean.value, -0.0475);
        // No more than the base had wrong.
        near(change.mean.high, 0.1);
        assert_eq!(reached(&trajectories, 0.7), AtAccuracy { change: None, seeds: 0, before: 0, above: 0, of: 4 });
        let late = [trajectory(&of[0])[1..].to_vec()];
        assert_eq!(reached(&late, 0.05), AtAccuracy { change: None, seeds: 0, before: 0, above: 1, of: 1 });
    }

    #[test]
    fn the_common_accuracy_leaves_out_who_has_not_learned() {
        let of = [models(&[(60, 20)]), models(&[(50, 20)]), models(&[(30, 20)]), models(&[(5, 0)])];
        let one = |i: usize| vec![trajectory(&of[i])];
        let far = [one(0), one(1)].concat();
        assert_eq!(common_accuracy(&[&far, &one(2), &one(3)], 0.04), Some(0.3));
        assert_eq!(common_accuracy(&[&far, &one(3)], 0.04), None);
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
