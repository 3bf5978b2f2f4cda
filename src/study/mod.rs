//! `jigsaw study`: a whole comparison from one file.
//!
//! [`plan()`] turns the file ([`Study`]) into [`StudyTask`]s: each is one [`JigsawCommand`] of this program, with the tasks that must be done before
//! it. [`run()`] runs the tasks that are not done, each as a child process with exactly the command line that the plan shows, so that
//! several can run at once and any of them can be run elsewhere, as [`submit`] has a queue do. A finished task leaves a record; an interrupted
//! one resumes, as its command does. [`status()`] says how a study stands.

mod apart;
mod attempt;
mod checkpoints;
mod command;
mod completion;
mod estimate;
mod executor;
mod input_hash;
mod plan;
mod process;
mod read_section;
mod reference;
mod remaining;
mod resolve;
mod run;
mod sequence;
mod sequence_section;
mod slurm;
mod status;
mod study_file;
mod task;
mod task_log;
mod throughput;

pub use apart::Apart;
pub use attempt::Ended;
pub use checkpoints::CheckpointChoice;
pub use command::{Eval, Gen, GenSettings, Interpolate, JigsawCommand, Report, Train};
pub use estimate::{StudyEstimate, estimate};
pub use executor::RunOptions;
pub use input_hash::Input;
pub use plan::plan;
pub use process::{CHILD_OF_STUDY, log};
pub use reference::{StudySection, sections};
pub use run::{Outcome, StudyObserver, StudyState, run};
pub use slurm::{JOB, SlurmJob, Submission, requeue, submit};
pub use status::status;
pub use study_file::{ResolveConfig, Study};
pub use task::{Plan, StudyTask, TaskKind, TaskSize};
pub use throughput::Throughput;

#[cfg(test)]
mod sequence_tests;
#[cfg(test)]
mod tests;
