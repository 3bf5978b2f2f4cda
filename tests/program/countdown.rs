//! The countdown task from the command line: made, scored, evaluated, sampled and trained on, with the embedded base.

use crate::command::{done, refused};
use jigsaw::data::Dataset;
use jigsaw::model::Processor;
use std::fs;
use std::path::Path;

const GEN: &str = "gen --task countdown --numbers 2-3 --max-number 9 --max-target 30 --count 40 --split 0.6,0.2,0.2";

fn lines(path: &Path) -> Vec<serde_json::Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn countdown_is_made_scored_evaluated_sampled_and_trained_on() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    assert_eq!(done(dir, &format!("{GEN} --out data")), "data: train 24, validation 8, test 8 records\n");
    done(dir, &format!("{GEN} --out data"));
    assert!(refused(dir, &format!("{GEN} --out data").replace("--count 40", "--count 41")).contains("data"));
    done(dir, &format!("{GEN} --overwrite --out data"));
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/base-tiny");
    let base = base.display();

    // The tokenizer writes every prompt and every answer.
    let processor = Processor::from_dir(Path::new(&base.to_string())).unwrap();
    for record in Dataset::open(&dir.join("data"), "train").unwrap().records() {
        let record = record.unwrap();
        let response = record.response().unwrap();
        let ids = processor.encode_response(response).unwrap();
        assert_eq!(processor.decode(&ids).unwrap(), response);
        assert!(!processor.encode_prompt(record.prompt(), &[]).unwrap().ids.is_empty());
    }

    done(dir, &format!("score --model {base} --data data --out scores.jsonl"));
    assert_eq!(lines(&dir.join("scores.jsonl")).len(), 8);

    let printed = done(dir, &format!("eval --model {base} --data data --max-new-tokens 8 --out eval"));
    assert!(printed.contains("partial credit") && printed.contains("guessing"), "{printed}");
    let result: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(dir.join("eval/result.json")).unwrap()).unwrap();
    let chance = result["summary"]["chance"]["accuracy"].as_f64().or(result["chance"]["accuracy"].as_f64()).unwrap();
    assert!(chance > 0.0 && chance < 0.5, "{result}");

    done(
        dir,
        &format!(
            "rollout --model {base} --data data --limit 8 --num-generations 4 --keep all --max-new-tokens 96 --out rollouts"
        ),
    );
    let kept = Dataset::open(&dir.join("rollouts"), "train").unwrap();
    assert!(kept.records().map(Result::unwrap).all(|record| record.task == "countdown" && record.images.is_empty()));

    // Partial credit and format are rare at first, so every reward may be equal; the steps are made all the same.
    done(
        dir,
        &format!(
            "train --method rft --model {base} --data data --set train.steps=3 --set train.batch_size=2 \
         --set rollout.num_generations=4 --set rollout.max_new_tokens=24 --set eval.steps=3 --set eval.limit=4 \
         --set eval.max_new_tokens=24 --out rft"
        ),
    );
    let metrics = lines(&dir.join("rft/metrics.jsonl"));
    let steps: Vec<_> = metrics.iter().filter(|line| line.get("reward").is_some()).collect();
    assert_eq!(steps.len(), 3);
    for name in ["reward_partial_credit", "reward_accuracy", "reward_format"] {
        assert!(steps.iter().all(|step| step[name].is_number()), "{name} is missing in {}", steps[0]);
    }
    done(dir, "eval --model rft/model --data data --limit 2 --max-new-tokens 8 --out eval-rft");
}

#[test]
fn what_cannot_be_made_or_scored_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    for (line, said) in [
        ("gen --task countdown --count 0 --out out", "count 0"),
        ("gen --task countdown --numbers 1 --out out", "from 2 to 6"),
        ("gen --task countdown --numbers 2 --max-number 2 --count 500 --out out", "different puzzles"),
        ("gen --task countdown --max-target 0 --out out", "max-target 0"),
        ("gen --task countdown --grid 2x2 --out out", "--grid"),
        ("gen --task riddle --out out", "riddle"),
        ("gen --numbers 3 --out out", "--task"),
    ] {
        let message = refused(dir, line);
        assert!(message.contains(said), "{line}: {message}");
        assert!(!dir.join("out").exists(), "{line}");
    }
    // A record whose target its answer does not reach.
    let record = r#"{"id": "0", "task": "countdown", "messages": [{"role": "user", "content": "?"}], "answer": "2 + 3", "meta": {"numbers": [2, 3], "target": 6, "style": "direct"}}"#;
    fs::write(dir.join("data.jsonl"), record).unwrap();
    done(dir, "model init --preset tiny --out model");
    let message = refused(dir, "eval --model model --data data.jsonl --out eval");
    assert!(message.contains("data.jsonl:1") && message.contains("does not make the target 6"), "{message}");
}
