//! One way to make datasets, for every task: a [`Generator`] turns sources into examples, and the functions here run it over a split.
//!
//! An example is a function of (seed, source, number of the example among those of its source): not of the number of threads, nor of
//! the other sources.

use crate::Result;
use crate::data::{DatasetWriter, Digest, Record};
use image::RgbImage;
use rayon::prelude::*;

/// Makes the examples of a task.
pub trait Generator: Sync {
    /// What examples are made from: a photo, the number of a synthetic question, a puzzle that was drawn.
    type Source: Sync;
    /// An example whose images are written.
    type Example: Send;
    /// Why a source gives no examples.
    type Refusal: Send;

    /// Make one example for each of `slots`, and write its images. A slot is the example's place in the split and its number among those
    /// of the source. The inner error says that the source cannot be used: its slots go to other sources.
    ///
    /// # Errors
    /// The outer error: writing failed.
    fn make(
        &self,
        split: &SplitWriter<'_>,
        source: &Self::Source,
        slots: &[(usize, u64)],
    ) -> Result<std::result::Result<Vec<Self::Example>, Self::Refusal>>;

    /// The records of an example, each with the digests of its images.
    fn records(
        &self,
        split: &str,
        slot: usize,
        source: &Self::Source,
        example: &Self::Example,
    ) -> Vec<(Record, Vec<Digest>)>;
}

/// Where a generator writes the images of a split.
pub struct SplitWriter<'a> {
    /// Name of the split.
    pub split: &'static str,
    /// The dataset.
    pub writer: &'a DatasetWriter,
    /// Called for each example made, from any thread.
    pub on_example: &'a (dyn Fn() + Sync),
}

impl SplitWriter<'_> {
    /// Write an image under `name`, relative to the split.
    ///
    /// # Errors
    /// A failure to write.
    pub fn write_image(&self, name: &str, image: &RgbImage) -> Result<Digest> {
        self.writer.write_image(self.split, name, image)
    }
}

/// The examples of a split with their sources, in the order of their slots.
pub type Made<'a, G> = Vec<(&'a <G as Generator>::Source, <G as Generator>::Example)>;

/// Slots of a split, and the sources that they are filled from.
pub struct SourcePool<'a, S> {
    /// Places in the split.
    pub slots: Vec<usize>,
    /// Each in turn gives one example until all slots are filled.
    pub sources: &'a [S],
}

/// Called with the sources that were refused and the reasons.
pub type OnRefused<'f, 'a, G> =
    dyn FnMut(Vec<(&'a <G as Generator>::Source, <G as Generator>::Refusal)>) -> Result<()> + 'f;

/// Make the examples of a split. A source that is refused is handed to `refused` and gives nothing; the other sources of its pool fill its
/// slots. `None` if a pool has no source left.
///
/// # Errors
/// Failures to write, and what `refused` returns.
pub fn make_split<'a, G: Generator>(
    generator: &G,
    split: &SplitWriter<'_>,
    pools: Vec<SourcePool<'a, G::Source>>,
    refused: &mut OnRefused<'_, 'a, G>,
) -> Result<Option<Made<'a, G>>> {
    let count = pools.iter().map(|pool| pool.slots.len()).sum();
    let mut made: Vec<Option<(&'a G::Source, G::Example)>> = (0..count).map(|_| None).collect();
    for SourcePool { slots: mut missing, sources } in pools {
        let mut alive: Vec<usize> = (0..sources.len()).collect();
        let mut given = vec![0u64; sources.len()];
        while !missing.is_empty() {
            if alive.is_empty() {
                return Ok(None);
            }
            let mut jobs: Vec<(usize, Vec<(usize, u64)>)> = alive.iter().map(|&source| (source, Vec::new())).collect();
            let turns = jobs.len();
            for (turn, slot) in missing.drain(..).enumerate() {
                let (source, slots) = &mut jobs[turn % turns];
                slots.push((slot, given[*source]));
                given[*source] += 1;
            }
            jobs.retain(|(_, slots)| !slots.is_empty());
            let make = |(source, slots): &(usize, Vec<(usize, u64)>)| generator.make(split, &sources[*source], slots);
            let results: Vec<_> = jobs.par_iter().map(make).collect();
            let mut refusals = Vec::new();
            for ((source, slots), result) in jobs.into_iter().zip(results) {
                match result? {
                    Ok(examples) => {
                        for ((slot, _), example) in slots.into_iter().zip(examples) {
                            made[slot] = Some((&sources[source], example));
                        }
                    }
                    Err(refusal) => {
                        refusals.push((&sources[source], refusal));
                        alive.retain(|&other| other != source);
                        missing.extend(slots.into_iter().map(|(slot, _)| slot));
                    }
                }
            }
            refused(refusals)?;
            missing.sort_unstable();
        }
    }
    Ok(Some(made.into_iter().flatten().collect()))
}

/// Write the records of a split.
///
/// # Errors
/// A failure to write.
pub fn write_records<G: Generator>(
    generator: &G,
    writer: &mut DatasetWriter,
    split: &str,
    made: &Made<'_, G>,
) -> Result<()> {
    let records = made.iter().enumerate();
    let records = records.flat_map(|(slot, (source, example))| generator.records(split, slot, source, example));
    writer.write_records(split, records)
}
