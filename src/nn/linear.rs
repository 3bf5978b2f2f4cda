//! Linear layers: `y = x W^T + b (+ residual)`. Several layers of one input run as one op, each with an optional LoRA adapter.

use crate::Result;
use crate::nn::bf16_matmul::matmul_t_bf16;
use crate::nn::host::in_main_memory;
use crate::nn::lora::{self, DropoutMask, LayerShape, Lora};
use crate::nn::matmul::{Matrix, MatrixMut};
use crate::nn::slice::{from_vec, mutate, read, uninit_vec};
use crate::nn::tape::Saved;
use crate::nn::weight_matrix::{WeightMatrix, weight_grad};
use crate::nn::{Parameter, Tape, Value};
use candle_core::{DType, Tensor};
use half::bf16;
use multiversion::multiversion;
use rayon::prelude::*;
use std::sync::Arc;

/// A linear layer: weight `[out, in]`, optional bias `[out]`, optional LoRA adapter.
#[derive(Clone)]
pub struct Linear {
    /// `[out, in]`, or any shape whose first dimension is `out` and whose others multiply to `in` (a patch convolution).
    pub weight: Arc<Parameter>,
    /// `[out]`.
    pub bias: Option<Arc<Parameter>>,
    /// The adapter, added to the layer's output.
    pub lora: Option<Lora>,
}

impl Linear {
    /// A layer with neither bias nor adapter.
    pub fn without_bias(weight: Arc<Parameter>) -> Linear {
        Linear { weight, bias: None, lora: None }
    }

    fn out(&self) -> usize {
        self.weight.var.dims()[0]
    }

    /// Whether the weight, the bias or the adapter is trainable.
    pub fn is_trainable(&self) -> bool {
        self.parameters().any(|p| p.trainable())
    }

    /// Whether the backward pass needs the input.
    fn saves_input(&self) -> bool {
        self.weight.trainable() || self.lora.as_ref().is_some_and(Lora::is_trainable)
    }

    fn parameters(&self) -> impl Iterator<Item = &Arc<Parameter>> {
        let adapter = self.lora.iter().flat_map(|lora| [&lora.a, &lora.b]);
        std::iter::once(&self.weight).chain(&self.bias).chain(adapter)
    }
}

