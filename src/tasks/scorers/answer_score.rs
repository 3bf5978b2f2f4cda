//! What every scorer of an answer is, and what it makes of the answer.

use crate::tasks::chance::Chance;

/// What an answer scorer makes of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerScore {
    /// What the published rule earns, in [0, 1]; 0 unless `parsed`.
    pub value: f64,
    /// The graded share behind `value` where a scorer has a threshold (`iou`: the IoU itself; `anls`: the similarity that white space
    /// cannot raise), else `value`; in [0, 1], 0 unless `parsed`.
    pub partial_credit: f64,
    /// What the lenient reading earns, in [0, 1], never less than `value`.
    pub lenient: f64,
    /// The published rule earns everything.
    pub correct: bool,
    /// The published rule found an answer.
    pub parsed: bool,
    /// The answer has the exact form; `None` by scorers that read no other.
    pub exact: Option<bool>,
    /// Why no answer was found, in a few fixed words; else empty.
    pub fault: String,
}

impl AnswerScore {
    /// An answer that the published rule could read.
    pub(super) fn read(value: f64, lenient: f64) -> Self {
        AnswerScore {
            value,
            partial_credit: value,
            lenient: lenient.max(value),
            correct: value >= 1.0,
            parsed: true,
            exact: None,
            fault: String::new(),
        }
    }

    /// An answer that it could not.
    pub(super) fn unread(fault: impl Into<String>, lenient: f64) -> Self {
        AnswerScore {
            value: 0.0,
            partial_credit: 0.0,
            lenient,
            correct: false,
            parsed: false,
            exact: None,
            fault: fault.into(),
        }
    }

    /// The same, by a scorer that tells the exact form from others.
    pub(super) fn in_form(self, exact: bool) -> Self {
        AnswerScore { exact: Some(exact), ..self }
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
