//! Training: SFT and GRPO over the same model, optimizer, run directory and checkpoints.
//!
//! A run is a directory ([`run`]). Everything random in it is a function of the seed and of the step, so that a run which was
//! killed and goes on from its last checkpoint ends with the same bytes as one that was not (on a CPU).

pub mod checkpoint;
mod deal;
pub mod dry_run;
mod evaluate;
mod feed;
mod freeze;
mod grpo;
pub mod guard;
pub mod launch;
pub mod metrics;
pub mod objective;
pub mod optimizer;
mod parts;
pub mod plan;
pub mod refresh;
mod report_to;
pub mod room;
pub mod run;
pub mod schedule;
pub mod settings;
pub mod sft;
pub mod sizes;
mod tensorboard;
mod trainer;

pub(crate) use freeze::{check_parts, freeze};
pub use report_to::ReportTo;
pub use trainer::{Ended, Job, Progress, train};

#[cfg(test)]
mod tests;
