//! The output head on devices without fused kernels: logits in candle ops, some of the vocabulary at a time.
//!
//! What is kept for the backward pass is a number or two a row; the logits of each tile are formed again there, and the gradient is
//! written out, so that neither `[tokens, vocab]` nor a graph over it ever exists.

use crate::Result;
use crate::nn::linear::{Factors, matrix};
use crate::nn::tape::Grads;
use crate::nn::{Parameter, Value};
use candle_core::Tensor;
use std::ops::Range;
use std::sync::Arc;

/// Logits of a tile, if the vocabulary has them.
pub const TILE_LOGITS: usize = 1 << 25;
/// Entries of the vocabulary that a tile has at least: fewer make slow products.
const NARROWEST: usize = 1024;

/// Logits `x W^T * scale`, of which only a tile exists at a time.
pub struct TiledLogits {
    x: Tensor,
    node: Option<usize>,
    weight: Arc<Parameter>,
    scale: f64,
    tile: usize,
}

/// Entries of a tile for so many rows.
pub fn tile_width(rows: usize, vocab: usize) -> usize {
    let tile = (TILE_LOGITS / rows.max(1)).max(NARROWEST) / 128 * 128;
    tile.min(vocab).max(1)
}

impl TiledLogits {
    /// Of `x` `[rows, width]` and `weight` `[vocab, width]`, `tile` entries of the vocabulary at a time.
    pub fn new(x: &Value, weight: &Arc<Parameter>, scale: f64, tile: usize) -> TiledLogits {
        TiledLogits { x: x.tensor.detach(), node: x.node(), weight: Arc::clone(weight), scale, tile: tile.max(1) }
    }

    fn vocab(&self) -> usize {
        self.weight.var.dims()[0]
    }

    /// The vocabulary in tiles.
    pub fn tiles(&self) -> impl Iterator<Item = Range<usize>> {
        let (vocab, tile) = (self.vocab(), self.tile);
        (0..vocab).step_by(tile).map(move |first| first..vocab.min(first + tile))
    }

    /// The logits of a tile, `[rows, tile]`. They are not rounded to bf16, whatever the weight is multiplied in: probabilities near 1 would
    /// be lost.
    pub fn of(&self, tile: &Range<usize>) -> Result<Tensor> {
        let logits = Factors::Wide.product(&self.x, &self.rows_of(tile)?.t()?)?;
        Ok(if self.scale == 1.0 { logits } else { (logits * self.scale)? })
    }

    fn rows_of(&self, tile: &Range<usize>) -> Result<Tensor> {
        Ok(matrix(&self.weight, self.x.dim(1)?)?.narrow(0, tile.start, tile.len())?)
    }

    /// Whether anything takes a gradient.
    pub fn wanted(&self) -> bool {
        self.node.is_some() || self.weight.trainable()
    }

    /// Add the gradients of `x` and of the weight, where `gradient` gives that of a tile's logits.
    pub fn backward(
        &self,
        grads: &mut Grads<'_>,
        mut gradient: impl FnMut(&Range<usize>, Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        let factors = Factors::of(&self.weight);
        let trains = self.weight.trainable();
        let dw = trains.then(|| Tensor::zeros(self.weight.var.shape(), self.x.dtype(), self.x.device())).transpose()?;
        let mut dx: Option<Tensor> = None;
        for tile in self.tiles() {
            let d_logits = gradient(&tile, self.of(&tile)?)?;
            let d_logits = if self.scale == 1.0 { d_logits } else { (d_logits * self.scale)? };
            if self.node.is_some() {
                let part = factors.product(&d_logits, &self.rows_of(&tile)?)?;
                dx = Some(match dx {
                    Some(sum) => (sum + part)?,
                    None => part,
                });
            }
            if let Some(dw) = &dw {
                dw.slice_set(&factors.outer(&d_logits, &self.x)?.contiguous()?, 0, tile.start)?;
            }
        }
        if let Some(dw) = dw {
            grads.add_to(&self.weight, dw)?;
        }
        dx.map_or(Ok(()), |dx| grads.add(self.node, dx))
    }
}

/// Running log-sum-exp of rows of logits, and the mean of something else under their softmax. All are `[rows, 1]`.
pub struct Running {
    top: Tensor,
    total: Tensor,
    weighted: Tensor,
}

impl Running {
    /// Take in a tile of `logits` and what is to be averaged with them, `[rows, tile]` both.
    pub fn observe(before: Option<Running>, logits: &Tensor, values: &Tensor) -> Result<Running> {
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
        Ok(Running { top, total, weighted })
    }

    /// `log sum exp` of the logits.
    pub fn log_sum_exp(&self) -> Result<Tensor> {
        Ok((&self.top + self.total.log()?)?)
    }

    /// `log softmax` at the logit `target`: not `target - log_sum_exp`, which near probability 1 would lose all but the last digits.
    pub fn log_probability(&self, target: &Tensor) -> Result<Tensor> {
        Ok(((target - &self.top)? - self.total.log()?)?)
    }

    /// The mean.
    pub fn mean(&self) -> Result<Tensor> {
        Ok((&self.weighted / &self.total)?)
    }
}
