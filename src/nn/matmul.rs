//! f32 matrix products over strided views: a safe wrapper of the `gemm` crate.
//!
//! An element of the product depends only on its row of `a` and its column of `b`, to the last bit: not on the number of other rows
//! and columns (batch size), nor on the number of threads. gemm guarantees this while the inner dimension fits one of its blocks and
//! its special paths for very small products are not taken; [`matmul`] ensures both.

use gemm::Parallelism;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// Inner dimension of one call, at most: gemm never splits one of up to 512.
pub const MAX_DEPTH: usize = 512;

/// Elements of a product up to which gemm sums in another order (as it does for a single row or column).
const SMALL_PRODUCT: usize = 256;

/// A read-only view of a matrix.
#[derive(Clone, Copy)]
pub struct Matrix<'a, T = f32> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Row-major `[rows, cols]` with `stride` elements from one row to the next.
    pub fn new(data: &'a [T], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(rows == 0 || cols == 0 || (rows - 1) * stride + cols <= data.len(), "matrix view out of bounds");
        Matrix { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// `rows` times the same row.
    pub fn repeated(row: &'a [T], rows: usize) -> Self {
        Matrix { data: row, rows, cols: row.len(), row_stride: 0, col_stride: 1 }
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

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// The first element, and how many elements lie from one row and one column to the next; one of the two is 1.
    pub fn layout(&self) -> (*const T, usize, usize) {
        (self.data.as_ptr(), self.row_stride, self.col_stride)
    }

    /// Its rows as slices; `None` if they are not contiguous.
    pub fn row_slices(&self) -> Option<Vec<&'a [T]>> {
        let row = |i: usize| &self.data[i * self.row_stride..i * self.row_stride + self.cols];
        (self.col_stride == 1).then(|| (0..self.rows).map(row).collect())
    }

    /// `count` rows from `first` on, as a view.
    pub fn rows(self, first: usize, count: usize) -> Self {
        self.t().columns(first, count).t()
    }

    /// `count` columns from `first` on, as a view.
    pub fn columns(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.cols, "matrix view out of bounds");
        // An empty matrix has no element to start from.
        let from = (first * self.col_stride).min(self.data.len());
        Matrix { data: &self.data[from..], cols: count, ..self }
    }
}

/// A writable row-major view of a matrix.
pub struct MatrixMut<'a> {
    data: &'a mut [MaybeUninit<f32>],
    rows: usize,
    cols: usize,
    stride: usize,
    /// Whether the elements hold values, so that a product may be added to them.
    initialized: bool,
}

impl<'a> MatrixMut<'a> {
    /// Row-major `[rows, cols]` with `stride` elements from one row to the next.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize, stride: usize) -> Self {
        // SAFETY: the same layout; nothing uninitialised is ever written through the view.
        let data = unsafe { std::slice::from_raw_parts_mut(data.as_mut_ptr().cast(), data.len()) };
        Self::view(data, rows, cols, stride, true)
    }

    /// As [`MatrixMut::new`], over uninitialized memory: a product can be written to it, not added.
    pub fn uninit(data: &'a mut [MaybeUninit<f32>], rows: usize, cols: usize, stride: usize) -> Self {
        Self::view(data, rows, cols, stride, false)
    }

    fn view(data: &'a mut [MaybeUninit<f32>], rows: usize, cols: usize, stride: usize, initialized: bool) -> Self {
        assert!(rows == 0 || cols == 0 || (rows - 1) * stride + cols <= data.len(), "matrix view out of bounds");
        assert!(rows < 2 || stride >= cols, "rows of a writable matrix overlap");
        MatrixMut { data, rows, cols, stride, initialized }
    }

    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Whether its elements hold values.
    pub fn is_initialized(&self) -> bool {
        self.initialized
    }

    /// The matrix in blocks of at most `width` columns, each with the index of its first column, for threads to write in parallel.
    pub fn column_blocks(self, width: usize) -> Vec<(usize, ColumnBlock<'a>)> {
        let cols = self.cols;
        self.blocks_of((0..cols).step_by(width).map(|first| width.min(cols - first)))
    }

    /// As [`MatrixMut::column_blocks`], with blocks of these widths, one beside the other.
    pub fn blocks_of(self, widths: impl Iterator<Item = usize>) -> Vec<(usize, ColumnBlock<'a>)> {
        let data = self.data.as_mut_ptr();
        let mut first = 0;
        let block = |cols: usize| {
            assert!(first + cols <= self.cols, "a block beyond the matrix");
            // Within or at the end of the slice, as the constructor has checked (a matrix without rows may have no elements).
            let start = data.wrapping_add(first);
            let (rows, stride, initialized) = (self.rows, self.stride, self.initialized);
            first += cols;
            (first - cols, ColumnBlock { start, rows, cols, stride, initialized, of: PhantomData })
        };
        widths.map(block).collect()
    }
}

