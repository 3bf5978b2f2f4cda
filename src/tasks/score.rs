//! What a response is worth.

use serde::{Deserialize, Serialize};

/// What a response is worth. Reward and accuracy are both read from this, so that they cannot disagree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Whole answer right.
    pub correct: bool,
    /// What the benchmark's published rule gives, in [0, 1]; what a benchmark averages (for a jigsaw: 1 if `correct`, else 0).
    pub value: f64,
    /// What a lenient reading of the response earns, in [0, 1], never less than `value`; it shows how much of a loss is format.
    pub lenient: f64,
    /// Share of the answer that is right, in [0, 1] (for a jigsaw: tiles in place / tiles; for a box: its overlap with the right
    /// one); 0 unless `parsed`.
    pub partial_credit: f64,
    /// The same share counted in whatever could be read, valid or not (for a jigsaw: places that name the right tile, in an answer
    /// of at most as many numbers as tiles). Equal to `partial_credit` when `parsed`.
    pub raw_partial_credit: f64,
    /// The response holds a valid answer (for a jigsaw: a permutation of 1..=tiles in one answer block).
    pub parsed: bool,
    /// The response as a whole keeps the requested format.
    pub well_formed: bool,
    /// The answer has the exact form (one word, one letter, one box as JSON), by a scorer whose rule reads other forms too; absent
    /// with the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<bool>,
    /// Why it did not parse or is not well formed, in a few fixed words; empty if it is fine.
    pub fault: String,
}

/// Why a server gave no answer to score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoAnswer {
    /// Its content filter, or the model itself, refused.
    Refused,
    /// The prompt is longer than the server takes.
    TooLong,
    /// The answer has no text.
    Empty,
}

impl NoAnswer {
    /// All of them.
    pub const ALL: [NoAnswer; 3] = [NoAnswer::Refused, NoAnswer::TooLong, NoAnswer::Empty];

    /// The fault of a score without an answer. No scorer uses these words.
    pub fn fault(self) -> &'static str {
        match self {
            NoAnswer::Refused => "refused by the server",
            NoAnswer::TooLong => "prompt too long for the server",
            NoAnswer::Empty => "no text from the server",
        }
    }
}

impl Score {
    /// The score of a missing answer, whatever the scorer.
    pub fn without_answer(why: NoAnswer) -> Score {
        Score::nothing(why.fault())
    }

    /// 0 in everything, with this fault.
    pub fn nothing(fault: &str) -> Score {
        Score {
            correct: false,
            value: 0.0,
            lenient: 0.0,
            partial_credit: 0.0,
            raw_partial_credit: 0.0,
            parsed: false,
            well_formed: false,
            exact: None,
            fault: fault.into(),
        }
    }

    /// What the response earns if nothing but the exact form counts: `value`, or 0 if it has another form; never more than `value`.
    pub fn exact_form(&self) -> f64 {
        if self.well_formed && self.exact != Some(false) { self.value } else { 0.0 }
    }

    /// Why there was no answer to score, if there was none.
    pub fn unanswered(&self) -> Option<NoAnswer> {
        NoAnswer::ALL.into_iter().find(|why| why.fault() == self.fault)
    }
}
