//! `jigsaw study`: a whole comparison from one file.
//!
//! A study is a list of [`Task`]s, each one command of this program with what must be done before it. [`plan()`] makes them from the
//! file ([`Study`]); [`run()`] does those that are missing, each in a process of its own, so that the printed plan is what a user
//! could type, several can run at once, and any of them can be run elsewhere. A task that is done leaves a record; one that was
//! interrupted goes on, as the command itself does.

mod estimate;
mod file;
mod input;
mod names;
mod process;
mod record;
mod run;
mod task;

pub use estimate::{Estimate, estimate};
pub use file::Study;
pub use input::Input;
pub use process::{CHILD_OF_STUDY, Ended, log};
pub use record::Throughput;
pub use run::{Outcome, Progress, Settings, State, run};
pub use task::{Kind, Plan, Task, Work, plan};

impl Plan {
    /// The tasks by how many others must be done before them: those of a wave need only what earlier waves do.
    pub fn waves(&self) -> Vec<Vec<&Task>> {
        let mut level: std::collections::HashMap<&str, usize> = Default::default();
        let mut waves: Vec<Vec<&Task>> = Vec::new();
        for task in &self.tasks {
            let own = task.needs.iter().filter_map(|need| level.get(need.as_str())).max().map_or(0, |last| last + 1);
            level.insert(&task.name, own);
            waves.resize_with(waves.len().max(own + 1), Vec::new);
            waves[own].push(task);
        }
        waves
    }
}

#[cfg(test)]
mod tests;
