//! One [`Task`] gives the examples and scores the responses, for reward and for evaluation alike: they cannot disagree.

use super::chance::Chance;
use super::score::Score;
use super::scorer::Scorer;
use super::scorers::Aggregate;
use crate::Result;
use crate::data::{Record, rough_size};
use image::RgbImage;
use std::borrow::Cow;

/// A set of examples with what scores responses to them.
pub trait Task: Send + Sync {
    /// Name as recorded in results.
    fn name(&self) -> &str;
    /// Number of examples.
    fn len(&self) -> usize;
    /// True when there are no examples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Example `i`.
    fn example(&self, i: usize) -> Result<Cow<'_, Record>>;
    /// How many of the first examples are as large as any: the longest text and the largest image are among these.
    fn measured(&self) -> usize {
        self.len()
    }
    /// Where example `i` stands (`file:line`), for messages, if it is from a file.
    fn place(&self, _i: usize) -> Option<String> {
        None
    }
    /// The images of example `i`, in the order of its placeholders.
    fn images(&self, i: usize) -> Result<Vec<RgbImage>>;
    /// Width and height of the images of example `i`.
    fn image_sizes(&self, i: usize) -> Result<Vec<(u32, u32)>> {
        Ok(self.images(i)?.iter().map(RgbImage::dimensions).collect())
    }
    /// Bytes of the text of example `i` and pixels of its images; 0 for what cannot be read.
    fn rough_size(&self, i: usize) -> (usize, u64) {
        self.example(i).map_or((0, 0), |record| rough_size(&record, self.image_sizes(i).ok()))
    }
    /// SHA-256 of each image file of example `i`, if the task has them without decoding.
    fn image_digests(&self, _i: usize) -> Result<Option<Vec<[u8; 32]>>> {
        Ok(None)
    }
    /// Where a person finds each image of example `i`: the path of its file, or of the file that holds it with the line there. None where
    /// images are made as they are needed.
    fn image_places(&self, _i: usize) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    /// How the task sums up its examples beside the mean, if it does.
    fn aggregate(&self) -> Option<Aggregate> {
        None
    }
    /// Score a response to example `i`.
    fn score(&self, i: usize, response: &str) -> Score;
    /// What guessing earns on example `i`; `None` if that is not known.
    fn chance(&self, _i: usize) -> Option<Chance> {
        None
    }
    /// What guessing earns on the first `examples`.
    fn mean_chance(&self, examples: usize) -> Option<Chance> {
        Chance::mean((0..examples).map(|i| self.chance(i)))
    }
    /// Name and version of each scorer of its examples, in the order of their first use.
    fn scorers(&self) -> Vec<(String, u32)> {
        Vec::new()
    }
}

/// Name and version of each of these scorers, in the order of their first use.
pub(super) fn scorer_versions(scorers: &[Box<dyn Scorer>]) -> Vec<(String, u32)> {
    let mut versions: Vec<(String, u32)> = Vec::new();
    for scorer in scorers {
        if !versions.iter().any(|(known, _)| known == scorer.name()) {
            versions.push((scorer.name().to_string(), scorer.version()));
        }
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Style;
    use crate::tasks::jigsaw::PairScorer;
    use crate::tasks::scorers::{Anls, AnswerScorer, ResponseScorer, YesNo};

    #[test]
    fn each_scorer_is_named_once() {
        let by = |scorer: Box<dyn AnswerScorer>| -> Box<dyn Scorer> { Box::new(ResponseScorer::new(scorer, None)) };
        let scorers = [
            by(Box::new(YesNo::new(true))),
            Box::new(PairScorer::new(0, 2, Style::Direct)),
            by(Box::new(Anls::new(&["x".to_string()]))),
            by(Box::new(YesNo::new(false))),
        ];
        let expected =
            [("yes-no", 2), ("jigsaw-pair", 1), ("anls", 2)].map(|(name, version)| (name.to_string(), version));
        assert_eq!(scorer_versions(&scorers), expected);
    }
}
