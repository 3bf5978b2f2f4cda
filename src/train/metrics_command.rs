//! `--metrics-command COMMAND`: a command of the user's that gets each line of metrics as it is made, to show it elsewhere.
//!
//! It is started once, by the shell, when training begins, and reads from its standard input the lines of `metrics.jsonl`, each with the name of
//! the run before the step: `{"run":"sft","step":1,"loss":...}`. [`RUN_DIR_VARIABLE`] names the run's directory, with its settings. The run never depends on it: if it fails, ends early or does not
//! keep up, one warning says so. At the end its input is closed, and it has some seconds to finish.

use super::callback::TrainerCallback;
use super::metrics::{Metrics, line};
use crate::io::running_time::RunningTime;
use crate::io::shell::{end, shell};
use crate::{Error, Result};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Lines that wait for a slow command before further ones are dropped.
const WAITING: usize = 10_000;
/// How long a command may take after its input is closed: some send what they have kept.
const PATIENCE: Duration = Duration::from_secs(30);
/// Environment variable of the command: the absolute path of the run's directory.
const RUN_DIR_VARIABLE: &str = "JIGSAW_RUN_DIR";
/// How often it is looked at then.
const LOOK: Duration = Duration::from_millis(20);

/// Passes every event on to another callback, and the metrics also to a command.
pub struct MetricsCommand<'a> {
    inner: &'a mut (dyn TrainerCallback + Send),
    command: String,
    run: String,
    dir: PathBuf,
    patience: Duration,
    started: Option<Started>,
    /// Something was wrong with the command, and was said.
    warned: bool,
}

/// A command under way.
struct Started {
    child: Child,
    lines: SyncSender<Vec<u8>>,
}

impl<'a> MetricsCommand<'a> {
    /// Report the metrics of the run in `dir`, by whose name it is called, to `command`, which is started when the run begins.
    ///
    /// # Errors
    /// An input error if the command is blank.
    pub fn new(command: &str, dir: &Path, inner: &'a mut (dyn TrainerCallback + Send)) -> Result<MetricsCommand<'a>> {
        if command.trim().is_empty() {
            return Err(Error::input("--metrics-command is blank: name a command that reads lines of JSON"));
        }
        let (command, dir) = (command.to_string(), std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf()));
        let run = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(MetricsCommand { inner, command, run, dir, patience: PATIENCE, started: None, warned: false })
    }

    /// Close the command's input and wait for it, some seconds at most; then it is ended.
    pub fn close(mut self) {
        let Some(Started { mut child, lines }) = self.started.take() else { return };
        drop(lines);
        let mut waited = RunningTime::start();
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return,
                Ok(Some(status)) => return self.warn(&format!("ended with {status}")),
                Ok(None) if waited.elapsed() < self.patience => std::thread::sleep(LOOK),
                Ok(None) => {
                    end(&mut child);
                    let seconds = self.patience.as_secs_f64();
                    return self.warn(&format!("was still at work {seconds} s after the last line, and was ended"));
                }
                Err(e) => return self.warn(&format!("cannot be waited for: {e}")),
            }
        }
    }

    fn begin(&mut self) {
        match start(&self.command, &self.dir) {
            Ok(started) => self.started = Some(started),
            Err(e) => self.warn(&format!("cannot be started: {e}")),
        }
    }

    fn send(&mut self, step: usize, metrics: &Metrics) {
        let Some(started) = &mut self.started else { return };
        let ended = started.child.try_wait().ok().flatten();
        let mut all = serde_json::Map::from_iter([("run".to_string(), self.run.clone().into())]);
        all.extend(line(step, metrics));
        let mut text = serde_json::Value::Object(all).to_string().into_bytes();
        text.push(b'\n');
        match (ended, started.lines.try_send(text)) {
            (Some(status), _) => {
                self.started = None;
                self.warn(&format!("ended with {status} before the run did; the run continues without it"));
            }
            (None, Err(TrySendError::Full(_))) => self.warn("does not keep up: lines are left out for it"),
            // It has closed its input, and will have ended when it is looked at next.
            (None, Err(TrySendError::Disconnected(_)) | Ok(())) => {}
        }
    }

    /// Say what is wrong, the first time. The command itself is not shown: it may hold a key.
    fn warn(&mut self, what: &str) {
        if !std::mem::replace(&mut self.warned, true) {
            self.inner.note(&format!("warning: --metrics-command {what}"));
        }
    }
}

impl TrainerCallback for MetricsCommand<'_> {
    fn start(&mut self, step: usize, total: usize) {
        self.begin();
        self.inner.start(step, total);
    }

    fn step(&mut self, step: usize, metrics: &Metrics) {
        self.send(step, metrics);
        self.inner.step(step, metrics);
    }

    fn evaluation(&mut self, step: usize, metrics: &Metrics, partial_credit: Option<&'static str>) {
        self.send(step, metrics);
        self.inner.evaluation(step, metrics, partial_credit);
    }

    fn note(&mut self, text: &str) {
        self.inner.note(text);
    }
}

