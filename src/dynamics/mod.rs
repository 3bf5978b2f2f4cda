//! Why training on some data costs more than on other: how much one step on a training sample moves a sample of prior knowledge
//! (magnitude), which way, and how likely the base finds the data (direction).
//!
//! `docs/dynamics.md` has the formulas and their sources. [`influence`] measures a pair, [`run()`] all of them under all checkpoints.

mod directory;
pub mod distribution;
mod found;
pub mod influence;
mod kl;
mod pairing;
mod perplexity;
mod run;
mod samples;
pub mod step;
mod table;
mod write;

pub use directory::{DYNAMICS_CSV, DYNAMICS_JSON, DYNAMICS_MD, PAIRS, SAMPLES};
pub use found::{Cell, CheckpointFound, Dynamics, Pair, SetFound, Setting};
pub use influence::{Influence, influences};
pub use kl::{KlAndForgetting, KlPoint, kl_and_forgetting};
pub use perplexity::Perplexity;
pub use run::{Progress, Request, run};
pub use samples::{Kind, Origin, Sample};
pub use step::{Gradient, Loss, Stepper};
pub use table::{divergence, influence_over_checkpoints, influence_table, likelihood, notes};
pub use write::write;

#[cfg(test)]
mod found_tests;
#[cfg(test)]
pub(crate) mod made_up;
#[cfg(test)]
mod micro;
#[cfg(test)]
mod run_tests;
#[cfg(test)]
mod tests;
