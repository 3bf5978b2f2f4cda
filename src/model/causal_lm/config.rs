//! `config.json` of a checkpoint that reads text alone, and how such a model computes.
//!
//! A key that is absent has the value that transformers' configuration class gives it, because transformers does not write keys that have
//! their default.

use super::decoder::{decoder, parameter_shapes, part};
use super::text_config::{DecoderRules, TextConfig, one_or_list, rotary_fields};
use crate::model::architecture::{Architecture, Network};
use crate::model::json_fields::Fields;
use crate::model::parts::Part;
use crate::model::positions::Positions;
use crate::model::shapes::DecoderShape;
use crate::model::weights::named::NamedWeights;
use crate::{Error, Result};
use serde_json::{Value, json};

/// A family of causal language models.
#[derive(Debug, PartialEq)]
pub struct Family {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// Classes of transformers whose weights are those of the causal language model, and of it without its head.
    pub classes: [&'static str; 2],
    /// Id of the beginning-of-sequence token, where `config.json` does not say.
    pub bos_token_id: Option<u32>,
    /// Id that ends a sequence, where `config.json` does not say.
    pub eos_token_id: Option<u32>,
    /// What holds for its decoder.
    pub rules: DecoderRules,
}

/// A checkpoint's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The family.
    pub family: &'static Family,
    /// The decoder.
    pub text: TextConfig,
    /// Id of the beginning-of-sequence token (unused but by chat templates).
    pub bos_token_id: Option<u32>,
    /// Ids that end a sequence.
    pub eos_token_ids: Vec<u32>,
    /// The output head is the embedding matrix.
    pub tie_word_embeddings: bool,
}

impl Config {
    /// The configuration of a model of `family` in a parsed `config.json`; errors name the field.
    pub fn from_json(family: &'static Family, value: &Value) -> Result<Self> {
        let root = Fields::root(value)?;
        let classes = root.strings("architectures")?.unwrap_or_default();
        let known = classes.iter().any(|class| family.classes.contains(&class.as_str()));
        if let Some(class) = classes.first().filter(|_| !known) {
            return Err(root.error(
                "architectures",
                format!("`{class}` is no causal language model; give one of `{}`", family.classes[0]),
            ));
        }
        let ids = |key: &str, default: Option<u32>| match root.has(key) {
            true => Ok(root.ids(key)?.unwrap_or_default()),
            false => Ok::<_, Error>(default.into_iter().collect()),
        };
        Ok(Config {
            family,
            text: TextConfig::from_fields(&root, &family.rules, &rotary_fields(&root)?)?,
            bos_token_id: ids("bos_token_id", family.bos_token_id)?.first().copied(),
            eos_token_ids: ids("eos_token_id", family.eos_token_id)?,
            tie_word_embeddings: root.boolean("tie_word_embeddings")?.unwrap_or(false),
        })
    }
}

impl Architecture for Config {
    fn model_type(&self) -> &'static str {
        self.family.model_type
    }

    fn title(&self) -> &'static str {
        self.family.title
    }

    fn to_json(&self) -> Value {
        let t = &self.text;
        let mut json = json!({
            "architectures": [self.family.classes[0]],
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": one_or_list(&self.eos_token_ids),
            "hidden_act": "silu",
            "hidden_size": t.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": t.intermediate_size,
            "max_position_embeddings": t.max_position_embeddings,
            "model_type": self.family.model_type,
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
        });
        if let Some(scaling) = t.rope_scaling {
            json["rope_scaling"] = scaling.to_json();
        }
        if !t.qkv_bias {
            json["attention_bias"] = json!(false);
            json["head_dim"] = json!(t.head_dim);
        }
        json
    }

    fn decoder(&self) -> DecoderShape {
        self.text.shape(self.tie_word_embeddings)
    }

    fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)> {
        parameter_shapes(&self.text, self.tie_word_embeddings)
    }

    fn published_name(&self, stored: &str) -> String {
        // The decoder saved without its head has no prefix.
        match ["layers.", "embed_tokens.", "norm."].iter().any(|start| stored.starts_with(start)) {
            true => format!("model.{stored}"),
            false => stored.to_string(),
        }
    }

    fn decoder_module_pattern(&self) -> &'static str {
        r"(.*\.)?model\.layers\.\d+\.(self_attn|mlp)\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    }

    fn part(&self, parameter: &str) -> Part {
        part(parameter)
    }

    fn eos_token_ids(&self) -> &[u32] {
        &self.eos_token_ids
    }

    fn positions(&self, ids: &[u32], grids: &[[usize; 3]]) -> Result<Positions> {
        match grids {
            [] => Ok(Positions::of_text(ids.len())),
            _ => {
                Err(Error::input(format!("the prompt has {} image(s); {} reads text alone", grids.len(), self.title())))
            }
        }
    }

    fn build(&self, weights: &mut NamedWeights) -> Result<Network> {
        let decoder = decoder(&self.text, self.tie_word_embeddings, self.text.rotary(), weights)?;
        Ok(Network { vision: None, decoder })
    }
}
