//! Matrix products with a weight stored in f32 or bf16.
//!
//! A frozen weight may stay in bf16, and a trained one may have a bf16 copy. A product in f32 converts it block by block, each block
//! just before its use, while it is in the core's cache. Results equal f32 products with the converted weight, to the last bit, except
//! for the few rows of a decoding step on processors without AVX-512 ([`GEMV_MAX_ROWS`]), which are summed in another order.
//!
//! If the weight's products are to be in bf16 ([`Parameter::uses_bf16_matmul`]) and the processor has them, the other factor is rounded, too.

use crate::nn::Parameter;
use crate::nn::bf16_matmul::{bf16_instructions, matmul_bf16, matmul_t_bf16};
#[cfg(target_arch = "x86_64")]
use crate::nn::few_rows::{self, few_rows_t};
use crate::nn::matmul::{ColumnBlock, Matrix, MatrixMut, matmul, matmul_block};
use crate::nn::slice::{Slice, read};
use crate::{Error, Result};
use candle_core::{CpuStorage, Storage, StorageRef};
use half::bf16;
use multiversion::multiversion;
use rayon::prelude::*;
use std::cell::RefCell;

/// Rows of a block of the weight (the inner dimension of one gemm call, see [`matmul`]).
const BLOCK_DEPTH: usize = 512;
/// Columns of the result per block. With [`BLOCK_DEPTH`] 512 KB of f32, which fits a core's second-level cache.
const BLOCK_COLUMNS: usize = 256;
/// Up to this many rows, a product reads bf16 directly instead of converting blocks; it sums in another order then.
const GEMV_MAX_ROWS: usize = 4;

thread_local! {
    static BLOCK: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// A weight in main memory as a matrix `[out, in]`.
pub struct WeightMatrix<'a> {
    data: WeightData<'a>,
    /// Whether products are in bf16.
    in_bf16: bool,
    out: usize,
    width: usize,
}

enum WeightData<'a> {
    F32(Slice<'a>),
    Bf16 { storage: StorageRef<'a>, start: usize, len: usize },
}

impl<'a> WeightMatrix<'a> {
    /// View a contiguous f32 or bf16 weight on the CPU as rows of `width` elements.
    pub fn of(parameter: &'a Parameter, width: usize) -> Result<Self> {
        let tensor = parameter.compute_var().as_tensor();
        let out = tensor.elem_count() / width.max(1);
        let (storage, layout) = tensor.storage_and_layout();
        let data = match (&*storage, layout.contiguous_offsets()) {
            (Storage::Cpu(CpuStorage::BF16(_)), Some((start, end))) => {
                WeightData::Bf16 { start, len: end - start, storage }
            }
            _ => {
                drop(storage);
                WeightData::F32(read(tensor).map_err(|e| e.context(&parameter.name))?)
            }
        };
        Ok(WeightMatrix { data, in_bf16: computes_in_bf16(parameter), out, width })
    }

    /// Rows.
    pub fn out(&self) -> usize {
        self.out
    }

    /// Its f32 elements.
    ///
    /// # Errors
    /// If it is stored in another type.
    pub fn f32(&self) -> Result<&[f32]> {
        match &self.data {
            WeightData::F32(slice) => Ok(slice),
            WeightData::Bf16 { .. } => Err(Error::failed("this kernel needs a weight in f32")),
        }
    }

    /// Append row `row` to `to`, as f32.
    pub fn append_row(&self, row: usize, to: &mut Vec<f32>) {
        let range = row * self.width..(row + 1) * self.width;
        match (&self.data, self.bf16()) {
            (WeightData::F32(slice), _) => to.extend_from_slice(&slice[range]),
            (_, data) => to.extend(data[range].iter().map(|n| n.to_f32())),
        }
    }

    /// `c = x rows^T` (or `+=` with `add`) with `rows` of this weight: `x` is `[n, in]`, `c` `[n, rows.len()]`.
    pub fn times_rows_t(&self, c: MatrixMut<'_>, x: Matrix<'_>, rows: std::ops::Range<usize>, add: bool) {
        match &self.data {
            WeightData::F32(w) => {
                let w = &w[rows.start * self.width..rows.end * self.width];
                #[cfg(target_arch = "x86_64")]
                if let Some(x) = few_rows(x) {
                    return few_rows_t(c, &x, w, self.width, add);
                }
                matmul(c, x, Matrix::new(w, rows.len(), self.width, self.width).t(), add, true);
            }
            WeightData::Bf16 { .. } => {
                let w = &self.bf16()[rows.start * self.width..rows.end * self.width];
                if self.in_bf16 {
                    let w = Matrix::new(w, rows.len(), self.width, self.width);
                    return if add { matmul_bf16(c, x, w.t(), true) } else { matmul_t_bf16(c, x, &[w], [None; 2]) };
                }
                #[cfg(target_arch = "x86_64")]
                if let Some(x) = few_rows(x) {
                    return few_rows_t(c, &x, w, self.width, add);
                }
                if let Some(x) = x.row_slices().filter(|x| x.len() <= GEMV_MAX_ROWS) {
                    return gemv(c, &x, w, self.width, add);
                }
                let block = |into: &mut [f32], [k, inner, first, count]: [usize; 4]| {
                    for (row, into) in (first..first + count).zip(into.chunks_exact_mut(inner)) {
                        bf16_to_f32(&w[row * self.width + k..row * self.width + k + inner], into);
                    }
                };
                blocked_matmul(c, x, add, true, block);
            }
        }
    }

    /// `c = g rows` (or `+=` with `add`) with `rows` of this weight: `g` is `[n, rows.len()]`, `c` `[n, in]`.
    pub fn times_rows(&self, c: MatrixMut<'_>, g: Matrix<'_>, rows: std::ops::Range<usize>, add: bool) {
        match &self.data {
            WeightData::F32(w) => {
                let w = &w[rows.start * self.width..rows.end * self.width];
                matmul(c, g, Matrix::new(w, rows.len(), self.width, self.width), add, true);
            }
            WeightData::Bf16 { .. } => {
                let w = &self.bf16()[rows.start * self.width..rows.end * self.width];
                if self.in_bf16 {
                    return matmul_bf16(c, g, Matrix::new(w, rows.len(), self.width, self.width), add);
                }
                let block = |into: &mut [f32], [k, inner, first, count]: [usize; 4]| {
                    for (row, into) in (k..k + inner).zip(into.chunks_exact_mut(count)) {
                        bf16_to_f32(&w[row * self.width + first..row * self.width + first + count], into);
                    }
                };
                blocked_matmul(c, g, add, false, block);
            }
        }
    }

    /// The rows, if products with them are in bf16.
    pub fn bf16_factor(&self) -> Option<Matrix<'_, bf16>> {
        self.in_bf16.then(|| Matrix::new(self.bf16(), self.out, self.width, self.width))
    }

    fn bf16(&self) -> &[bf16] {
        match &self.data {
            WeightData::Bf16 { storage, start, len } => match &**storage {
                Storage::Cpu(CpuStorage::BF16(data)) => &data[*start..*start + *len],
                _ => unreachable!("checked when the view was made"),
            },
            WeightData::F32(_) => &[],
        }
    }
}

