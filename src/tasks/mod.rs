//! One [`Task`] gives the examples and scores the responses, for reward and for evaluation alike: they cannot disagree.

use crate::Result;
use crate::data::Record;

/// What a response is worth. Reward and accuracy are both read from this.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Score {
    /// Whole answer right.
    pub correct: bool,
    /// Share of the answer's parts that are right, in [0, 1] (for a jigsaw: correctly placed tiles / tiles).
    pub hits: f64,
    /// An answer could be read at all (for a jigsaw: a permutation of 1..=tiles in one answer block).
    pub parsed: bool,
    /// The response as a whole keeps the requested format.
    pub well_formed: bool,
    /// Why it did not parse or is not well formed, in a few fixed words; empty if it is fine.
    pub fault: String,
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
    /// Score a response to example `i`.
    fn score(&self, i: usize, response: &str) -> Score;
}
