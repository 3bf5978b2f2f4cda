//! Prior-knowledge suites: questions that a small model can learn, made without end from seeds and from a folder of photos.
//!
//! - Each family gives training records (a dataset directory) and, from the test split, benchmark files in the form that
//!   `jigsaw eval --bench` reads (`bench/FAMILY-STYLE.tsv`).
//! - A question is a function of (seed, family, split, its number) and, where it shows a photo, of the photos of its split. The
//!   splits have random streams of their own; a photo is on one side only, the same side as in puzzles made with the same shares.
//! - Every question is written in both styles, the bare answer and thinking first.

mod family;
mod objects;
mod part;
mod tsv;

pub use family::{Family, Photos, Question};
pub use part::Part;

use crate::data::{Attribution, DatasetWriter, Digest, Manifest, Message, Record, Skipped, source};
use crate::io::files;
use crate::tasks::jigsaw;
use crate::tasks::response::{Style, with_image};
use crate::tasks::split::{SPLITS, SplitRatios};
use crate::{Error, Result, rng};
use image::RgbImage;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// Folder of the benchmark files in the output directory.
pub const BENCH: &str = "bench";
/// The forms in which every question is written.
pub const STYLES: [Style; 2] = [Style::Direct, Style::Think];

/// Pixels kept of the shorter side of a photo: twice what a picture shows.
const KEPT: u32 = 168;

/// What to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Families, each with how many times the training questions it has.
    pub suite: Vec<Part>,
    /// Folder of photos, for the families that show them.
    pub images: PathBuf,
    /// Questions of each family over all splits, but for what its [`Part::times`] adds; each is written in both styles.
    pub count: usize,
    /// Put the question before the picture.
    pub question_first: bool,
    /// Seed of everything random.
    pub seed: u64,
    /// Ratios of train, validation and test, of the questions and of the photos.
    pub split: SplitRatios,
    /// At most so many questions of each family in validation, and in test.
    pub held_out: Option<usize>,
}

/// The photos of each split, and what was found on the way.
#[derive(Default)]
struct PhotoPool {
    photos: [Photos; 3],
    licences: BTreeMap<String, usize>,
    attribution: Vec<Attribution>,
    skipped: Vec<Skipped>,
    left_out: Vec<Skipped>,
}

/// Make the suites in `out` (see [`DatasetWriter::create`] for `overwrite`). `on_question` is called for each question made,
/// from any thread. An interrupted call leaves a directory without a manifest, which no reader accepts.
pub fn generate(settings: &Settings, out: &Path, overwrite: bool, on_question: &(dyn Fn() + Sync)) -> Result<Manifest> {
    if settings.suite.is_empty() || settings.count == 0 {
        return Err(Error::input("a suite needs at least one family and one question"));
    }
    let mut wanted = settings.split.apportion(settings.count)?;
    for held_out in &mut wanted[1..] {
        *held_out = (*held_out).min(settings.held_out.unwrap_or(usize::MAX));
    }
    let pool = match settings.suite.iter().any(|part| part.family.needs_photos()) {
        true => {
            if files::is_inside(out, &settings.images) {
                return Err(Error::input(format!(
                    "the output would lie inside the images folder {}; choose another place",
                    settings.images.display()
                )));
            }
            read_photos(settings)?
        }
        false => {
            let mut pool = PhotoPool::default();
            pool.photos[1..].iter_mut().for_each(|photos| photos.held_out = true);
            pool
        }
    };
    if settings.suite.iter().any(|part| part.family == Family::Knowledge) {
        for (photos, _) in pool.photos.iter().zip(wanted).filter(|(_, n)| *n > 0) {
            photos.check_classes()?;
        }
    }
    let mut writer = DatasetWriter::create(out, overwrite)?;
    for (side, split) in SPLITS.into_iter().enumerate().filter(|(side, _)| wanted[*side] > 0) {
        writer.create_split(split)?;
        let photos = &pool.photos[side];
        let mut made = Vec::with_capacity(settings.suite.len() * wanted[side]);
        for &Part { family, times } in &settings.suite {
            let count = if split == "train" { wanted[side] * times } else { wanted[side] };
            let questions: Vec<Result<Made>> = (0..count)
                .into_par_iter()
                .map(|index| {
                    let made = make(settings, &writer, split, family, index, photos);
                    on_question();
                    made
                })
                .collect();
            made.extend(questions.into_iter().collect::<Result<Vec<Made>>>()?);
        }
        if split == "test" {
            tsv::write(&out.join(BENCH), &out.join(split), &made)?;
        }
        let records = made.iter().flat_map(|m| STYLES.map(|style| (record(settings, split, m, style), vec![m.digest])));
        writer.write_records(split, records)?;
    }
    writer.finish(Manifest {
        tool: String::new(),
        version: String::new(),
        sha256: String::new(),
        splits: BTreeMap::new(),
        settings: serde_json::to_value(settings).map_err(|e| Error::failed(format!("settings: {e}")))?,
        licences: pool.licences,
        attribution: pool.attribution,
        skipped: pool.skipped,
        left_out: pool.left_out,
    })
}

