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
    /// It is the base, in which nothing has changed yet.
    pub base: bool,
}

/// Optimizer steps made, if that is known.
pub fn step(tuned: &Tuned) -> Option<f64> {
    Some(tuned.model.run.as_ref()?.step? as f64)
}

/// The ways of `runs`, each the models of a run in order of training, from the base of this hash on: accuracy on the new task against
/// mean change of prior knowledge. See [`before`] for where they begin.
pub fn ways(runs: &[&[&Tuned]], base: &str) -> Vec<Vec<Stop>> {
    let way = |(i, models): (usize, &&[&Tuned])| {
        let own = models.iter().filter_map(|tuned| stop(tuned));
        before(runs, i, base).into_iter().chain(own).collect()
    };
    runs.iter().enumerate().map(way).collect()
}

/// What lies before the first model of run `i`: the base; for a run that was started from a model of another of `runs`, measured on
/// the same examples, that run's way as far as this model. Nothing where the start is a model that none of them has measured.
pub fn before(runs: &[&[&Tuned]], i: usize, base: &str) -> Vec<Stop> {
    before_of(runs, i, base, runs.len())
}

/// [`before`], over at most `left` further runs.
fn before_of(runs: &[&[&Tuned]], i: usize, base: &str, left: usize) -> Vec<Stop> {
    let Some(new_task) = runs[i].iter().find_map(|tuned| tuned.new_task.as_ref()) else { return Vec::new() };
    let started = runs[i].iter().find_map(|tuned| tuned.model.run.as_ref()).map(|run| run.model_hash.as_str());
    let of_base = |step| vec![Stop { accuracy: new_task.all.base.value.value, value: 0.0, step, base: true }];
    let start = match started {
        Some(hash) if hash == base => return of_base(0.0),
        // A model of no run, or of one that does not say what it was started from.
        None | Some("") => return of_base(f64::NAN),
        Some(hash) => hash,
    };
    let is_start = |tuned: &&Tuned| {
        let same = tuned.new_task.as_ref().is_some_and(|own| own.data == new_task.data);
        same && tuned.model.hash == start && stop(tuned).is_some()
    };
    let others = runs.iter().enumerate().filter(|(other, _)| *other != i && left > 0);
    let found = others.filter_map(|(other, models)| Some((other, models.iter().position(is_start)?))).next();
    let Some((other, last)) = found else { return Vec::new() };
    let mut way = before_of(runs, other, base, left - 1);
    way.extend(runs[other][..=last].iter().filter_map(|tuned| stop(tuned)));
    // Steps are those of this run.
    way.iter_mut().for_each(|stop| stop.step = f64::NAN);
    if let Some(start) = way.last_mut() {
        start.step = 0.0;
    }
    way
}

fn stop(tuned: &Tuned) -> Option<Stop> {
    let (accuracy, value) = (tuned.new_task.as_ref()?.all.tuned.value.value, tuned.all.as_ref()?.change.value);
    let step = step(tuned).unwrap_or(f64::NAN);
    (accuracy.is_finite() && value.is_finite()).then_some(Stop { accuracy, value, step, base: false })
}

/// The way begins above `accuracy`, at a model that is not the base: what was lost at that accuracy is not known.
pub fn starts_above(stops: &[Stop], accuracy: f64) -> bool {
    stops.first().is_some_and(|first| !first.base && first.accuracy > accuracy)
}

/// Where the way through `stops`, in order of training, first reaches `accuracy`: linear between neighbours. `None` if it
/// never does, or if it [`starts_above`].
pub fn at(stops: &[Stop], accuracy: f64) -> Option<Stop> {
    let first = stops.first()?;
    if starts_above(stops, accuracy) {
        return None;
    }
    if first.accuracy >= accuracy {
        return Some(Stop { accuracy, ..*first });
    }
    let (a, b) = stops.iter().zip(&stops[1..]).find(|(_, next)| next.accuracy >= accuracy)?;
    let share = (accuracy - a.accuracy) / (b.accuracy - a.accuracy);
    let between = |from: f64, to: f64| from + share * (to - from);
    Some(Stop { accuracy, value: between(a.value, b.value), step: between(a.step, b.step), base: false })
}

/// The accuracies at which to compare ways: every 10 points that some way passes, and the highest
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

