//! Products of packed bf16 tiles with f32 sums, by the instructions that a processor has for them: AMX (Intel) or AVX512-BF16.
//!
//! A [`Tile`] is 16 rows of 32 inner elements for the left factor, or 16 pairs of inner elements of 16 columns for the right one. Both
//! instructions read these layouts; a left factor of bf16 rows may also lie in memory as it is ([`LeftPanel`]). An element of the product is one chain of sums over the inner dimension, from its start to its
//! end: it depends on its row and its column alone.

use super::matmul::Matrix;
use half::bf16;
use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::{MaybeUninit, transmute};

/// Rows or columns of a tile.
pub const LEAD: usize = 16;
/// Inner elements of a tile.
pub const DEPTH: usize = 32;

/// 16 x 32 elements. Aligned to a cache line, and each row or pair takes one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Tile([u16; LEAD * DEPTH]);

/// 2 x 2 tiles of the product, one after another, each row-major.
#[repr(C, align(64))]
pub struct Sums(pub [f32; 4 * LEAD * LEAD]);

impl Default for Sums {
    fn default() -> Self {
        Sums([0.0; 4 * LEAD * LEAD])
    }
}

/// The instructions that multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instructions {
    /// `tdpbf16ps`, on Intel processors.
    Amx,
    /// `vdpbf16ps`.
    Avx512Bf16,
}

impl Instructions {
    /// As Intel's manuals call them.
    pub fn name(self) -> &'static str {
        match self {
            Instructions::Amx => "AMX",
            Instructions::Avx512Bf16 => "AVX512-BF16",
        }
    }

    /// Those that multiply in bf16 faster than this processor multiplies in f32; `None` if there are none.
    pub fn detect() -> Option<Instructions> {
        // Intel's cores execute vdpbf16ps at less than half the rate of AMD's: f32 is faster there.
        let fast = if has_amx() { Some(Instructions::Amx) } else { is_amd().then_some(Instructions::Avx512Bf16) };
        fast.filter(|_| has_avx512_bf16())
    }
}

/// Whether [`pack_panels`] and `vdpbf16ps` can be executed.
pub fn has_avx512_bf16() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
}

