//! Makes a dataset of puzzles from a folder of images, from synthetic scenes, or from both.
//!
//! - A puzzle is a function of (seed, source image, its how-manieth puzzle of that image): not of the number of threads, nor
//!   of which other images lie in the folder.
//! - The split goes by source image. A photo's side follows from its content alone (and the shares), so datasets made from one
//!   folder with other seeds, grids or questions never put one's training photo into another's test set. Neither do datasets of synthetic
//!   scenes of one seed, whatever their size; those of another seed are other scenes.
//! - Each photo is decoded once and gives all its puzzles then; the pixels in memory are bounded.

mod font;
mod preview;
mod puzzle;
mod scenes;
mod select;

pub use preview::write_preview;
pub use scenes::Cues;

use crate::data::source::{self, PixelBudget};
use crate::data::{Attribution, DatasetWriter, Manifest, Skipped};
use crate::io::files;
use crate::tasks::jigsaw::{Grid, QuestionKind};
use crate::tasks::response::Style;
use crate::tasks::split::{SPLITS, SplitRatios};
use crate::{Error, Result};
use puzzle::{BuiltPuzzle, PuzzleBuilder, Refusal};
use rayon::prelude::*;
use select::Photo;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// A visual token of Qwen2.5-VL covers this many pixels each way; tiles of a multiple of it have seams between tokens.
pub const TOKEN_PIXELS: u32 = 28;
/// Default of [`Settings::min_crop`].
pub const MIN_CROP: f64 = 0.8;
/// Largest side of a puzzle, in pixels.
pub const MAX_SIDE: u32 = 4096;

/// In place of a folder of images: synthetic scenes. A folder of this name is given as `./scenes`.
pub const SCENES: &str = "scenes";

/// With so many scenes more than puzzles found too plain, there is no use in drawing others.
const MOST_PLAIN: usize = 100;

/// Why a good photo gives no puzzles.
const PLAIN: &str = "too plain for this grid: tiles of it look the same";

/// What to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Folder of source images, or [`SCENES`].
    pub images: PathBuf,
    /// With a folder: the share of each split's puzzles that is cut from synthetic scenes all the same.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub scenes: f64,
    /// What tells where in a synthetic scene a tile comes from. Not read for photos.
    #[serde(default)]
    pub cues: Cues,
    /// Rows and columns.
    pub grid: Grid,
    /// Side of a tile in pixels.
    pub tile: u32,
    /// Allow tiles that are no multiple of [`TOKEN_PIXELS`].
    pub tile_any: bool,
    /// Number of puzzles over all splits.
    pub count: usize,
    /// Form of the response asked for.
    pub style: Style,
    /// What is asked.
    pub question: QuestionKind,
    /// Put the question before the picture. All prompts then begin with the same tokens, which are computed once a batch.
    pub question_first: bool,
    /// Smallest crop of a photo, as a share of the largest that fits the grid's aspect, each way.
    pub min_crop: f64,
    /// Seed of everything random.
    pub seed: u64,
    /// Ratios of train, validation and test.
    pub split: SplitRatios,
    /// Use only the first so many image files, sorted by name.
    pub limit: Option<usize>,
    /// Refuse the folder if any image met cannot be used, instead of leaving it out.
    pub strict: bool,
}

impl Settings {
    /// Are all puzzles cut from synthetic scenes?
    pub fn synthetic(&self) -> bool {
        self.images.as_os_str() == SCENES
    }

    /// Are some cut from photos and some from scenes?
    pub fn mixed(&self) -> bool {
        !self.synthetic() && self.scenes > 0.0
    }

    /// Is puzzle `slot` of a split cut from a synthetic scene? Those that are lie evenly among the others, `floor(n * scenes)` in the
    /// first n.
    fn is_of_scene(&self, slot: usize) -> bool {
        let before = |n: usize| (n as f64 * self.scenes + 1e-9).floor();
        self.synthetic() || before(slot + 1) > before(slot)
    }