/// The accuracy of the base that the ways begin with, the highest if they differ. Where none begins with the base, the lowest that one
/// begins with.
pub fn start(ways: &[Vec<Stop>]) -> f64 {
    let firsts = || ways.iter().filter_map(|way| way.first());
    let highest = firsts().filter(|stop| stop.base).map(|stop| stop.accuracy).reduce(f64::max);
    let lowest = || firsts().map(|stop| stop.accuracy).reduce(f64::min);
    highest.or_else(lowest).unwrap_or(f64::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forgetting::made_up::{compared, model, planted};
    use crate::forgetting::{Model, NEW_TASK, Run};

    fn way(stops: &[(f64, f64, f64)]) -> Vec<Stop> {
        let stop =
            |(i, &(accuracy, value, step)): (usize, &(f64, f64, f64))| Stop { accuracy, value, step, base: i == 0 };
        stops.iter().enumerate().map(stop).collect()
    }

    /// A model of a run that was started from `start`: of 100 answers 4 are right in the base and `learnt` more here, of 200 others `lost`
    /// fewer.
    fn tuned(hash: &str, start: &str, step: u64, learnt: usize, lost: usize) -> Tuned {
        let run = Run {
            name: "run".into(),
            dir: "/runs/run".into(),
            step: Some(step),
            seed: Some(1),
            data_hash: "d".into(),
            model_hash: start.into(),
        };
        let model = Model { hash: hash.into(), run: Some(run), ..model("run") };
        let new_task = compared(NEW_TASK, &planted(100, 4, 0, learnt));
        Tuned::of(model, Some(new_task), vec![compared("prior", &planted(200, 160, lost, 0))], Vec::new())
    }

    #[test]
    fn a_run_that_went_on_from_another_has_that_ones_way_before_its_own() {
        let first = [tuned("s1", "base", 100, 6, 20), tuned("s2", "base", 200, 12, 8)];
        let last = [tuned("l1", "s2", 50, 36, 10)];
        let (first, last): (Vec<&Tuned>, Vec<&Tuned>) = (first.iter().collect(), last.iter().collect());
        let near = |stop: Option<Stop>, value: f64, step: f64| {
            let stop = stop.unwrap();
            assert!((stop.value - value).abs() < 1e-9, "{stop:?}");
            assert!(stop.step.is_nan() && step.is_nan() || (stop.step - step).abs() < 1e-9, "{stop:?}");
        };
        let both = ways(&[&last, &first], "base");
        assert_eq!(both[0].iter().map(|stop| stop.accuracy).collect::<Vec<_>>(), [0.04, 0.1, 0.16, 0.4]);
        near(at(&both[0], 0.1), -0.1, f64::NAN);
        near(at(&both[0], 0.07), -0.05, f64::NAN);
        // Half-way from the end of the first run, at -0.04, to -0.05.
        near(at(&both[0], 0.28), -0.045, 25.0);
        near(at(&both[1], 0.07), -0.05, 50.0);
        assert!((start(&both) - 0.04).abs() < 1e-12 && !starts_above(&both[0], 0.01));
        // From a checkpoint on, what the other run did later is not part of the way.
        let early = [tuned("e1", "s1", 50, 36, 10)];
        let early: Vec<&Tuned> = early.iter().collect();
        let way = &ways(&[&early, &first], "base")[0];
        assert_eq!(way.iter().map(|stop| stop.accuracy).collect::<Vec<_>>(), [0.04, 0.1, 0.4]);
    }

    #[test]
    fn below_a_start_that_is_not_measured_nothing_is_read() {
        let last = tuned("l1", "s2", 50, 36, 10);
        let alone = ways(&[&[&last]], "base");
        assert_eq!(alone[0].len(), 1);
        assert!(at(&alone[0], 0.3).is_none() && starts_above(&alone[0], 0.3));
        assert!((at(&alone[0], 0.4).unwrap().value + 0.05).abs() < 1e-12);
        assert!(at(&alone[0], 0.5).is_none() && !starts_above(&alone[0], 0.5));
        // It says nothing of where the base is.
        assert_eq!(start(&[alone[0].clone(), way(&[(0.04, 0.0, 0.0)])]), 0.04);
        // Measured on other examples is not measured.
        let mut first = tuned("s2", "base", 200, 12, 8);
        first.new_task.as_mut().unwrap().data = "other".into();
        assert_eq!(ways(&[&[&last], &[&first]], "base")[0], alone[0]);
        // Two runs that each claim to be the other's start come to an end.
        let circle = tuned("s2", "l1", 200, 12, 8);
        assert!(ways(&[&[&last], &[&circle]], "base").iter().all(|way| !way.is_empty() && !way[0].base));
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
