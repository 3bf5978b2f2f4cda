//! The decoder's fields of `config.json`, as models of text alone and models with vision have them.

use super::rope_scaling::RopeScaling;
use crate::Result;
use crate::model::json_fields::{Fields, MAX_LAYERS, MAX_WIDTH};
use crate::model::shapes::DecoderShape;
use crate::nn::Rotary;
use serde_json::{Value, json};

/// A decoder.
#[derive(Debug, Clone, Copy, PartialEq)]
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
    /// Width of a head.
    pub head_dim: usize,
    /// Queries, keys and values have biases.
    pub qkv_bias: bool,
    /// An RMSNorm over each query head and each key head, before they are rotated.
    pub qk_norm: bool,
    /// Epsilon of the RMSNorms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched for longer sequences.
    pub rope_scaling: Option<RopeScaling>,
    /// Longest sequence the checkpoint was made for.
    pub max_position_embeddings: usize,
}

/// What a family fixes about its decoder, and transformers' defaults of what it leaves open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecoderRules {
    /// Defaults of sizes; biases and norms as the family has them.
    pub defaults: TextConfig,
    /// Where the width of a head comes from.
    pub head_dim: HeadDim,
    /// The layer that a sliding window would begin with, in a family that knows `use_sliding_window`.
    pub max_window_layers: Option<usize>,
}

/// Where the width of a head comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadDim {
    /// `hidden_size / num_attention_heads`; a `head_dim` that differs cannot work in transformers.
    Derived,
    /// `head_dim`, else `hidden_size / num_attention_heads`, which must be whole.
    StatedOrDerived,
    /// `head_dim`, else the family's default.
    StatedOrDefault,
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
    /// Read and check the decoder's fields. What is absent comes from `rules`.
    pub fn from_fields(f: &Fields, rules: &DecoderRules, rotary: &RotaryFields) -> Result<Self> {
        let defaults = &rules.defaults;
        f.activation("hidden_act")?;
        let hidden_size = f.size("hidden_size", MAX_WIDTH)?.unwrap_or(defaults.hidden_size);
        let num_hidden_layers = f.size("num_hidden_layers", MAX_LAYERS)?.unwrap_or(defaults.num_hidden_layers);
        let heads = f.positive("num_attention_heads")?.unwrap_or(defaults.num_attention_heads);
        // Llama's default is as many as query heads.
        let kv_heads = match (f.has("num_key_value_heads"), rules.head_dim) {
            (false, HeadDim::Derived | HeadDim::StatedOrDefault) => defaults.num_key_value_heads,
            _ => f.positive("num_key_value_heads")?.unwrap_or(heads),
        };
        if hidden_size % heads != 0 && rules.head_dim != HeadDim::StatedOrDefault {
            return Err(
                f.error("hidden_size", format!("{hidden_size} is not divisible by num_attention_heads {heads}"))
            );
        }
        if heads % kv_heads != 0 {
            return Err(
                f.error("num_attention_heads", format!("{heads} is not divisible by num_key_value_heads {kv_heads}"))
            );
        }
        let derived = hidden_size / heads;
        let head_dim = match (f.size("head_dim", MAX_WIDTH)?, rules.head_dim) {
            // transformers' attention ignores head_dim while its rotary embedding uses it, so another value cannot work.
            (Some(stated), HeadDim::Derived) if stated != derived => {
                return Err(f.error(
                    "head_dim",
                    format!("{stated} is not hidden_size / num_attention_heads = {derived}, which transformers' attention needs"),
                ));
            }
            (Some(stated), _) => stated,
            (None, HeadDim::StatedOrDefault) => defaults.head_dim,
            (None, _) => derived,
        };
        if head_dim % 2 != 0 {
            let key = if f.has("head_dim") { "head_dim" } else { "hidden_size" };
            return Err(f.error(key, format!("gives heads of odd width {head_dim}; rotary positions need pairs")));
        }
        refuse_sliding_windows(f, rules, num_hidden_layers)?;
        if !defaults.qkv_bias {
            for key in ["attention_bias", "mlp_bias"] {
                if f.boolean(key)? == Some(true) {
                    return Err(f.error(key, "biases are not supported in this family; only false is"));
                }
            }
        }
        let max_positions = f.positive("max_position_embeddings")?.unwrap_or(defaults.max_position_embeddings);
        Ok(TextConfig {
            vocab_size: f.size("vocab_size", MAX_WIDTH)?.unwrap_or(defaults.vocab_size),
            hidden_size,
            intermediate_size: f.size("intermediate_size", MAX_WIDTH)?.unwrap_or(defaults.intermediate_size),
            num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            rms_norm_eps: f.positive_number("rms_norm_eps")?.unwrap_or(defaults.rms_norm_eps),
            rope_theta: rotary.theta.unwrap_or(defaults.rope_theta),
            rope_scaling: rotary.scaling(max_positions)?,
            max_position_embeddings: max_positions,
            ..*defaults
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
            qk_norm: self.qk_norm,
            intermediate_size: self.intermediate_size,
            vocab_size: self.vocab_size,
            mrope_section: Vec::new(),
            max_positions: self.max_position_embeddings,
            tied,
        }
    }

    /// The rotary embedding of text.
    pub fn rotary(&self) -> Rotary {
        let rotary = Rotary::new(self.head_dim, self.rope_theta);
        match self.rope_scaling {
            Some(scaling) => rotary.scaled(|frequency| scaling.frequency(frequency)),
            None => rotary,
        }
    }
}

