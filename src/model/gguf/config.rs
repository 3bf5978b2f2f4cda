//! The configuration of a GGUF file's model, from its metadata.

use super::file::GgufFile;
use super::tensors::{EMBEDDING, HEAD, ROPE_FREQUENCIES};
use crate::model::architecture::Architecture;
use crate::model::causal_lm::families::{LLAMA, QWEN2, QWEN3};
use crate::model::causal_lm::{Config, RopeScaling};
use crate::nn::Rotary;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::sync::Arc;

/// Longest sequence of Llama 3 before its frequencies were stretched, and the factors between which they are stretched in part.
const LLAMA3: (usize, f64, f64) = (8192, 1.0, 4.0);

/// The architecture.
///
/// # Errors
/// An input error that names the key: another architecture, experts, sliding windows, a stretching of positions that is not supported.
pub fn architecture(file: &GgufFile) -> Result<Arc<dyn Architecture>> {
    let name = file.string("general.architecture")?;
    let name = name.ok_or_else(|| Error::input("the metadata lack `general.architecture`"))?;
    let Some(family) = [&LLAMA, &QWEN2, &QWEN3].into_iter().find(|family| family.model_type == name) else {
        return Err(Error::input(format!(
            "general.architecture: `{name}` is not supported; only `llama`, `qwen2` and `qwen3` are"
        )));
    };
    let key = |end: &str| format!("{name}.{end}");
    if file.count(&key("expert_count"))?.is_some_and(|count| count > 0) {
        return Err(Error::input(format!("`{}`: models with experts are not supported", key("expert_count"))));
    }
    let positions = file.required(&key("context_length"))?;
    if let Some(window) = file.count(&key("attention.sliding_window"))?.filter(|&n| n > 0 && n < positions) {
        let key = key("attention.sliding_window");
        return Err(Error::input(format!("`{key}` is {window}: sliding-window attention is not supported")));
    }
    let rows = file.shape(EMBEDDING).and_then(|shape| shape.first()).copied();
    let rows = rows.ok_or_else(|| Error::input(format!("the tensors lack `{EMBEDDING}`")))?;
    let mut config = json!({
        "model_type": name,
        "hidden_size": file.required(&key("embedding_length"))?,
        "intermediate_size": file.required(&key("feed_forward_length"))?,
        "max_position_embeddings": positions,
        "num_attention_heads": file.required(&key("attention.head_count"))?,
        "num_hidden_layers": file.required(&key("block_count"))?,
        "tie_word_embeddings": file.shape(HEAD).is_none(),
        "vocab_size": rows,
    });
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            config[name] = value;
        }
    };
    let number = |end: &str| Ok::<_, Error>(file.number(&key(end))?.map(|x| json!(x)));
    let count = |end: &str| Ok::<_, Error>(file.count(&key(end))?.map(|n| json!(n)));
    add("num_key_value_heads", count("attention.head_count_kv")?);
    add("head_dim", count("attention.key_length")?);
    add("rms_norm_eps", number("attention.layer_norm_rms_epsilon")?);
    add("rope_theta", number("rope.freq_base")?);
    add("bos_token_id", file.count("tokenizer.ggml.bos_token_id")?.map(|id| json!(id)));
    add("eos_token_id", file.count("tokenizer.ggml.eos_token_id")?.map(|id| json!(id)));
    let kind = file.string(&key("rope.scaling.type"))?.filter(|kind| kind != "none");
    add(
        "rope_scaling",
        match kind {
            Some(kind) => Some(json!({ "rope_type": kind, "factor": number("rope.scaling.factor")? })),
            None => None,
        },
    );
    let mut config = Config::from_json(family, &config)?;
    let rotated = file.count(&key("rope.dimension_count"))?.unwrap_or(config.text.head_dim);
    if rotated != config.text.head_dim {
        return Err(Error::input(format!(
            "`{}` is {rotated}, but heads are {} wide; rotating a part of them is not supported",
            key("rope.dimension_count"),
            config.text.head_dim
        )));
    }
    if file.shape(ROPE_FREQUENCIES).is_some() {
        config.text.rope_scaling = Some(stretching(&file.values(ROPE_FREQUENCIES)?, &config)?);
    }
    Ok(Arc::new(config))
}

/// The stretching of frequencies that gives these divisors: Llama 3's, of which a file holds nothing else.
fn stretching(divisors: &[f32], config: &Config) -> Result<RopeScaling> {
    let (original_max_position_embeddings, low_freq_factor, high_freq_factor) = LLAMA3;
    let factor = divisors.iter().fold(1.0f32, |most, d| most.max(*d));
    let factor = f64::from(factor.round());
    let scaling = RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings };
    let plain = Rotary::new(config.text.head_dim, config.text.rope_theta);
    let wanted = plain.frequencies().iter().map(|f| f / scaling.frequency(*f));
    let same = wanted.len() == divisors.len() && wanted.zip(divisors).all(|(a, b)| (a - b).abs() <= 1e-4 * a);
    match same {
        true => Ok(scaling),
        false => Err(Error::input(format!(
            "`{ROPE_FREQUENCIES}` stretches positions otherwise than Llama 3 does, which is not supported"
        ))),
    }
}
