//! `c = x w^T` for the few rows of a decoding step, on processors with AVX-512. gemm packs all of `w` for each product, which takes longer than
//! the product of a few rows; here `w` is read from memory once, sixteen of its rows at a time, and transposed in registers.
//!
//! Every element is the chain of sums that [`matmul`](super::matmul::matmul) computes, to the last bit: over the inner dimension in order, in
//! runs of [`MAX_DEPTH`]. So results do not depend on how many rows are computed together.

use super::matmul::{ColumnBlock, MAX_DEPTH, MatrixMut};
use half::bf16;
use rayon::prelude::*;
use std::arch::x86_64::*;
use std::cell::RefCell;

/// Most rows for which this is faster than [`matmul`](super::matmul::matmul).
pub const MAX_ROWS: usize = 64;

/// Rows of the weight that are transposed together: the numbers of a vector.
const LANES: usize = 16;
/// Most rows of `x` whose sums stay in registers.
const GROUP: usize = 16;
/// Columns of `c` that a thread computes in one go.
const BLOCK: usize = 4 * LANES;

thread_local! {
    static PANEL: RefCell<Vec<[f32; LANES]>> = const { RefCell::new(Vec::new()) };
}

/// Whether the processor has the instructions.
pub fn is_available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl")
}

/// A number as a weight is stored.
pub trait Stored: Copy + Sync {
    /// The numbers of `mask` from `from` on, as f32; zeros elsewhere.
    ///
    /// # Safety
    /// The processor has the instructions ([`is_available`]); the numbers of `mask` may be read.
    unsafe fn load(from: *const Self, mask: __mmask16) -> __m512;
}

impl Stored for f32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn load(from: *const Self, mask: __mmask16) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }
}

impl Stored for bf16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn load(from: *const Self, mask: __mmask16) -> __m512 {
        // SAFETY: as the caller promises.
        let upper = unsafe { _mm256_maskz_loadu_epi16(mask, from.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(upper)))
    }
}

/// `c = x w^T`, or `c += x w^T` with `add`: `x` has at most [`MAX_ROWS`] rows, `w` holds rows of `width` numbers, one for each column of `c`.
///
/// # Panics
/// If shapes do not fit, or the processor lacks the instructions.
pub fn few_rows_t<T: Stored>(c: MatrixMut<'_>, x: &[&[f32]], w: &[T], width: usize, add: bool) {
    let (rows, cols) = c.shape();
    assert!(rows == x.len() && x.iter().all(|row| row.len() == width), "matrix shapes do not fit");
    assert!(width > 0 && w.len() == cols * width && (c.is_initialized() || !add), "matrix shapes do not fit");
    assert!(is_available(), "the processor has no AVX-512");
    let groups: Vec<RowGroup> = x.chunks(GROUP).map(RowGroup::new).collect();
    let blocks = c.column_blocks(BLOCK).into_par_iter().zip(w.par_chunks(BLOCK * width));
    blocks.for_each(|((_, mut c), w)| {
        PANEL.with_borrow_mut(|panel| {
            panel.resize(MAX_DEPTH.min(width), [0.0; LANES]);
            for (first, w) in (0..).step_by(LANES).zip(w.chunks(LANES * width)) {
                for start in (0..width).step_by(MAX_DEPTH) {
                    let panel = &mut panel[..MAX_DEPTH.min(width - start)];
                    // SAFETY: the processor has the instructions.
                    unsafe { transpose(w, width, start, panel) };
                    for (row, group) in (0..).step_by(GROUP).zip(&groups) {
                        // SAFETY: the processor has the instructions.
                        unsafe { group.multiply(&mut c, (row, first), start, panel, add || start > 0) };
                    }
                }
            }
        });
    });
}

/// Up to [`GROUP`] rows of `x`, transposed.
struct RowGroup {
    rows: usize,
    /// `rows`, made a power of two by rows of zeros.
    padded: usize,
    /// `[inner, padded]`.
    columns: Vec<f32>,
}

impl RowGroup {
    fn new(rows: &[&[f32]]) -> RowGroup {
        let (padded, width) = (rows.len().next_power_of_two(), rows[0].len());
        let mut columns = vec![0.0; padded * width];
        for (i, row) in rows.iter().enumerate() {
            columns.iter_mut().skip(i).step_by(padded).zip(*row).for_each(|(to, from)| *to = *from);
        }
        RowGroup { rows: rows.len(), padded, columns }
    }

    /// # Safety
    /// The processor has the instructions ([`is_available`]).
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn multiply(
        &self,
        c: &mut ColumnBlock<'_>,
        at: (usize, usize),
        start: usize,
        panel: &[[f32; LANES]],
        add: bool,
    ) {
        match self.padded {
            1 => self.multiply_rows::<1>(c, at, start, panel, add),
            2 => self.multiply_rows::<2>(c, at, start, panel, add),
            4 => self.multiply_rows::<4>(c, at, start, panel, add),
            8 => self.multiply_rows::<8>(c, at, start, panel, add),
            _ => self.multiply_rows::<GROUP>(c, at, start, panel, add),
        }
    }

