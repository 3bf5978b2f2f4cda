//! `yes-no`: yes or no, as MME (arXiv 2306.13394) and POPE (arXiv 2305.10355) ask.
//!
//! Strictly, the answer is `yes` or `no` and nothing else, apart from case and punctuation around it. Leniently, it may say one
//! of the two words anywhere, but not both. No other word stands for either.

use super::answer_score::{AnswerScore, AnswerScorer, EMPTY, share};
use super::gold::gold;
use super::text::fold_width;
use crate::data::Record;
use crate::tasks::chance::Chance;
use crate::{Error, Result};

/// Name of the scorer.
pub const NAME: &str = "yes-no";
/// Version of the scorer.
pub const VERSION: u32 = 1;

/// The right one of yes and no.
#[derive(Debug, Clone, Copy)]
pub struct YesNo {
    gold: bool,
}

impl YesNo {
    /// A scorer for a question whose right answer is yes (`true`) or no.
    pub fn new(gold: bool) -> Self {
        YesNo { gold }
    }

    /// From a record's `answer`.
    pub fn from_record(record: &Record) -> Result<Self> {
        gold(record).and_then(right_answer).map(YesNo::new)
    }
}

/// A gold answer as a truth value.
pub(super) fn right_answer(gold: &str) -> Result<bool> {
    prediction(gold).ok_or_else(|| Error::input(format!("field `answer`: `{gold}` is neither yes nor no")))
}

/// What an answer says by the strict reading: `Some(true)` for yes, `Some(false)` for no.
pub fn prediction(answer: &str) -> Option<bool> {
    let punctuation = |c: char| c.is_whitespace() || c.is_ascii_punctuation() || "。，！？、：；“”‘’«»…".contains(c);
    truth(answer.trim_matches(punctuation))
}

/// What an answer says by the lenient reading: the one of the words `yes` and `no` that occurs in it, if only one does.
pub fn lenient_prediction(answer: &str) -> Option<bool> {
    let mut said = None;
    for truth in fold_width(answer).split(|c: char| !c.is_alphanumeric()).filter_map(truth) {
        if said.is_some_and(|said| said != truth) {
            return None;
        }
        said = Some(truth);
    }
    said
}

fn truth(word: &str) -> Option<bool> {
    if word.eq_ignore_ascii_case("yes") {
        Some(true)
    } else if word.eq_ignore_ascii_case("no") {
        Some(false)
    } else {
        None
    }
}

impl AnswerScorer for YesNo {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn chance(&self) -> Option<Chance> {
        Chance::one_of(2)
    }

    fn score_answer(&self, answer: &str) -> AnswerScore {
        let lenient = share(lenient_prediction(answer) == Some(self.gold));
        match prediction(answer) {
            Some(said) => AnswerScore::read(share(said == self.gold), lenient),
            None if answer.trim().is_empty() => AnswerScore::unread(EMPTY, 0.0),
            None => AnswerScore::unread("neither yes nor no", lenient),
        }
    }
}
