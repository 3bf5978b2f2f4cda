//! Cuts a photo into its puzzles: crop, resize, shuffle, question, record.

use super::augment::Augmentation;
use super::photo::{ImageSource, MIN_SOURCE_TILE, Photo, check_size, largest_unit};
use super::scenes;
use super::settings::JigsawSettings;
use crate::Result;
use crate::data::source::{self, PixelBudget};
use crate::data::{Digest, Message, Record, resize};
use crate::rng::{self, Rng};
use crate::tasks::generator::{Generator, SplitWriter};
use crate::tasks::jigsaw::{self, Grid, PairPuzzle, Permutation, QuestionKind};
use crate::tasks::response::with_image;
use crate::tasks::split::SPLITS;
use image::RgbImage;
use rand::RngExt;
use serde_json::json;

/// Tiles whose values (of 255) differ by less than this on average look the same.
const MIN_DIFFERENCE: f64 = 1.0;
/// Crops tried before a photo is refused because two of its tiles look the same.
const CROPS_TRIED: usize = 32;

/// Cuts photos and scenes into puzzles.
pub struct PuzzleBuilder<'a> {
    pub settings: &'a JigsawSettings,
    pub budget: PixelBudget,
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
    pub augmentation: Option<Augmentation>,
    pub digest: Digest,
}

impl Generator for PuzzleBuilder<'_> {
    type Source = Photo;
    type Example = BuiltPuzzle;
    type Refusal = Refusal;

    /// Decodes the photo once for all its puzzles.
    fn make(
        &self,
        split: &SplitWriter<'_>,
        photo: &Photo,
        slots: &[(usize, u64)],
    ) -> Result<std::result::Result<Vec<BuiltPuzzle>, Refusal>> {
        let _share = self.budget.acquire(photo.size);
        let image = match self.decode(photo) {
            Ok(image) => image,
            Err(reason) => return Ok(Err(Refusal::Unusable(reason))),
        };
        let mut made = Vec::with_capacity(slots.len());
        for &(slot, index) in slots {
            let augment = self.settings.augment && split.split == SPLITS[0] && !photo.is_scene();
            let Some((puzzle, shuffled)) = self.puzzle(&image, photo, index, augment) else {
                return Ok(Err(Refusal::Plain));
            };
            let digest = split.write_image(&image_name(slot), &shuffled)?;
            made.push(BuiltPuzzle { digest, ..puzzle });
            (split.on_example)();
        }
        Ok(Ok(made))
    }

    fn records(&self, split: &str, slot: usize, photo: &Photo, puzzle: &BuiltPuzzle) -> Vec<(Record, Vec<Digest>)> {
        vec![(record(self.settings, split, slot, photo, puzzle), vec![puzzle.digest])]
    }
}

impl PuzzleBuilder<'_> {
    /// The picture of a photo or scene, or why it gives no puzzles.
    pub fn decode(&self, photo: &Photo) -> std::result::Result<RgbImage, String> {
        let image = match &photo.source {
            ImageSource::Scene(index) => scenes::draw(self.settings.seed, self.settings.cues, *index),
            ImageSource::File(path) => source::decode(&source::read(path)?)?,
        };
        check_size(image.dimensions(), self.settings.grid)?;
        Ok(image)
    }

    /// Puzzle `index` of a photo and its shuffled picture; `None` if tiles of all crops tried look the same.
    pub fn puzzle(
        &self,
        image: &RgbImage,
        photo: &Photo,
        index: u64,
        augment: bool,
    ) -> Option<(BuiltPuzzle, RgbImage)> {
        let JigsawSettings { grid, tile, question, seed, min_crop, .. } = *self.settings;
        let key = key(&photo.hash, index);
        let mut rng = rng::stream(seed, "puzzle", &key);
        let square = grid.rows() == grid.cols();
        let augmentation = augment.then(|| Augmentation::random(square, &mut rng::stream(seed, "augment", &key)));
        let (crop, original) = (0..CROPS_TRIED).find_map(|_| {
            let crop = random_crop(image.dimensions(), grid, min_crop, &mut rng);
            let original = resize(image, crop, grid.cols() as u32 * tile, grid.rows() as u32 * tile);
            let original = match augmentation {
                Some(version) => version.apply(&original),
                None => original,
            };
            tiles_differ(&original, grid).then_some((crop, original))
        })?;
        let permutation = Permutation::random(grid.tiles(), &mut rng);
        let pair = (question == QuestionKind::Pair).then(|| PairPuzzle::random(grid, &permutation, &mut rng));
        let shuffled = jigsaw::shuffle(&original, grid, &permutation);
        Some((BuiltPuzzle { index, crop, permutation, pair, augmentation, digest: [0; 32] }, shuffled))
    }
}

/// The record of the puzzle in `slot` of `split`.
pub fn record(settings: &JigsawSettings, split: &str, slot: usize, photo: &Photo, made: &BuiltPuzzle) -> Record {
    let JigsawSettings { grid, tile, style, question, seed, .. } = *settings;
    let order = made.permutation.to_string();
    let mut meta = json!({
        "grid": grid, "tile": tile, "style": style, "index": made.index, "crop": made.crop, "order": order,
    });
    if settings.mixed() {
        meta["category"] = json!(if photo.is_scene() { "scene" } else { "photo" });
    }
    if let Some(augmentation) = made.augmentation {
        meta["augmentation"] = json!(augmentation);
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

/// A crop `[left, top, width, height]` of the grid's exact aspect, of random size and place, at least the share `min_crop` of the
/// largest that fits, each way. The photo must have passed [`check_size`].
fn random_crop(size: (u32, u32), grid: Grid, min_crop: f64, rng: &mut Rng) -> [u32; 4] {
    let largest = largest_unit(size, grid);
    let smallest = ((f64::from(largest) * min_crop).ceil() as u32).clamp(MIN_SOURCE_TILE.min(largest), largest);
    let unit = rng.random_range(smallest..=largest);
    let (width, height) = (unit * grid.cols() as u32, unit * grid.rows() as u32);
    [rng.random_range(0..=size.0 - width), rng.random_range(0..=size.1 - height), width, height]
}

/// Do all tiles look different? With two alike tiles the question would have several right answers.
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

/// Key of the puzzle's random stream: the content of the photo and the number of the puzzle.
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
        let small = resize(&image, [0, 0, 300, 300], 84, 84);
        for (tile, expected) in [(0, [0, 0, 9]), (1, [100, 0, 9]), (5, [200, 100, 9]), (8, [200, 200, 9])] {
            assert_eq!(small.get_pixel(tile % 3 * 28 + 14, tile / 3 * 28 + 14).0, expected);
        }
    }
}
