//! `containment`: a gold answer occurs in the response, as OCRBench (arXiv 2305.07895) scores.
//!
//! Response and gold answers are trimmed, in lower case, with line feeds as spaces. For formulas (`meta.formula`: OCRBench's
//! handwritten mathematical expressions) case counts and spaces do not.

use super::answer_score::{AnswerScore, AnswerScorer, EMPTY, share};
use super::forms::fold;
use super::gold::golds;
use crate::Result;
use crate::data::Record;
use crate::tasks::meta::meta;

/// Name of the scorer.
pub const NAME: &str = "containment";
/// Version of the scorer.
pub const VERSION: u32 = 2;

/// The gold answers to one question.
#[derive(Debug, Clone)]
pub struct Containment {
    golds: Vec<String>,
    lenient: Vec<String>,
    formula: bool,
}

impl Containment {
    /// A scorer for these gold answers, none of them blank.
    pub fn new(golds: &[String], formula: bool) -> Self {
        Containment {
            golds: golds.iter().map(|gold| strict(gold, formula)).collect(),
            lenient: golds.iter().map(|gold| lenient(gold, formula)).collect(),
            formula,
        }
    }

    /// From a record's `meta.answers`, else its `answer`, and `meta.formula` (false if absent).
    pub fn from_record(record: &Record) -> Result<Self> {
        let formula = record.meta.contains_key("formula") && meta(record, "formula")?;
        Ok(Containment::new(&golds(record)?, formula))
    }
}

fn strict(text: &str, formula: bool) -> String {
    let text = text.trim().replace('\n', " ");
    if formula { text.replace(' ', "") } else { text.to_lowercase() }
}

/// White space and the form of letters and digits do not count, nor case outside formulas.
fn lenient(text: &str, formula: bool) -> String {
    let text: String = fold(text).split_whitespace().collect();
    if formula { text } else { text.to_lowercase() }
}

impl AnswerScorer for Containment {
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
        let among = |golds: &[String], text: String| share(golds.iter().any(|g| !g.is_empty() && text.contains(g)));
        AnswerScore::read(
            among(&self.golds, strict(answer, self.formula)),
            among(&self.lenient, lenient(answer, self.formula)),
        )
    }
}