/// Apply each of `layers` to `x` `[rows, in]` and concatenate the results: `[rows, sum of out]`; add `residual` (of the result's shape)
/// if given. The backward pass computes no gradient for a frozen weight.
pub fn linear(tape: &Tape, x: &Value, layers: &[&Linear], residual: Option<&Value>) -> Result<Value> {
    let (rows, width) = x.tensor.dims2()?;
    let total: usize = layers.iter().map(|m| m.out()).sum();
    if !tape.is_fused(&x.tensor) {
        return reference(tape, x, layers, residual, width);
    }
    let outputs = outputs(layers, rows, width, total);
    let mut y = products(x, layers, &outputs, residual)?;
    let mut adapters: Vec<Option<(Option<DropoutMask>, Vec<f32>)>> = Vec::with_capacity(layers.len());
    for (layer, (column, shape)) in layers.iter().zip(&outputs) {
        adapters.push(match &layer.lora {
            None => None,
            Some(lora) => {
                let mask = lora.mask(tape);
                let x = read(&x.tensor)?;
                let from = (*column).min(rows * total);
                Some((mask, lora::forward(lora, mask, &x, &mut y[from..], *shape)?))
            }
        });
    }
    let y = from_vec(y, (rows, total))?;
    let layers: Vec<Linear> = layers.iter().map(|m| (*m).clone()).collect();
    let trains = layers.iter().any(Linear::is_trainable);
    let requires_grad = trains || x.requires_grad() || residual.is_some_and(Value::requires_grad);
    let (x_node, residual_node) = (x.node(), residual.and_then(Value::node));
    let x_saved = layers.iter().any(Linear::saves_input).then(|| x.save());
    Ok(tape.record(y, requires_grad, move |grad, grads| {
        {
            let g = read(&grad)?;
            let x = x_saved.map(Saved::get).transpose()?;
            let x = x.as_ref().map(read).transpose()?;
            let mut dx = grads.take(x_node);
            for ((layer, (column, shape)), adapter) in layers.iter().zip(&outputs).zip(&adapters) {
                let (out, column) = (shape.out, *column);
                let g_view = Matrix::new(&g[column.min(rows * total)..], rows, out, total);
                if let Some(x) = x.as_deref().filter(|_| layer.weight.trainable()) {
                    grads.accumulate(&layer.weight, |dw, filled| {
                        let x_view = Matrix::new(x, rows, width, width);
                        weight_grad(&layer.weight, MatrixMut::new(dw, out, width, width), g_view, x_view, filled);
                    })?;
                }
                if let Some(bias) = layer.bias.as_ref().filter(|b| b.trainable()) {
                    let sums = column_sums(&g, total, column, out);
                    grads.accumulate(bias, |db, filled| {
                        for (d, s) in db.iter_mut().zip(&sums) {
                            *d = if filled { *d + s } else { *s };
                        }
                    })?;
                }
                if x_node.is_some() {
                    let weight = WeightMatrix::of(&layer.weight, width)?;
                    match &dx {
                        Some(dx) => mutate(dx, |dx| {
                            weight.times_rows(MatrixMut::new(dx, rows, width, width), g_view, 0..out, true);
                        })?,
                        None => {
                            // SAFETY: the product writes every element.
                            let product = unsafe {
                                uninit_vec(rows * width, |dx| {
                                    let dx = MatrixMut::uninit(dx, rows, width, width);
                                    weight.times_rows(dx, g_view, 0..out, false);
                                })
                            };
                            dx = Some(from_vec(product, (rows, width))?);
                        }
                    }
                }
                if let (Some(lora), Some((mask, low))) = (&layer.lora, adapter)
                    && (lora.is_trainable() || x_node.is_some())
                {
                    let seen = (x.as_deref().unwrap_or(&[]), low.as_slice());
                    let g = &g[column.min(rows * total)..];
                    lora::backward(lora, *mask, seen, g, dx.as_ref().filter(|_| x_node.is_some()), *shape, grads)?;
                }
            }
            if let Some(dx) = dx {
                grads.set(x_node, dx);
            }
        }
        grads.add(residual_node, grad)
    }))
}

/// The results of `layers` without their adapters.
fn products(
    x: &Value,
    layers: &[&Linear],
    outputs: &[(usize, LayerShape)],
    residual: Option<&Value>,
) -> Result<Vec<f32>> {
    let (rows, width) = x.tensor.dims2()?;
    let total: usize = outputs.iter().map(|(_, shape)| shape.out).sum();
    let weights: Vec<WeightMatrix<'_>> =
        layers.iter().map(|layer| WeightMatrix::of(&layer.weight, width)).collect::<Result<_>>()?;
    let x = read(&x.tensor)?;
    let x = Matrix::new(&x, rows, width, width);
    let residual = residual.map(|residual| read(&residual.tensor)).transpose()?;
    // The biases of all layers; zeros for a layer without one, if another has one.
    let mut biases = Vec::new();
    if layers.iter().any(|layer| layer.bias.is_some()) {
        for layer in layers {
            match &layer.bias {
                Some(bias) => biases.extend_from_slice(&read(bias.var.as_tensor())?),
                None => biases.resize(biases.len() + layer.out(), 0.0),
            }
        }
    }
    let factors: Option<Vec<Matrix<'_, bf16>>> = weights.iter().map(WeightMatrix::bf16_factor).collect();
    if let Some(factors) = factors {
        let residual = residual.as_ref().map(|residual| Matrix::new(residual, rows, total, total));
        let biases = (!biases.is_empty()).then(|| Matrix::repeated(&biases, rows));
        // SAFETY: the products of all layers together write every element of every row.
        return Ok(unsafe {
            uninit_vec(rows * total, |y| {
                matmul_t_bf16(MatrixMut::uninit(y, rows, total, total), x, &factors, [residual, biases]);
            })
        });
    }
    let mut y: Vec<f32> = Vec::new();
    // Whether `y` already holds the residual or the biases, to which the products are added.
    let accumulate = residual.is_some() || !biases.is_empty();
    match &residual {
        Some(residual) => {
            y.extend_from_slice(residual);
            if !biases.is_empty() {
                y.par_chunks_mut(total).with_min_len(64).for_each(|row| {
                    for (y, b) in row.iter_mut().zip(&biases) {
                        *y += b;
                    }
                });
            }
        }
        None if accumulate => y = biases.repeat(rows),
        None => y.reserve_exact(rows * total),
    }
    for (weight, (column, LayerShape { out, .. })) in weights.iter().zip(outputs) {
        let from = (*column).min(rows * total);
        let target = match accumulate {
            true => MatrixMut::new(&mut y[from..], rows, *out, total),
            false => MatrixMut::uninit(&mut y.spare_capacity_mut()[from..rows * total], rows, *out, total),
        };
        weight.times_rows_t(target, x, 0..*out, accumulate);
    }
    if !accumulate {
        // SAFETY: the products of all layers together have written every element of every row.
        unsafe { y.set_len(rows * total) };
    }
    Ok(y)
}

