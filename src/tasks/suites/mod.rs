//! Prior-knowledge suites: questions that a small model can learn, drawn from seeds and from a folder of photos.
//!
//! - Each family gives training records (a dataset directory) and, from the test split, benchmark files in the form that
//!   `jigsaw eval --bench` reads (`bench/FAMILY-STYLE.tsv`).
//! - A question is a function of (seed, family, split, its number) and, where it shows a photo, of the photos of its split. The
//!   splits have random streams of their own; a photo is in one split only, the same as in puzzles made with the same ratios.
//! - Every question is written in both styles, the bare answer and thinking first.

mod example;
mod family;
mod family_weight;
mod noise;
mod objects;
mod tsv;

pub use example::STYLES;
pub use family::{Family, Photos, Question};
pub use family_weight::{FamilyWeight, parse_families};
pub use noise::Noise;

use crate::data::{Attribution, DatasetWriter, Digest, Manifest, Message, Record, Skipped, resize, source};
use crate::io::files;
use crate::tasks::generator::{Generator, SourcePool, SplitWriter, make_split, write_records};
use crate::tasks::response::Style;
use crate::tasks::split::{MAX_COUNT, SPLITS, SplitRatios};
use crate::{Error, Result, rng};
use example::SuiteExample;
use image::RgbImage;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};

/// Folder of the benchmark files in the output directory.
pub const BENCH: &str = "bench";
/// Pixels kept of the shorter side of a photo: twice the side of a picture.
const KEPT: u32 = 168;

/// What suites to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SuiteSettings {
    /// Families of questions, such as `all` or `vqa,knowledge:2`.
    #[schemars(with = "String")]
    pub suite: Vec<FamilyWeight>,
    /// Folder of photos, for the families that show them.
    pub images: PathBuf,
    /// Questions of each family over all splits, before a weight (`knowledge:2`) multiplies the training ones; each is written in both styles.
    pub count: usize,
    /// Put the question before the picture.
    pub question_first: bool,
    /// Seed of everything random.
    pub seed: u64,
    /// Ratios of train, validation and test, of the questions and of the photos.
    pub split: SplitRatios,
    /// At most so many questions of each family in validation, and in test.
    pub held_out: Option<usize>,
    /// Noise over the pictures, in every split.
    #[serde(default, skip_serializing_if = "Noise::is_none")]
    pub noise: Noise,
}

impl Default for SuiteSettings {
    /// What `jigsaw gen --suite` makes unless something else is asked for; it names no family.
    fn default() -> SuiteSettings {
        SuiteSettings {
            suite: Vec::new(),
            images: "data/photos".into(),
            count: 2000,
            question_first: false,
            seed: 7,
            split: SplitRatios::default(),
            held_out: None,
            noise: Noise::default(),
        }
    }
}

/// The photos of each split, and the files left out.
#[derive(Default)]
struct PhotoPool {
    photos: [Photos; 3],
    licences: BTreeMap<String, usize>,
    attribution: Vec<Attribution>,
    skipped: Vec<Skipped>,
    left_out: Vec<Skipped>,
}

