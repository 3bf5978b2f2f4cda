//! Pictures small enough to stand in the page.

use crate::data::resize;
use crate::{Error, Result};
use base64::Engine as _;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;

/// Of 100.
const QUALITY: u8 = 80;

/// A picture as a data URI: its longer side at most `side` pixels, as PNG or JPEG, whichever is smaller.
///
/// # Errors
/// A failure for a picture without pixels.
pub fn data_uri(image: &RgbImage, side: u32) -> Result<String> {
    let failed = |e: image::ImageError| Error::failed(format!("cannot encode a picture: {e}"));
    let (width, height) = image.dimensions();
    let longer = width.max(height);
    let reduced = (longer > side && width.min(height) > 0).then(|| {
        let to = |length: u32| ((u64::from(length) * u64::from(side) / u64::from(longer)) as u32).max(1);
        resize(image, [0, 0, width, height], to(width), to(height))
    });
    let image = reduced.as_ref().unwrap_or(image);
    let (mut png, mut jpeg) = (Vec::new(), Vec::new());
    image.write_with_encoder(PngEncoder::new(&mut png)).map_err(failed)?;
    image.write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, QUALITY)).map_err(failed)?;
    let (kind, bytes) = if png.len() <= jpeg.len() { ("png", png) } else { ("jpeg", jpeg) };
    Ok(format!("data:image/{kind};base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn a_large_picture_is_reduced_and_a_small_one_keeps_its_pixels() {
        let read = |uri: &str| {
            let encoded = uri.split_once("base64,").unwrap().1;
            image::load_from_memory(&base64::engine::general_purpose::STANDARD.decode(encoded).unwrap())
                .unwrap()
                .to_rgb8()
        };
        let flat = |width, height| RgbImage::from_pixel(width, height, Rgb([200, 30, 90]));
        assert_eq!(read(&data_uri(&flat(900, 300), 224).unwrap()).dimensions(), (224, 74));
        assert_eq!(read(&data_uri(&flat(2000, 1), 160).unwrap()).dimensions(), (160, 1));
        let small = RgbImage::from_fn(56, 28, |x, y| Rgb([(x * 4) as u8, (y * 9) as u8, if x < 30 { 0 } else { 255 }]));
        let near = read(&data_uri(&small, 224).unwrap());
        assert_eq!(near.dimensions(), (56, 28));
        assert!(data_uri(&RgbImage::new(0, 3), 224).is_err());
    }
}
