//! The learning rate of each step, as transformers' `get_{constant,linear,cosine}_schedule_with_warmup`.

use crate::train::settings::{LrSchedule, TrainSettings};

/// Learning rate of `step` (from 0) of `total`.
///
/// The warm-up rises linearly from 0 (the very first step of a run with a warm-up has rate 0, as in transformers).
pub fn learning_rate(settings: &TrainSettings, step: usize, total: usize) -> f64 {
    let warmup = warmup_steps(settings.warmup_steps, total);
    if step < warmup {
        return settings.learning_rate * step as f64 / warmup as f64;
    }
    let after = total.saturating_sub(warmup).max(1) as f64;
    let progress = (step - warmup) as f64 / after;
    let factor = match settings.lr_scheduler_type {
        LrSchedule::Constant => 1.0,
        LrSchedule::Linear => total.saturating_sub(step) as f64 / after,
        LrSchedule::Cosine => (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0),
    };
    settings.learning_rate * factor
}

/// Number of warm-up steps: a share of `total` (rounded up, as transformers) below 1, a number of steps from 1 on. A number beyond `total`, which would
/// never reach the peak, is cut to [`CUT`] of the steps: a run is often shortened to try it, and its file keeps the warm-up of the long one.
pub fn warmup_steps(warmup: f64, total: usize) -> usize {
    let share = |share: f64| (share * total as f64).ceil() as usize;
    match warmup {
        _ if warmup < 1.0 => share(warmup),
        _ if is_cut(warmup, total) => share(CUT),
        _ => warmup as usize,
    }
}

/// Share of the steps that a warm-up longer than the run is cut to.
const CUT: f64 = 0.1;

fn is_cut(warmup: f64, total: usize) -> bool {
    warmup >= 1.0 && warmup as usize > total
}

/// What is to be said of a warm-up that is longer than the run.
pub fn cut_note(warmup: f64, total: usize) -> Option<String> {
    is_cut(warmup, total).then(|| {
        format!(
            "train.warmup_steps = {warmup} is longer than the run of {total} steps: the warm-up is cut to {}, a tenth; a share, such as \
             train.warmup_steps = 0.1, fits a run of any length",
            warmup_steps(warmup, total)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::settings::{Method, TrainConfig};

    fn rates(schedule: LrSchedule, warmup: f64, total: usize) -> Vec<f64> {
        let settings = TrainSettings {
            lr_scheduler_type: schedule,
            warmup_steps: warmup,
            learning_rate: 1.0,
            ..TrainConfig::defaults(Method::Sft).train
        };
        (0..total).map(|s| learning_rate(&settings, s, total)).collect()
    }

    #[test]
    fn the_schedules_are_those_of_transformers() {
        assert_eq!(rates(LrSchedule::Constant, 2.0, 4), [0.0, 0.5, 1.0, 1.0]);
        assert_eq!(rates(LrSchedule::Constant, 4.0, 4), [0.0, 0.25, 0.5, 0.75]);
        assert_eq!(rates(LrSchedule::Linear, 0.2, 10)[..4], [0.0, 0.5, 1.0, 0.875]);
        let cosine = rates(LrSchedule::Cosine, 0.0, 4);
        for (got, want) in cosine.iter().zip([1.0, 0.853_553_390_593_273_8, 0.5, 0.146_446_609_406_726_24]) {
            assert!((got - want).abs() < 1e-15);
        }
    }

    #[test]
    fn a_warm_up_longer_than_the_run_is_cut_to_a_tenth_of_it() {
        assert_eq!(rates(LrSchedule::Constant, 50.0, 20)[..4], [0.0, 0.5, 1.0, 1.0]);
        assert_eq!(rates(LrSchedule::Constant, 50.0, 3), [0.0, 1.0, 1.0]);
        assert!(
            cut_note(50.0, 20).unwrap().contains("= 50 is longer than the run of 20 steps: the warm-up is cut to 2")
        );
        assert_eq!((cut_note(20.0, 20), cut_note(0.5, 2), cut_note(0.0, 1)), (None, None, None));
    }
}
