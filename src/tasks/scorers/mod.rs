//! The scorers of the prior-knowledge benchmarks, one file each: pure, deterministic, in time linear in the response.
//!
//! Every scorer reads a response twice. The strict reading is the benchmark's published rule and nothing else; its `value`
//! is the score. The lenient reading forgives form (words around the answer, brackets, units) and shows how much of a loss
//! is form. Neither guesses: an answer that cannot be read is wrong, and counted as unparsed. `docs/scorers.md` describes each scorer
//! and where it differs from other harnesses.

mod aggregate;
mod anls;
mod choice;
mod containment;
mod exact;
mod iou;
mod list;
mod reading;
mod relaxed;
mod text;
mod vqa;
mod yes_no;

pub use aggregate::{Aggregate, Number, Scored};
pub use anls::Anls;
pub use choice::Choice;
pub use containment::Containment;
pub use exact::Exact;
pub use iou::{Iou, Space};
pub use list::List;
pub use relaxed::Relaxed;
pub use vqa::Vqa;
pub use yes_no::{YesNo, lenient_prediction, prediction};

use super::chance::Chance;
use super::meta;
use super::response::Style;
use super::score::Score;
use super::scorer::Scorer;
use crate::data::Record;
use crate::{Error, Result};
use reading::Reading;

/// Names of the answer scorers, as a record's `task` gives them.
pub const NAMES: [&str; 9] = ["iou", "anls", "containment", "vqa", "relaxed", "yes-no", "choice", "exact", "list"];

/// What an answer scorer makes of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerScore {
    /// What the strict reading earns, in [0, 1]; 0 unless `parsed`.
    pub value: f64,
    /// The graded share behind `value` where a scorer has a threshold (`iou`: the IoU itself), else `value`; in [0, 1], 0
    /// unless `parsed`.
    pub partial_credit: f64,
    /// What the lenient reading earns, in [0, 1], never less than `value`.
    pub lenient: f64,
    /// The strict reading earns everything.
    pub correct: bool,
    /// The strict reading found an answer.
    pub parsed: bool,
    /// Why it did not, in a few fixed words; else empty.
    pub fault: String,
}

impl AnswerScore {
    /// An answer that the strict reading could read.
    fn read(value: f64, lenient: f64) -> Self {
        AnswerScore {
            value,
            partial_credit: value,
            lenient: lenient.max(value),
            correct: value >= 1.0,
            parsed: true,
            fault: String::new(),
        }
    }

    /// An answer that it could not.
    fn unread(fault: impl Into<String>, lenient: f64) -> Self {
        AnswerScore { value: 0.0, partial_credit: 0.0, lenient, correct: false, parsed: false, fault: fault.into() }
    }
}

/// How the answer to one question is compared with its gold answer.
pub trait AnswerScorer: Send + Sync {
    /// Name, one of [`NAMES`].
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

/// The answer scorer that a record's `task` names; an input error names the field that is wrong.
pub fn answer_scorer(record: &Record) -> Result<Box<dyn AnswerScorer>> {
    Ok(match record.task.as_str() {
        iou::NAME => Box::new(Iou::from_record(record)?),
        anls::NAME => Box::new(Anls::from_record(record)?),
        containment::NAME => Box::new(Containment::from_record(record)?),
        vqa::NAME => Box::new(Vqa::from_record(record)?),
        relaxed::NAME => Box::new(Relaxed::from_record(record)?),
        yes_no::NAME => Box::new(YesNo::from_record(record)?),
        choice::NAME => Box::new(Choice::from_record(record)?),
        exact::NAME => Box::new(Exact::from_record(record)?),
        list::NAME => Box::new(List::from_record(record)?),
        other => {
            return Err(Error::input(format!(
                "field `task`: no scorer is named `{other}`; known: {}",
                NAMES.join(", ")
            )));
        }
    })
}

/// An answer scorer, and the form of response that the prompt asked for.
pub struct ResponseScorer {
    scorer: Box<dyn AnswerScorer>,
    style: Option<Style>,
}

impl ResponseScorer {
    /// A scorer of whole responses. `style` is what the prompt asked for; `None` if it did not ask for answer tags.
    pub fn new(scorer: Box<dyn AnswerScorer>, style: Option<Style>) -> Self {
        ResponseScorer { scorer, style }
    }

    /// From a record's `task`, `answer` and `meta`; `meta.style` is optional.
    pub fn from_record(record: &Record) -> Result<Self> {
        Ok(ResponseScorer::new(answer_scorer(record)?, style(&record.meta)?))
    }
}

/// The style that `meta.style` names, if any.
fn style(meta: &serde_json::Map<String, serde_json::Value>) -> Result<Option<Style>> {
    let Some(value) = meta.get("style") else { return Ok(None) };
    serde_json::from_value(value.clone()).map_err(|e| Error::input(format!("field `meta.style`: {e}")))
}

impl Scorer for ResponseScorer {
    fn score(&self, response: &str) -> Score {
        let reading = Reading::of(response, self.style);
        let strict = match &reading.strict {
            Ok(answer) => self.scorer.score_answer(answer),
            Err(fault) => AnswerScore::unread(fault.as_str(), 0.0),
        };
        let lenient = match reading.strict {
            Ok(answer) if answer == reading.lenient => strict.lenient,
            _ => self.scorer.score_answer(reading.lenient).lenient.max(strict.value),
        };
        let well_formed = match self.style {
            Some(_) => reading.form.is_ok(),
            None => reading.form.is_ok() && strict.parsed,
        };
        let fault = if strict.parsed { reading.form.err().unwrap_or_default().to_string() } else { strict.fault };
        Score {
            correct: strict.correct,
            value: strict.value,
            lenient,
            partial_credit: strict.partial_credit,
            raw_partial_credit: strict.partial_credit,
            parsed: strict.parsed,
            well_formed,
            fault,
        }
    }

    fn name(&self) -> &str {
        self.scorer.name()
    }

    fn version(&self) -> u32 {
        self.scorer.version()
    }

    fn chance(&self) -> Option<Chance> {
        self.scorer.chance()
    }
}

/// The gold answers of a record: `meta.answers` if it is there, else `answer`. None is blank.
fn golds(record: &Record) -> Result<Vec<String>> {
    if !record.meta.contains_key("answers") {
        return Ok(vec![gold(record)?.to_string()]);
    }
    let golds: Vec<String> = meta(record, "answers")?;
    if golds.is_empty() || golds.iter().any(|gold| gold.trim().is_empty()) {
        return Err(Error::input("field `meta.answers` is an empty list or has a blank answer"));
    }
    Ok(golds)
}

/// The one gold answer of a record, which is not blank.
fn gold(record: &Record) -> Result<&str> {
    let gold = record.answer.trim();
    if gold.is_empty() { Err(Error::input("field `answer` is blank")) } else { Ok(gold) }
}

/// 1 if it holds, else 0.
fn share(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

/// The fault of an answer with nothing in it.
const EMPTY: &str = "empty answer";

#[cfg(test)]
mod tests;
