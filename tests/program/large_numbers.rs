//! Every number that a user can give, far too large: refused with the reason (2), or done (0, 1), and never a panic, an abort or a signal.
//!
//! The flags are read from the command line's definition, the settings from `--print-config`, so that a new one is tried too.

use crate::command::{Line, done};
use clap::Arg;
use rayon::prelude::*;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

const VALUES: [&str; 3] = ["1000000000", "4294967296", "18446744073709551615"];

/// Bytes of address space of each process, in KiB as `ulimit` has it.
const ADDRESS_SPACE: usize = 6 << 20;

/// Seconds that each may take. What is still at work then has been accepted: it is stopped by SIGTERM, code 124 of `timeout`.
const SECONDS: usize = 2;

/// Flags whose value is a name, a file or a list of words.
const NO_NUMBER: &[&str] = &[
    "MODEL",
    "DIR",
    "FILE",
    "DIR|FILE",
    "NAME",
    "URL",
    "WHO",
    "KEY=VALUE",
    "NAME=DIR",
    "NAME=FILE",
    "COMMAND",
    "DEVICE",
    "RULE",
    "TEXT",
    "TASK",
    "FILE.html",
    "FILE.jsonl",
    "WHAT",
    "WHICH",
    "PART",
    "NAME=FILE[:SCORER]",
    "NAME[:N],...",
    "RxC",
    "N|N-M",
    "A,B,C",
];

fn prepare(dir: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let photos = root.join("data/photos");
    done(dir, &format!("gen --images {} --grid 2x2 --count 12 --limit 6 --split 1,1,1 --out data", photos.display()));
    std::os::unix::fs::symlink(root.join("data/base-tiny"), dir.join("model")).unwrap();
    let study = format!(
        "[study]\nbase = 'model'\n[puzzles.p]\nimages = '{0}'\ngrid = '2x2'\ncount = 12\nlimit = 6\nsplit = '1,1,1'\n[prior]\nsuite = \
         'vqa'\nimages = '{0}'\ncount = 12\n[rollouts.r]\nfrom = 'base'\ndata = 'p'\n[regimes.sft]\nmethod = 'sft'\ndata = 'r'\n[regimes.rft]\n\
         method = 'rft'\ndata = 'p'\n[regimes.wise]\ninterpolate = 'sft'\nalpha = 0.5\n[dynamics]\n",
        photos.display()
    );
    fs::write(dir.join("study.toml"), study).unwrap();
}

