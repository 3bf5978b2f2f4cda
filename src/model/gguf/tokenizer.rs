//! The tokenizer of a GGUF file as `tokenizer.json` and `tokenizer_config.json`, with the chat template and the generation settings.

use super::file::GgufFile;
use crate::io::files::to_json;
use crate::model::processor::tokenizer_file::read_tokenizer;
use crate::{Error, Result};
use serde_json::{Map, Value, json};

/// Kinds of tokens (`tokenizer.ggml.token_type`).
const CONTROL: usize = 3;
const USER_DEFINED: usize = 4;
const UNUSED: usize = 5;

/// How Qwen2 and Llama 3 split text before merging.
const QWEN2_SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What a name of `tokenizer.ggml.pre` stands for: normaliser, steps before merging, and whether a whole word of the vocabulary is a token
/// without merging.
fn pre_tokenizer(kind: &str) -> Option<(Value, Value, bool)> {
    let bytes =
        |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let steps = |first: Value, regex: bool| json!({"type": "Sequence", "pretokenizers": [first, bytes(regex)]});
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    match kind {
        "qwen2" => Some((json!({"type": "NFC"}), steps(split(QWEN2_SPLIT), false), false)),
        "llama-bpe" | "llama3" | "llama-v3" => Some((Value::Null, steps(split(LLAMA3_SPLIT), false), true)),
        "smollm" => Some((Value::Null, steps(json!({"type": "Digits", "individual_digits": true}), true), false)),
        "gpt-2" => Some((Value::Null, bytes(true), false)),
        _ => None,
    }
}

/// The files, by name.
///
/// # Errors
/// An input error that names the key: a tokenizer that is no byte-level BPE, or splits text in a way that is not known, or lacks a part.
pub fn files(file: &GgufFile) -> Result<Vec<(String, Vec<u8>)>> {
    let text = |key: &str| file.string(&format!("tokenizer.ggml.{key}"));
    let missing = |key: &str| Error::input(format!("the metadata lack `tokenizer.ggml.{key}`"));
    match text("model")?.as_deref() {
        Some("gpt2") => {}
        other => {
            return Err(Error::input(format!(
                "tokenizer.ggml.model: `{}` is not supported; only `gpt2` (byte-level BPE) is",
                other.unwrap_or("")
            )));
        }
    }
    let kind = text("pre")?.unwrap_or_default();
    let Some((normalizer, pre_tokenizer, ignore_merges)) = pre_tokenizer(&kind) else {
        return Err(Error::input(format!(
            "tokenizer.ggml.pre: `{kind}` is not supported; only `qwen2`, `llama-bpe`, `smollm` and `gpt-2` are"
        )));
    };
    let tokens = file.strings("tokenizer.ggml.tokens")?.ok_or_else(|| missing("tokens"))?;
    let kinds = file.counts("tokenizer.ggml.token_type")?.ok_or_else(|| missing("token_type"))?;
    if kinds.len() != tokens.len() {
        return Err(Error::input(format!(
            "tokenizer.ggml has {} tokens, but {} token types",
            tokens.len(),
            kinds.len()
        )));
    }
    let merges = file.strings("tokenizer.ggml.merges")?.ok_or_else(|| missing("merges"))?;
    let merges = merges.into_iter().map(|merge| match merge.split_once(' ') {
        Some((first, second)) => Ok(json!([first, second])),
        None => Err(Error::input(format!("tokenizer.ggml.merges: `{merge}` is no pair"))),
    });
    let merges = merges.collect::<Result<Vec<Value>>>()?;
    let (mut vocab, mut added, mut decoder) = (Map::new(), Vec::new(), Map::new());
    for ((id, token), kind) in tokens.iter().enumerate().zip(&kinds) {
        if *kind == UNUSED {
            continue;
        }
        vocab.insert(token.to_string(), json!(id));
        if matches!(*kind, CONTROL | USER_DEFINED) {
            let entry = json!({"content": token, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false,
                "special": *kind == CONTROL});
            decoder.insert(id.to_string(), entry.clone());
            let mut entry = entry;
            entry["id"] = json!(id);
            added.push(entry);
        }
    }
    let tokenizer = to_json(&json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignore_merges, "vocab": vocab, "merges": merges,
        },
    }))?;
    read_tokenizer(&tokenizer).map_err(|why| Error::input(format!("tokenizer.ggml makes no tokenizer: {why}")))?;

    let special = |key: &str| -> Result<Option<(usize, &str)>> {
        let key = format!("tokenizer.ggml.{key}_token_id");
        let Some(id) = file.count(&key)? else { return Ok(None) };
        let token = tokens
            .get(id)
            .copied()
            .ok_or_else(|| Error::input(format!("{key} is {id}, beyond {} tokens", tokens.len())))?;
        Ok(Some((id, token)))
    };
    let mut config = json!({
        "added_tokens_decoder": decoder,
        "clean_up_tokenization_spaces": false,
        "model_max_length": file.count(&format!("{}.context_length", file.string("general.architecture")?.unwrap_or_default()))?,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    let mut generation = json!({});
    for (key, name) in [("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")] {
        if let Some((id, token)) = special(key)? {
            config[format!("{name}_token")] = json!(token);
            if name != "unk" {
                generation[format!("{name}_token_id")] = json!(id);
            }
        }
    }
    // A model may end its turns with another token than its texts.
    if let (Some((eos, _)), Some((eot, _))) = (special("eos")?, special("eot")?)
        && eos != eot
    {
        generation["eos_token_id"] = json!([eos, eot]);
    }
    if let Some(template) = file.string("tokenizer.chat_template")? {
        config["chat_template"] = json!(template);
    }
    let named = |name: &str, value: &Value| -> Result<(String, Vec<u8>)> { Ok((name.to_string(), to_json(value)?)) };
    Ok(vec![
        ("tokenizer.json".into(), tokenizer),
        named("tokenizer_config.json", &config)?,
        named("generation_config.json", &generation)?,
    ])
}
