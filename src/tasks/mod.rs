//! One [`Task`] gives the examples and scores the responses, for reward and for evaluation alike: they cannot disagree.

pub mod benchmarks;
mod chance;
mod concat;
mod dataset;
mod encode;
pub mod jigsaw;
pub mod scorers;
pub mod suites;

pub use chance::Chance;
pub use concat::Concat;
pub use dataset::{DatasetTask, load};
pub use encode::{encode_example, example_size, meta_example, reference_response, reference_sequence};
pub use jigsaw::{JigsawScorer, PairScorer};

use crate::data::Record;
use crate::tasks::jigsaw::{Reward, RewardConfig};
use crate::{Error, Result};
use image::RgbImage;

/// What a response is worth. Reward and accuracy are both read from this.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Score {
    /// Whole answer right.
    pub correct: bool,
    /// What the task's strict rule gives, in [0, 1]; what a benchmark averages (for a jigsaw: 1 if `correct`, else 0).
    pub value: f64,
    /// What a lenient reading of the response earns by the same rule, in [0, 1], never less than `value`; it shows how much of
    /// a loss is format.
    pub lenient: f64,
    /// Share of the answer's parts that are right, in [0, 1] (for a jigsaw: correctly placed tiles / tiles; for a box: its
    /// overlap with the right one); 0 unless `parsed`.
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

/// Why there is no answer of a server to score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// Its content filter, or the model itself, gave none.
    Refused,
    /// The answer came without any text.
    Empty,
}

impl NoAnswer {
    /// The fault of a score without an answer. No rule has a fault of these words.
    pub fn fault(self) -> &'static str {
        match self {
            NoAnswer::Refused => "refused by the server",
            NoAnswer::Empty => "no text from the server",
        }
    }
}

impl Score {
    /// The score where there is no answer, whatever the rule.
    pub fn without_answer(why: NoAnswer) -> Score {
        Score {
            correct: false,
            value: 0.0,
            lenient: 0.0,
            hits: 0.0,
            positions: 0.0,
            parsed: false,
            well_formed: false,
            fault: why.fault().into(),
        }
    }

    /// Why there was no answer to score, if there was none.
    pub fn unanswered(&self) -> Option<NoAnswer> {
        [NoAnswer::Refused, NoAnswer::Empty].into_iter().find(|why| why.fault() == self.fault)
    }

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
    /// Width and height of the images of example `i`.
    fn image_sizes(&self, i: usize) -> Result<Vec<(u32, u32)>> {
        Ok(self.images(i)?.iter().map(RgbImage::dimensions).collect())
    }
    /// A digest of each image of example `i`, if the task has them without decoding: equal ones are of equal images.
    fn image_digests(&self, _i: usize) -> Result<Option<Vec<[u8; 32]>>> {
        Ok(None)
    }
    /// How the task sums up its examples beside the mean, if it does.
    fn aggregate(&self) -> Option<scorers::Aggregate> {
        None
    }
    /// Score a response to example `i`.
    fn score(&self, i: usize, response: &str) -> Score;
    /// Name and version of each rule that scores its examples, in the order of their first use.
    fn rules(&self) -> Vec<(String, u32)> {
        Vec::new()
    }
}

/// The rule for one example: its gold answer and how a response is compared with it.
pub trait Scorer: Send + Sync {
    /// Score a response.
    fn score(&self, response: &str) -> Score;
    /// Name of the rule it scores by, and its version: raised whenever some response would be scored otherwise than before.
    fn rule(&self) -> (&str, u32);
}

/// The scorer that a record's `task` names, made from the record; an input error names the field that is wrong.
pub fn scorer(record: &Record) -> Result<Box<dyn Scorer>> {
    match record.task.as_str() {
        "jigsaw" => Ok(Box::new(JigsawScorer::from_record(record)?)),
        "jigsaw-pair" => Ok(Box::new(PairScorer::from_record(record)?)),
        name if scorers::RULES.contains(&name) => Ok(Box::new(scorers::RuleScorer::from_record(record)?)),
        other => Err(Error::input(format!(
            "field `task`: no scorer is named `{other}`; known: jigsaw, jigsaw-pair, {}",
            scorers::RULES.join(", ")
        ))),
    }
}

/// A field of the record's `meta`, or an input error that names it.
fn meta<T: serde::de::DeserializeOwned>(record: &Record, field: &str) -> Result<T> {
    let value = record.meta.get(field).ok_or_else(|| Error::input(format!("field `meta.{field}` is missing")))?;
    serde_json::from_value(value.clone()).map_err(|e| Error::input(format!("field `meta.{field}`: {e}")))
}
