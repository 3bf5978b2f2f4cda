//! From the benchmarks that the user names to tasks that are ready to run. Everything that can be wrong with a file is found here.

use super::BenchmarkSpec;
use crate::data::is_dataset;
use crate::eval::evaluate_api::no_weights;
use crate::model::PromptEncoder;
use crate::model::hash_prompt_files;
use crate::model::{MAX_PIXELS, Processor, SamplingParams};
use crate::sampling::{SamplePlan, sampling_flags};
use crate::tasks::benchmarks::{self, Pixels, PredictionTable, Protocol};
use crate::tasks::example_size;
use crate::tasks::{self, Task};
use crate::{Error, Result};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// The settings shared by all benchmarks of an evaluation.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct BenchmarkSettings {
    /// Which examples, how often, how many at a time.
    pub plan: SamplePlan,
    /// How tokens are chosen; its `max_new_tokens` is not read.
    pub sampling: SamplingParams,
    /// Longest response in tokens, in place of each benchmark's own.
    pub max_new_tokens: Option<usize>,
    /// Fewest pixels of a resized image, in place of each benchmark's own.
    pub min_pixels: Option<usize>,
    /// Most pixels of a resized image, in place of each benchmark's own.
    pub max_pixels: Option<usize>,
}

/// A benchmark that is read, checked and ready for checkpoints with one set of prompt files.
pub struct PreparedBenchmark {
    /// Its name, and that of its directory.
    pub name: String,
    /// Every choice that affects its score.
    pub protocol: Protocol,
    /// The file or dataset directory.
    pub path: PathBuf,
    /// Split of a dataset directory; empty for a file.
    pub split: String,
    /// Which examples, how often, how many at a time.
    pub plan: SamplePlan,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    pub(super) task: Box<dyn Task>,
    /// What the responses are written beside, if the file has no answers to score them by.
    pub(super) predictions: Option<PredictionTable>,
    /// What reads its prompts; `None` if a server does.
    pub(super) reader: Option<Reader>,
}

/// What reads the prompts of a benchmark.
pub(super) struct Reader {
    /// With this benchmark's image size limits.
    pub processor: Processor,
    /// Hash of the tokenizer, chat template and image settings.
    pub prompt_hash: String,
}

impl PreparedBenchmark {
    /// The examples and their scorers.
    pub fn task(&self) -> &dyn Task {
        self.task.as_ref()
    }

    /// Whether the file has answers to score responses by.
    pub fn is_scored(&self) -> bool {
        self.predictions.is_none()
    }

    /// Encodes prompts, with this benchmark's image size limits.
    ///
    /// # Errors
    /// It was prepared for a server.
    pub fn codec(&self) -> Result<&dyn PromptEncoder> {
        Ok(&self.reader()?.processor)
    }

    pub(super) fn reader(&self) -> Result<&Reader> {
        self.reader.as_ref().ok_or_else(|| no_weights(&self.name))
    }

    /// Hash of the tokenizer, chat template and image settings that read its prompts.
    ///
    /// # Errors
    /// It was prepared for a server.
    pub fn prompt_hash(&self) -> Result<&str> {
        Ok(&self.reader()?.prompt_hash)
    }

    /// Whether the benchmark can be run on this checkpoint too: its tokenizer, chat template and image settings are the same.
    pub fn serves(&self, model: &Path) -> Result<bool> {
        Ok(hash_prompt_files(model)? == self.prompt_hash()?)
    }
}

/// Read all benchmarks for a checkpoint, without reading its weights.
///
/// # Errors
/// An input error about the first thing that is wrong: a name given twice, a benchmark that is not known, anything in a file
/// (with its line, row and column), a prompt that the checkpoint's processor refuses.
pub fn prepare(specs: &[BenchmarkSpec], settings: &BenchmarkSettings, model: &Path) -> Result<Vec<PreparedBenchmark>> {
    check_names(specs)?;
    let processor = Processor::from_dir(model)?;
    let prompt_hash = hash_prompt_files(model)?;
    let reader = |processor| Reader { processor, prompt_hash: prompt_hash.clone() };
    specs.iter().map(|spec| prepare_one(spec, settings, &processor, &reader)).collect()
}

/// Read all benchmarks for a server, to which images are sent unchanged. Coordinates in its answers count the pixels of the image that was
/// sent, unless the benchmark says otherwise.
///
/// # Errors
/// As [`prepare`], but for the processor.
pub fn prepare_for_server(specs: &[BenchmarkSpec], settings: &BenchmarkSettings) -> Result<Vec<PreparedBenchmark>> {
    check_names(specs)?;
    specs
        .iter()
        .map(|spec| {
            let found = read(spec, |_| Ok((None, Box::new(Ok))))?;
            finish(spec, settings, found, None)
        })
        .collect()
}

fn check_names(specs: &[BenchmarkSpec]) -> Result<()> {
    for (i, spec) in specs.iter().enumerate() {
        // Names that differ only in case are the same directory on some file systems.
        if specs[..i].iter().any(|s| s.name.eq_ignore_ascii_case(&spec.name)) {
            return Err(Error::input(format!(
                "--bench {}: two benchmarks have this name; give one of them another, as in \
                 again={}:{}",
                spec.name,
                spec.path.display(),
                spec.kind.as_deref().unwrap_or(&spec.name)
            )));
        }
    }
    Ok(())
}

/// `(width, height)` that an image of these sides is resized to.
type Resize = Box<dyn Fn((u32, u32)) -> Result<(u32, u32), String>>;

/// A benchmark as it is read.
struct Found {
    protocol: Protocol,
    /// Longest response in tokens.
    longest: usize,
    task: Box<dyn Task>,
    predictions: Option<PredictionTable>,
}

