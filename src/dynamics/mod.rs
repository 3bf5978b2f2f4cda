//! Why some training data costs more prior knowledge than other data: how far a step on a training sample moves a sample of prior
//! knowledge (magnitude), in which direction, and how likely the data is under the base.
//!
//! `docs/dynamics.md` has the formulas and their sources. [`influence`] measures a pair, [`run()`] all of them under all checkpoints.

pub mod distribution;
pub mod influence;
mod kl_regression;
mod output_dir;
mod pairing;
mod perplexity;
mod result;
mod run;
mod samples;
pub mod sgd_step;
mod slope;
mod table;
mod write;

pub use influence::{Influence, influences};
pub use kl_regression::{KlAndForgetting, KlPoint, kl_and_forgetting};
pub use output_dir::{DYNAMICS_CSV, DYNAMICS_JSON, DYNAMICS_MD, PAIRS, SAMPLES, read_pairs};
pub use perplexity::Perplexity;
pub use result::{CheckpointResult, DynamicsResult, InfluenceConfig, Pair, PairSummary, SampleSetResult};
pub use run::{DynamicsObserver, DynamicsRequest, run};
pub use samples::{DynamicsSample, ResponseSource, SampleRole};
pub use sgd_step::{Gradient, ResponseLoss, SgdStep};
pub use table::{divergence, influence_over_checkpoints, influence_table, likelihood, notes};
pub use write::write;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod measure_tests;
#[cfg(test)]
mod result_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod toy_model;