/// Whether the processor is AMD's.
fn is_amd() -> bool {
    let id = __cpuid(0);
    [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
}

/// Whether the processor has AMX for bf16 and the system lets this process use it; asks for it.
#[cfg(target_os = "linux")]
fn has_amx() -> bool {
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    if __cpuid(0).eax < 7 || __cpuid_count(7, 0).edx & (AMX_BF16 | AMX_TILE) != AMX_BF16 | AMX_TILE {
        return false;
    }
    // arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA), for all threads: see Documentation/arch/x86/xstate.rst of Linux.
    let mut result: i64 = 158;
    // SAFETY: the system call reads and writes no memory of the process.
    unsafe {
        asm!("syscall", inlateout("rax") result, in("rdi") 0x1023, in("rsi") 18, out("rcx") _, out("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn has_amx() -> bool {
    false
}

/// The tiles of AMX on this thread, configured while this lives.
pub struct AmxTiles(());

impl AmxTiles {
    /// # Safety
    /// [`Instructions::Amx`] has been detected. The value must be dropped on the thread that made it.
    pub unsafe fn configure() -> Self {
        #[repr(C, align(64))]
        struct Config {
            palette: u8,
            start: u8,
            reserved: [u8; 14],
            bytes_of_row: [u16; 16],
            rows: [u8; 16],
        }
        let (mut bytes_of_row, mut rows) = ([0; 16], [0; 16]);
        bytes_of_row[..8].fill(64);
        rows[..8].fill(LEAD as u8);
        let config = Config { palette: 1, start: 0, reserved: [0; 14], bytes_of_row, rows };
        // SAFETY: the processor has AMX; the configuration is 64 bytes of a valid palette.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly)) };
        AmxTiles(())
    }
}

impl Drop for AmxTiles {
    fn drop(&mut self) {
        // SAFETY: made where AMX was detected.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// A panel of a left factor: 16 lines of 64 bytes for each tile.
#[derive(Clone, Copy)]
pub struct LeftPanel {
    start: *const u8,
    /// Bytes from one line of a tile to the next, and from one tile to the next.
    line: usize,
    tile: usize,
}

impl LeftPanel {
    /// A panel that [`pack_panels`] has written.
    pub fn packed(tiles: &[Tile]) -> LeftPanel {
        LeftPanel { start: tiles.as_ptr().cast(), line: 2 * DEPTH, tile: size_of::<Tile>() }
    }

    /// Rows `first..first + 16` of a matrix as they lie in memory; `None` if they are not that of whole tiles.
    pub fn in_place(m: Matrix<'_, bf16>, first: usize) -> Option<LeftPanel> {
        let ((rows, cols), (data, row_stride, col_stride)) = (m.shape(), m.layout());
        let whole = first + LEAD <= rows && cols > 0 && cols.is_multiple_of(DEPTH) && col_stride == 1;
        let start = data.wrapping_add(first * row_stride).cast();
        whole.then_some(LeftPanel { start, line: 2 * row_stride, tile: 2 * DEPTH })
    }
}

/// The product of two panels of rows and two panels of columns, `depth` tiles each.
///
/// # Safety
/// The instructions have been detected; with AMX, [`AmxTiles`] live on this thread. Each panel is valid for `depth` (not 0) tiles.
pub unsafe fn multiply(
    instructions: Instructions,
    a: [LeftPanel; 2],
    b: [*const Tile; 2],
    depth: usize,
    sums: &mut Sums,
) {
    // SAFETY: as the caller promises.
    unsafe {
        match instructions {
            Instructions::Amx => multiply_amx(a, b, depth, sums),
            Instructions::Avx512Bf16 => {
                let (upper, lower) = sums.0.split_at_mut(2 * LEAD * LEAD);
                multiply_avx512(a[0], b, depth, upper);
                multiply_avx512(a[1], b, depth, lower);
            }
        }
    }
}

unsafe fn multiply_amx([a0, a1]: [LeftPanel; 2], [b0, b1]: [*const Tile; 2], depth: usize, sums: &mut Sums) {
    debug_assert!(a0.line == a1.line && a0.tile == a1.tile);
    // SAFETY: reads `depth` tiles of each panel and writes the four tiles of `sums`.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a0} + {line}]",
            "tileloadd tmm6, [{b0} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b1} + {row}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {line}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a0}, {tile}",
            "add {a1}, {tile}",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "dec {depth}",
            "jnz 2b",
            "tilestored [{sums} + {row}], tmm0",
            "tilestored [{sums} + {row} + 1024], tmm1",
            "tilestored [{sums} + {row} + 2048], tmm2",
            "tilestored [{sums} + {row} + 3072], tmm3",
            a0 = inout(reg) a0.start => _,
            a1 = inout(reg) a1.start => _,
            b0 = inout(reg) b0 => _,
            b1 = inout(reg) b1 => _,
            depth = inout(reg) depth => _,
            line = in(reg) a0.line,
            tile = in(reg) a0.tile,
            row = in(reg) 64usize,
            sums = in(reg) sums.0.as_mut_ptr(),
            options(nostack),
        );
    }
}

/// Two tiles of the product, one panel of rows by two of columns: eight rows at a time, whose sums fit the registers.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn multiply_avx512(a: LeftPanel, [b0, b1]: [*const Tile; 2], depth: usize, sums: &mut [f32]) {
    const ROWS: usize = 8;
    let line = a.line;
    for first in (0..LEAD).step_by(ROWS) {
        let mut acc = [[_mm512_setzero_ps(); 2]; ROWS];
        for tile in 0..depth {
            // SAFETY: `tile` is below `depth`.
            let (a, b0, b1) = unsafe {
                let lines = a.start.add(tile * a.tile + first * a.line);
                (lines, b0.add(tile).cast::<u8>(), b1.add(tile).cast::<u8>())
            };
            for pair in 0..DEPTH / 2 {
                // SAFETY: inside the tiles: 16 pairs of 64 bytes; 16 rows of 16 pairs of 4 bytes.
                let b: [__m512bh; 2] = unsafe {
                    [b0, b1].map(|b| transmute::<__m512i, __m512bh>(_mm512_load_si512(b.add(pair * 64).cast())))
                };
                for (row, acc) in acc.iter_mut().enumerate() {
                    // SAFETY: as above.
                    let a = unsafe { a.add(row * line + pair * 4).cast::<i32>().read_unaligned() };
                    // SAFETY: both types are 512 bits.
                    let a = unsafe { transmute::<__m512i, __m512bh>(_mm512_set1_epi32(a)) };
                    *acc = [_mm512_dpbf16_ps(acc[0], a, b[0]), _mm512_dpbf16_ps(acc[1], a, b[1])];
                }
            }
        }
        for (row, acc) in acc.iter().enumerate() {
            for (half, acc) in acc.iter().enumerate() {
                let to = &mut sums[half * LEAD * LEAD + (first + row) * LEAD..][..LEAD];
                // SAFETY: 16 elements.
                unsafe { _mm512_storeu_ps(to.as_mut_ptr(), *acc) };
            }
        }
    }
}

/// A row-major place in memory: its first element and the elements from one row to the next.
#[derive(Clone, Copy)]
pub struct Place {
    /// The first element.
    pub start: *mut f32,
    /// Elements from one row to the next.
    pub stride: usize,
}

impl Place {
    /// The same from another row and column on.
    pub fn from(self, row: usize, column: usize) -> Place {
        Place { start: self.start.wrapping_add(row * self.stride + column), ..self }
    }
}

/// Write `rows` rows of `cols` elements (at most 16 of each) of a tile of sums, or of its transpose, to `to`, each element added to the sum
/// of those of `plus`.
///
/// # Safety
/// AVX-512 has been detected; the places are valid for these elements.
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn write_tile(
    sums: &[f32],
    transposed: bool,
    to: Place,
    (rows, cols): (usize, usize),
    plus: &[Option<Place>; 2],
) {
    let sums: &[f32; LEAD * LEAD] = sums.first_chunk().expect("a tile");
    // SAFETY: lines of the tile, which holds 256 elements.
    let mut lines: [__m512i; LEAD] =
        std::array::from_fn(|i| unsafe { _mm512_loadu_si512(sums.as_ptr().add(i * LEAD).cast()) });
    if transposed {
        transpose(&mut lines);
    }
    let mask = ((1u32 << cols) - 1) as u16;
    // SAFETY: masked elements are neither read nor written; the caller vouches for the others.
    unsafe {
        for (row, line) in lines[..rows].iter().enumerate() {
            let load = |place: Place| _mm512_maskz_loadu_ps(mask, place.from(row, 0).start);
            let line = _mm512_castsi512_ps(*line);
            let line = match *plus {
                [Some(one), Some(two)] => _mm512_add_ps(_mm512_add_ps(load(one), load(two)), line),
                [Some(one), None] | [None, Some(one)] => _mm512_add_ps(load(one), line),
                [None, None] => line,
            };
            _mm512_mask_storeu_ps(to.from(row, 0).start, mask, line);
        }
    }
}

/// Elements that can be packed.
pub trait Element: Copy + Send + Sync {
    /// `count` (at most 32) contiguous elements as bf16, then zeros.
    ///
    /// # Safety
    /// [`has_avx512_bf16`]; `from` is valid for `count` elements.
    unsafe fn load(from: *const Self, count: usize) -> __m512i;

    /// `count` (at most 16) contiguous elements from each pointer as bf16, then zeros: those of the first in the lower half. A null
    /// pointer stands for zeros.
    ///
    /// # Safety
    /// As [`Element::load`].
    unsafe fn load_two(from: [*const Self; 2], count: usize) -> __m512i;
}

impl Element for f32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn load(from: *const f32, count: usize) -> __m512i {
        let second = if count > 16 { from.wrapping_add(16) } else { std::ptr::null() };
        // SAFETY: as the caller promises.
        let of = |from: *const f32, count| unsafe { load_f32(from, count) };
        let (low, high) = (of(from, count.min(16)), of(second, count.saturating_sub(16)));
        // SAFETY: both are 512 bits.
        unsafe { transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn load_two([first, second]: [*const f32; 2], count: usize) -> __m512i {
        // SAFETY: as the caller promises; both types are 512 bits.
        unsafe { transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(load_f32(second, count), load_f32(first, count))) }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_f32(from: *const f32, count: usize) -> __m512 {
    let mask = if from.is_null() { 0 } else { ((1u32 << count) - 1) as u16 };
    // SAFETY: masked elements are not read.
    unsafe { _mm512_maskz_loadu_ps(mask, from) }
}

impl Element for bf16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn load(from: *const bf16, count: usize) -> __m512i {
        let mask = ((1u64 << count) - 1) as u32;
        // SAFETY: masked elements are not read.
        unsafe { _mm512_maskz_loadu_epi16(mask, from.cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn load_two(from: [*const bf16; 2], count: usize) -> __m512i {
        let [first, second] = from.map(|from| {
            let count = if from.is_null() { 0 } else { count };
            // SAFETY: masked elements are not read.
            unsafe { <bf16 as Element>::load(from, count) }
        });
        _mm512_inserti64x4::<1>(first, _mm512_castsi512_si256(second))
    }
}

/// Write rows from `first` on of `m` as panels of `depth` tiles of the inner dimension (`m`'s columns), as many as `to` has room for; what
/// lies outside of `m` is zero. `pairs` writes the layout of a right factor. The memory of `m` is read in its order.
///
/// # Safety
/// [`has_avx512_bf16`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn pack_panels<T: Element>(
    m: Matrix<'_, T>,
    first: usize,
    depth: usize,
    pairs: bool,
    to: &mut [MaybeUninit<Tile>],
) {
    let (data, row_stride, col_stride) = m.layout();
    let by_rows = col_stride == 1;
    let panels = to.len() / depth;
    let mut pack = |panel: usize, tile: usize| {
        let (row, col) = (first + panel * LEAD, tile * DEPTH);
        let size = (m.shape().0.saturating_sub(row).min(LEAD), m.shape().1.saturating_sub(col).min(DEPTH));
        let from = data.wrapping_add(row * row_stride + col * col_stride);
        let stride = if by_rows { row_stride } else { col_stride };
        // SAFETY: only elements of the matrix are read, and a tile is written whole.
        unsafe { pack_tile(from, stride, size, (by_rows, pairs), &mut to[panel * depth + tile]) }
    };
    if by_rows {
        (0..panels).for_each(|panel| (0..depth).for_each(|tile| pack(panel, tile)));
    } else {
        (0..depth).for_each(|tile| (0..panels).for_each(|panel| pack(panel, tile)));
    }
}

/// Write one tile, of `count` rows of `depth` elements. `stride`: from one row to the next, or, not `by_rows`, from one column to the next.
///
/// # Safety
/// As [`pack_panels`]; the elements can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_tile<T: Element>(
    from: *const T,
    stride: usize,
    (count, depth): (usize, usize),
    (by_rows, pairs): (bool, bool),
    to: &mut MaybeUninit<Tile>,
) {
    let mut lines = [_mm512_setzero_si512(); LEAD];
    // SAFETY: as the caller promises.
    unsafe {
        if by_rows {
            for (row, line) in lines[..count].iter_mut().enumerate() {
                *line = T::load(from.add(row * stride), depth);
            }
        } else {
            for (pair, line) in lines[..depth.div_ceil(2)].iter_mut().enumerate() {
                let column = from.wrapping_add(2 * pair * stride);
                let second = if 2 * pair + 1 < depth { column.wrapping_add(stride) } else { std::ptr::null() };
                *line = interleave(T::load_two([column, second], count));
            }
        }
        if by_rows == pairs {
            transpose(&mut lines);
        }
        let to = to.as_mut_ptr().cast::<__m512i>();
        for (i, line) in lines.iter().enumerate() {
            _mm512_store_si512(to.add(i), *line);
        }
    }
}

/// `[a0 .. a15, b0 .. b15]` as `[a0, b0, a1, b1, ..]`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn interleave(halves: __m512i) -> __m512i {
    let order: [u16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as u16);
    // SAFETY: both are 64 bytes.
    _mm512_permutexvar_epi16(unsafe { transmute::<[u16; 32], __m512i>(order) }, halves)
}

/// Transpose 16 x 16 pairs.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(lines: &mut [__m512i; LEAD]) {
    let mut t = *lines;
    for i in (0..LEAD).step_by(2) {
        t[i] = _mm512_unpacklo_epi32(lines[i], lines[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(lines[i], lines[i + 1]);
    }
    // Now quarters of 4 x 4 pairs: line 4 g + j holds column 4 q + j of rows 4 g .. 4 g + 4 in its quarter q.
    let mut u = t;
    for i in (0..LEAD).step_by(4) {
        u[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for j in 0..4 {
        let [a, b, c, d] = [u[j], u[j + 4], u[j + 8], u[j + 12]];
        let (ab_low, ab_high) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b));
        let (cd_low, cd_high) = (_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xee>(c, d));
        lines[j] = _mm512_shuffle_i32x4::<0x88>(ab_low, cd_low);
        lines[j + 4] = _mm512_shuffle_i32x4::<0xdd>(ab_low, cd_low);
        lines[j + 8] = _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high);
        lines[j + 12] = _mm512_shuffle_i32x4::<0xdd>(ab_high, cd_high);
    }
}
