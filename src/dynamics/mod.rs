//! Why some training data costs more prior knowledge than other data: how far a step on a training sample moves a sample of prior
//! knowledge (magnitude), in which direction, and how likely the data is under the base.
//!
//! `docs/dynamics.md` has the formulas and their sources. [`influence`] measures a pair, [`run()`] all of them under all checkpoints.

pub mod distribution;
pub mod influence;
mod kl_regression;
mod measurement;
mod on_policy;
mod output_dir;
mod pairing;
mod perplexity;
mod perplexity_and_change;
mod result;
mod run;
mod samples;
mod slope;
pub mod stepper;
mod table;
mod write;

pub use influence::{Influence, InfluenceConfig, influences};
pub use kl_regression::{KlAndForgetting, KlPoint, kl_and_forgetting};
pub use measurement::DynamicsObserver;
pub use on_policy::{OnPolicyResult, OnPolicySample};
pub use output_dir::{DYNAMICS_CSV, DYNAMICS_JSON, DYNAMICS_MD, ON_POLICY, PAIRS, SAMPLES, read_pairs};
pub use pairing::Pair;
pub use perplexity::{PartPerplexity, Perplexity};
pub use perplexity_and_change::{PerplexityAndChange, PerplexityFit};
pub use result::{CheckpointResult, DynamicsResult, PairSummary, SampleSetResult, StepCheck};
pub use run::{DynamicsRequest, run};
pub use samples::{DynamicsSample, ResponseSource, SampleRole};
pub use stepper::{Gradient, ResponseLoss, Stepper};
pub use table::{checkpoint_tables, divergence, influence_over_checkpoints, likelihood, notes, on_policy_table};
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
