//! The scorers of the prior-knowledge benchmarks, one file each: pure, deterministic, in time linear in the response.
//!
//! Every scorer reads a response twice. The first reading is the benchmark's published rule; its `value` is the score. The
//! lenient reading forgives form (words around the answer, brackets, units) and shows how much of a loss is form. Where the rule reads
//! more than one form, a score also says whether the answer had the exact one. No reading guesses: an answer that cannot be read is
//! wrong, and counted as unparsed. `docs/scorers.md` describes each scorer and where it differs from other harnesses.

mod aggregate;
mod anls;
mod answer_score;
mod choice;
mod containment;
mod exact;
mod extract_answer;
mod forms;
mod gold;
mod iou;
mod letters;
mod list;
mod maths;
mod negation;
mod relaxed;
mod response_scorer;
mod text;
mod vqa;
mod yes_no;

pub use aggregate::{Aggregate, Number, Scored};
pub use anls::Anls;
pub use answer_score::{AnswerScore, AnswerScorer};
pub use choice::Choice;
pub use containment::Containment;
pub use exact::Exact;
pub use iou::{CoordinateSpace, Iou, NAME as BOX};
pub use list::List;
pub use maths::Maths;
pub use relaxed::Relaxed;
pub use response_scorer::ResponseScorer;
pub use vqa::Vqa;
pub use yes_no::YesNo;

use crate::data::Record;
use crate::{Error, Result};

/// Names of the answer scorers, as a record's `task` gives them.
pub const NAMES: [&str; 10] =
    ["iou", "anls", "containment", "vqa", "relaxed", "yes-no", "choice", "exact", "list", "maths"];

/// What the partial credit of the scorer of this name counts, in words; `None` where an answer is right or wrong and nothing between.
pub fn partial_credit_label(scorer: &str) -> Option<&'static str> {
    match scorer {
        iou::NAME => Some("overlap (IoU)"),
        anls::NAME => Some("similarity (ANLS)"),
        vqa::NAME => Some("VQA accuracy"),
        list::NAME => Some("parts in place"),
        _ => None,
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
        maths::NAME => Box::new(Maths::from_record(record)?),
        other => {
            return Err(Error::input(format!(
                "field `task`: no scorer is named `{other}`; known: {}",
                NAMES.join(", ")
            )));
        }
    })
}

#[cfg(test)]
mod tests;
