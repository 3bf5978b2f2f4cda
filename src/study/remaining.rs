//! What is left to do of a study: which tasks are finished, and which of the others a call asks for.

use super::completion::is_done;
use super::task::{Plan, StudyTask};
use crate::{Error, Result};
use std::collections::HashSet;
use std::path::Path;

/// Names of the tasks that are finished in `out`. Tasks that aggregate others, such as the report, are left out: whether they must run again
/// depends on what else runs ([`finished_aggregates`]).
///
/// # Errors
/// An input error if a task was done with other settings.
pub fn finished_tasks<'a>(plan: &'a Plan, out: &Path) -> Result<HashSet<&'a str>> {
    let mut finished = HashSet::new();
    for task in &plan.tasks {
        if is_done(out, task)? && !task.aggregates {
            finished.insert(task.name.as_str());
        }
    }
    Ok(finished)
}

/// Names of the finished tasks that aggregate others: none if anything that they aggregate is going to run. The report is always made again.
///
/// # Errors
/// As [`finished_tasks`].
pub fn finished_aggregates<'a>(
    plan: &'a Plan,
    out: &Path,
    wanted: &[&StudyTask],
    finished: &HashSet<&str>,
) -> Result<Vec<&'a str>> {
    let more = wanted.iter().any(|task| !task.aggregates && !finished.contains(task.name.as_str()));
    let mut aggregates = Vec::new();
    for task in plan.tasks.iter().filter(|task| task.aggregates && task.name != "report" && !more) {
        if is_done(out, task)? {
            aggregates.push(task.name.as_str());
        }
    }
    Ok(aggregates)
}

/// The tasks that a call asks for: those named in `only`, or all when it is empty.
///
/// # Errors
/// An input error if `only` names an unknown task, or one that needs a task that is neither finished nor asked for.
pub fn wanted_tasks<'a>(plan: &'a Plan, only: &[String], finished: &HashSet<&str>) -> Result<Vec<&'a StudyTask>> {
    if only.is_empty() {
        return Ok(plan.tasks.iter().collect());
    }
    let find = |name: &String| {
        let found = plan.tasks.iter().find(|task| task.name == *name);
        found.ok_or_else(|| Error::input(format!("--only {name}: there is no such task; --list names them")))
    };
    let wanted: Vec<&StudyTask> = only.iter().map(find).collect::<Result<_>>()?;
    for task in &wanted {
        // A report shows the tasks that are done.
        let missing = |need: &&String| {
            task.name != "report"
                && !finished.contains(need.as_str())
                && !only.contains(need)
                && !plan.tasks.iter().any(|t| t.aggregates && t.name == **need)
        };
        if let Some(need) = task.needs.iter().find(missing) {
            return Err(Error::input(format!("--only {}: it needs {need}, which is not done", task.name)));
        }
    }
    Ok(wanted)
}