/// The first column of each layer's output, and the layer's shape.
fn outputs(layers: &[&Linear], rows: usize, width: usize, stride: usize) -> Vec<(usize, LayerShape)> {
    let mut column = 0;
    let shape = |layer: &&Linear| {
        let out = layer.out();
        column += out;
        (column - out, LayerShape { rows, width, out, stride })
    };
    layers.iter().map(shape).collect()
}

/// Precision of a product with a weight in candle ops.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MatmulDtype {
    /// That of the activations; a bf16 weight is converted.
    Activations,
    /// bf16 with f32 sums; the result has the type of the activations.
    Bf16,
}

impl MatmulDtype {
    /// The precision set for `weight`; always that of the activations on a CPU.
    pub fn of(weight: &Parameter) -> MatmulDtype {
        match weight.uses_bf16_matmul() && !in_main_memory(weight.var.device()) {
            true => MatmulDtype::Bf16,
            false => MatmulDtype::Activations,
        }
    }

    /// `a b`, where `b` may be in bf16.
    pub fn product(self, a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            MatmulDtype::Activations if a.dtype() == b.dtype() => a.matmul(b),
            MatmulDtype::Activations => a.matmul(&b.to_dtype(a.dtype())?),
            MatmulDtype::Bf16 => a.to_dtype(DType::BF16)?.matmul(&b.to_dtype(DType::BF16)?)?.to_dtype(a.dtype()),
        }
    }

    /// `g^T x`, the gradient of a weight.
    pub fn weight_grad(self, g: &Tensor, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            MatmulDtype::Activations => g.t()?.matmul(x),
            MatmulDtype::Bf16 => g.to_dtype(DType::BF16)?.t()?.matmul(&x.to_dtype(DType::BF16)?)?.to_dtype(x.dtype()),
        }
    }
}

