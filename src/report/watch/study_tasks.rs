//! The tasks of a study while it runs, as the live page shows them.

use serde::Serialize;

/// How far the tasks of a study have come.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StudyTasks {
    /// Tasks in all.
    pub total: usize,
    /// Names of those that are done.
    pub done: Vec<String>,
    /// Those that a process is working on.
    pub running: Vec<TaskUnderWay>,
    /// Those that have begun, are not done, and that no process is working on: stopped or failed.
    pub stopped: Vec<TaskUnderWay>,
    /// Names of those that have not begun.
    pub left: Vec<String>,
    /// Estimated seconds until all are done whose kind of work has been timed.
    pub seconds_left: f64,
    /// How many of those that are not done are of other kinds.
    pub not_timed: usize,
}

/// A task that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskUnderWay {
    /// Its name.
    pub name: String,
    /// The last line of its log.
    pub said: String,
}
