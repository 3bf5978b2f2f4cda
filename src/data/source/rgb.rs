//! Any decoded image -> the RGB image that puzzles are cut from and the model gets.

use image::{DynamicImage, Rgb, RgbImage};

/// Make an image RGB as transformers does: what is transparent lies on white. (Pillow's own `convert("RGB")` instead drops
/// the alpha channel and shows whatever colours were hidden under it.)
pub fn to_rgb(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let image = image.into_rgba8();
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [red, green, blue, alpha] = image.get_pixel(x, y).0;
        Rgb([red, green, blue].map(|value| over_white(value, alpha)))
    })
}

/// `value` with opacity `alpha` over white, rounded as Pillow's `AlphaComposite.c` does.
fn over_white(value: u8, alpha: u8) -> u8 {
    /// Extra bits of the products.
    const BITS: u32 = 7;
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    let sum = ((value * alpha + 255 * (255 - alpha)) << BITS) + (0x80 << BITS);
    ((((sum >> 8) + sum) >> 8) >> BITS) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opaque_stays_and_transparent_is_white() {
        for value in [0, 1, 127, 254, 255] {
            assert_eq!((over_white(value, 255), over_white(value, 0)), (value, 255));
        }
        assert_eq!(over_white(0, 128), 127);
    }

    /// Recorded with Pillow 13.0.0: `zlib.crc32` of `alpha_composite(white, image).convert("RGB")` for a 256 x 256 image
    /// with grey level x and alpha y.
    #[test]
    fn every_level_and_alpha_equals_pillow() {
        let image = image::RgbaImage::from_fn(256, 256, |x, y| image::Rgba([x as u8, x as u8, x as u8, y as u8]));
        assert_eq!(crc32fast::hash(to_rgb(image.into()).as_raw()), 0x65b8cbe);
    }

    #[test]
    fn grey_is_repeated() {
        let grey = image::GrayImage::from_pixel(2, 1, image::Luma([7]));
        assert_eq!(to_rgb(grey.into()).into_raw(), [7; 6]);
    }
}
