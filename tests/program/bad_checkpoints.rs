//! A checkpoint that cannot be used is refused with code 2, before any work, and the message says what is wrong with which file.

use crate::command::jigsaw;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A copy of `data/base-tiny`.
fn copy(to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/base-tiny")).unwrap().flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn change(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    change(&mut value);
    fs::write(file, value.to_string()).unwrap();
}

/// The header of a safetensors file, changed; the numbers stay as they are.
fn change_header(file: &Path, edit: impl FnOnce(&mut Value)) {
    let bytes = fs::read(file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    edit(&mut header);
    let text = header.to_string();
    fs::write(file, [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &bytes[8 + length..]].concat()).unwrap();
}

/// Make the weights two shards, by an index that names them.
fn shard(dir: &Path) {
    let file = dir.join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<String> = tensors.names().into_iter().map(String::from).collect();
    names.sort();
    let mut map = serde_json::Map::new();
    for (i, half) in [&names[..names.len() / 2], &names[names.len() / 2..]].into_iter().enumerate() {
        let shard = format!("model-0000{}-of-00002.safetensors", i + 1);
        let views: Vec<_> = half.iter().map(|name| (name.clone(), tensors.tensor(name).unwrap())).collect();
        fs::write(dir.join(&shard), safetensors::serialize(views, None).unwrap()).unwrap();
        map.extend(half.iter().map(|name| (name.clone(), Value::from(shard.clone()))));
    }
    fs::write(dir.join("model.safetensors.index.json"), json!({ "weight_map": map }).to_string()).unwrap();
    fs::remove_file(file).unwrap();
}

/// Rename a token of the tokenizer, everywhere.
fn rename_token(dir: &Path, token: &str) {
    let file = dir.join("tokenizer.json");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(token));
    fs::write(file, text.replace(token, "<|something|>")).unwrap();
}

const NORM: &str = "model.norm.weight";
const INDEX: &str = "model.safetensors.index.json";

