//! Tests of the configuration reader.

use crate::io::files;
use crate::model::architecture::Architecture;
use crate::model::qwen2_5_vl::Config;
use crate::model::{parse_architecture, read_architecture};
use serde_json::{Value, json};
use std::collections::HashSet;

/// The published `config.json` of the 3B checkpoint, shortened to what is read.
fn published() -> Value {
    json!({
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "bos_token_id": 151643, "eos_token_id": 151645,
        "vision_start_token_id": 151652, "vision_end_token_id": 151653,
        "image_token_id": 151655, "video_token_id": 151656,
        "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 11008,
        "max_position_embeddings": 128000, "max_window_layers": 70, "model_type": "qwen2_5_vl",
        "num_attention_heads": 16, "num_hidden_layers": 36, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "sliding_window": 32768,
        "tie_word_embeddings": true, "use_sliding_window": false,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vocab_size": 151936,
        "vision_config": {
            "depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
            "in_chans": 3, "out_hidden_size": 2048, "patch_size": 14, "spatial_merge_size": 2,
            "spatial_patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
            "tokens_per_second": 2, "temporal_patch_size": 2
        }
    })
}

/// The same model as transformers 5 writes it.
fn nested() -> Value {
    let mut root = published();
    let mut text = json!({
        "model_type": "qwen2_5_vl_text",
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]},
    });
    for key in [
        "bos_token_id",
        "eos_token_id",
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
        "max_window_layers",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "rms_norm_eps",
        "vocab_size",
    ] {
        text[key] = root.as_object_mut().unwrap().remove(key).unwrap();
    }
    for key in ["rope_theta", "rope_scaling", "sliding_window", "use_sliding_window"] {
        root.as_object_mut().unwrap().remove(key);
    }
    root["text_config"] = text;
    root["vision_config"]["model_type"] = json!("qwen2_5_vl_vision");
    root
}

fn message(value: &Value) -> String {
    parse_architecture(value).unwrap_err().to_string()
}

#[test]
fn the_published_flat_layout_is_read() {
    let config = Config::from_json(&published()).unwrap();
    assert_eq!(config.text.head_dim, 128);
    assert_eq!(config.text.num_key_value_heads, 2);
    assert_eq!(config.mrope_section, [16, 24, 24]);
    assert_eq!(config.text.rms_norm_eps, 1e-6);
    assert_eq!(config.vision.head_dim, 80);
    assert_eq!(config.vision.patches.patch_len(), 1176);
    assert_eq!(config.vision.window_tokens(), 4);
    assert_eq!(config.eos_token_ids, [151645]);
    assert!(config.tie_word_embeddings);
}

#[test]
fn the_nested_layout_gives_the_same_configuration() {
    assert_eq!(Config::from_json(&nested()).unwrap(), Config::from_json(&published()).unwrap());
}

#[test]
fn tying_inside_text_config_counts() {
    let mut value = nested();
    value.as_object_mut().unwrap().remove("tie_word_embeddings");
    assert!(!Config::from_json(&value).unwrap().tie_word_embeddings);
    value["text_config"]["tie_word_embeddings"] = json!(true);
    assert!(Config::from_json(&value).unwrap().tie_word_embeddings);
}

#[test]
fn what_is_written_reads_back_equal() {
    let config = Config::from_json(&published()).unwrap();
    assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
}

#[test]
fn a_contradiction_names_its_field() {
    let cases: [(&str, Value, &str); 13] = [
        ("/hidden_size", json!(2049), "hidden_size: 2049 is not divisible"),
        ("/num_key_value_heads", json!(3), "num_attention_heads: 16 is not divisible by num_key_value_heads 3"),
        ("/rope_scaling/mrope_section", json!([16, 24, 23]), "mrope_section: [16, 24, 23] must be three numbers"),
        ("/rope_scaling/type", json!("yarn"), "rope_scaling.rope_type: `yarn` is not supported"),
        ("/hidden_act", json!("gelu"), "hidden_act: activation `gelu` is not supported"),
        ("/vision_config/hidden_act", json!("quick_gelu"), "vision_config.hidden_act: activation `quick_gelu`"),
        ("/vision_config/out_hidden_size", json!(1024), "vision_config.out_hidden_size is 1024"),
        (
            "/vision_config/num_heads",
            json!("16"),
            "vision_config.num_heads: must be a whole number above 0, not `\"16\"`",
        ),
        ("/image_token_id", json!(151936), "image_token_id is 151936, beyond vocab_size 151936"),
        (
            "/num_hidden_layers",
            json!(1_000_000_000_000_u64),
            "num_hidden_layers: 1000000000000 is too large; at most 10000 is possible",
        ),
        ("/hidden_size", json!(1_u64 << 62), "hidden_size: 4611686018427387904 is too large; at most 16777216"),
        ("/vision_config/hidden_size", json!(1 << 25), "vision_config.hidden_size: 33554432 is too large"),
        (
            "/rope_scaling/mrope_section",
            json!([u64::MAX, 2, 63]),
            "mrope_section: [18446744073709551615, 2, 63] must be",
        ),
    ];
    for (pointer, bad, expected) in cases {
        let mut value = published();
        *value.pointer_mut(pointer).unwrap() = bad;
        assert!(message(&value).contains(expected), "{pointer}: {}", message(&value));
    }
}

