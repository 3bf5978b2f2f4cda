//! Matrix products in bf16 with f32 sums, on processors that compute them faster than in f32: those with AMX, and AMD's with AVX512-BF16.
//!
//! Both factors are rounded to bf16 (to nearest, ties to even) and packed into tiles; the product stays f32. An element of the product
//! depends only on its row of `a` and its column of `b`, to the last bit: not on the number of other rows and columns, nor on the number
//! of threads.
//!
//! The kernel is our own: of the crates that were looked at, gemmkit 0.1.2 has no AMX, and tract-linalg needs a C compiler to build.

#[cfg(target_arch = "x86_64")]
pub use tiles::{bf16_instructions, matmul_bf16, matmul_t_bf16};

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

/// Other processors have no kernel yet.
#[cfg(not(target_arch = "x86_64"))]
pub fn matmul_t_bf16(
    _: super::MatrixMut<'_>,
    _: super::Matrix<'_>,
    _: &[super::Matrix<'_, half::bf16>],
    _: [Option<super::Matrix<'_>>; 2],
) {
    unreachable!("bf16_instructions() is None")
}

#[cfg(target_arch = "x86_64")]
mod tiles {
    use crate::nn::bf16_kernel::{
        AmxTiles, DEPTH, Element, Instructions, LEAD, LeftPanel, Place, Sums, Tile, multiply, pack_panels, write_tile,
    };
    use crate::nn::matmul::{ColumnBlock, Matrix, MatrixMut};
    use half::bf16;
    use rayon::prelude::*;
    use std::cell::RefCell;
    use std::mem::MaybeUninit;
    use std::sync::OnceLock;

    thread_local! {
        /// Packed columns of `b`, or packed rows of a weight.
        static PACKED: RefCell<Vec<Tile>> = const { RefCell::new(Vec::new()) };
    }

    /// Columns of the product that a thread computes at a time, at most.
    const BLOCK_COLUMNS: usize = 256;
    /// Tiles of `b` in their panels, at most (but for very deep products): 1 MB, which stays in the core's second-level cache.
    const BLOCK_TILES: usize = 1024;
    /// The same of the rows that a weight is multiplied with: 1.5 MB.
    const ROW_TILES: usize = 1536;
    /// A weight is read in place for at most so many rows: for more, packing it costs less than to transpose the product.
    const ROWS_IN_PLACE: usize = 256;
    /// Panels that a thread packs at a time.
    const PANELS: usize = 4;
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

    /// `c = x w^T`, each element added to the sum of those of `plus`, for the rows of several weights, one below the other. Weights
    /// of whole tiles are read as they lie in memory, each element once for a few hundred rows of `x`. The products are those of
    /// [`matmul_bf16`], to the last bit.
    ///
    /// # Panics
    /// If [`bf16_instructions`] is `None`.
    pub fn matmul_t_bf16(c: MatrixMut<'_>, x: Matrix<'_>, weights: &[Matrix<'_, bf16>], plus: [Option<Matrix<'_>>; 2]) {
        let instructions = instructions().expect("the processor has products in bf16");
        // SAFETY: detected.
        unsafe { matmul_t_by(instructions, c, x, weights, plus) }
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
        let width = block_columns(cols, inner);
        let blocks = c.column_blocks(width).into_iter().map(|(first, mut c)| {
            let (to, count) = (place_of(&mut c), c.cols());
            Block { c, to, right: b.columns(first, count).t(), plus: [add.then_some(to), None] }
        });
        // SAFETY: as the caller promises.
        unsafe { by_packed_columns(instructions, a, blocks.collect()) }
    }

    /// # Safety
    /// The processor has `instructions`.
    pub(super) unsafe fn matmul_t_by(
        instructions: Instructions,
        c: MatrixMut<'_>,
        x: Matrix<'_>,
        weights: &[Matrix<'_, bf16>],
        plus: [Option<Matrix<'_>>; 2],
    ) {
        let (rows, inner) = x.shape();
        let outs = weights.iter().map(|w| w.shape().0).sum();
        let fits =
            weights.iter().all(|w| w.shape().1 == inner) && plus.iter().flatten().all(|m| m.shape() == c.shape());
        assert!(fits && c.shape() == (rows, outs), "matrix shapes do not fit");
        if rows == 0 || outs == 0 {
            return;
        }
        let width = block_columns(outs, inner);
        // No block of rows lies in two weights.
        let parts = weights.iter().flat_map(|w| {
            let count = w.shape().0;
            (0..count).step_by(width).map(move |first| w.rows(first, width.min(count - first)))
        });
        let parts: Vec<Matrix<'_, bf16>> = parts.collect();
        let columns = c.blocks_of(parts.iter().map(|w| w.shape().0));
        let blocks = columns.into_iter().zip(parts).map(|((first, mut c), right)| {
            let plus = plus.map(|m| m.map(|m| readable(m).from(0, first)));
            Block { to: place_of(&mut c), c, right, plus }
        });
        // SAFETY: as the caller promises.
        unsafe {
            match rows <= ROWS_IN_PLACE {
                true => by_rows_in_place(instructions, x, blocks.collect()),
                false => by_packed_columns(instructions, x, blocks.collect()),
            }
        }
    }

    /// Some columns of a product.
    struct Block<'a, B> {
        c: ColumnBlock<'a>,
        to: Place,
        /// The columns of the right factor, as rows.
        right: Matrix<'a, B>,
        /// What is added, from the first of the columns on.
        plus: [Option<Place>; 2],
    }

    // SAFETY: the places are those of `c` and of matrices that are shared with other threads.
    unsafe impl<B: Sync> Send for Block<'_, B> {}

    /// The widest block of a product of `cols` columns: the threads share them, and the packed columns stay in the core's cache.
    fn block_columns(cols: usize, inner: usize) -> usize {
        let share = cols.div_ceil(rayon::current_num_threads()).next_multiple_of(PAIR);
        share.min((BLOCK_TILES / depth_of(inner) * LEAD).clamp(PAIR, BLOCK_COLUMNS) / PAIR * PAIR)
    }

    /// # Safety
    /// The processor has `instructions`; the blocks have the rows of `a`.
    unsafe fn by_packed_columns<A: Element, B: Element>(
        instructions: Instructions,
        a: Matrix<'_, A>,
        blocks: Vec<Block<'_, B>>,
    ) {
        let (rows, depth) = (a.shape().0, depth_of(a.shape().1));
        // SAFETY: products in bf16 need the instructions of packing, too.
        let left = unsafe { pack(a, depth, false) };
        blocks.into_par_iter().for_each(|Block { c, to, right: b, plus }| {
            PACKED.with_borrow_mut(|right| {
                let (cols, mut sums) = (c.cols(), Sums::default());
                // SAFETY: as above; every panel is written.
                unsafe {
                    pack_panels(b, 0, depth, true, room(right, cols, depth));
                    right.set_len(tiles_of(cols, depth));
                }
                // SAFETY: the processor has the instructions.
                let _configured = (instructions == Instructions::Amx).then(|| unsafe { AmxTiles::configure() });
                for (row, a) in (0..rows).step_by(PAIR).zip(left.chunks(2 * depth)) {
                    let a = [&a[..depth], &a[depth..]].map(LeftPanel::packed);
                    for (column, b) in (0..cols).step_by(PAIR).zip(right.chunks(2 * depth)) {
                        // SAFETY: as above; two panels of `depth` tiles each; what is written is inside the block.
                        unsafe {
                            multiply(instructions, a, [b.as_ptr(), b[depth..].as_ptr()], depth, &mut sums);
                            write(&sums, false, to, (row, rows), (column, cols), plus);
                        }
                    }
                }
            });
        });
    }

    /// The transpose of the product, computed: the columns are the rows of the left factor, which are read as they lie in memory if they
    /// are whole tiles, each element once for a few hundred rows of `x`.
    ///
    /// # Safety
    /// The processor has `instructions`; the blocks have the rows of `x`.
    unsafe fn by_rows_in_place(instructions: Instructions, x: Matrix<'_>, blocks: Vec<Block<'_, bf16>>) {
        let (rows, depth) = (x.shape().0, depth_of(x.shape().1));
        // SAFETY: products in bf16 need the instructions of packing, too.
        let right = unsafe { pack(x, depth, true) };
        let at_once = (ROW_TILES / (2 * depth)).max(1) * 2 * depth;
        blocks.into_par_iter().for_each(|Block { c, to, right: w, plus }| {
            let (cols, mut sums) = (c.cols(), Sums::default());
            // SAFETY: the processor has the instructions.
            let _configured = (instructions == Instructions::Amx).then(|| unsafe { AmxTiles::configure() });
            PACKED.with_borrow_mut(|packed| {
                for (chunk, right) in right.chunks(at_once).enumerate() {
                    let first_row = chunk * at_once / depth * LEAD;
                    for out in (0..cols).step_by(PAIR) {
                        let a = match [out, out + LEAD].map(|first| LeftPanel::in_place(w, first)) {
                            [Some(upper), Some(lower)] => [upper, lower],
                            _ => {
                                // SAFETY: as above; every panel is written.
                                unsafe {
                                    pack_panels(w, out, depth, false, room(packed, PAIR, depth));
                                    packed.set_len(tiles_of(PAIR, depth));
                                }
                                [&packed[..depth], &packed[depth..]].map(LeftPanel::packed)
                            }
                        };
                        for (row, b) in (first_row..rows).step_by(PAIR).zip(right.chunks(2 * depth)) {
                            // SAFETY: as above; two panels of `depth` tiles each; what is written is inside the block.
                            unsafe {
                                multiply(instructions, a, [b.as_ptr(), b[depth..].as_ptr()], depth, &mut sums);
                                write(&sums, true, to, (row, rows), (out, cols), plus);
                            }
                        }
                    }
                }
            });
        });
    }

    /// Tiles of a panel.
    fn depth_of(inner: usize) -> usize {
        inner.div_ceil(DEPTH).max(1)
    }

    /// The rows of `m` in panels of `depth` tiles, an even number of panels.
    ///
    /// # Safety
    /// See [`pack_panels`].
    unsafe fn pack<T: Element>(m: Matrix<'_, T>, depth: usize, pairs: bool) -> Vec<Tile> {
        let (mut tiles, rows) = (Vec::new(), m.shape().0);
        let groups = room(&mut tiles, rows, depth).par_chunks_mut(PANELS * depth).enumerate();
        // SAFETY: as the caller promises.
        groups.for_each(|(group, to)| unsafe { pack_panels(m, group * PANELS * LEAD, depth, pairs, to) });
        // SAFETY: every panel has been written.
        unsafe { tiles.set_len(tiles_of(rows, depth)) };
        tiles
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

    fn place_of(c: &mut ColumnBlock<'_>) -> Place {
        let (start, stride) = c.raw();
        Place { start, stride }
    }

    /// A matrix of contiguous rows as a place that is only read.
    fn readable(m: Matrix<'_>) -> Place {
        let (start, stride, col_stride) = m.layout();
        assert!(col_stride == 1 || m.cols() < 2, "rows are not contiguous");
        Place { start: start.cast_mut(), stride }
    }

    /// Write what lies inside the product. `transposed`: the columns of the sums are rows of the product.
    ///
    /// # Safety
    /// See [`write_tile`]; the places are valid for `rows` rows of `cols` elements.
    unsafe fn write(
        sums: &Sums,
        transposed: bool,
        to: Place,
        (row, rows): (usize, usize),
        (column, cols): (usize, usize),
        plus: [Option<Place>; 2],
    ) {
        for (tile, sums) in sums.0.chunks_exact(LEAD * LEAD).enumerate() {
            let (down, right) = if transposed { (tile % 2, tile / 2) } else { (tile / 2, tile % 2) };
            let (row, column) = (row + down * LEAD, column + right * LEAD);
            let size = (rows.saturating_sub(row).min(LEAD), cols.saturating_sub(column).min(LEAD));
            if size.0 > 0 && size.1 > 0 {
                let plus = plus.map(|place| place.map(|place| place.from(row, column)));
                // SAFETY: as the caller promises.
                unsafe { write_tile(sums, transposed, to.from(row, column), size, &plus) };
            }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::tiles::{matmul_by, matmul_t_by};
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

    #[test]
    fn products_with_several_weights_are_those_with_each_and_are_added_to_what_is_given() {
        for by in instructions() {
            // Read in place or packed, of whole tiles or not, few rows and many.
            for (m, k, outs) in [
                (1, 32, vec![32]),
                (3, 33, vec![5, 7]),
                (17, 64, vec![40, 32, 16]),
                (100, 96, vec![300, 64]),
                (300, 64, vec![40, 70]),
                (70, 1100, vec![33]),
                (40, 1600, vec![64]),
            ] {
                let n: usize = outs.iter().sum();
                let w: Vec<bf16> = numbers(n * k, 0.73).into_iter().map(bf16::from_f32).collect();
                let (x, residual, bias) = (numbers(m * k, 0.37), numbers(m * n, 0.5), numbers(n, 0.11));
                let want = product(by, Matrix::new(&x, m, k, k), Matrix::new(&w, n, k, k).t(), false);
                let mut rest = Matrix::new(&w, n, k, k);
                let weights: Vec<Matrix<'_, bf16>> = outs
                    .iter()
                    .map(|&out| {
                        let weight = rest.rows(0, out);
                        rest = rest.rows(out, rest.shape().0 - out);
                        weight
                    })
                    .collect();
                let of = |rows: usize, threads: usize, plus| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let mut c = vec![9.0; rows * n];
                    let to = MatrixMut::new(&mut c, rows, n, n);
                    // SAFETY: the processor has the instructions.
                    pool.install(|| unsafe { matmul_t_by(by, to, Matrix::new(&x, rows, k, k), &weights, plus) });
                    c
                };
                for (rows, threads) in [(m, 1), (m, 3), (1, 2), (m.div_ceil(2), 2)] {
                    assert!(of(rows, threads, [None; 2]) == want[..rows * n], "{by:?} {rows}x{k}x{outs:?}");
                }
                let plus = [Some(Matrix::new(&residual, m, n, n)), Some(Matrix::repeated(&bias, m))];
                let both = |i: usize| residual[i] + bias[i % n] + want[i];
                assert!(of(m, 2, plus).iter().enumerate().all(|(i, y)| *y == both(i)));
                let bias_only = of(m, 2, [None, plus[1]]);
                assert!(bias_only.iter().enumerate().all(|(i, y)| *y == bias[i % n] + want[i]));
            }
        }
    }
}
