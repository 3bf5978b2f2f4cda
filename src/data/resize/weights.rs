//! The weights of the kernel, in fixed point, for each position of the result.

use multiversion::multiversion;
use std::f64::consts::PI;
use std::ops::Range;

/// Lobes of the kernel on each side.
const LOBES: f64 = 3.0;
/// Fractional bits of a weight.
pub const WEIGHT_BITS: u32 = 14;
/// Fractional bits of a value between the passes.
pub const FRACTION_BITS: u32 = 6;
/// Values after those of the picture that [`super::across`] may read.
pub const BEYOND: usize = 12;

/// For each output position: the first input position it reads, which is even, and the fixed-point weights from there on, an even number.
/// The first and the last may be 0; the last may be of a position after the input.
pub struct Weights {
    spans: Vec<(usize, usize)>,
    values: Vec<i16>,
    stride: usize,
}

/// The [`Weights`] of some output positions that follow each other.
#[derive(Clone, Copy)]
pub struct PartWeights<'a> {
    spans: &'a [(usize, usize)],
    values: &'a [i16],
    stride: usize,
}

impl Weights {
    pub fn new(from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        let widened = scale.max(1.0);
        let reach = LOBES * widened;
        let stride = reach.ceil() as usize * 2 + 2;
        let mut spans = Vec::with_capacity(to);
        let mut values = vec![0; to * stride];
        let mut exact = vec![0.0; stride];
        for (position, row) in values.chunks_exact_mut(stride).enumerate() {
            let center = (position as f64 + 0.5) * scale;
            let first = (center - reach + 0.5).max(0.0) as usize;
            let count = ((center + reach + 0.5) as usize).min(from) - first;
            let start = (first as f64 + 0.5 - center) / widened;
            fill(&mut row[first % 2..], &mut exact[..count], start, 1.0 / widened);
            spans.push((first - first % 2, (first % 2 + count).next_multiple_of(2)));
        }
        Weights { spans, values, stride }
    }

    /// Those of the output positions `part`.
    pub fn part(&self, part: Range<usize>) -> PartWeights<'_> {
        let values = &self.values[part.start * self.stride..part.end * self.stride];
        PartWeights { spans: &self.spans[part], values, stride: self.stride }
    }
}

impl<'a> PartWeights<'a> {
    /// Number of output positions.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// The input positions that they read.
    pub fn reach(&self) -> Range<usize> {
        let first = self.spans.first().map_or(0, |&(first, _)| first);
        first..self.spans.last().map_or(first, |&(first, count)| first + count)
    }

    /// First input position and weights of output position `i`.
    pub fn of(&self, i: usize) -> (usize, &'a [i16]) {
        let (first, count) = self.spans[i];
        (first, &self.values[i * self.stride..][..count])
    }
}

/// The kernel at `start`, `start + step` and so on, as it is in `exact` and as weights in `row`.
#[multiversion(targets("x86_64+avx2"))]
fn fill(row: &mut [i16], exact: &mut [f64], start: f64, step: f64) {
    for (i, value) in (0i32..).zip(&mut *exact) {
        *value = lanczos(start + f64::from(i) * step);
    }
    let unit = f64::from(1 << WEIGHT_BITS) / exact.iter().sum::<f64>();
    // What rounding takes from one weight goes to the next, so that they add up to exactly one.
    let (mut sum, mut rounded) = (0.0, 0);
    for (fixed, weight) in row.iter_mut().zip(exact) {
        sum += *weight * unit;
        let next = (sum + 0.5).floor() as i32;
        *fixed = (next - rounded) as i16;
        rounded = next;
    }
}

/// sinc(x) sinc(x / 3) within three lobes. With sin 3a = 3 sin a - 4 sin^3 a it takes a single sine.
#[inline(always)]
fn lanczos(x: f64) -> f64 {
    // Nearer to 0 the kernel is 1 to the last bit, and the quotient 0 / 0.
    let third = (x.abs() / LOBES).clamp(1e-9, 1.0);
    let sine = sin_pi(third);
    sine * sine * (3.0 - 4.0 * sine * sine) / (third * third * (LOBES * PI * PI))
}

/// sin(pi x) for x in 0..=1, by its series to within 1e-13: unlike the system's sine the same everywhere.
#[inline(always)]
fn sin_pi(x: f64) -> f64 {
    /// The series of sin(x) / x in squares of x: (-1)^i / (2 i + 1)!.
    const SERIES: [f64; 10] = {
        let mut series = [1.0; 10];
        let mut i = 1;
        while i < series.len() {
            series[i] = -series[i - 1] / ((2 * i) * (2 * i + 1)) as f64;
            i += 1;
        }
        series
    };
    let x = x.min(1.0 - x) * PI;
    let square = x * x;
    SERIES.iter().rev().fold(0.0, |sum, &term| sum * square + term) * x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_that_of_the_systems_sine() {
        for i in 0..=4000 {
            let x = f64::from(i) * 1e-3;
            let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
            let exact = if x < 3.0 { sinc(x) * sinc(x / 3.0) } else { 0.0 };
            assert!((lanczos(x) - exact).abs() < 1e-12, "{x}: {} for {exact}", lanczos(x));
        }
    }
}
