//! Training: SFT and GRPO over the same model, optimizer, run directory and checkpoints.
//!
//! A run is a directory ([`run`]). Everything random in it is a function of the seed and of the step, so that a run which was
//! killed and goes on from its last checkpoint ends with the same bytes as one that was not (on a CPU).

mod batch_sampler;
pub mod checkpoint;
mod disk_space;
pub mod dry_run;
mod evaluate;
mod freeze;
mod gradient_check;
mod grpo;
pub mod launch;
pub mod memory_plan;
pub mod metrics;
mod metrics_command;
pub mod objective;
pub mod on_policy;
pub mod optimizer;
mod prefetch;
pub mod run_dir;
pub mod schedule;
pub mod settings;
pub mod sft;
mod shard_outputs;
mod sizes;
pub mod stall;
mod tensorboard;
mod trainer;

pub(crate) use freeze::{check_parts, freeze};
pub use metrics_command::MetricsCommand;
pub use trainer::{TrainJob, TrainOutcome, TrainerCallback, train};

#[cfg(test)]
mod tests;
