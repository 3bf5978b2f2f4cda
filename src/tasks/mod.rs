//! One [`Task`] gives the examples and scores the responses, for reward and for evaluation alike: they cannot disagree.

use crate::Result;
use crate::data::Record;
use crate::puzzle::{Reward, RewardConfig};
use image::RgbImage;

/// What a response is worth. Reward and accuracy are both read from this.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Score {
    /// Whole answer right.
    pub correct: bool,
    /// Share of the answer's parts that are right, in [0, 1] (for a jigsaw: correctly placed tiles / tiles).
    pub hits: f64,
    /// The same share counted in whatever could be read, valid or not (for a jigsaw: positions that name the right tile,
    /// in an answer of at most as many numbers as tiles). Equal to `hits` when `parsed`.
    pub positions: f64,
    /// An answer could be read at all (for a jigsaw: a permutation of 1..=tiles in one answer block).
    pub parsed: bool,
    /// The response as a whole keeps the requested format.
    pub well_formed: bool,
    /// Why it did not parse or is not well formed, in a few fixed words; empty if it is fine.
    pub fault: String,
}

impl Score {
    /// The reward of a response with this score.
    pub fn reward(&self, config: &RewardConfig) -> Reward {
        config.reward(self.hits, self.positions, self.correct, self.well_formed)
    }
}

/// A set of examples and the rule that scores responses to them.
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
    fn example(&self, i: usize) -> Result<&Record>;
    /// The images of example `i`, in the order of its placeholders.
    fn images(&self, i: usize) -> Result<Vec<RgbImage>>;
    /// Score a response to example `i`.
    fn score(&self, i: usize, response: &str) -> Score;
}
