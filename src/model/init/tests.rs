//! Tests of fresh checkpoints.

use super::*;
use crate::data::Message;
use crate::model::Processor;
use crate::model::processor::ChatTemplate;
use image::RgbImage;
use serde_json::Map;

fn tiny(seed: u64) -> (tempfile::TempDir, usize) {
    let dir = tempfile::tempdir().unwrap();
    let count = write_checkpoint(dir.path(), Preset::Tiny, seed).unwrap().0;
    (dir, count)
}

fn bytes(dir: &tempfile::TempDir, name: &str) -> Vec<u8> {
    files::read(&dir.path().join(name)).unwrap()
}

#[test]
fn a_seed_fixes_every_byte_and_another_seed_changes_the_weights() {
    let (first, again, other) = (tiny(1), tiny(1), tiny(2));
    let mut names: Vec<String> = std::fs::read_dir(first.0.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = ["chat_template.json", "config.json", "generation_config.json", "model.safetensors"];
    assert_eq!(names[..4], expected);
    assert_eq!(names[4..], ["preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"]);
    for name in &names {
        assert!(bytes(&first.0, name) == bytes(&again.0, name), "{name}");
    }
    assert!(bytes(&first.0, "model.safetensors") != bytes(&other.0, "model.safetensors"));
    assert!(bytes(&first.0, "tokenizer.json") == bytes(&other.0, "tokenizer.json"));
}

#[test]
fn the_presets_have_their_sizes() {
    let (dir, count) = tiny(1);
    assert!((1_500_000..1_800_000).contains(&count), "{count}");
    let architecture = crate::model::read_architecture(dir.path()).unwrap();
    assert_eq!(architecture.decoder().vocab_size % VOCAB_MULTIPLE, 0);
    let small = Preset::Small.vision_language(1514, 1500);
    assert_eq!(Config::from_json(&small.to_json()).unwrap(), small, "the small preset passes its own checks");
    let count: usize = small.parameter_shapes().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    assert!((55_000_000..65_000_000).contains(&count), "{count}");
}

#[test]
fn weights_start_as_they_should() {
    let config = Preset::Tiny.vision_language(1514, 1500);
    let parameters = fresh_parameters(&config, 7).unwrap();
    let values = |name: &str| -> Vec<f32> {
        let parameter = parameters.iter().find(|p| p.name == name).unwrap();
        parameter.var.flatten_all().unwrap().to_vec1().unwrap()
    };
    assert!(values("model.norm.weight").iter().all(|&v| v == 1.0));
    assert!(values("visual.blocks.0.attn.qkv.bias").iter().all(|&v| v == 0.0));
    let embeddings = values("model.embed_tokens.weight");
    let n = embeddings.len() as f64;
    let mean = embeddings.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = embeddings.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n;
    assert!(mean.abs() < 1e-3 && (variance.sqrt() - 0.1).abs() < 1e-3, "{mean} {variance}");
    assert_ne!(values("model.layers.0.mlp.gate_proj.weight"), values("model.layers.1.mlp.gate_proj.weight"));
}

#[test]
fn puzzles_keep_their_size_and_each_tile_is_one_token() {
    let processor = Processor::from_dir(tiny(1).0.path()).unwrap();
    for (side, tokens) in [(28, 1), (56, 4), (84, 9), (112, 16), (168, 36)] {
        assert_eq!(processor.images().unwrap().resized(side, side).unwrap(), (side, side));
        assert_eq!(processor.images().unwrap().tokens(side, side).unwrap(), tokens);
    }
    let ask = [Message { role: "user".into(), content: "<image>\nWhat is it?".into() }];
    let prompt = processor.encode_prompt(&ask, &[RgbImage::new(84, 84)]).unwrap();
    assert_eq!(prompt.ids.iter().filter(|&&id| Some(id) == processor.tokens().image_pad()).count(), 9);
    assert_eq!(processor.tokens().special().len(), SPECIAL.len());
}

#[test]
fn the_template_renders_as_the_published_one() {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/processor/chat.json");
    let recorded: Value = files::read_json(&recorded).unwrap();
    let template = ChatTemplate::new(CHAT_TEMPLATE, "the embedded template").unwrap();
    let mut seen = 0;
    for case in recorded["conversations"].as_array().unwrap().iter().filter(|case| case["template"] == "published") {
        let options: Map<String, Value> = case["options"].as_object().unwrap().clone();
        let rendered = template.render(&case["messages"], &options).unwrap();
        assert_eq!(rendered, case["rendered"].as_str().unwrap(), "{}", case["name"]);
        seen += 1;
    }
    assert!(seen > 10);
}

#[test]
fn an_existing_checkpoint_is_not_overwritten_and_the_same_one_is_found() {
    let (dir, _) = tiny(1);
    assert_eq!(write_checkpoint(dir.path(), Preset::Tiny, 1).unwrap().1, Written::Found);
    let error = write_checkpoint(dir.path(), Preset::Tiny, 2).unwrap_err();
    assert!(error.to_string().contains("already holds a checkpoint that differs (visual."), "{error}");
    assert_eq!(error.exit_code(), 2);
    let text = bytes(&dir, "tokenizer.json");
    std::fs::write(dir.path().join("tokenizer.json"), &text[1..]).unwrap();
    let error = write_checkpoint(dir.path(), Preset::Tiny, 1).unwrap_err();
    assert!(error.to_string().contains("differs (tokenizer.json)"), "{error}");
}
