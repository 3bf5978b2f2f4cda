//! The losses, one file each: pure functions from numbers to (loss, gradients, metrics), with no tensors, no model, and f64 inside.
//!
//! Denominators are those of the whole batch of an optimizer step, so that cutting it into other micro-batches changes nothing (`bnpo`
//! excepted, whose definition is per micro-batch). To add a loss, write its file, add its name to the settings, and a line to
//! [`of_config`].

mod advantage;
mod base;
mod dft;
mod eaft;
mod grpo;
mod kl_penalty;
mod nll;

pub use advantage::{ADVANTAGE_EPS, advantages, mean_and_std};
pub use base::{BatchTotals, MetricSums, Objective, ObjectiveInputs, ObjectiveOutput, RequiredInputs};
pub use dft::Dft;
pub use eaft::Eaft;
pub use grpo::GrpoLoss;
pub use kl_penalty::KlPenalty;
pub use nll::Nll;

use crate::train::settings::{SftLossType, TrainConfig};

/// The objective that a configuration names.
pub fn of_config(config: &TrainConfig) -> Box<dyn Objective> {
    if let (Some(settings), Some(rollout)) = (&config.grpo, &config.rollout) {
        return Box::new(GrpoLoss { settings: settings.clone(), max_completion_length: rollout.max_new_tokens });
    }
    let sft = config.sft.clone().unwrap_or_default();
    let reduction = sft.loss_reduction;
    let objective: Box<dyn Objective> = match sft.loss_type {
        SftLossType::Nll => Box::new(Nll { reduction }),
        SftLossType::Dft => Box::new(Dft { reduction }),
        SftLossType::Eaft => Box::new(Eaft { reduction }),
    };
    match sft.kl_coef > 0.0 {
        true => Box::new(KlPenalty { objective, coef: sft.kl_coef, reduction }),
        false => objective,
    }
}
