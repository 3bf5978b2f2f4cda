//! Matrix products in bf16 with f32 sums, on processors that compute them faster than in f32: those with AMX, and AMD's with AVX512-BF16.
//!
//! Both factors are rounded to bf16 (to nearest, ties to even) and packed into tiles; the product stays f32. An element of the product
//! depends only on its row of `a` and its column of `b`, to the last bit: not on the number of other rows and columns, nor on the number
//! of threads.
//!
//! The kernel is our own: of the crates that were looked at, gemmkit 0.1.2 has no AMX, and tract-linalg needs a C compiler to build.

#[cfg(target_arch = "x86_64")]
pub use tiles::{bf16_instructions, matmul_bf16};

/// Other processors have no kernel yet.
#[cfg(not(target_arch = "x86_64"))]
pub fn bf16_instructions() -> Option<&'static str> {
    None
}

/// Other processors have no kernel yet.
#[cfg(not(target_arch = "x86_64"))]
pub fn matmul_bf16<A, B>(_: super::MatrixMut<'_>, _: super::Matrix<'_, A>, _: super::Matrix<'_, B>, _: bool) {
    unreachable!("bf16_instructions() is None")
}

#[cfg(target_arch = "x86_64")]
mod tiles {
    use crate::nn::bf16_kernel::{AmxTiles, DEPTH, Element, Instructions, LEAD, Sums, Tile, multiply, pack_panel};
    use crate::nn::matmul::{ColumnBlock, Matrix, MatrixMut};
    use rayon::prelude::*;
    use std::cell::RefCell;
    use std::mem::MaybeUninit;
    use std::sync::OnceLock;

    thread_local! {
        /// Packed columns of `b`.
        static RIGHT: RefCell<Vec<Tile>> = const { RefCell::new(Vec::new()) };
    }

    /// Columns of the product that a thread computes at a time, at most.
    const BLOCK_COLUMNS: usize = 256;
    /// Tiles of `b` in their panels, at most (but for very deep products): 1 MB, which stays in the core's second-level cache.
    const BLOCK_TILES: usize = 1024;
    /// Rows and columns that [`multiply`] computes.
    const PAIR: usize = 2 * LEAD;

