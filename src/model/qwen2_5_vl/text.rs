//! The decoder: Qwen2 with grouped-query attention and multimodal rotary positions.

use super::config::TextConfig;
use super::weights::Weights;
use crate::Result;
use crate::nn::{
    Heads, Linear, Parameter, RopeTable, SpanGroup, Tape, Value, attention, gather_rows, linear, rms_norm, rope, swiglu,
};
use candle_core::Tensor;
use std::sync::Arc;

/// The decoder's weights.
pub struct Decoder {
    pub(super) config: TextConfig,
    /// Token embeddings `[vocab, hidden]`.
    pub embedding: Arc<Parameter>,
    pub(super) layers: Vec<Arc<Layer>>,
    pub(super) norm: Arc<Parameter>,
    /// Output head `[vocab, hidden]`; the same as `embedding` when tied.
    pub head: Arc<Parameter>,
}

pub(super) struct Layer {
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
}

impl Decoder {
    /// Take the decoder's weights.
    pub fn new(config: &TextConfig, tied: bool, weights: &mut Weights) -> Result<Self> {
        let layers = (0..config.num_hidden_layers)
            .map(|i| {
                let name = |part: &str| format!("model.layers.{i}.{part}");
                Ok(Arc::new(Layer {
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
                }))
            })
            .collect::<Result<_>>()?;
        let embedding = weights.take("model.embed_tokens.weight")?;
        let head = if tied { Arc::clone(&embedding) } else { weights.take("lm_head.weight")? };
        Ok(Decoder { config: config.clone(), embedding, layers, norm: weights.take("model.norm.weight")?, head })
    }

    /// Head counts of a layer.
    pub fn heads(&self) -> Heads {
        let c = &self.config;
        Heads { query: c.num_attention_heads, key_value: c.num_key_value_heads, dim: c.head_dim }
    }

    /// Rotations for the given positions.
    pub fn rotations(&self, positions: [&[u32]; 3]) -> Arc<RopeTable> {
        let c = &self.config;
        Arc::new(RopeTable::multimodal(positions, c.head_dim, c.rope_theta, &c.mrope_section))
    }

    /// Hidden states before the final norm, `[rows, hidden]`, of all rows or of the `wanted` ones. `attend` maps a layer's
    /// index and its rotated `qkv` to the attention's result. What the last layer does after attention is done for the wanted
    /// rows only: nothing else sees the others.
    pub fn layers(
        &self,
        tape: &Tape,
        mut x: Value,
        table: &Arc<RopeTable>,
        wanted: Option<Vec<u32>>,
        mut attend: impl FnMut(usize, &Value) -> Result<Value>,
    ) -> Result<Value> {
        for (i, layer) in self.layers.iter().enumerate() {
            let wanted = wanted.as_deref().filter(|_| i + 1 == self.layers.len());
            x = layer.forward(tape, x, table, self.heads(), wanted, |qkv| attend(i, qkv))?;
        }
        Ok(x)
    }

    /// [`Decoder::layers`] with attention over `span groups`; `keep` sees each layer's rotated `qkv`.
    pub fn forward(
        &self,
        tape: &Tape,
        x: Value,
        table: &Arc<RopeTable>,
        span_groups: &Arc<Vec<SpanGroup>>,
        wanted: Option<Vec<u32>>,
        mut keep: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<Value> {
        self.layers(tape, x, table, wanted, |i, qkv| {
            keep(i, &qkv.tensor)?;
            attention(tape, qkv, span_groups, self.heads())
        })
    }

    /// As [`Decoder::forward`], keeping only the input of each layer: the backward pass computes the layer again.
    pub fn forward_checkpointed(
        &self,
        tape: &Tape,
        mut x: Value,
        table: &Arc<RopeTable>,
        span_groups: &Arc<Vec<SpanGroup>>,
        wanted: Option<Vec<u32>>,
    ) -> Result<Value> {
        let heads = self.heads();
        for (i, layer) in self.layers.iter().enumerate() {
            let wanted = wanted.clone().filter(|_| i + 1 == self.layers.len());
            let (layer, table, span_groups) = (Arc::clone(layer), Arc::clone(table), Arc::clone(span_groups));
            x = tape.gradient_checkpoint(&x, layer.is_trainable(), move |tape, x| {
                let attend = |qkv: &Value| attention(tape, qkv, &span_groups, heads);
                layer.forward(tape, x, &table, heads, wanted.as_deref(), attend)
            })?;
        }
        Ok(x)
    }

    /// The final norm.
    pub fn finish(&self, tape: &Tape, x: &Value) -> Result<Value> {
        rms_norm(tape, x, &self.norm, self.config.rms_norm_eps)
    }
}

impl Layer {
    fn forward(
        &self,
        tape: &Tape,
        mut x: Value,
        table: &Arc<RopeTable>,
        heads: Heads,
        wanted: Option<&[u32]>,
        attend: impl FnOnce(&Value) -> Result<Value>,
    ) -> Result<Value> {
        let h = rms_norm(tape, &x, &self.norm1, self.eps)?;
        let qkv = linear(tape, &h, &[&self.query, &self.key, &self.value], None)?;
        let mut a = attend(&rope(tape, qkv, table, heads)?)?;
        if let Some(wanted) = wanted {
            a = gather_rows(tape, &a, wanted.to_vec())?;
            x = gather_rows(tape, &x, wanted.to_vec())?;
        }
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
