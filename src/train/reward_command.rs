//! `reward.command`: a command of the user's as a term of the reward.
//!
//! The shell starts it once, before the first responses of a call of the program, and it stays. For each response it reads a line of
//! JSON from its standard input and writes a line, in the same order: a number, or an object with the number as `reward` (and, if it
//! likes, the `id`, which is then checked). What it writes to standard error is shown. `docs/rewards.md` lists the fields.

use super::metrics_command::pass_on;
use crate::data::{Message, Record};
use crate::io::running_time::{RunningTime, receive};
use crate::io::shell::{end, shell};
use crate::sampling::ScoredResponse;
use crate::tasks::Score;
use crate::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Lines that wait in either direction.
const WAITING: usize = 1024;
/// How long a command may take to end once there is nothing more for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Characters of a wrong line that a message shows.
const SHOWN: usize = 80;

/// One line of the command's input: a response to be rewarded.
#[derive(Debug, Clone, Serialize)]
pub struct RewardRequest<'a> {
    /// Id of the example.
    pub id: &'a str,
    /// Which of the responses to it, from 0.
    pub sample: usize,
    /// Name of the scorer.
    pub task: &'a str,
    /// The turns before the response.
    pub prompt: &'a [Message],
    /// The right answer.
    pub answer: &'a str,
    /// The record's own settings.
    pub meta: &'a Map<String, Value>,
    /// What the model said, without special tokens.
    pub response: &'a str,
    /// Tokens of the response, with the closing one.
    pub tokens: usize,
    /// It ended by itself rather than by the length limit.
    pub finished: bool,
    /// The scorer's verdict.
    pub score: &'a Score,
}

impl<'a> RewardRequest<'a> {
    /// Of a response to the prompt of a record.
    pub fn new(record: &'a Record, response: &'a ScoredResponse) -> RewardRequest<'a> {
        RewardRequest {
            id: &record.id,
            sample: response.sample,
            task: &record.task,
            prompt: record.prompt(),
            answer: &record.answer,
            meta: &record.meta,
            response: &response.response,
            tokens: response.token_ids.len(),
            finished: response.finished,
            score: &response.score,
        }
    }
}

/// The command under way.
pub struct RewardCommand {
    child: Child,
    /// Taken when it is to end.
    lines: Option<SyncSender<Vec<u8>>>,
    answers: Receiver<std::io::Result<String>>,
    timeout: Duration,
}

impl RewardCommand {
    /// Start `command`. It has `timeout` seconds for each line.
    ///
    /// # Errors
    /// A failure if the shell cannot be started.
    pub fn start(command: &str, timeout: f64) -> Result<RewardCommand> {
        let failed = |e: std::io::Error| Error::failed(format!("reward.command cannot be started: {e}"));
        let mut child = shell(command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::failed("reward.command cannot be started: it has no standard input or output"));
        };
        let (lines, waiting) = sync_channel(WAITING);
        let (answered, answers) = sync_channel(WAITING);
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        thread("reward-in").spawn(move || pass_on(input, &waiting)).map_err(failed)?;
        thread("reward-out").spawn(move || read(output, &answered)).map_err(failed)?;
        Ok(RewardCommand { child, lines: Some(lines), answers, timeout: Duration::from_secs_f64(timeout) })
    }

    /// The command's number for each response.
    ///
    /// # Errors
    /// A failure that names the response: the command has ended, takes too long, or writes something else.
    pub fn rewards(&mut self, requests: &[RewardRequest<'_>]) -> Result<Vec<f64>> {
        let mut rewards = Vec::with_capacity(requests.len());
        let mut told = 0;
        while rewards.len() < requests.len() {
            // So many lines ahead that neither side waits for the other.
            while told < requests.len().min(rewards.len() + WAITING) {
                let mut line = serde_json::to_vec(&requests[told])
                    .map_err(|e| Error::failed(format!("reward.command: cannot write a line for it: {e}")))?;
                line.push(b'\n');
                // A command that has ended is seen below, at the response that it leaves without an answer.
                let _ = self.lines.as_ref().map(|lines| lines.send(line));
                told += 1;
            }
            let request = &requests[rewards.len()];
            let reward = self.answer().and_then(|line| parse(&line, request.id));
            rewards.push(reward.map_err(|why| {
                Error::failed(format!(
                    "reward.command {why}, for response {} to example {}; mend it, and give the same command again to go on",
                    request.sample, request.id
                ))
            })?);
        }
        Ok(rewards)
    }

    /// The next line, or why there is none.
    fn answer(&mut self) -> std::result::Result<String, String> {
        match receive(&self.answers, self.timeout) {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(e)) => Err(format!("cannot be read: {e}")),
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("wrote nothing for {} s (reward.command_timeout)", self.timeout.as_secs_f64()))
            }
            Err(RecvTimeoutError::Disconnected) => Err(match self.wait() {
                Some(status) => format!("ended with {status}"),
                None => "closed its output".into(),
            }),
        }
    }

    /// The status that the command ends with, some seconds from now at most.
    fn wait(&mut self) -> Option<std::process::ExitStatus> {
        let mut waited = RunningTime::start();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if waited.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
                _ => return None,
            }
        }
    }
}

