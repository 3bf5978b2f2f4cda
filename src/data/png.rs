//! RGB images as PNG, with the `png` crate's fast compression (fdeflate) and a filter chosen for each row.
//!
//! Measured on 84 x 84 and 336 x 336 puzzles of the photos (CPU time, one thread of a shared Xeon): an encoder of our own (Huffman codes made for
//! the data and runs) took 129 and 2,109 us for an image, this one 105 and 1,327 us, for files 8 and 7 % larger. The crate's balanced
//! compression takes 13 times as long for files as large as our own encoder's. The bytes of a file, and so the hashes in a dataset's
//! manifest, depend on the version of the crate, which `Cargo.lock` fixes; the pixels do not.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ImageResult, RgbImage};

/// The PNG file of `image`; lossless.
///
/// # Errors
/// If the image has no pixels.
pub fn encode(image: &RgbImage) -> ImageResult<Vec<u8>> {
    let mut png = Vec::new();
    image.write_with_encoder(PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::Adaptive))?;
    Ok(png)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;
    use rand::RngExt;

    #[test]
    fn every_image_decodes_to_the_same_pixels_and_one_without_pixels_is_an_error() {
        let mut rng = crate::rng::stream(1, "test", &[]);
        for (width, height) in [(1, 1), (1, 9), (2, 1), (3, 3), (5, 200), (84, 84), (301, 77), (700, 300)] {
            let noise = RgbImage::from_fn(width, height, |_, _| Rgb([(); 3].map(|()| rng.random_range(0..256) as u8)));
            let flat = RgbImage::from_pixel(width, height, Rgb([200, 0, 1]));
            let slope = RgbImage::from_fn(width, height, |x, y| Rgb([(x + y) as u8, (3 * x) as u8, (y * y / 7) as u8]));
            for image in [noise, flat, slope] {
                let png = encode(&image).unwrap();
                assert!(image::load_from_memory(&png).unwrap().into_rgb8() == image, "{width} x {height}");
            }
        }
        assert!(encode(&RgbImage::new(0, 3)).is_err());
    }
}
