//! What puzzles to make; contradictions are refused before any work.

use super::scenes::Cues;
use crate::data::Manifest;
use crate::io::files;
use crate::io::text::counted;
use crate::tasks::jigsaw::{Grid, QuestionKind};
use crate::tasks::response::Style;
use crate::tasks::split::{SPLITS, SplitRatios};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A visual token of Qwen2.5-VL covers this many pixels each way; tiles of a multiple of it have seams between tokens.
pub const TOKEN_PIXELS: u32 = 28;
/// Default of [`JigsawSettings::min_crop`].
pub const MIN_CROP: f64 = 0.8;
/// Largest side of a puzzle, in pixels.
pub const MAX_SIDE: u32 = 4096;
/// Fewer photos than this on one side of a split get a warning.
const FEW_PHOTOS: usize = 10;

/// In place of a folder of images: synthetic scenes. A folder of this name is given as `./scenes`.
pub const SCENES: &str = "scenes";

/// What puzzles to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JigsawSettings {
    /// Folder of source images, or `scenes` for synthetic ones.
    pub images: PathBuf,
    /// Folder that the test puzzles are cut from; the photos of `images` are then divided over train and validation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_images: Option<PathBuf>,
    /// With a folder: the share of each split's puzzles that is cut from synthetic scenes instead.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub scenes: f64,
    /// Whether synthetic scenes show where a tile comes from. Not used for photos.
    #[serde(default)]
    pub cues: Cues,
    /// Rows and columns.
    pub grid: Grid,
    /// Side of a tile in pixels.
    pub tile: u32,
    /// Allow tiles that are no multiple of 28 pixels.
    pub tile_any: bool,
    /// Number of puzzles over all splits; with a `stream`, over all but train.
    pub count: usize,
    /// Make so many training puzzles as they are needed, in place of storing them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<usize>,
    /// Form of the response asked for.
    pub style: Style,
    /// What is asked.
    pub question: QuestionKind,
    /// Put the question before the picture. All prompts then begin with the same tokens, which are computed once a batch.
    pub question_first: bool,
    /// Smallest crop of a photo, as a share of the largest that fits the grid's aspect, each way.
    pub min_crop: f64,
    /// Cut training puzzles from random versions of the photos: channels exchanged, mirrored, turned, inverted, other contrast. Validation,
    /// test and scenes stay as they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub augment: bool,
    /// Seed of everything random.
    pub seed: u64,
    /// Ratios of train, validation and test.
    pub split: SplitRatios,
    /// Use only the first so many image files, sorted by name.
    pub limit: Option<usize>,
    /// Refuse the folder if any image met cannot be used, instead of leaving it out.
    pub strict: bool,
}

impl Default for JigsawSettings {
    /// What `jigsaw gen` makes unless something else is asked for.
    fn default() -> JigsawSettings {
        JigsawSettings {
            images: "data/photos".into(),
            test_images: None,
            scenes: 0.0,
            cues: Cues::With,
            grid: Grid::default(),
            tile: TOKEN_PIXELS,
            tile_any: false,
            count: 2000,
            stream: None,
            style: Style::Direct,
            question: QuestionKind::Order,
            question_first: false,
            min_crop: MIN_CROP,
            augment: false,
            seed: 7,
            split: SplitRatios::default(),
            limit: None,
            strict: false,
        }
    }
}

impl JigsawSettings {
    /// Are all puzzles cut from synthetic scenes?
    pub fn synthetic(&self) -> bool {
        self.images.as_os_str() == SCENES
    }

    /// Are some cut from photos and some from scenes?
    pub fn mixed(&self) -> bool {
        !self.synthetic() && self.scenes > 0.0
    }

    /// The ratios by which the photos of `images` are divided.
    pub(super) fn photo_ratios(&self) -> SplitRatios {
        let own = if self.test_images.is_some() { self.split.without(2) } else { None };
        own.unwrap_or(self.split)
    }

    /// How many puzzles train, validation and test have.
    ///
    /// # Errors
    /// An input error for counts that the ratios cannot divide.
    pub fn puzzles_by_split(&self) -> Result<[usize; 3]> {
        let Some(stream) = self.stream else { return self.split.apportion(self.count) };
        let held_out = self.split.without(0).map_or(Ok([0; 3]), |split| split.apportion(self.count))?;
        Ok([stream, held_out[1], held_out[2]])
    }

    /// Is puzzle `slot` of a split cut from a synthetic scene? They are spread evenly: `floor(n * scenes)` of the first n.
    pub(super) fn is_of_scene(&self, slot: usize) -> bool {
        let before = |n: usize| (n as f64 * self.scenes + 1e-9).floor();
        self.synthetic() || before(slot + 1) > before(slot)
    }

