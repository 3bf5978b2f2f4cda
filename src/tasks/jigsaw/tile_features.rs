//! Features of a puzzle's tiles, from their pixels alone: mean colour and brightness in words, and how well edges match.

use crate::tasks::jigsaw::Grid;
use crate::{Error, Result};
use image::RgbImage;
use std::ops::Range;

/// Colours by name. Values are those of the CSS keywords where there is one.
const COLOURS: [(&str, [u8; 3]); 30] = [
    ("black", [0, 0, 0]),
    ("charcoal", [54, 54, 58]),
    ("slate grey", [112, 128, 144]),
    ("grey", [128, 128, 128]),
    ("silver", [192, 192, 192]),
    ("white", [255, 255, 255]),
    ("ivory", [240, 234, 214]),
    ("beige", [214, 200, 170]),
    ("tan", [190, 160, 120]),
    ("ochre", [190, 130, 50]),
    ("brown", [115, 80, 50]),
    ("umber", [72, 54, 40]),
    ("maroon", [110, 25, 30]),
    ("crimson", [190, 30, 50]),
    ("rust", [170, 75, 35]),
    ("orange", [235, 140, 40]),
    ("gold", [225, 190, 60]),
    ("yellow", [245, 235, 80]),
    ("olive", [110, 115, 50]),
    ("moss green", [80, 100, 60]),
    ("forest green", [35, 80, 40]),
    ("leaf green", [90, 160, 70]),
    ("teal", [20, 125, 125]),
    ("turquoise", [80, 200, 195]),
    ("sky blue", [140, 190, 230]),
    ("steel blue", [80, 125, 170]),
    ("navy", [25, 35, 90]),
    ("violet", [115, 75, 160]),
    ("plum", [120, 60, 95]),
    ("pink", [230, 160, 175]),
];

/// Brightness in words, from the darkest; the ends are upper bounds of the mean luma, of 255.
const BRIGHTNESS: [(f64, &str); 5] = [
    (45.0, "very dark"),
    (95.0, "rather dark"),
    (150.0, "of middling brightness"),
    (205.0, "light"),
    (256.0, "very light"),
];

/// A side of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TileEdge {
    /// Towards higher columns.
    Right,
    /// Towards higher rows.
    Bottom,
}

/// A shuffled picture cut into its tiles.
pub struct TileFeatures<'a> {
    image: &'a RgbImage,
    grid: Grid,
    width: u32,
    height: u32,
}

impl<'a> TileFeatures<'a> {
    /// `None` if the picture does not divide into the grid.
    pub fn new(image: &'a RgbImage, grid: Grid) -> Option<Self> {
        let (cols, rows) = (grid.cols() as u32, grid.rows() as u32);
        let whole = image.width() >= cols && image.width().is_multiple_of(cols);
        let whole = whole && image.height() >= rows && image.height().is_multiple_of(rows);
        whole.then(|| TileFeatures { image, grid, width: image.width() / cols, height: image.height() / rows })
    }

    /// As [`TileFeatures::new`], with an input error for a picture that does not divide into the grid.
    pub fn of_puzzle(image: &'a RgbImage, grid: Grid) -> Result<Self> {
        TileFeatures::new(image, grid).ok_or_else(|| {
            let (width, height) = image.dimensions();
            Error::input(format!("its picture of {width} x {height} pixels does not divide into {grid} tiles"))
        })
    }

    /// Mean red, green and blue of a tile, each of 255.
    pub fn mean(&self, tile: usize) -> [f64; 3] {
        self.mean_of(tile, 0..self.width, 0..self.height)
    }

    /// Mean colours of a tile's upper, lower, left and right half, each of 255. The halves of an odd side share its middle.
    pub fn halves(&self, tile: usize) -> [[f64; 3]; 4] {
        let (x, y) = (self.width.div_ceil(2), self.height.div_ceil(2));
        [
            self.mean_of(tile, 0..self.width, 0..y),
            self.mean_of(tile, 0..self.width, self.height - y..self.height),
            self.mean_of(tile, 0..x, 0..self.height),
            self.mean_of(tile, self.width - x..self.width, 0..self.height),
        ]
    }

    fn mean_of(&self, tile: usize, columns: Range<u32>, rows: Range<u32>) -> [f64; 3] {
        let mut sum = [0u64; 3];
        for y in rows.clone() {
            for x in columns.clone() {
                self.pixel(tile, x, y).iter().zip(&mut sum).for_each(|(&value, sum)| *sum += u64::from(value));
            }
        }
        sum.map(|sum| sum as f64 / (columns.len() * rows.len()) as f64)
    }