/// Refuse layers that attend within a window.
fn refuse_sliding_windows(f: &Fields, rules: &DecoderRules, layers: usize) -> Result<()> {
    let windowed = match rules.max_window_layers {
        Some(default) => {
            let first = f.count("max_window_layers")?.unwrap_or(default);
            f.boolean("use_sliding_window")?.unwrap_or(false) && first < layers
        }
        None => false,
    };
    if windowed {
        return Err(f.error("use_sliding_window", "sliding-window attention is not supported; set it to false"));
    }
    match f.strings("layer_types")?.into_iter().flatten().find(|kind| kind != "full_attention") {
        Some(kind) => Err(f.error("layer_types", format!("`{kind}` is not supported; only `full_attention` is"))),
        None => Ok(()),
    }
}

/// What `config.json` says of the rotary positions.
pub struct RotaryFields {
    /// Base of the frequencies, if it is given.
    theta: Option<f64>,
    /// The section that describes them, if there is one, and its kind.
    section: Option<(String, Fields)>,
}

/// The rotary fields of a model of text. Refuses every `rope_type` but those of [`RopeScaling::KINDS`].
pub fn rotary_fields(f: &Fields) -> Result<RotaryFields> {
    RotaryFields::read(f, &RopeScaling::KINDS)
}

impl RotaryFields {
    /// Read the fields. Refuses every `rope_type` but `kinds`.
    pub fn read(f: &Fields, kinds: &[&str]) -> Result<Self> {
        let outer_theta = f.positive_number("rope_theta")?;
        // transformers: `rope_scaling` wins where both are present.
        let rope = match f.section("rope_scaling")? {
            Some(section) => Some(section),
            None => f.section("rope_parameters")?,
        };
        for section in std::iter::once(f).chain(&rope) {
            if let Some(part) = section.positive_number("partial_rotary_factor")?.filter(|part| *part != 1.0) {
                return Err(section.error("partial_rotary_factor", format!("{part} is not supported; only 1 is")));
            }
        }
        let Some(rope) = rope else { return Ok(RotaryFields { theta: outer_theta, section: None }) };
        let kind = match rope.string("rope_type")? {
            Some(kind) => Some(kind),
            None => rope.string("type")?,
        };
        let kind = kind.unwrap_or_else(|| kinds[0].to_string());
        if !kinds.contains(&kind.as_str()) {
            let known: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
            let error = format!("`{kind}` is not supported; only {} are", known.join(" and "));
            return Err(rope.error("rope_type", error));
        }
        Ok(RotaryFields { theta: rope.positive_number("rope_theta")?.or(outer_theta), section: Some((kind, rope)) })
    }

    /// The section that describes the frequencies.
    pub fn section(&self) -> Option<&Fields> {
        self.section.as_ref().map(|(_, section)| section)
    }

    fn scaling(&self, max_positions: usize) -> Result<Option<RopeScaling>> {
        match &self.section {
            Some((kind, section)) => RopeScaling::from_fields(kind, section, max_positions),
            None => Ok(None),
        }
    }
}
