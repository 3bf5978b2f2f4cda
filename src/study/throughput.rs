//! How long a unit of work takes, measured on tasks that are done.

use super::completion::CompletionRecord;
use super::task::{StudyTask, TaskKind};
use crate::Result;
use std::collections::HashMap;
use std::path::Path;

/// Seconds that a unit of work takes, by kind.
#[derive(Debug, Clone, Default)]
pub struct Throughput {
    seconds: HashMap<TaskKind, f64>,
    units: HashMap<TaskKind, f64>,
}

impl Throughput {
    /// Count a task.
    pub fn add(&mut self, kind: TaskKind, units: f64, seconds: f64) {
        *self.seconds.entry(kind).or_default() += seconds;
        *self.units.entry(kind).or_default() += units;
    }

    /// Of the tasks that are done in `out`.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn of(tasks: &[StudyTask], out: &Path) -> Result<Throughput> {
        let mut throughput = Throughput::default();
        for task in tasks {
            if let Some(record) = CompletionRecord::read(out, &task.name)?.filter(|record| record.whole) {
                throughput.add(task.work.kind, task.work.units, record.seconds);
            }
        }
        Ok(throughput)
    }

    /// Expected seconds of a task; `None` if no task of its kind was measured.
    pub fn seconds(&self, task: &StudyTask) -> Option<f64> {
        let kind = task.work.kind;
        match (self.seconds.get(&kind), self.units.get(&kind)) {
            (Some(seconds), Some(units)) if *units > 0.0 => Some(task.work.units * seconds / units),
            _ if matches!(kind, TaskKind::Small | TaskKind::Make) => Some(1.0),
            _ => None,
        }
    }

    /// Expected seconds of tasks of which `jobs` run at once; `None` if some kind among them is unknown.
    pub fn total<'t>(&self, tasks: impl Iterator<Item = &'t StudyTask>, jobs: usize) -> Option<f64> {
        tasks.map(|task| self.seconds(task)).sum::<Option<f64>>().map(|sum| sum / jobs as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::{JigsawCommand, Report};
    use super::*;

    fn task(kind: TaskKind, units: f64) -> StudyTask {
        let command = JigsawCommand::Report(Report { runs: Vec::new(), title: String::new(), out: "r.html".into() });
        StudyTask::new("a", "x", Vec::new(), command, kind, units)
    }

    #[test]
    fn time_is_expected_by_kind_and_unknown_where_nothing_was_measured() {
        let mut throughput = Throughput::default();
        throughput.add(TaskKind::Sft, 100.0, 10.0);
        throughput.add(TaskKind::Sft, 300.0, 10.0);
        let (known, unknown) = (task(TaskKind::Sft, 40.0), task(TaskKind::Rft, 40.0));
        assert_eq!((throughput.seconds(&known), throughput.seconds(&unknown)), (Some(2.0), None));
        assert_eq!(throughput.total([&known, &known].into_iter(), 2), Some(2.0));
        assert_eq!(throughput.total([&known, &unknown].into_iter(), 1), None);
    }
}
