//! `jigsaw gen`: a dataset of puzzles, or of questions of prior knowledge.

use super::output::{print, status};
use super::progress::bar;
use crate::data::Manifest;
use crate::io::refused::undo_if_refused;
use crate::io::text::counted;
use crate::tasks::Style;
use crate::tasks::countdown::{self, CountdownSettings, NumberCount};
use crate::tasks::jigsaw::generate::{self, Cues, JigsawSettings};
use crate::tasks::jigsaw::{Grid, QuestionKind};
use crate::tasks::maths::{self, Families, Levels, MathsSettings};
use crate::tasks::split::{SPLITS, SplitRatios};
use crate::tasks::suites::{self, FamilyWeight, Noise};
use crate::{Error, Result};
use std::path::PathBuf;
use std::str::FromStr;

/// Make a dataset: jigsaw puzzles from images, puzzles of another task, or suites of prior knowledge.
///
/// Each puzzle is a random crop of a photo, cut into a grid and shuffled. The answer gives, for each place of the original in
/// reading order, the number of the tile that belongs there; tiles are numbered from 1 in reading order of the shuffled
/// picture. The dataset is the same for the same seed and images, whatever the number of threads (RAYON_NUM_THREADS).
///
/// EXIF orientation is applied, grey becomes RGB, transparency is laid over white. Images that cannot be used (damaged, CMYK,
/// more than 8 bits a channel, animated, tiny, enormous) are skipped and named, with the reason, on stderr. Files of the same
/// content count as one photo; a photo with tiles that look the same (plain background) is left out.
///
/// With --suite, questions of prior knowledge are made instead: each in both styles, a train and a validation split to train a
/// base on, and the test split also as benchmark files, bench/FAMILY-STYLE.tsv, for `jigsaw eval --bench`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  jigsaw gen --grid 3x3 --count 2000 --out runs/puzzles
  jigsaw gen --grid 2x2 --augment --stream 250000 --test-images data/test-photos --count 2000 --split 0.8,0.05,0.15 \
      --out runs/streamed
  jigsaw gen --images scenes --cues with --grid 2x2 --out runs/scenes
  jigsaw gen --images data/photos --scenes 0.5 --out runs/photos-and-scenes
  jigsaw gen --task countdown --numbers 3-4 --count 2000 --out runs/countdown
  jigsaw gen --task maths --levels 1-2 --count 2000 --out runs/maths
  jigsaw gen --suite all --count 5000 --out runs/prior")]
