//! The blocks of a plain vision transformer, as Qwen2-VL and Qwen3-VL have them: LayerNorms, attention over whole images, an MLP with a
//! form of GELU; and the merger, which turns a square of patches into a token.

use super::vision_fields::VISION_NORM_EPS;
use crate::Result;
use crate::model::weights::named::NamedWeights;
use crate::nn::{
    Gelu, Heads, LayerNorm, Linear, RopeTable, SpanGroup, Tape, Value, attention, gelu, layer_norm, linear, merge_rows,
    rope,
};
use std::sync::Arc;

/// Shapes of weights under their names.
pub type Shapes = Vec<(String, Vec<usize>)>;

/// Names of the two maps of the MLP.
pub type MlpNames = [&'static str; 2];

/// A block.
pub struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    up: Linear,
    down: Linear,
    activation: Gelu,
    heads: Heads,
}

impl Block {
    /// Take the weights of block `name`, whose MLP has these names.
    pub fn new(name: &str, mlp: MlpNames, activation: Gelu, heads: Heads, weights: &mut NamedWeights) -> Result<Self> {
        Ok(Block {
            norm1: weights.layer_norm(&format!("{name}.norm1"))?,
            qkv: weights.linear(&format!("{name}.attn.qkv"), true)?,
            proj: weights.linear(&format!("{name}.attn.proj"), true)?,
            norm2: weights.layer_norm(&format!("{name}.norm2"))?,
            up: weights.linear(&format!("{name}.mlp.{}", mlp[0]), true)?,
            down: weights.linear(&format!("{name}.mlp.{}", mlp[1]), true)?,
            activation,
            heads,
        })
    }

    /// The shapes of block `name`, of this width outside and inside the MLP.
    pub fn shapes(name: &str, mlp: MlpNames, [width, inner]: [usize; 2], out: &mut Shapes) {
        norm_shapes(&format!("{name}.norm1"), width, out);
        linear_shapes(&format!("{name}.attn.qkv"), [3 * width, width], out);
        linear_shapes(&format!("{name}.attn.proj"), [width, width], out);
        norm_shapes(&format!("{name}.norm2"), width, out);
        linear_shapes(&format!("{name}.mlp.{}", mlp[0]), [inner, width], out);
        linear_shapes(&format!("{name}.mlp.{}", mlp[1]), [width, inner], out);
    }

    /// The residual stream `[patches, width]` after the block; rows of a span see each other. With `recompute`, only the block's input is kept
    /// for the backward pass.
    pub fn forward(
        self: &Arc<Self>,
        tape: &Tape,
        x: Value,
        table: &Arc<RopeTable>,
        spans: &Arc<Vec<SpanGroup>>,
        recompute: bool,
    ) -> Result<Value> {
        if !recompute {
            return self.compute(tape, x, table, spans);
        }
        let (block, table, spans) = (Arc::clone(self), Arc::clone(table), Arc::clone(spans));
        tape.gradient_checkpoint(&x, self.is_trainable(), move |tape, x| block.compute(tape, x, &table, &spans))
    }

    fn compute(&self, tape: &Tape, mut x: Value, table: &Arc<RopeTable>, spans: &Arc<Vec<SpanGroup>>) -> Result<Value> {
        let h = layer_norm(tape, &x, &self.norm1, VISION_NORM_EPS)?;
        let qkv = rope(tape, linear(tape, &h, &[&self.qkv], None)?, table, self.heads)?;
        let a = attention(tape, &qkv, spans, self.heads)?;
        x = linear(tape, &a, &[&self.proj], Some(&x))?;
        let h = layer_norm(tape, &x, &self.norm2, VISION_NORM_EPS)?;
        let h = gelu(tape, &linear(tape, &h, &[&self.up], None)?, self.activation)?;
        linear(tape, &h, &[&self.down], Some(&x))
    }

    fn is_trainable(&self) -> bool {
        let maps = [&self.qkv, &self.proj, &self.up, &self.down];
        [&self.norm1, &self.norm2].iter().any(|n| n.is_trainable()) || maps.iter().any(|m| m.is_trainable())
    }
}

/// A merger: LayerNorm, and two maps with GELU between them over the patches of a token.
pub struct Merger {
    norm: LayerNorm,
    inner: Linear,
    outer: Linear,
    merged: usize,
    /// The norm is over the patches of a token together, not over each.
    norm_merged: bool,
}

impl Merger {
    /// Take the weights of the norm and the maps with these names; `merged` patches become one token.
    pub fn new(names: [&str; 3], merged: usize, norm_merged: bool, weights: &mut NamedWeights) -> Result<Self> {
        let [norm, inner, outer] = names;
        Ok(Merger {
            norm: weights.layer_norm(norm)?,
            inner: weights.linear(inner, true)?,
            outer: weights.linear(outer, true)?,
            merged,
            norm_merged,
        })
    }

    /// The shapes of a merger of patches of `width` to tokens of width `out_width`.
    pub fn shapes(names: [&str; 3], [width, merged, out_width]: [usize; 3], norm_merged: bool, out: &mut Shapes) {
        let [norm, inner, outer] = names;
        let both = width * merged;
        norm_shapes(norm, if norm_merged { both } else { width }, out);
        linear_shapes(inner, [both, both], out);
        linear_shapes(outer, [out_width, both], out);
    }

    /// `[patches, width]` to `[tokens, out width]`.
    pub fn forward(&self, tape: &Tape, x: &Value) -> Result<Value> {
        let h = match self.norm_merged {
            true => layer_norm(tape, &merge_rows(tape, x, self.merged)?, &self.norm, VISION_NORM_EPS)?,
            false => merge_rows(tape, &layer_norm(tape, x, &self.norm, VISION_NORM_EPS)?, self.merged)?,
        };
        let h = gelu(tape, &linear(tape, &h, &[&self.inner], None)?, Gelu::Exact)?;
        linear(tape, &h, &[&self.outer], None)
    }
}

fn norm_shapes(name: &str, width: usize, out: &mut Shapes) {
    out.extend(["weight", "bias"].map(|part| (format!("{name}.{part}"), vec![width])));
}

fn linear_shapes(name: &str, [rows, columns]: [usize; 2], out: &mut Shapes) {
    out.push((format!("{name}.weight"), vec![rows, columns]));
    out.push((format!("{name}.bias"), vec![rows]));
}
