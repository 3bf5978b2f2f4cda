//! Gathering rows: token embeddings with image features spliced in, and the rows that feed the output head.

use crate::Result;
use crate::nn::slice::{from_vec, mutate, read};
use crate::nn::weight_matrix::WeightMatrix;
use crate::nn::{Parameter, Tape, Value};
use candle_core::{DType, Tensor};
use std::sync::Arc;

/// Where a row of the decoder's input comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RowSource {
    /// Row of the embedding table.
    Token(u32),
    /// Row of the image features.
    Image(u32),
}

/// Rows from the embedding `table` `[vocab, width]` and from `images` `[n, width]`, in the order of `sources`.
pub fn embed(tape: &Tape, table: &Arc<Parameter>, images: Option<&Value>, sources: Vec<RowSource>) -> Result<Value> {
    let (_, width) = table.var.dims2()?;
    let rows = sources.len();
    if !tape.is_fused_weight(table) {
        let tokens: Vec<u32> = sources
            .iter()
            .filter_map(|s| match s {
                RowSource::Token(id) => Some(*id),
                RowSource::Image(_) => None,
            })
            .collect();
        // Position of each row in the concatenation of token rows and image rows.
        let mut token = 0..;
        let index: Vec<u32> = sources
            .iter()
            .map(|s| match s {
                RowSource::Token(_) => token.next().unwrap_or_default(),
                RowSource::Image(row) => tokens.len() as u32 + row,
            })
            .collect();
        return reference(tape, table, images, tokens, index);
    }
    let mut y = Vec::with_capacity(rows * width);
    {
        let table = WeightMatrix::of(table, width)?;
        let images = images.map(|v| read(&v.tensor)).transpose()?;
        for source in &sources {
            match (source, &images) {
                (RowSource::Token(id), _) => table.append_row(*id as usize, &mut y),
                (RowSource::Image(row), Some(images)) => {
                    y.extend_from_slice(&images[*row as usize * width..(*row as usize + 1) * width]);
                }
                (RowSource::Image(_), None) => {
                    return Err(crate::Error::failed("a row of image features is needed, but there are no images"));
                }
            }
        }
    }
    let image_node = images.and_then(Value::node);
    let image_shape = images.map(|v| v.tensor.dims().to_vec());
    let table = Arc::clone(table);
    let requires_grad = table.trainable() || image_node.is_some();
    Ok(tape.record(from_vec(y, (rows, width))?, requires_grad, move |grad, grads| {
        let g = read(&grad)?;
        if table.trainable() {
            grads.accumulate(&table, |dw, filled| {
                if !filled {
                    dw.fill(0.0);
                }
                for (source, g) in sources.iter().zip(g.chunks_exact(width)) {
                    if let RowSource::Token(id) = source {
                        add_row(dw, *id as usize, g);
                    }
                }
            })?;
        }
        if let (Some(_), Some(shape)) = (image_node, image_shape) {
            let mut d_images = vec![0.0; shape.iter().product()];
            for (source, g) in sources.iter().zip(g.chunks_exact(width)) {
                if let RowSource::Image(row) = source {
                    add_row(&mut d_images, *row as usize, g);
                }
            }
            grads.add(image_node, from_vec(d_images, shape)?)?;
        }
        Ok(())
    }))
}