    /// The instructions by which this processor multiplies in bf16, by name; `None` if it has none that are faster than f32.
    pub fn bf16_instructions() -> Option<&'static str> {
        instructions().map(Instructions::name)
    }

    fn instructions() -> Option<Instructions> {
        static DETECTED: OnceLock<Option<Instructions>> = OnceLock::new();
        *DETECTED.get_or_init(Instructions::detect)
    }

    /// `c = a b`, or `c += a b` with `add`, of factors rounded to bf16, over the rayon pool.
    ///
    /// # Panics
    /// If [`bf16_instructions`] is `None`.
    pub fn matmul_bf16<A: Element, B: Element>(c: MatrixMut<'_>, a: Matrix<'_, A>, b: Matrix<'_, B>, add: bool) {
        let instructions = instructions().expect("the processor has products in bf16");
        // SAFETY: detected.
        unsafe { matmul_by(instructions, c, a, b, add) }
    }

    /// # Safety
    /// The processor has `instructions`.
    pub(super) unsafe fn matmul_by<A: Element, B: Element>(
        instructions: Instructions,
        c: MatrixMut<'_>,
        a: Matrix<'_, A>,
        b: Matrix<'_, B>,
        add: bool,
    ) {
        let ((rows, inner), cols) = (a.shape(), b.shape().1);
        assert!(inner == b.shape().0 && c.shape() == (rows, cols), "matrix shapes do not fit");
        assert!(c.is_initialized() || !add, "cannot add to an uninitialized matrix");
        if rows == 0 || cols == 0 {
            return;
        }
        let depth = inner.div_ceil(DEPTH).max(1);
        let mut left = Vec::new();
        let panels = room(&mut left, rows, depth).par_chunks_mut(depth).enumerate().with_min_len(2);
        // SAFETY: products in bf16 need the instructions of packing, too.
        panels.for_each(|(panel, to)| unsafe { pack_panel(a, panel * LEAD, false, to) });
        // SAFETY: every panel has been written.
        unsafe { left.set_len(tiles_of(rows, depth)) };
        let share = cols.div_ceil(rayon::current_num_threads()).next_multiple_of(PAIR);
        let width = share.min((BLOCK_TILES / depth * LEAD).clamp(PAIR, BLOCK_COLUMNS) / PAIR * PAIR);
        c.column_blocks(width).into_par_iter().for_each(|(first, mut c)| {
            RIGHT.with_borrow_mut(|right| {
                let (b, cols) = (b.columns(first, c.cols()).t(), c.cols());
                let panels = room(right, cols, depth).chunks_mut(depth).enumerate();
                // SAFETY: as above.
                panels.for_each(|(panel, to)| unsafe { pack_panel(b, panel * LEAD, true, to) });
                // SAFETY: every panel has been written.
                unsafe { right.set_len(tiles_of(cols, depth)) };
                // SAFETY: the processor has the instructions.
                let _configured = (instructions == Instructions::Amx).then(|| unsafe { AmxTiles::configure() });
                for (row, a) in (0..rows).step_by(PAIR).zip(left.chunks(2 * depth)) {
                    for (column, b) in (0..cols).step_by(PAIR).zip(right.chunks(2 * depth)) {
                        let panels = |tiles: &[Tile]| [tiles[..depth].as_ptr(), tiles[depth..].as_ptr()];
                        let mut sums = Sums::default();
                        // SAFETY: as above; two panels of `depth` tiles each.
                        unsafe { multiply(instructions, panels(a), panels(b), depth, &mut sums) };
                        write(&mut c, (row, rows), column, &sums, add);
                    }
                }
            });
        });
    }

    /// Room for `lead` rows or columns in panels of `depth` tiles, in a vector whose length is 0 afterwards.
    fn room(tiles: &mut Vec<Tile>, lead: usize, depth: usize) -> &mut [MaybeUninit<Tile>] {
        let count = tiles_of(lead, depth);
        tiles.clear();
        tiles.reserve_exact(count);
        &mut tiles.spare_capacity_mut()[..count]
    }

    /// An even number of panels.
    fn tiles_of(lead: usize, depth: usize) -> usize {
        lead.div_ceil(PAIR) * 2 * depth
    }

    /// Write what lies inside the product.
    fn write(c: &mut ColumnBlock<'_>, (row, rows): (usize, usize), column: usize, sums: &Sums, add: bool) {
        for (tile, sums) in sums.0.chunks_exact(LEAD * LEAD).enumerate() {
            let (row, column) = (row + tile / 2 * LEAD, column + tile % 2 * LEAD);
            let width = c.cols().saturating_sub(column).min(LEAD);
            if width > 0 {
                for (row, sums) in (row..rows).zip(sums.chunks_exact(LEAD)) {
                    c.write_row(row, column, &sums[..width], add);
                }
            }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::tiles::matmul_by;
    use crate::nn::bf16_kernel::{Element, Instructions, has_avx512_bf16};
    use crate::nn::matmul::{Matrix, MatrixMut};
    use half::bf16;

    /// All that this processor can execute, also those that are slower than f32.
    fn instructions() -> Vec<Instructions> {
        let slow = has_avx512_bf16().then_some(Instructions::Avx512Bf16);
        slow.into_iter().chain(Instructions::detect().filter(|i| *i == Instructions::Amx)).collect()
    }

    fn numbers(n: usize, step: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * step).sin()).collect()
    }

    fn product<A: Element, B: Element>(by: Instructions, a: Matrix<'_, A>, b: Matrix<'_, B>, add: bool) -> Vec<f32> {
        let (rows, cols) = (a.shape().0, b.shape().1);
        let mut c = vec![0.25; rows * cols];
        // SAFETY: the processor has the instructions.
        unsafe { matmul_by(by, MatrixMut::new(&mut c, rows, cols, cols), a, b, add) };
        c
    }

    #[test]
    fn products_are_those_of_the_rounded_factors() {
        for by in instructions() {
            for (m, k, n) in [(1, 1, 1), (3, 5, 7), (16, 32, 16), (33, 70, 41), (100, 31, 300), (65, 1000, 33)] {
                let (a, b) = (numbers(m * k, 0.37), numbers(k * n, 0.73));
                let half = |v: &[f32]| v.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>();
                let (a_half, b_half) = (half(&a), half(&b));
                // Each factor by rows and transposed, in f32 and in bf16.
                type Get<'a> = &'a dyn Fn(usize, usize) -> f64;
                let by_rows_a: Get<'_> = &|i, l| f64::from(a_half[i * k + l].to_f32());
                let by_cols_a: Get<'_> = &|i, l| f64::from(a_half[l * m + i].to_f32());
                let by_rows_b: Get<'_> = &|l, j| f64::from(b_half[l * n + j].to_f32());
                let by_cols_b: Get<'_> = &|l, j| f64::from(b_half[j * k + l].to_f32());
                let forms = [
                    (
                        product(by, Matrix::new(&a, m, k, k), Matrix::new(&b_half, n, k, k).t(), false),
                        by_rows_a,
                        by_cols_b,
                    ),
                    (product(by, Matrix::new(&a, m, k, k), Matrix::new(&b_half, k, n, n), false), by_rows_a, by_rows_b),
                    (product(by, Matrix::new(&a, k, m, m).t(), Matrix::new(&b, k, n, n), false), by_cols_a, by_rows_b),
                    (
                        product(by, Matrix::new(&a_half, k, m, m).t(), Matrix::new(&b, n, k, k).t(), false),
                        by_cols_a,
                        by_cols_b,
                    ),
                ];
                for (form, (c, a, b)) in forms.iter().enumerate() {
                    for (at, got) in c.iter().enumerate() {
                        let terms = (0..k).map(|l| a(at / n, l) * b(l, at % n));
                        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                        // Sums are in f32.
                        assert!(
                            (f64::from(*got) - sum).abs() <= 1e-6 * (1.0 + size),
                            "{by:?} {m}x{k}x{n} form {form} at {at}: {got} against {sum}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn an_element_does_not_depend_on_the_other_rows_and_columns_nor_on_the_threads() {
        for by in instructions() {
            for inner in [1usize, 32, 100, 1100] {
                let (a, b) = (numbers(300 * inner, 0.37), numbers(300 * inner, 0.73));
                let part = |rows: usize, cols: usize, add: bool| {
                    product(by, Matrix::new(&a, rows, inner, inner), Matrix::new(&b, cols, inner, inner).t(), add)
                };
                let threads = |n: usize| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
                let whole = threads(3).install(|| part(300, 300, false));
                assert!(whole == threads(1).install(|| part(300, 300, false)));
                let added = part(300, 300, true);
                assert!(added.iter().zip(&whole).all(|(added, whole)| *added == 0.25 + whole));
                for (rows, cols) in [(1, 1), (1, 300), (2, 7), (16, 16), (17, 33), (300, 1)] {
                    let part = part(rows, cols, false);
                    for (at, got) in part.iter().enumerate() {
                        assert_eq!(*got, whole[at / cols * 300 + at % cols], "{by:?} {rows}x{inner}x{cols} at {at}");
                    }
                }
            }
        }
    }
}