/// Read a benchmark. `bounds` gets the benchmark's own image size limits and returns those to use.
fn read(
    spec: &BenchmarkSpec,
    bounds: impl FnOnce(Option<(usize, usize)>) -> Result<(Option<Pixels>, Resize)>,
) -> Result<Found> {
    let BenchmarkSpec { name, path, kind, split } = spec;
    if is_dataset(path) {
        if let Some(kind) = kind {
            return Err(Error::input(format!(
                "--bench {name}={}:{kind}: a dataset says itself how it is scored; leave out :{kind}",
                path.display()
            )));
        }
        let task = tasks::load(path, split)?;
        let (pixels, _) = bounds(None)?;
        let protocol = Protocol::of_dataset(task.name(), pixels);
        return Ok(Found { protocol, longest: benchmarks::DEFAULT_NEW_TOKENS, task, predictions: None });
    }
    let raw = benchmarks::read(name, path, kind.as_deref())?;
    let (pixels, resize) = bounds(raw.pixels())?;
    let mut task = raw.into_task(name, resize.as_ref())?;
    let (protocol, longest, predictions) = (task.protocol(pixels), task.max_new_tokens(), task.take_predictions());
    Ok(Found { protocol, longest, task: Box::new(task), predictions })
}

/// A benchmark for a checkpoint, whose processor takes every prompt of the plan.
fn prepare_one(
    spec: &BenchmarkSpec,
    settings: &BenchmarkSettings,
    model: &Processor,
    reader: &dyn Fn(Processor) -> Reader,
) -> Result<PreparedBenchmark> {
    let mut processor = model.clone();
    let found = read(spec, |benchmark| {
        // A text-only model takes no image, whatever its size.
        let Some(own) = model.images() else { return Ok((None, Box::new(Ok))) };
        let own = Pixels { min: own.min_pixels, max: own.max_pixels, factor: own.factor() };
        let pixels = settings.pixels(own, benchmark)?;
        processor = model.with_pixels(pixels.min, pixels.max);
        let resizer = processor.clone();
        let resize = move |(width, height)| match resizer.images() {
            Some(images) => images.resized(width, height).map_err(|e| e.to_string()),
            None => Ok((width, height)),
        };
        Ok((Some(pixels), Box::new(resize)))
    })?;
    let examples = settings.plan.examples(found.task.as_ref());
    let check = |i: usize| example_size(found.task.as_ref(), &processor, i).map(|_| ());
    // Report the first error in the order of the file, whatever the threads do.
    let checked: Vec<Result<()>> = (0..examples).into_par_iter().map(check).collect();
    checked.into_iter().collect::<Result<()>>()?;
    finish(spec, settings, found, Some(reader(processor)))
}

/// Assemble a prepared benchmark.
///
/// # Errors
/// An input error for several responses to questions of which one prediction each is written.
fn finish(
    spec: &BenchmarkSpec,
    settings: &BenchmarkSettings,
    found: Found,
    reader: Option<Reader>,
) -> Result<PreparedBenchmark> {
    let Found { protocol, longest, task, predictions } = found;
    if predictions.is_some() && settings.plan.num_generations > 1 {
        return Err(Error::input(format!(
            "--num-generations {}: {} has no answers, and one prediction is written for each question",
            settings.plan.num_generations,
            spec.path.display()
        )));
    }
    let sampling =
        SamplingParams { max_new_tokens: settings.max_new_tokens.unwrap_or(longest), ..settings.sampling.clone() };
    Ok(PreparedBenchmark {
        name: spec.name.clone(),
        protocol,
        path: spec.path.clone(),
        split: if spec.path.is_dir() { spec.split.clone() } else { String::new() },
        plan: settings.plan.clone(),
        sampling,
        task,
        predictions,
        reader,
    })
}

impl BenchmarkSettings {
    /// Refuse numbers that are out of range or would have no effect.
    ///
    /// # Errors
    /// Input errors that name the flag.
    pub fn check(&self) -> Result<()> {
        if self.plan.limit == Some(0) {
            return Err(Error::input("--limit 0: there would be nothing to evaluate"));
        }
        for (flag, value) in [("--min-pixels", self.min_pixels), ("--max-pixels", self.max_pixels)] {
            if let Some(value) = value.filter(|value| !(1..=MAX_PIXELS).contains(value)) {
                return Err(Error::input(format!(
                    "{flag} {value}: must be from 1 to {MAX_PIXELS}, the most pixels that Qwen2-VL takes of an image"
                )));
            }
        }
        self.max_new_tokens.map_or(Ok(()), sampling_flags::check_new_tokens)?;
        sampling_flags::check(&self.sampling, &self.plan)
    }

    /// The image size limits: the user's, else the benchmark's where they lie within the checkpoint's, else the checkpoint's.
    fn pixels(&self, own: Pixels, benchmark: Option<(usize, usize)>) -> Result<Pixels> {
        let (min, max) = benchmark.filter(|&(min, max)| min >= own.min && max <= own.max).unwrap_or((own.min, own.max));
        let (min, max) = match (self.min_pixels, self.max_pixels) {
            (Some(min), Some(max)) => (min, max),
            // A limit given alone moves the other one if they would cross.
            (Some(low), None) => (low, max.max(low)),
            (None, Some(high)) => (min.min(high), high),
            (None, None) => (min, max),
        };
        if min > max || min == 0 {
            return Err(Error::input(format!("--min-pixels {min} and --max-pixels {max}: give 0 < min <= max")));
        }
        Ok(Pixels { min, max, factor: own.factor })
    }
}
