//! The two passes with instructions that the compiler does not find: a sum of two products of 16 bits each.
//! Results are those of the plain passes.
//!
//! Each value counts for about six values of the result. So values whose products are added are first put beside each other, once for all of
//! these, and the passes themselves only multiply and add.

use super::weights::{BEYOND, FRACTION_BITS, PartWeights, WEIGHT_BITS};
use std::arch::x86_64::*;

/// Values that `down` works on at once.
pub const BLOCK: usize = 32;

/// [`super::down`] for rows of at least [`BLOCK`] values.
#[target_feature(enable = "avx2")]
pub fn down(photo: &[u8], stride: usize, weights: PartWeights<'_>, out: &mut [i16]) {
    const DROPPED: i32 = (WEIGHT_BITS - FRACTION_BITS) as i32;
    let width = out.len() / weights.len();
    assert!(width >= BLOCK, "rows of {width} values are too short");
    let zero = _mm256_setzero_si256();
    let reach = weights.reach();
    let mut pairs = vec![[zero; 4]; reach.len() / 2];
    for at in (0..width).step_by(BLOCK) {
        // The last block overlaps the one before.
        let at = at.min(width - BLOCK);
        let row = |y: usize| photo.get(y * stride + at..)?.first_chunk::<BLOCK>();
        for (i, pair) in pairs.iter_mut().enumerate() {
            let Some(upper) = row(reach.start + 2 * i) else { break };
            // The photo may end before a row that has no weight.
            let (upper, lower) = (load(upper), load(row(reach.start + 2 * i + 1).unwrap_or(&[0; BLOCK])));
            // Values that stand below each other become neighbours, then 16 bits wide. Halves of a vector stay apart.
            let (low, high) = (_mm256_unpacklo_epi8(upper, lower), _mm256_unpackhi_epi8(upper, lower));
            *pair = [
                _mm256_unpacklo_epi8(low, zero),
                _mm256_unpackhi_epi8(low, zero),
                _mm256_unpacklo_epi8(high, zero),
                _mm256_unpackhi_epi8(high, zero),
            ];
        }
        for (i, line) in out.chunks_exact_mut(width).enumerate() {
            let (first, weights) = weights.of(i);
            let mut sums = [_mm256_set1_epi32(1 << (DROPPED - 1)); 4];
            for (pair, weights) in pairs[(first - reach.start) / 2..].iter().zip(weights.as_chunks().0) {
                let weights = both(weights);
                for (sum, values) in sums.iter_mut().zip(pair) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(*values, weights));
                }
            }
            for sum in &mut sums {
                *sum = _mm256_srai_epi32::<DROPPED>(*sum);
            }
            let (low, high) = (_mm256_packs_epi32(sums[0], sums[1]), _mm256_packs_epi32(sums[2], sums[3]));
            let left = _mm256_permute2x128_si256::<0x20>(low, high);
            let right = _mm256_permute2x128_si256::<0x31>(low, high);
            let line = &mut line[at..at + BLOCK];
            // SAFETY: the line has 32 values of 16 bits, as many as two vectors.
            unsafe {
                _mm256_storeu_si256(line.as_mut_ptr().cast(), left);
                _mm256_storeu_si256(line[BLOCK / 2..].as_mut_ptr().cast(), right);
            }
        }
    }
}

/// [`super::across`].
#[target_feature(enable = "avx2")]
pub fn across(rows: &[i16], stride: usize, weights: PartWeights<'_>, out: &mut [u8]) {
    const DROPPED: i32 = (WEIGHT_BITS + FRACTION_BITS) as i32;
    /// Values of two pixels, and the values read for them.
    const PAIR: usize = 6;
    const READ: usize = 8;
    // Each channel's two values become neighbours.
    let beside = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, -1, -1, -1, -1));
    let line = weights.len() * 3;
    let last = out.len() / line - 1;
    let mut pairs = vec![_mm256_setzero_si256(); stride.div_ceil(PAIR)];
    let mut spare = vec![0; line];
    // Two rows at once; the last one with itself, if they are odd in number.
    for (y, lines) in (0..).step_by(2).zip(out.chunks_mut(2 * line)) {
        let [upper, lower] = [y, last.min(y + 1)].map(|y| &rows[y * stride..(y + 1) * stride + BEYOND]);
        for (i, pair) in pairs.iter_mut().enumerate() {
            let (upper, lower) = (&upper[i * PAIR..][..READ], &lower[i * PAIR..][..READ]);
            // SAFETY: 8 values of 16 bits are as long as half the vector.
            let two = unsafe { _mm256_loadu2_m128i(lower.as_ptr().cast(), upper.as_ptr().cast()) };
            *pair = _mm256_shuffle_epi8(two, beside);
        }
        let (upper, lower) = lines.split_at_mut(line);
        let lower = if lower.is_empty() { spare.as_mut_slice() } else { lower };
        let pixels = upper.as_chunks_mut::<3>().0.iter_mut().zip(lower.as_chunks_mut::<3>().0);
        for (x, (upper, lower)) in pixels.enumerate() {
            let (first, weights) = weights.of(x);
            let mut sum = _mm256_set1_epi32(1 << (DROPPED - 1));
            for (pair, weights) in pairs[first / 2..].iter().zip(weights.as_chunks().0) {
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(*pair, both(weights)));
            }
            let sum = _mm256_srai_epi32::<DROPPED>(sum);
            let bytes = _mm256_packus_epi16(_mm256_packs_epi32(sum, sum), sum);
            for (pixel, bytes) in [(upper, _mm256_extract_epi32::<0>(bytes)), (lower, _mm256_extract_epi32::<4>(bytes))]
            {
                pixel.copy_from_slice(&bytes.to_le_bytes()[..3]);
            }
        }
    }
}

/// Two weights in the place of one of twice their width, everywhere.
#[inline]
#[target_feature(enable = "avx2")]
fn both(&[first, second]: &[i16; 2]) -> __m256i {
    _mm256_set1_epi32(i32::from(first) & 0xFFFF | i32::from(second) << 16)
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(values: &[u8; BLOCK]) -> __m256i {
    // SAFETY: 32 bytes are as long as the vector.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}
