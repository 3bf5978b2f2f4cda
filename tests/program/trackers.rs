//! `scripts/trackers` with stand-ins for the packages of W&B, trackio and MLflow: what they are told of a run, and of one that is resumed.

use crate::command::done;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn script(name: &str) -> String {
    format!("{}/scripts/trackers/to_{name}.py", env!("CARGO_MANIFEST_DIR"))
}

/// Python that reads TOML, or none.
fn python() -> bool {
    Command::new("python3").args(["-c", "import tomllib"]).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

fn stand_ins() -> String {
    format!("{}/tests/fixtures/trackers", env!("CARGO_MANIFEST_DIR"))
}

fn calls(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Tell the script of these steps of the run in `run`; the calls so far.
fn told(name: &str, run: &Path, steps: &[usize], file: &Path) -> Vec<Value> {
    let mut command = Command::new("python3");
    command.arg(script(name)).arg("my project").env("PYTHONPATH", stand_ins()).env("PYTHONDONTWRITEBYTECODE", "1");
    let mut child = command.env("CALLS", file).env("JIGSAW_RUN_DIR", run).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for step in steps {
        writeln!(input, "{}", json!({"run": "sft", "step": step, "loss": 0.5 * *step as f64, "kl": null})).unwrap();
    }
    drop(input);
    assert!(child.wait().unwrap().success(), "{name}");
    calls(file)
}

fn steps(calls: &[Value]) -> Vec<u64> {
    calls.iter().filter(|call| call[0] == "log").map(|call| call[2].as_u64().unwrap()).collect()
}

fn make_run(run: &Path, started: u64, steps: usize) {
    std::fs::create_dir_all(run).unwrap();
    std::fs::write(run.join("config.toml"), format!("[train]\nmethod = \"sft\"\nsteps = {steps}\n")).unwrap();
    let about = json!({"jigsaw": "0", "model": "m", "model_hash": "a", "data": "d", "data_hash": "b", "seed": 7, "started": started});
    std::fs::write(run.join("run.json"), about.to_string()).unwrap();
}

#[test]
fn a_resumed_run_continues_in_each_tracker_and_another_does_not() {
    if !python() {
        eprintln!("not tested: there is no python3 with tomllib");
        return;
    }
    for (name, begins, id, all) in [
        ("wandb", "init", "/id", vec![1, 2, 3, 4, 5]),
        ("trackio", "init", "/name", vec![1, 2, 3, 2, 3, 4, 5]),
        ("mlflow", "start", "/tags/jigsaw_id", vec![1, 2, 3, 3, 4, 5]),
    ] {
        let temporary = tempfile::tempdir().unwrap();
        let (run, file) = (temporary.path().join("tiny/runs/sft"), temporary.path().join("calls"));
        make_run(&run, 1, 3);
        told(name, &run, &[1, 2, 3], &file);
        // Resumed with more steps: those after the last checkpoint come again.
        make_run(&run, 1, 5);
        let heard = told(name, &run, &[2, 3, 4, 5], &file);
        assert_eq!(steps(&heard), all, "{name}");
        let first = heard.iter().find(|call| call[0] == "log").unwrap();
        assert!(first[1]["loss"] == 0.5 && first[1].get("kl").is_none() && first[1].get("run").is_none(), "{first}");
        let text = heard.iter().map(Value::to_string).collect::<String>();
        assert!(text.contains("my project") && text.contains("\"tiny\"") && text.contains("sft"), "{text}");
        let ids = |heard: &[Value]| -> Vec<Value> {
            heard.iter().filter(|call| call[0] == begins).map(|call| call[1].pointer(id).unwrap().clone()).collect()
        };
        // Another run in the same place.
        make_run(&run, 2, 3);
        let ids = ids(&told(name, &run, &[1], &file));
        assert!(ids.len() == 3 && ids[0] == ids[1] && ids[1] != ids[2], "{name}: {ids:?}");
    }
}

#[test]
fn a_training_run_reports_its_settings_and_steps() {
    if !python() {
        eprintln!("not tested: there is no python3 with tomllib");
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/photos");
    done(dir, "model init --preset tiny --out model");
    done(dir, &["gen", "--images", photos.to_str().unwrap(), "--grid", "1x2", "--count", "12", "--out", "data"]);
    let file = dir.join("calls");
    let (stand_ins, script) = (stand_ins(), script("mlflow"));
    let command = format!("PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={stand_ins} CALLS={} python3 {script}", file.display());
    let common = ["train", "--method", "sft", "--model", "model", "--data", "data", "--out", "runs/sft"];
    let sets = ["--set", "train.steps=2", "--set", "train.batch_size=2", "--set", "eval.steps=0"];
    done(dir, &[&common[..], &sets, &["--metrics-command", &command]].concat());
    let heard = calls(&file);
    assert_eq!(steps(&heard), [1, 2]);
    let config = heard.iter().find(|call| call[0] == "config").unwrap();
    assert_eq!((&config[1]["train.steps"], &config[1]["run.model"]), (&2.into(), &"model".into()));
    assert!(heard.last().unwrap()[0] == "finish" && heard.iter().any(|call| call[1]["step"] == 2), "{heard:?}");
}
