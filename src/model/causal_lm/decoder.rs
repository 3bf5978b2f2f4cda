//! A layer of the decoder: grouped-query attention and a SwiGLU MLP, each after an RMSNorm. Where the family has them, queries, keys and
//! values have biases, and each query and key head is normalised before it is rotated.

use super::text_config::TextConfig;
use crate::Result;
use crate::model::decoder::{Decoder, DecoderLayer, keep_rows};
use crate::model::parts::Part;
use crate::model::weights::named::NamedWeights;
use crate::nn::{Heads, Linear, Parameter, RopeTable, Rotary, Tape, Value, head_norm, linear, rms_norm, rope, swiglu};
use std::sync::Arc;

struct Layer {
    norm1: Arc<Parameter>,
    query: Linear,
    key: Linear,
    value: Linear,
    /// Weights of the norms of query and key heads.
    head_norms: Option<[Arc<Parameter>; 2]>,
    output: Linear,
    norm2: Arc<Parameter>,
    gate: Linear,
    up: Linear,
    down: Linear,
    eps: f64,
    heads: Heads,
}

/// Take the decoder's weights.
pub fn decoder(config: &TextConfig, tied: bool, rotary: Rotary, weights: &mut NamedWeights) -> Result<Decoder> {
    let shape = config.shape(tied);
    let layers = (0..config.num_hidden_layers)
        .map(|i| {
            let name = |part: &str| format!("model.layers.{i}.{part}");
            let layer: Arc<dyn DecoderLayer> = Arc::new(Layer {
                norm1: weights.take(&name("input_layernorm.weight"))?,
                query: weights.linear(&name("self_attn.q_proj"), config.qkv_bias)?,
                key: weights.linear(&name("self_attn.k_proj"), config.qkv_bias)?,
                value: weights.linear(&name("self_attn.v_proj"), config.qkv_bias)?,
                head_norms: match config.qk_norm {
                    true => Some([
                        weights.take(&name("self_attn.q_norm.weight"))?,
                        weights.take(&name("self_attn.k_norm.weight"))?,
                    ]),
                    false => None,
                },
                output: weights.linear(&name("self_attn.o_proj"), false)?,
                norm2: weights.take(&name("post_attention_layernorm.weight"))?,
                gate: weights.linear(&name("mlp.gate_proj"), false)?,
                up: weights.linear(&name("mlp.up_proj"), false)?,
                down: weights.linear(&name("mlp.down_proj"), false)?,
                eps: config.rms_norm_eps,
                heads: shape.attention_heads(),
            });
            Ok(layer)
        })
        .collect::<Result<_>>()?;
    Decoder::new(&shape, config.rms_norm_eps, rotary, layers, weights)
}

impl DecoderLayer for Layer {
    fn forward(
        &self,
        tape: &Tape,
        x: Value,
        rotations: &Arc<RopeTable>,
        wanted: Option<&[u32]>,
        attend: &mut dyn FnMut(&Value) -> Result<Value>,
    ) -> Result<Value> {
        let h = rms_norm(tape, &x, &self.norm1, self.eps)?;
        let mut qkv = linear(tape, &h, &[&self.query, &self.key, &self.value], None)?;
        if let Some(weights) = &self.head_norms {
            qkv = head_norm(tape, &qkv, weights, self.heads, self.eps)?;
        }
        let a = attend(&rope(tape, qkv, rotations, self.heads)?)?;
        let (a, mut x) = keep_rows(tape, wanted, a, x)?;
        x = linear(tape, &a, &[&self.output], Some(&x))?;
        let h = rms_norm(tape, &x, &self.norm2, self.eps)?;
        let h = swiglu(tape, &linear(tape, &h, &[&self.gate, &self.up], None)?)?;
        linear(tape, &h, &[&self.down], Some(&x))
    }

    fn is_trainable(&self) -> bool {
        let maps = [&self.query, &self.key, &self.value, &self.output, &self.gate, &self.up, &self.down];
        let mut norms = [&self.norm1, &self.norm2].into_iter().chain(self.head_norms.iter().flatten());
        norms.any(|p| p.trainable()) || maps.iter().any(|m| m.is_trainable())
    }
}

/// Every weight of the decoder with its shape, in the order of the computation, under its published name.
pub fn parameter_shapes(text: &TextConfig, tied: bool) -> Vec<(String, Vec<usize>)> {
    let mut out: Vec<(String, Vec<usize>)> = Vec::new();
    let mut add = |name: String, shape: &[usize]| out.push((name, shape.to_vec()));
    let (hidden, inner) = (text.hidden_size, text.intermediate_size);
    let queries = text.num_attention_heads * text.head_dim;
    let keys = text.num_key_value_heads * text.head_dim;
    add("model.embed_tokens.weight".into(), &[text.vocab_size, hidden]);
    for i in 0..text.num_hidden_layers {
        let layer = format!("model.layers.{i}");
        add(format!("{layer}.input_layernorm.weight"), &[hidden]);
        for (name, rows) in [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)] {
            add(format!("{layer}.self_attn.{name}.weight"), &[rows, hidden]);
            if text.qkv_bias {
                add(format!("{layer}.self_attn.{name}.bias"), &[rows]);
            }
        }
        if text.qk_norm {
            add(format!("{layer}.self_attn.q_norm.weight"), &[text.head_dim]);
            add(format!("{layer}.self_attn.k_norm.weight"), &[text.head_dim]);
        }
        add(format!("{layer}.self_attn.o_proj.weight"), &[hidden, queries]);
        add(format!("{layer}.post_attention_layernorm.weight"), &[hidden]);
        add(format!("{layer}.mlp.gate_proj.weight"), &[inner, hidden]);
        add(format!("{layer}.mlp.up_proj.weight"), &[inner, hidden]);
        add(format!("{layer}.mlp.down_proj.weight"), &[hidden, inner]);
    }
    add("model.norm.weight".into(), &[hidden]);
    if !tied {
        add("lm_head.weight".into(), &[text.vocab_size, hidden]);
    }
    out
}

/// The part of the model that a weight of the decoder belongs to.
pub fn part(parameter: &str) -> Part {
    if parameter.starts_with("model.embed_tokens.") {
        Part::Embeddings
    } else if parameter.starts_with("lm_head.") {
        Part::Head
    } else {
        Part::Decoder
    }
}
