//! A canvas: flat shapes and text on an RGB image, the same on every machine.

use ab_glyph::{Font, FontRef, Glyph, ScaleFont, point};
use image::{Rgb, RgbImage};
use std::sync::OnceLock;
use tiny_skia::{FillRule, Paint, Path, PathBuilder, Pixmap, Transform};

/// Colour in sRGB.
pub type Color = [u8; 3];

/// An image being drawn.
pub struct Canvas(Pixmap);

impl Canvas {
    /// `width` x `height` pixels of one colour. Both must be positive.
    pub fn new(width: u32, height: u32, color: Color) -> Canvas {
        let [r, g, b] = color;
        let mut pixmap = Pixmap::new(width.max(1), height.max(1)).unwrap_or_else(|| unreachable!("a positive size"));
        pixmap.fill(tiny_skia::Color::from_rgba8(r, g, b, 255));
        Canvas(pixmap)
    }

    /// Fill a path; nothing if it is empty. `alpha` 255 covers.
    pub fn fill(&mut self, path: Option<Path>, [r, g, b]: Color, alpha: u8) {
        let mut paint = Paint::default();
        paint.set_color_rgba8(r, g, b, alpha);
        paint.anti_alias = true;
        if let Some(path) = path {
            self.0.fill_path(&path, &paint, FillRule::EvenOdd, Transform::identity(), None);
        }
    }

    /// The picture.
    pub fn into_image(self) -> RgbImage {
        let (width, height) = (self.0.width(), self.0.height());
        let pixels = self.0.pixels().iter().flat_map(|p| [p.red(), p.green(), p.blue()]).collect();
        RgbImage::from_raw(width, height, pixels).unwrap_or_else(|| RgbImage::new(width, height))
    }
}

/// A closed polygon.
pub fn polygon(points: &[(f32, f32)]) -> Option<Path> {
    let mut path = PathBuilder::new();
    let (&(x, y), rest) = points.split_first()?;
    path.move_to(x, y);
    for &(x, y) in rest {
        path.line_to(x, y);
    }
    path.close();
    path.finish()
}

/// The fonts text is drawn in, all free: DejaVu Sans Bold, DejaVu Serif, Hack, Ubuntu Light.
pub const FONTS: usize = 4;

fn font(index: usize) -> &'static FontRef<'static> {
    static LOADED: OnceLock<Vec<FontRef<'static>>> = OnceLock::new();
    let fonts = LOADED.get_or_init(|| {
        let files = [
            dejavu::sans::bold(),
            dejavu::serif::regular(),
            epaint_default_fonts::HACK_REGULAR,
            epaint_default_fonts::UBUNTU_LIGHT,
        ];
        files.iter().filter_map(|bytes| FontRef::try_from_slice(bytes).ok()).collect()
    });
    &fonts[index % fonts.len()]
}

/// Width and height in pixels that `text` takes in font `index` with capitals about `0.73 * size` high.
pub fn text_width(text: &str, index: usize, size: f32) -> f32 {
    let scaled = font(index).as_scaled(size);
    text.chars().map(|c| scaled.h_advance(scaled.glyph_id(c))).sum()
}

/// Draw `text` with its left end at `left` and the middle of its capitals at `middle`, in pixels.
pub fn draw_text(image: &mut RgbImage, text: &str, index: usize, size: f32, left: f32, middle: f32, color: Color) {
    let face = font(index);
    let scaled = face.as_scaled(size);
    let capital = face.outline_glyph(Glyph { id: face.glyph_id('H'), scale: size.into(), position: point(0.0, 0.0) });
    let baseline = middle + capital.map_or(size * 0.36, |g| g.px_bounds().height() / 2.0);
    let mut x = left;
    for c in text.chars() {
        let id = scaled.glyph_id(c);
        if let Some(outline) = face.outline_glyph(Glyph { id, scale: size.into(), position: point(x, baseline) }) {
            let bounds = outline.px_bounds();
            outline.draw(|dx, dy, coverage| {
                let (px, py) = (bounds.min.x as i64 + i64::from(dx), bounds.min.y as i64 + i64::from(dy));
                if let (Ok(px), Ok(py)) = (u32::try_from(px), u32::try_from(py))
                    && px < image.width()
                    && py < image.height()
                {
                    let pixel = image.get_pixel_mut(px, py);
                    let mix = |under: u8, over: u8| {
                        (f32::from(under) + (f32::from(over) - f32::from(under)) * coverage.clamp(0.0, 1.0)).round()
                            as u8
                    };
                    *pixel = Rgb([0, 1, 2].map(|i| mix(pixel.0[i], color[i])));
                }
            });
        }
        x += scaled.h_advance(id);
    }
}

/// Draw `text` with each character in the middle of a slot `pitch` pixels wide, the first slot beginning at `left`; a character
/// wider than its slot is drawn smaller.
pub fn draw_in_slots(
    image: &mut RgbImage,
    text: &str,
    index: usize,
    size: f32,
    pitch: f32,
    at: [f32; 2],
    color: Color,
) {
    let [left, middle] = at;
    for (i, c) in text.chars().enumerate() {
        let c = c.to_string();
        let size = size.min(size * pitch / text_width(&c, index, size));
        let x = left + (i as f32 + 0.5) * pitch - text_width(&c, index, size) / 2.0;
        draw_text(image, &c, index, size, x, middle, color);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_font_draws_every_letter_and_they_differ() {
        let mut seen = std::collections::HashSet::new();
        for index in 0..FONTS {
            for c in ('A'..='Z').chain('a'..='z').chain('0'..='9') {
                let mut image = RgbImage::new(40, 40);
                draw_text(&mut image, &c.to_string(), index, 28.0, 8.0, 20.0, [255; 3]);
                let ink: u32 = image.pixels().map(|p| u32::from(p.0[0])).sum();
                assert!(ink > 1000, "font {index} draws nothing for {c}");
                seen.insert(image.into_raw());
            }
        }
        assert_eq!(seen.len(), FONTS * 62);
    }

    #[test]
    fn text_lies_where_it_is_put_and_is_clipped_at_the_edge() {
        let mut image = RgbImage::new(60, 40);
        draw_text(&mut image, "H", 0, 30.0, 10.0, 20.0, [255; 3]);
        let inked: Vec<(u32, u32)> =
            image.enumerate_pixels().filter(|(_, _, p)| p.0[0] > 128).map(|(x, y, _)| (x, y)).collect();
        let (top, bottom) = (inked.iter().map(|p| p.1).min().unwrap(), inked.iter().map(|p| p.1).max().unwrap());
        assert!((f64::from(top + bottom) / 2.0 - 20.0).abs() <= 1.0, "{top} {bottom}");
        assert!(inked.iter().all(|p| p.0 >= 10 && (p.0 as f32) <= 11.0 + text_width("H", 0, 30.0)));
        draw_text(&mut image, "WWWWWW", 1, 60.0, -20.0, 39.0, [9; 3]);
    }
}
