//! Training: SFT and GRPO over the same model, optimizer, run directory and checkpoints.
//!
//! A run is a directory ([`run_dir`]). Everything random in it is a function of the seed and of the step, so that a run that was
//! killed and resumes from its last checkpoint ends with the same bytes as one that was never stopped (on a CPU).

mod algorithm;
mod background;
mod batch_sampler;
mod callback;
pub mod checkpoint;
mod disk_space;
mod draw;
pub mod dry_run;
mod early_signs;
mod example_sizes;
mod freeze;
pub mod gradient_accumulation;
mod gradient_check;
mod grpo;
mod job;
pub mod known_names;
pub mod memory_plan;
pub mod metrics;
mod metrics_command;
pub mod objective;
mod on_policy;
pub mod optimizer;
pub mod penalties;
mod prefetch;
mod prior_evaluation;
mod prior_kl_settings;
mod reward_command;
mod rollout_server;
mod rollout_settings;
pub mod run_dir;
mod sample_buffer;
pub mod schedule;
pub mod settings;
mod sft;
mod sft_settings;
mod shard_outputs;
pub mod stall;
pub mod start;
mod state;
pub mod stop_criterion;
mod tensorboard;
mod trainer;
mod validation;

pub use callback::TrainerCallback;
pub(crate) use freeze::{check_parts, freeze};
pub use job::{ExampleId, TrainJob};
pub use metrics_command::MetricsCommand;
pub use trainer::{TrainOutcome, train};

#[cfg(test)]
mod tests;
