//! Benchmarks in VLMEvalKit's TSV form as a [`Task`]: which they are, how each is asked, the records that come of their rows.
//!
//! A file with a column `scorer` describes itself: each row is asked as it is and scored by the scorer it names. Any other file
//! is a known benchmark, or one of the user's own with the scorer given beside it ([`find`]).

mod boxes;
mod predictions;
mod prompt_from_row;
mod prompt_template;
mod protocol;
mod registry;

pub use boxes::Corners;
pub use predictions::{PredictionTable, UNSCORED};
pub use protocol::{Pixels, Protocol};
pub use registry::{Benchmark, Group, find};

use super::chance::Chance;
use super::registry::scorer;
use super::score::Score;
use super::scorer::Scorer;
use super::scorers::{Aggregate, Scored};
use super::task::{Task, scorer_versions};
use crate::data::Record;
use crate::data::tsv::{Tsv, TsvRow, TsvSchema};
use crate::{Error, Result};
use image::RgbImage;
use predictions::Unscored;
use prompt_from_row::{RowContext, record};
use std::borrow::Cow;
use std::path::Path;

/// Longest response in tokens to questions that are asked as they are.
pub const DEFAULT_NEW_TOKENS: usize = 512;

/// What columns of answers are called in other forms.
const ANSWER_WORDS: [&str; 9] =
    ["answers", "label", "labels", "gold", "ground_truth", "gt", "gt_answer", "solution", "target"];

/// A file that has been read, before its rows are records.
pub struct BenchmarkFile {
    tsv: Tsv,
    rows: Vec<TsvRow>,
    benchmark: Option<&'static Benchmark>,
    /// The file has answers to score by.
    is_scored: bool,
}

/// Read the file of a benchmark. `kind` says which benchmark or scorer it is; else its name does, if the file has no column `scorer`.
///
/// # Errors
/// An input error: the benchmark is not known, or anything that [`Tsv::open`] refuses, or no row of the file belongs to the
/// benchmark.
pub fn read(name: &str, path: &Path, kind: Option<&str>) -> Result<BenchmarkFile> {
    let mut benchmark = None;
    let (tsv, rows) = Tsv::open(path, |columns| {
        benchmark = choose(name, path, kind, columns)?;
        check_answer(columns).map_err(|why| Error::input(format!("{}:1: {why}", path.display())))?;
        Ok(layout(benchmark, columns))
    })?;
    let rows = match benchmark {
        Some(benchmark) => select(rows, benchmark, path)?,
        None => rows,
    };
    // A gold box may stand in a column of its own.
    let boxed = benchmark.is_none_or(|b| b.scorer == "iou");
    let is_answered = |row: &TsvRow| row.get("answer").is_some() || (boxed && row.get("bbox").is_some());
    let is_scored = rows.iter().any(is_answered);
    Ok(BenchmarkFile { tsv, rows, benchmark, is_scored })
}

/// Refuse a file whose answers stand in a column of another name: it is not one without answers.
fn check_answer(columns: &[String]) -> Result<(), String> {
    if columns.iter().any(|c| c == "answer" || c == "bbox") {
        return Ok(());
    }
    match columns.iter().find(|c| c.eq_ignore_ascii_case("answer") || ANSWER_WORDS.contains(&c.to_lowercase().as_str()))
    {
        Some(other) => Err(format!(
            "there is no column `answer`, but `{other}`; rename it, or take it out if the responses are not to be scored"
        )),
        None => Ok(()),
    }
}

fn choose(name: &str, path: &Path, kind: Option<&str>, columns: &[String]) -> Result<Option<&'static Benchmark>> {
    let by_row = columns.iter().any(|c| c == "scorer");
    match kind {
        Some(kind) if by_row => Err(Error::input(format!(
            "{} has a column `scorer`: each row says how it is scored; leave out :{kind}",
            path.display()
        ))),
        None if by_row => Ok(None),
        Some(kind) => find(kind).map(Some),
        None => find(name).map(Some).map_err(|e| {
            Error::input(format!(
                "--bench {name}={}: the file has no column `scorer`, and {e}. Give the scorer or benchmark after the file: \
                 {name}={}:choice",
                path.display(),
                path.display()
            ))
        }),
    }
}

fn layout(benchmark: Option<&Benchmark>, columns: &[String]) -> TsvSchema {
    let has = |name: &str| columns.iter().any(|c| c == name);
    let prefix = ["split", "category"].into_iter().find(|column| has(column));
    TsvSchema { prefix: prefix.filter(|_| benchmark.is_some_and(|b| b.prefixed)).map(String::from) }
}

/// The rows that a benchmark is about, by their `split`, or by their `category` in a file without splits.
fn select(rows: Vec<TsvRow>, benchmark: &Benchmark, path: &Path) -> Result<Vec<TsvRow>> {
    if benchmark.rows.is_empty() {
        return Ok(rows);
    }
    let plain = |text: &str| text.to_lowercase().replace(|c: char| !c.is_alphanumeric() && c != '+', "");
    let belongs =
        |row: &TsvRow, column: &str| row.get(column).is_some_and(|v| benchmark.rows.contains(&plain(v).as_str()));
    let by = |column: &'static str| rows.iter().any(|row| belongs(row, column)).then_some(column);
    match by("split").or_else(|| by("category")) {
        Some(column) => Ok(rows.into_iter().filter(|row| belongs(row, column)).collect()),
        None if rows.iter().all(|row| row.get("split").is_none()) => Ok(rows),
        None => {
            let mut splits: Vec<&str> = rows.iter().filter_map(|row| row.get("split")).collect();
            splits.sort_unstable();
            splits.dedup();
            Err(Error::input(format!(
                "{}: no row belongs to {}, which is about the split {}; the file has: {}",
                path.display(),
                benchmark.name,
                benchmark.rows.join(" or "),
                splits.join(", ")
            )))
        }
    }
}