/// `dw = g^T x` (or `+=` with `add`), the gradient of `weight` or of some of its rows: `g` is `[n, rows]`, `x` `[n, in]`.
pub fn weight_grad(weight: &Parameter, dw: MatrixMut<'_>, g: Matrix<'_>, x: Matrix<'_>, add: bool) {
    match computes_in_bf16(weight) {
        true => matmul_bf16(dw, g.t(), x, add),
        false => matmul(dw, g.t(), x, add, true),
    }
}

fn computes_in_bf16(weight: &Parameter) -> bool {
    weight.uses_bf16_matmul() && bf16_instructions().is_some()
}

/// `c = a b` or `c += a b`, where `block(into, [k, inner, first, count])` writes rows `k..k + inner` of columns
/// `first..first + count` of `b`: row-major, or, `transposed`, column after column.
fn blocked_matmul(
    c: MatrixMut<'_>,
    a: Matrix<'_>,
    add: bool,
    transposed: bool,
    block: impl Fn(&mut [f32], [usize; 4]) + Sync,
) {
    let threads = rayon::current_num_threads();
    let (cols, inner) = (c.cols(), a.cols());
    let outer = BLOCK_COLUMNS.min(cols.div_ceil(threads).next_multiple_of(64)).max(1);
    let parts = c.column_blocks(outer);
    let one = |(first, mut c): (usize, ColumnBlock<'_>)| {
        let count = c.cols();
        BLOCK.with_borrow_mut(|scratch| {
            scratch.resize(BLOCK_DEPTH * BLOCK_COLUMNS, 0.0);
            for k in (0..inner.max(1)).step_by(BLOCK_DEPTH) {
                let inner = BLOCK_DEPTH.min(inner - k);
                let into = &mut scratch[..inner * count];
                block(into, [k, inner, first, count]);
                let b = match transposed {
                    true => Matrix::new(into, count, inner, inner).t(),
                    false => Matrix::new(into, inner, count, count),
                };
                matmul_block(&mut c, a.columns(k, inner), b, add || k > 0);
            }
        });
    };
    match threads > 1 {
        true => parts.into_par_iter().for_each(one),
        false => parts.into_iter().for_each(one),
    }
}

