//! From the bytes of an image file to RGB pixels, or to the reason why not.
//!
//! Conventions: the EXIF orientation is applied; grey becomes RGB; transparency is laid over white; colour profiles are
//! ignored. CMYK, more than 8 bits a channel and animations are refused: their plain RGB rendering is a matter of opinion.

use super::{jpeg, to_rgb};
use crate::error::catch_panic;
use crate::io::files;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::{Condvar, Mutex};

/// Most pixels of an image that is decoded.
pub const MAX_PIXELS: u64 = 64 << 20;
/// Most bytes that a decoder holds of what stands beside the pixels.
const MAX_METADATA_BYTES: u64 = 16 << 20;
/// Most bytes of a file that is read.
pub const MAX_FILE_BYTES: u64 = 128 << 20;

/// Read a file of at most [`MAX_FILE_BYTES`].
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = files::open_regular(path).map_err(|e| format!("cannot be read: {e}"))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("larger than {} MiB", MAX_FILE_BYTES >> 20));
    }
    Ok(bytes)
}

/// Width and height in pixels, after orientation, from the headers alone; or why the image cannot be used.
pub fn probe(bytes: &[u8]) -> Result<(u32, u32), String> {
    header(bytes, true)
}

/// The same from the first bytes of a file; an error may mean that they are too few. Does not see that the rest is damaged or not there.
pub fn probe_header(bytes: &[u8]) -> Result<(u32, u32), String> {
    header(bytes, false)
}

fn header(bytes: &[u8], whole: bool) -> Result<(u32, u32), String> {
    guarded(|| {
        let format = format(bytes)?;
        let (size, orientation) = match format {
            ImageFormat::Jpeg => {
                let header = jpeg::inspect(bytes).ok_or("JPEG without a frame header (truncated or damaged)")?;
                if header.components == 4 {
                    return Err("CMYK image".into());
                }
                if header.precision != 8 {
                    return Err(format!("{} bits a channel; only 8 are read", header.precision));
                }
                if whole && !header.complete {
                    return Err("truncated".into());
                }
                let size = (u32::from(header.width), u32::from(header.height));
                check_size(size)?;
                (size, reader(bytes, format).into_decoder().and_then(|mut d| d.orientation()).map_err(describe)?)
            }
            ImageFormat::Png => {
                let mut decoder = png(bytes)?;
                check_size(decoder.dimensions())?;
                if decoder.is_apng().map_err(describe)? {
                    return Err("animated image".into());
                }
                check_depth(decoder.color_type())?;
                (decoder.dimensions(), decoder.orientation().map_err(describe)?)
            }
            _ => {
                if !has_its_chunks(bytes) {
                    return Err("truncated".into());
                }
                let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(describe)?;
                check_size(decoder.dimensions())?;
                if decoder.has_animation() {
                    return Err("animated image".into());
                }
                (decoder.dimensions(), decoder.orientation().map_err(describe)?)
            }
        };
        let turned = matches!(
            orientation,
            Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
        );
        Ok(if turned { (size.1, size.0) } else { size })
    })
}

/// Decode an image that [`probe`] accepts.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    probe(bytes)?;
    guarded(|| match format(bytes)? {
        ImageFormat::Png => pixels(png(bytes)?),
        other => pixels(reader(bytes, other).into_decoder().map_err(describe)?),
    })
}

fn pixels(mut decoder: impl ImageDecoder) -> Result<RgbImage, String> {
    let orientation = decoder.orientation().map_err(describe)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(describe)?;
    image.apply_orientation(orientation);
    Ok(to_rgb(image))
}

/// Run a decoder, turning a panic inside it into a reason like any other.
pub(in crate::data) fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_panic(work).unwrap_or_else(|_| Err("the decoder failed on it (damaged file)".into()))
}

fn format(bytes: &[u8]) -> Result<ImageFormat, String> {
    if bytes.is_empty() {
        return Err("empty file".into());
    }
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP)) => Ok(format),
        Ok(other) => Err(format!("{} content; only JPEG, PNG and WebP are read", other.extensions_str()[0])),
        Err(_) => Err("not an image".into()),
    }
}

/// Whether every chunk of a WebP is as long as it says. The decoder takes memory for what a chunk says.
fn has_its_chunks(bytes: &[u8]) -> bool {
    let mut at = 12;
    while let Some(length) = bytes.get(at + 4..at + 8).and_then(|word| <[u8; 4]>::try_from(word).ok()) {
        let length = u32::from_le_bytes(length) as usize;
        if length > bytes.len() - at - 8 {
            return false;
        }
        at += 8 + length + length % 2;
    }
    true
}

