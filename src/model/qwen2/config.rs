//! `config.json` of a Qwen2 or Qwen2.5 checkpoint, and the decoder's fields that Qwen2.5-VL shares.
//!
//! A key that is absent has the value that transformers' `Qwen2Config` gives it, because transformers does not write keys that have their
//! default.

use crate::Result;
use crate::model::json_fields::{Fields, MAX_LAYERS, MAX_WIDTH};
use crate::model::shapes::DecoderShape;
use serde_json::{Value, json};

/// `model_type` of the family.
pub const MODEL_TYPE: &str = "qwen2";

/// Classes of transformers whose weights are those of a causal language model, or of it without its head.
const CLASSES: [&str; 2] = ["Qwen2ForCausalLM", "Qwen2Model"];

/// A checkpoint's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The decoder.
    pub text: TextConfig,
    /// Id of the beginning-of-sequence token (unused by the chat template).
    pub bos_token_id: Option<u32>,
    /// Ids that end a sequence.
    pub eos_token_ids: Vec<u32>,
    /// The output head is the embedding matrix.
    pub tie_word_embeddings: bool,
}

/// Qwen2's decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct TextConfig {
    /// Rows of the embedding matrix.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of a head: `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Epsilon of the RMSNorms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Longest sequence the checkpoint was made for.
    pub max_position_embeddings: usize,
}

impl Config {
    /// The configuration in a parsed `config.json`; errors name the field.
    pub fn from_json(value: &Value) -> Result<Self> {
        let root = Fields::root(value)?;
        let classes = root.strings("architectures")?.unwrap_or_default();
        if let Some(class) = classes.first().filter(|_| !classes.iter().any(|class| CLASSES.contains(&class.as_str())))
        {
            return Err(root.error(
                "architectures",
                format!("`{class}` is no causal language model; give one of `{}`", CLASSES[0]),
            ));
        }
        // transformers' defaults.
        let defaults = TextConfig {
            vocab_size: 151_936,
            hidden_size: 4096,
            intermediate_size: 22_016,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: 32,
            head_dim: 128,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            max_position_embeddings: 32_768,
        };
        let (theta, _) = rotary_fields(&root, &["default"])?;
        let text = TextConfig::from_fields(&root, &defaults, 28, theta)?;
        let config = Config {
            text,
            bos_token_id: root.ids("bos_token_id")?.and_then(|ids| ids.first().copied()),
            eos_token_ids: root.ids("eos_token_id")?.unwrap_or_default(),
            tie_word_embeddings: root.boolean("tie_word_embeddings")?.unwrap_or(false),
        };
        Ok(config)
    }

    /// `config.json` as the published checkpoints have it.
    pub fn to_json(&self) -> Value {
        let t = &self.text;
        json!({
            "architectures": [CLASSES[0]],
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": one_or_list(&self.eos_token_ids),
            "hidden_act": "silu",
            "hidden_size": t.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": t.intermediate_size,
            "max_position_embeddings": t.max_position_embeddings,
            "model_type": MODEL_TYPE,
            "num_attention_heads": t.num_attention_heads,
            "num_hidden_layers": t.num_hidden_layers,
            "num_key_value_heads": t.num_key_value_heads,
            "rms_norm_eps": t.rms_norm_eps,
            "rope_theta": t.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "use_cache": true,
            "use_sliding_window": false,
            "vocab_size": t.vocab_size,
        })
    }
}

/// A single id as a number, as the published files have it.
pub fn one_or_list(ids: &[u32]) -> Value {
    match ids {
        [] => Value::Null,
        [one] => json!(one),
        several => json!(several),
    }
}