/// Some columns of a [`MatrixMut`], exclusively borrowed.
pub struct ColumnBlock<'a> {
    start: *mut MaybeUninit<f32>,
    rows: usize,
    cols: usize,
    stride: usize,
    initialized: bool,
    of: PhantomData<&'a mut [MaybeUninit<f32>]>,
}

// SAFETY: the columns are disjoint from those of every other block of the same matrix, which is borrowed exclusively.
unsafe impl Send for ColumnBlock<'_> {}

impl ColumnBlock<'_> {
    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The first element, and how many elements lie from one row to the next; for kernels that write without further checks.
    pub fn raw(&mut self) -> (*mut f32, usize) {
        (self.start.cast(), self.stride)
    }

    /// Where an element is.
    pub fn at(&mut self, row: usize, column: usize) -> *mut f32 {
        assert!(row < self.rows && column < self.cols, "no such element");
        // SAFETY: inside the matrix.
        unsafe { self.start.add(row * self.stride + column).cast() }
    }

    /// Write an element, or add to it.
    pub fn write(&mut self, row: usize, column: usize, value: f32, add: bool) {
        assert!(row < self.rows && column < self.cols && (self.initialized || !add), "no such element");
        // SAFETY: inside the matrix, whose element nothing else writes to, and initialized if it is read.
        unsafe {
            let held = &mut *self.start.add(row * self.stride + column);
            held.write(if add { held.assume_init() + value } else { value });
        }
    }
}

/// `c = a b`, or `c += a b` with `add`, on the calling thread, for an inner dimension that gemm does not split. Each element is the
/// one that [`matmul`] computes, to the last bit.
pub fn matmul_block(c: &mut ColumnBlock<'_>, a: Matrix<'_>, b: Matrix<'_>, add: bool) {
    assert!(
        a.cols == b.rows && c.rows == a.rows && c.cols == b.cols && a.cols <= MAX_DEPTH,
        "matrix shapes do not fit"
    );
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    if c.rows * c.cols > SMALL_PRODUCT && c.rows > 1 && c.cols > 1 {
        // SAFETY: `a` and `b` were checked when they were made; the columns of `c` are this block's alone, inside its matrix.
        unsafe {
            product(
                (c.rows, c.cols, a.cols),
                (c.start.cast(), c.stride, 1),
                (a.data.as_ptr(), a.row_stride, a.col_stride),
                (b.data.as_ptr(), b.row_stride, b.col_stride),
                add,
                Parallelism::None,
            );
        }
        c.initialized = true;
        return;
    }
    assert!(c.initialized || !add, "cannot add to an uninitialized matrix");
    let mut whole = vec![0.0; c.rows * c.cols];
    // SAFETY: elements of this block, which are initialized where they are read (checked above).
    let at = |i: usize| unsafe { &mut *c.start.add(i / c.cols * c.stride + i % c.cols) };
    if add {
        whole.iter_mut().enumerate().for_each(|(i, held)| *held = unsafe { at(i).assume_init() });
    }
    padded_matmul(MatrixMut::new(&mut whole, c.rows, c.cols, c.cols), a, b, add, false);
    whole.iter().enumerate().for_each(|(i, held)| {
        at(i).write(*held);
    });
    c.initialized = true;
}

