//! `jigsaw eval`, `score` and `report` as a user runs them: what they print, leave behind and refuse.

use crate::command::{done, refused};
use std::fs;
use std::path::Path;

fn prepare(dir: &Path) {
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/photos");
    done(dir, &["model", "init", "--preset", "tiny", "--out", "model"]);
    let photos = photos.to_str().unwrap();
    done(dir, &["gen", "--images", photos, "--grid", "1x2", "--count", "30", "--split", "1,1,1", "--out", "data"]);
}

fn rows(path: &Path) -> Vec<serde_json::Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn eval_prints_a_table_keeps_responses_and_refuses_another_evaluation_in_its_place() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let common = ["eval", "--model", "model", "--data", "data", "--max-new-tokens", "4", "--out", "out"];
    let table = done(dir, &[&common[..], &["--batch-size", "3"]].concat());
    for expected in ["whole answer right", "95 % interval", "guessing 100.0 %", "10 examples", "out/result.json"] {
        assert!(table.contains(expected), "{expected:?} is missing in:\n{table}");
    }
    let responses = fs::read(dir.join("out/responses.jsonl")).unwrap();
    assert_eq!(rows(&dir.join("out/responses.jsonl")).len(), 10);

    // Interrupted in the middle of a line, it ends the same; in batches of another size, too.
    fs::write(dir.join("out/responses.jsonl"), &responses[..responses.len() * 2 / 3]).unwrap();
    fs::remove_file(dir.join("out/result.json")).unwrap();
    done(dir, &[&common[..], &["--batch-size", "7"]].concat());
    assert_eq!(fs::read(dir.join("out/responses.jsonl")).unwrap(), responses);

    let message = refused(dir, &[&common[..], &["--limit", "5"]].concat());
    assert!(message.contains("examples: 10 -> 5") && message.contains("--fresh"), "{message}");
    done(dir, &[&common[..], &["--limit", "5", "--fresh"]].concat());
    assert_eq!(rows(&dir.join("out/responses.jsonl")).len(), 5);

    let page = done(dir, &["report", "out", "--out", "report.html"]);
    assert_eq!(page.trim(), "report.html");
    assert!(fs::read_to_string(dir.join("report.html")).unwrap().contains("Whole answer right"));
    assert!(refused(dir, &["report", "data"]).contains("no run in data"));
    done(dir, "report out --format md");
    let table = fs::read_to_string(dir.join("report.md")).unwrap();
    assert!(table.contains("## Evaluations") && table.contains("| out | jigsaw | test |"), "{table}");
    done(dir, "report out --format json");
    let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(dir.join("report.json")).unwrap()).unwrap();
    let result: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(dir.join("out/result.json")).unwrap()).unwrap();
    assert_eq!(json["evaluations"][0]["summary"], result["summary"]);
    assert!(refused(dir, "report out --format csv").contains("--format json"));
}

#[test]
fn solvers_are_evaluated_like_models_and_beat_guessing() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/photos");
    let of = ["--images", photos.to_str().unwrap(), "--grid", "2x2", "--count", "400", "--split", "0.75,0,0.25"];
    done(dir, &[&["gen"][..], &of, &["--out", "data"]].concat());
    let share = |solver: &str| -> f64 {
        let out = format!("eval-{solver}");
        let table = done(dir, &["eval", "--solver", solver, "--data", "data", "--out", &out]);
        assert!(table.starts_with(&format!("solver: {solver} on jigsaw (test), 100 examples")), "{table}");
        let result = fs::read_to_string(dir.join(&out).join("result.json")).unwrap();
        let result: serde_json::Value = serde_json::from_str(&result).unwrap();
        assert_eq!(result["summary"]["well_formed"]["value"], 1.0);
        result["summary"]["accuracy"]["value"].as_f64().unwrap()
    };
    let (edges, colour) = (share("edges"), share("colour"));
    // Guessing solves 4.3 % of them.
    assert!(edges > 0.7 && colour > 0.13 && colour < edges, "edges {edges}, colour {colour}");
    done(dir, &["report", "eval-edges", "--out", "report.html"]);
    done(dir, &["gen", "--images", "scenes", "--grid", "2x2", "--count", "4", "--split", "0,0,1", "--out", "tests"]);
    let common = ["eval", "--solver", "colour", "--data", "tests", "--out", "out"];
    assert!(refused(dir, &common).contains("no split `train`"), "there is nothing to learn from");
    done(dir, &[&common[..], &["--solver-train", "data"]].concat());
}

#[test]
fn score_gives_each_response_token_its_log_probability_whatever_the_batch() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let of = |batch: &str, out: &str| {
        done(dir, &["score", "--model", "model", "--data", "data", "--batch-size", batch, "--out", out]);
        rows(&dir.join(out))
    };
    let (one, many) = (of("1", "one.jsonl"), of("4", "deep/many.jsonl"));
    let records = rows(&dir.join("data/test/metadata.jsonl"));
    assert_eq!(one.len(), 10);
    for ((a, b), record) in one.iter().zip(&many).zip(&records) {
        assert_eq!((&a["id"], &a["token_ids"]), (&b["id"], &b["token_ids"]));
        assert_eq!(a["id"], record["id"]);
        let numbers = |row: &serde_json::Value| -> Vec<f64> {
            row["logprobs"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect()
        };
        let (p, q) = (numbers(a), numbers(b));
        assert_eq!(p.len(), a["token_ids"].as_array().unwrap().len());
        assert!(p.iter().zip(&q).all(|(p, q)| (p - q).abs() < 1e-5), "{p:?} {q:?}");
        // Random weights know nothing: close to uniform over some thousand tokens, never better than certain.
        assert!(p.iter().all(|&p| p < -1.0 && p > -20.0), "{p:?}");
        let ppl = (-p.iter().sum::<f64>() / p.len() as f64).exp();
        assert!((ppl - a["ppl"].as_f64().unwrap()).abs() < 1e-6 * ppl);
    }
}

#[test]
fn a_record_without_a_response_is_named_and_nothing_is_written() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let path = dir.join("data/test/metadata.jsonl");
    let mut records = rows(&path);
    records[3]["messages"].as_array_mut().unwrap().pop();
    fs::write(&path, records.iter().map(|r| format!("{r}\n")).collect::<String>()).unwrap();
    let message = refused(dir, &["score", "--model", "model", "--data", "data", "--out", "scores.jsonl"]);
    assert!(message.contains(records[3]["id"].as_str().unwrap()) && message.contains("1 of 10"), "{message}");
    assert!(!dir.join("scores.jsonl").exists());
}
