//! Trajectories of runs: accuracy on the new task against change of prior knowledge. Runs are compared at equal accuracy, because a run
//! that has learned less has had less reason to forget.

use crate::forgetting::TunedResult;

/// A model on the trajectory of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrajectoryPoint {
    /// Accuracy on the new task.
    pub accuracy: f64,
    /// Mean change of prior knowledge.
    pub value: f64,
    /// Optimizer steps of the run; NaN if unknown.
    pub step: f64,
    /// It is the base.
    pub base: bool,
}

/// Optimizer steps of a model's run, if known.
pub fn step(tuned: &TunedResult) -> Option<f64> {
    Some(tuned.model.run.as_ref()?.step? as f64)
}

/// The trajectory of each of `runs` (models in order of training), from the base of this hash on. [`lineage`] says where it begins.
pub fn trajectories(runs: &[&[&TunedResult]], base: &str) -> Vec<Vec<TrajectoryPoint>> {
    let trajectory = |(i, models): (usize, &&[&TunedResult])| {
        let own = models.iter().filter_map(|tuned| point(tuned));
        lineage(runs, i, base).into_iter().chain(own).collect()
    };
    runs.iter().enumerate().map(trajectory).collect()
}

/// The points before the first model of run `i`: the base; for a run that continues a model of another of `runs`, measured on the same
/// examples, the trajectory of that run up to this model. Empty if none of the runs has measured the model that it started from.
pub fn lineage(runs: &[&[&TunedResult]], i: usize, base: &str) -> Vec<TrajectoryPoint> {
    lineage_of(runs, i, base, runs.len())
}