impl BenchmarkFile {
    /// Fewest and most pixels of a resized image, if the benchmark has bounds of its own.
    pub fn pixels(&self) -> Option<(usize, usize)> {
        self.benchmark?.pixels
    }

    /// The task of this name. `resize` tells the `(width, height)` that an image of these sides is resized to.
    ///
    /// # Errors
    /// An input error with file, line, row and column for a row that is not a question its scorer can score.
    pub fn into_task(self, name: &str, resize: &dyn Fn((u32, u32)) -> Result<(u32, u32), String>) -> Result<BenchTask> {
        let BenchmarkFile { tsv, rows, benchmark, is_scored } = self;
        let mut task = BenchTask {
            name: name.to_string(),
            benchmark,
            records: Vec::with_capacity(rows.len()),
            scorers: Vec::with_capacity(rows.len()),
            images: Vec::with_capacity(rows.len()),
            unanswered: Vec::new(),
            places: rows.iter().map(|row| (row.line, row.number)).collect(),
            tsv,
        };
        for row in rows {
            let place = || task.tsv.place(&row);
            let reading = RowContext { benchmark, resize, is_scored };
            let record = record(&task.tsv, &row, reading)
                .map_err(|(column, why)| Error::input(format!("{}, column `{column}`: {why}", place())))?;
            let scorer = match is_scored {
                true => scorer(&record).map_err(|e| e.context(place()))?,
                false => Box::new(Unscored),
            };
            task.records.push(record);
            task.scorers.push(scorer);
            task.images.push(row.images.clone());
            if !is_scored {
                task.unanswered.push(row);
            }
        }
        if is_scored {
            task.check_numbers()?;
        }
        Ok(task)
    }
}

/// A benchmark with a scorer for each question.
pub struct BenchTask {
    name: String,
    benchmark: Option<&'static Benchmark>,
    tsv: Tsv,
    records: Vec<Record>,
    scorers: Vec<Box<dyn Scorer>>,
    images: Vec<Vec<usize>>,
    /// The rows of a file without answers.
    unanswered: Vec<TsvRow>,
    /// `file:line: row N` of each question, as line and number.
    places: Vec<(u64, usize)>,
}

impl BenchTask {
    /// What is written beside its results.
    pub fn protocol(&self, pixels: Option<Pixels>) -> Protocol {
        let scorers: Vec<String> = self.scorers().into_iter().map(|(scorer, _)| scorer).collect();
        Protocol::of_file(self.benchmark, &scorers.join("+"), pixels)
    }

    /// Of a file without answers, what its responses are written beside.
    pub fn take_predictions(&mut self) -> Option<PredictionTable> {
        let rows = std::mem::take(&mut self.unanswered);
        (!rows.is_empty()).then(|| PredictionTable::new(rows))
    }

    /// Longest response in tokens, unless the user wants another.
    pub fn max_new_tokens(&self) -> usize {
        self.benchmark.map_or(DEFAULT_NEW_TOKENS, |b| b.max_new_tokens)
    }

    /// The benchmark's own numbers can be made of these questions: seen before hours are spent on answers to them.
    fn check_numbers(&self) -> Result<()> {
        let scores: Vec<Score> = self.scorers.iter().map(|scorer| scorer.score("")).collect();
        let pairs = self.records.iter().zip(&scores);
        let scored: Vec<Scored> = pairs.map(|(record, score)| Scored::new(record, score, "")).collect();
        self.own_numbers().numbers(&scored).map(|_| ()).map_err(|e| e.context(self.tsv.path().display()))
    }

    fn own_numbers(&self) -> Aggregate {
        self.benchmark.map_or(Aggregate::Mean, |b| b.aggregate)
    }
}

impl Task for BenchTask {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.records.len()
    }

    fn example(&self, i: usize) -> Result<Cow<'_, Record>> {
        let n = self.records.len();
        let record = self.records.get(i).map(Cow::Borrowed);
        record.ok_or_else(|| Error::failed(format!("example {i} of a benchmark of {n} was asked for")))
    }

    fn place(&self, i: usize) -> Option<String> {
        self.places.get(i).map(|&(line, number)| self.tsv.place_of(line, number))
    }

    fn images(&self, i: usize) -> Result<Vec<RgbImage>> {
        self.images[i].iter().map(|&image| self.tsv.image(image)).collect()
    }

    fn image_sizes(&self, i: usize) -> Result<Vec<(u32, u32)>> {
        Ok(self.images[i].iter().map(|&image| self.tsv.size(image)).collect())
    }

    fn image_digests(&self, i: usize) -> Result<Option<Vec<[u8; 32]>>> {
        Ok(Some(self.images[i].iter().map(|&image| self.tsv.digest(image)).collect()))
    }

    fn image_places(&self, i: usize) -> Result<Vec<String>> {
        Ok(self.images[i].iter().map(|&image| self.tsv.image_place(image)).collect())
    }

    fn score(&self, i: usize, response: &str) -> Score {
        self.scorers[i].score(response)
    }

    fn chance(&self, i: usize) -> Option<Chance> {
        self.scorers[i].chance()
    }

    fn scorers(&self) -> Vec<(String, u32)> {
        scorer_versions(&self.scorers)
    }

    fn aggregate(&self) -> Option<Aggregate> {
        Some(self.own_numbers())
    }
}

#[cfg(test)]
mod tests;