pub struct GenArgs {
    /// Folder of JPEG, PNG or WebP images, searched recursively; or `scenes` for unlimited synthetic images
    #[arg(long, value_name = "DIR", default_value = "data/photos")]
    images: PathBuf,
    /// Cut the test puzzles from the photos of this folder, such as data/test-photos, and divide those of --images over train and validation
    #[arg(long, value_name = "DIR")]
    test_images: Option<PathBuf>,
    /// Directory to write the dataset to: train/, validation/, test/, manifest.json
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Make prior-knowledge questions instead of puzzles: all, or some of grounding, ocr, doc, vqa, pope, knowledge, describe,
    /// order, lists, separated by commas; --count is then the questions of each family. NAME:N gives a family N times the
    /// training questions of the others
    #[arg(
        long,
        value_name = "NAME[:N],...",
        conflicts_with_all = ["test_images", "grid", "tile", "tile_any", "style", "question", "min_crop", "augment", "stream", "limit", "strict", "preview", "scenes", "cues"]
    )]
    suite: Option<Suites>,
    /// Make puzzles of another task instead of the jigsaw, in text only. countdown: reach a target with given numbers and + - * /. maths: word
    /// problems
    #[arg(
        long,
        value_name = "NAME",
        value_enum,
        conflicts_with_all = ["suite", "images", "test_images", "grid", "tile", "tile_any", "question", "question_first", "min_crop", "augment", "stream", "limit", "strict", "preview", "scenes", "cues", "split_by"]
    )]
    task: Option<OtherTask>,
    /// With --task countdown: how many numbers a puzzle has, from 2 to 6, such as 4 or 3-4 [default: 3-4]
    #[arg(long, value_name = "N|N-M", requires = "task")]
    numbers: Option<NumberCount>,
    /// With --task countdown: largest number [default: 99]
    #[arg(long, value_name = "N", requires = "task")]
    max_number: Option<u32>,
    /// With --task countdown: largest target [default: 100]
    #[arg(long, value_name = "N", requires = "task")]
    max_target: Option<u32>,
    /// With --task maths: all, or some of shopping, sharing, travel, percent, ages, garden, marbles, groups, pairs, separated by commas
    /// [default: all]
    #[arg(long, value_name = "NAME,...", requires = "task")]
    families: Option<Families>,
    /// With --task maths: levels of difficulty from 1 to 3, such as 2 or 1-3 [default: 1-3]
    #[arg(long, value_name = "N|N-M", requires = "task")]
    levels: Option<Levels>,
    /// With --suite: most questions of each family in validation, and in test [default: no limit]
    #[arg(long, value_name = "N", requires = "suite", value_parser = clap::value_parser!(u32).range(1..))]
    held_out: Option<u32>,
    /// With --suite: noise over the pictures of these families, as its standard deviation of 255, so that a model at its ceiling has headroom
    /// (docs/suites.md)
    #[arg(long, value_name = "NAME:SD,...", requires = "suite")]
    noise: Option<Noise>,
    /// With a folder of images: share of each split's puzzles that is cut from synthetic scenes instead; results are given for both
    /// kinds
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    scenes: f64,
    /// For synthetic scenes: cues to absolute position (sky above, light from the left), or none
    #[arg(long, value_name = "WHICH", value_enum, default_value_t = Cues::With)]
    cues: Cues,
    /// Rows x columns
    #[arg(long, value_name = "RxC", default_value = "3x3")]
    grid: Grid,
    /// Side of a tile in pixels; a multiple of 28 puts the seams between visual tokens
    #[arg(long, value_name = "PIXELS", default_value_t = generate::TOKEN_PIXELS)]
    tile: u32,
    /// Allow a tile size that is not a multiple of 28
    #[arg(long)]
    tile_any: bool,
    /// Number of puzzles, all splits together
    #[arg(long, value_name = "N", default_value_t = 2000)]
    count: usize,
    /// Make N training puzzles as they are needed, in place of storing them: the dataset holds a list of the photos with their hashes. The
    /// photos must stay where they are. --count is then the number of validation and test puzzles, divided by their ratios of --split
    #[arg(long, value_name = "N")]
    stream: Option<usize>,
    /// Form of the response: the bare answer, or reasoning first
    #[arg(long, value_enum, default_value_t = Style::Direct)]
    style: Style,
    /// What to ask: the order of the tiles, or the relation of two of them (lettered choices)
    #[arg(long, value_enum, default_value_t = QuestionKind::Order)]
    question: QuestionKind,
    /// Put the question before the picture. All prompts then share a prefix, which training computes once per batch
    #[arg(long)]
    question_first: bool,
    /// Smallest crop of a photo, as a share of the largest crop that fits, for width and height; near 1 keeps the composition of the whole
    /// picture
    #[arg(long, value_name = "SHARE", default_value_t = generate::MIN_CROP)]
    min_crop: f64,
    /// Cut training puzzles from random versions of the photos (channels exchanged, mirrored, turned, inverted, other contrast), so that few
    /// photos are not learnt by heart; validation and test stay as they are
    #[arg(long)]
    augment: bool,
    /// Random seed
    #[arg(long, value_name = "N", default_value_t = 7)]
    seed: u64,
    /// How examples are divided into splits
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = SplitBy::Image)]
    split_by: SplitBy,
    /// Shares of train, validation and test, which add up to 1; or their ratio in whole numbers, such as 8,1,1
    #[arg(long, value_name = "A,B,C", default_value = "0.8,0.1,0.1")]
    split: SplitRatios,
    /// Use only the first N image files, sorted by name [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Refuse (exit code 2) instead of skipping image files that cannot be used
    #[arg(long)]
    strict: bool,
    /// Also write preview.png: the first N puzzles, shuffled beside restored from the answer
    #[arg(long, value_name = "N")]
    preview: Option<usize>,
    /// Replace a dataset that is already in the output directory
    #[arg(long)]
    overwrite: bool,
}

/// The value of `--task`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OtherTask {
    /// Reach a target with given numbers
    Countdown,
    /// Word problems with exact answers
    Maths,
}

/// How examples are divided over the splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SplitBy {
    /// By source image: all puzzles of a photo are in one split
    Image,
}

/// The value of `--suite`.
#[derive(Debug, Clone)]
struct Suites(Vec<FamilyWeight>);

impl FromStr for Suites {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        suites::parse_families(text).map(Suites)
    }
}

impl GenArgs {
    /// Of puzzles.
    fn settings(&self) -> JigsawSettings {
        let SplitBy::Image = self.split_by;
        JigsawSettings {
            images: self.images.clone(),
            test_images: self.test_images.clone(),
            scenes: self.scenes,
            cues: self.cues,
            grid: self.grid,
            tile: self.tile,
            tile_any: self.tile_any,
            count: self.count,
            stream: self.stream,
            style: self.style,
            question: self.question,
            question_first: self.question_first,
            min_crop: self.min_crop,
            augment: self.augment,
            seed: self.seed,
            split: self.split,
            limit: self.limit,
            strict: self.strict,
        }
    }

    /// Make the dataset and say what was made.
    pub fn run(self) -> Result<()> {
        let out = self.out.clone();
        undo_if_refused(&out, || match (self.task, self.suite.clone()) {
            (Some(task), _) => self.make_text(task),
            (None, Some(Suites(families))) => self.make_suite(families),
            (None, None) => self.make_puzzles(),
        })
    }

