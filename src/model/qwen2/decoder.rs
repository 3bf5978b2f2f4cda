//! A layer of Qwen2's decoder: grouped-query attention with biases on queries, keys and values, and a SwiGLU MLP.

use super::config::TextConfig;
use crate::Result;
use crate::model::decoder::{Decoder, DecoderLayer, Rotary, keep_rows};
use crate::model::weights::NamedWeights;
use crate::nn::{Heads, Linear, Parameter, RopeTable, Tape, Value, linear, rms_norm, rope, swiglu};
use std::sync::Arc;

struct Layer {
    norm1: Arc<Parameter>,
    query: Linear,
    key: Linear,
    value: Linear,
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
                query: weights.linear(&name("self_attn.q_proj"), true)?,
                key: weights.linear(&name("self_attn.k_proj"), true)?,
                value: weights.linear(&name("self_attn.v_proj"), true)?,
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
        let qkv = linear(tape, &h, &[&self.query, &self.key, &self.value], None)?;
        let a = attend(&rope(tape, qkv, rotations, self.heads)?)?;
        let (a, mut x) = keep_rows(tape, wanted, a, x)?;
        x = linear(tape, &a, &[&self.output], Some(&x))?;
        let h = rms_norm(tape, &x, &self.norm2, self.eps)?;
        let h = swiglu(tape, &linear(tape, &h, &[&self.gate, &self.up], None)?)?;
        linear(tape, &h, &[&self.down], Some(&x))
    }

    fn is_trainable(&self) -> bool {
        let maps = [&self.query, &self.key, &self.value, &self.output, &self.gate, &self.up, &self.down];
        [&self.norm1, &self.norm2].iter().any(|p| p.trainable()) || maps.iter().any(|m| m.is_trainable())
    }
}
