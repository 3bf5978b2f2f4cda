//! `tokenizer.json`: read, and used, so that no file can end the program.
//!
//! Such a file comes with any name on the Hub. The library panics on some that it reads without an error, and others make it take memory
//! without end: what multiplies a text (its normalisers and decoders) is bounded when the file is read, padding and truncation are not
//! applied (as transformers does not where nobody asks for them), and every panic is an error.

use crate::error::catch_panic;
use crate::io::plain::{json_fault, json_said};
use serde_json::Value;
use tokenizers::Tokenizer;

/// Most bytes that a byte of text becomes on its way through the normalisers, or a token through the decoders. Llama's make 9 of one.
const MAX_GROWTH: f64 = 64.0;
/// Most steps of all pipelines together. Published files have up to ten.
const MAX_STEPS: usize = 64;
/// Most bytes of the pattern of a step.
const MAX_PATTERN_BYTES: usize = 16 << 10;
/// A text that every tokenizer must be able to read.
const PROBE: &str = "a B\n 12, \u{e9}\u{4e2d} <x>";

/// The parts of the file that change text.
#[derive(serde::Deserialize)]
struct Pipelines {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
}

/// The tokenizer in the bytes of a file.
///
/// # Errors
/// What is wrong with it.
pub(in crate::model) fn read_tokenizer(bytes: &[u8]) -> Result<Tokenizer, String> {
    let pipelines: Pipelines = serde_json::from_slice(bytes).map_err(|e| json_fault(&e))?;
    let Pipelines { normalizer, pre_tokenizer, decoder } = pipelines;
    let mut steps = 0;
    for (name, pipeline) in [("normalizer", &normalizer), ("pre_tokenizer", &pre_tokenizer), ("decoder", &decoder)] {
        let growth = growth(pipeline, &mut steps).map_err(|why| format!("`{name}`: {why}"))?;
        if growth > MAX_GROWTH {
            return Err(format!("`{name}` makes {growth:.0} bytes of one; at most {MAX_GROWTH:.0} are allowed"));
        }
        if steps > MAX_STEPS {
            return Err(format!("`{name}`: more than {MAX_STEPS} steps"));
        }
    }
    let mut tokenizer =
        catch_panic(|| Tokenizer::from_bytes(bytes)).and_then(|read| read.map_err(|e| json_said(&e.to_string())))?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
    let ids = encode(&tokenizer, PROBE).map_err(|why| format!("it fails on a short text: {why}"))?;
    decode(&tokenizer, &ids).map_err(|why| format!("it cannot decode a short text: {why}"))?;
    Ok(tokenizer)
}

/// By how much the steps of a pipeline can multiply a text.
fn growth(pipeline: &Value, steps: &mut usize) -> Result<f64, String> {
    let mut growth = 1.0;
    match pipeline {
        Value::Array(items) => {
            for item in items {
                growth *= self::growth(item, steps)?;
            }
        }
        Value::Object(fields) => {
            let text = |name: &str| fields.get(name).and_then(Value::as_str);
            let pattern = |kind: &str| fields.get("pattern").and_then(|pattern| pattern.get(kind)?.as_str());
            if let Some(kind) = text("type") {
                *steps += 1;
                let literal = pattern("String");
                if let Some(long) = literal.or(pattern("Regex")).filter(|pattern| pattern.len() > MAX_PATTERN_BYTES) {
                    return Err(format!("a pattern of {} bytes; at most {MAX_PATTERN_BYTES} are read", long.len()));
                }
                if kind == "Replace" && literal == Some("") {
                    return Err("Replace has an empty pattern, which is everywhere".into());
                }
                let made = match kind {
                    "Replace" => text("content").unwrap_or_default().len() as f64,
                    // It begins every piece of the text, which has a byte at least.
                    "Prepend" => 1.0 + text("prepend").unwrap_or_default().len() as f64,
                    _ => 1.0,
                };
                growth *= (made / literal.map_or(1.0, |literal| literal.len() as f64)).max(1.0);
            }
            for field in fields.values().filter(|field| field.is_array() || field.is_object()) {
                growth *= self::growth(field, steps)?;
            }
        }
        _ => {}
    }
    Ok(growth)
}

