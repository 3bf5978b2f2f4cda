//! Models of text alone (Qwen2.5, Llama, Qwen3) through every command: there is no image on its way, and none is asked for.

use crate::command::{jigsaw, refused};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

fn done(dir: &Path, line: &str) -> (String, String) {
    let output = jigsaw(dir, line);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{line}: {said}");
    (said, String::from_utf8(output.stdout).unwrap())
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A text-only model, conversations without images, and one with an image.
fn prepare(dir: &Path, preset: &str) {
    done(dir, &format!("model init --preset {preset} --out model --seed 1"));
    let line = |i: usize| {
        let answer = ["one", "two"][i % 2];
        json!({"messages": [{"role": "user", "content": format!("Which number has {i}?")}, {"role": "assistant", "content": answer}]})
    };
    let lines: String = (0..6).map(|i| format!("{}\n", line(i))).collect();
    fs::write(dir.join("text.jsonl"), lines).unwrap();
    image::RgbImage::from_pixel(56, 28, image::Rgb([40, 10, 200])).save(dir.join("a.png")).unwrap();
    let with_image = json!({"messages": [{"role": "user", "content": "<image>What is it?"}, {"role": "assistant", "content": "one"}],
        "images": ["a.png"]});
    fs::write(dir.join("image.jsonl"), format!("{with_image}\n")).unwrap();
}

const TRAIN: &str =
    "train --model model --data text.jsonl --set train.steps=4 --set train.batch_size=2 --set train.save_steps=2";

/// Preset, what `model inspect` calls it, its class in transformers.
const FAMILIES: [(&str, &str, &str); 3] = [
    ("tiny-text", "Qwen2.5 (qwen2)", "Qwen2ForCausalLM"),
    ("tiny-llama", "Llama (llama)", "LlamaForCausalLM"),
    ("tiny-qwen3", "Qwen3 (qwen3)", "Qwen3ForCausalLM"),
];

#[test]
fn a_text_only_checkpoint_is_trained_scored_evaluated_and_inspected() {
    for (preset, title, class) in FAMILIES {
        trained_scored_evaluated_and_inspected(preset, title, class);
    }
}

fn trained_scored_evaluated_and_inspected(preset: &str, title: &str, class: &str) {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir, preset);
    assert!(!dir.join("model/preprocessor_config.json").exists());
    let (_, text) = done(dir, "model inspect model");
    assert!(text.contains(title) && !text.contains("Vision tower") && !text.contains("pixels"), "{text}");

    done(dir, "score --model model --data text.jsonl --out before.jsonl");
    let (plan, _) = done(dir, &format!("{TRAIN} --method sft --out planned --dry-run"));
    assert!(!plan.contains("vision"), "{plan}");
    // No part has to be frozen, and there is no vision tower to freeze.
    done(dir, &format!("{TRAIN} --method sft --out sft"));
    let said = refused(dir, &format!("{TRAIN} --method sft --out frozen --set 'train.freeze=[\"vision\"]'"));
    assert!(said.contains("\"vision\" names no parameter"), "{said}");
    done(
        dir,
        &format!("{TRAIN} --method rft --set rollout.num_generations=2 --set rollout.max_new_tokens=4 --out rft"),
    );
    done(dir, "score --model sft/model --data text.jsonl --out after.jsonl");
    let (_, table) = done(dir, "eval --model sft/model --data text.jsonl --max-new-tokens 3 --out eval");
    assert!(table.contains("6 examples"), "{table}");
    let config = json_of(&dir.join("sft/model/config.json"));
    assert_eq!(config["architectures"], json!([class]));
}

#[test]
fn a_text_only_adapter_is_trained_resumed_and_merged() {
    FAMILIES.iter().for_each(|(preset, ..)| adapter_trained_resumed_and_merged(preset));
}

fn adapter_trained_resumed_and_merged(preset: &str) {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir, preset);
    let lora = format!("{TRAIN} --method sft --set lora.rank=2");
    done(dir, &format!("{lora} --out whole"));
    // The same command finishes a run that was cut off after its second step.
    done(dir, &format!("{lora} --out resumed"));
    fs::remove_file(dir.join("resumed/finished.json")).unwrap();
    fs::remove_dir_all(dir.join("resumed/model")).unwrap();
    fs::remove_dir_all(dir.join("resumed/checkpoints/step-00000004")).unwrap();
    done(dir, &format!("{lora} --out resumed"));
    let weights = |run: &str| fs::read(dir.join(run).join("model/adapter_model.safetensors")).unwrap();
    assert!(weights("whole") == weights("resumed"));
    let about = json_of(&dir.join("whole/model/adapter_config.json"));
    assert!(about["target_modules"].as_str().unwrap().contains(r"model\.layers"), "{about}");

    done(dir, "model merge-lora whole/model --dtype f32 --out merged");
    done(dir, "model convert merged --dtype bf16 --out half");
    done(dir, "model interpolate model merged --alpha 0.5 --out between");
    let score = |model: &str| {
        done(dir, &format!("score --model {model} --data text.jsonl --out {}.jsonl", model.replace('/', "-")));
        let text = fs::read_to_string(dir.join(format!("{}.jsonl", model.replace('/', "-")))).unwrap();
        let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        first["ppl"].as_f64().unwrap()
    };
    let (adapted, merged, base) = (score("whole/model"), score("merged"), score("model"));
    assert!(
        (adapted - merged).abs() < 1e-4 * adapted && (adapted - base).abs() > 1e-3 * base,
        "{adapted} {merged} {base}"
    );
    score("half");
    score("between");
}

#[test]
fn a_text_only_model_refuses_images() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir, "tiny-text");
    for line in [
        "score --model model --data image.jsonl --out scores.jsonl",
        "train --model model --data image.jsonl --method sft --set train.steps=1 --out run",
        "eval --model model --data image.jsonl --out eval",
    ] {
        let said = refused(dir, line);
        assert!(said.contains("Qwen2.5 reads text alone"), "{line}: {said}");
    }
}