    /// Name of the colour nearest to the tile's mean.
    pub fn colour(&self, tile: usize) -> &'static str {
        colour(self.mean(tile))
    }

    /// Mean luma of a tile (Rec. 601 weights), of 255.
    pub fn luma(&self, tile: usize) -> f64 {
        let [r, g, b] = self.mean(tile);
        0.299 * r + 0.587 * g + 0.114 * b
    }

    /// The tile's brightness in words.
    pub fn brightness(&self, tile: usize) -> &'static str {
        let luma = self.luma(tile);
        BRIGHTNESS.iter().find(|(end, _)| luma < *end).map_or("very light", |(_, words)| words)
    }

    /// Mean absolute difference, of 255, between the pixels along `side` of `tile` and the side of `next` that would touch it.
    pub fn seam(&self, tile: usize, side: TileEdge, next: usize) -> f64 {
        let length = if side == TileEdge::Right { self.height } else { self.width };
        let mut sum = 0u64;
        for i in 0..length {
            let (a, b) = match side {
                TileEdge::Right => (self.pixel(tile, self.width - 1, i), self.pixel(next, 0, i)),
                TileEdge::Bottom => (self.pixel(tile, i, self.height - 1), self.pixel(next, i, 0)),
            };
            sum += a.iter().zip(&b).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum::<u64>();
        }
        sum as f64 / f64::from(3 * length)
    }

    /// Of all other tiles, how many match `side` of `tile` better than `next` does.
    pub fn better(&self, tile: usize, side: TileEdge, next: usize) -> usize {
        let seam = self.seam(tile, side, next);
        (0..self.grid.tiles()).filter(|&other| other != tile && self.seam(tile, side, other) < seam).count()
    }

    fn pixel(&self, tile: usize, x: u32, y: u32) -> [u8; 3] {
        let (row, col) = self.grid.place(tile);
        self.image.get_pixel(col as u32 * self.width + x, row as u32 * self.height + y).0
    }
}

/// Nearest named colour by the "redmean" distance, a cheap stand-in for a perceptual one (compuphase.com/cmetric.htm).
fn colour([r, g, b]: [f64; 3]) -> &'static str {
    let distance = |named: &[u8; 3]| {
        let [nr, ng, nb] = named.map(f64::from);
        let mean = (r + nr) / 2.0;
        (2.0 + mean / 256.0) * (r - nr).powi(2)
            + 4.0 * (g - ng).powi(2)
            + (2.0 + (255.0 - mean) / 256.0) * (b - nb).powi(2)
    };
    COLOURS.iter().min_by(|a, b| distance(&a.1).total_cmp(&distance(&b.1))).map_or("grey", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn colours_and_brightness_are_those_of_the_tile_and_not_of_its_neighbours() {
        let grid: Grid = "2x2".parse().unwrap();
        let colours = [[250, 10, 20], [255, 255, 255], [10, 10, 12], [85, 130, 175]];
        let image = RgbImage::from_fn(8, 6, |x, y| Rgb(colours[(y / 3 * 2 + x / 4) as usize]));
        let features = TileFeatures::new(&image, grid).unwrap();
        let words: Vec<(&str, &str)> = (0..4).map(|t| (features.colour(t), features.brightness(t))).collect();
        let expected = [
            ("crimson", "rather dark"),
            ("white", "very light"),
            ("black", "very dark"),
            ("steel blue", "of middling brightness"),
        ];
        assert_eq!(words, expected);
        assert!(TileFeatures::new(&image, "3x3".parse().unwrap()).is_none());
    }

    #[test]
    fn the_seam_between_neighbours_of_a_smooth_picture_is_the_best_match() {
        let grid: Grid = "1x3".parse().unwrap();
        let image = RgbImage::from_fn(30, 5, |x, y| Rgb([x as u8 * 8, 100, y as u8]));
        let features = TileFeatures::new(&image, grid).unwrap();
        assert_eq!(features.seam(0, TileEdge::Right, 1), 8.0 / 3.0);
        assert_eq!(features.seam(1, TileEdge::Right, 2), 8.0 / 3.0);
        assert_eq!((features.better(0, TileEdge::Right, 1), features.better(0, TileEdge::Right, 2)), (0, 1));
        assert!(features.seam(0, TileEdge::Bottom, 2) > 50.0);
    }
}