    /// Write or add the products of `R` padded rows with a panel: to the columns from `at.1` on, in the rows from `at.0` on.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn multiply_rows<const R: usize>(
        &self,
        c: &mut ColumnBlock<'_>,
        (row, first): (usize, usize),
        start: usize,
        panel: &[[f32; LANES]],
        add: bool,
    ) {
        let mut sums = [_mm512_setzero_ps(); R];
        let (columns, _) = self.columns[start * R..].as_chunks::<R>();
        for (w, x) in panel.iter().zip(columns) {
            // SAFETY: sixteen numbers.
            let w = unsafe { _mm512_loadu_ps(w.as_ptr()) };
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum = _mm512_fmadd_ps(_mm512_set1_ps(*x), w, *sum);
            }
        }
        let mask = lanes(c.cols() - first);
        for (i, sum) in sums.into_iter().enumerate().take(self.rows) {
            let to = c.at(row + i, first);
            // SAFETY: inside the block, which nothing else writes to, and initialized if it is read.
            unsafe {
                let held = if add { _mm512_maskz_loadu_ps(mask, to) } else { _mm512_setzero_ps() };
                _mm512_mask_storeu_ps(to, mask, if add { _mm512_add_ps(held, sum) } else { sum });
            }
        }
    }
}

/// The first `count` lanes, at most all.
fn lanes(count: usize) -> __mmask16 {
    if count >= LANES { !0 } else { (1 << count) - 1 }
}

/// The columns of `w` from `start` on, as many as there are in `panel`. Lanes beyond the rows of `w` hold zeros.
///
/// # Safety
/// The processor has the instructions ([`is_available`]).
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn transpose<T: Stored>(w: &[T], width: usize, start: usize, panel: &mut [[f32; LANES]]) {
    let rows = w.len() / width;
    for (k, columns) in (start..).step_by(LANES).zip(panel.chunks_mut(LANES)) {
        let mask = lanes(columns.len());
        let mut block = [_mm512_setzero_ps(); LANES];
        for (i, row) in block.iter_mut().enumerate().take(rows) {
            let from = w[i * width + k..].as_ptr();
            // SAFETY: as many numbers as `mask` has lie before the end of the row. What is prefetched need not exist.
            unsafe {
                // The same place of the next sixteen rows.
                _mm_prefetch::<_MM_HINT_T1>(from.wrapping_add(LANES * width).cast());
                *row = T::load(from, mask);
            }
        }
        for (to, column) in columns.iter_mut().zip(transposed(block)) {
            // SAFETY: sixteen numbers.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), column) };
        }
    }
}

/// The transpose of sixteen rows of sixteen numbers.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(r: [__m512; LANES]) -> [__m512; LANES] {
    // Of each four rows, the pairs and then the fours of neighbours that become neighbours below each other.
    let mut fours = [_mm512_setzero_ps(); LANES];
    for q in 0..4 {
        let [a, b, c, d] = [r[4 * q], r[4 * q + 1], r[4 * q + 2], r[4 * q + 3]];
        let [ab_low, ab_high] = [_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)];
        let [cd_low, cd_high] = [_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)];
        let pd = |low: __m512, high: __m512| {
            let (low, high) = (_mm512_castps_pd(low), _mm512_castps_pd(high));
            [_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)), _mm512_castpd_ps(_mm512_unpackhi_pd(low, high))]
        };
        [fours[4 * q], fours[4 * q + 1]] = pd(ab_low, cd_low);
        [fours[4 * q + 2], fours[4 * q + 3]] = pd(ab_high, cd_high);
    }
    // fours[4 q + i] holds, in each quarter j, column 4 j + i of rows 4 q to 4 q + 3.
    let mut columns = [_mm512_setzero_ps(); LANES];
    for i in 0..4 {
        let [a, b, c, d] = [fours[i], fours[4 + i], fours[8 + i], fours[12 + i]];
        let [ab_even, ab_odd] = [_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b)];
        let [cd_even, cd_odd] = [_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d)];
        columns[i] = _mm512_shuffle_f32x4::<0x88>(ab_even, cd_even);
        columns[4 + i] = _mm512_shuffle_f32x4::<0x88>(ab_odd, cd_odd);
        columns[8 + i] = _mm512_shuffle_f32x4::<0xdd>(ab_even, cd_even);
        columns[12 + i] = _mm512_shuffle_f32x4::<0xdd>(ab_odd, cd_odd);
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::matmul::{Matrix, matmul};

    #[test]
    fn products_are_those_of_matmul_to_the_last_bit() {
        if !is_available() {
            return;
        }
        let numbers = |n: usize, step: f32| -> Vec<f32> { (0..n).map(|i| (i as f32 * step).sin()).collect() };
        for (rows, width, cols) in [
            (1, 1, 1),
            (1, 700, 300),
            (2, 16, 17),
            (3, 33, 64),
            (5, 512, 65),
            (16, 513, 40),
            (17, 1100, 130),
            (64, 1536, 70),
        ] {
            let (x, w) = (numbers(rows * width, 0.37), numbers(cols * width, 0.73));
            let half: Vec<bf16> = w.iter().copied().map(bf16::from_f32).collect();
            let wide: Vec<f32> = half.iter().map(|n| n.to_f32()).collect();
            let x_rows: Vec<&[f32]> = x.chunks(width).collect();
            for add in [false, true] {
                let product = |w: &[f32]| {
                    let mut c = vec![0.25; rows * (cols + 3)];
                    let (x, w) = (Matrix::new(&x, rows, width, width), Matrix::new(w, cols, width, width).t());
                    matmul(MatrixMut::new(&mut c, rows, cols, cols + 3), x, w, add, false);
                    c
                };
                let mut c = vec![0.25; rows * (cols + 3)];
                few_rows_t(MatrixMut::new(&mut c, rows, cols, cols + 3), &x_rows, &w, width, add);
                assert!(c == product(&w), "f32, {rows} x {width} x {cols}, add {add}");
                let mut c = vec![0.25; rows * (cols + 3)];
                few_rows_t(MatrixMut::new(&mut c, rows, cols, cols + 3), &x_rows, &half, width, add);
                assert!(c == product(&wide), "bf16, {rows} x {width} x {cols}, add {add}");
            }
        }
    }
}
