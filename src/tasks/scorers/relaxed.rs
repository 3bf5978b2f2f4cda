//! `relaxed`: relaxed accuracy of ChartQA (arXiv 2203.10244, section 5.1), after PlotQA (arXiv 1909.00997).
//!
//! A number is right within 5 % of the gold number (inclusive; `x %` is x/100), any other answer if it equals the gold answer
//! in lower case. Digits may be of other scripts (`１２`, `١٢`), as in Python's numbers. A gold 0 asks for 0.

use super::answer_score::{AnswerScore, AnswerScorer, EMPTY, share};
use super::forms::{ascii_digits, fold};
use super::gold::golds;
use super::text::{bare, decimal, numbers, plain};
use crate::Result;
use crate::data::Record;

/// Name of the scorer.
pub const NAME: &str = "relaxed";
/// Version of the scorer.
pub const VERSION: u32 = 2;

/// The largest relative difference from the gold number.
const TOLERANCE: f64 = 0.05;

/// The gold answers to one question.
#[derive(Debug, Clone)]
pub struct Relaxed {
    golds: Vec<Gold>,
}

#[derive(Debug, Clone)]
struct Gold {
    /// As the strict reading compares texts: trimmed, in lower case.
    text: String,
    /// As the lenient one does: also bare and collapsed.
    plain: String,
    /// By the strict reading, where `x %` is x/100.
    number: Option<f64>,
    /// With its unit, currency and thousands separators taken off.
    quantity: Option<f64>,
}

impl Relaxed {
    /// A scorer for these gold answers, none of them blank.
    pub fn new(golds: &[String]) -> Self {
        let gold = |gold: &String| Gold {
            text: gold.trim().to_lowercase(),
            plain: plain(bare(&fold(gold))),
            number: number(gold),
            quantity: quantity(&fold(gold)),
        };
        Relaxed { golds: golds.iter().map(gold).collect() }
    }

    /// From a record's `meta.answers`, else its `answer`.
    pub fn from_record(record: &Record) -> Result<Self> {
        Ok(Relaxed::new(&golds(record)?))
    }

    fn strict(&self, answer: &str) -> bool {
        let (text, number) = (answer.trim().to_lowercase(), number(answer));
        self.golds.iter().any(|gold| match (number, gold.number) {
            (Some(number), Some(gold)) => close(number, gold),
            _ => text == gold.text,
        })
    }

    /// The last number of the answer, read as it is and without its unit, or the text without what surrounds it.
    fn lenient(&self, answer: &str) -> bool {
        let folded = fold(answer);
        let text = plain(bare(&folded));
        let last = numbers(&folded, true).last();
        let quantity = last.and_then(|n| n.value);
        let percent = last.is_some_and(|n| folded[n.end..].trim_start().starts_with('%'));
        let number = quantity.map(|x| if percent { x / 100.0 } else { x });
        let close = |x: Option<f64>, gold: Option<f64>| matches!((x, gold), (Some(x), Some(gold)) if close(x, gold));
        self.golds.iter().any(|gold| text == gold.plain || close(number, gold.number) || close(quantity, gold.quantity))
    }
}

fn close(number: f64, gold: f64) -> bool {
    if gold == 0.0 { number == 0.0 } else { (number - gold).abs() / gold.abs() <= TOLERANCE }
}

/// A text that is one number, or one number and percent signs.
fn number(text: &str) -> Option<f64> {
    let text = ascii_digits(text.trim());
    match text.strip_suffix('%') {
        Some(rest) => decimal(rest.trim_end_matches('%').trim()).map(|x| x / 100.0),
        None => decimal(&text),
    }
}

/// A gold answer that is one number, whatever its unit: `$1,234`, `12.5%`, `3 million` (as 3).
fn quantity(text: &str) -> Option<f64> {
    let mut found = numbers(text, true);
    match (found.next(), found.next()) {
        // Text that merely holds a number (`Q3 of 2019`) is text.
        (Some(number), None) if !text[..number.start].contains(char::is_alphanumeric) => number.value,
        _ => None,
    }
}

impl AnswerScorer for Relaxed {
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
        let strict = self.strict(answer);
        AnswerScore::read(share(strict), share(strict || self.lenient(answer)))
    }
}