/// [`linear`] in candle ops. The backward pass is written out: candle's autograd would compute the gradient of a frozen weight too.
fn reference(tape: &Tape, x: &Value, layers: &[&Linear], residual: Option<&Value>, width: usize) -> Result<Value> {
    let (rows, input) = (x.tensor.dim(0)?, x.tensor.detach());
    let mut parts = Vec::with_capacity(layers.len());
    // For each adapter: its dropout factors, and `scale * x A^T`.
    let mut adapters: Vec<Option<(Option<Tensor>, Tensor)>> = Vec::with_capacity(layers.len());
    for layer in layers {
        let mut y = MatmulDtype::of(&layer.weight).product(&input, &matrix(&layer.weight, width)?.t()?)?;
        if let Some(bias) = &layer.bias {
            y = y.broadcast_add(&bias.var.as_detached_tensor())?;
        }
        let adapter = match &layer.lora {
            None => None,
            Some(lora) => {
                let factors = |mask: DropoutMask| {
                    let factors =
                        (0..rows * width).into_par_iter().map(|i| mask.factor(i / width, i % width)).collect();
                    Tensor::from_vec(factors, (rows, width), input.device())?.to_dtype(input.dtype())
                };
                let factors = lora.mask(tape).map(factors).transpose()?;
                let dropped = factors.as_ref().map(|f| input.mul(f)).transpose()?;
                let dropped = dropped.as_ref().unwrap_or(&input);
                let low = (dropped.matmul(&lora.a.var.as_detached_tensor().t()?)? * f64::from(lora.scale))?;
                y = (y + low.matmul(&lora.b.var.as_detached_tensor().t()?)?)?;
                Some((factors, low))
            }
        };
        adapters.push(adapter);
        parts.push(y);
    }
    let mut y = Tensor::cat(&parts, 1)?;
    if let Some(residual) = residual {
        y = (y + residual.tensor.detach())?;
    }
    let layers: Vec<Linear> = layers.iter().map(|m| (*m).clone()).collect();
    let requires_grad =
        layers.iter().any(Linear::is_trainable) || x.requires_grad() || residual.is_some_and(Value::requires_grad);
    let (x_node, residual_node) = (x.node(), residual.and_then(Value::node));
    let x_saved = layers.iter().any(Linear::saves_input).then(|| x.save());
    Ok(tape.record(y.detach(), requires_grad, move |grad, grads| {
        let grad = grad.detach();
        let x = x_saved.map(Saved::get).transpose()?.map(|x| x.detach());
        let mut column = 0;
        for (layer, adapter) in layers.iter().zip(&adapters) {
            let out = layer.out();
            let g = grad.narrow(1, column, out)?.contiguous()?;
            column += out;
            if let Some(x) = x.as_ref().filter(|_| layer.weight.trainable()) {
                let dw = MatmulDtype::of(&layer.weight).weight_grad(&g, x)?.reshape(layer.weight.var.shape())?;
                grads.add_to_parameter(&layer.weight, dw)?;
            }
            if let Some(bias) = layer.bias.as_ref().filter(|b| b.trainable()) {
                grads.add_to_parameter(bias, g.sum(0)?)?;
            }
            let mut dx = match x_node {
                Some(_) => Some(MatmulDtype::of(&layer.weight).product(&g, &matrix(&layer.weight, width)?)?),
                None => None,
            };
            if let (Some(lora), Some((factors, low))) = (&layer.lora, adapter) {
                if lora.b.trainable() {
                    grads.add_to_parameter(&lora.b, g.t()?.matmul(low)?)?;
                }
                let d_low = (g.matmul(&lora.b.var.as_detached_tensor())? * f64::from(lora.scale))?;
                if let Some(x) = x.as_ref().filter(|_| lora.a.trainable()) {
                    let dropped = factors.as_ref().map(|f| x.mul(f)).transpose()?;
                    grads.add_to_parameter(&lora.a, d_low.t()?.matmul(dropped.as_ref().unwrap_or(x))?)?;
                }
                if let Some(sum) = dx {
                    let part = d_low.matmul(&lora.a.var.as_detached_tensor())?;
                    let part = factors.as_ref().map(|f| part.mul(f)).transpose()?.unwrap_or(part);
                    dx = Some((sum + part)?);
                }
            }
            if let Some(dx) = dx {
                grads.add(x_node, dx.detach())?;
            }
        }
        grads.add(residual_node, grad)
    }))
}

/// A weight as `[out, in]`, detached from candle's autograd.
pub(super) fn matrix(weight: &Parameter, width: usize) -> Result<Tensor> {
    Ok(weight.compute_var().as_detached_tensor().reshape(((), width))?)
}

