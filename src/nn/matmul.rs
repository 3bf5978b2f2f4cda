//! f32 matrix products over strided views: the `gemm` crate behind a safe face.

use gemm::Parallelism;

/// A read-only view of a matrix.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major `[rows, cols]` with `stride` elements from one row to the next.
    pub fn new(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(rows == 0 || cols == 0 || (rows - 1) * stride + cols <= data.len(), "matrix view out of bounds");
        Matrix { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// The transpose, as a view.
    pub fn t(self) -> Self {
        Matrix {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            data: self.data,
        }
    }
}

/// A writable row-major view of a matrix.
pub struct MatrixMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// Row-major `[rows, cols]` with `stride` elements from one row to the next.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(rows == 0 || cols == 0 || (rows - 1) * stride + cols <= data.len(), "matrix view out of bounds");
        assert!(rows < 2 || stride >= cols, "rows of a writable matrix overlap");
        MatrixMut { data, rows, cols, stride }
    }
}

/// `c = a b`, or `c += a b` with `add`. `parallel` spreads the product over the rayon pool.
pub fn matmul(c: MatrixMut<'_>, a: Matrix<'_>, b: Matrix<'_>, add: bool, parallel: bool) {
    assert!(a.cols == b.rows && c.rows == a.rows && c.cols == b.cols, "matrix shapes do not fit");
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    let parallelism = match rayon::current_num_threads() {
        n if parallel && n > 1 => Parallelism::Rayon(n),
        _ => Parallelism::None,
    };
    // SAFETY: the constructors checked that every addressed element lies in its slice; `c` is borrowed exclusively and its
    // rows do not overlap.
    unsafe {
        product(
            (c.rows, c.cols, a.cols),
            (c.data.as_mut_ptr(), c.stride, 1),
            (a.data.as_ptr(), a.row_stride, a.col_stride),
            (b.data.as_ptr(), b.row_stride, b.col_stride),
            add,
            parallelism,
        );
    }
}

/// `c = a b` (or `c += a b` with `add`) on the calling thread, for operands given as (pointer, row stride, column stride) and
/// sizes (rows of c, columns of c, inner).
///
/// # Safety
/// Every element addressed must be valid, and those of `c` must not be accessed by anything else meanwhile.
pub(super) unsafe fn matmul_raw(
    sizes: (usize, usize, usize),
    c: (*mut f32, usize, usize),
    a: (*const f32, usize, usize),
    b: (*const f32, usize, usize),
    add: bool,
) {
    // SAFETY: as the caller promises.
    unsafe { product(sizes, c, a, b, add, Parallelism::None) }
}

unsafe fn product(
    (m, n, k): (usize, usize, usize),
    c: (*mut f32, usize, usize),
    a: (*const f32, usize, usize),
    b: (*const f32, usize, usize),
    add: bool,
    parallelism: Parallelism,
) {
    // SAFETY: as the caller promises.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.0,
            c.2 as isize,
            c.1 as isize,
            add,
            a.0,
            a.2 as isize,
            a.1 as isize,
            b.0,
            b.2 as isize,
            b.1 as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strided_transposed_and_accumulating_products_match_the_definition() {
        let a: Vec<f32> = (0..5 * 7).map(|i| (i as f32 * 0.7).sin()).collect();
        let b: Vec<f32> = (0..6 * 9).map(|i| (i as f32 * 0.3).cos()).collect();
        // a as [5, 4] of stride 7; b as the transpose of [6, 4] of stride 9.
        let mut c = vec![1.0f32; 5 * 8];
        matmul(MatrixMut::new(&mut c, 5, 6, 8), Matrix::new(&a, 5, 4, 7), Matrix::new(&b, 6, 4, 9).t(), true, false);
        for i in 0..5 {
            for j in 0..8 {
                let product: f32 = if j < 6 { (0..4).map(|k| a[i * 7 + k] * b[j * 9 + k]).sum() } else { 0.0 };
                assert!((c[i * 8 + j] - 1.0 - product).abs() < 1e-5, "({i}, {j})");
            }
        }
    }
}
