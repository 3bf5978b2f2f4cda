//! The two passes with instructions that the compiler does not find: a sum of two products of 16 bits each.
//! Results are those of the plain passes.

use super::weights::{BEYOND, FRACTION_BITS, WEIGHT_BITS, Weights};
use std::arch::x86_64::*;

/// Values that `down` works on at once.
pub const BLOCK: usize = 32;
/// Taps that `across` works on at once, and the values it reads for them.
const TAPS: usize = 4;
const READ: usize = 14;

/// [`super::down`] for rows of at least [`BLOCK`] values.
#[target_feature(enable = "avx2")]
pub fn down(photo: &[u8], stride: usize, weights: &Weights, out: &mut [i16]) {
    let width = out.len() / weights.spans.len();
    assert!(width >= BLOCK, "rows of {width} values are too short");
    for (i, line) in out.chunks_exact_mut(width).enumerate() {
        let (first, weights) = weights.of(i);
        for at in (0..width).step_by(BLOCK) {
            // The last block overlaps the one before.
            let at = at.min(width - BLOCK);
            let rows = photo[first * stride + at..].chunks(stride).map_while(|row| row.first_chunk::<BLOCK>());
            if let Some(line) = line[at..].first_chunk_mut::<BLOCK>() {
                down_block(rows, weights, line);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn down_block<'a>(mut rows: impl Iterator<Item = &'a [u8; BLOCK]>, weights: &[i16], out: &mut [i16; BLOCK]) {
    const DROPPED: i32 = (WEIGHT_BITS - FRACTION_BITS) as i32;
    let zero = _mm256_setzero_si256();
    let half = _mm256_set1_epi32(1 << (DROPPED - 1));
    let (mut a, mut b, mut c, mut d) = (half, half, half, half);
    for pair in weights.chunks(2) {
        let Some(upper) = rows.next() else { break };
        let upper = load(upper);
        let lower = match rows.next() {
            Some(row) if pair.len() == 2 => load(row),
            _ => zero,
        };
        let weights = _mm256_set1_epi32(both(pair[0], pair.get(1).copied().unwrap_or(0)));
        // Values that stand below each other become neighbours, then 16 bits wide. Halves of a vector stay apart.
        let low = _mm256_unpacklo_epi8(upper, lower);
        let high = _mm256_unpackhi_epi8(upper, lower);
        a = _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_unpacklo_epi8(low, zero), weights));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(_mm256_unpackhi_epi8(low, zero), weights));
        c = _mm256_add_epi32(c, _mm256_madd_epi16(_mm256_unpacklo_epi8(high, zero), weights));
        d = _mm256_add_epi32(d, _mm256_madd_epi16(_mm256_unpackhi_epi8(high, zero), weights));
    }
    let low = _mm256_packs_epi32(_mm256_srai_epi32::<DROPPED>(a), _mm256_srai_epi32::<DROPPED>(b));
    let high = _mm256_packs_epi32(_mm256_srai_epi32::<DROPPED>(c), _mm256_srai_epi32::<DROPPED>(d));
    let [first, second] = [_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high)];
    let (left, right) = out.split_at_mut(BLOCK / 2);
    // SAFETY: each half is 16 values of 16 bits, as long as a vector.
    unsafe {
        _mm256_storeu_si256(left.as_mut_ptr().cast(), first);
        _mm256_storeu_si256(right.as_mut_ptr().cast(), second);
    }
}

/// [`super::across`].
#[target_feature(enable = "avx2")]
pub fn across(rows: &[i16], stride: usize, weights: &Weights, out: &mut [u8]) {
    const DROPPED: i32 = (WEIGHT_BITS + FRACTION_BITS) as i32;
    let half = _mm_set1_epi32(1 << (DROPPED - 1));
    // Of two pixels, each channel's two values become neighbours.
    let pairs = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, -1, -1, -1, -1));
    let per_pixel = weights.stride.div_ceil(TAPS);
    let lanes = lanes(weights, per_pixel);
    for (y, line) in out.chunks_exact_mut(weights.spans.len() * 3).enumerate() {
        let row = &rows[y * stride..(y + 1) * stride + BEYOND];
        let pixels = line.as_chunks_mut::<3>().0.iter_mut().zip(&weights.spans).zip(lanes.chunks_exact(per_pixel));
        for ((pixel, &(first, count)), weights) in pixels {
            let weights = &weights[..count.div_ceil(TAPS)];
            let mut sum = _mm256_setzero_si256();
            for (values, weights) in row[first * 3..].windows(READ).step_by(3 * TAPS).zip(weights) {
                // SAFETY: 8 values of 16 bits are as long as the vector, and there are 8 from the start and 8 from the sixth on.
                let two = unsafe { _mm256_loadu2_m128i(values[6..].as_ptr().cast(), values.as_ptr().cast()) };
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_shuffle_epi8(two, pairs), *weights));
            }
            let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
            let sum = _mm_srai_epi32::<DROPPED>(_mm_add_epi32(sum, half));
            let bytes = _mm_packus_epi16(_mm_packs_epi32(sum, sum), sum);
            let [red, green, blue, _] = _mm_cvtsi128_si32(bytes).to_le_bytes();
            *pixel = [red, green, blue];
        }
    }
}

/// Weights as `across` multiplies with them: of each two neighbours, once for each channel; four in a vector.
#[target_feature(enable = "avx2")]
fn lanes(weights: &Weights, per_pixel: usize) -> Vec<__m256i> {
    let mut lanes = vec![_mm256_setzero_si256(); weights.spans.len() * per_pixel];
    for (i, lanes) in lanes.chunks_exact_mut(per_pixel).enumerate() {
        for (lanes, taps) in lanes.iter_mut().zip(weights.of(i).1.chunks(TAPS)) {
            let at = |i: usize| taps.get(i).copied().unwrap_or(0);
            let (near, far) = (both(at(0), at(1)), both(at(2), at(3)));
            *lanes = _mm256_setr_epi32(near, near, near, 0, far, far, far, 0);
        }
    }
    lanes
}

/// Two weights in the place of one of twice their width.
fn both(first: i16, second: i16) -> i32 {
    i32::from(first) & 0xFFFF | i32::from(second) << 16
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(values: &[u8; BLOCK]) -> __m256i {
    // SAFETY: 32 bytes are as long as the vector.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}
