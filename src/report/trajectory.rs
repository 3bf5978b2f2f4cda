//! Trajectories of runs: accuracy on the new task against change of prior knowledge. Runs are compared at equal accuracy, because a run
//! that has learned less has had less reason to forget.

use crate::forgetting::TunedResult;

/// A model on the trajectory of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrajectoryPoint<'a> {
    /// Accuracy on the new task.
    pub accuracy: f64,
    /// Mean change of prior knowledge.
    pub value: f64,
    /// Optimizer steps of the run; NaN if unknown.
    pub step: f64,
    /// The measured model; `None` for the base.
    pub model: Option<&'a TunedResult>,
}

/// A trajectory where it first reaches an accuracy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reading<'a> {
    /// Between two measured models, or at one (twice the same): the change and the step, and the share of the way from the first to the second.
    Between {
        /// Mean change of prior knowledge.
        value: f64,
        /// Optimizer steps; NaN if unknown.
        step: f64,
        /// The two models; `None` for the base, which has the accuracy already.
        models: Option<[&'a TunedResult; 2]>,
        /// 0 at the first model, 1 at the second.
        share: f64,
    },
    /// It lies between the base and the first measured checkpoint. What is lost there is not known: a run may forget most before it learns
    /// anything, so a straight line from the base would be too kind.
    BeforeFirst,
    /// The trajectory starts above it, at a model that is not the base.
    StartsAbove,
    /// No measured model reaches it.
    NotReached,
}

/// Optimizer steps of a model's run, if known.
pub fn step(tuned: &TunedResult) -> Option<f64> {
    Some(tuned.model.run.as_ref()?.step? as f64)
}

/// The trajectory of each of `runs` (models in order of training), from the base of this hash on. [`lineage`] says where it begins.
pub fn trajectories<'a>(runs: &[&[&'a TunedResult]], base: &str) -> Vec<Vec<TrajectoryPoint<'a>>> {
    let trajectory = |(i, models): (usize, &&[&'a TunedResult])| {
        let own = models.iter().filter_map(|tuned| point(tuned));
        lineage(runs, i, base).into_iter().chain(own).collect()
    };
    runs.iter().enumerate().map(trajectory).collect()
}

/// The points before the first model of run `i`: the base; for a run that continues a model of another of `runs`, measured on the same
/// examples, the trajectory of that run up to this model. Empty if none of the runs has measured the model that it started from.
pub fn lineage<'a>(runs: &[&[&'a TunedResult]], i: usize, base: &str) -> Vec<TrajectoryPoint<'a>> {
    lineage_of(runs, i, base, runs.len())
}

/// [`lineage`], over at most `left` further runs.
fn lineage_of<'a>(runs: &[&[&'a TunedResult]], i: usize, base: &str, left: usize) -> Vec<TrajectoryPoint<'a>> {
    let Some(new_task) = runs[i].iter().find_map(|tuned| tuned.new_task.as_ref()) else { return Vec::new() };
    let started = runs[i].iter().find_map(|tuned| tuned.model.run.as_ref()).map(|run| run.model_hash.as_str());
    let of_base =
        |step| vec![TrajectoryPoint { accuracy: new_task.all.base.value.value, value: 0.0, step, model: None }];
    let start = match started {
        Some(hash) if hash == base => return of_base(0.0),
        // A model of no run, or of a run that does not record its start.
        None | Some("") => return of_base(f64::NAN),
        Some(hash) => hash,
    };
    let is_start = |tuned: &&TunedResult| {
        let same = tuned.new_task.as_ref().is_some_and(|own| own.data == new_task.data);
        same && tuned.model.hash == start && point(tuned).is_some()
    };
    let others = runs.iter().enumerate().filter(|(other, _)| *other != i && left > 0);
    let found = others.filter_map(|(other, models)| Some((other, models.iter().position(is_start)?))).next();
    let Some((other, last)) = found else { return Vec::new() };
    let mut trajectory = lineage_of(runs, other, base, left - 1);
    trajectory.extend(runs[other][..=last].iter().filter_map(|tuned| point(tuned)));
    // Steps count from the start of this run.
    trajectory.iter_mut().for_each(|point| point.step = f64::NAN);
    if let Some(start) = trajectory.last_mut() {
        start.step = 0.0;
    }
    trajectory
}

fn point(tuned: &TunedResult) -> Option<TrajectoryPoint<'_>> {
    let (accuracy, value) = (tuned.new_task.as_ref()?.all.tuned.value.value, tuned.all.as_ref()?.change.value);
    let step = step(tuned).unwrap_or(f64::NAN);
    (accuracy.is_finite() && value.is_finite()).then_some(TrajectoryPoint { accuracy, value, step, model: Some(tuned) })
}

