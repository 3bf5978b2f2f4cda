//! The decoder that every family shares: embeddings, layers, final norm, output head. A family supplies the layers.

use super::shapes::DecoderShape;
use super::weights::named::NamedWeights;
use crate::Result;
use crate::nn::{
    Heads, Parameter, RopeTable, Rotary, SpanGroup, Tape, Value, add_rows, attention, gather_rows, rms_norm,
};
use candle_core::Tensor;
use std::sync::Arc;

/// A decoder's weights.
pub struct Decoder {
    /// Token embeddings `[vocab, hidden]`.
    pub embedding: Arc<Parameter>,
    layers: Vec<Arc<dyn DecoderLayer>>,
    norm: Arc<Parameter>,
    norm_eps: f64,
    /// Output head `[vocab, hidden]`; the same as `embedding` when tied.
    pub head: Arc<Parameter>,
    heads: Heads,
    rotary: Rotary,
}

/// What goes into the layers.
pub struct DecoderInput {
    /// Embedded rows `[rows, hidden]`.
    pub x: Value,
    /// Features that are added after the first layers, one for each layer (see [`super::architecture::Features`]).
    pub deep: Vec<Value>,
    /// Where they are added: (row of `x`, row of the features).
    pub places: Arc<Vec<(u32, u32)>>,
}

impl DecoderInput {
    /// Rows without such features.
    pub fn of(x: Value) -> Self {
        DecoderInput { x, deep: Vec::new(), places: Arc::default() }
    }
}

/// The rows after layer `i`, with the features of that layer.
fn with_deep(tape: &Tape, x: Value, i: usize, deep: &[Value], places: &Arc<Vec<(u32, u32)>>) -> Result<Value> {
    match deep.get(i) {
        Some(features) => add_rows(tape, &x, features, places),
        None => Ok(x),
    }
}

/// A decoder layer of a family.
pub trait DecoderLayer: Send + Sync {
    /// `[rows, hidden]` of the residual stream to the same after the layer. `attend` maps the rotated `qkv` `[rows, (q + 2 kv) dim]` to the
    /// result of attention `[rows, q dim]`. With `wanted`, what comes after attention is done for these rows only ([`keep_rows`]), and
    /// only they are returned.
    fn forward(
        &self,
        tape: &Tape,
        x: Value,
        rotations: &Arc<RopeTable>,
        wanted: Option<&[u32]>,
        attend: &mut dyn FnMut(&Value) -> Result<Value>,
    ) -> Result<Value>;

    /// Whether a weight or an adapter of the layer trains.
    fn is_trainable(&self) -> bool;
}

/// The `wanted` rows of both, or both as they are.
pub fn keep_rows(tape: &Tape, wanted: Option<&[u32]>, a: Value, b: Value) -> Result<(Value, Value)> {
    match wanted {
        Some(rows) => Ok((gather_rows(tape, &a, rows.to_vec())?, gather_rows(tape, &b, rows.to_vec())?)),
        None => Ok((a, b)),
    }
}

impl Decoder {
    /// Take the embeddings, the final norm and the head from `weights`, under the names of Hugging Face's causal language models.
    pub fn new(
        shape: &DecoderShape,
        norm_eps: f64,
        rotary: Rotary,
        layers: Vec<Arc<dyn DecoderLayer>>,
        weights: &mut NamedWeights,
    ) -> Result<Self> {
        let embedding = weights.take("model.embed_tokens.weight")?;
        let head = if shape.tied { Arc::clone(&embedding) } else { weights.take("lm_head.weight")? };
        let norm = weights.take("model.norm.weight")?;
        Ok(Decoder { embedding, layers, norm, norm_eps, head, heads: shape.attention_heads(), rotary })
    }

    /// Number of layers.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Head counts of a layer.
    pub fn heads(&self) -> Heads {
        self.heads
    }

    /// Rows of the embedding matrix and of the head.
    pub fn vocab_size(&self) -> usize {
        self.head.var.dims()[0]
    }

    /// Rotations for the given positions in time, height and width.
    pub fn rotations(&self, positions: [&[u32]; 3]) -> Arc<RopeTable> {
        Arc::new(RopeTable::multimodal(positions, &self.rotary))
    }

    /// Hidden states before the final norm, `[rows, hidden]`, of all rows or of the `wanted` ones. `attend` maps a layer's
    /// index and its rotated `qkv` to the attention's result. What the last layer does after attention is done for the wanted
    /// rows only: nothing else sees the others.
    pub fn layers(
        &self,
        tape: &Tape,
        input: DecoderInput,
        rotations: &Arc<RopeTable>,
        wanted: Option<Vec<u32>>,
        mut attend: impl FnMut(usize, &Value) -> Result<Value>,
    ) -> Result<Value> {
        let DecoderInput { mut x, deep, places } = input;
        for (i, layer) in self.layers.iter().enumerate() {
            let wanted = wanted.as_deref().filter(|_| i + 1 == self.layers.len());
            x = layer.forward(tape, x, rotations, wanted, &mut |qkv| attend(i, qkv))?;
            x = with_deep(tape, x, i, &deep, &places)?;
        }
        Ok(x)
    }

    /// [`Decoder::layers`] with attention over `span_groups`; `keep` sees each layer's rotated `qkv`.
    pub fn forward(
        &self,
        tape: &Tape,
        input: DecoderInput,
        rotations: &Arc<RopeTable>,
        span_groups: &Arc<Vec<SpanGroup>>,
        wanted: Option<Vec<u32>>,
        mut keep: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<Value> {
        self.layers(tape, input, rotations, wanted, |i, qkv| {
            keep(i, &qkv.tensor)?;
            attention(tape, qkv, span_groups, self.heads)
        })
    }

    /// As [`Decoder::forward`], keeping only the input of each layer: the backward pass computes the layer again.
    pub fn forward_checkpointed(
        &self,
        tape: &Tape,
        input: DecoderInput,
        rotations: &Arc<RopeTable>,
        span_groups: &Arc<Vec<SpanGroup>>,
        wanted: Option<Vec<u32>>,
    ) -> Result<Value> {
        let DecoderInput { mut x, deep, places } = input;
        let heads = self.heads;
        for (i, layer) in self.layers.iter().enumerate() {
            let wanted = wanted.clone().filter(|_| i + 1 == self.layers.len());
            let (layer, rotations, span_groups) = (Arc::clone(layer), Arc::clone(rotations), Arc::clone(span_groups));
            x = tape.gradient_checkpoint(&x, layer.is_trainable(), move |tape, x| {
                let mut attend = |qkv: &Value| attention(tape, qkv, &span_groups, heads);
                layer.forward(tape, x, &rotations, wanted.as_deref(), &mut attend)
            })?;
            x = with_deep(tape, x, i, &deep, &places)?;
        }
        Ok(x)
    }

    /// The final norm.
    pub fn finish(&self, tape: &Tape, x: &Value) -> Result<Value> {
        rms_norm(tape, x, &self.norm, self.norm_eps)
    }
}
