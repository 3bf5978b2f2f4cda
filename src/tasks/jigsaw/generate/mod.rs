//! Makes a dataset of puzzles from a folder of images, from synthetic scenes, or from both.
//!
//! - A puzzle is a function of (seed, source image, its number among the puzzles of that image): not of the number of threads, nor of
//!   the other images in the folder.
//! - Splits are by source image. A photo's split follows from its content and the ratios alone, so a training photo of one dataset is never a
//!   test photo of another made from the same folder, whatever the seed, grid or question. The same holds for synthetic scenes of one seed;
//!   another seed draws other scenes.
//! - Training puzzles may be made as they are needed instead ([`JigsawSettings::stream`]): the same puzzles, nothing stored.
//! - Each photo is decoded once for all its puzzles; the pixels in memory are bounded.

mod augment;
mod photo;
mod preview;
mod puzzle;
mod scenes;
mod select;
mod settings;
mod stream;

pub use preview::write_preview;
pub use scenes::Cues;
pub use settings::{JigsawSettings, MAX_SIDE, MIN_CROP, SCENES, TOKEN_PIXELS};
pub use stream::PuzzleStream;

use crate::data::source::{self, PixelBudget, SourceFile};
use crate::data::{Attribution, DatasetWriter, Manifest, Skipped};
use crate::tasks::generator::{SourcePool, SplitWriter, make_split, write_records};
use crate::tasks::split::SPLITS;
use crate::{Error, Result};
use photo::Photo;
use puzzle::{PuzzleBuilder, Refusal};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use stream::write_stream;

/// Scenes that may be refused beyond the number of puzzles before the settings are refused instead.
const MOST_PLAIN: usize = 100;

/// Why a readable photo gives no puzzles.
const PLAIN: &str = "too plain for this grid: tiles of it look the same";

/// Make the dataset in `out` (see [`DatasetWriter::create`] for `overwrite`). `on_example` is called for each puzzle written,
/// from any thread. An interrupted call leaves a directory without a manifest, which no reader accepts.
pub fn generate(
    settings: &JigsawSettings,
    out: &Path,
    overwrite: bool,
    on_example: &(dyn Fn() + Sync),
) -> Result<Manifest> {
    settings.check(out)?;
    let wanted = settings.puzzles_by_split()?;
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
    let mut attribution = if settings.synthetic() { None } else { source::attribution(&settings.images)? };
    let (test_files, mut unread) = (TestFiles::find(settings)?, unread);
    if let Some(TestFiles { files, unread: more, credits }) = &test_files {
        if files.is_empty() {
            return Err(Error::input("test_images: no JPEG, PNG or WebP file in it or below it; name another folder"));
        }
        unread.extend(more.iter().cloned());
        if !credits.is_empty() {
            attribution.get_or_insert_default().extend(credits.clone());
        }
    }
    let about = serde_json::to_value(settings).map_err(|e| Error::failed(format!("settings: {e}")))?;
    let mut writer = None;
    let mut refused = Refused::default();
    loop {
        if refused.scenes > MOST_PLAIN + settings.count {
            return Err(Error::input(format!("synthetic scenes are {PLAIN}; use fewer or larger tiles")));
        }
        let left = |files: &[SourceFile]| -> Vec<SourceFile> {
            files.iter().filter(|f| !refused.names(&f.name)).cloned().collect()
        };
        let test = test_files.as_ref().map(|test| left(&test.files));
        let selection = select::select(left(&files), test, &of_photos, settings);
        let scenes = select::scenes(&of_scenes, settings, |name| refused.names(name));
        let mut skipped = [unread.as_slice(), &selection.skipped, &refused.skipped].concat();
        refuse_if_strict(settings, &skipped)?;
        if let Some(side) = (0..SPLITS.len()).find(|&s| of_photos[s] > 0 && selection.photos[s].is_empty()) {
            skipped.extend(refused.left_out);
            return Err(too_few_photos(settings, &of_photos, SPLITS[side], &selection.photos, &skipped));
        }
        let writer_ref = match &mut writer {
            Some(writer) => writer,
            none => {
                let begun = none.insert(DatasetWriter::create(out, overwrite)?);
                begun.expect_settings(&about)?;
                begun
            }
        };
        let sources = [selection.photos, scenes];
        let Some(used) = write_splits(settings, &wanted, &sources, writer_ref, &mut refused, on_example)? else {
            continue; // a split lost its last photo: divide the others again
        };
        let mut skipped = [unread, selection.skipped, refused.skipped].concat();
        let mut left_out = [selection.duplicates, refused.left_out].concat();
        skipped.sort_by(|a, b| a.file.cmp(&b.file));
        left_out.sort_by(|a, b| a.file.cmp(&b.file));
        let (licences, attribution) = attribution.map(|table| credits(&table, used)).unwrap_or_default();
        let about = Manifest { settings: about, licences, attribution, skipped, left_out, ..Manifest::default() };
        return match writer {
            Some(writer) => writer.finish(about),
            None => Err(Error::failed("the dataset was never started")),
        };
    }
}

