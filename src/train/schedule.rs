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

/// Number of warm-up steps: a share of `total` (rounded up, as transformers) below 1, a number of steps from 1 on.
pub fn warmup_steps(warmup: f64, total: usize) -> usize {
    if warmup < 1.0 { (warmup * total as f64).ceil() as usize } else { warmup as usize }
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
        assert_eq!(rates(LrSchedule::Linear, 0.2, 10)[..4], [0.0, 0.5, 1.0, 0.875]);
        let cosine = rates(LrSchedule::Cosine, 0.0, 4);
        for (got, want) in cosine.iter().zip([1.0, 0.853_553_390_593_273_8, 0.5, 0.146_446_609_406_726_24]) {
            assert!((got - want).abs() < 1e-15);
        }
    }
}
