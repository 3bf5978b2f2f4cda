//! Versions of a training photo: colour channels exchanged, mirrored, turned, inverted, with another contrast. A model that sees few photos
//! often learns them by heart; it cannot learn so many versions.

use crate::rng::Rng;
use image::{RgbImage, imageops};
use rand::RngExt;
use serde::Serialize;

/// Orders of the three colour channels.
const CHANNELS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
/// Factors of the contrast around the middle grey.
const CONTRASTS: [f32; 3] = [1.0, 0.7, 1.3];

/// What is done to a picture, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Augmentation {
    /// The channel of the photo that red, green and blue are taken from.
    channels: [usize; 3],
    /// Light becomes dark.
    inverted: bool,
    /// Factor of the contrast around the middle grey.
    contrast: f32,
    /// Left and right exchanged.
    mirrored: bool,
    /// Quarter turns clockwise; a picture that is not square gets none or two.
    turns: u32,
}

impl Augmentation {
    /// A random version of a picture, which is square or not.
    pub fn random(square: bool, rng: &mut Rng) -> Augmentation {
        Augmentation {
            channels: CHANNELS[rng.random_range(0..CHANNELS.len())],
            inverted: rng.random_range(0..4u32) == 0,
            contrast: CONTRASTS[rng.random_range(0..CONTRASTS.len())],
            mirrored: rng.random_range(0..2u32) == 1,
            turns: if square { rng.random_range(0..4) } else { 2 * rng.random_range(0..2u32) },
        }
    }

    /// The version of `picture`, of the same size.
    pub fn apply(&self, picture: &RgbImage) -> RgbImage {
        let mut out = picture.clone();
        for pixel in out.pixels_mut() {
            let from = pixel.0;
            pixel.0 = self.channels.map(|channel| {
                let value = if self.inverted { 255 - from[channel] } else { from[channel] };
                ((f32::from(value) - 128.0) * self.contrast + 128.0).round().clamp(0.0, 255.0) as u8
            });
        }
        if self.mirrored {
            imageops::flip_horizontal_in_place(&mut out);
        }
        match self.turns {
            1 => imageops::rotate90(&out),
            2 => imageops::rotate180(&out),
            3 => imageops::rotate270(&out),
            _ => out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use std::collections::HashSet;

    const NONE: Augmentation =
        Augmentation { channels: [0, 1, 2], inverted: false, contrast: 1.0, mirrored: false, turns: 0 };

    fn picture() -> RgbImage {
        RgbImage::from_fn(2, 2, |x, y| image::Rgb([10 + x as u8, 100 + y as u8, 200]))
    }

    #[test]
    fn each_change_does_what_it_says() {
        let at = |a: Augmentation, x: u32, y: u32| a.apply(&picture()).get_pixel(x, y).0;
        assert_eq!(NONE.apply(&picture()), picture());
        assert_eq!(at(Augmentation { channels: [2, 0, 1], ..NONE }, 1, 0), [200, 11, 100]);
        assert_eq!(at(Augmentation { inverted: true, ..NONE }, 0, 0), [245, 155, 55]);
        assert_eq!(at(Augmentation { contrast: 0.5, ..NONE }, 0, 0), [69, 114, 164]);
        assert_eq!(at(Augmentation { mirrored: true, ..NONE }, 0, 1), [11, 101, 200]);
        assert_eq!(at(Augmentation { turns: 1, ..NONE }, 1, 0), [10, 100, 200]);
        assert_eq!(at(Augmentation { turns: 2, ..NONE }, 0, 0), [11, 101, 200]);
    }

    #[test]
    fn versions_are_many_and_keep_the_size() {
        let wide = RgbImage::new(4, 2);
        let mut seen = HashSet::new();
        for i in 0..500 {
            let square = Augmentation::random(true, &mut rng::stream(1, "augment", &[i]));
            seen.insert(format!("{square:?}"));
            let not_square = Augmentation::random(false, &mut rng::stream(1, "augment", &[i]));
            assert_eq!(not_square.apply(&wide).dimensions(), (4, 2));
        }
        assert!(seen.len() > 150, "{}", seen.len());
    }
}
