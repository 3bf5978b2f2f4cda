//! `jigsaw study`: a whole comparison from one file.
//!
//! [`plan()`] turns the file ([`Study`]) into [`Task`]s: each is one [`Command`] of this program, with the tasks that must be done before
//! it. [`run()`] runs the tasks that are not done, each as a child process with exactly the command line that the plan shows, so that
//! several can run at once and any of them can be run elsewhere. A finished task leaves a record; an interrupted one resumes, as its
//! command does.

mod checkpoints;
mod command;
mod completion;
mod estimate;
mod file;
mod input;
mod plan;
mod process;
mod remaining;
mod resolve;
mod run;
mod task;
mod throughput;

pub use checkpoints::RunCheckpoints;
pub use command::{Command, Eval, Gen, GenSettings, Interpolate, Report, Train};
pub use estimate::{Estimate, estimate};
pub use file::{ResolveConfig, Study};
pub use input::Input;
pub use plan::plan;
pub use process::{CHILD_OF_STUDY, Ended, log};
pub use run::{Outcome, RunOptions, StudyObserver, StudyState, run};
pub use task::{Kind, Plan, Task, Work};
pub use throughput::Throughput;

#[cfg(test)]
mod tests;