impl TextConfig {
    /// Read and check the decoder's fields. What is absent comes from `defaults`; the sliding window would begin at layer
    /// `max_window_layers`.
    pub fn from_fields(
        f: &Fields,
        defaults: &TextConfig,
        max_window_layers: usize,
        rope_theta: Option<f64>,
    ) -> Result<Self> {
        f.activation("hidden_act")?;
        let hidden_size = f.size("hidden_size", MAX_WIDTH)?.unwrap_or(defaults.hidden_size);
        let num_hidden_layers = f.size("num_hidden_layers", MAX_LAYERS)?.unwrap_or(defaults.num_hidden_layers);
        let heads = f.positive("num_attention_heads")?.unwrap_or(defaults.num_attention_heads);
        let kv_heads = match f.has("num_key_value_heads") {
            true => f.positive("num_key_value_heads")?.unwrap_or(heads),
            false => defaults.num_key_value_heads,
        };
        if hidden_size % heads != 0 {
            return Err(
                f.error("hidden_size", format!("{hidden_size} is not divisible by num_attention_heads {heads}"))
            );
        }
        if heads % kv_heads != 0 {
            return Err(
                f.error("num_attention_heads", format!("{heads} is not divisible by num_key_value_heads {kv_heads}"))
            );
        }
        let head_dim = hidden_size / heads;
        // transformers' attention ignores head_dim while its rotary embedding uses it, so another value cannot work.
        if let Some(stated) = f.positive("head_dim")?
            && stated != head_dim
        {
            return Err(f.error(
                "head_dim",
                format!("{stated} is not hidden_size / num_attention_heads = {head_dim}, which transformers' attention needs"),
            ));
        }
        if head_dim % 2 != 0 {
            return Err(
                f.error("hidden_size", format!("gives heads of odd width {head_dim}; rotary positions need pairs"))
            );
        }
        let max_window_layers = f.count("max_window_layers")?.unwrap_or(max_window_layers);
        if f.boolean("use_sliding_window")?.unwrap_or(false) && max_window_layers < num_hidden_layers {
            return Err(f.error("use_sliding_window", "sliding-window attention is not supported; set it to false"));
        }
        Ok(TextConfig {
            vocab_size: f.size("vocab_size", MAX_WIDTH)?.unwrap_or(defaults.vocab_size),
            hidden_size,
            intermediate_size: f.size("intermediate_size", MAX_WIDTH)?.unwrap_or(defaults.intermediate_size),
            num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            rms_norm_eps: f.positive_number("rms_norm_eps")?.unwrap_or(defaults.rms_norm_eps),
            rope_theta: rope_theta.unwrap_or(defaults.rope_theta),
            max_position_embeddings: f.positive("max_position_embeddings")?.unwrap_or(defaults.max_position_embeddings),
        })
    }

    /// Sizes of the decoder.
    pub fn shape(&self, tied: bool) -> DecoderShape {
        DecoderShape {
            layers: self.num_hidden_layers,
            hidden_size: self.hidden_size,
            heads: self.num_attention_heads,
            key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            intermediate_size: self.intermediate_size,
            vocab_size: self.vocab_size,
            mrope_section: Vec::new(),
            max_positions: self.max_position_embeddings,
            tied,
        }
    }
}

/// Base of the rotary positions, if it is given, and the section of the file that describes them, if there is one. Refuses every
/// `rope_type` but `kinds`.
pub fn rotary_fields(f: &Fields, kinds: &[&str]) -> Result<(Option<f64>, Option<Fields>)> {
    let outer_theta = f.positive_number("rope_theta")?;
    // transformers: `rope_scaling` wins where both are present.
    let rope = match f.section("rope_scaling")? {
        Some(section) => Some(section),
        None => f.section("rope_parameters")?,
    };
    let Some(rope) = rope else { return Ok((outer_theta, None)) };
    let kind = match rope.string("rope_type")? {
        Some(kind) => Some(kind),
        None => rope.string("type")?,
    };
    if let Some(kind) = kind.filter(|kind| !kinds.contains(&kind.as_str())) {
        let known: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
        let verb = if known.len() == 1 { "is" } else { "are" };
        return Err(rope.error("rope_type", format!("`{kind}` is not supported; only {} {verb}", known.join(" and "))));
    }
    Ok((rope.positive_number("rope_theta")?.or(outer_theta), Some(rope)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_what_is_absent_has_the_default_of_transformers() {
        let defaults = Config::from_json(&json!({"model_type": "qwen2"})).unwrap();
        assert_eq!((defaults.text.num_key_value_heads, defaults.text.rope_theta), (32, 10_000.0));
        assert_eq!(Config::from_json(&defaults.to_json()).unwrap(), defaults);
        let newer = json!({"model_type": "qwen2", "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}});
        assert_eq!(Config::from_json(&newer).unwrap().text.rope_theta, 1e6);
    }

    #[test]
    fn what_would_compute_otherwise_is_refused_by_name() {
        for (field, value, named) in [
            ("architectures", json!(["Qwen2ForSequenceClassification"]), "Qwen2ForSequenceClassification"),
            ("rope_scaling", json!({"type": "yarn", "factor": 4.0}), "only `default` is"),
            ("hidden_act", json!("gelu"), "gelu"),
            ("head_dim", json!(100), "head_dim"),
        ] {
            let mut config = json!({"model_type": "qwen2"});
            config[field] = value;
            let error = Config::from_json(&config).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(named), "{error}");
        }
        let mut sliding = json!({"model_type": "qwen2", "use_sliding_window": true});
        assert!(Config::from_json(&sliding).unwrap_err().to_string().contains("sliding"));
        sliding["max_window_layers"] = json!(32);
        assert!(Config::from_json(&sliding).is_ok());
    }
}
