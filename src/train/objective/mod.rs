//! The losses, as pure functions from numbers to (loss, gradients, metrics): no tensors, no model, f64 inside.
//!
//! A window is everything that one optimizer step sees: all micro-batches of the accumulation. The denominators are those
//! of the window, so that cutting it differently changes nothing (`bnpo` excepted, whose definition is per micro-batch).

mod advantage;
pub mod grpo;
mod sft;

pub use advantage::{ADVANTAGE_EPS, advantages, mean_and_std};
pub use grpo::{GrpoInputs, GrpoOutput, GrpoSums, grpo};
pub use sft::{kl_penalty, sft, sft_by_sequence};

/// Size of the window that a micro-batch is part of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Response tokens over all micro-batches.
    pub tokens: f64,
    /// Sequences over all micro-batches.
    pub sequences: usize,
    /// Number of micro-batches.
    pub micro_batches: usize,
}

impl Window {
    /// The window of these response lengths, cut into `micro_batches`.
    pub fn of(lengths: impl IntoIterator<Item = usize>, micro_batches: usize) -> Window {
        let mut window = Window { tokens: 0.0, sequences: 0, micro_batches };
        for length in lengths {
            window.tokens += length as f64;
            window.sequences += 1;
        }
        window
    }
}