/// The decoder of a PNG. Of what stands beside the pixels (colour profiles, texts) it holds [`MAX_METADATA_BYTES`]: a profile of a few
/// kilobytes unpacks to gigabytes, and is not used.
fn png(bytes: &[u8]) -> Result<PngDecoder<Cursor<&[u8]>>, String> {
    let word = |at: usize| bytes.get(at..at + 4).and_then(|word| <[u8; 4]>::try_from(word).ok());
    // The width is the first field of the first chunk. The decoder holds a row or two besides.
    let width = word(16).map_or(0, u32::from_be_bytes).min(MAX_PIXELS as u32);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_METADATA_BYTES + 16 * u64::from(width));
    PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(describe)
}

fn reader(bytes: &[u8], format: ImageFormat) -> ImageReader<Cursor<&[u8]>> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 8);
    reader.limits(limits);
    reader
}

fn check_size((width, height): (u32, u32)) -> Result<(), String> {
    if width == 0 || height == 0 {
        return Err(format!("{width} x {height} pixels"));
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("{width} x {height} pixels; at most {} million are decoded", MAX_PIXELS / 1_000_000));
    }
    Ok(())
}

fn check_depth(color: ColorType) -> Result<(), String> {
    match color {
        ColorType::L8 | ColorType::La8 | ColorType::Rgb8 | ColorType::Rgba8 => Ok(()),
        _ => Err("16 bits a channel; only 8 are read".into()),
    }
}

fn describe(e: image::ImageError) -> String {
    match e {
        image::ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => "truncated".into(),
        other => format!("damaged: {}", other.to_string().trim_end_matches('.')),
    }
}

/// Bounds the pixels being decoded at one time by all threads together, whatever their number.
#[derive(Debug)]
pub struct PixelBudget {
    left: Mutex<u64>,
    freed: Condvar,
}

/// A share of a [`PixelBudget`], given back when dropped.
#[derive(Debug)]
pub struct PixelShare<'a> {
    budget: &'a PixelBudget,
    pixels: u64,
}

impl Default for PixelBudget {
    /// As many pixels as the largest image that is decoded.
    fn default() -> Self {
        PixelBudget { left: Mutex::new(MAX_PIXELS), freed: Condvar::new() }
    }
}

impl PixelBudget {
    /// Wait until an image of `width` x `height` fits.
    pub fn acquire(&self, (width, height): (u32, u32)) -> PixelShare<'_> {
        let pixels = (u64::from(width) * u64::from(height)).min(MAX_PIXELS);
        let mut left = self.left.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while *left < pixels {
            left = self.freed.wait(left).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        *left -= pixels;
        PixelShare { budget: self, pixels }
    }
}

impl Drop for PixelShare<'_> {
    fn drop(&mut self) {
        *self.budget.left.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) += self.pixels;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::png;

    fn chunk(kind: &[u8], data: &[u8]) -> Vec<u8> {
        let checked = [kind, data].concat();
        [&(data.len() as u32).to_be_bytes()[..], &checked, &crc32fast::hash(&checked).to_be_bytes()].concat()
    }

    /// The compressed data of a PNG of so many black pixels: zlib of as many zeros and more.
    fn many_zeros(side: u32) -> Vec<u8> {
        let png = png::encode(&RgbImage::new(side, side)).unwrap();
        let (mut at, mut data) = (8, Vec::new());
        while at < png.len() {
            let length = u32::from_be_bytes(png[at..at + 4].try_into().unwrap()) as usize;
            if &png[at + 4..at + 8] == b"IDAT" {
                data.extend_from_slice(&png[at + 8..at + 8 + length]);
            }
            at += 12 + length;
        }
        data
    }

    #[test]
    fn a_colour_profile_that_unpacks_to_more_than_is_held_is_left_packed() {
        let png = png::encode(&RgbImage::from_pixel(3, 2, image::Rgb([1, 2, 3]))).unwrap();
        let large = 3 * 4000 * 4000;
        assert!(large as u64 > MAX_METADATA_BYTES);
        for (side, held) in [(20, true), (4000, false)] {
            let profile = chunk(b"iCCP", &[b"x\0\0", &many_zeros(side)[..]].concat());
            // After the first chunk.
            let with = [&png[..33], &profile, &png[33..]].concat();
            assert_eq!(probe(&with), Ok((3, 2)));
            assert_eq!(decode(&with).unwrap().get_pixel(0, 0).0, [1, 2, 3]);
            let found = super::png(&with).unwrap().icc_profile().unwrap();
            assert_eq!(found.is_some(), held, "{side}");
        }
    }

    #[test]
    fn a_chunk_of_a_webp_that_says_more_than_there_is_takes_no_memory() {
        let webp = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/images/lossy.webp")).unwrap();
        assert!(probe(&webp).is_ok());
        let mut longer = [&webp[..], b"EXIF", &u32::MAX.to_le_bytes()].concat();
        let length = (longer.len() as u32 - 8).to_le_bytes();
        longer[4..8].copy_from_slice(&length);
        assert_eq!(probe(&longer), Err("truncated".into()));
    }
}
