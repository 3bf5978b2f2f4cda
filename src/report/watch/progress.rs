//! How far a run has come and how long it may still take, from its metrics.

use crate::report::discover::TrainRun;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

/// Steps whose time is averaged.
const RECENT: usize = 50;
/// Steps that must have been watched before their time counts more than what the run has recorded.
const WATCHED: u64 = 10;

/// When each run was first seen, and at which step.
pub type Seen = HashMap<PathBuf, (Instant, u64)>;

/// The steps that the run is to make: `train.steps`, or as many as `train.epochs` come to at the rate of its last step; `None` before the first.
pub fn total_steps(run: &TrainRun) -> Option<u64> {
    let train = run.config.get("train")?;
    if let Some(steps) = train.get("steps").and_then(|steps| steps.as_integer()) {
        return u64::try_from(steps).ok();
    }
    let epochs = train.get("epochs")?;
    let epochs = epochs.as_float().or_else(|| Some(epochs.as_integer()? as f64))?;
    let (step, epoch) = run.series("epoch").last().copied().filter(|(_, epoch)| *epoch > 0.0)?;
    Some((epochs * step / epoch - 1e-6).ceil().max(step) as u64)
}

/// Seconds that a step takes: as watched, with the evaluations and checkpoints between steps, else the mean time that the last steps have
/// recorded; `None` before the first.
pub fn seconds_per_step(run: &TrainRun, seen: &mut Seen, now: Instant) -> Option<f64> {
    let step = run.last_step();
    let (began, first) = *seen.entry(run.dir.clone()).or_insert((now, step));
    // A resumed run begins again at an earlier step.
    if let Some(made) = step.checked_sub(first).filter(|made| *made >= WATCHED) {
        return Some(now.duration_since(began).as_secs_f64() / made as f64);
    }
    let times = run.series("step_seconds");
    let recent =
        times[times.len().saturating_sub(RECENT)..].iter().map(|(_, seconds)| *seconds).filter(|s| s.is_finite());
    let recent: Vec<f64> = recent.collect();
    (!recent.is_empty()).then(|| recent.iter().sum::<f64>() / recent.len() as f64)
}
