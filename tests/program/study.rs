//! `jigsaw study` as a user types it: it runs through, repeats nothing, goes on after a kill, grows, and says what failed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const SMALL: &str = r#"
[study]
title = "A study of a handful of steps"
base = "data/base-tiny"

[puzzles.bare]
images = "scenes"
grid = "1x2"
count = 24
split = "0.5,0,0.5"

[puzzles.thought]
images = "scenes"
grid = "1x2"
count = 24
split = "0.5,0,0.5"
style = "think"

[prior]
suite = "pope"
count = 16
split = "0.5,0,0.5"

[rollouts.grpo]
from = "rft"
data = "thought"
num_generations = 2
keep = "all"
max_new_tokens = 48

[regimes.rft]
method = "rft"
data = "thought"
learning_rate = 5e-5
train = { steps = 2, batch_size = 2, warmup_steps = 0, save_steps = 1, save_total_limit = 9 }
rollout = { num_generations = 2, max_new_tokens = 8 }

[regimes.sft]
method = "sft"
data = "bare"
learning_rate = 1e-4
train = { steps = 2, batch_size = 4 }

[eval]
checkpoints = 1
limit = 4
kl_prompts = 2
max_new_tokens = 8
"#;

/// A directory with the study's file in it.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        std::fs::write(place.config(), SMALL).unwrap();
        place
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("small.toml")
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jigsaw"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("study").arg("--config").arg(self.config());
        command.arg("--out").arg(self.out()).args(more).stdin(Stdio::null());
        command
    }

    fn run(&self, more: &[&str]) -> Output {
        self.command(more).output().unwrap()
    }

    /// Names of the tasks that are done.
    fn done(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.out().join("done")) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().map(|e| e.file_name().to_string_lossy().trim_end_matches(".json").to_string()).collect();
        names.sort();
        names
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_study_runs_through_repeats_nothing_and_grows() {
    let place = Place::new();
    let output = place.run(&["--jobs", "2"]);
    assert!(output.status.success(), "{}", said(&output));
    let page = place.out().join("report.html");
    let printed = String::from_utf8(output.stdout).unwrap();
    let (found, path) = printed.trim().rsplit_once("\n\n").unwrap();
    assert_eq!(path, page.display().to_string());
    // What it prints are the sentences of its page.
    let plain = |text: &str| text.replace('*', "").split_whitespace().collect::<Vec<_>>().join(" ");
    let tables = plain(&std::fs::read_to_string(page.with_extension("md")).unwrap());
    let found: Vec<String> = found.replace("\n  ", " ").lines().map(plain).collect();
    assert!(found.len() > 2 && found.iter().any(|sentence| sentence.contains("rft")), "{found:?}");
    found.iter().for_each(|sentence| assert!(tables.contains(sentence), "{sentence}: {tables}"));
    assert!(std::fs::read_to_string(&page).unwrap().contains("A study of a handful of steps"));
    let done = place.done();
    let runs = [
        "compare.rft.lr-5e-5.seed-1",
        "compare.sft.lr-1e-4.seed-1",
        "train.rft.lr-5e-5.seed-1",
        "train.sft.lr-1e-4.seed-1",
    ];
    assert!(runs.iter().all(|run| done.iter().any(|name| name == run)), "{done:?}");
    assert!(!done.iter().any(|name| name.starts_with("rollout.")), "no regime needs them: {done:?}");
    // The checkpoint after the first of two steps, and the final model.
    let comparison: serde_json::Value =
        serde_json::from_slice(&std::fs::read(place.out().join("compare/rft.lr-5e-5.seed-1/forgetting.json")).unwrap())
            .unwrap();
    let steps: Vec<u64> =
        comparison["tuned"].as_array().unwrap().iter().map(|t| t["model"]["run"]["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2]);

    // The rows of the study as JSON are those of its CSV file.
    let rows = std::fs::read_to_string(place.out().join("report.study.csv")).unwrap();
    let (study, file) = (place.out().display().to_string(), place.dir.path().join("all.json"));
    crate::command::done(place.dir.path(), &["report", &study, "--format", "json", "--out", file.to_str().unwrap()]);
    let all: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let of_json = all["studies"][0]["rows"].as_array().unwrap();
    let of_csv: Vec<_> = csv::Reader::from_reader(rows.as_bytes()).into_records().map(Result::unwrap).collect();
    assert_eq!(of_json.len(), of_csv.len());
    for (json, csv) in of_json.iter().zip(&of_csv) {
        let value = csv[8].parse::<f64>().ok();
        assert_eq!((json["measure"].as_str(), json["value"].as_f64()), (Some(&csv[6]), value));
    }

    let again = place.run(&[]);
    assert!(again.status.success(), "{}", said(&again));
    let begun: Vec<String> = said(&again).lines().filter(|line| line.starts_with('[')).map(String::from).collect();
    assert_eq!(begun.len(), 1, "only the report is made again: {begun:?}");

    let other = place.run(&["--set", "regimes.sft.train.steps=3"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(
        said(&other).contains("train.sft.lr-1e-4.seed-1") && said(&other).contains("train.steps: 2 -> 3"),
        "{}",
        said(&other)
    );

    let more = "\n[regimes.grpo-rollout]\nmethod = \"sft\"\ndata = \"grpo\"\nlearning_rate = 1e-4\ntrain = { steps = 1, batch_size = 2 }\n";
    std::fs::write(place.config(), format!("{SMALL}{more}")).unwrap();
    let grown = place.run(&[]);
    assert!(grown.status.success(), "{}", said(&grown));
    let begun: Vec<&str> =
        std::str::from_utf8(&grown.stderr).unwrap().lines().filter_map(|l| l.split("] ").nth(1)).collect();
    assert_eq!(
        begun,
        ["rollout.grpo.seed-1", "train.grpo-rollout.lr-1e-4.seed-1", "compare.grpo-rollout.lr-1e-4.seed-1", "report"]
    );

    // Without intermediate checkpoints the comparison is done again.
    let shorter = place.run(&["--set", "eval.checkpoints=0"]);
    assert!(shorter.status.success(), "{}", said(&shorter));
    assert!(said(&shorter).contains("] compare.rft.lr-5e-5.seed-1") && !said(&shorter).contains("] train."));
    let comparison = std::fs::read(place.out().join("compare/rft.lr-5e-5.seed-1/forgetting.json")).unwrap();
    let comparison: serde_json::Value = serde_json::from_slice(&comparison).unwrap();
    assert_eq!(comparison["tuned"].as_array().unwrap().len(), 1);
}

#[test]
fn a_regime_with_data_of_its_own_has_the_dynamics_measured_again() {
    let place = Place::new();
    let measured = format!("{SMALL}\n[dynamics]\npairs = 4\nmax_new_tokens = 8\n");
    std::fs::write(place.config(), &measured).unwrap();
    let output = place.run(&["--jobs", "2"]);
    assert!(output.status.success(), "{}", said(&output));
    let order = || -> serde_json::Value {
        let key = std::fs::read(place.out().join("dynamics/base/dynamics.key.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&key).unwrap()["key"]["order"].clone()
    };
    assert_eq!(order(), serde_json::json!(["bare", "pope-direct", "pope-think"]));
    let more = "\n[regimes.thought-sft]\nmethod = \"sft\"\ndata = \"thought\"\nlearning_rate = 1e-4\ntrain = { steps = 1, batch_size = 2 }\n";
    std::fs::write(place.config(), format!("{measured}{more}")).unwrap();
    for _ in 0..2 {
        let grown = place.run(&[]);
        assert!(grown.status.success(), "{}", said(&grown));
        assert_eq!(order(), serde_json::json!(["bare", "thought", "pope-direct", "pope-think"]));
    }
}

#[test]
fn a_file_of_settings_that_has_changed_is_refused_by_name() {
    let place = Place::new();
    let file = place.dir.path().join("sft.toml");
    std::fs::write(&file, "[train]\nweight_decay = 0.1\n").unwrap();
    let set = format!("regimes.sft.config={:?}", file.display().to_string());
    let only = |task: &str| place.run(&["--set", &set, "--only", task]);
    for task in ["puzzles.bare", "train.sft.lr-1e-4.seed-1", "train.sft.lr-1e-4.seed-1"] {
        let output = only(task);
        assert!(output.status.success(), "{task}: {}", said(&output));
    }
    std::fs::write(&file, "[train]\nweight_decay = 0.2\n").unwrap();
    let refused = only("train.sft.lr-1e-4.seed-1");
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    for part in ["[regimes.sft]", "train.sft.lr-1e-4.seed-1 done with other settings", "sft.toml: its content"] {
        assert!(said(&refused).contains(part), "{part}: {}", said(&refused));
    }
}

#[test]
fn a_killed_study_takes_its_processes_along_and_goes_on() {
    let place = Place::new();
    let long = ["--set", "regimes.sft.train.steps=100000", "--set", "regimes.sft.train.save_steps=1000"];
    let mut child = place.command(&long).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let metrics = place.out().join("runs/sft.lr-1e-4.seed-1/metrics.jsonl");
    let steps = || std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    wait_for("the long training begins", || steps() > 2);
    child.kill().unwrap();
    child.wait().unwrap();
    // Its process saves and ends by itself.
    let saved = || {
        let checkpoints = std::fs::read_dir(place.out().join("runs/sft.lr-1e-4.seed-1/checkpoints"));
        checkpoints.is_ok_and(|mut entries| entries.next().is_some())
    };
    wait_for("the orphan saves", saved);
    let before = place.done();
    assert!(before.iter().any(|name| name.starts_with("train.rft")), "{before:?}");

    // The same again goes on, and stops on SIGTERM after saving.
    let child = place.command(&long).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let now = steps();
    wait_for("the training goes on", || steps() > now + 2);
    assert!(Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", said(&output));
    assert!(said(&output).contains("the same command resumes"), "{}", said(&output));
    assert!(place.done().len() >= before.len() && !place.done().iter().any(|name| name.starts_with("train.sft")));
}

#[test]
fn what_fails_is_named_and_the_rest_is_done() {
    let place = Place::new();
    // No response of two tokens is right: nothing is kept.
    let more = "\n[regimes.grpo-rollout]\nmethod = \"sft\"\ndata = \"grpo\"\nlearning_rate = 1e-4\ntrain = { steps = 1, batch_size = 2 }\n";
    let text = SMALL.replace("keep = \"all\"\nmax_new_tokens = 48", "max_new_tokens = 2");
    std::fs::write(place.config(), format!("{text}{more}")).unwrap();
    let output = place.run(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    for part in ["error: 1 task failed", "rollout.grpo.seed-1", "nothing to learn from", "logs"] {
        assert!(said(&output).contains(part), "{part}: {}", said(&output));
    }
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("Not fully measured: grpo-rollout") && printed.contains("report.html"), "{printed}");
    let done = place.done();
    assert!(
        done.iter().any(|name| name.starts_with("compare.sft"))
            && !done.iter().any(|name| name.starts_with("train.grpo"))
    );
    let page = place.out().join("report.html");
    assert!(page.exists(), "a page of what there is");
    std::fs::remove_file(&page).unwrap();
    let only = place.run(&["--only", "report"]);
    assert!(only.status.success() && page.exists(), "of what there is too: {}", said(&only));
    // A folder of studies is reported as each of them.
    let report = place.dir.path().join("above.html");
    let mut above = Command::new(env!("CARGO_BIN_EXE_jigsaw"));
    assert!(above.arg("report").arg(place.dir.path()).arg("--out").arg(&report).status().unwrap().success());
    assert!(std::fs::read_to_string(report).unwrap().contains("A study of a handful of steps"));
}

#[cfg(target_os = "linux")]
#[test]
fn the_reason_of_a_failure_is_printed_where_its_log_cannot_be_written() {
    let place = Place::new();
    let (puzzles, logs) = (place.out().join("puzzles/bare"), place.out().join("logs"));
    std::fs::create_dir_all(&puzzles).unwrap();
    std::fs::create_dir_all(&logs).unwrap();
    std::fs::write(place.out().join("study.toml"), "").unwrap();
    std::fs::write(puzzles.join("thesis.txt"), "x").unwrap();
    // Every write to it fails for lack of space.
    std::os::unix::fs::symlink("/dev/full", logs.join("puzzles.bare.log")).unwrap();
    let output = place.run(&["--only", "puzzles.bare"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let summary = "  puzzles.bare: exit code 2: ";
    assert!(
        said(&output).lines().any(|line| line.starts_with(summary) && line.contains("is not empty")),
        "{}",
        said(&output)
    );
}

#[test]
fn the_plan_is_printed_and_single_tasks_are_run_when_they_can_be() {
    let place = Place::new();
    let list = place.run(&["--list"]);
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.status.success() && text.lines().next() == Some("0\tpuzzles.bare") && !place.out().exists(), "{text}");
    let early = place.run(&["--only", "train.sft.lr-1e-4.seed-1"]);
    assert_eq!(early.status.code(), Some(2));
    assert!(said(&early).contains("it needs puzzles.bare"), "{}", said(&early));
    assert!(place.run(&["--only", "puzzles.bare"]).status.success());
    assert!(place.run(&["--only", "train.sft.lr-1e-4.seed-1"]).status.success());
    assert_eq!(place.done(), ["puzzles.bare", "train.sft.lr-1e-4.seed-1"]);
    let unknown = place.run(&["--only", "train.sft"]);
    assert!(unknown.status.code() == Some(2) && said(&unknown).contains("--list"), "{}", said(&unknown));
    for (set, named) in [
        ("puzzles.bare.gird=2x2", "small.toml:6: [puzzles.bare]: unknown key gird; did you mean grid?"),
        ("eval.temprature=1", "[eval]: unknown key temprature"),
        ("rollouts.grpo.from=sftt", "there is no [regimes.sftt]"),
        ("regimes.sft.train.lrr=1", "train.lrr"),
    ] {
        let more = "\n[regimes.grpo-rollout]\nmethod = \"sft\"\ndata = \"grpo\"\n";
        std::fs::write(place.config(), format!("{SMALL}{more}")).unwrap();
        let refused = place.run(&["--set", set]);
        assert!(refused.status.code() == Some(2) && said(&refused).contains(named), "{set}: {}", said(&refused));
    }
    let foreign = tempfile::tempdir().unwrap();
    std::fs::write(foreign.path().join("thesis.txt"), "x").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_jigsaw"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("study").arg("--config").arg(place.config());
    let output = command.arg("--out").arg(foreign.path()).output().unwrap();
    assert!(output.status.code() == Some(2) && said(&output).contains("holds no study"), "{}", said(&output));
    assert!(!Path::new(&foreign.path().join("study.toml")).exists());
}

#[test]
fn a_dry_run_prints_commands_time_and_memory() {
    let place = Place::new();
    let output = place.run(&["--dry-run", "--jobs", "2"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", said(&output));
    assert!(text.contains("jigsaw train --model data/base-tiny"), "{text}");
    for part in ["training runs", "RFT", "time: about", "memory of [regimes.rft]: about", "2 tasks at once"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!place.out().exists(), "nothing is written");
    let missing = place.run(&["--dry-run", "--set", "study.base=nowhere"]);
    let text = String::from_utf8_lossy(&missing.stdout).into_owned();
    assert!(
        missing.status.success() && text.contains("time: unknown") && text.contains("nowhere is not there"),
        "{text}"
    );
}

/// With an interpolated model, whose command will not go on from a half.
const BETWEEN: &str = r#"
[regimes.between]
interpolate = "sft"
alpha = 0.5
"#;

#[test]
fn two_processes_share_a_study_and_do_nothing_twice() {
    let place = Place::new();
    std::fs::write(place.config(), format!("{SMALL}{BETWEEN}")).unwrap();
    let begin = |i: u64| {
        std::thread::sleep(Duration::from_millis(100 * i));
        place.command(&[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for child in [0, 1, 2].map(begin) {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    // Each says at its end where what it made is.
    for task in
        ["puzzles.bare", "puzzles.thought", "prior", "model.between.alpha-0.5.seed-1", "train.sft.lr-1e-4.seed-1"]
    {
        let log = std::fs::read_to_string(place.out().join(format!("logs/{task}.log"))).unwrap();
        let last = log.lines().last().unwrap();
        assert_eq!(log.lines().filter(|line| *line == last).count(), 1, "{task} was done twice:\n{log}");
    }
}

#[test]
fn what_was_made_but_not_recorded_is_made_again() {
    let place = Place::new();
    std::fs::write(place.config(), format!("{SMALL}{BETWEEN}")).unwrap();
    assert!(place.run(&[]).status.success());
    let model = place.out().join("models/between.alpha-0.5.seed-1");
    let weights = std::fs::read(model.join("model.safetensors")).unwrap();
    // Killed before the record was written; then in the middle of the weights.
    for half in [false, true] {
        std::fs::remove_file(place.out().join("done/model.between.alpha-0.5.seed-1.json")).unwrap();
        if half {
            std::fs::remove_file(model.join("config.json")).unwrap();
            std::fs::write(model.join(".jigsaw-unfinished"), "").unwrap();
            std::fs::write(model.join("model.safetensors"), &weights[..1000]).unwrap();
        }
        let output = place.run(&[]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(std::fs::read(model.join("model.safetensors")).unwrap() == weights);
    }
}

#[test]
fn a_study_that_is_refused_leaves_what_is_there_alone() {
    let place = Place::new();
    assert!(place.run(&[]).status.success());
    let files = ["study.toml", "study.json"].map(|name| place.out().join(name));
    let before = files.each_ref().map(|file| std::fs::read(file).unwrap());
    let output = place.run(&["--set", "puzzles.bare.count=25", "--set", "study.title=Other"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("count: 24 -> 25"), "{}", said(&output));
    assert_eq!(files.each_ref().map(|file| std::fs::read(file).unwrap()), before);
    let twice = place.run(&["--set", "study.seeds=[1,1]"]);
    assert!(
        twice.status.code() == Some(2) && said(&twice).contains("[study]: seeds: 1 is given twice"),
        "{}",
        said(&twice)
    );
    assert_eq!(files.each_ref().map(|file| std::fs::read(file).unwrap()), before);

    // Nor does it matter where it lies, or how that is written.
    let moved = place.dir.path().join("moved");
    std::fs::rename(place.out(), &moved).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_jigsaw"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("study").arg("--config").arg(place.config());
    let output = command.arg("--out").arg(format!("{}/", moved.display())).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let begun = said(&output).lines().filter(|line| line.starts_with('[')).count();
    assert_eq!(begun, 1, "only the report is made again: {}", said(&output));
}
