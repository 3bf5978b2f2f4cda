//! The losses, one file each: pure functions from numbers to (loss, gradients, metrics), with no tensors, no model, and f64 inside.
//!
//! Denominators are those of the whole batch of an optimizer step, so that cutting it into other micro-batches changes nothing (`bnpo`
//! excepted, whose definition is per micro-batch). `docs/architecture.md` says how to
//! add a loss.

mod advantage;
mod base;
mod dft;
mod eaft;
mod grpo;
mod kl_penalty;
mod nll;
mod prift;
mod prior_kl;
mod psft;
mod sdft;

pub use advantage::{ADVANTAGE_EPS, advantages, mean_and_std};
pub use base::{BatchTotals, MetricSums, Objective, ObjectiveInputs, ObjectiveOutput, RequiredInputs, SamplerLogprobs};
pub use dft::Dft;
pub use eaft::Eaft;
pub use grpo::GrpoLoss;
pub use kl_penalty::KlPenalty;
pub use nll::Nll;
pub use prift::Prift;
pub use prior_kl::PriorKl;
pub use psft::Psft;
pub use sdft::{Direction, Sdft};

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
        SftLossType::Psft => Box::new(Psft { reduction, epsilon_high: sft.epsilon_high }),
        SftLossType::Prift => Box::new(Prift { reduction }),
        SftLossType::Sdft => Box::new(Sdft { reduction, direction: Direction::Forward }),
        SftLossType::SdftReverse => Box::new(Sdft { reduction, direction: Direction::Reverse }),
    };
    match sft.kl_coef > 0.0 {
        true => Box::new(KlPenalty { objective, coef: sft.kl_coef, reduction }),
        false => objective,
    }
}

/// Whether a run needs a copy of the model that it starts from.
pub fn needs_reference(config: &TrainConfig) -> bool {
    // What a server samples is held against the model without its adapter.
    let served = config.rollout.as_ref().is_some_and(|rollout| rollout.server.is_some());
    of_config(config).needs().reference() || config.prior_kl.is_some() || config.train.l2_sp > 0.0 || served
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
