//! RGB images as PNG, quickly and about as small as Pillow makes them: of each row's filters the one with the smallest
//! residues, then [`deflate`].

use super::deflate;
use image::RgbImage;
use multiversion::multiversion;

/// Bytes of a pixel.
const PIXEL: usize = 3;
/// The filters tried, by their numbers in the format. (Residues of "no filter" are hardly ever the smallest in a photo.)
const SUB: u8 = 1;
const UP: u8 = 2;
const AVERAGE: u8 = 3;
const PAETH: u8 = 4;

/// The file of `image`; lossless. `None` if it has no pixels or more than the format allows.
pub fn encode(image: &RgbImage) -> Option<Vec<u8>> {
    let (width, height) = image.dimensions();
    if width == 0 || height == 0 || width.max(height) > i32::MAX as u32 {
        return None;
    }
    let line = width as usize * PIXEL;
    let mut filtered = vec![0; (1 + line) * height as usize];
    filter(image.as_raw(), line, &mut filtered);
    let mut png = Vec::with_capacity(filtered.len() / 4 * 3 + 1024);
    png.extend(b"\x89PNG\r\n\x1a\n");
    chunk(&mut png, b"IHDR", |png| {
        png.extend(width.to_be_bytes());
        png.extend(height.to_be_bytes());
        png.extend([8, 2, 0, 0, 0]); // bits a channel, RGB, the only compression, the only set of filters, not interlaced
    })?;
    chunk(&mut png, b"IDAT", |png| deflate::zlib(&filtered, png))?;
    chunk(&mut png, b"IEND", |_| ())?;
    Some(png)
}

/// Append a chunk; `None` if it grows too long for the format.
fn chunk(png: &mut Vec<u8>, name: &[u8; 4], content: impl FnOnce(&mut Vec<u8>)) -> Option<()> {
    let start = png.len();
    png.extend([0; 4]);
    png.extend(name);
    content(png);
    let length = u32::try_from(png.len() - start - 8).ok().filter(|&n| n <= i32::MAX as u32)?;
    png[start..start + 4].copy_from_slice(&length.to_be_bytes());
    png.extend(crc32fast::hash(&png[start + 4..]).to_be_bytes());
    Some(())
}

/// Each row of `line` bytes as the number of its filter and the residues.
#[multiversion(targets("x86_64+avx2"))]
fn filter(pixels: &[u8], line: usize, out: &mut [u8]) {
    // Rows with a black pixel before their first.
    let mut above = vec![0; PIXEL + line];
    let mut row = above.clone();
    let mut tried = vec![0; line];
    for (pixels, out) in pixels.chunks_exact(line).zip(out.chunks_exact_mut(1 + line)) {
        row[PIXEL..].copy_from_slice(pixels);
        let mut least = u64::MAX;
        for number in [PAETH, SUB, UP, AVERAGE] {
            match number {
                SUB => residues(&row, &above, &mut tried, |left, _, _| left),
                UP => residues(&row, &above, &mut tried, |_, up, _| up),
                AVERAGE => residues(&row, &above, &mut tried, average),
                _ => residues(&row, &above, &mut tried, paeth),
            }
            let size = size(&tried);
            if size < least {
                least = size;
                out[0] = number;
                out[1..].copy_from_slice(&tried);
            }
        }
        std::mem::swap(&mut row, &mut above);
    }
}

/// What is left of `row` after the prediction from the pixels left, above and above left.
#[inline(always)]
fn residues(row: &[u8], above: &[u8], out: &mut [u8], predict: impl Fn(u8, u8, u8) -> u8) {
    let n = out.len();
    let neighbours = row[..n].iter().zip(&above[PIXEL..PIXEL + n]).zip(&above[..n]);
    for ((out, &value), ((&left, &up), &corner)) in out.iter_mut().zip(&row[PIXEL..PIXEL + n]).zip(neighbours) {
        *out = value.wrapping_sub(predict(left, up, corner));
    }
}

#[inline(always)]
fn average(left: u8, up: u8, _: u8) -> u8 {
    ((u16::from(left) + u16::from(up)) / 2) as u8
}

/// Of the three neighbours the one nearest to left + up - corner.
#[inline(always)]
fn paeth(left: u8, up: u8, corner: u8) -> u8 {
    let (off_left, off_up) = (i16::from(up) - i16::from(corner), i16::from(left) - i16::from(corner));
    let (to_left, to_up, to_corner) = (off_left.abs(), off_up.abs(), (off_left + off_up).abs());
    let upper = if to_up <= to_corner { up } else { corner };
    if to_left <= to_up && to_left <= to_corner { left } else { upper }
}

/// The residues' distances from 0, added up: a guess at how well they compress.
#[inline(always)]
fn size(residues: &[u8]) -> u64 {
    // Parts so short that their sums fit 16 bits.
    let part = |part: &[u8]| part.iter().map(|&r| u16::from((r as i8).unsigned_abs())).sum::<u16>();
    residues.chunks(256).map(|chunk| u64::from(part(chunk))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;
    use rand::RngExt;

    fn round_trip(image: &RgbImage) -> usize {
        let png = encode(image).unwrap();
        assert!(image::load_from_memory(&png).unwrap().into_rgb8() == *image, "{:?}", image.dimensions());
        png.len()
    }

    #[test]
    fn every_image_comes_back() {
        let mut rng = crate::rng::stream(1, "test", &[]);
        for (width, height) in [(1, 1), (1, 9), (2, 1), (3, 3), (5, 200), (84, 84), (301, 77), (700, 300)] {
            let mut noise = || Rgb([(); 3].map(|()| rng.random_range(0..256) as u8));
            round_trip(&RgbImage::from_fn(width, height, |_, _| noise()));
            round_trip(&RgbImage::from_pixel(width, height, Rgb([200, 0, 1])));
            let slope = RgbImage::from_fn(width, height, |x, y| Rgb([(x + y) as u8, (3 * x) as u8, (y * y / 7) as u8]));
            round_trip(&slope);
        }
        assert!(encode(&RgbImage::new(0, 3)).is_none() && encode(&RgbImage::new(3, 0)).is_none());
    }

    #[test]
    fn it_is_about_as_small_as_a_slow_encoder_makes_it() {
        let photo = image::open("data/photos/001-colosseum.jpg").unwrap().into_rgb8();
        let mut slow = std::io::Cursor::new(Vec::new());
        let encoder = image::codecs::png::PngEncoder::new_with_quality(
            &mut slow,
            image::codecs::png::CompressionType::Default,
            image::codecs::png::FilterType::Adaptive,
        );
        photo.write_with_encoder(encoder).unwrap();
        let (ours, slow) = (round_trip(&photo), slow.get_ref().len());
        assert!(ours * 100 < slow * 106, "{ours} bytes, a slow encoder {slow}");
    }
}