/// What the process of this command line ended with: exit code, or signal as a negative number; and what it said.
fn ended(dir: &Path, line: &str) -> (i32, String) {
    let script = format!("ulimit -v {ADDRESS_SPACE}; exec timeout -k 5 {SECONDS} \"$0\" \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_jigsaw")])
        .args(line.words())
        .current_dir(dir)
        .output()
        .unwrap();
    let code = output.status.code().unwrap_or_else(|| -output.status.signal().unwrap_or(0));
    (code, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Run each with every value in place of `{}`, and a directory of its own in place of `OUT`. All must end well.
fn try_all(dir: &Path, lines: &[String]) {
    let cases: Vec<(usize, String)> = lines
        .iter()
        .flat_map(|line| VALUES.iter().map(|value| line.replace("{}", value)))
        .enumerate()
        .map(|(i, line)| (i, line.replace("OUT", &format!("out-{i}"))))
        .collect();
    let wrong: Vec<String> = cases
        .par_iter()
        .filter_map(|(i, line)| {
            let (code, said) = ended(dir, line);
            let _ = fs::remove_dir_all(dir.join(format!("out-{i}")));
            let panicked = said.contains("panicked") || said.contains("memory allocation of");
            let well = match code {
                0 | 124 => true,
                1 | 2 => said.contains("error"),
                _ => false,
            };
            (!well || panicked).then(|| format!("{line}\n  {code}: {}", said.trim_end()))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// The flags of a subcommand that take a number.
fn numeric_flags(command: &clap::Command) -> Vec<String> {
    let takes_a_number = |arg: &&Arg| {
        let names = arg.get_value_names().unwrap_or_default();
        let words = arg.get_possible_values();
        arg.get_long().is_some()
            && arg.get_action().takes_values()
            && words.is_empty()
            && !names.iter().any(|name| NO_NUMBER.contains(&name.as_str()))
    };
    command.get_arguments().filter(takes_a_number).filter_map(|arg| arg.get_long().map(String::from)).collect()
}

#[test]
#[ignore = "takes minutes: cargo test --release --test program -- --ignored large_numbers"]
fn flags_of_every_command_bound_their_numbers() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/photos");
    let photos = photos.display();
    let nowhere = "--api http://127.0.0.1:9/v1 --retries 0";
    let commands = jigsaw::cli::command();
    let mut lines = Vec::new();
    for sub in commands.get_subcommands() {
        for flag in numeric_flags(sub) {
            let rest = match (sub.get_name(), flag.as_str()) {
                ("gen", "max-number" | "max-target") => "gen --task countdown --count 12 --out OUT".into(),
                ("gen", "held-out") => format!("gen --suite vqa --images {photos} --count 12 --out OUT"),
                ("gen", "count") => format!("gen --images {photos} --limit 6 --grid 2x2 --out OUT"),
                ("gen", _) => format!("gen --images {photos} --grid 2x2 --count 12 --out OUT"),
                ("eval", "concurrency" | "per-minute" | "timeout") => format!("eval --model m {nowhere} --data data --out OUT"),
                ("eval", "retries") => "eval --model m --api http://127.0.0.1:9/v1 --data data --out OUT".into(),
                ("eval", "min-pixels" | "max-pixels") => {
                    "eval --model model --bench d=data --limit 1 --max-new-tokens 2 --out OUT".into()
                }
                ("eval", "kl-prompts") => {
                    "eval --model model --baseline model --data data --limit 1 --max-new-tokens 2 --out OUT".into()
                }
                ("eval", "top-p" | "top-k" | "num-generations") => {
                    "eval --model model --data data --limit 1 --max-new-tokens 2 --temperature 1 --out OUT".into()
                }
                ("eval", "max-new-tokens") => "eval --model model --data data --limit 2 --out OUT".into(),
                ("eval", "limit") => "eval --model model --data data --max-new-tokens 2 --out OUT".into(),
                ("eval", _) => "eval --model model --data data --limit 1 --max-new-tokens 2 --out OUT".into(),
                ("rollout", "concurrency" | "per-minute" | "retries" | "timeout") => {
                    "rollout --teacher http://127.0.0.1:9/v1 --teacher-model m --limit 1 --data data --out OUT".into()
                }
                ("rollout", "limit") => "rollout --teacher scripted --data data --out OUT".into(),
                ("rollout", "max-new-tokens") => {
                    "rollout --model model --data data --limit 2 --num-generations 2 --keep all --out OUT".into()
                }
                ("rollout", "num-generations") => {
                    "rollout --model model --data data --limit 1 --max-new-tokens 2 --keep all --out OUT".into()
                }
                ("rollout", _) => {
                    "rollout --model model --data data --limit 1 --max-new-tokens 2 --num-generations 2 --keep all --out OUT".into()
                }
                ("score", _) => "score --model model --data data --out OUT".into(),
                ("dynamics", "pairs") => {
                    "dynamics --model model --base model --train t=data --prior p=data --max-new-tokens 2 --split test --out OUT".into()
                }
                ("dynamics", _) => {
                    "dynamics --model model --base model --train t=data --prior p=data --pairs 1 --split test --out OUT".into()
                }
                ("study", _) => "study --config study.toml --dry-run --out OUT".into(),
                (name, _) => panic!("say in this test how `jigsaw {name}` is run with --{flag}"),
            };
            lines.push(format!("{rest} --{flag} {{}}"));
        }
        for inner in sub.get_subcommands() {
            for flag in numeric_flags(inner) {
                lines.push(match (inner.get_name(), flag.as_str()) {
                    ("init", flag) => format!("model init --out OUT --{flag} {{}}"),
                    ("interpolate", flag) => {
                        format!("model interpolate --base model --model model --out OUT --{flag} {{}}")
                    }
                    (name, flag) => panic!("say in this test how `jigsaw model {name}` is run with --{flag}"),
                });
            }
        }
    }
    for more in [
        "--suite vqa:{} --count 12",
        "--suite vqa:1000 --count {}",
        "--task countdown --count {}",
        "--task countdown --numbers 3-{}",
    ] {
        lines.push(format!("gen {more} --out OUT"));
    }
    lines.push(format!("gen --images {photos} --grid {{}}x{{}} --count 12 --out OUT"));
    lines.push(format!("gen --images {photos} --grid 2x2 --split {{}},{{}},{{}} --count 12 --out OUT"));
    try_all(dir, &lines);
}

/// `section.key` of every number in the settings of a method.
fn numeric_keys(config: &str) -> Vec<String> {
    let table: toml::Table = toml::from_str(config).unwrap();
    let is_number = |value: &toml::Value| value.is_integer() || value.is_float();
    let keys = |(section, keys): (&String, &toml::Value)| -> Vec<String> {
        let keys = keys.as_table().unwrap().iter().filter(|(_, value)| is_number(value));
        keys.map(|(key, _)| format!("{section}.{key}")).collect()
    };
    table.iter().flat_map(keys).collect()
}

#[test]
#[ignore = "takes minutes: cargo test --release --test program -- --ignored large_numbers"]
fn settings_of_training_bound_their_numbers_and_a_plan_says_what_does_not_fit() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let mut lines = Vec::new();
    let all = [
        ("sft", "--set lora.rank=2 --set sft.resample_every=1 --set train.steps=4 --set rollout.max_new_tokens=8"),
        ("sft", "--set sft.replay=data"),
        ("rft", "--set grpo.delta=3 --set grpo.epsilon_high=0.3 --set train.epochs=1 --set rollout.max_new_tokens=8"),
    ];
    for (method, sets) in all {
        let config = done(dir, &format!("train --method {method} --print-config {sets}"));
        for key in numeric_keys(&config) {
            lines.push(format!("train --method {method} --model model --data data {sets} --dry-run --set {key}={{}}"));
        }
    }
    try_all(dir, &lines);
    // What is within its bounds and takes more than there is.
    for sets in [
        "--method rft --set rollout.num_generations=65536 --set train.batch_size=16 --set rollout.max_new_tokens=1048576",
        "--method rft --set rollout.num_generations=4096 --set train.batch_size=256 --set rollout.max_new_tokens=4096",
    ] {
        let said = done(dir, &format!("train --model model --data data {sets} --dry-run"));
        assert!(said.contains("does not fit"), "{sets}: {said}");
        let (code, said) = ended(dir, &format!("train --model model --data data {sets} --out out"));
        assert!(code == 2 && said.contains("more than twice the"), "{sets}: {code} {said}");
    }
    let huge = "18446744073709551615";
    assert_eq!(
        ended(dir, &format!("train --method sft --model model --data data --set train.batch_size={huge} --dry-run")).0,
        2
    );
}

#[test]
#[ignore = "takes minutes: cargo test --release --test program -- --ignored large_numbers"]
fn keys_of_a_study_bound_their_numbers() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let keys = "puzzles.p.count puzzles.p.tile puzzles.p.limit puzzles.p.min_crop puzzles.p.seed puzzles.p.scenes prior.count prior.held_out \
                prior.seed rollouts.r.num_generations rollouts.r.batch_size rollouts.r.max_new_tokens rollouts.r.limit \
                rollouts.r.max_per_prompt rollouts.r.temperature rollouts.r.top_k rollouts.r.top_p rollouts.r.seed \
                regimes.sft.learning_rate regimes.wise.alpha regimes.sft.train.batch_size regimes.sft.train.steps regimes.sft.lora.rank \
                regimes.rft.rollout.num_generations regimes.rft.rollout.max_new_tokens eval.checkpoints eval.limit eval.batch_size \
                eval.max_new_tokens eval.min_pixels eval.max_pixels eval.kl_prompts dynamics.pairs dynamics.eta dynamics.learning_rate dynamics.max_new_tokens \
                dynamics.seed";
    let lines: Vec<String> = keys
        .split_whitespace()
        .map(|key| format!("study --config study.toml --dry-run --out OUT --set {key}={{}}"))
        .collect();
    try_all(dir, &lines);
}

#[test]
fn more_threads_than_there_can_be_are_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_jigsaw"))
        .args(["train", "--method", "sft", "--print-config"])
        .env("RAYON_NUM_THREADS", "1000000000")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("RAYON_NUM_THREADS"), "{said}");
}
