//! One photo -> its puzzles.

use super::select::{Photo, Place};
use super::{Settings, scenes};
use crate::Result;
use crate::data::source::{self, PixelBudget};
use crate::data::{DatasetWriter, Digest, Message, Record};
use crate::rng::{self, Rng};
use crate::tasks::jigsaw::{self, Grid, PairPuzzle, Permutation, QuestionKind};
use crate::tasks::response::with_image;
use image::RgbImage;
use rand::RngExt;
use serde_json::json;

/// Fewest pixels of the photo that a tile is cut from, each way. Less shows nothing.
pub const MIN_SOURCE_TILE: u32 = 8;
/// Tiles whose values (of 255) differ by less than this on average look the same.
const MIN_DIFFERENCE: f64 = 1.0;
/// Crops tried before a photo is given up because two tiles of it look the same.
const CROPS_TRIED: usize = 32;

/// Makes the puzzles of one split.
pub struct PuzzleBuilder<'a> {
    pub settings: &'a Settings,
    pub split: &'static str,
    pub writer: &'a DatasetWriter,
    pub budget: &'a PixelBudget,
    pub on_puzzle: &'a (dyn Fn() + Sync),
}

/// Why a photo gives no puzzles.
pub enum Refusal {
    /// Its file cannot be used.
    Unusable(String),
    /// The file is good, but tiles of it look the same.
    Plain,
}

/// A puzzle whose image is written.
pub struct BuiltPuzzle {
    /// Number of the puzzle among those of its photo.
    pub index: u64,
    /// Left, top, width and height of the crop in the photo.
    pub crop: [u32; 4],
    pub permutation: Permutation,
    pub pair: Option<PairPuzzle>,
    pub digest: Digest,
}

impl PuzzleBuilder<'_> {
    /// Decode `photo` and make its puzzles, `(slot in the split, number among those of the photo)`. The inner error says
    /// why the photo cannot be used; the outer one that writing failed.
    pub fn make(
        &self,
        photo: &Photo,
        slots: &[(usize, u64)],
    ) -> Result<std::result::Result<Vec<BuiltPuzzle>, Refusal>> {
        let _share = self.budget.take(photo.size);
        let image = match &photo.place {
            Place::Scene(index) => scenes::draw(self.settings.seed, self.settings.cues, *index),
            Place::File(path) => match source::read(path).and_then(|bytes| source::decode(&bytes)) {
                Ok(image) => image,
                Err(reason) => return Ok(Err(Refusal::Unusable(reason))),
            },
        };
        if let Err(reason) = check_size(image.dimensions(), self.settings.grid) {
            return Ok(Err(Refusal::Unusable(reason)));
        }
        let mut made = Vec::with_capacity(slots.len());
        for &(slot, index) in slots {
            let Some((puzzle, shuffled)) = self.puzzle(&image, photo, index) else {
                return Ok(Err(Refusal::Plain));
            };
            let digest = self.writer.write_image(self.split, &image_name(slot), &shuffled)?;
            made.push(BuiltPuzzle { digest, ..puzzle });
            (self.on_puzzle)();
        }
        Ok(Ok(made))
    }

    fn puzzle(&self, image: &RgbImage, photo: &Photo, index: u64) -> Option<(BuiltPuzzle, RgbImage)> {
        let Settings { grid, tile, question, seed, min_crop, .. } = *self.settings;
        let mut rng = rng::stream(seed, "puzzle", &key(&photo.hash, index));
        let (crop, original) = (0..CROPS_TRIED).find_map(|_| {
            let crop = random_crop(image.dimensions(), grid, min_crop, &mut rng);
            let original = jigsaw::resize(image, crop, grid.cols() as u32 * tile, grid.rows() as u32 * tile);
            tiles_differ(&original, grid).then_some((crop, original))
        })?;
        let permutation = Permutation::random(grid.tiles(), &mut rng);
        let pair = (question == QuestionKind::Pair).then(|| PairPuzzle::random(grid, &permutation, &mut rng));
        let shuffled = jigsaw::shuffle(&original, grid, &permutation);
        Some((BuiltPuzzle { index, crop, permutation, pair, digest: [0; 32] }, shuffled))
    }
}

/// The record of the puzzle in `slot` of `split`.
pub fn record(settings: &Settings, split: &str, slot: usize, photo: &Photo, made: &BuiltPuzzle) -> Record {
    let Settings { grid, tile, style, question, seed, .. } = *settings;
    let order = made.permutation.to_string();
    let mut meta = json!({
        "grid": grid, "tile": tile, "style": style, "index": made.index, "crop": made.crop, "order": order,
    });
    if settings.mixed() {
        meta["category"] = json!(if photo.is_scene() { "scene" } else { "photo" });
    }
    let (text, answer) = match &made.pair {
        None => (jigsaw::order_question(grid, style), order),
        Some(pair) => {
            meta["tiles"] = json!([pair.tile + 1, pair.seen_from + 1]);
            meta["choices"] = json!(pair.choices.len());
            (jigsaw::pair_question(grid, pair, style), pair.answer().to_string())
        }
    };
    let text = with_image(&text, settings.question_first);
    let response = jigsaw::respond(&made.permutation, &answer, style);
    let message = |role: &str, content: String| Message { role: role.into(), content };
    Record {
        file_name: image_name(slot),
        id: format!("{}-{slot:06}", split),
        task: question.task().into(),
        messages: vec![message("user", text), message("assistant", response)],
        images: vec![image_name(slot)],
        answer,
        source: photo.name.clone(),
        seed,
        meta: meta.as_object().cloned().unwrap_or_default(),
    }
}

