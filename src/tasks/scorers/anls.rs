//! `anls`: average normalised Levenshtein similarity, of DocVQA (arXiv 2007.00398) and InfographicVQA (arXiv 2104.12756).
//!
//! With both texts in lower case and their white space collapsed, `d` = Levenshtein distance / characters of the longer. The
//! score is `1 - d` for the nearest gold answer, and 0 if that is below 0.5. Exactly 0.5 counts, as in the benchmark's
//! own evaluation and the harnesses (the paper's formula would have it 0).

use super::answer_score::{AnswerScore, AnswerScorer, EMPTY};
use super::gold::golds;
use super::text::{bare, plain};
use crate::Result;
use crate::data::Record;

/// Name of the scorer.
pub const NAME: &str = "anls";
/// Version of the scorer.
pub const VERSION: u32 = 1;

/// The least similarity that counts (inclusive).
const THRESHOLD: f64 = 0.5;

/// The gold answers to one question.
#[derive(Debug, Clone)]
pub struct Anls {
    golds: Vec<Text>,
}

#[derive(Debug, Clone)]
struct Text {
    text: String,
    chars: usize,
}

impl Text {
    fn new(text: &str) -> Self {
        let text = plain(text);
        Text { chars: text.chars().count(), text }
    }

    fn similarity(&self, other: &Text) -> f64 {
        let (shorter, longer) = (self.chars.min(other.chars), self.chars.max(other.chars));
        if 2 * shorter < longer {
            return 0.0; // at least `longer - shorter` edits: below the threshold whatever the letters
        }
        let similarity = 1.0 - strsim::levenshtein(&self.text, &other.text) as f64 / longer as f64;
        if similarity < THRESHOLD { 0.0 } else { similarity }
    }
}

impl Anls {
    /// A scorer for these gold answers, none of them blank.
    pub fn new(golds: &[String]) -> Self {
        Anls { golds: golds.iter().map(|gold| Text::new(gold)).collect() }
    }

    /// From a record's `meta.answers`, else its `answer`.
    pub fn from_record(record: &Record) -> Result<Self> {
        Ok(Anls::new(&golds(record)?))
    }

    fn best(&self, answer: &str) -> f64 {
        let answer = Text::new(answer);
        if answer.chars == 0 { 0.0 } else { self.golds.iter().map(|g| g.similarity(&answer)).fold(0.0, f64::max) }
    }
}

impl AnswerScorer for Anls {
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
        AnswerScore::read(self.best(answer), self.best(bare(answer)))
    }
}