#[test]
fn another_model_type_is_refused_by_name() {
    let mut value = published();
    for (other, said) in [
        (
            "qwen2_moe",
            "`qwen2_moe` (Qwen2 with experts, without vision) is not supported; only Qwen2.5-VL (`qwen2_5_vl`), ",
        ),
        ("qwen3_vl_moe", "`qwen3_vl_moe` (Qwen3-VL with experts) is not supported"),
        ("qwen2_5_omni", "`qwen2_5_omni` (Qwen2.5-Omni) is not supported"),
        ("qwen3_moe", "`qwen3_moe` (Qwen3 with experts, without vision) is not supported"),
        ("gpt2", "`gpt2` is not supported; only Qwen2.5-VL"),
    ] {
        value["model_type"] = json!(other);
        assert!(message(&value).contains(said), "{}", message(&value));
    }
    value.as_object_mut().unwrap().remove("model_type");
    assert!(message(&value).contains("model_type is missing"));
}

#[test]
fn quantised_weights_are_refused_by_their_method() {
    let mut value = published();
    for (quantized, method) in [
        (json!({"quant_method": "awq", "bits": 4}), "awq"),
        (json!({"quant_method": "bitsandbytes", "load_in_4bit": true}), "bitsandbytes"),
        (json!({"load_in_8bit": true}), "not named"),
    ] {
        value["quantization_config"] = quantized;
        let said = message(&value);
        assert!(said.starts_with(&format!("quantization_config.quant_method: {method}: ")), "{said}");
        assert!(said.contains("unquantised"), "{said}");
    }
    value["quantization_config"] = json!(null);
    assert!(parse_architecture(&value).is_ok());
}

#[test]
fn a_stated_head_dim_must_be_the_quotient() {
    let mut value = published();
    value["head_dim"] = json!(128);
    assert!(Config::from_json(&value).is_ok());
    value["head_dim"] = json!(64);
    assert!(message(&value).starts_with("head_dim: 64"));
}

#[test]
fn a_missing_file_says_what_provides_it() {
    let dir = tempfile::tempdir().unwrap();
    let error = read_architecture(dir.path()).unwrap_err().to_string();
    assert!(error.contains("config.json not found") && error.contains("jigsaw model init"), "{error}");
}

#[test]
fn a_bad_value_in_a_file_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut value = published();
    value["rms_norm_eps"] = json!(0);
    files::write_json(&dir.path().join("config.json"), &value).unwrap();
    let error = read_architecture(dir.path()).unwrap_err();
    assert!(error.to_string().contains("config.json: rms_norm_eps: must be a number above 0"), "{error}");
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn the_3b_checkpoint_has_its_published_number_of_tensors_and_parameters() {
    let mut value = Config::from_json(&serde_json::json!({
        "model_type": "qwen2_5_vl", "hidden_size": 2048, "intermediate_size": 11008, "num_attention_heads": 16,
        "num_hidden_layers": 36, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": true,
        "vision_config": {"hidden_size": 1280, "out_hidden_size": 2048},
    }))
    .unwrap();
    let shapes = value.parameter_shapes();
    let count: usize = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    // `Qwen/Qwen2.5-VL-3B-Instruct` on the Hub: 3,754,622,976 parameters in 824 tensors.
    assert_eq!((shapes.len(), count), (824, 3_754_622_976));
    assert_eq!(shapes.iter().map(|(name, _)| name).collect::<HashSet<_>>().len(), shapes.len());
    assert!(shapes.iter().all(|(name, _)| value.published_name(name) == *name));
    value.tie_word_embeddings = false;
    assert_eq!(value.parameter_shapes().len(), 825);
}
