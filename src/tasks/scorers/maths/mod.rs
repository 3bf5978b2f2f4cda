//! `maths`: the number, expression, tuple, set or interval that a response ends with.
//!
//! The answer is the first of these that the response has: the last `\boxed{...}`; what follows the last `####`; what follows the last
//! `answer is` or `answer:`; the whole response, where it is a formula; the last formula between dollar signs, `\(...\)` or `\[...\]`; the last number.
//! It is right if it has the value of the gold answer ([`value`]): fractions exactly, decimals to six places, expressions at several points of their
//! variables. Units, currency signs, degrees and thousands separators do not count. The gold answer is read in the same way.

mod extract;
mod parser;
mod tokens;
mod value;

use super::answer_score::{AnswerScore, AnswerScorer, EMPTY, share};
use super::gold::golds;
use super::text::plain;
use crate::Result;
use crate::data::Record;
use crate::tasks::chance::Chance;
use crate::tasks::meta::meta;
use extract::{last_number, read};
use parser::formula;
use value::Answer;

/// Name of the scorer.
pub const NAME: &str = "maths";
/// Version of the scorer.
pub const VERSION: u32 = 1;

/// The gold answers to one question.
#[derive(Debug, Clone)]
pub struct Maths {
    golds: Vec<Answer>,
    chance: Option<f64>,
}

impl Maths {
    /// A scorer for these gold answers, none of them blank.
    pub fn new(golds: &[String]) -> Self {
        let answer = |gold: &String| read(gold).unwrap_or_else(|| Answer::Text(plain(gold)));
        Maths { golds: golds.iter().map(answer).collect(), chance: None }
    }

    /// From a record's `meta.answers`, else its `answer`, and `meta.chance` (what guessing earns), if it is there.
    ///
    /// # Errors
    /// An input error that names the field that is wrong.
    pub fn from_record(record: &Record) -> Result<Self> {
        let chance = if record.meta.contains_key("chance") { Some(meta(record, "chance")?) } else { None };
        Ok(Maths { chance, ..Maths::new(&golds(record)?) })
    }

    fn is_right(&self, said: &Answer) -> bool {
        self.golds.iter().any(|gold| gold.same(said))
    }
}

impl AnswerScorer for Maths {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn chance(&self) -> Option<Chance> {
        self.chance.map(|accuracy| Chance { accuracy, partial_credit: accuracy })
    }

    fn score_answer(&self, answer: &str) -> AnswerScore {
        let lenient = last_number(answer).and_then(formula).is_some_and(|said| self.is_right(&said));
        match read(answer) {
            Some(said) => AnswerScore::read(share(self.is_right(&said)), share(lenient)),
            None if answer.trim().is_empty() => AnswerScore::unread(EMPTY, 0.0),
            None => AnswerScore::unread("no number or formula", share(lenient)),
        }
    }
}
