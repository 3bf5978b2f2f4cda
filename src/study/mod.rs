//! `jigsaw study`: a whole comparison from one file.
//!
//! [`plan()`] turns the file ([`Study`]) into [`StudyTask`]s: each is one [`JigsawCommand`] of this program, with the tasks that must be done before
//! it. [`run()`] runs the tasks that are not done, each as a child process with exactly the command line that the plan shows, so that
//! several can run at once and any of them can be run elsewhere. A finished task leaves a record; an interrupted one resumes, as its
//! command does.

mod apart;
mod checkpoints;
mod command;
mod completion;
mod estimate;
mod input_hash;
mod plan;
mod process;
mod progress;
mod read_section;
mod reference;
mod remaining;
mod resolve;
mod run;
mod sequence;
mod sequence_section;
mod study_file;
mod task;
mod task_log;
mod throughput;

pub use apart::Apart;
pub use checkpoints::CheckpointChoice;
pub use command::{Eval, Gen, GenSettings, Interpolate, JigsawCommand, Report, Train};
pub use estimate::{StudyEstimate, estimate};
pub use input_hash::Input;
pub use plan::plan;
pub use process::{CHILD_OF_STUDY, Ended, log};
pub use progress::progress;
pub use reference::{StudySection, sections};
pub use run::{Outcome, RunOptions, StudyObserver, StudyState, run};
pub use study_file::{ResolveConfig, Study};
pub use task::{Plan, StudyTask, TaskKind, TaskSize};
pub use throughput::Throughput;

#[cfg(test)]
mod sequence_tests;
#[cfg(test)]
mod tests;
