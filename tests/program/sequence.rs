//! Tasks in a row as a user types them: they run through, repeat nothing, and are refused where they share examples.

use crate::command::jigsaw;
use std::path::Path;
use std::process::Output;

const SMALL: &str = r#"
[study]
title = "Two tasks in a row"
base = "BASE"

[puzzles.row]
images = "scenes"
grid = "1x2"
count = 16
split = "0.5,0,0.5"

[puzzles.sums]
task = "countdown"
numbers = "2"
count = 16
split = "0.5,0,0.5"

[prior]
suite = "pope"
count = 12
split = "0.5,0,0.5"

[sequence]
tasks = ["row", "sums"]
methods = ["sft", "replay", "lora"]

[regimes.sft]
method = "sft"
learning_rate = 1e-4
train = { steps = 2, batch_size = 4, save_steps = 0 }

[regimes.replay]
method = "sft"
learning_rate = 1e-4
train = { steps = 2, batch_size = 4, save_steps = 0, mix = ["earlier:1"] }

[regimes.lora]
method = "sft"
learning_rate = 1e-4
train = { steps = 2, batch_size = 4, save_steps = 0 }
lora = { rank = 2 }

[eval]
limit = 4
max_new_tokens = 8
"#;

fn run(dir: &Path, text: &str, more: &str) -> Output {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/base-tiny");
    std::fs::write(dir.join("row.toml"), text.replace("BASE", &base.display().to_string())).unwrap();
    jigsaw(dir, &format!("study --config row.toml --out out {more}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn tasks_in_a_row_run_through_repeat_nothing_and_are_reported() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let dry = run(dir, SMALL, "--list");
    let listed = String::from_utf8_lossy(&dry.stdout).into_owned();
    assert!(listed.contains("train.replay-2-sums") && !listed.contains("train.replay-1-row"), "{listed}");
    let output = run(dir, SMALL, "--jobs 2");
    assert!(output.status.success(), "{}", said(&output));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        printed.contains("2 tasks are learned one after another: row, sums.")
            && printed.contains("lora: average accuracy"),
        "{printed}"
    );
    let read = |file: &str| std::fs::read_to_string(dir.join("out").join(file)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&read("report.sequence.json")).unwrap();
    let methods = json["sequences"][0]["methods"].as_array().unwrap();
    assert_eq!(methods.len(), 3);
    for method in methods {
        assert_eq!(method["r"].as_array().unwrap().len(), 3, "the base and two tasks: {method}");
        assert!(method["measures"][1]["forgetting"]["value"].is_f64(), "{method}");
    }
    assert_eq!(methods[0]["seeds"][0]["r"][1], methods[1]["seeds"][0]["r"][1], "the same first stage");
    assert!(
        read("report.html").contains(">Tasks in a row</h2>")
            && read("report.study.csv").contains("forgetting after task 2")
    );

    let again = run(dir, SMALL, "");
    assert!(again.status.success(), "{}", said(&again));
    let begun: Vec<String> = said(&again).lines().filter(|line| line.starts_with('[')).map(String::from).collect();
    assert_eq!(begun.len(), 1, "only the report is made again: {begun:?}");
}

#[test]
fn tasks_that_share_examples_are_refused_by_name_and_nothing_is_lost() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    // Few enough puzzles of two small numbers for two seeds to draw some of the same.
    let shared = SMALL.replace(
        "[prior]",
        "[puzzles.again]\ntask = \"countdown\"\nnumbers = \"2\"\ncount = 16\nsplit = \"0.5,0,0.5\"\nseed = 8\n\n[prior]",
    );
    let shared = shared
        .replace("count = 16\nsplit = \"0.5,0,0.5\"\nseed", "max_number = 5\ncount = 16\nsplit = \"0.5,0,0.5\"\nseed")
        .replace("numbers = \"2\"\ncount", "numbers = \"2\"\nmax_number = 5\ncount")
        .replace("tasks = [\"row\", \"sums\"]", "tasks = [\"row\", \"sums\", \"again\"]");
    let refused = run(dir, &shared, "");
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    let why = said(&refused);
    assert!(why.contains("of again (") && why.contains("of sums (") && why.contains("ask the same"), "{why}");
    let out = dir.join("out");
    assert!(!out.join("runs").exists() && out.join("puzzles/again/manifest.json").is_file(), "{why}");

    // A family of the prior sets with their seed asks the same as they do.
    let family = SMALL
        .replace("task = \"countdown\"\nnumbers = \"2\"\ncount = 16", "suite = \"pope\"\ncount = 12")
        .replace("sums", "objects");
    std::fs::remove_dir_all(&out).unwrap();
    let refused = run(dir, &family, "");
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(
        said(&refused).contains("of pope-direct") && said(&refused).contains("of objects (test)"),
        "{}",
        said(&refused)
    );

    // With another seed, under another name, it goes on with what is there.
    let mended = family.replace("objects", "others").replace(
        "suite = \"pope\"\ncount = 12\nsplit = \"0.5,0,0.5\"\n\n[prior]",
        "suite = \"pope\"\ncount = 12\nsplit = \"0.5,0,0.5\"\nseed = 11\n\n[prior]",
    );
    let goes_on = run(dir, &mended, "--only puzzles.others --only sequence.base");
    assert!(goes_on.status.success() && !said(&goes_on).contains("puzzles.row"), "{}", said(&goes_on));
}
