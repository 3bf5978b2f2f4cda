//! One file per subcommand: its flags, its call into the library, what it prints.

mod bench;
pub mod completions;
mod device;
pub mod dynamics;
pub mod eval;
mod eval_compare;
mod eval_table;
pub mod r#gen;
mod hub;
pub mod model;
mod output;
mod progress;
mod ranks;
pub mod report;
pub mod rollout;
pub mod score;
pub mod study;
mod study_status;
pub mod train;

use crate::comm::launcher;
use crate::io::plain::{one_of, parse_fault};
use crate::train::known_names;
use crate::{Error, Result};
use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use ranks::on_ranks;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

/// Measure and explain what fine-tuning costs a vision-language model.
///
/// jigsaw cuts photos into puzzles, trains a vision-language model on them by supervised fine-tuning (SFT) or by
/// reinforcement fine-tuning (GRPO), and measures what the model has learnt and what it has lost.
#[derive(Parser)]
#[command(name = "jigsaw", version, arg_required_else_help = true, max_term_width = 120, after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER: &str = "\
A first session:
  jigsaw gen --images scenes --grid 2x2 --count 4000 --out runs/puzzles
  jigsaw train --method sft --model data/base-tiny --data runs/puzzles --config configs/sft.toml --out runs/sft
  jigsaw train --method rft --model runs/sft/model --data runs/puzzles --config configs/rft.toml --out runs/rft
  jigsaw rollout --model runs/rft/model --data runs/puzzles --out runs/rollouts
  jigsaw eval --model runs/rft/model --data runs/puzzles --out runs/eval-rft
  jigsaw eval --model runs/rft/model --baseline data/base-tiny --data runs/puzzles --bench pope=POPE.tsv --out runs/compare
  jigsaw dynamics --model runs/sft/checkpoints/* --base data/base-tiny --train sft=runs/puzzles --prior pope=POPE.tsv --out runs/dynamics
  jigsaw report runs --out runs/report.html
The same in one command:
  jigsaw study --config configs/study-quick.toml

Exit codes: 0 done, 1 the work failed, 2 the command line, configuration or an input is not usable;
3 a loss is beyond a limit of eval --fail-if;
130 and 143: stopped by SIGINT or SIGTERM (train and study save first; the same command resumes).";

#[derive(clap::Subcommand)]
enum Command {
    Gen(r#gen::GenArgs),
    Train(train::TrainArgs),
    Rollout(rollout::RolloutArgs),
    Eval(eval::EvalArgs),
    Score(score::ScoreArgs),
    Dynamics(dynamics::DynamicsArgs),
    Report(report::ReportArgs),
    Study(study::StudyArgs),
    Model(model::ModelCommand),
    Completions(completions::CompletionsArgs),
}

impl Command {
    fn run(self) -> Result<ExitCode> {
        let done = |result: Result<()>| result.map(|()| ExitCode::SUCCESS);
        match self {
            Command::Gen(args) => done(args.run()),
            Command::Train(args) => on_ranks(|comm| args.run(comm)),
            Command::Rollout(args) => on_ranks(|comm| done(args.run(comm))),
            Command::Eval(args) => on_ranks(|comm| done(args.run(comm))),
            Command::Score(args) => on_ranks(|comm| done(args.run(comm))),
            Command::Dynamics(args) => on_ranks(|comm| done(args.run(comm))),
            Command::Report(args) => done(args.run()),
            Command::Study(args) => args.run(),
            Command::Model(args) => done(args.run()),
            Command::Completions(args) => done(args.run(command())),
        }
    }
}

/// A child process of a study saves and ends when the study is gone.
fn end_with_the_study() {
    // Of several processes of a launcher, the first alone has the input that stays open.
    if std::env::var_os(crate::study::CHILD_OF_STUDY).is_none() || launcher::place().0 > 0 {
        return;
    }
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = signal_hook::low_level::raise(signal_hook::consts::SIGTERM);
    });
}

/// Refuse an argument that is not UTF-8: paths are written into JSON files.
fn check_utf8(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    for argument in arguments {
        if argument.to_str().is_none() {
            return Err(Error::input(format!(
                "the argument `{}` is not UTF-8; paths and other arguments must be UTF-8: rename the file or directory",
                argument.to_string_lossy()
            )));
        }
    }
    Ok(())
}

/// More threads than any machine that this runs on has cores; the system refuses too many in the middle of the work.
const MAX_THREADS: usize = 1024;

/// Refuse more threads than there can be.
fn check_threads() -> Result<()> {
    let asked = std::env::var("RAYON_NUM_THREADS").ok();
    match asked.filter(|text| text.trim().parse::<f64>().is_ok_and(|threads| threads > MAX_THREADS as f64)) {
        Some(asked) => Err(Error::input(format!(
            "RAYON_NUM_THREADS={asked}: must be at most {MAX_THREADS}; without it there is a thread for each core"
        ))),
        None => Ok(()),
    }
}

/// A usage error in plain words, with the setting that was meant by a flag that does not exist.
fn explained(error: &clap::Error, said: &str) -> String {
    let said = parse_fault(said);
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (argument, value) = (context(ContextKind::InvalidArg), context(ContextKind::InvalidValue));
    let is_train = std::env::args().nth(1).is_some_and(|command| command == "train");
    let tip = match (error.kind(), argument) {
        (ErrorKind::UnknownArgument, Some(number)) if number.parse::<f64>().is_ok_and(|number| number < 0.0) => {
            Some(format!("{number} is below 0, which no flag here takes"))
        }
        (ErrorKind::UnknownArgument, Some(argument)) if is_train => {
            let (name, value) = argument.split_once('=').unwrap_or((argument, "VALUE"));
            match known_names::keys(name).as_slice() {
                [] => known_names::hint(name),
                keys => {
                    let sets: Vec<String> = keys.iter().map(|key| format!("--set {key}={value}")).collect();
                    Some(format!("settings are given with --set: {}", one_of(&sets)))
                }
            }
        }
        (ErrorKind::InvalidValue, Some(argument)) => {
            let flag = argument.split(' ').next().unwrap_or_default();
            value.and_then(|value| known_names::value_hint(flag, value)).map(String::from)
        }
        _ => None,
    };
    let Some(tip) = tip else { return said };
    match said.split_once("\n\n") {
        Some((first, rest)) => format!("{first}\n\n  tip: {tip}\n\n{rest}"),
        None => format!("{said}\n  tip: {tip}"),
    }
}

/// Refuse to run as one of several processes what would write the same files in each.
fn check_processes(command: &Command) -> Result<()> {
    match launcher::place() {
        (_, 0 | 1) => Ok(()),
        (_, processes) => match command {
            Command::Train(_) | Command::Eval(_) | Command::Rollout(_) | Command::Score(_) | Command::Dynamics(_) => {
                Ok(())
            }
            _ => Err(Error::input(format!(
                "an MPI launcher has started {processes} processes, and of the commands only train, eval, rollout, score and dynamics divide \
                 their work over several; start this one without the launcher"
            ))),
        },
    }
}

/// The exit code of a process that ends with an error before it has joined the others of its launcher. Mostly all have the same error; rank 0
/// says it first, and the launcher then ends the others.
fn refuse(code: u8, say: impl FnOnce()) -> ExitCode {
    if launcher::place().0 > 0 {
        std::thread::sleep(Duration::from_secs(2));
    }
    say();
    ExitCode::from(code)
}

/// Parse the command line, run it, turn the result into an exit code.
pub fn run() -> ExitCode {
    let refused = |e: Error| refuse(e.exit_code(), || output::error(&e));
    if let Err(e) = check_utf8(std::env::args_os()).and_then(|()| check_threads()) {
        return refused(e);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help goes to stdout with code 0, a usage error to stderr with code 2; a closed pipe is nobody's error.
            let said = e.render().to_string();
            let explained = explained(&e, &said);
            return refuse(u8::try_from(e.exit_code()).unwrap_or(2), || {
                if e.use_stderr() && std::env::args().any(|argument| output::is_altered(&argument)) {
                    // clap would print the argument as it is.
                    output::say(&explained);
                } else if e.use_stderr() && explained != said {
                    output::lines(&explained);
                } else {
                    let _ = e.print();
                }
            });
        }
    };
    end_with_the_study();
    check_processes(&cli.command).and_then(|()| cli.command.run()).unwrap_or_else(refused)
}

/// The command line's definition (for completions and for tests of the help).
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent_and_every_flag_is_explained() {
        let command = super::command();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{} has no description", sub.get_name());
            for arg in sub.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {} has no help", sub.get_name(), arg.get_id());
            }
        }
    }
}
