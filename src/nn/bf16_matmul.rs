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
    use std::sync::OnceLock;

    /// Columns of the product that a thread computes at a time, at most. Their panels stay in its second-level cache.
    const BLOCK_COLUMNS: usize = 256;
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
        let (a, b) = (pack(a, false, depth), pack(b.t(), true, depth));
        let share = cols.div_ceil(rayon::current_num_threads()).next_multiple_of(PAIR);
        c.column_blocks(share.min(BLOCK_COLUMNS)).into_par_iter().for_each(|(first, mut c)| {
            // SAFETY: the processor has the instructions.
            let _configured = (instructions == Instructions::Amx).then(|| unsafe { AmxTiles::configure() });
            let b = &b[first / LEAD * depth..];
            for row in (0..rows).step_by(PAIR) {
                for column in (0..c.cols()).step_by(PAIR) {
                    let (a, b) = (&a[row / LEAD * depth..][..2 * depth], &b[column / LEAD * depth..][..2 * depth]);
                    let mut sums = Sums::default();
                    let panels = |tiles: &[Tile]| [tiles[..depth].as_ptr(), tiles[depth..].as_ptr()];
                    // SAFETY: as above; two panels of `depth` tiles each.
                    unsafe { multiply(instructions, panels(a), panels(b), depth, &mut sums) };
                    write(&mut c, (row, rows), column, &sums, add);
                }
            }
        });
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

    /// The rows of `m` in panels of `depth` tiles, an even number of panels.
    fn pack<T: Element>(m: Matrix<'_, T>, pairs: bool, depth: usize) -> Vec<Tile> {
        let panels = m.shape().0.div_ceil(PAIR) * 2;
        let mut tiles = Vec::with_capacity(panels * depth);
        tiles.spare_capacity_mut()[..panels * depth].par_chunks_mut(depth).enumerate().with_min_len(2).for_each(
            |(panel, to)| {
                // SAFETY: products in bf16 need the instructions of packing, too.
                unsafe { pack_panel(m, panel * LEAD, pairs, to) };
            },
        );
        // SAFETY: every panel has been written.
        unsafe { tiles.set_len(panels * depth) };
        tiles
    }
}