/// `c = a b`, or `c += a b` with `add`. `parallel` spreads the product over the rayon pool.
pub fn matmul(c: MatrixMut<'_>, a: Matrix<'_>, b: Matrix<'_>, add: bool, parallel: bool) {
    assert!(a.cols == b.rows && c.rows == a.rows && c.cols == b.cols, "matrix shapes do not fit");
    assert!(c.initialized || !add, "cannot add to an uninitialized matrix");
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    let parallelism = match rayon::current_num_threads() {
        n if parallel && n > 1 => Parallelism::Rayon(n),
        _ => Parallelism::None,
    };
    if c.rows * c.cols <= SMALL_PRODUCT || c.rows == 1 || c.cols == 1 {
        return padded_matmul(c, a, b, add, parallel);
    }
    for (i, start) in (0..a.cols.max(1)).step_by(MAX_DEPTH).enumerate() {
        let inner = MAX_DEPTH.min(a.cols - start);
        // SAFETY: the constructors checked that every addressed element lies in its slice; `c` is borrowed exclusively and
        // its rows do not overlap.
        unsafe {
            product(
                (c.rows, c.cols, inner),
                (c.data.as_mut_ptr().cast(), c.stride, 1),
                (a.data.as_ptr().wrapping_add(start * a.col_stride), a.row_stride, a.col_stride),
                (b.data.as_ptr().wrapping_add(start * b.row_stride), b.row_stride, b.col_stride),
                add || i > 0,
                parallelism,
            );
        }
    }
}

/// A product too small for gemm's ordinary path, padded with rows (and, for a single column, a column) of zeros.
fn padded_matmul(c: MatrixMut<'_>, a: Matrix<'_>, b: Matrix<'_>, add: bool, parallel: bool) {
    let cols = c.cols.max(2);
    let rows = c.rows.max(2).max(SMALL_PRODUCT / cols + 1);
    let inner = a.cols;
    let mut padded_a = vec![0.0; rows * inner];
    for i in 0..c.rows {
        for k in 0..inner {
            padded_a[i * inner + k] = a.data[i * a.row_stride + k * a.col_stride];
        }
    }
    let mut padded_b = Vec::new();
    if c.cols < cols {
        padded_b.resize(inner * cols, 0.0);
        for k in 0..inner {
            for j in 0..c.cols {
                padded_b[k * cols + j] = b.data[k * b.row_stride + j * b.col_stride];
            }
        }
    }
    let mut padded_c = vec![0.0; rows * cols];
    if add {
        for i in 0..c.rows {
            for (wide, held) in padded_c[i * cols..i * cols + c.cols].iter_mut().zip(&c.data[i * c.stride..]) {
                // SAFETY: a matrix that is added to is initialized (checked by the caller).
                *wide = unsafe { held.assume_init() };
            }
        }
    }
    let padded_b = if c.cols < cols { Matrix::new(&padded_b, inner, cols, cols) } else { b };
    let padded_a = Matrix::new(&padded_a, rows, inner, inner);
    matmul(MatrixMut::new(&mut padded_c, rows, cols, cols), padded_a, padded_b, add, parallel);
    for i in 0..c.rows {
        for (held, wide) in c.data[i * c.stride..].iter_mut().zip(&padded_c[i * cols..i * cols + c.cols]) {
            held.write(*wide);
        }
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

    #[test]
    fn an_element_does_not_depend_on_the_other_rows_and_columns() {
        for inner in [1usize, 3, 32, 128, 700, 1100] {
            let a: Vec<f32> = (0..300 * inner).map(|i| (i as f32 * 0.37).sin()).collect();
            let b: Vec<f32> = (0..300 * inner).map(|i| (i as f32 * 0.73).cos()).collect();
            let product = |rows: usize, cols: usize, parallel: bool| {
                let mut c = vec![0.25; rows * cols];
                let (a, b) = (Matrix::new(&a, rows, inner, inner), Matrix::new(&b, cols, inner, inner).t());
                matmul(MatrixMut::new(&mut c, rows, cols, cols), a, b, true, parallel);
                c
            };
            let whole = product(300, 300, true);
            for (rows, cols) in [(1, 1), (1, 300), (2, 7), (3, 90), (16, 16), (17, 16), (64, 64), (65, 130), (300, 1)] {
                let part = product(rows, cols, false);
                for i in 0..rows {
                    for j in 0..cols {
                        assert_eq!(part[i * cols + j], whole[i * 300 + j], "{rows}x{inner}x{cols} at ({i}, {j})");
                    }
                }
            }
        }
    }
}