/// The trajectory where it first reaches `accuracy`. It is read at a measured model, or linearly between two neighbouring ones, never on the way
/// from the base to the first.
pub fn at<'a>(points: &[TrajectoryPoint<'a>], accuracy: f64) -> Reading<'a> {
    let reaches = |point: &&TrajectoryPoint<'_>| point.accuracy >= accuracy;
    let Some(next) = points.iter().position(|point| reaches(&point)) else { return Reading::NotReached };
    let point = points[next];
    let Some(model) = point.model else {
        return Reading::Between { value: point.value, step: point.step, models: None, share: 0.0 };
    };
    // An accuracy is a ratio of whole numbers: what is reached exactly must not fail by the last bit.
    if point.accuracy - accuracy < 1e-9 {
        return Reading::Between { value: point.value, step: point.step, models: Some([model, model]), share: 0.0 };
    }
    let Some(before) = next.checked_sub(1).map(|i| points[i]) else { return Reading::StartsAbove };
    let Some(other) = before.model else { return Reading::BeforeFirst };
    let share = (accuracy - before.accuracy) / (point.accuracy - before.accuracy);
    let between = |from: f64, to: f64| from + share * (to - from);
    let (value, step) = (between(before.value, point.value), between(before.step, point.step));
    Reading::Between { value, step, models: Some([other, model]), share }
}

