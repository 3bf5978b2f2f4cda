//! GGUF files against what transformers and tokenizers read from them (scripts/reference/record_gguf.py).

use crate::common;
use jigsaw::model::gguf::{Origin, import};
use jigsaw::model::weight_dtype::WeightDtype;
use jigsaw::model::{LanguageModel as _, Processor, Prompt, SamplingParams};
use std::path::Path;
use std::sync::Arc;

fn imported(file: &Path) -> (tempfile::TempDir, Origin) {
    let dir = tempfile::tempdir().unwrap();
    let (origin, _) = import(file, dir.path(), WeightDtype::F32, false).unwrap();
    (dir, origin)
}

#[test]
fn an_imported_model_computes_as_transformers_does_with_the_file() {
    let recorded = common::json("gguf/expected.json");
    for case in recorded["cases"].as_array().unwrap() {
        let name = case["file"].as_str().unwrap();
        let (dir, origin) = imported(&common::fixture("gguf").join(name));
        assert_eq!(origin.file, name);
        let numbers = |key: &str| -> Vec<f64> {
            case[key].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
        };
        let model = jigsaw::model::load(dir.path(), &common::device()).unwrap();
        let ids = numbers("ids").into_iter().map(|id| id as u32).collect();
        let prompt = Arc::new(Prompt { ids, images: Vec::new() });
        let logits = model.logits(&prompt).unwrap().to_vec2::<f32>().unwrap().pop().unwrap();
        let want = numbers("last_logits");
        let scale = want.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        assert_eq!(logits.len(), want.len());
        for (got, want) in logits.iter().zip(&want) {
            assert!((f64::from(*got) - want).abs() <= 1e-4 * scale, "{name}: {got} against {want}");
        }
        let greedy = numbers("greedy");
        let sampling = SamplingParams::greedy(greedy.len());
        let found = model.generate(&[prompt], 1, &sampling, &[], &[]).unwrap();
        let found: Vec<f64> = found[0][0].ids.iter().map(|&id| f64::from(id)).collect();
        assert_eq!(found, greedy, "{name}");

        let processor = Processor::from_dir(dir.path()).unwrap();
        for text in case["texts"].as_array().unwrap() {
            let ids: Vec<u32> = serde_json::from_value(text["ids"].clone()).unwrap();
            assert_eq!(processor.tokens().encode(text["text"].as_str().unwrap()).unwrap(), ids, "{name}: {text}");
        }
        assert_eq!(processor.decode(&processor.encode_response("3 1 2, naïve").unwrap()).unwrap(), "3 1 2, naïve");
    }
}

#[test]
fn what_cannot_be_read_is_refused_by_name_and_nothing_is_written() {
    let bytes = std::fs::read(common::fixture("gguf/qwen2.gguf")).unwrap();
    // The file with a text in its metadata or names replaced by one of the same length.
    let with = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut changed = bytes.clone();
        changed[at..at + to.len()].copy_from_slice(to.as_bytes());
        changed
    };
    for (content, said) in [
        (b"no such file".to_vec(), "is no GGUF file that can be read"),
        (bytes[..bytes.len() - 40].to_vec(), "is cut off: `"),
        (bytes[..300].to_vec(), "or is cut off ("),
        (
            with("qwen2\u{c}", "phi44\u{c}"),
            "general.architecture: `phi44` is not supported; only `llama`, `qwen2` and `qwen3` are",
        ),
        (with("gpt2", "spm2"), "tokenizer.ggml.model: `spm2` is not supported"),
        (with("blk.0.attn_q.bias", "blk.0.attn_x.bias"), "the tensors lack `blk.0.attn_q.bias`"),
        (with("blk.0.ffn_up.weight", "blk.1.ffn_up.weight"), "the tensors lack `blk.0.ffn_up.weight`"),
        (with("qwen2.block_count", "qwen2.block_coun_"), "the metadata lack `qwen2.block_count`"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (file, out) = (dir.path().join("model.gguf"), dir.path().join("out"));
        std::fs::write(&file, content).unwrap();
        let error = import(&file, &out, WeightDtype::F32, false).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(said), "{error}");
        assert!(error.to_string().contains("model.gguf"), "{error}");
        assert!(!out.join("config.json").exists() && !out.join("model.safetensors").exists());
    }
}
