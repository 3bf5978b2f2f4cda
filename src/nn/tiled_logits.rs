//! The output head on devices without fused kernels: logits in candle ops, one tile of the vocabulary at a time.
//!
//! The forward pass saves one or two numbers per row. The backward pass recomputes the logits of each tile and has its gradient
//! written out, so that neither `[tokens, vocab]` nor an autograd graph over it ever exists.

use crate::Result;
use crate::nn::linear::{MatmulDtype, matrix};
use crate::nn::tape::Grads;
use crate::nn::{Parameter, Value};
use candle_core::Tensor;
use std::ops::Range;
use std::sync::Arc;

/// Logits of a tile, at most.
pub const MAX_TILE_LOGITS: usize = 1 << 25;
/// Vocabulary entries of a tile, at least (unless the vocabulary is smaller): narrower products are slow.
const MIN_TILE_WIDTH: usize = 1024;

/// Logits `x W^T * scale`, computed one tile at a time.
pub struct TiledLogits {
    x: Tensor,
    node: Option<usize>,
    weight: Arc<Parameter>,
    scale: f64,
    tile: usize,
}

/// Vocabulary entries of a tile for `rows` rows.
pub fn tile_width(rows: usize, vocab: usize) -> usize {
    let tile = (MAX_TILE_LOGITS / rows.max(1)).max(MIN_TILE_WIDTH) / 128 * 128;
    tile.min(vocab).max(1)
}

impl TiledLogits {
    /// Logits of `x` `[rows, width]` and `weight` `[vocab, width]`, `tile` entries of the vocabulary at a time.
    pub fn new(x: &Value, weight: &Arc<Parameter>, scale: f64, tile: usize) -> TiledLogits {
        TiledLogits { x: x.tensor.detach(), node: x.node(), weight: Arc::clone(weight), scale, tile: tile.max(1) }
    }

    fn vocab(&self) -> usize {
        self.weight.var.dims()[0]
    }

    /// The ranges of the vocabulary, tile by tile.
    pub fn tiles(&self) -> impl Iterator<Item = Range<usize>> {
        let (vocab, tile) = (self.vocab(), self.tile);
        (0..vocab).step_by(tile).map(move |first| first..vocab.min(first + tile))
    }

    /// The logits of a tile, `[rows, tile]`, never rounded to bf16, whatever the weight's precision: probabilities near 1 would lose
    /// their digits.
    pub fn tile_logits(&self, tile: &Range<usize>) -> Result<Tensor> {
        let logits = MatmulDtype::Activations.product(&self.x, &self.weight_rows(tile)?.t()?)?;
        Ok(if self.scale == 1.0 { logits } else { (logits * self.scale)? })
    }

    fn weight_rows(&self, tile: &Range<usize>) -> Result<Tensor> {
        Ok(matrix(&self.weight, self.x.dim(1)?)?.narrow(0, tile.start, tile.len())?)
    }

    /// Whether `x` or the weight requires a gradient.
    pub fn requires_grad(&self) -> bool {
        self.node.is_some() || self.weight.trainable()
    }

    /// Add the gradients of `x` and of the weight; `gradient` maps the logits of a tile to their gradient.
    pub fn backward(
        &self,
        grads: &mut Grads<'_>,
        mut gradient: impl FnMut(&Range<usize>, Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        let precision = MatmulDtype::of(&self.weight);
        let trains = self.weight.trainable();
        let dw = trains.then(|| Tensor::zeros(self.weight.var.shape(), self.x.dtype(), self.x.device())).transpose()?;
        let mut dx: Option<Tensor> = None;
        for tile in self.tiles() {
            let d_logits = gradient(&tile, self.tile_logits(&tile)?)?;
            let d_logits = if self.scale == 1.0 { d_logits } else { (d_logits * self.scale)? };
            if self.node.is_some() {
                let part = precision.product(&d_logits, &self.weight_rows(&tile)?)?;
                dx = Some(match dx {
                    Some(sum) => (sum + part)?,
                    None => part,
                });
            }
            if let Some(dw) = &dw {
                dw.slice_set(&precision.weight_grad(&d_logits, &self.x)?.contiguous()?, 0, tile.start)?;
            }
        }
        if let Some(dw) = dw {
            grads.add_to_parameter(&self.weight, dw)?;
        }
        dx.map_or(Ok(()), |dx| grads.add(self.node, dx))
    }
}

/// Online log-sum-exp of rows of logits, and the mean of other values under their softmax. All tensors are `[rows, 1]`.
pub struct OnlineSoftmax {
    top: Tensor,
    total: Tensor,
    weighted: Tensor,
}

impl OnlineSoftmax {
    /// Add a tile of `logits` and the `values` to average, both `[rows, tile]`.
    pub fn observe(before: Option<OnlineSoftmax>, logits: &Tensor, values: &Tensor) -> Result<OnlineSoftmax> {
        let top = logits.max_keepdim(1)?;
        let top = match &before {
            Some(before) => before.top.maximum(&top)?,
            None => top,
        };
        let weights = logits.broadcast_sub(&top)?.exp()?;
        let mut total = weights.sum_keepdim(1)?;
        let mut weighted = (weights * values)?.sum_keepdim(1)?;
        if let Some(before) = before {
            let keep = (&before.top - &top)?.exp()?;
            total = (total + (before.total * &keep)?)?;
            weighted = (weighted + (before.weighted * keep)?)?;
        }
        Ok(OnlineSoftmax { top, total, weighted })
    }

    /// `log sum exp` of the logits.
    pub fn log_sum_exp(&self) -> Result<Tensor> {
        Ok((&self.top + self.total.log()?)?)
    }

    /// `log softmax` at the logit `target`. Not computed as `target - log_sum_exp`, which cancels near probability 1.
    pub fn log_probability(&self, target: &Tensor) -> Result<Tensor> {
        Ok(((target - &self.top)? - self.total.log()?)?)
    }

    /// Mean of the values under the softmax.
    pub fn mean(&self) -> Result<Tensor> {
        Ok((&self.weighted / &self.total)?)
    }
}