/// Make the suites in `out` (see [`DatasetWriter::create`] for `overwrite`). `on_example` is called for each question made,
/// from any thread. An interrupted call leaves a directory without a manifest, which no reader accepts.
pub fn generate(
    settings: &SuiteSettings,
    out: &Path,
    overwrite: bool,
    on_example: &(dyn Fn() + Sync),
) -> Result<Manifest> {
    if settings.suite.is_empty() || settings.count == 0 {
        return Err(Error::input("a suite needs at least one family and one question"));
    }
    let mut wanted = settings.split.apportion(settings.count)?;
    for held_out in &mut wanted[1..] {
        *held_out = (*held_out).min(settings.held_out.unwrap_or(usize::MAX));
    }
    let training: usize = settings.suite.iter().map(|part| wanted[0] * part.times).sum();
    if training > MAX_COUNT {
        return Err(Error::input(format!(
            "count {} and the weights of the families make {training} training questions; a dataset has at most {MAX_COUNT}",
            settings.count
        )));
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
    let about = serde_json::to_value(settings).map_err(|e| Error::failed(format!("settings: {e}")))?;
    let mut writer = DatasetWriter::create(out, overwrite)?;
    writer.expect_settings(&about)?;
    for (side, split) in SPLITS.into_iter().enumerate().filter(|(side, _)| wanted[*side] > 0) {
        writer.create_split(split, true)?;
        let generator = SuiteGenerator { settings, photos: &pool.photos[side] };
        let questions: Vec<QuestionId> = settings
            .suite
            .iter()
            .flat_map(|&FamilyWeight { family, times }| {
                let count = if split == "train" { wanted[side] * times } else { wanted[side] };
                (0..count).map(move |index| QuestionId { family, index })
            })
            .collect();
        let output = SplitWriter { split, writer: &writer, on_example };
        let all = SourcePool { slots: (0..questions.len()).collect(), sources: &questions };
        let made = make_split(&generator, &output, vec![all], &mut |_| Ok(()))?.unwrap_or_default();
        if split == "test" {
            let made: Vec<&SuiteExample> = made.iter().map(|(_, example)| example).collect();
            tsv::write(&writer, &out.join(BENCH), &out.join(split), &made)?;
        }
        write_records(&generator, &mut writer, split, &made)?;
    }
    let PhotoPool { licences, attribution, skipped, left_out, .. } = pool;
    writer.finish(Manifest { settings: about, licences, attribution, skipped, left_out, ..Manifest::default() })
}

/// A question among those of its family and split.
struct QuestionId {
    family: Family,
    index: usize,
}

struct SuiteGenerator<'a> {
    settings: &'a SuiteSettings,
    photos: &'a Photos,
}

impl Generator for SuiteGenerator<'_> {
    type Source = QuestionId;
    type Example = SuiteExample;
    type Refusal = Infallible;

    fn make(
        &self,
        split: &SplitWriter<'_>,
        &QuestionId { family, index }: &QuestionId,
        slots: &[(usize, u64)],
    ) -> Result<std::result::Result<Vec<SuiteExample>, Infallible>> {
        let mut made = Vec::with_capacity(slots.len());
        for _ in slots {
            let label = format!("suite {} {}", family.name(), split.split);
            let mut question =
                family.question(&mut rng::stream(self.settings.seed, &label, &[index as u64]), index, self.photos)?;
            let mut image = std::mem::take(&mut question.image);
            let (sd, label) = (self.settings.noise.of(family), format!("noise {label}"));
            if sd > 0 {
                noise::add_noise(&mut image, sd, &mut rng::stream(self.settings.seed, &label, &[index as u64]));
            }
            let (first, size) = (self.settings.question_first, image.dimensions());
            let mut example = SuiteExample { family, index, question, first, size, digest: [0; 32] };
            example.digest = split.write_image(&example.image(), &image)?;
            made.push(example);
            (split.on_example)();
        }
        Ok(Ok(made))
    }

    fn records(&self, split: &str, _: usize, _: &QuestionId, example: &SuiteExample) -> Vec<(Record, Vec<Digest>)> {
        STYLES.map(|style| (record(self.settings, split, example, style), vec![example.digest])).into()
    }
}

fn record(settings: &SuiteSettings, split: &str, made: &SuiteExample, style: Style) -> Record {
    let SuiteExample { family, index, question, size, .. } = made;
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

/// Read every photo of the folder and put it into its split.
fn read_photos(settings: &SuiteSettings) -> Result<PhotoPool> {
    let (found, skipped) = source::walk(&settings.images)?;
    let table = source::attribution(&settings.images)?.unwrap_or_default();
    let mut pool = PhotoPool { skipped, ..PhotoPool::default() };
    let budget = source::PixelBudget::default();
    let decoded: Vec<std::result::Result<([u8; 32], RgbImage), String>> = found
        .par_iter()
        .map(|file| {
            let bytes = source::read(&file.path)?;
            let _share = budget.acquire(source::probe(&bytes)?);
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
    resize(&image, [0, 0, width, height], scaled(width), scaled(height))
}

#[cfg(test)]
mod tests;
