//! What `jigsaw study --status` prints: what runs where, what is queued, what failed and why, and when it ends.

use crate::io::text::{counted, message};
use crate::report::{StudyTasks, TaskUnderWay};
use crate::stats::table::duration;
use std::fmt::Write;
use std::path::Path;

/// The status of the study in `out` as text.
pub fn describe(out: &Path, tasks: &StudyTasks) -> String {
    let mut text = format!("{}: {} of {} done\n", out.display(), tasks.done.len(), counted(tasks.total, "task"));
    let groups = [
        ("running", &tasks.running),
        ("queued", &tasks.queued),
        ("failed; the same command tries again", &tasks.failed),
        ("stopped; the same command goes on", &tasks.stopped),
    ];
    for (title, group) in groups.into_iter().filter(|(_, group)| !group.is_empty()) {
        let _ = writeln!(text, "\n{title}:");
        group.iter().for_each(|task| text += &line(task));
    }
    if !tasks.left.is_empty() {
        let _ = write!(text, "\nnot begun: {}", counted(tasks.left.len(), "task"));
        if tasks.blocked > 0 {
            let _ = write!(text, ", {} of which need a task that failed", tasks.blocked);
        }
        text.push('\n');
    }
    if tasks.done.len() < tasks.total {
        let at_once = counted(tasks.at_once, "task");
        let _ = match tasks.seconds_left > 0.0 {
            true => write!(text, "\nabout {} left with {at_once} at once", duration(tasks.seconds_left)),
            false => write!(text, "\ntime left: not known yet"),
        };
        if tasks.not_timed > 0 {
            let _ = write!(text, ", without {} of kinds not timed yet", counted(tasks.not_timed, "task"));
        }
        text.push('\n');
    }
    tasks.notes.iter().for_each(|note| text += &format!("note: {note}\n"));
    text
}

/// A task with where it is and what is said of it, whose further lines are indented.
fn line(task: &TaskUnderWay) -> String {
    let mut text = format!("  {}", task.name);
    if !task.place.is_empty() {
        text += &format!("  [{}]", task.place);
    }
    if !task.said.is_empty() {
        text += &format!("  {}", message(&task.said).replace('\n', "\n    "));
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_where_what_failed_and_why_and_when_it_ends() {
        let one = |name: &str, place: &str, said: &str| TaskUnderWay {
            name: name.into(),
            place: place.into(),
            said: said.into(),
        };
        let tasks = StudyTasks {
            total: 7,
            done: vec!["puzzles.a".into()],
            running: vec![one("train.a", "node1, job 5_0 RUNNING", "step 3 of 9")],
            queued: vec![one("train.b", "job 5_1 PENDING", "Resources")],
            failed: vec![one("train.c", "node2, job 5_2 FAILED", "exit code 1: cannot write x:\nno space")],
            left: vec!["compare.a".into(), "compare.c".into(), "report".into()],
            blocked: 1,
            seconds_left: 7265.0,
            not_timed: 2,
            at_once: 3,
            notes: vec!["squeue refuses: x".into()],
            ..StudyTasks::default()
        };
        let expected = "\
runs/a: 1 of 7 tasks done

running:
  train.a  [node1, job 5_0 RUNNING]  step 3 of 9

queued:
  train.b  [job 5_1 PENDING]  Resources

failed; the same command tries again:
  train.c  [node2, job 5_2 FAILED]  exit code 1: cannot write x:
      no space

not begun: 3 tasks, 1 of which need a task that failed

about 2 h 1 min left with 3 tasks at once, without 2 tasks of kinds not timed yet
note: squeue refuses: x
";
        assert_eq!(describe(Path::new("runs/a"), &tasks), expected);
        let done = StudyTasks { total: 1, done: vec!["report".into()], ..StudyTasks::default() };
        assert_eq!(describe(Path::new("runs/a"), &done), "runs/a: 1 of 1 task done\n");
    }
}