    /// What is worth knowing before the puzzles are made.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.grid.tiles() == 2 {
            warnings.push(format!(
                "a grid of {} has two tiles, which are always swapped: every puzzle has the same answer, and always giving \
                 that one is right 100 % of the time; only larger grids measure anything",
                self.grid
            ));
        }
        let wanted = self.split.apportion(self.count).unwrap_or_default();
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
        if self.limit == Some(0) {
            return Err(Error::input("limit 0: leaves no image to use"));
        }
        if !(0.0..1.0).contains(&self.scenes) {
            return Err(Error::input(format!(
                "scenes {}: a share of the puzzles, at least 0 and below 1; --images {SCENES} makes all of them from scenes",
                self.scenes
            )));
        }
        if self.synthetic() {
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

/// Make the dataset in `out` (see [`DatasetWriter::create`] for `overwrite`). `on_puzzle` is called for each puzzle written,
/// from any thread. An interrupted call leaves a directory without a manifest, which no reader accepts.
pub fn generate(settings: &Settings, out: &Path, overwrite: bool, on_puzzle: &(dyn Fn() + Sync)) -> Result<Manifest> {
    settings.check(out)?;
    let wanted = settings.split.apportion(settings.count)?;
    let of_scenes = wanted.map(|n| (0..n).filter(|&slot| settings.is_of_scene(slot)).count());
    let of_photos = [0, 1, 2].map(|side| wanted[side] - of_scenes[side]);
    let (mut files, unread) = if settings.synthetic() { Default::default() } else { source::walk(&settings.images)? };
    files.truncate(settings.limit.unwrap_or(usize::MAX));
    if files.is_empty() && !settings.synthetic() {
        return Err(Error::input(format!(
            "no JPEG, PNG or WebP file in {} or below it; name another folder with --images",
            settings.images.display()
        )));
    }
    let attribution = if settings.synthetic() { None } else { source::attribution(&settings.images)? };
    let mut writer = None;
    let mut refused = Refused::default();
    loop {
        if refused.scenes > MOST_PLAIN + settings.count {
            return Err(Error::input(format!("synthetic scenes are {PLAIN}; use fewer or larger tiles")));
        }
        let files = files.iter().filter(|f| !refused.names(&f.name)).cloned().collect();
        let selection = select::select(files, &of_photos, settings);
        let scenes = select::scenes(&of_scenes, settings, |name| refused.names(name));
        let mut skipped = [unread.as_slice(), &selection.skipped, &refused.skipped].concat();
        refuse_if_strict(settings, &skipped)?;
        if let Some(side) = (0..SPLITS.len()).find(|&s| of_photos[s] > 0 && selection.photos[s].is_empty()) {
            skipped.extend(refused.left_out);
            return Err(too_few_photos(settings, &of_photos, SPLITS[side], &selection.photos, &skipped));
        }
        let writer_ref = match &mut writer {
            Some(writer) => writer,
            none => none.insert(DatasetWriter::create(out, overwrite)?),
        };
        let sources = [selection.photos, scenes];
        let Some(used) = write_splits(settings, &wanted, &sources, writer_ref, &mut refused, on_puzzle)? else {
            continue; // a split lost its last photo: divide what is left anew
        };
        let mut skipped = [unread, selection.skipped, refused.skipped].concat();
        let mut left_out = [selection.duplicates, refused.left_out].concat();
        skipped.sort_by(|a, b| a.file.cmp(&b.file));
        left_out.sort_by(|a, b| a.file.cmp(&b.file));
        let (licences, attribution) = attribution.map(|table| credits(&table, used)).unwrap_or_default();
        let about = Manifest {
            tool: String::new(),
            version: String::new(),
            sha256: String::new(),
            splits: BTreeMap::new(),
            settings: serde_json::to_value(settings).map_err(|e| Error::failed(format!("settings: {e}")))?,
            licences,
            attribution,
            skipped,
            left_out,
        };
        return match writer {
            Some(writer) => writer.finish(about),
            None => Err(Error::failed("the dataset was never begun")),
        };
    }
}

/// Photos and scenes that were selected and then gave no puzzles.
#[derive(Default)]
struct Refused {
    skipped: Vec<Skipped>,
    left_out: Vec<Skipped>,
    /// How many of them are scenes.
    scenes: usize,
}

impl Refused {
    fn names(&self, file: &str) -> bool {
        self.skipped.iter().chain(&self.left_out).any(|s| s.file == file)
    }

    fn add(&mut self, photo: &Photo, refusal: Refusal) {
        self.scenes += usize::from(photo.is_scene());
        let file = photo.name.clone();
        match refusal {
            Refusal::Unusable(reason) => self.skipped.push(Skipped { file, reason }),
            Refusal::Plain => self.left_out.push(Skipped { file, reason: PLAIN.into() }),
        }
    }
}

/// Make and write the puzzles of every split from its photos and its scenes; the names of the photos used, or `None` if either of a split gave
/// out.
fn write_splits(
    settings: &Settings,
    wanted: &[usize; 3],
    sources: &[[Vec<Photo>; 3]; 2],
    writer: &mut DatasetWriter,
    refused: &mut Refused,
    on_puzzle: &(dyn Fn() + Sync),
) -> Result<Option<BTreeSet<String>>> {
    let budget = PixelBudget::default();
    let mut used = BTreeSet::new();
    for (side, split) in SPLITS.into_iter().enumerate().filter(|(side, _)| wanted[*side] > 0) {
        writer.create_split(split)?;
        let builder = PuzzleBuilder { settings, split, writer: &*writer, budget: &budget, on_puzzle };
        let mut made: Vec<Option<(&Photo, BuiltPuzzle)>> = (0..wanted[side]).map(|_| None).collect();
        for (photos, scenes) in sources.iter().zip([false, true]) {
            let slots = (0..wanted[side]).filter(|&slot| settings.is_of_scene(slot) == scenes).collect();
            if !fill(&builder, &photos[side], slots, &mut made, refused)? {
                return Ok(None);
            }
        }
        let made: Vec<(&Photo, BuiltPuzzle)> = made.into_iter().flatten().collect();
        used.extend(made.iter().filter(|(photo, _)| !photo.is_scene()).map(|(photo, _)| photo.name.clone()));
        let record = |(slot, (photo, made)): (usize, &(&Photo, BuiltPuzzle))| {
            (puzzle::record(settings, split, slot, photo, made), vec![made.digest])
        };
        writer.write_records(split, made.iter().enumerate().map(record))?;
    }
    Ok(Some(used))
}

/// Make the puzzles of `slots` from `photos`, each in turn giving one until there are enough, and put them into `made`. A photo that
/// turns out not to decode is refused and its puzzles are made from the others; false if none is left.
fn fill<'a>(
    builder: &PuzzleBuilder,
    photos: &'a [Photo],
    slots: Vec<usize>,
    made: &mut [Option<(&'a Photo, BuiltPuzzle)>],
    refused: &mut Refused,
) -> Result<bool> {
    let mut alive: Vec<usize> = (0..photos.len()).collect();
    let mut given = vec![0u64; photos.len()];
    let mut missing = slots;
    while !missing.is_empty() {
        if alive.is_empty() {
            return Ok(false);
        }
        let mut jobs: Vec<(usize, Vec<(usize, u64)>)> = alive.iter().map(|&photo| (photo, Vec::new())).collect();
        let turns = jobs.len();
        for (turn, slot) in missing.drain(..).enumerate() {
            let (photo, slots) = &mut jobs[turn % turns];
            slots.push((slot, given[*photo]));
            given[*photo] += 1;
        }
        jobs.retain(|(_, slots)| !slots.is_empty());
        let results: Vec<Result<Result<Vec<BuiltPuzzle>, Refusal>>> =
            jobs.par_iter().map(|(photo, slots)| builder.make(&photos[*photo], slots)).collect();
        for ((photo, slots), result) in jobs.into_iter().zip(results) {
            match result? {
                Ok(puzzles) => {
                    for ((slot, _), puzzle) in slots.into_iter().zip(puzzles) {
                        made[slot] = Some((&photos[photo], puzzle));
                    }
                }
                Err(refusal) => {
                    refused.add(&photos[photo], refusal);
                    alive.retain(|&p| p != photo);
                    missing.extend(slots.into_iter().map(|(slot, _)| slot));
                }
            }
        }
        refuse_if_strict(builder.settings, &refused.skipped)?;
        missing.sort_unstable();
    }
    Ok(true)
}

/// Photos used under each licence, and the rows of the attribution table for them.
fn credits(
    table: &HashMap<String, Attribution>,
    used: BTreeSet<String>,
) -> (BTreeMap<String, usize>, Vec<Attribution>) {
    let (mut licences, mut rows) = (BTreeMap::new(), Vec::new());
    for name in used {
        let row = table.get(&name).cloned();
        let licence = row.as_ref().map_or("not stated".to_owned(), |row| row.licence.clone());
        *licences.entry(licence).or_default() += 1;
        rows.extend(row);
    }
    (licences, rows)
}

fn refuse_if_strict(settings: &Settings, skipped: &[Skipped]) -> Result<()> {
    if !settings.strict || skipped.is_empty() {
        return Ok(());
    }
    Err(Error::input(format!(
        "{} file(s) in {} cannot be used, and --strict refuses that:{}",
        skipped.len(),
        settings.images.display(),
        listing(skipped)
    )))
}

fn too_few_photos(
    settings: &Settings,
    wanted: &[usize; 3],
    empty: &str,
    photos: &[Vec<Photo>; 3],
    skipped: &[Skipped],
) -> Error {
    let usable: usize = photos.iter().map(Vec::len).sum();
    let sides = wanted.iter().filter(|&&n| n > 0).count();
    let left_out = if skipped.is_empty() { String::new() } else { format!("; left out:{}", listing(skipped)) };
    if usable == 0 {
        return Error::input(format!("no usable image in {}{left_out}", settings.images.display()));
    }
    Error::input(format!(
        "{} has at most {usable} usable image(s), too few for {sides} splits by source image (none is left for {empty}); add images, \
         or put all on one side, such as --split 1,0,0{left_out}",
        settings.images.display()
    ))
}

/// The first few of `skipped`, a line each.
fn listing(skipped: &[Skipped]) -> String {
    const SHOWN: usize = 10;
    let mut text: String = skipped.iter().take(SHOWN).map(|s| format!("\n  {}: {}", s.file, s.reason)).collect();
    if skipped.len() > SHOWN {
        text += &format!("\n  and {} more", skipped.len() - SHOWN);
    }
    text
}

fn is_zero(share: &f64) -> bool {
    *share == 0.0
}
