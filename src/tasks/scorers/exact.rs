//! `exact`: the answer itself, for open questions (MMMU's, arXiv 2311.16502, and others with one short right answer).
//!
//! The answer equals a gold answer in lower case, with white space collapsed and one full stop at its end taken off; two
//! numbers are equal if their values are (`2.5` = `2.50`, `1,000` = `1000`). Leniently, a gold answer may occur in it as whole
//! words, a gold number as a number, in letters and digits of any form; not where it is ruled out (`not red`).

use super::answer_score::{AnswerScore, AnswerScorer, EMPTY, share};
use super::forms::fold;
use super::gold::golds;
use super::negation::negated;
use super::text::{bare, contains_words, grouped, numbers, plain};
use crate::Result;
use crate::data::Record;

/// Name of the scorer.
pub const NAME: &str = "exact";
/// Version of the scorer.
pub const VERSION: u32 = 2;

/// The gold answers to one question.
#[derive(Debug, Clone)]
pub struct Exact {
    golds: Vec<Content>,
    /// The same, folded, for the lenient reading.
    folded: Vec<Content>,
}

/// A text as it is compared.
#[derive(Debug, Clone)]
pub(super) struct Content {
    text: String,
    number: Option<f64>,
}

impl Content {
    /// Lower case, white space collapsed, without one full stop at the end.
    pub(super) fn new(text: &str) -> Self {
        let text = text.trim();
        let text = plain(text.strip_suffix('.').unwrap_or(text));
        Content { number: grouped(&text), text }
    }
}

/// Two numbers are compared by value, anything else as text.
impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        match (self.number, other.number) {
            (Some(a), Some(b)) => a == b,
            _ => self.text == other.text,
        }
    }
}

impl Exact {
    /// A scorer for these gold answers, none of them blank.
    pub fn new(golds: &[String]) -> Self {
        Exact {
            golds: golds.iter().map(|gold| Content::new(gold)).collect(),
            folded: golds.iter().map(|gold| Content::new(&fold(gold))).collect(),
        }
    }

    /// From a record's `meta.answers`, else its `answer`.
    pub fn from_record(record: &Record) -> Result<Self> {
        Ok(Exact::new(&golds(record)?))
    }

    fn lenient(&self, answer: &str) -> bool {
        let folded = fold(answer);
        let bared = Content::new(bare(&folded));
        let text = plain(&folded);
        let named = |gold: &Content| match gold.number {
            // A number that goes on in letters (`3D`, `10th`) is a word.
            Some(value) => numbers(&text, true).any(|n| {
                let word = text[n.end..].starts_with(|c: char| c.is_ascii_alphabetic());
                n.value == Some(value) && !word && !negated(&text, n.start)
            }),
            None => contains_words(&text, &gold.text),
        };
        self.folded.iter().any(|gold| *gold == bared || named(gold))
    }
}

impl AnswerScorer for Exact {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn score_answer(&self, answer: &str) -> AnswerScore {
        if answer.trim().is_empty() {
            return AnswerScore::unread(EMPTY, 0.0);
        }
        let said = Content::new(answer);
        let strict = self.golds.contains(&said);
        AnswerScore::read(share(strict), share(strict || self.lenient(answer)))
    }
}