    fn countdown_settings(&self) -> CountdownSettings {
        let defaults = CountdownSettings::default();
        CountdownSettings {
            numbers: self.numbers.unwrap_or(defaults.numbers),
            max_number: self.max_number.unwrap_or(defaults.max_number),
            max_target: self.max_target.unwrap_or(defaults.max_target),
            count: self.count,
            style: self.style,
            seed: self.seed,
            split: self.split,
        }
    }

    fn maths_settings(&self) -> MathsSettings {
        let defaults = MathsSettings::default();
        MathsSettings {
            families: self.families.clone().unwrap_or(defaults.families),
            levels: self.levels.unwrap_or(defaults.levels),
            count: self.count,
            style: self.style,
            seed: self.seed,
            split: self.split,
        }
    }

    /// Refuse the flags of another task.
    fn check_flags(&self, task: OtherTask) -> Result<()> {
        let countdown = [
            ("--numbers", self.numbers.is_some()),
            ("--max-number", self.max_number.is_some()),
            ("--max-target", self.max_target.is_some()),
        ];
        let maths = [("--families", self.families.is_some()), ("--levels", self.levels.is_some())];
        let (name, others) = match task {
            OtherTask::Countdown => ("countdown", &maths[..]),
            OtherTask::Maths => ("maths", &countdown[..]),
        };
        match others.iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(Error::input(format!("{flag} has no effect with --task {name}; leave it out"))),
            None => Ok(()),
        }
    }

    fn say_if_found(&self, manifest: &Manifest) {
        if manifest.found {
            status(&format!("{} holds this dataset already; nothing was written", self.out.display()));
        }
    }

    fn make_text(self, task: OtherTask) -> Result<()> {
        self.check_flags(task)?;
        let bar = bar(self.count, "{pos}/{len} puzzles, {per_sec}");
        let (out, overwrite, tick) = (&self.out, self.overwrite, || bar.inc(1));
        let made = match task {
            OtherTask::Countdown => countdown::generate(&self.countdown_settings(), out, overwrite, &tick),
            OtherTask::Maths => maths::generate(&self.maths_settings(), out, overwrite, &tick),
        };
        bar.finish_and_clear();
        let manifest = made?;
        self.say_if_found(&manifest);
        print(&format!("{}: {} records\n", self.out.display(), records_by_split(&manifest)))
    }

    fn make_suite(self, families: Vec<FamilyWeight>) -> Result<()> {
        let settings = suites::SuiteSettings {
            suite: families,
            images: self.images.clone(),
            count: self.count,
            question_first: self.question_first,
            seed: self.seed,
            split: self.split,
            held_out: self.held_out.map(|n| n as usize),
            noise: self.noise.clone().unwrap_or_default(),
        };
        let bar = bar(0, "{pos} questions, {per_sec}");
        let made = suites::generate(&settings, &self.out, self.overwrite, &|| bar.inc(1));
        bar.finish_and_clear();
        let manifest = made?;
        warn_left_out(&manifest);
        self.say_if_found(&manifest);
        let bench =
            if manifest.splits.contains_key("test") { format!("; {}/*.tsv", suites::BENCH) } else { String::new() };
        print(&format!("{}: {} records{bench}\n", self.out.display(), records_by_split(&manifest)))
    }

    fn make_puzzles(self) -> Result<()> {
        if self.preview == Some(0) {
            return Err(Error::input("preview 0: ask for at least one puzzle, or leave --preview away"));
        }
        let settings = self.settings();
        settings.warnings().iter().for_each(|warning| status(&format!("warning: {warning}")));
        let bar = bar(settings.count, "{pos}/{len} puzzles, {per_sec}");
        let made = generate::generate(&settings, &self.out, self.overwrite, &|| bar.inc(1));
        bar.finish_and_clear();
        let manifest = made?;
        warn_left_out(&manifest);
        settings.warnings_of(&manifest).iter().for_each(|warning| status(&format!("warning: {warning}")));
        self.say_if_found(&manifest);
        let mut splits = Vec::new();
        for name in SPLITS {
            if let Some(split) = manifest.splits.get(name) {
                splits.push(format!("{name} {} from {}", split.records, counted(split.sources, "image")));
            }
        }
        print(&format!("{}: {}\n", self.out.display(), splits.join(", ")))?;
        match self.preview {
            Some(count) => print(&format!("{}\n", generate::write_preview(&self.out, &manifest, count)?.display())),
            None => Ok(()),
        }
    }
}

/// How many records each split has: `train 80, test 20`.
fn records_by_split(manifest: &Manifest) -> String {
    let splits = SPLITS.iter().filter_map(|name| Some((name, manifest.splits.get(*name)?)));
    splits.map(|(name, split)| format!("{name} {}", split.records)).collect::<Vec<_>>().join(", ")
}

/// Name the images that were not used.
fn warn_left_out(manifest: &Manifest) {
    for skipped in &manifest.skipped {
        status(&format!("skipped {}: {}", skipped.file, skipped.reason));
    }
    for file in &manifest.left_out {
        status(&format!("left out {}: {}", file.file, file.reason));
    }
}
