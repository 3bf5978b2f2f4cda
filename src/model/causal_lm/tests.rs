//! Tests of the families: what is read, written and refused.

use super::Config;
use super::families::{LLAMA, QWEN2, QWEN3};
use crate::model::architecture::Architecture;
use crate::model::parse_architecture;
use serde_json::{Value, json};

fn parameters(config: &Value) -> (usize, usize) {
    let shapes = parse_architecture(config).unwrap().parameter_shapes();
    (shapes.len(), shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum())
}

#[test]
fn the_published_checkpoints_have_their_number_of_tensors_and_parameters() {
    // The config.json of the checkpoints; parameters and tensors as transformers counts them.
    for (name, config, counts) in [
        (
            "Qwen/Qwen2.5-0.5B-Instruct",
            json!({"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14,
                "num_hidden_layers": 24, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": true}),
            (290, 494_032_768),
        ),
        (
            "Qwen/Qwen2.5-7B-Instruct",
            json!({"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28,
                "num_hidden_layers": 28, "num_key_value_heads": 4, "vocab_size": 152064}),
            (339, 7_615_616_512),
        ),
        (
            "Qwen/Qwen3-0.6B",
            json!({"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16, "head_dim": 128,
                "num_hidden_layers": 28, "num_key_value_heads": 8, "vocab_size": 151936, "tie_word_embeddings": true}),
            (310, 596_049_920),
        ),
        (
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            json!({"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9,
                "num_hidden_layers": 30, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": true}),
            (272, 134_515_008),
        ),
        (
            "meta-llama/Llama-3.2-1B-Instruct",
            json!({"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32, "head_dim": 64,
                "num_hidden_layers": 16, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": true}),
            (146, 1_235_814_400),
        ),
    ] {
        assert_eq!(parameters(&config), counts, "{name}");
    }
}

#[test]
fn the_language_modules_are_those_of_the_layers() {
    let config = parse_architecture(&json!({"model_type": "qwen2"})).unwrap();
    let pattern = fancy_regex::Regex::new(&format!("^(?:{})$", config.decoder_module_pattern())).unwrap();
    assert!(pattern.is_match("model.layers.11.self_attn.q_proj").unwrap());
    assert!(!pattern.is_match("lm_head").unwrap());
}

#[test]
fn what_is_written_is_read_again_and_what_is_absent_has_the_default_of_transformers() {
    let stretched = json!({"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192});
    for family in [&QWEN2, &QWEN3, &LLAMA] {
        let defaults = Config::from_json(family, &json!({})).unwrap();
        assert_eq!(
            (defaults.text.num_key_value_heads, defaults.text.head_dim, defaults.text.rope_theta),
            (32, 128, 1e4)
        );
        assert_eq!(Config::from_json(family, &defaults.to_json()).unwrap(), defaults);
        let mut newer = json!({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}});
        assert_eq!(Config::from_json(family, &newer).unwrap().text.rope_theta, 1e6);
        newer["rope_scaling"] = stretched.clone();
        let scaled = Config::from_json(family, &newer).unwrap();
        assert!(scaled.text.rope_scaling.is_some() && scaled.to_json()["rope_scaling"] == stretched);
        assert_eq!(Config::from_json(family, &scaled.to_json()).unwrap(), scaled);
    }
    let llama = Config::from_json(&LLAMA, &json!({"num_attention_heads": 16})).unwrap();
    assert_eq!((llama.text.num_key_value_heads, llama.text.head_dim, llama.eos_token_ids), (16, 256, vec![2]));
    let qwen3 = Config::from_json(&QWEN3, &json!({"num_attention_heads": 33, "num_key_value_heads": 3})).unwrap();
    assert_eq!((qwen3.text.head_dim, qwen3.eos_token_ids), (128, Vec::new()));
}

#[test]
fn what_would_compute_otherwise_is_refused_by_name() {
    for (family, field, value, named) in [
        (&QWEN2, "architectures", json!(["Qwen2ForSequenceClassification"]), "Qwen2ForSequenceClassification"),
        (&LLAMA, "architectures", json!(["LlamaForTokenClassification"]), "give one of `LlamaForCausalLM`"),
        (
            &QWEN2,
            "rope_scaling",
            json!({"type": "yarn", "factor": 4.0}),
            "only `default` and `linear` and `llama3` are",
        ),
        (
            &LLAMA,
            "rope_scaling",
            json!({"rope_type": "llama3", "factor": 4.0}),
            "rope_scaling.low_freq_factor: is missing",
        ),
        (
            &LLAMA,
            "rope_scaling",
            json!({"type": "linear", "factor": 0}),
            "rope_scaling.factor: must be a number above 0",
        ),
        (&LLAMA, "partial_rotary_factor", json!(0.5), "0.5 is not supported; only 1 is"),
        (&QWEN2, "hidden_act", json!("gelu"), "gelu"),
        (&LLAMA, "hidden_act", json!("relu2"), "relu2"),
        (&QWEN2, "head_dim", json!(100), "head_dim"),
        (&QWEN3, "head_dim", json!(101), "odd width 101"),
        (&LLAMA, "num_attention_heads", json!(33), "not divisible by num_attention_heads 33"),
        (&LLAMA, "attention_bias", json!(true), "attention_bias: biases are not supported in this family"),
        (&LLAMA, "mlp_bias", json!(true), "mlp_bias: biases are not supported in this family"),
        (&QWEN3, "attention_bias", json!(true), "attention_bias: biases are not supported in this family"),
        (&QWEN3, "layer_types", json!(["full_attention", "sliding_attention"]), "layer_types: `sliding_attention`"),
    ] {
        let error = Config::from_json(family, &json!({ field: value })).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(named), "{error}");
    }
    for family in [&QWEN2, &QWEN3] {
        let mut sliding = json!({"use_sliding_window": true});
        assert!(Config::from_json(family, &sliding).unwrap_err().to_string().contains("sliding"));
        sliding["max_window_layers"] = json!(32);
        assert!(Config::from_json(family, &sliding).is_ok());
    }
}
