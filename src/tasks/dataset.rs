//! The records of a dataset as a [`Task`], each scored by the scorer that its `task` field names.

use super::chance::Chance;
use super::registry::scorer;
use super::score::Score;
use super::scorer::Scorer;
use super::task::{Task, scorer_versions};
use crate::data::{Dataset, Record};
use crate::{Error, Result};
use image::RgbImage;
use std::path::Path;

/// A dataset with a scorer for each record.
pub struct DatasetTask {
    name: String,
    dataset: Dataset,
    scorers: Vec<Box<dyn Scorer>>,
}

/// Open a split of a dataset directory as a task. See [`Dataset::open`] for what `dir` may be.
pub fn load(dir: &Path, split: &str) -> Result<Box<dyn Task>> {
    Ok(Box::new(DatasetTask::new(Dataset::open(dir, split)?)?))
}

impl DatasetTask {
    /// A scorer for each record; an error names the file, line and field of the record that has none.
    pub fn new(dataset: Dataset) -> Result<Self> {
        let mut names: Vec<&str> = Vec::new();
        let mut scorers = Vec::with_capacity(dataset.len());
        for (i, record) in dataset.records().iter().enumerate() {
            scorers.push(scorer(record).map_err(|e| e.context(dataset.place(i)))?);
            if !names.contains(&record.task.as_str()) {
                names.push(&record.task);
            }
        }
        Ok(DatasetTask { name: names.join("+"), scorers, dataset })
    }

    /// The dataset behind the task.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }
}

impl Task for DatasetTask {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.dataset.len()
    }

    fn example(&self, i: usize) -> Result<&Record> {
        self.dataset
            .records()
            .get(i)
            .ok_or_else(|| Error::failed(format!("example {i} of a dataset of {} was asked for", self.dataset.len())))
    }

    fn place(&self, i: usize) -> Option<String> {
        Some(self.dataset.place(i))
    }

    fn images(&self, i: usize) -> Result<Vec<RgbImage>> {
        self.dataset.load_images(self.example(i)?)
    }

    fn image_sizes(&self, i: usize) -> Result<Vec<(u32, u32)>> {
        self.dataset.image_sizes(self.example(i)?)
    }

    fn image_digests(&self, i: usize) -> Result<Option<Vec<[u8; 32]>>> {
        self.dataset.image_digests(self.example(i)?).map(Some)
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
}
