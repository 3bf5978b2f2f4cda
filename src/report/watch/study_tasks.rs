//! The tasks of a study while it runs, as the live page and `jigsaw study --status` show them.

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
    /// Those that wait in a queue.
    pub queued: Vec<TaskUnderWay>,
    /// Those that failed, with the reason.
    pub failed: Vec<TaskUnderWay>,
    /// Those that have begun, are not done, and that no process is working on.
    pub stopped: Vec<TaskUnderWay>,
    /// Names of those that have not begun.
    pub left: Vec<String>,
    /// How many of these need one that failed.
    pub blocked: usize,
    /// Estimated seconds until all are done whose kind of work has been timed, without those that failed or need one that did.
    pub seconds_left: f64,
    /// How many of those to come are of other kinds.
    pub not_timed: usize,
    /// Tasks at once, in the estimate.
    pub at_once: usize,
    /// What could not be found out.
    pub notes: Vec<String>,
}

/// A task that has begun or is queued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskUnderWay {
    /// Its name.
    pub name: String,
    /// Where it runs or ran: machine and process, or job. May be empty.
    pub place: String,
    /// The last line of its log, why it failed, or what it waits for.
    pub said: String,
}
