//! What a task says: into its log, and the end of it kept for the study, which so knows the reason of a failure also where the log could not
//! be written.

use std::fs::File;
use std::io::{ErrorKind, PipeReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes at the end that are kept.
const TAIL: usize = 4000;
/// Longest wait for the end of the output after the task has ended: a process that the task started may still hold the output open.
const PATIENCE: Duration = Duration::from_secs(1);
/// Begins the message of a task that failed.
const ERROR: &str = "error: ";

/// Reads the output of a task while it runs.
#[derive(Debug)]
pub struct TaskLog {
    tail: Arc<Mutex<Vec<u8>>>,
    ended: Receiver<()>,
}

impl TaskLog {
    /// Read `output` to its end, and append it to `log`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(mut output: PipeReader, mut log: File) -> std::io::Result<TaskLog> {
        let tail = Arc::new(Mutex::new(Vec::new()));
        let (kept, (at_end, ended)) = (tail.clone(), channel());
        let read = move || {
            let mut chunk = vec![0; 4096];
            loop {
                let n = match output.read(&mut chunk) {
                    Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                    Ok(0) | Err(_) => break,
                    Ok(n) => n,
                };
                // A full disk must not end the task, nor keep the reason from the study.
                let _ = log.write_all(&chunk[..n]);
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&chunk[..n]);
                let surplus = kept.len().saturating_sub(TAIL);
                kept.drain(..surplus);
            }
            let _ = at_end.send(());
        };
        std::thread::Builder::new().name("task log".into()).spawn(read)?;
        Ok(TaskLog { tail, ended })
    }

    /// The last line so far.
    pub fn last_line(&self) -> String {
        last_line(&self.text()).to_string()
    }

    /// Why the task, which has ended, failed: its error message, else its last line.
    pub fn reason(&self) -> String {
        let _ = self.ended.recv_timeout(PATIENCE);
        reason(&self.text())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.tail.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

/// The end of a log; nothing where it cannot be read.
pub fn tail(path: &Path) -> String {
    let mut end = Vec::new();
    if let Ok(mut log) = File::open(path) {
        let length = log.metadata().map_or(0, |found| found.len());
        let _ = log.seek(SeekFrom::Start(length.saturating_sub(TAIL as u64))).and_then(|_| log.read_to_end(&mut end));
    }
    String::from_utf8_lossy(&end).into_owned()
}

/// The last line of a log with a letter in it.
pub fn last_line(text: &str) -> &str {
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default()
}

/// The last error message of a log, else its last line.
pub fn reason(text: &str) -> String {
    let begins = text.match_indices(ERROR).map(|(at, _)| at).filter(|&at| at == 0 || text[..at].ends_with('\n'));
    match begins.last() {
        Some(at) => text[at + ERROR.len()..].trim_end().to_string(),
        None => match last_line(text) {
            "" => "it gave no reason".to_string(),
            line => line.to_string(),
        },
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::process::Command;

    /// The log of a shell command that has ended.
    fn of(script: &str, log: File) -> TaskLog {
        let (output, said) = std::io::pipe().unwrap();
        let read = TaskLog::start(output, log).unwrap();
        let status = Command::new("sh").args(["-c", script]).stdout(said.try_clone().unwrap()).stderr(said).status();
        assert!(status.is_ok());
        read
    }

    #[test]
    fn the_reason_is_known_where_the_log_cannot_be_written() {
        // Always full.
        let full = std::fs::OpenOptions::new().append(true).open("/dev/full").unwrap();
        let log = of("echo step 1 >&2; printf 'error: cannot write x:\\n  No space left\\n' >&2", full);
        assert_eq!(log.reason(), "cannot write x:\n  No space left");
        assert_eq!(log.last_line(), "  No space left");
    }

    #[test]
    fn all_of_it_is_in_the_log_and_the_last_error_is_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let script = "printf 'note: error: none\\nerror: first\\n' >&2; echo step 2; printf 'error: second' >&2";
        assert_eq!(of(script, File::create(&path).unwrap()).reason(), "second");
        let written = "note: error: none\nerror: first\nstep 2\nerror: second";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), written);
        let of = |script: &str| of(script, File::create(&path).unwrap()).reason();
        assert_eq!(of("echo killed by hand >&2"), "killed by hand");
        assert_eq!(of("exit 1"), "it gave no reason");
        // What it leaves running holds its standard error open.
        assert_eq!(of("sleep 30 & echo error: done >&2"), "done");
    }
}
