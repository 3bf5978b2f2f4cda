//! The maths task from the command line: made, scored, evaluated; trained on together with countdown, with a command of the user's in the
//! reward, which breaks and is mended.

use crate::command::{done, jigsaw, refused};
use std::fs;
use std::path::Path;

/// A number that follows from the line; ends at its 13th line while there is a file `broken`.
const REWARD: &str = r#"n=0
while read -r line; do
  n=$((n+1))
  if [ -e broken ] && [ $n = 13 ]; then exit 3; fi
  echo "0.${#line}"
done
"#;

/// The lines of `metrics.jsonl`, without what depends on the clock.
fn metrics(run: &Path) -> Vec<serde_json::Map<String, serde_json::Value>> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Map<_, _>>(line).unwrap());
    lines.map(|line| line.into_iter().filter(|(name, _)| !name.contains("second")).collect()).collect()
}

#[test]
fn word_problems_are_made_scored_evaluated_and_learnt_with_a_command_in_the_reward() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let made = done(dir, "gen --task maths --levels 1-2 --count 40 --split 0.6,0.2,0.2 --out maths");
    assert_eq!(made, "maths: train 24, validation 8, test 8 records\n");
    done(dir, "gen --task countdown --numbers 2 --max-number 9 --count 20 --split 0.6,0.2,0.2 --out countdown");
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/base-tiny");
    let base = base.display();
    let printed =
        done(dir, &format!("eval --model {base} --data maths --max-new-tokens 8 --stop </answer> --out eval"));
    assert!(printed.contains("guessing"), "{printed}");

    fs::write(dir.join("reward.sh"), REWARD).unwrap();
    let train = |out: &str| {
        format!(
            "train --method rft --model {base} --data maths --set train.steps=3 --set train.batch_size=2 --set rollout.num_generations=4 \
             --set rollout.max_new_tokens=16 --set eval.steps=0 --set train.freeze=[\"vision\"] --set train.learning_rate=1e-4 \
             --set 'train.mix=[\"countdown:0.5\"]' --set 'rollout.stop=[\"</answer>\"]' \
             --set 'reward.command=sh reward.sh' --set reward.command_weight=2 --set reward.overlong_buffer=8 --out {out}"
        )
    };
    done(dir, &train("whole"));
    let whole = metrics(&dir.join("whole"));
    assert_eq!(whole.len(), 3);
    for line in &whole {
        let term = |name: &str| line[name].as_f64().unwrap();
        assert!(term("reward_command") > 0.0 && (-1.0..=0.0).contains(&term("reward_overlong")), "{line:?}");
        let sum = term("reward_partial_credit") + term("reward_accuracy") + term("reward_format");
        let expected = sum + 2.0 * term("reward_command") + term("reward_overlong");
        assert!((term("reward") - expected).abs() < 1e-9, "{line:?}");
    }
    let examples = fs::read_to_string(dir.join("whole/examples.jsonl")).unwrap();
    assert!(examples.contains("maths/train-") && examples.contains("countdown/train-"), "{examples}");

    // It breaks in the second step: the first one is kept, and with the command mended the run ends with the same bytes.
    fs::write(dir.join("broken"), "").unwrap();
    let output = jigsaw(dir, &train("broken-run"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("reward.command ended with exit status: 3, for response 0 to example "), "{said}");
    assert!(said.contains("/train-"), "{said}");
    assert!(dir.join("broken-run/checkpoints/step-00000001").is_dir(), "{said}");
    fs::remove_file(dir.join("broken")).unwrap();
    done(dir, &train("broken-run"));
    assert_eq!(metrics(&dir.join("broken-run")), whole);
    let weights = |run: &str| fs::read(dir.join(run).join("model/model.safetensors")).unwrap();
    assert!(weights("whole") == weights("broken-run"), "the weights differ");

    // With every response masked there is nothing to learn, and without the mask there is.
    let cut = |out: &str, masked: bool| {
        let line = train(out)
            .replace("max_new_tokens=16", "max_new_tokens=4")
            .replace("overlong_buffer=8", "overlong_buffer=4");
        done(dir, &format!("{line} --set rollout.temperature=3 --set grpo.mask_truncated_completions={masked}"));
        metrics(&dir.join(out))
    };
    assert!(cut("masked", true).iter().all(|line| line["loss"] == 0.0 && line["grad_norm"] == 0.0));
    assert!(cut("unmasked", false).iter().any(|line| line["grad_norm"].as_f64().unwrap() > 0.0));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    done(dir, "gen --task maths --families marbles --levels 1 --count 20 --out maths");
    done(dir, "model init --preset tiny --out model");
    let train = "train --method rft --model model --data maths --out out --set";
    for (line, said) in [
        ("gen --task maths --families algebra --out out", "no family is called `algebra`"),
        ("gen --task maths --levels 4 --out out", "levels `4`"),
        ("gen --task maths --numbers 3 --out out", "--numbers has no effect with --task maths"),
        ("gen --task countdown --levels 2 --out out", "--levels has no effect with --task countdown"),
        ("gen --task maths --families marbles --levels 1 --count 20000 --out out", "different puzzles were found"),
        (&format!("{train} reward.command_weight=2"), "reward.command_weight has no effect without a command"),
        (&format!("{train} reward.overlong_penalty=2"), "reward.overlong_penalty has no effect without"),
        (&format!("{train} reward.overlong_buffer=600"), "reward.overlong_buffer = 600: must be at most"),
        (&format!("{train} 'train.mix=[\"nowhere\"]'"), "train.mix: "),
        (&format!("{train} 'train.mix=[\"maths:0\"]'"), "the weight must be above 0"),
        (&format!("{train} 'rollout.stop=[\"\"]'"), "rollout.stop has an empty text"),
    ] {
        let message = refused(dir, line);
        assert!(message.contains(said), "{line}: {message}");
        assert!(!dir.join("out").exists(), "{line}");
    }
}