/// The accuracies at which trajectories are compared: every 10 points that one of them passes, and the highest that all of them reach.
pub fn levels(trajectories: &[Vec<TrajectoryPoint<'_>>]) -> Vec<f64> {
    let start = start(trajectories);
    let common = trajectories.iter().map(|trajectory| highest(trajectory)).fold(f64::INFINITY, f64::min);
    let highest = trajectories.iter().map(|trajectory| highest(trajectory)).fold(f64::NEG_INFINITY, f64::max);
    if !(start.is_finite() && common.is_finite() && highest.is_finite()) {
        return Vec::new();
    }
    let mut levels = tens(start, highest);
    if common > start && !levels.iter().any(|level| (level - common).abs() < 1e-9) {
        levels.push(common);
    }
    levels.sort_by(f64::total_cmp);
    levels
}

/// Every 10 points of accuracy above `start`, up to `highest`.
pub fn tens(start: f64, highest: f64) -> Vec<f64> {
    let tens = (1..=10).map(|tenth| f64::from(tenth) / 10.0);
    tens.filter(|level| *level > start && *level <= highest).collect()
}

/// The highest accuracy on a trajectory.
pub fn highest(trajectory: &[TrajectoryPoint<'_>]) -> f64 {
    trajectory.iter().map(|point| point.accuracy).fold(f64::NEG_INFINITY, f64::max)
}

/// Accuracy of the base, the highest if the trajectories have several. If none begins with the base, the lowest first accuracy.
pub fn start(trajectories: &[Vec<TrajectoryPoint<'_>>]) -> f64 {
    let firsts = || trajectories.iter().filter_map(|trajectory| trajectory.first());
    let highest = firsts().filter(|point| point.model.is_none()).map(|point| point.accuracy).reduce(f64::max);
    let lowest = || firsts().map(|point| point.accuracy).reduce(f64::min);
    highest.or_else(lowest).unwrap_or(f64::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forgetting::fixtures::{compared, model, paired_scores};
    use crate::forgetting::{ModelRef, NEW_TASK, RunRef};

    /// A trajectory of the base and of models that are all this one.
    fn trajectory<'a>(model: &'a TunedResult, points: &[(f64, f64, f64)]) -> Vec<TrajectoryPoint<'a>> {
        let point = |(i, &(accuracy, value, step)): (usize, &(f64, f64, f64))| TrajectoryPoint {
            accuracy,
            value,
            step,
            model: (i > 0).then_some(model),
        };
        points.iter().enumerate().map(point).collect()
    }

    fn near(reading: Reading<'_>, expected: f64, at: f64) {
        let Reading::Between { value, step, .. } = reading else { panic!("{reading:?}") };
        assert!((value - expected).abs() < 1e-9, "{reading:?}");
        assert!(step.is_nan() && at.is_nan() || (step - at).abs() < 1e-9, "{reading:?}");
    }

    /// A model of a run that was started from `start`: of 100 answers 4 are right in the base and `learnt` more here, of 200 others `lost`
    /// fewer.
    fn tuned(hash: &str, start: &str, step: u64, learnt: usize, lost: usize) -> TunedResult {
        let run = RunRef {
            name: "run".into(),
            dir: "/runs/run".into(),
            step: Some(step),
            seed: Some(1),
            data_hash: "d".into(),
            model_hash: start.into(),
        };
        let model = ModelRef { hash: hash.into(), run: Some(run), ..model("run") };
        let new_task = compared(NEW_TASK, &paired_scores(100, 4, 0, learnt));
        TunedResult::of(model, Some(new_task), vec![compared("prior", &paired_scores(200, 160, lost, 0))], Vec::new())
    }

    #[test]
    fn the_trajectory_of_a_continued_run_includes_the_run_that_it_continues() {
        let first = [tuned("s1", "base", 100, 6, 20), tuned("s2", "base", 200, 12, 8)];
        let last = [tuned("l1", "s2", 50, 36, 10)];
        let (first, last): (Vec<&TunedResult>, Vec<&TunedResult>) = (first.iter().collect(), last.iter().collect());
        let both = trajectories(&[&last, &first], "base");
        assert_eq!(both[0].iter().map(|point| point.accuracy).collect::<Vec<_>>(), [0.04, 0.1, 0.16, 0.4]);
        near(at(&both[0], 0.1), -0.1, f64::NAN);
        near(at(&both[0], 0.13), -0.07, f64::NAN);
        assert_eq!([&both[0], &both[1]].map(|own| at(own, 0.07)), [Reading::BeforeFirst; 2]);
        // Halfway from the end of the first run, at -0.04, to -0.05.
        near(at(&both[0], 0.28), -0.045, 25.0);
        near(at(&both[1], 0.13), -0.07, 150.0);
        assert!((start(&both) - 0.04).abs() < 1e-12);
        // From a checkpoint on, what the other run did later is not part of the trajectory.
        let early = [tuned("e1", "s1", 50, 36, 10)];
        let early: Vec<&TunedResult> = early.iter().collect();
        let trajectory = &trajectories(&[&early, &first], "base")[0];
        assert_eq!(trajectory.iter().map(|point| point.accuracy).collect::<Vec<_>>(), [0.04, 0.1, 0.4]);
    }

    #[test]
    fn nothing_is_known_below_a_start_that_is_not_measured() {
        let last = tuned("l1", "s2", 50, 36, 10);
        let alone = trajectories(&[&[&last]], "base");
        assert_eq!(alone[0].len(), 1);
        assert_eq!(at(&alone[0], 0.3), Reading::StartsAbove);
        near(at(&alone[0], 0.4), -0.05, 50.0);
        assert_eq!(at(&alone[0], 0.5), Reading::NotReached);
        // It says nothing of where the base is.
        assert_eq!(start(&[alone[0].clone(), trajectory(&last, &[(0.04, 0.0, 0.0)])]), 0.04);
        // Measured on other examples is not measured.
        let mut first = tuned("s2", "base", 200, 12, 8);
        first.new_task.as_mut().unwrap().data = "other".into();
        assert_eq!(trajectories(&[&[&last], &[&first]], "base")[0], alone[0]);
        // Two runs that each claim to be the other's start come to an end.
        let circle = tuned("s2", "l1", 200, 12, 8);
        assert!(
            trajectories(&[&[&last], &[&circle]], "base")
                .iter()
                .all(|trajectory| !trajectory.is_empty() && trajectory[0].model.is_some())
        );
    }

    #[test]
    fn a_way_is_read_between_measured_models_at_the_first_crossing_and_never_on_the_way_from_the_base() {
        let model = tuned("m", "base", 100, 6, 20);
        let run = trajectory(&model, &[(0.0, 0.0, 0.0), (0.4, -0.02, 100.0), (0.3, -0.1, 200.0), (0.6, -0.2, 300.0)]);
        assert_eq!(at(&run, 0.2), Reading::BeforeFirst);
        near(at(&run, 0.4), -0.02, 100.0);
        near(at(&run, 0.45), -0.15, 250.0);
        assert_eq!(at(&run, 0.61), Reading::NotReached);
        near(at(&run, 0.0), 0.0, 0.0);
        assert_eq!(at(&[], 0.5), Reading::NotReached);
    }

    #[test]
    fn levels_are_every_ten_points_and_the_highest_common_one() {
        let model = tuned("m", "base", 100, 6, 20);
        let trajectory = |points: &[(f64, f64, f64)]| trajectory(&model, points);
        let (long, short) =
            (trajectory(&[(0.05, 0.0, 0.0), (0.62, -0.1, 9.0)]), trajectory(&[(0.05, 0.0, 0.0), (0.37, -0.3, 9.0)]));
        assert_eq!(levels(&[long.clone(), short.clone()]), [0.1, 0.2, 0.3, 0.37, 0.4, 0.5, 0.6]);
        near(at(&short, 0.37), -0.3, 9.0);
        assert_eq!((at(&short, 0.4), at(&long, 0.4)), (Reading::NotReached, Reading::BeforeFirst));
        assert!(levels(&[trajectory(&[(0.5, 0.0, 0.0), (0.2, -0.1, 5.0)])]).is_empty(), "nothing was learnt");
        assert!(levels(&[]).is_empty());
    }
}
