//! Models with vision of other families (Qwen2-VL, Qwen3-VL) through the commands: training, adapters, scores, answers.

use crate::command::jigsaw;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

fn done(dir: &Path, line: &str) -> String {
    let output = jigsaw(dir, line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_tiny_model_of_each_family_is_trained_adapted_scored_and_evaluated() {
    for (preset, title, class, layer) in [
        (
            "tiny-qwen2-vl",
            "Qwen2-VL (qwen2_vl)",
            "Qwen2VLForConditionalGeneration",
            "model.layers.0.mlp.up_proj.weight",
        ),
        (
            "tiny-qwen3-vl",
            "Qwen3-VL (qwen3_vl)",
            "Qwen3VLForConditionalGeneration",
            "model.language_model.layers.0.mlp.up_proj.weight",
        ),
    ] {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path();
        done(dir, &format!("model init --preset {preset} --out model --seed 1"));
        for (name, colour) in [("a.png", [40, 10, 200]), ("b.png", [200, 90, 10])] {
            image::RgbImage::from_pixel(100, 70, image::Rgb(colour)).save(dir.join(name)).unwrap();
        }
        let line = |i: usize| {
            let (answer, image) = [("one", "a.png"), ("two", "b.png")][i % 2];
            json!({"messages": [{"role": "user", "content": format!("<image>Which number has {i}?")},
                {"role": "assistant", "content": answer}], "images": [image]})
        };
        let lines: String = (0..4).map(|i| format!("{}\n", line(i))).collect();
        fs::write(dir.join("data.jsonl"), lines).unwrap();
        let text = done(dir, "model inspect model");
        assert!(text.contains(title) && text.contains("attention over the whole image"), "{text}");

        let train =
            "train --method sft --model model --data data.jsonl --set train.batch_size=4 --set train.save_steps=10";
        done(dir, &format!("{train} --set train.steps=12 --set train.learning_rate=2e-3 --out sft"));
        done(
            dir,
            &format!(
                "{train} --set train.steps=2 --set train.gradient_checkpointing=true --set lora.rank=2 --out lora"
            ),
        );
        let config: Value = serde_json::from_slice(&fs::read(dir.join("sft/model/config.json")).unwrap()).unwrap();
        assert_eq!(config["architectures"], json!([class]));
        let stored = fs::read(dir.join("sft/model/model.safetensors")).unwrap();
        let header =
            String::from_utf8_lossy(&stored[8..8 + u64::from_le_bytes(stored[..8].try_into().unwrap()) as usize]);
        assert!(header.contains(&format!("\"{layer}\"")), "{header}");

        let score = |model: &str, out: &str| -> f64 {
            done(dir, &format!("score --model {model} --data data.jsonl --out {out}"));
            let lines = fs::read_to_string(dir.join(out)).unwrap();
            let perplexity = |line: &str| serde_json::from_str::<Value>(line).unwrap()["ppl"].as_f64().unwrap();
            lines.lines().map(perplexity).sum()
        };
        assert!(score("sft/model", "after.jsonl") < 0.5 * score("model", "before.jsonl"), "{preset}");
        done(dir, "model merge-lora lora/model --dtype f32 --out merged");
        let (adapted, merged) = (score("lora/model", "lora.jsonl"), score("merged", "merged.jsonl"));
        assert!((adapted - merged).abs() < 1e-4 * adapted, "{adapted} {merged}");
        let table = done(dir, "eval --model sft/model --data data.jsonl --max-new-tokens 3 --out eval");
        assert!(table.contains("4 examples"), "{table}");
    }
}
