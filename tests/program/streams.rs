//! Training on puzzles that are made as they are needed.

use crate::command::{done, refused};
use std::fs;
use std::path::Path;

const PHOTOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/photos");

fn puzzles(dir: &Path, out: &str, flags: &[&str]) {
    let common = [
        "gen",
        "--images",
        PHOTOS,
        "--limit",
        "10",
        "--grid",
        "2x2",
        "--split",
        "0.7,0,0.3",
        "--augment",
        "--out",
        out,
    ];
    done(dir, &[&common[..], flags].concat());
}

fn trained(dir: &Path, data: &str, out: &str, flags: &[&str]) -> Vec<u8> {
    let common = [
        "train",
        "--model",
        "model",
        "--data",
        data,
        "--out",
        out,
        "--set",
        "train.batch_size=4",
        "--set",
        "eval.steps=0",
    ];
    done(dir, &[&common[..], flags].concat());
    fs::read(dir.join(out).join("model/model.safetensors")).unwrap()
}

#[test]
fn streamed_puzzles_train_as_stored_ones_do_and_resume_to_the_byte() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    done(dir, &["model", "init", "--preset", "tiny", "--out", "model"]);
    puzzles(dir, "stored", &["--count", "60"]);
    puzzles(dir, "streamed", &["--count", "18", "--stream", "42"]);
    let sft = ["--method", "sft", "--set", "train.steps=4", "--set", "train.save_steps=2"];
    let stored = trained(dir, "stored", "sft-stored", &sft);
    let streamed = trained(dir, "streamed", "sft-streamed", &sft);
    assert!(stored == streamed, "the same puzzles, the same model");

    // As if it had been stopped after step 2.
    let run = dir.join("sft-streamed");
    fs::remove_file(run.join("finished.json")).unwrap();
    fs::remove_dir_all(run.join("model")).unwrap();
    fs::remove_dir_all(run.join("checkpoints/step-00000004")).unwrap();
    assert!(trained(dir, "streamed", "sft-streamed", &sft) == stored, "resumed to the same bytes");

    let rft = [
        "--method",
        "rft",
        "--set",
        "train.steps=1",
        "--set",
        "rollout.num_generations=2",
        "--set",
        "rollout.max_new_tokens=4",
    ];
    trained(dir, "streamed", "rft", &rft);
    let plan = done(
        dir,
        &["train", "--method", "sft", "--model", "model", "--data", "streamed", "--dry-run", "--out", "planned"],
    );
    assert!(plan.contains("42"), "{plan}");
}

#[test]
fn rollouts_evaluations_and_refusals_of_a_stream() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    puzzles(dir, "data", &["--count", "12", "--stream", "1000000", "--style", "think", "--preview", "2"]);
    assert!(dir.join("data/preview.png").is_file() && !dir.join("data/train/images").exists());
    done(dir, &["rollout", "--teacher", "scripted", "--data", "data", "--limit", "5", "--out", "rollouts"]);
    let lines = fs::read_to_string(dir.join("rollouts/train/metadata.jsonl")).unwrap();
    assert_eq!((lines.lines().count(), fs::read_dir(dir.join("rollouts/train/images")).unwrap().count()), (5, 5));
    let flags = ["eval", "--solver", "edges", "--data", "data", "--split", "train", "--limit", "20", "--out", "eval"];
    assert!(done(dir, &flags).contains("20 examples"));
    let of = |flags: &[&str]| refused(dir, &[&["gen", "--out", "no"], flags].concat());
    assert!(of(&["--images", "scenes", "--stream", "5"]).contains("stream: makes puzzles of photos"));
    assert!(of(&["--images", PHOTOS, "--stream", "0"]).contains("stream 0"));
    assert!(of(&["--images", PHOTOS, "--stream", "9", "--split", "0,0,1"]).contains("no photo for train"));
}