fn start(command: &str, dir: &Path) -> std::io::Result<Started> {
    let mut shell = shell(command);
    shell.env(RUN_DIR_VARIABLE, dir).stdin(Stdio::piped()).stdout(Stdio::null());
    #[cfg(unix)]
    {
        use std::os::fd::AsFd;
        // Standard output is for the run's own results.
        shell.stdout(Stdio::from(std::io::stderr().as_fd().try_clone_to_owned()?));
    }
    let mut child = shell.spawn()?;
    let input = child.stdin.take().ok_or_else(|| std::io::Error::other("it has no standard input"))?;
    let (lines, waiting) = sync_channel(WAITING);
    // A pipe that nobody reads fills up: only this thread waits then.
    std::thread::Builder::new().name("report-to".into()).spawn(move || pass_on(input, &waiting))?;
    Ok(Started { child, lines })
}

/// Write what comes to the input of a command. A pipe that nobody reads holds up only the thread of this.
pub(super) fn pass_on(mut input: ChildStdin, waiting: &Receiver<Vec<u8>>) {
    while let Ok(text) = waiting.recv() {
        if input.write_all(&text).and_then(|()| input.flush()).is_err() {
            return;
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::time::Instant;

    #[derive(Default)]
    struct Notes(Vec<String>, usize);

    impl TrainerCallback for Notes {
        fn start(&mut self, _step: usize, _total: usize) {}
        fn step(&mut self, _step: usize, _metrics: &Metrics) {
            self.1 += 1;
        }
        fn evaluation(&mut self, _step: usize, _metrics: &Metrics, _partial_credit: Option<&'static str>) {
            self.1 += 1;
        }
        fn note(&mut self, text: &str) {
            self.0.push(text.to_string());
        }
    }

    /// Tell a command of `steps` steps, `pause` between them; the notes, and what was passed on.
    fn report(command: &str, steps: usize, pause: Duration, patience: Duration) -> Notes {
        let mut notes = Notes::default();
        let mut report = MetricsCommand::new(command, Path::new("/runs/my-run"), &mut notes).unwrap();
        report.patience = patience;
        report.start(0, steps);
        for step in 1..=steps {
            let mut metrics = Metrics::default();
            metrics.push("loss", step as f64 / 4.0);
            metrics.push("kl", f64::NAN);
            report.step(step, &metrics);
            std::thread::sleep(pause);
        }
        let mut metrics = Metrics::default();
        metrics.push("eval/accuracy", 0.5);
        report.evaluation(steps, &metrics, None);
        report.close();
        assert_eq!(notes.1, steps + 1, "the other callback hears everything");
        notes
    }

    #[test]
    fn a_command_gets_every_line_with_the_runs_name_and_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lines");
        // It takes a while after its last line, and is still waited for.
        let command = format!("cat >> {0}; sleep 0.2; echo end $JIGSAW_RUN_DIR >> {0}", file.display());
        let notes = report(&command, 3, Duration::ZERO, Duration::from_secs(60));
        assert_eq!(notes.0, [""; 0]);
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[4]), (5, "end /runs/my-run"));
        assert_eq!(lines[0], r#"{"run":"my-run","step":1,"loss":0.25,"kl":null}"#);
        let last: Value = serde_json::from_str(lines[3]).unwrap();
        assert_eq!((&last["step"], &last["eval/accuracy"]), (&3.into(), &0.5.into()));
    }

    #[test]
    fn a_command_that_ends_at_once_is_warned_of_once() {
        for (command, said) in [("exit 3", "exit status: 3"), ("no-such-command-of-anybody", "exit status: 127")] {
            let notes = report(command, 30, Duration::from_millis(20), Duration::from_secs(60));
            assert_eq!(notes.0.len(), 1, "{:?}", notes.0);
            assert!(notes.0[0].contains(said) && notes.0[0].contains("the run continues"), "{:?}", notes.0);
        }
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_its_children_and_holds_nothing_up() {
        let began = Instant::now();
        let notes = report("sleep 600 & sleep 600", 5, Duration::ZERO, Duration::from_millis(300));
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
        assert!(notes.0.len() == 1 && notes.0[0].contains("0.3 s after the last line, and was ended"), "{:?}", notes.0);
        // More than the pipe and the queue hold, to a command that reads nothing.
        let notes = report("sleep 600", WAITING + 5000, Duration::ZERO, Duration::from_millis(100));
        assert!(notes.0.len() == 1 && notes.0[0].contains("does not keep up"), "{:?}", notes.0);
    }

    #[test]
    fn a_blank_command_is_refused() {
        let mut notes = Notes::default();
        let error = MetricsCommand::new(" ", Path::new("run"), &mut notes).map(drop).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("--metrics-command"), "{error}");
    }
}
