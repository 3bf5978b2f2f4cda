//! From what the user names to tasks that are ready to run: all that can be wrong with a file is found here.

use super::Spec;
use crate::eval::{Plan, hash_prompt_files};
use crate::model::{Processor, Sampling};
use crate::policy::Codec;
use crate::tasks::bench::{self, Pixels, Protocol};
use crate::tasks::{self, Task};
use crate::{Error, Result};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// What holds for all benchmarks of an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Which examples, how often, how many at a time.
    pub plan: Plan,
    /// How tokens are chosen; its `max_new_tokens` is not read.
    pub sampling: Sampling,
    /// Longest response in tokens, in place of each benchmark's own.
    pub max_new_tokens: Option<usize>,
    /// Fewest pixels of a resized image, in place of each benchmark's own.
    pub min_pixels: Option<usize>,
    /// Most pixels of a resized image, in place of each benchmark's own.
    pub max_pixels: Option<usize>,
}

/// A benchmark that is read, checked and ready for checkpoints with one set of prompt files.
pub struct Prepared {
    /// Its name, and that of its directory.
    pub name: String,
    /// Everything that was chosen for it and moves its score.
    pub protocol: Protocol,
    /// The file or dataset directory.
    pub path: PathBuf,
    /// Split of a dataset directory; empty for a file.
    pub split: String,
    /// Which examples, how often, how many at a time.
    pub plan: Plan,
    /// How tokens are chosen.
    pub sampling: Sampling,
    pub(super) task: Box<dyn Task>,
    pub(super) processor: Processor,
    pub(super) prompt_hash: String,
}

impl Prepared {
    /// The examples and their scorers.
    pub fn task(&self) -> &dyn Task {
        self.task.as_ref()
    }

    /// Text and images to model input, with this benchmark's bounds of an image.
    pub fn codec(&self) -> &dyn Codec {
        &self.processor
    }

    /// Whether what was prepared holds for this checkpoint too: its tokenizer, chat template and image settings are those of
    /// the one that it was prepared for.
    pub fn serves(&self, model: &Path) -> Result<bool> {
        Ok(hash_prompt_files(model)? == self.prompt_hash)
    }
}

/// Read all benchmarks for a checkpoint, whose small files are read and whose weights are not.
///
/// # Errors
/// An input error about the first thing that is wrong: a name given twice, a benchmark that is not known, anything in a file
/// (with its line, row and column), a prompt that the checkpoint's processor refuses.
pub fn prepare(specs: &[Spec], settings: &Settings, model: &Path) -> Result<Vec<Prepared>> {
    for (i, spec) in specs.iter().enumerate() {
        // Two names that differ by case only are one directory on some file systems.
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
    let processor = Processor::from_dir(model)?;
    let prompt_hash = hash_prompt_files(model)?;
    specs.iter().map(|spec| prepare_one(spec, settings, &processor, &prompt_hash)).collect()
}

fn prepare_one(spec: &Spec, settings: &Settings, model: &Processor, prompt_hash: &str) -> Result<Prepared> {
    let Spec { name, path, kind, split } = spec;
    let own =
        Pixels { min: model.images().min_pixels, max: model.images().max_pixels, factor: model.images().factor() };
    if path.is_dir() {
        if let Some(kind) = kind {
            return Err(Error::input(format!(
                "--bench {name}={}:{kind}: a dataset directory says itself how it is scored; leave out :{kind}",
                path.display()
            )));
        }
        let task = tasks::load(path, split)?;
        let pixels = settings.pixels(own, None)?;
        let protocol = Protocol::of_dataset(task.name(), pixels);
        return finish(spec, settings, protocol, bench::DEFAULT_NEW_TOKENS, task, model, prompt_hash);
    }
    let raw = bench::read(name, path, kind.as_deref())?;
    let pixels = settings.pixels(own, raw.pixels())?;
    let images = model.with_pixels(pixels.min, pixels.max);
    let resize = |(width, height)| images.images().resized(width, height).map_err(|e| e.to_string());
    let task = raw.into_task(name, &resize)?;
    let (protocol, longest) = (task.protocol(pixels), task.max_new_tokens());
    finish(spec, settings, protocol, longest, Box::new(task), model, prompt_hash)
}

/// See that the processor takes every prompt of the plan, and put the parts together.
fn finish(
    spec: &Spec,
    settings: &Settings,
    protocol: Protocol,
    longest: usize,
    task: Box<dyn Task>,
    model: &Processor,
    prompt_hash: &str,
) -> Result<Prepared> {
    let processor = model.with_pixels(protocol.pixels.min, protocol.pixels.max);
    let examples = settings.plan.examples(task.as_ref());
    let check = |i: usize| Codec::prompt_length(&processor, task.as_ref(), i).map(|_| ());
    // The first in the order of the file is the one reported, whatever the threads do.
    let checked: Vec<Result<()>> = (0..examples).into_par_iter().map(check).collect();
    checked.into_iter().collect::<Result<()>>().map_err(|e| e.context(spec.path.display()))?;
    let sampling = Sampling { max_new_tokens: settings.max_new_tokens.unwrap_or(longest), ..settings.sampling.clone() };
    Ok(Prepared {
        name: spec.name.clone(),
        protocol,
        path: spec.path.clone(),
        split: if spec.path.is_dir() { spec.split.clone() } else { String::new() },
        plan: settings.plan.clone(),
        sampling,
        task,
        processor,
        prompt_hash: prompt_hash.to_string(),
    })
}

impl Settings {
    /// The bounds that images are resized within: the user's, else the benchmark's where they lie within the checkpoint's,
    /// else the checkpoint's (one that was made for smaller images knows best).
    fn pixels(&self, own: Pixels, benchmark: Option<(usize, usize)>) -> Result<Pixels> {
        let (min, max) = benchmark.filter(|&(min, max)| min >= own.min && max <= own.max).unwrap_or((own.min, own.max));
        let (min, max) = match (self.min_pixels, self.max_pixels) {
            (Some(min), Some(max)) => (min, max),
            // One bound alone pushes the other one out of its way.
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