impl Drop for RewardCommand {
    /// Close the command's input, give it a moment, and end it.
    fn drop(&mut self) {
        self.lines = None;
        self.wait();
        end(&mut self.child);
    }
}

fn read(output: ChildStdout, answered: &SyncSender<std::io::Result<String>>) {
    for line in BufReader::new(output).lines() {
        if answered.send(line).is_err() {
            return;
        }
    }
}

/// The number of a line, or what is wrong with it.
fn parse(line: &str, id: &str) -> std::result::Result<f64, String> {
    let shown: String = line.chars().take(SHOWN).collect();
    let wrong = |why: &str| format!("wrote `{shown}`, {why}");
    let value: Value =
        serde_json::from_str(line).map_err(|_| wrong("which is no JSON: write a number or {\"reward\": number}"))?;
    if value.get("id").is_some_and(|named| named != id) {
        return Err(wrong("which is about another example: write one line for each line, in the same order"));
    }
    let number = value.get("reward").unwrap_or(&value).as_f64().filter(|number| number.is_finite());
    number.ok_or_else(|| wrong("which has no number: write a number or {\"reward\": number}"))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn ask(command: &str, timeout: f64, ids: &[&str]) -> Result<Vec<f64>> {
        let (score, meta) = (Score::nothing("no answer block"), Map::new());
        let request = |&id| RewardRequest {
            id,
            sample: 1,
            task: "maths",
            prompt: &[],
            answer: "7",
            meta: &meta,
            response: "<answer>8</answer>",
            tokens: 5,
            finished: true,
            score: &score,
        };
        RewardCommand::start(command, timeout)?.rewards(&ids.iter().map(request).collect::<Vec<_>>())
    }

    #[test]
    fn each_line_is_answered_in_order_however_many_there_are() {
        assert_eq!(ask("while read -r line; do echo 0.5; done", 60.0, &["a", "b"]).unwrap(), [0.5, 0.5]);
        // The fields are those that the documentation lists.
        let fields = r#"sed -u 's/.*"id":"\([^"]*\)","sample":1,"task":"maths","prompt":\[\],"answer":"7","meta":{},"response":"<answer>8<\/answer>","tokens":5,"finished":true,"score":{.*"fault":"no answer block"}}$/{"id":"\1","reward":\1}/'"#;
        let ids: Vec<String> = (0..3 * WAITING).map(|i| i.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let expected: Vec<f64> = (0..ids.len()).map(|i| i as f64).collect();
        let fields = fields.replace("\"id\":\"\\1\",\"reward\"", "\"reward\"");
        assert_eq!(ask(&fields, 60.0, &ids).unwrap(), expected);
    }

    #[test]
    fn a_command_that_ends_hangs_or_writes_something_else_is_a_failure_that_names_the_response() {
        for (command, said) in [
            ("exit 3", "ended with exit status: 3, for response 1 to example a"),
            ("read -r line; echo 1; exit 0", "ended with exit status: 0, for response 1 to example b"),
            ("sleep 600 & sleep 600", "wrote nothing for 0.5 s (reward.command_timeout), for response 1 to example a"),
            ("echo 1; echo well; cat > /dev/null", "wrote `well`, which is no JSON"),
            ("echo '[1]'; cat > /dev/null", "wrote `[1]`, which has no number"),
            ("echo NaN; cat > /dev/null", "which is no JSON"),
            ("echo '{\"reward\": null}'; cat > /dev/null", "which has no number"),
            ("echo '{\"id\": \"b\", \"reward\": 1}'; cat > /dev/null", "which is about another example"),
        ] {
            let error = ask(command, if said.contains("0.5 s") { 0.5 } else { 60.0 }, &["a", "b"]).unwrap_err();
            assert!(error.exit_code() == 1 && error.to_string().contains(said), "{command}: {error}");
        }
    }
}