/// [`lineage`], over at most `left` further runs.
fn lineage_of(runs: &[&[&TunedResult]], i: usize, base: &str, left: usize) -> Vec<TrajectoryPoint> {
    let Some(new_task) = runs[i].iter().find_map(|tuned| tuned.new_task.as_ref()) else { return Vec::new() };
    let started = runs[i].iter().find_map(|tuned| tuned.model.run.as_ref()).map(|run| run.model_hash.as_str());
    let of_base =
        |step| vec![TrajectoryPoint { accuracy: new_task.all.base.value.value, value: 0.0, step, base: true }];
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

fn point(tuned: &TunedResult) -> Option<TrajectoryPoint> {
    let (accuracy, value) = (tuned.new_task.as_ref()?.all.tuned.value.value, tuned.all.as_ref()?.change.value);
    let step = step(tuned).unwrap_or(f64::NAN);
    (accuracy.is_finite() && value.is_finite()).then_some(TrajectoryPoint { accuracy, value, step, base: false })
}

/// The trajectory starts above `accuracy`, at a model that is not the base: the loss at that accuracy is unknown.
pub fn starts_above(points: &[TrajectoryPoint], accuracy: f64) -> bool {
    points.first().is_some_and(|first| !first.base && first.accuracy > accuracy)
}

/// The point where the trajectory first reaches `accuracy`, interpolated linearly between neighbours. `None` if it never does, or if it
/// [`starts_above`].
pub fn at(points: &[TrajectoryPoint], accuracy: f64) -> Option<TrajectoryPoint> {
    let first = points.first()?;
    if starts_above(points, accuracy) {
        return None;
    }
    if first.accuracy >= accuracy {
        return Some(TrajectoryPoint { accuracy, ..*first });
    }
    let (a, b) = points.iter().zip(&points[1..]).find(|(_, next)| next.accuracy >= accuracy)?;
    let share = (accuracy - a.accuracy) / (b.accuracy - a.accuracy);
    let between = |from: f64, to: f64| from + share * (to - from);
    Some(TrajectoryPoint { accuracy, value: between(a.value, b.value), step: between(a.step, b.step), base: false })
}

/// The accuracies at which trajectories are compared: every 10 points that one of them passes, and the highest that all of them reach.
pub fn levels(trajectories: &[Vec<TrajectoryPoint>]) -> Vec<f64> {
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
pub fn highest(trajectory: &[TrajectoryPoint]) -> f64 {
    trajectory.iter().map(|point| point.accuracy).fold(f64::NEG_INFINITY, f64::max)
}

/// Accuracy of the base, the highest if the trajectories have several. If none begins with the base, the lowest first accuracy.
pub fn start(trajectories: &[Vec<TrajectoryPoint>]) -> f64 {
    let firsts = || trajectories.iter().filter_map(|trajectory| trajectory.first());
    let highest = firsts().filter(|point| point.base).map(|point| point.accuracy).reduce(f64::max);
    let lowest = || firsts().map(|point| point.accuracy).reduce(f64::min);
    highest.or_else(lowest).unwrap_or(f64::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forgetting::fixtures::{compared, model, paired_scores};
    use crate::forgetting::{ModelRef, NEW_TASK, RunRef};

    fn trajectory(points: &[(f64, f64, f64)]) -> Vec<TrajectoryPoint> {
        let point = |(i, &(accuracy, value, step)): (usize, &(f64, f64, f64))| TrajectoryPoint {
            accuracy,
            value,
            step,
            base: i == 0,
        };
        points.iter().enumerate().map(point).collect()
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
        let near = |point: Option<TrajectoryPoint>, value: f64, step: f64| {
            let point = point.unwrap();
            assert!((point.value - value).abs() < 1e-9, "{point:?}");
            assert!(point.step.is_nan() && step.is_nan() || (point.step - step).abs() < 1e-9, "{point:?}");
        };
        let both = trajectories(&[&last, &first], "base");
        assert_eq!(both[0].iter().map(|point| point.accuracy).collect::<Vec<_>>(), [0.04, 0.1, 0.16, 0.4]);
        near(at(&both[0], 0.1), -0.1, f64::NAN);
        near(at(&both[0], 0.07), -0.05, f64::NAN);
        // Half-trajectory from the end of the first run, at -0.04, to -0.05.
        near(at(&both[0], 0.28), -0.045, 25.0);
        near(at(&both[1], 0.07), -0.05, 50.0);
        assert!((start(&both) - 0.04).abs() < 1e-12 && !starts_above(&both[0], 0.01));
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
        assert!(at(&alone[0], 0.3).is_none() && starts_above(&alone[0], 0.3));
        assert!((at(&alone[0], 0.4).unwrap().value + 0.05).abs() < 1e-12);
        assert!(at(&alone[0], 0.5).is_none() && !starts_above(&alone[0], 0.5));
        // It says nothing of where the base is.
        assert_eq!(start(&[alone[0].clone(), trajectory(&[(0.04, 0.0, 0.0)])]), 0.04);
        // Measured on other examples is not measured.
        let mut first = tuned("s2", "base", 200, 12, 8);
        first.new_task.as_mut().unwrap().data = "other".into();
        assert_eq!(trajectories(&[&[&last], &[&first]], "base")[0], alone[0]);
        // Two runs that each claim to be the other's start come to an end.
        let circle = tuned("s2", "l1", 200, 12, 8);
        assert!(
            trajectories(&[&[&last], &[&circle]], "base")
                .iter()
                .all(|trajectory| !trajectory.is_empty() && !trajectory[0].base)
        );
    }

    #[test]
    fn a_way_is_read_between_its_stops_at_the_first_crossing() {
        let run = trajectory(&[(0.0, 0.0, 0.0), (0.4, -0.02, 100.0), (0.3, -0.1, 200.0), (0.6, -0.2, 300.0)]);
        let half = at(&run, 0.2).unwrap();
        assert!((half.value + 0.01).abs() < 1e-12 && (half.step - 50.0).abs() < 1e-9);
        assert_eq!(at(&run, 0.4).unwrap().value, -0.02, "a point itself");
        let later = at(&run, 0.45).unwrap();
        assert!((later.value - (-0.15)).abs() < 1e-12 && (later.step - 250.0).abs() < 1e-9, "{later:?}");
        assert_eq!(at(&run, 0.61), None);
        assert_eq!(at(&run, 0.0).unwrap().step, 0.0, "the base is there already");
        assert_eq!(at(&[], 0.5), None);
    }

    #[test]
    fn levels_are_every_ten_points_and_the_highest_common_one() {
        let (long, short) =
            (trajectory(&[(0.05, 0.0, 0.0), (0.62, -0.1, 9.0)]), trajectory(&[(0.05, 0.0, 0.0), (0.37, -0.3, 9.0)]));
        assert_eq!(levels(&[long.clone(), short.clone()]), [0.1, 0.2, 0.3, 0.37, 0.4, 0.5, 0.6]);
        assert!(at(&short, 0.4).is_none() && at(&long, 0.4).is_some());
        assert!(levels(&[trajectory(&[(0.5, 0.0, 0.0), (0.2, -0.1, 5.0)])]).is_empty(), "nothing was learnt");
        assert!(levels(&[]).is_empty());
    }
}