/// Token ids of a text; special tokens in it are recognised, none is added.
///
/// # Errors
/// Why the tokenizer fails on it.
pub(super) fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, String> {
    let encoded = catch_panic(|| tokenizer.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec()));
    encoded.and_then(|encoded| encoded.map_err(|e| e.to_string()))
}

/// Text of token ids, without special tokens.
///
/// # Errors
/// Why the tokenizer fails on them.
pub(super) fn decode(tokenizer: &Tokenizer, ids: &[u32]) -> Result<String, String> {
    catch_panic(|| tokenizer.decode(ids, true)).and_then(|decoded| decoded.map_err(|e| e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A tokenizer of words with these parts in place of its own.
    fn file(parts: Value) -> Vec<u8> {
        let mut file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"}
        });
        for (name, part) in parts.as_object().unwrap() {
            file[name] = part.clone();
        }
        serde_json::to_vec(&file).unwrap()
    }

    #[test]
    fn a_file_that_the_library_fails_on_is_refused_and_never_ends_the_program() {
        let replace =
            |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let double = replace(json!({"String": "a"}), "aa");
        let unk = |vocab: Value, unk: u32| json!({"type": "Unigram", "vocab": vocab, "unk_id": unk});
        for (parts, said) in [
            (json!({"normalizer": replace(json!({"String": ""}), "x")}), "`normalizer`: Replace has an empty pattern"),
            (json!({"decoder": replace(json!({"String": ""}), "x")}), "`decoder`: Replace has an empty pattern"),
            (json!({"normalizer": {"type": "Sequence", "normalizers": vec![double.clone(); 40]}}), "bytes of one"),
            (json!({"normalizer": replace(json!({"Regex": "."}), &"x".repeat(100))}), "makes 100 bytes of one"),
            (json!({"decoder": {"type": "Sequence", "decoders": vec![double; 40]}}), "`decoder` makes"),
            (json!({"normalizer": {"type": "Prepend", "prepend": "x".repeat(1000)}}), "makes 1001 bytes"),
            (json!({"normalizer": {"type": "Sequence", "normalizers": vec![json!({"type": "NFC"}); 100]}}), "64 steps"),
            (json!({"pre_tokenizer": {"type": "FixedLength", "length": 0}}), "fails on a short text"),
            (json!({"model": unk(json!([["a", -1.0]]), 7)}), "UnkIdNotInVocabulary"),
            (json!({"model": {"type": "WordLevel", "vocab": {}, "unk_token": "[UNK]"}}), ""),
            (json!({"model": 3}), ""),
        ] {
            let why = read_tokenizer(&file(parts.clone())).map(drop).unwrap_err();
            assert!(why.contains(said), "{parts}: {why}");
        }
        assert!(read_tokenizer(b"{").is_err() && read_tokenizer(b"[]").is_err());
    }

    #[test]
    fn a_file_may_not_pad_or_cut_the_text() {
        let padding = json!({"strategy": {"Fixed": 1_000_000_000_000u64}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "a"});
        let cut = json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0});
        let tokenizer = read_tokenizer(&file(json!({"padding": padding, "truncation": cut}))).unwrap();
        assert_eq!(encode(&tokenizer, "a b a").unwrap(), [0, 1, 0]);
        assert_eq!(decode(&tokenizer, &[0, 9, 0]).unwrap(), "a a");
    }

    #[test]
    fn an_empty_regex_and_others_that_match_nothing_are_read_or_refused() {
        for pattern in ["", "^", "a*", "(?=a)", "\\b", "(", "(a+)+$"] {
            let normalizer = json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": "x"});
            if let Ok(tokenizer) = read_tokenizer(&file(json!({"normalizer": normalizer}))) {
                let _ = encode(&tokenizer, &"a".repeat(5000));
            }
        }
    }
}
