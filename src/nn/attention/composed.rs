//! The same attention as a composition of candle ops, for devices without the fused kernel.

use super::{Heads, Tree};
use crate::Result;
use crate::nn::{Tape, Value};
use candle_core::{D, DType, Device, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Spans of equal shape as one batch: (query rows, rows seen before them, causal) -> (first query row, rows seen before it).
type Shapes = BTreeMap<(usize, usize, bool), Vec<(usize, Vec<u32>)>>;

/// [`super::attention`] in candle ops: spans of equal shape as one batch.
pub fn composed(tape: &Tape, qkv: &Value, trees: &Arc<Vec<Tree>>, heads: Heads) -> Result<Value> {
    let mut shapes = Shapes::new();
    for tree in trees.iter() {
        for span in &tree.spans {
            let before: Vec<u32> = tree.shared.clone().chain(span.prefix.clone()).map(|row| row as u32).collect();
            let starts = shapes.entry((span.rows.len(), before.len(), span.causal)).or_default();
            starts.push((span.rows.start, before));
        }
    }
    tape.compose(&[qkv], &[], move |xs, _| compose_shapes(&xs[0], &shapes, heads))
}

fn compose_shapes(qkv: &Tensor, shapes: &Shapes, heads: Heads) -> candle_core::Result<Tensor> {
    let (rows, _) = qkv.dims2()?;
    let device = qkv.device();
    let part = |first: usize, count: usize| -> candle_core::Result<Tensor> {
        qkv.narrow(1, first, count * heads.dim)?.contiguous()?.reshape((rows, count, heads.dim))
    };
    let grouped = |t: Tensor| -> candle_core::Result<Tensor> {
        let shape = (rows, heads.key_value, heads.group(), heads.dim);
        t.unsqueeze(2)?.broadcast_as(shape)?.contiguous()?.reshape((rows, heads.query, heads.dim))
    };
    let query = part(0, heads.query)?;
    let key = grouped(part(heads.key_at(0), heads.key_value)?)?;
    let value = grouped(part(heads.value_at(0), heads.key_value)?)?;
    let select = |t: &Tensor, index: &[u32], batch: usize| -> candle_core::Result<Tensor> {
        let index_tensor = Tensor::from_slice(index, index.len(), device)?;
        let shape = (batch, index.len() / batch, heads.query, heads.dim);
        t.index_select(&index_tensor, 0)?.reshape(shape)?.transpose(1, 2)?.contiguous()
    };
    let mut outputs = Vec::new();
    let mut order = Vec::new();
    for (&(len, prefix, causal), starts) in shapes {
        let run = |first: usize, count: usize| first as u32..(first + count) as u32;
        let own: Vec<u32> = starts.iter().flat_map(|(row, _)| run(*row, len)).collect();
        let seen: Vec<u32> =
            starts.iter().flat_map(|(row, before)| before.iter().copied().chain(run(*row, len))).collect();
        let (q, k, v) = (
            select(&query, &own, starts.len())?,
            select(&key, &seen, starts.len())?,
            select(&value, &seen, starts.len())?,
        );
        let mut scores = (q.matmul(&k.t()?.contiguous()?)? / (heads.dim as f64).sqrt())?;
        if causal {
            let mask: Vec<f32> = (0..len)
                .flat_map(|i| (0..prefix + len).map(move |j| if j > prefix + i { -1e30 } else { 0.0 }))
                .collect();
            let mask = Tensor::from_vec(mask, (1, 1, len, prefix + len), device)?.to_dtype(scores.dtype())?;
            scores = scores.broadcast_add(&mask)?;
        }
        // The composed softmax: it has a backward, `softmax_last_dim` has none.
        let p = candle_nn::ops::softmax(&scores, D::Minus1)?;
        let out = p.matmul(&v)?.transpose(1, 2)?.contiguous()?;
        outputs.push(out.reshape((own.len(), heads.query * heads.dim))?);
        order.extend(own);
    }
    let mut inverse = vec![0u32; rows];
    for (at, row) in order.iter().enumerate() {
        inverse[*row as usize] = at as u32;
    }
    let inverse = Tensor::from_vec(inverse, rows, &Device::Cpu)?.to_device(device)?.to_dtype(DType::U32)?;
    Tensor::cat(&outputs, 0)?.index_select(&inverse, 0)
}
