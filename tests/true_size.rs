//! The widths of a published checkpoint, two layers deep: scored as transformers scores it, answered, trained, within its memory plan.
//!
//! Slow, and not run by default: `cargo test --release --test true_size -- --ignored`. Half a billion random parameters, 1.1 GB on disk
//! and about 4 GB of memory. The expected log-probabilities are those of transformers in f32 on the same weights, recorded by
//! `scripts/reference/true_size.py --record`.

mod common;

use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn done(dir: &Path, line: &str) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_jigsaw")).args(line.split_whitespace()).current_dir(dir).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    said
}

/// The number before `unit` in the first line that holds `what`, after it: bytes.
fn bytes(said: &str, what: &str) -> f64 {
    let rest = said.split(what).nth(1).unwrap_or_else(|| panic!("{what} is not in {said}")).trim_start();
    let mut words = rest.split_whitespace();
    let number: f64 = words.next().unwrap().parse().unwrap();
    match words.next().unwrap() {
        unit if unit.starts_with("GB") => number * 1e9,
        unit if unit.starts_with("MB") => number * 1e6,
        other => panic!("{other}"),
    }
}

#[test]
#[ignore = "slow: half a billion parameters"]
fn the_published_widths_score_as_transformers_answer_and_train_within_their_plan() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    done(at, "model init --preset qwen2.5-vl-3b-cut --random --seed 1 --out model");
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/photos");
    let gen_line = format!(
        "gen --images {} --limit 12 --grid 3x3 --tile 112 --count 12 --split 0.5,0.25,0.25 --seed 1 --out data",
        photos.display()
    );
    done(at, &gen_line);
    done(at, "score --model model --data data --split test --batch-size 1 --out scores.jsonl");
    let want: Vec<Vec<f64>> =
        serde_json::from_value(common::json("true_size/qwen2.5-vl-3b-cut.json")["logprobs"].clone()).unwrap();
    let text = std::fs::read_to_string(at.join("scores.jsonl")).unwrap();
    assert_eq!(text.lines().count(), want.len());
    for (line, want) in text.lines().zip(&want) {
        let line: Value = serde_json::from_str(line).unwrap();
        let got: Vec<f64> = serde_json::from_value(line["logprobs"].clone()).unwrap();
        assert_eq!(got.len(), want.len());
        let largest = want.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() <= 1e-4 * largest, "{}: {got} against {want}", line["id"]);
        }
    }
    done(at, "eval --model model --data data --split test --limit 1 --max-new-tokens 32 --batch-size 1 --out eval");
    for method in [
        "sft",
        "rft --set rollout.num_generations=2 --set rollout.max_new_tokens=16 --set grpo.beta=0.04 --set grpo.entropy_coef=0.01",
    ] {
        let said = done(
            at,
            &format!(
                "train --method {method} --model model --data data --set lora.rank=8 --set train.steps=1 --set train.batch_size=1 --set \
             train.gradient_checkpointing=true --set eval.steps=0 --out {}",
                &method[..3]
            ),
        );
        let line = |what: &str| said.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{said}"));
        let (plan, peak) = (bytes(line("at most"), "about"), bytes(line("at its highest"), "memory:"));
        assert!(peak <= 1.1 * plan, "{method}: {peak} bytes at its highest, {plan} planned");
        assert!(at.join(&method[..3]).join("model/adapter_model.safetensors").exists());
    }
}
