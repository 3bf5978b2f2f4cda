//! `anls`: average normalised Levenshtein similarity, of DocVQA (arXiv 2007.00398) and InfographicVQA (arXiv 2104.12756).
//!
//! With both texts in lower case and their white space collapsed, `d` = Levenshtein distance / characters of the longer. The
//! similarity is `1 - d` for the nearest gold answer, and 0 if that is below 0.5. Exactly 0.5 counts, as in the benchmark's
//! own evaluation and the harnesses (the paper's formula would have it 0).
//!
//! VLMEvalKit and lmms-eval publish a score that divides by the characters of the longer text as it came, white space and all: that is
//! the score here too. Stray spaces raise it, so `partial_credit`, which a reward is made of, divides by the collapsed text.

use super::answer_score::{AnswerScore, AnswerScorer, EMPTY};
use super::gold::golds;
use super::text::{bare, plain};
use crate::Result;
use crate::data::Record;

/// Name of the scorer.
pub const NAME: &str = "anls";
/// Version of the scorer.
pub const VERSION: u32 = 2;

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
    /// Characters before white space was collapsed, counted in upper case as the harnesses do (`ß` is two).
    raw_chars: usize,
}

/// How near an answer comes to a gold answer, in [0, 1].
#[derive(Debug, Clone, Copy, Default)]
struct Similarity {
    published: f64,
    collapsed: f64,
}

impl Text {
    fn new(raw: &str) -> Self {
        let text = plain(raw);
        Text { chars: text.chars().count(), raw_chars: raw.chars().flat_map(char::to_uppercase).count(), text }
    }

    fn similarity(&self, other: &Text) -> Similarity {
        let (shorter, longer) = (self.chars.min(other.chars), self.chars.max(other.chars));
        let raw = self.raw_chars.max(other.raw_chars).max(longer);
        if 2 * (longer - shorter) > raw {
            return Similarity::default(); // at least `longer - shorter` edits: below the threshold whatever the letters
        }
        let edits = strsim::levenshtein(&self.text, &other.text) as f64;
        let counted = |similarity: f64| if similarity < THRESHOLD { 0.0 } else { similarity };
        let of = |length: usize| counted(1.0 - edits / length as f64);
        Similarity { published: of(raw), collapsed: of(longer) }
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

    fn best(&self, answer: &str) -> Similarity {
        let answer = Text::new(answer);
        if answer.chars == 0 {
            return Similarity::default();
        }
        let nearest = |best: Similarity, one: Similarity| Similarity {
            published: best.published.max(one.published),
            collapsed: best.collapsed.max(one.collapsed),
        };
        self.golds.iter().map(|gold| gold.similarity(&answer)).fold(Similarity::default(), nearest)
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
        let best = self.best(answer);
        let read = AnswerScore::read(best.published, self.best(bare(answer)).published);
        AnswerScore { partial_credit: best.collapsed, ..read }
    }
}
