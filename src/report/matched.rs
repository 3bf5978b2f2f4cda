//! Runs compared where they are equally good at the new task: a run that has learnt less has had less to forget for.

use crate::forgetting::Tuned;

/// A model on the way of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stop {
    /// Accuracy on the new task.
    pub accuracy: f64,
    /// What is compared at equal accuracy.
    pub value: f64,
    /// Optimizer steps made; NaN if that is not known.
    pub step: f64,
}

/// Optimizer steps made, if that is known.
pub fn step(tuned: &Tuned) -> Option<f64> {
    Some(tuned.model.run.as_ref()?.step? as f64)
}

/// A run's way from the base over its models, in order of training: accuracy on the new task against mean change of prior
/// knowledge. `from_base`: the run was started from the base, so that the base is at step 0.
pub fn way(models: &[&Tuned], from_base: bool) -> Vec<Stop> {
    let stop = |tuned: &&Tuned| {
        let (accuracy, value) = (tuned.new_task.as_ref()?.all.tuned.value.value, tuned.all.as_ref()?.change.value);
        let step = step(tuned).unwrap_or(f64::NAN);
        (accuracy.is_finite() && value.is_finite()).then_some(Stop { accuracy, value, step })
    };
    let mut way: Vec<Stop> = models.iter().filter_map(stop).collect();
    if let Some(new_task) = models.iter().find_map(|tuned| tuned.new_task.as_ref()) {
        let step = if from_base { 0.0 } else { f64::NAN };
        way.insert(0, Stop { accuracy: new_task.all.base.value.value, value: 0.0, step });
    }
    way
}

/// Where the way through `stops`, in order of training, first reaches `accuracy`: linear between neighbours. `None` if it
/// never does.
pub fn at(stops: &[Stop], accuracy: f64) -> Option<Stop> {
    let first = stops.first()?;
    if first.accuracy >= accuracy {
        return Some(Stop { accuracy, ..*first });
    }
    let (a, b) = stops.iter().zip(&stops[1..]).find(|(_, next)| next.accuracy >= accuracy)?;
    let share = (accuracy - a.accuracy) / (b.accuracy - a.accuracy);
    let between = |from: f64, to: f64| from + share * (to - from);
    Some(Stop { accuracy, value: between(a.value, b.value), step: between(a.step, b.step) })
}

/// The accuracies at which to compare ways that all begin with the base: every 10 points that some way passes, and the highest
/// that all of them reach.
pub fn levels(ways: &[Vec<Stop>]) -> Vec<f64> {
    let start = start(ways);
    let common = ways.iter().map(|way| highest(way)).fold(f64::INFINITY, f64::min);
    let highest = ways.iter().map(|way| highest(way)).fold(f64::NEG_INFINITY, f64::max);
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

/// Every 10 points above `start`, up to `highest`.
pub fn tens(start: f64, highest: f64) -> Vec<f64> {
    let tens = (1..=10).map(|tenth| f64::from(tenth) / 10.0);
    tens.filter(|level| *level > start && *level <= highest).collect()
}

/// The highest accuracy on a way.
pub fn highest(way: &[Stop]) -> f64 {
    way.iter().map(|stop| stop.accuracy).fold(f64::NEG_INFINITY, f64::max)
}

/// The accuracy that the ways begin with, the highest if they differ.
pub fn start(ways: &[Vec<Stop>]) -> f64 {
    ways.iter().filter_map(|way| way.first()).map(|stop| stop.accuracy).fold(f64::NEG_INFINITY, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(stops: &[(f64, f64, f64)]) -> Vec<Stop> {
        stops.iter().map(|&(accuracy, value, step)| Stop { accuracy, value, step }).collect()
    }

    #[test]
    fn a_way_is_read_between_its_stops_at_the_first_crossing() {
        let run = way(&[(0.0, 0.0, 0.0), (0.4, -0.02, 100.0), (0.3, -0.1, 200.0), (0.6, -0.2, 300.0)]);
        let half = at(&run, 0.2).unwrap();
        assert!((half.value + 0.01).abs() < 1e-12 && (half.step - 50.0).abs() < 1e-9);
        assert_eq!(at(&run, 0.4).unwrap().value, -0.02, "a stop itself");
        let later = at(&run, 0.45).unwrap();
        assert!((later.value - (-0.15)).abs() < 1e-12 && (later.step - 250.0).abs() < 1e-9, "{later:?}");
        assert_eq!(at(&run, 0.61), None);
        assert_eq!(at(&run, 0.0).unwrap().step, 0.0, "the base is there already");
        assert_eq!(at(&[], 0.5), None);
    }

    #[test]
    fn levels_are_every_ten_points_and_the_highest_common_one() {
        let (long, short) = (way(&[(0.05, 0.0, 0.0), (0.62, -0.1, 9.0)]), way(&[(0.05, 0.0, 0.0), (0.37, -0.3, 9.0)]));
        assert_eq!(levels(&[long.clone(), short.clone()]), [0.1, 0.2, 0.3, 0.37, 0.4, 0.5, 0.6]);
        assert!(at(&short, 0.4).is_none() && at(&long, 0.4).is_some());
        assert!(levels(&[way(&[(0.5, 0.0, 0.0), (0.2, -0.1, 5.0)])]).is_empty(), "nothing was learnt");
        assert!(levels(&[]).is_empty());
    }
}