fn image_name(slot: usize) -> String {
    format!("images/{slot:06}.png")
}

/// Can a photo of this size give puzzles of this grid?
pub fn check_size(size: (u32, u32), grid: Grid) -> std::result::Result<(), String> {
    if largest_unit(size, grid) < MIN_SOURCE_TILE {
        return Err(format!(
            "{} x {} pixels is too small for {grid} tiles of at least {MIN_SOURCE_TILE} pixels",
            size.0, size.1
        ));
    }
    Ok(())
}

/// Side in photo pixels of a tile of the largest crop with the grid's aspect.
fn largest_unit((width, height): (u32, u32), grid: Grid) -> u32 {
    (width / grid.cols() as u32).min(height / grid.rows() as u32)
}

/// A crop `[left, top, width, height]` of the grid's exact aspect, of random size and place, at least the share `min_crop` of the
/// largest that fits, each way. The photo must have passed [`check_size`].
fn random_crop(size: (u32, u32), grid: Grid, min_crop: f64, rng: &mut Rng) -> [u32; 4] {
    let largest = largest_unit(size, grid);
    let smallest = ((f64::from(largest) * min_crop).ceil() as u32).clamp(MIN_SOURCE_TILE.min(largest), largest);
    let unit = rng.random_range(smallest..=largest);
    let (width, height) = (unit * grid.cols() as u32, unit * grid.rows() as u32);
    [rng.random_range(0..=size.0 - width), rng.random_range(0..=size.1 - height), width, height]
}

/// No two tiles look the same: between alike tiles the question would have several right answers.
fn tiles_differ(image: &RgbImage, grid: Grid) -> bool {
    let (width, height) = (image.width() / grid.cols() as u32, image.height() / grid.rows() as u32);
    let line = image.width() as usize * 3;
    let rows = |tile: usize| {
        let (row, col) = grid.place(tile);
        let start = row * height as usize * line + col * width as usize * 3;
        (0..height as usize).map(move |y| &image.as_raw()[start + y * line..][..width as usize * 3])
    };
    let enough = (MIN_DIFFERENCE * f64::from(width * height * 3)).ceil() as u64;
    let differ = |a: usize, b: usize| {
        let mut difference = 0;
        rows(a).zip(rows(b)).any(|(a, b)| {
            difference += distance(a, b);
            difference >= enough
        })
    };
    (0..grid.tiles()).all(|a| (0..a).all(|b| differ(a, b)))
}

/// Absolute differences, added up.
fn distance(a: &[u8], b: &[u8]) -> u64 {
    a.iter().zip(b).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum()
}

/// The puzzle's random stream: content of the photo, number of the puzzle.
fn key(hash: &[u8; 32], index: u64) -> Vec<u64> {
    let words = hash.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
    words.chain([index]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_crop_lies_inside_the_photo_and_has_the_grids_aspect() {
        for (size, grid) in
            [((517, 336), "3x3"), ((24, 24), "3x3"), ((8, 16), "2x1"), ((173, 320), "4x1"), ((4000, 90), "2x5")]
        {
            let grid: Grid = grid.parse().unwrap();
            check_size(size, grid).unwrap();
            let mut widths = HashSet::new();
            for seed in 0..500 {
                let [left, top, width, height] = random_crop(size, grid, 0.6, &mut rng::stream(seed, "test", &[]));
                assert!(left + width <= size.0 && top + height <= size.1);
                assert_eq!(width * grid.rows() as u32, height * grid.cols() as u32);
                assert!(width / grid.cols() as u32 >= MIN_SOURCE_TILE);
                widths.insert(width);
            }
            assert!(widths.len() > 1 || largest_unit(size, grid) == MIN_SOURCE_TILE, "{size:?}");
        }
        assert!(check_size((23, 400), "3x3".parse().unwrap()).is_err());
        assert!(check_size((1, 1), "1x2".parse().unwrap()).is_err());
    }

    #[test]
    fn a_picture_with_two_tiles_that_look_the_same_is_no_puzzle() {
        let grid: Grid = "2x2".parse().unwrap();
        let mut image = RgbImage::from_fn(4, 4, |x, y| image::Rgb([(x / 2 * 10) as u8, (y / 2 * 10) as u8, 0]));
        assert!(tiles_differ(&image, grid));
        for (x, y) in [(2, 2), (3, 2), (2, 3), (3, 3)] {
            image.put_pixel(x, y, image::Rgb([1, 1, 0]));
        }
        assert!(!tiles_differ(&image, grid));
    }

    #[test]
    fn resizing_keeps_the_picture_where_it_is() {
        let image = RgbImage::from_fn(300, 300, |x, y| image::Rgb([(x / 100 * 100) as u8, (y / 100 * 100) as u8, 9]));
        let small = jigsaw::resize(&image, [0, 0, 300, 300], 84, 84);
        for (tile, expected) in [(0, [0, 0, 9]), (1, [100, 0, 9]), (5, [200, 100, 9]), (8, [200, 200, 9])] {
            assert_eq!(small.get_pixel(tile % 3 * 28 + 14, tile / 3 * 28 + 14).0, expected);
        }
    }
}
