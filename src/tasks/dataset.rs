//! The records of a dataset as a [`Task`], each scored by the rule that its `task` field names.

use super::{Score, Scorer, Task, scorer};
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

    fn rules(&self) -> Vec<(String, u32)> {
        rules(&self.scorers)
    }
}

/// Name and version of each rule among these scorers, in the order of their first use.
pub(super) fn rules(scorers: &[Box<dyn Scorer>]) -> Vec<(String, u32)> {
    let mut rules: Vec<(String, u32)> = Vec::new();
    for (name, version) in scorers.iter().map(|scorer| scorer.rule()) {
        if !rules.iter().any(|(known, _)| known == name) {
            rules.push((name.to_string(), version));
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::jigsaw::Style;
    use crate::tasks::scorers::{Anls, RuleScorer, YesNo};
    use crate::tasks::{PairScorer, scorers::Rule};

    #[test]
    fn each_rule_is_named_once() {
        let by = |rule: Box<dyn Rule>| -> Box<dyn Scorer> { Box::new(RuleScorer::new(rule, None)) };
        let scorers = [
            by(Box::new(YesNo::new(true))),
            Box::new(PairScorer::new(0, 2, Style::Direct)),
            by(Box::new(Anls::new(&["x".to_string()]))),
            by(Box::new(YesNo::new(false))),
        ];
        let expected = ["yes-no", "jigsaw-pair", "anls"].map(|name| (name.to_string(), 1));
        assert_eq!(rules(&scorers), expected);
    }
}