/// Sums over the rows of columns `start..start + len` of a row-major `[rows, stride]` matrix.
/// Rows are summed in blocks of fixed size, then the blocks in order: the same for any number of threads.
pub(super) fn column_sums(data: &[f32], stride: usize, start: usize, len: usize) -> Vec<f32> {
    const ROWS: usize = 256;
    let partial: Vec<Vec<f32>> = data
        .par_chunks(ROWS * stride)
        .map(|block| {
            let mut sums = vec![0.0; len];
            add_rows(&mut sums, block, stride, start);
            sums
        })
        .collect();
    let mut sums = vec![0.0; len];
    for block in &partial {
        add_rows(&mut sums, block, len, 0);
    }
    sums
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn add_rows(sums: &mut [f32], block: &[f32], stride: usize, start: usize) {
    for row in block.chunks_exact(stride) {
        for (s, g) in sums.iter_mut().zip(&row[start..]) {
            *s += g;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{bf16_instructions, gradcheck};

    #[test]
    fn linear_with_bias_and_residual_agrees_with_finite_differences() {
        let shapes: &[&[usize]] = &[&[5, 6], &[5, 7], &[4, 6], &[4], &[3, 6]];
        gradcheck::check(shapes, 2, |tape, v, p| {
            let first = Linear { weight: p[0].clone(), bias: Some(p[1].clone()), lora: None };
            let second = Linear::without_bias(p[2].clone());
            linear(tape, &v[0], &[&first, &second], Some(&v[1]))
        });
    }

    #[test]
    fn linear_without_residual_agrees_with_finite_differences() {
        gradcheck::check(&[&[300, 3], &[2, 3], &[2]], 1, |tape, v, p| {
            linear(tape, &v[0], &[&Linear { weight: p[0].clone(), bias: Some(p[1].clone()), lora: None }], None)
        });
    }

    #[test]
    fn a_working_copy_in_bf16_gives_the_products_and_the_value_takes_the_gradient() {
        // The same layer in f32 with the rounded weight, in both forms of the op.
        let run = |tape: Tape, weight: &Arc<Parameter>| {
            let x = tape.leaf(gradcheck::tensor(&[9, 6], 2));
            let y = linear(&tape, &x, &[&Linear::without_bias(weight.clone())], None).unwrap();
            let out = y.tensor.clone();
            let dx =
                tape.backward_with_leaves(vec![(y, gradcheck::tensor(&[9, 5], 3))], &[&x]).unwrap().remove(0).unwrap();
            (out, dx, weight.grad().unwrap())
        };
        let rounded = gradcheck::tensor(&[5, 6], 1).to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
        let rounded = Arc::new(Parameter::new("w", candle_core::Var::from_tensor(&rounded).unwrap()));
        let want = run(Tape::new(), &rounded);
        for tape in [Tape::new(), Tape::new().reference()] {
            // A processor with products in bf16 rounds the input and the output's gradient, too.
            let rounds = tape.is_fused(&gradcheck::tensor(&[1], 1)) && bf16_instructions().is_some();
            let most = if rounds { 4e-3 } else { 1e-6 };
            let weight = gradcheck::parameter("w", &[5, 6], 1);
            weight.enable_bf16_matmul().unwrap();
            let got = run(tape, &weight);
            assert_eq!(got.2.dtype(), DType::F32);
            for (got, want) in [(&got.0, &want.0), (&got.1, &want.1), (&got.2, &want.2)] {
                assert!(gradcheck::relative_error(got, want) < most);
            }
        }
    }

    #[test]
    fn products_in_bf16_are_those_of_rounded_factors() {
        // What a GPU does, here in candle's products of bf16 on the CPU.
        let (a, b) = (gradcheck::tensor(&[7, 40], 1), gradcheck::tensor(&[40, 3], 2).to_dtype(DType::BF16).unwrap());
        let rounded = |t: &Tensor| t.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
        let exact = rounded(&a).matmul(&rounded(&b)).unwrap();
        let got = MatmulDtype::Bf16.product(&a, &b).unwrap();
        assert_eq!(got.dtype(), DType::F32);
        assert!(gradcheck::relative_error(&got, &exact) < 5e-3, "{}", gradcheck::relative_error(&got, &exact));
        let wide = MatmulDtype::Activations.product(&a, &b).unwrap();
        assert!(gradcheck::relative_error(&wide, &a.matmul(&rounded(&b)).unwrap()) < 1e-6);
        let weight_grad = MatmulDtype::Bf16.weight_grad(&a, &got).unwrap();
        assert_eq!(weight_grad.dtype(), DType::F32);
        assert!(
            gradcheck::relative_error(&weight_grad, &MatmulDtype::Activations.weight_grad(&a, &got).unwrap()) < 2e-2
        );
    }

    #[test]
    fn a_frozen_weight_gets_no_gradient_and_the_input_still_does() {
        let weight = gradcheck::parameter("w", &[2, 3], 1);
        weight.set_trainable(false);
        let tape = Tape::new();
        let x = tape.leaf(gradcheck::tensor(&[4, 3], 2));
        let y = linear(&tape, &x, &[&Linear::without_bias(weight.clone())], None).unwrap();
        let g = gradcheck::tensor(&[4, 2], 3);
        let dx = tape.backward_with_leaves(vec![(y, g)], &[&x]).unwrap();
        assert!(dx[0].is_some());
        assert!(weight.grad().is_none());
    }
}
