//! `list`: several parts in a given order, separated by commas.
//!
//! The score is the share of parts that stand in their place, of the longer of both lists; parts are compared as `exact` compares
//! answers. An answer with more than four times as many parts as the gold one is not read: it enumerates guesses.

use super::answer_score::{AnswerScore, AnswerScorer, EMPTY};
use super::exact::Content;
use super::forms::fold;
use super::gold::gold;
use super::text::bare;
use crate::data::Record;
use crate::{Error, Result};

/// Name of the scorer.
pub const NAME: &str = "list";
/// Version of the scorer.
pub const VERSION: u32 = 2;

/// The most parts that are read, as a multiple of those of the gold answer.
const MOST: usize = 4;

/// The parts of the right answer in order.
#[derive(Debug, Clone)]
pub struct List {
    gold: Vec<Content>,
    /// The same, folded, for the lenient reading.
    folded: Vec<Content>,
}

impl List {
    /// A scorer for a gold answer with commas between its parts; an input error if a part is blank.
    pub fn new(gold: &str) -> Result<Self> {
        if gold.split(',').any(|part| part.trim().is_empty()) {
            return Err(Error::input(format!("field `answer`: `{gold}` has a blank part between its commas")));
        }
        let folded = |part: &str| Content::new(&fold(part));
        Ok(List { gold: gold.split(',').map(Content::new).collect(), folded: gold.split(',').map(folded).collect() })
    }

    /// From a record's `answer`.
    pub fn from_record(record: &Record) -> Result<Self> {
        List::new(gold(record)?)
    }

    /// Share of the parts that are right, or why they cannot be read.
    fn share<'a>(gold: &[Content], parts: impl Iterator<Item = &'a str>) -> Result<f64, &'static str> {
        let most = MOST * gold.len();
        let parts: Vec<&str> = parts.take(most + 1).collect();
        if parts.iter().all(|part| part.trim().is_empty()) {
            return Err(EMPTY);
        }
        if parts.len() > most {
            return Err("too many parts");
        }
        let right = parts.iter().zip(gold).filter(|(part, gold)| Content::new(part) == **gold).count();
        Ok(right as f64 / parts.len().max(gold.len()) as f64)
    }

    /// Also between semicolons or lines, bare of brackets, quotes and `the answer is`, a blank part not counted.
    fn lenient(&self, answer: &str) -> f64 {
        let folded = fold(answer);
        let text = bare(&folded).trim_matches(['[', ']', '(', ')', '{', '}']);
        let quotes = ['"', '\'', '`', '\u{201c}', '\u{201d}'];
        let parts = text.split([',', ';', '\n']).map(|part| bare(part.trim().trim_matches(quotes)));
        let parts = parts.filter(|part| !part.is_empty());
        List::share(&self.folded, parts).unwrap_or(0.0)
    }
}

impl AnswerScorer for List {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn score_answer(&self, answer: &str) -> AnswerScore {
        match List::share(&self.gold, answer.split(',')) {
            Ok(share) => AnswerScore::read(share, self.lenient(answer)),
            Err(fault) => AnswerScore::unread(fault, self.lenient(answer)),
        }
    }
}
