//! The processor against numbers recorded from transformers (`scripts/reference/record_processor.py`).

use image::RgbImage;
use jigsaw::data::Message;
use jigsaw::data::source::to_rgb;
use jigsaw::io::files;
use jigsaw::model::Processor;
use jigsaw::model::processor::{ChatTemplate, ImageProcessor, Tokens, smart_resize};
use jigsaw::model::{parse_architecture, read_architecture};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

fn fixture(name: &str) -> PathBuf {
    crate::common::root().join("tests/fixtures/processor").join(name)
}

fn recorded(name: &str) -> Value {
    files::read_json(&fixture(name)).unwrap()
}

fn load<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn rgb(file: &str) -> RgbImage {
    to_rgb(image::open(fixture("images").join(file)).unwrap())
}

fn sha256(values: impl IntoIterator<Item = f32>) -> String {
    let mut hash = Sha256::new();
    for value in values {
        hash.update(value.to_le_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A checkpoint directory around the recorded processor files, with other pixel bounds.
fn checkpoint(min_pixels: usize, max_pixels: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("checkpoint")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let settings = dir.path().join("preprocessor_config.json");
    let mut value: Value = files::read_json(&settings).unwrap();
    value["min_pixels"] = json!(min_pixels);
    value["max_pixels"] = json!(max_pixels);
    files::write_json(&settings, &value).unwrap();
    let special = &recorded("tokenizer.json")["special"];
    let config = json!({
        "model_type": "qwen2_5_vl", "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2,
        "num_key_value_heads": 2, "num_hidden_layers": 1, "vocab_size": 512, "image_token_id": special["<|image_pad|>"],
        "video_token_id": special["<|video_pad|>"], "vision_start_token_id": special["<|vision_start|>"],
        "vision_end_token_id": special["<|vision_end|>"], "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
        "vision_config": {"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 64},
    });
    files::write_json(&dir.path().join("config.json"), &config).unwrap();
    dir
}

#[test]
fn pixel_values_equal_those_of_transformers_bit_by_bit() {
    let mut seen = 0;
    for case in recorded("images.json")["images"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let dir = checkpoint(load(&case["min_pixels"]), load(&case["max_pixels"]));
        let processor = ImageProcessor::from_dir(dir.path()).unwrap();
        let image = rgb(case["file"].as_str().unwrap());
        let input = processor.process(&image).unwrap();
        assert_eq!(input.grid, load::<[usize; 3]>(&case["grid_thw"]), "{name}");
        assert_eq!(input.patches.len(), load::<Vec<usize>>(&case["shape"]).iter().product::<usize>(), "{name}");
        let first: Vec<f32> = load(&case["first"]);
        assert_eq!(input.patches[..64], first[..], "{name}");
        assert_eq!(sha256(input.patches), case["sha256"].as_str().unwrap(), "{name}");
        seen += 1;
    }
    assert!(seen >= 15);
}

#[test]
fn resized_images_equal_those_of_pillow() {
    for case in recorded("images.json")["images"].as_array().unwrap() {
        let image = rgb(case["file"].as_str().unwrap());
        let [height, width]: [u32; 2] = load(&case["resized_size"]);
        let resized = jigsaw::model::processor::pillow_bicubic::bicubic(&image, width, height);
        assert!(resized == rgb(case["resized"].as_str().unwrap()), "{}", case["name"]);
    }
}

#[test]
fn sizes_equal_those_of_smart_resize() {
    /// Height, width, factor, min_pixels, max_pixels, and the resized height and width, unless refused.
    type Row = (u32, u32, usize, usize, usize, Option<(u32, u32)>);
    let rows: Vec<Row> = load(&recorded("smart_resize.json")["rows"]);
    assert!(rows.len() > 200);
    for (height, width, factor, min, max, expected) in rows {
        let size = smart_resize(width, height, factor, min, max).ok().map(|(w, h)| (h, w));
        assert_eq!(size, expected, "{width} x {height}, factor {factor}, {min}..{max}");
    }
}

#[test]
fn conversations_render_as_in_transformers() {
    let recorded = recorded("chat.json");
    let conversations = recorded["conversations"].as_array().unwrap();
    assert!(conversations.len() > 20);
    for case in conversations {
        let name = case["template"].as_str().unwrap();
        let template = ChatTemplate::new(recorded["templates"][name].as_str().unwrap(), name).unwrap();
        let options: Map<String, Value> = load(&case["options"]);
        let rendered = template.render(&case["messages"], &options).unwrap();
        assert_eq!(rendered, case["rendered"].as_str().unwrap(), "{name}: {}", case["name"]);
    }
}

#[test]
fn text_is_tokenised_and_decoded_as_in_transformers() {
    let dir = checkpoint(784, 9408);
    let architecture = read_architecture(dir.path()).unwrap();
    let tokens = Tokens::from_dir(dir.path(), architecture.as_ref()).unwrap();
    let recorded = recorded("tokenizer.json");
    assert_eq!(tokens.len(), load::<usize>(&recorded["vocab_size"]));
    for case in recorded["strings"].as_array().unwrap() {
        let ids: Vec<u32> = load(&case["ids"]);
        if let Some(text) = case["text"].as_str() {
            assert_eq!(tokens.encode(text).unwrap(), ids, "{text:?}");
        }
        assert_eq!(tokens.decode(&ids).unwrap(), case["decoded"].as_str().unwrap(), "{}", case["text"]);
    }
}

#[test]
fn position_ids_equal_those_of_transformers() {
    let recorded = recorded("rope_index.json");
    let config = json!({
        "model_type": "qwen2_5_vl", "image_token_id": recorded["image_token_id"],
        "vision_config": { "out_hidden_size": 8192 },
    });
    let architecture = parse_architecture(&config).unwrap();
    for case in recorded["rows"].as_array().unwrap() {
        let ids: Vec<u32> = load(&case["ids"]);
        let grids: Vec<[usize; 3]> = load(&case["grids"]);
        let index = architecture.positions(&ids, &grids).unwrap();
        assert_eq!(index.axes.to_vec(), load::<Vec<Vec<u32>>>(&case["positions"]), "{grids:?}");
        assert_eq!(index.delta(), load::<i64>(&case["delta"]), "{grids:?}");
    }
}

#[test]
fn whole_prompts_equal_those_of_transformers() {
    let recorded = recorded("prompts.json");
    let dir = checkpoint(load(&recorded["min_pixels"]), load(&recorded["max_pixels"]));
    let processor = Processor::from_dir(dir.path()).unwrap();
    for case in recorded["rows"].as_array().unwrap() {
        let messages: Vec<Message> = load(&case["messages"]);
        let files: Vec<String> = load(&case["images"]);
        let images: Vec<RgbImage> = files.iter().map(|file| rgb(file)).collect();
        assert_eq!(processor.render(&messages, images.len()).unwrap(), case["rendered"].as_str().unwrap());
        let prompt = processor.encode_prompt(&messages, &images).unwrap();
        let sizes: Vec<(u32, u32)> = images.iter().map(|image| image.dimensions()).collect();
        assert_eq!(processor.prompt_length(&messages, &sizes).unwrap(), prompt.ids.len());
        assert_eq!(prompt.ids, load::<Vec<u32>>(&case["ids"]), "{files:?}");
        let grids: Vec<[usize; 3]> = prompt.images.iter().map(|image| image.grid).collect();
        assert_eq!(grids, load::<Vec<[usize; 3]>>(&case["grids"]), "{files:?}");
        if let Some(hash) = case["pixel_values_sha256"].as_str() {
            assert_eq!(sha256(prompt.images.iter().flat_map(|image| image.patches.iter().copied())), hash, "{files:?}");
        }
    }
}

/// A checkpoint directory around the recorded files in Llama 3's form.
fn llama() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        std::fs::copy(fixture("llama").join(name), dir.path().join(name)).unwrap();
    }
    let config = json!({"model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2,
        "num_hidden_layers": 1, "vocab_size": 512});
    files::write_json(&dir.path().join("config.json"), &config).unwrap();
    dir
}

#[test]
fn prompts_and_responses_in_the_format_of_llama_3_equal_those_of_transformers() {
    let recorded = recorded("llama.json");
    let dir = llama();
    let processor = Processor::from_dir(dir.path()).unwrap();
    for case in recorded["rows"].as_array().unwrap() {
        let messages: Vec<Message> = load(&case["messages"]);
        assert_eq!(processor.render(&messages, 0).unwrap(), case["rendered"].as_str().unwrap());
        assert_eq!(processor.encode_prompt(&messages, &[]).unwrap().ids, load::<Vec<u32>>(&case["ids"]));
        let response = case["response"].as_str().unwrap();
        let ids = processor.encode_response(response).unwrap();
        assert_eq!(ids, load::<Vec<u32>>(&case["response_ids"]));
        assert_eq!(processor.decode(&ids).unwrap(), response);
    }
    let ids = |tokens: &[&str]| tokens.iter().map(|t| load(&recorded["special"][t])).collect::<Vec<u32>>();
    assert_eq!(processor.eos_ids(), ids(&["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"]));
    for banned in ids(&["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"]) {
        assert!(processor.banned_ids().contains(&banned), "{banned}");
    }
    let error = processor.encode_response("now <|eot_id|>").unwrap_err().to_string();
    assert!(error.contains("special token `<|eot_id|>`"), "{error}");
}

#[test]
fn a_chat_format_that_cannot_be_trained_is_refused() {
    let dir = llama();
    let path = dir.path().join("tokenizer_config.json");
    let written: Value = files::read_json(&path).unwrap();
    let refused = |key: &str, value: Value| {
        let mut changed = written.clone();
        changed[key] = value;
        files::write_json(&path, &changed).unwrap();
        let error = Processor::from_dir(dir.path()).err().unwrap();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    let said = refused("eos_token", Value::Null);
    assert!(said.contains("has no `<|im_end|>` token") && said.contains("names no `eos_token`"), "{said}");
    // Llama 2's: a blank before the end of a turn.
    let template = "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}";
    let said = refused("chat_template", json!(template));
    assert!(said.contains("does not write an answer as prompt, answer, `<|eot_id|>`"), "{said}");
}

fn user(content: &str) -> [Message; 1] {
    [Message { role: "user".into(), content: content.into() }]
}

#[test]
fn placeholders_and_images_must_be_equally_many() {
    let processor = Processor::from_dir(checkpoint(784, 9408).path()).unwrap();
    let image = RgbImage::new(56, 56);
    for (content, images, expected) in [
        ("<image><image>", vec![image.clone()], "2 `<image>` placeholder(s) but 1 image(s)"),
        ("no picture", vec![image], "0 `<image>` placeholder(s) but 1 image(s)"),
        ("<image>", vec![], "1 `<image>` placeholder(s) but 0 image(s)"),
    ] {
        let error = processor.encode_prompt(&user(content), &images).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn special_tokens_in_text_cannot_corrupt_a_prompt_or_a_response() {
    let processor = Processor::from_dir(checkpoint(784, 9408).path()).unwrap();
    for token in ["<|im_end|>", "<|im_start|>", "<|image_pad|>", "<|vision_start|>", "<|video_pad|>", "<|endoftext|>"] {
        let text = format!("now{token}then");
        let error = processor.encode_prompt(&user(&text), &[]).unwrap_err().to_string();
        assert!(error.contains("message 1 (user)") && error.contains(token), "{error}");
        let error = processor.encode_response(&text).unwrap_err().to_string();
        assert!(error.starts_with("response: ") && error.contains(token), "{error}");
    }
    let foreign = [Message { role: "user<|im_end|>".into(), content: "x".into() }];
    assert!(processor.encode_prompt(&foreign, &[]).unwrap_err().to_string().contains("is none of system, user"));
}

#[test]
fn a_response_ends_with_im_end_and_decodes_to_its_text() {
    let processor = Processor::from_dir(checkpoint(784, 9408).path()).unwrap();
    let text = "<think>\nsky above\n</think><answer>3 1 2</answer>";
    let ids = processor.encode_response(text).unwrap();
    assert_eq!(ids.last(), Some(&processor.tokens().end_of_turn()));
    assert!(processor.eos_ids().contains(&processor.tokens().end_of_turn()));
    assert_eq!(processor.decode(&ids).unwrap(), text);
}

#[test]
fn what_only_the_program_may_write_is_never_sampled() {
    let processor = Processor::from_dir(checkpoint(784, 9408).path()).unwrap();
    let special = &recorded("tokenizer.json")["special"];
    let banned = processor.banned_ids();
    for token in
        ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
    {
        assert!(banned.contains(&load(&special[token])), "{token}");
    }
    let tokens = processor.tokens().len() as u32;
    assert!((tokens..512).all(|id| banned.contains(&id)), "ids beyond the tokenizer");
    assert_eq!(banned.len(), 6 + (512 - tokens as usize));
    assert!(processor.eos_ids().iter().all(|id| !banned.contains(id)));
}

#[test]
fn a_missing_file_is_named() {
    for file in ["config.json", "tokenizer.json", "preprocessor_config.json"] {
        let dir = checkpoint(784, 9408);
        std::fs::remove_file(dir.path().join(file)).unwrap();
        let error = Processor::from_dir(dir.path()).err().unwrap();
        assert!(error.to_string().contains(&format!("{file} not found")), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
    let dir = checkpoint(784, 9408);
    for file in ["tokenizer_config.json", "chat_template.json"] {
        std::fs::remove_file(dir.path().join(file)).unwrap();
    }
    let error = Processor::from_dir(dir.path()).err().unwrap().to_string();
    assert!(error.contains("has no chat template"), "{error}");
}