/// Store a weight once more in one of the files, under this name.
fn store_again(file: &Path, weight: &[u8], as_name: &str) {
    let bytes = fs::read(file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let again = safetensors::SafeTensors::deserialize(weight).unwrap();
    let mut views: Vec<_> = tensors.names().into_iter().map(|n| (n.to_string(), tensors.tensor(n).unwrap())).collect();
    views.push((as_name.to_string(), again.tensor(NORM).unwrap()));
    fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The shard that the index places the norm in, and the other one.
fn shards_of_norm(dir: &Path) -> [String; 2] {
    let index: Value = serde_json::from_slice(&fs::read(dir.join(INDEX)).unwrap()).unwrap();
    let own = index["weight_map"][NORM].as_str().unwrap().to_string();
    let all = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let other = all.into_iter().find(|name| *name != own).unwrap().to_string();
    [own, other]
}

/// Makes a good checkpoint a bad one.
type Spoil = Box<dyn Fn(&Path)>;

#[test]
fn every_bad_checkpoint_is_refused_by_every_command_before_any_work() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let made = jigsaw(dir, "gen --images scenes --grid 1x2 --count 6 --split 0.5,0,0.5 --out data");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let model_type = |dir: &Path, name: &str| change(&dir.join("config.json"), |c| c["model_type"] = name.into());
    let cases: Vec<(&str, Spoil, Vec<&str>)> = vec![
        (
            "shard-missing",
            Box::new(|dir| {
                shard(dir);
                fs::remove_file(dir.join("model-00002-of-00002.safetensors")).unwrap();
            }),
            vec!["model.safetensors.index.json names", "model-00002-of-00002.safetensors, which is not there"],
        ),
        (
            "shard-cut-off",
            Box::new(|dir| {
                shard(dir);
                let file = dir.join("model-00002-of-00002.safetensors");
                let bytes = fs::read(&file).unwrap();
                fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
            }),
            vec!["model-00002-of-00002.safetensors", "bytes where", "is a file incomplete?"],
        ),
        (
            "tensor-missing",
            Box::new(|dir| {
                shard(dir);
                // The index no longer names the shard, and the tensors in it are gone with that.
                change(&dir.join("model.safetensors.index.json"), |index| {
                    let map = index["weight_map"].as_object_mut().unwrap();
                    map.retain(|_, shard| shard == "model-00001-of-00002.safetensors");
                });
            }),
            vec!["the weights lack `"],
        ),
        (
            "stored-twice",
            Box::new(|dir| {
                let whole = fs::read(dir.join("model.safetensors")).unwrap();
                shard(dir);
                store_again(&dir.join(&shards_of_norm(dir)[1]), &whole, NORM);
            }),
            vec![
                "`model.norm.weight` is stored twice",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
            ],
        ),
        (
            "stored-under-two-names",
            Box::new(|dir| {
                let file = dir.join("model.safetensors");
                store_again(&file, &fs::read(&file).unwrap(), "model.language_model.norm.weight");
            }),
            vec!["`model.norm.weight` is stored twice", "as `model.language_model.norm.weight` in"],
        ),
        (
            "elsewhere-by-the-index",
            Box::new(|dir| {
                shard(dir);
                let [_, other] = shards_of_norm(dir);
                change(&dir.join(INDEX), |index| index["weight_map"][NORM] = other.into());
            }),
            vec!["holds `model.norm.weight`, which model.safetensors.index.json places in model-0000"],
        ),
        (
            "not-in-the-index",
            Box::new(|dir| {
                shard(dir);
                change(&dir.join(INDEX), |index| {
                    index["weight_map"].as_object_mut().unwrap().retain(|name, _| name != NORM);
                });
            }),
            vec!["holds `model.norm.weight`, which model.safetensors.index.json does not name"],
        ),
        (
            "outside",
            Box::new(|dir| {
                shard(dir);
                let [own, _] = shards_of_norm(dir);
                let outside = dir.parent().unwrap().join("outside.safetensors");
                fs::rename(dir.join(&own), outside).unwrap();
                change(&dir.join(INDEX), |index| {
                    let places = index["weight_map"].as_object_mut().unwrap().values_mut();
                    places
                        .filter(|place| **place == own.as_str())
                        .for_each(|place| *place = "../outside.safetensors".into());
                });
            }),
            vec!["model.safetensors.index.json: `../outside.safetensors` is no name of a weight file"],
        ),
        (
            "too-many-layers",
            Box::new(|dir| change(&dir.join("config.json"), |c| c["num_hidden_layers"] = json!(1_000_000_000_000_u64))),
            vec!["config.json: num_hidden_layers: 1000000000000 is too large; at most 10000"],
        ),
        (
            "cut-off",
            Box::new(|dir| {
                let file = dir.join("model.safetensors");
                let bytes = fs::read(&file).unwrap();
                fs::write(&file, &bytes[..bytes.len() - 100]).unwrap();
            }),
            vec!["model.safetensors", "is a file incomplete?"],
        ),
        (
            "empty-weights",
            Box::new(|dir| fs::write(dir.join("model.safetensors"), "").unwrap()),
            vec!["model.safetensors", "not a safetensors file"],
        ),
        (
            "no-weights",
            Box::new(|dir| fs::remove_file(dir.join("model.safetensors")).unwrap()),
            vec!["neither model.safetensors nor model.safetensors.index.json found"],
        ),
        (
            "type",
            Box::new(|dir| {
                change_header(&dir.join("model.safetensors"), |header| {
                    let is = header[NORM]["dtype"].as_str().unwrap();
                    assert!(is == "BF16" || is == "F16", "{is}");
                    header[NORM]["dtype"] = "I16".into();
                });
            }),
            vec!["`model.norm.weight` is I16; only f32, bf16 and f16 weights can be read"],
        ),
        (
            "shape",
            Box::new(|dir| {
                change_header(&dir.join("model.safetensors"), |header| {
                    let width = header[NORM]["shape"][0].as_u64().unwrap();
                    header[NORM]["shape"] = json!([2, width / 2]);
                });
            }),
            vec!["`model.norm.weight` has shape [2, ", "but config.json asks for ["],
        ),
        (
            "vision-tokens",
            Box::new(|dir| rename_token(dir, "<|vision_start|>")),
            vec!["tokenizer.json", "has no `<|vision_start|>` token, which Qwen2.5-VL's chat format needs"],
        ),
        (
            "image-token",
            Box::new(|dir| rename_token(dir, "<|image_pad|>")),
            vec!["tokenizer.json", "has no `<|image_pad|>` token"],
        ),
        (
            "other-ids",
            Box::new(|dir| {
                change(&dir.join("config.json"), |c| c["vision_end_token_id"] = c["vision_start_token_id"].clone())
            }),
            vec!["tokenizer.json", "`<|vision_end|>` has id ", "but vision_end_token_id in config.json is "],
        ),
        (
            "no-tokenizer",
            Box::new(|dir| fs::remove_file(dir.join("tokenizer.json")).unwrap()),
            vec!["tokenizer.json not found"],
        ),
        (
            "qwen3-moe",
            Box::new(move |dir| model_type(dir, "qwen3_vl_moe")),
            vec!["(Qwen3-VL with experts)", "only Qwen2.5-VL"],
        ),
        ("omni", Box::new(move |dir| model_type(dir, "qwen2_5_omni")), vec!["(Qwen2.5-Omni)", "only Qwen2.5-VL"]),
        ("qwen2", Box::new(move |dir| model_type(dir, "qwen2")), vec!["architectures", "Qwen2ForCausalLM"]),
    ];
    copy(&dir.join("good"));
    for (name, spoil, said) in &cases {
        copy(&dir.join(name));
        spoil(&dir.join(name));
        for line in [
            format!("model inspect {name}"),
            format!("train --method sft --model {name} --data data --out out"),
            format!("eval --model {name} --data data --out out"),
            format!("eval --model good --baseline {name} --data data --out out"),
            format!("score --model {name} --data data --out out/s.jsonl"),
            format!("rollout --model {name} --data data --out out"),
            format!("dynamics --model good --base {name} --train a=data --prior b=data --out out"),
        ] {
            let output = jigsaw(dir, &line);
            let message = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{line}: {message}");
            assert!(said.iter().all(|part| message.contains(part)), "{line}: {said:?} in: {message}");
            assert!(!dir.join("out").exists(), "{line} began to write");
        }
    }
    // What was spoilt was good before.
    shard(&dir.join("good"));
    assert!(jigsaw(dir, "model inspect good").status.success());
}

#[test]
fn a_run_goes_on_with_the_image_settings_that_it_began_with_alone() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    copy(&dir.join("model"));
    let train = "train --method sft --model model --data data --set train.steps=1 --set train.batch_size=1 --set eval.steps=0 --out run";
    for line in ["gen --images scenes --grid 1x2 --count 6 --split 0.5,0,0.5 --out data", train] {
        let output = jigsaw(dir, line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
    // It is read before preprocessor_config.json.
    let mut images: Value =
        serde_json::from_slice(&fs::read(dir.join("model/preprocessor_config.json")).unwrap()).unwrap();
    images["max_pixels"] = json!(7840);
    fs::write(dir.join("model/processor_config.json"), json!({ "image_processor": images }).to_string()).unwrap();
    let output = jigsaw(dir, train);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(
        message.contains("image or generation settings differ from those that the run began with (model)"),
        "{message}"
    );
    // A run of an earlier version does not say what it began with.
    change(&dir.join("run/run.json"), |run| {
        assert!(run.as_object_mut().unwrap().remove("prompt_hash").is_some());
    });
    let output = jigsaw(dir, train);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_tied_head_that_is_stored_again_and_differs_is_refused_before_any_work() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    copy(&dir.join("model"));
    let made = jigsaw(dir, "gen --images scenes --grid 1x2 --count 6 --split 0.5,0,0.5 --out data");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = dir.join("model/model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let embedding = tensors.tensor("model.embed_tokens.weight").unwrap();
    let store_head = |head: &[u8]| {
        let head = safetensors::tensor::TensorView::new(embedding.dtype(), embedding.shape().to_vec(), head).unwrap();
        let mut views: Vec<_> =
            tensors.names().into_iter().map(|n| (n.to_string(), tensors.tensor(n).unwrap())).collect();
        views.push(("lm_head.weight".to_string(), head));
        fs::write(&file, safetensors::serialize(views, None).unwrap()).unwrap();
    };
    store_head(embedding.data());
    let output = jigsaw(dir, "score --model model --data data --out s.jsonl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut other = embedding.data().to_vec();
    other[10] ^= 1;
    store_head(&other);
    for line in [
        "train --method sft --model model --data data --out out",
        "eval --model model --data data --out out",
        "score --model model --data data --out out/s.jsonl",
        "model convert model --dtype f32 --out out",
    ] {
        let output = jigsaw(dir, line);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {message}");
        let said = [
            "`lm_head.weight` differs from `model.embed_tokens.weight`",
            "tie_word_embeddings in config.json",
            "set it to false",
        ];
        assert!(said.iter().all(|part| message.contains(part)), "{line}: {message}");
        assert!(!dir.join("out").exists(), "{line} began to write");
    }
    change(&dir.join("model/config.json"), |config| config["tie_word_embeddings"] = json!(false));
    let output = jigsaw(dir, "score --model model --data data --out own.jsonl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
