//! How a run ends, what it keeps and how it goes on, from the command line, with the embedded base.

use crate::command::{done, refused};
use serde_json::Value;
use std::fs;
use std::path::Path;

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_run_keeps_its_best_checkpoint_watches_prior_knowledge_and_is_lengthened() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/base-tiny");
    let base = base.display();
    done(dir, "gen --images scenes --grid 1x2 --count 24 --split 0.5,0.25,0.25 --out data");
    done(dir, "gen --suite pope --count 16 --split 0.5,0.25,0.25 --out prior");
    let start = |out: &str, sets: &str| {
        format!(
            "train --method sft --model {base} --data data --out {out} --set train.batch_size=4 --set train.learning_rate=1e-3 \
             --set train.lr_scheduler_type=constant --set train.save_total_limit=1 --set eval.max_new_tokens=8 --set eval.steps=1 {sets}"
        )
    };
    let watched = "--set train.save_best=true --set eval.prior=prior --set train.stop_when_forgotten=0.9";
    let printed = done(dir, &start("run", &format!("{watched} --set train.steps=2")));
    assert!(printed.contains("2 steps") && printed.contains("best accuracy"), "{printed}");
    let best = read(&dir.join("run/best.json"));
    assert_eq!(read(&dir.join("run/finished.json"))["best"], best);
    assert!(dir.join("run").join(best["checkpoint"].as_str().unwrap()).join("model.safetensors").exists());
    let metrics = fs::read_to_string(dir.join("run/metrics.jsonl")).unwrap();
    assert_eq!(metrics.matches("eval/prior_score").count(), 3);
    assert_eq!(metrics.matches("eval/prior_change_high").count(), 2);

    // The same command with other settings is refused; --resume lengthens, to the bytes of a run of that length.
    let other = refused(dir, &start("run", &format!("{watched} --set train.steps=4")));
    assert!(
        other.contains("train.steps: 2 -> 4") && other.contains("train --resume run --set train.steps=N"),
        "{other}"
    );
    let other = refused(dir, "train --resume run --set train.batch_size=2");
    assert!(other.contains("train.batch_size: 4 -> 2"), "{other}");
    let printed = done(dir, "train --resume run --set train.steps=4");
    assert!(printed.contains("4 steps"), "{printed}");
    done(dir, &start("whole", &format!("{watched} --set train.steps=4")));
    let weights = |run: &str| fs::read(dir.join(run).join("model/model.safetensors")).unwrap();
    assert_eq!(weights("run"), weights("whole"));
    assert!(done(dir, "train --resume run").contains("finished already"));
}

#[test]
fn a_run_can_train_on_the_puzzles_that_rollouts_answer() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/base-tiny");
    let base = base.display();
    for (style, seed) in [("direct", 7), ("think", 7), ("think", 8)] {
        done(
            dir,
            &format!(
                "gen --images scenes --grid 1x2 --count 12 --split 1,0,0 --style {style} --seed {seed} --out {style}-{seed}"
            ),
        );
    }
    for seed in [7, 8] {
        done(dir, &format!("rollout --teacher scripted --data think-{seed} --limit 5 --out rollouts-{seed}"));
    }
    let train = |rollouts: &str| {
        format!(
            "train --method sft --model {base} --data direct-7 --out runs-{rollouts} --set train.prompts_of={rollouts} --set train.steps=1 \
             --set train.batch_size=2 --set eval.steps=0"
        )
    };
    done(dir, &train("rollouts-7"));
    assert_eq!(read(&dir.join("runs-rollouts-7/run.json"))["examples"], 5);
    let error = refused(dir, &train("rollouts-8"));
    assert!(error.contains("train.prompts_of") && error.contains("is another puzzle"), "{error}");
}
