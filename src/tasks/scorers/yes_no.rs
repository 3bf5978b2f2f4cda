//! `yes-no`: yes or no, as MME (arXiv 2306.13394) and POPE (arXiv 2305.10355) ask.
//!
//! The rule is VLMEvalKit's: an answer says the one of the words `yes` and `no` that occurs in it, if only one does. The exact form is the
//! word alone, apart from case and punctuation around it. Leniently, full-width letters count, and of both words the one that stands
//! alone (`Yes, there is no cat`). No other word stands for either.

use super::answer_score::{AnswerScore, AnswerScorer, EMPTY, share};
use super::forms::{fold, is_cjk};
use super::gold::gold;
use crate::data::Record;
use crate::tasks::chance::Chance;
use crate::{Error, Result};

/// Name of the scorer.
pub const NAME: &str = "yes-no";
/// Version of the scorer.
pub const VERSION: u32 = 2;

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
    exact(gold).ok_or_else(|| Error::input(format!("field `answer`: `{gold}` is neither yes nor no")))
}

/// What an answer says: `Some(true)` for yes, `Some(false)` for no; the one of the words that occurs in it, if only one does.
pub fn prediction(answer: &str) -> Option<bool> {
    only(answer.split(|c: char| !c.is_alphanumeric()).filter_map(truth))
}

/// What an answer says that is nothing but one of the words, in any case and with any punctuation around it.
pub fn exact(answer: &str) -> Option<bool> {
    let dash = |c| matches!(c, '\u{2010}'..='\u{2015}' | '\u{2212}');
    let mark = |c: char| {
        c.is_whitespace() || c.is_ascii_punctuation() || dash(c) || "。，！？、：；“”‘’«»「」『』【】（）…".contains(c)
    };
    truth(answer.trim_matches(mark))
}

/// What an answer says by the lenient reading: as by [`prediction`], in letters of any width; if it has both words, the one that stands
/// alone between marks.
pub fn lenient_prediction(answer: &str) -> Option<bool> {
    let text = fold(answer);
    let parts = |c: char| !c.is_alphanumeric() || is_cjk(c);
    let said = || text.split(parts).filter_map(|word| Some((word, truth(word)?)));
    let alone = |word: &str| {
        let start = word.as_ptr() as usize - text.as_ptr() as usize;
        let (before, after) = (&text[..start], &text[start + word.len()..]);
        let word_before = before.trim_end_matches([' ', '\t']).ends_with(char::is_alphanumeric);
        !word_before && !after.trim_start_matches([' ', '\t']).starts_with(char::is_alphanumeric)
    };
    only(said().map(|(_, truth)| truth))
        .or_else(|| only(said().filter(|(word, _)| alone(word)).map(|(_, truth)| truth)))
}

/// The value that all of these have.
fn only(mut said: impl Iterator<Item = bool>) -> Option<bool> {
    let first = said.next()?;
    said.all(|truth| truth == first).then_some(first)
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
        let scored = match prediction(answer) {
            Some(said) => AnswerScore::read(share(said == self.gold), lenient),
            None if answer.trim().is_empty() => AnswerScore::unread(EMPTY, 0.0),
            None => AnswerScore::unread("neither yes nor no", lenient),
        };
        scored.in_form(exact(answer).is_some())
    }
}