    /// Warnings for the user, before the puzzles are made.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.grid.tiles() == 2 {
            warnings.push(format!(
                "a grid of {} has two tiles, which are always swapped: every puzzle has the same answer, and always giving \
                 that one is right 100 % of the time; only larger grids measure anything",
                self.grid
            ));
        }
        let wanted = self.puzzles_by_split().unwrap_or_default();
        for (split, count) in SPLITS.into_iter().zip(wanted).filter(|_| self.mixed()) {
            let scenes = (0..count).filter(|&slot| self.is_of_scene(slot)).count();
            let without = match (scenes, count - scenes) {
                (0, 1..) => "scene",
                (1.., 0) => "photo",
                _ => continue,
            };
            warnings
                .push(format!("no {without} among the {count} puzzles of {split}; ask for more to have both kinds"));
        }
        warnings
    }

    /// Warnings about the dataset that was made of these settings: a split whose many puzzles come from few photos.
    pub fn warnings_of(&self, made: &Manifest) -> Vec<String> {
        let wanted = self.puzzles_by_split().unwrap_or_default();
        let of = |(split, count): (&str, usize)| {
            let scenes = (0..count).filter(|&slot| self.is_of_scene(slot)).count();
            // Each scene gives one puzzle.
            let (photos, puzzles) = (made.splits.get(split)?.sources.saturating_sub(scenes), count - scenes);
            let what = match split {
                _ if photos >= FEW_PHOTOS || puzzles < 2 * photos || puzzles == 0 => return None,
                "train" if self.augment => return None,
                "train" => "a model learns so few by heart. Add photos, or give --augment",
                _ => "what is measured on it holds for these photos. Add photos, or give it a larger share of --split",
            };
            Some(format!("{} of {split} from {}: {what}", counted(puzzles, "puzzle"), counted(photos, "photo")))
        };
        SPLITS.into_iter().zip(wanted).filter_map(of).collect()
    }

    /// Refuse contradictions before any work.
    ///
    /// # Errors
    /// Input errors that name the setting.
    pub fn check(&self, out: &Path) -> Result<()> {
        let side = self.tile.saturating_mul(self.grid.rows().max(self.grid.cols()) as u32);
        if self.tile == 0 || (!self.tile_any && !self.tile.is_multiple_of(TOKEN_PIXELS)) {
            return Err(Error::input(format!(
                "tile {}: must be a positive multiple of {TOKEN_PIXELS}, so that seams fall between visual tokens \
                 (--tile-any allows other sizes)",
                self.tile
            )));
        }
        if side > MAX_SIDE {
            return Err(Error::input(format!(
                "tile {} in a {} grid makes puzzles with a side of {side} pixels; at most {MAX_SIDE} are made",
                self.tile, self.grid
            )));
        }
        if !(self.min_crop > 0.0 && self.min_crop <= 1.0) {
            return Err(Error::input(format!("min_crop {}: must be above 0 and at most 1", self.min_crop)));
        }
        if self.count == 0 {
            return Err(Error::input("count 0: ask for at least one puzzle"));
        }
        if let Some(stream) = self.stream {
            if stream == 0 {
                return Err(Error::input("stream 0: ask for at least one training puzzle"));
            }
            if self.synthetic() || self.mixed() || self.question != QuestionKind::Order {
                return Err(Error::input(
                    "stream: makes puzzles of photos that ask for the order of all tiles; leave it out for scenes and other questions",
                ));
            }
            if self.split.without(0) == Some(self.split) {
                return Err(Error::input(format!(
                    "stream {stream}: --split {} leaves no photo for train; give the first share, too",
                    self.split
                )));
            }
        }
        if self.limit == Some(0) {
            return Err(Error::input("limit 0: leaves no image to use"));
        }
        if !(0.0..1.0).contains(&self.scenes) {
            return Err(Error::input(format!(
                "scenes {}: a share of the puzzles, at least 0 and below 1; --images {SCENES} makes all of them from scenes",
                self.scenes
            )));
        }
        if let Some(folder) = &self.test_images {
            if self.synthetic() || self.mixed() {
                return Err(Error::input(
                    "test_images: for puzzles of photos alone; leave it out for synthetic scenes",
                ));
            }
            if self.split.without(2).is_none() || self.split.without(2) == Some(self.split) {
                return Err(Error::input(format!(
                    "test_images {}: --split {} asks for no puzzles of test, or for no others; for test puzzles alone give the folder as --images",
                    folder.display(),
                    self.split
                )));
            }
            if files::is_inside(out, folder) {
                return Err(Error::input(format!(
                    "the output would lie inside the test images folder {}, where the next run would read it; choose another place",
                    folder.display()
                )));
            }
        }
        if self.synthetic() {
            if self.augment {
                return Err(Error::input(
                    "augment: changes photos only, and all puzzles are from scenes; leave it out",
                ));
            }
            if self.limit.is_some() {
                return Err(Error::input(
                    "limit: synthetic scenes have no files to limit; each puzzle has a scene of its own",
                ));
            }
            if self.scenes > 0.0 {
                return Err(Error::input(format!(
                    "scenes {}: with --images {SCENES} all puzzles are from scenes; name a folder to mix them with its photos",
                    self.scenes
                )));
            }
            return Ok(());
        }
        if files::is_inside(out, &self.images) {
            return Err(Error::input(format!(
                "the output would lie inside the images folder {}, where the next run would read it; choose another place",
                self.images.display()
            )));
        }
        Ok(())
    }
}

fn is_zero(share: &f64) -> bool {
    *share == 0.0
}
