//! The model side of an evaluation: records in, responses out.

use super::Generated;
use crate::data::Record;
use crate::model::qwen2_5_vl::Model;
use crate::model::{Processor, Prompt, Sampling};
use crate::{Error, Result, rng};
use rand::Rng as _;
use std::path::Path;
use std::sync::Arc;

/// A model with what it needs to answer records.
pub struct Engine<'a> {
    /// The weights.
    pub model: &'a Model,
    /// Text and images to model input.
    pub processor: &'a Processor,
    /// Folder that the records' image paths are relative to.
    pub root: &'a Path,
    /// How tokens are chosen. `seed` is that of the whole evaluation; each batch draws from its own.
    pub sampling: &'a Sampling,
    /// Responses to each record.
    pub samples: usize,
}

impl Engine<'_> {
    /// The prompt of a record, with its images read.
    pub fn prompt(&self, record: &Record) -> Result<Arc<Prompt>> {
        encode_prompt(self.processor, record, self.root)
    }

    /// Responses to a batch whose first record has index `first` in its task; `[record][sample]`.
    pub fn generate(&self, first: usize, records: &[&Record]) -> Result<Vec<Vec<Generated>>> {
        let prompts = records.iter().map(|r| self.prompt(r)).collect::<Result<Vec<_>>>()?;
        let mut sampling = self.sampling.clone();
        sampling.seed = rng::stream(self.sampling.seed, "eval", &[first as u64]).next_u64();
        let (eos, banned) = (self.processor.eos_ids(), self.processor.banned_ids());
        let groups = self.model.generate(&prompts, self.samples, &sampling, eos, banned)?;
        let read = |c: &crate::model::Completion| -> Result<Generated> {
            Ok(Generated { text: self.processor.decode(&c.ids)?, tokens: c.ids.len(), finished: c.finished })
        };
        groups.iter().map(|group| group.iter().map(read).collect()).collect()
    }
}

/// The prompt turns of a record as model input, its images read from below `root`.
pub(super) fn encode_prompt(processor: &Processor, record: &Record, root: &Path) -> Result<Arc<Prompt>> {
    let named = |e: Error| e.context(format!("record {}", record.id));
    let images = record.images.iter().map(|name| read_image(&root.join(name))).collect::<Result<Vec<_>>>();
    processor.encode_prompt(record.prompt(), &images.map_err(named)?).map_err(named)
}

fn read_image(path: &Path) -> Result<image::RgbImage> {
    let bytes = crate::files::read(path)?;
    let image = image::load_from_memory(&bytes);
    Ok(image.map_err(|e| Error::input(format!("cannot decode {}: {e}", path.display())))?.to_rgb8())
}