/// The photos of the folder for test puzzles. Their names begin with that of the folder.
struct TestFiles {
    files: Vec<SourceFile>,
    unread: Vec<Skipped>,
    credits: HashMap<String, Attribution>,
}

impl TestFiles {
    fn find(settings: &JigsawSettings) -> Result<Option<TestFiles>> {
        let Some(folder) = &settings.test_images else { return Ok(None) };
        let (files, unread) = source::walk(folder)?;
        let credits = source::attribution(folder)?.unwrap_or_default();
        let folder = folder.file_name().map_or("test".into(), |name| name.to_string_lossy().into_owned());
        let named = |name: String| format!("{folder}/{name}");
        let credit = |(name, row): (String, Attribution)| (named(name), Attribution { file: named(row.file), ..row });
        Ok(Some(TestFiles {
            files: files.into_iter().map(|file| SourceFile { name: named(file.name), ..file }).collect(),
            unread: unread.into_iter().map(|skipped| Skipped { file: named(skipped.file), ..skipped }).collect(),
            credits: credits.into_iter().map(credit).collect(),
        }))
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

/// Make and write the puzzles of every split from its photos and its scenes; the names of the photos used, or `None` if a split has no photo
/// or no scene left.
fn write_splits(
    settings: &JigsawSettings,
    wanted: &[usize; 3],
    sources: &[[Vec<Photo>; 3]; 2],
    writer: &mut DatasetWriter,
    refused: &mut Refused,
    on_example: &(dyn Fn() + Sync),
) -> Result<Option<BTreeSet<String>>> {
    let builder = PuzzleBuilder { settings, budget: PixelBudget::default() };
    let mut used = BTreeSet::new();
    for (side, split) in SPLITS.into_iter().enumerate().filter(|(side, _)| wanted[*side] > 0) {
        if side == 0 && settings.stream.is_some() {
            let photos = &sources[0][side];
            let made =
                write_stream(settings, wanted[side], photos, writer, |photo, refusal| refused.add(photo, refusal))?;
            refuse_if_strict(settings, &refused.skipped)?;
            let Some(made) = made else { return Ok(None) };
            used.extend(made.into_iter().map(|photo| photo.name.clone()));
            continue;
        }
        writer.create_split(split, true)?;
        let output = SplitWriter { split, writer: &*writer, on_example };
        let pools = sources.iter().zip([false, true]).map(|(photos, scenes)| SourcePool {
            slots: (0..wanted[side]).filter(|&slot| settings.is_of_scene(slot) == scenes).collect(),
            sources: &photos[side],
        });
        let made = make_split(&builder, &output, pools.collect(), &mut |refusals| {
            refusals.into_iter().for_each(|(photo, refusal)| refused.add(photo, refusal));
            refuse_if_strict(settings, &refused.skipped)
        })?;
        let Some(made) = made else { return Ok(None) };
        used.extend(made.iter().filter(|(photo, _)| !photo.is_scene()).map(|(photo, _)| photo.name.clone()));
        write_records(&builder, writer, split, &made)?;
    }
    Ok(Some(used))
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

fn refuse_if_strict(settings: &JigsawSettings, skipped: &[Skipped]) -> Result<()> {
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
    settings: &JigsawSettings,
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