/// [`embed`] in candle ops: rows `tokens` of the table, then all of `images`, in the order of `index`. Gradients have the type of the
/// activations, whatever that of the table.
fn reference(
    tape: &Tape,
    table: &Arc<Parameter>,
    images: Option<&Value>,
    tokens: Vec<u32>,
    index: Vec<u32>,
) -> Result<Value> {
    let on = table.compute_var().as_detached_tensor();
    let device = on.device();
    let (count, rows, width) = (tokens.len(), index.len(), on.dim(1)?);
    let tokens = Tensor::from_vec(tokens, count, device)?;
    let index = Tensor::from_vec(index, rows, device)?;
    let found = on.index_select(&tokens, 0)?;
    let found = if found.dtype() == DType::BF16 { found.to_dtype(DType::F32)? } else { found };
    let all = match images {
        Some(images) => Tensor::cat(&[&found, &images.tensor.detach()], 0)?,
        None => found,
    };
    let y = all.index_select(&index, 0)?;
    let (total, node, table) = (all.dim(0)?, images.and_then(Value::node), Arc::clone(table));
    Ok(tape.record(y, table.trainable() || node.is_some(), move |grad, grads| {
        let grad = grad.detach();
        let zeros = |rows: usize| Tensor::zeros((rows, width), grad.dtype(), grad.device());
        let d_all = zeros(total)?.index_add(&index, &grad, 0)?;
        if table.trainable() {
            let of_tokens = d_all.narrow(0, 0, count)?.contiguous()?;
            grads.add_to_parameter(&table, zeros(table.var.dim(0)?)?.index_add(&tokens, &of_tokens, 0)?)?;
        }
        match node {
            Some(_) => grads.add(node, d_all.narrow(0, count, total - count)?.contiguous()?),
            None => Ok(()),
        }
    }))
}

/// Rows `index` of `x` `[n, width]`; an index may occur more than once.
pub fn gather_rows(tape: &Tape, x: &Value, index: Vec<u32>) -> Result<Value> {
    let (n, width) = x.tensor.dims2()?;
    let rows = index.len();
    if !tape.is_fused(&x.tensor) {
        return tape.candle_op(x, move |x| x.index_select(&Tensor::from_slice(&index, rows, x.device())?, 0));
    }
    let mut y = Vec::with_capacity(rows * width);
    {
        let x = read(&x.tensor)?;
        for row in &index {
            y.extend_from_slice(&x[*row as usize * width..(*row as usize + 1) * width]);
        }
    }
    let node = x.node();
    Ok(tape.record(from_vec(y, (rows, width))?, x.requires_grad(), move |grad, grads| {
        let dx = match grads.take(node) {
            Some(sum) => sum,
            None => from_vec(vec![0.0; n * width], (n, width))?,
        };
        let g = read(&grad)?;
        mutate(&dx, |dx| {
            for (row, g) in index.iter().zip(g.chunks_exact(width)) {
                add_row(dx, *row as usize, g);
            }
        })?;
        grads.set(node, dx);
        Ok(())
    }))
}

/// Every `group` rows of `x` `[rows, width]` as one row: `[rows / group, group * width]`. A reshape, no copy.
pub fn merge_rows(tape: &Tape, x: &Value, group: usize) -> Result<Value> {
    let (rows, width) = x.tensor.dims2()?;
    let node = x.node();
    let y = x.tensor.reshape((rows / group, group * width))?;
    Ok(tape.record(y, x.requires_grad(), move |grad, grads| grads.add(node, grad.reshape((rows, width))?)))
}

fn add_row(sum: &mut [f32], row: usize, g: &[f32]) {
    for (s, g) in sum[row * g.len()..(row + 1) * g.len()].iter_mut().zip(g) {
        *s += g;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::gradcheck;

    #[test]
    fn embedding_with_images_agrees_with_finite_differences() {
        use RowSource::{Image, Token};
        let sources = vec![Token(3), Image(1), Image(0), Token(3), Token(0), Image(1)];
        gradcheck::check(&[&[2, 4], &[5, 4]], 1, |tape, v, p| embed(tape, &p[0], Some(&v[0]), sources.clone()));
    }

    #[test]
    fn embedding_of_text_alone_agrees_with_finite_differences() {
        let sources = vec![RowSource::Token(1), RowSource::Token(1)];
        gradcheck::check(&[&[3, 4]], 0, |tape, _, p| embed(tape, &p[0], None, sources.clone()));
    }

    #[test]
    fn regrouping_rows_agrees_with_finite_differences() {
        gradcheck::check(&[&[6, 3]], 1, |tape, v, _| merge_rows(tape, &v[0], 2));
    }

    #[test]
    fn selecting_rows_agrees_with_finite_differences() {
        gradcheck::check(&[&[5, 3]], 1, |tape, v, _| gather_rows(tape, &v[0], vec![4, 0, 4]));
    }
}