/// A question whose picture is written.
struct Made {
    family: Family,
    index: usize,
    question: Question,
    /// The question stands before the picture.
    first: bool,
    size: (u32, u32),
    digest: Digest,
}

impl Made {
    /// The whole prompt in a style, with the place of the picture.
    fn prompt(&self, style: Style) -> String {
        with_image(&self.question.asked(style), self.first)
    }

    /// Path of its picture in the split.
    fn image(&self) -> String {
        format!("images/{}-{:06}.png", self.family.name(), self.index)
    }
}

fn make(
    settings: &Settings,
    writer: &DatasetWriter,
    split: &str,
    family: Family,
    index: usize,
    photos: &Photos,
) -> Result<Made> {
    let mut rng = rng::stream(settings.seed, &format!("suite {} {split}", family.name()), &[index as u64]);
    let mut question = family.question(&mut rng, index, photos)?;
    let image = std::mem::take(&mut question.image);
    let first = settings.question_first;
    let mut made = Made { family, index, question, first, size: image.dimensions(), digest: [0; 32] };
    made.digest = writer.write_image(split, &made.image(), &image)?;
    Ok(made)
}

fn record(settings: &Settings, split: &str, made: &Made, style: Style) -> Record {
    let Made { family, index, question, size, .. } = made;
    let mut meta = json!({ "family": family, "kind": question.kind, "style": style });
    if !question.options.is_empty() {
        meta["options"] = json!(question.options);
    }
    if question.scorer == "iou" {
        meta["space"] = json!("absolute");
        meta["size"] = json!([size.0, size.1]);
    }
    let name = if style == Style::Direct { "direct" } else { "think" };
    let message = |role: &str, content: String| Message { role: role.into(), content };
    Record {
        file_name: made.image(),
        id: format!("{split}-{}-{index:06}-{name}", family.name()),
        task: question.scorer.into(),
        messages: vec![message("user", made.prompt(style)), message("assistant", question.reference(style))],
        images: vec![made.image()],
        answer: question.answer.clone(),
        source: question.source.clone(),
        seed: settings.seed,
        meta: meta.as_object().cloned().unwrap_or_default(),
    }
}

/// Read every photo of the folder and put it on its side.
fn read_photos(settings: &Settings) -> Result<PhotoPool> {
    let (found, skipped) = source::walk(&settings.images)?;
    let table = source::attribution(&settings.images)?.unwrap_or_default();
    let mut pool = PhotoPool { skipped, ..PhotoPool::default() };
    let budget = source::PixelBudget::default();
    let decoded: Vec<std::result::Result<([u8; 32], RgbImage), String>> = found
        .par_iter()
        .map(|file| {
            let bytes = source::read(&file.path)?;
            let _share = budget.take(source::probe(&bytes)?);
            Ok((Sha256::digest(&bytes).into(), reduced(source::decode(&bytes)?)))
        })
        .collect();
    let mut classes: [BTreeMap<String, Vec<usize>>; 3] = Default::default();
    let mut seen = HashSet::new();
    for (file, photo) in found.into_iter().zip(decoded) {
        let (hash, image) = match photo {
            Ok(photo) => photo,
            Err(reason) => {
                pool.skipped.push(Skipped { file: file.name, reason });
                continue;
            }
        };
        if !seen.insert(hash) {
            pool.left_out.push(Skipped { file: file.name, reason: "same content as another".into() });
            continue;
        }
        let side = settings.split.side(&hash);
        if let Some(row) = table.get(&file.name) {
            if !row.class.is_empty() {
                classes[side].entry(row.class.clone()).or_default().push(pool.photos[side].all.len());
            }
            *pool.licences.entry(row.licence.clone()).or_default() += 1;
            pool.attribution.push(row.clone());
        }
        pool.photos[side].all.push((file.name, image));
    }
    for (side, (photos, classes)) in pool.photos.iter_mut().zip(classes).enumerate() {
        photos.classes = classes.into_iter().collect();
        photos.held_out = SPLITS[side] != "train";
    }
    Ok(pool)
}

/// The photo with a shorter side of at most [`KEPT`] pixels, so that a large folder fits into memory.
fn reduced(image: RgbImage) -> RgbImage {
    let (width, height) = image.dimensions();
    let shorter = width.min(height);
    if shorter <= KEPT {
        return image;
    }
    let scaled = |side: u32| (u64::from(side) * u64::from(KEPT)).div_ceil(u64::from(shorter)) as u32;
    jigsaw::resize(&image, [0, 0, width, height], scaled(width), scaled(height))
}

#[cfg(test)]
mod tests;