/// `c = x w^T` or `c += x w^T` for the few rows of a step of decoding: each element of `w` is read once from memory and converted in a register.
fn gemv(c: MatrixMut<'_>, x: &[&[f32]], w: &[bf16], width: usize, add: bool) {
    const OUT: usize = 64;
    let part = |((_, mut c), w): ((usize, ColumnBlock<'_>), &[bf16])| {
        for (column, w) in w.chunks_exact(width).enumerate() {
            for (row, x) in x.iter().enumerate() {
                c.write(row, column, dot(x, w), add);
            }
        }
    };
    c.column_blocks(OUT).into_par_iter().zip(w.par_chunks(OUT * width)).for_each(part);
}

/// The rows of `x`, if [`few_rows_t`] is for them.
#[cfg(target_arch = "x86_64")]
fn few_rows(x: Matrix<'_>) -> Option<Vec<&[f32]>> {
    let (rows, width) = x.shape();
    let few = rows <= few_rows::MAX_ROWS && width > 0 && few_rows::is_available();
    few.then(|| x.row_slices()).flatten()
}

/// The sum over fixed lanes, then over the lanes in order: the same whatever else is computed.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn dot(x: &[f32], w: &[bf16]) -> f32 {
    const LANES: usize = 64;
    let mut sums = [0.0f32; LANES];
    let ((x, x_rest), (w, w_rest)) = (x.as_chunks::<LANES>(), w.as_chunks::<LANES>());
    for (x, w) in x.iter().zip(w) {
        for ((sum, x), w) in sums.iter_mut().zip(x).zip(w) {
            *sum += x * f32::from_bits(u32::from(w.to_bits()) << 16);
        }
    }
    for ((sum, x), w) in sums.iter_mut().zip(x_rest).zip(w_rest) {
        *sum += x * f32::from_bits(u32::from(w.to_bits()) << 16);
    }
    sums.iter().sum()
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn bf16_to_f32(from: &[bf16], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = f32::from_bits(u32::from(from.to_bits()) << 16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::gradcheck;
    use candle_core::{DType, Device, Tensor, Var};

    /// A weight in bf16, and the same values in f32.
    fn bf16_and_f32(out: usize, width: usize) -> [Parameter; 2] {
        let half = gradcheck::tensor(&[out, width], 3).to_dtype(DType::BF16).unwrap();
        let wide = half.to_dtype(DType::F32).unwrap();
        [half, wide].map(|t| Parameter::new("w", Var::from_tensor(&t).unwrap()))
    }

    #[test]
    fn products_with_a_bf16_weight_equal_those_of_the_same_weight_in_f32_to_the_last_bit() {
        for (rows, out, width) in [(1, 300, 700), (2, 3, 5), (1, 1, 2000), (7, 513, 1025), (300, 64, 40), (1, 2000, 3)]
        {
            let parameters = bf16_and_f32(out, width);
            let values = |n, seed| -> Vec<f32> {
                let tensor: Tensor = gradcheck::tensor(&[n], seed);
                tensor.to_device(&Device::Cpu).unwrap().to_vec1().unwrap()
            };
            let (x, g) = (values(rows * width, 1), values(rows * out, 2));
            let mut results = Vec::new();
            for p in &parameters {
                let w = WeightMatrix::of(p, width).unwrap();
                let (mut y, mut dx) = (vec![0.5; rows * out], vec![0.25; rows * width]);
                let x = Matrix::new(&x, rows, width, width);
                let g = Matrix::new(&g, rows, out, out);
                for add in [false, true] {
                    w.times_rows_t(MatrixMut::new(&mut y, rows, out, out), x, 0..out, add);
                    w.times_rows(MatrixMut::new(&mut dx, rows, width, width), g, 0..out, add);
                }
                let (mut part, mut row) = (vec![0.0; rows], Vec::new());
                w.times_rows_t(MatrixMut::new(&mut part, rows, 1, 1), x, out - 1..out, false);
                w.append_row(out - 1, &mut row);
                assert!(
                    part.iter()
                        .enumerate()
                        .all(|(i, p)| (2.0 * p - y[i * out + out - 1]).abs() < 1e-4 * (1.0 + p.abs()))
                );
                results.push((y, dx, part, row));
            }
            let [(y, dx, part, row), wide] = &results[..] else { unreachable!() };
            assert!((dx, row) == (&wide.1, &wide.3), "{rows} x {out} x {width}");
            if rows > GEMV_MAX_ROWS {
                assert!((y, part) == (&wide.0, &wide.2), "{rows} x {out} x {width}");
            }
            // In another order of summation.
            let near =
                |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 2e-6 * (width as f32).sqrt());
            assert!(near(y, &wide.0) && near(part, &wide.2), "{rows} x {out} x {width}");
        }
    }
}
