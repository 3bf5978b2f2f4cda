//! Two datasets one after the other, as one task.

use super::chance::Chance;
use super::score::Score;
use super::task::Task;
use crate::Result;
use crate::data::Record;
use image::RgbImage;

/// The examples of `first`, then those of `second`.
pub struct Concat<'a> {
    /// Gives the task its name.
    pub first: &'a dyn Task,
    /// Numbered from `first.len()` on.
    pub second: &'a dyn Task,
}

impl Concat<'_> {
    fn at(&self, i: usize) -> (&dyn Task, usize) {
        match i.checked_sub(self.first.len()) {
            None => (self.first, i),
            Some(i) => (self.second, i),
        }
    }
}

impl Task for Concat<'_> {
    fn name(&self) -> &str {
        self.first.name()
    }

    fn len(&self) -> usize {
        self.first.len() + self.second.len()
    }

    fn example(&self, i: usize) -> Result<&Record> {
        let (task, i) = self.at(i);
        task.example(i)
    }

    fn images(&self, i: usize) -> Result<Vec<RgbImage>> {
        let (task, i) = self.at(i);
        task.images(i)
    }

    fn image_sizes(&self, i: usize) -> Result<Vec<(u32, u32)>> {
        let (task, i) = self.at(i);
        task.image_sizes(i)
    }

    fn image_digests(&self, i: usize) -> Result<Option<Vec<[u8; 32]>>> {
        let (task, i) = self.at(i);
        task.image_digests(i)
    }

    fn score(&self, i: usize, response: &str) -> Score {
        let (task, i) = self.at(i);
        task.score(i, response)
    }

    fn chance(&self, i: usize) -> Option<Chance> {
        let (task, i) = self.at(i);
        task.chance(i)
    }

    fn scorers(&self) -> Vec<(String, u32)> {
        let mut scorers = self.first.scorers();
        scorers.extend(self.second.scorers().into_iter().filter(|r| !self.first.scorers().contains(r)));
        scorers
    }
}
