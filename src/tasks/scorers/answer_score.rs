//! What every scorer of an answer is, and what it makes of the answer.

use crate::tasks::chance::Chance;

/// What an answer scorer makes of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerScore {
    /// What the strict reading earns, in [0, 1]; 0 unless `parsed`.
    pub value: f64,
    /// The graded share behind `value` where a scorer has a threshold (`iou`: the IoU itself), else `value`; in [0, 1], 0
    /// unless `parsed`.
    pub partial_credit: f64,
    /// What the lenient reading earns, in [0, 1], never less than `value`.
    pub lenient: f64,
    /// The strict reading earns everything.
    pub correct: bool,
    /// The strict reading found an answer.
    pub parsed: bool,
    /// Why it did not, in a few fixed words; else empty.
    pub fault: String,
}

impl AnswerScore {
    /// An answer that the strict reading could read.
    pub(super) fn read(value: f64, lenient: f64) -> Self {
        AnswerScore {
            value,
            partial_credit: value,
            lenient: lenient.max(value),
            correct: value >= 1.0,
            parsed: true,
            fault: String::new(),
        }
    }

    /// An answer that it could not.
    pub(super) fn unread(fault: impl Into<String>, lenient: f64) -> Self {
        AnswerScore { value: 0.0, partial_credit: 0.0, lenient, correct: false, parsed: false, fault: fault.into() }
    }
}

/// How the answer to one question is compared with its gold answer.
pub trait AnswerScorer: Send + Sync {
    /// Name, one of [`super::NAMES`].
    fn name(&self) -> &'static str;
    /// Raised whenever some answer would be scored otherwise than before.
    fn version(&self) -> u32;
    /// Score an answer, free of any tags around it.
    fn score_answer(&self, answer: &str) -> AnswerScore;
    /// What guessing earns; `None` if that is not known.
    fn chance(&self) -> Option<Chance> {
        None
    }
}

/// 1 if it holds, else 0.
pub(super) fn share(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

/// The fault of an answer with nothing in it.
pub(super) const EMPTY: &str = "empty answer";
