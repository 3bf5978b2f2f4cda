//! What a training algorithm is.

use super::state::StepContext;
use crate::Result;

/// A way to train. It makes rounds: each takes examples, makes `TrainConfig::steps_per_round` optimizer steps on them, and is done with
/// them. The trainer does the rest: evaluation, checkpoints, stopping and resuming between rounds.
pub trait Algorithm {
    /// Make one round.
    fn round(&self, ctx: &mut StepContext<'_>) -> Result<()>;

    /// Whether the first step has a gradient in every parameter that can learn. If so it is checked there; else by a pass of its own.
    fn first_step_has_all_gradients(&self) -> bool;
}
