//! The scorers that a record's `task` can name. A new task adds its lines here.

use super::scorer::Scorer;
use super::scorers::{self, ResponseScorer};
use super::{countdown, jigsaw};
use crate::data::Record;
use crate::{Error, Result};

/// The scorer that a record's `task` names, made from the record.
///
/// # Errors
/// An input error that names the field that is wrong.
pub fn scorer(record: &Record) -> Result<Box<dyn Scorer>> {
    match record.task.as_str() {
        jigsaw::ORDER => Ok(Box::new(jigsaw::JigsawScorer::from_record(record)?)),
        jigsaw::PAIR => Ok(Box::new(jigsaw::PairScorer::from_record(record)?)),
        countdown::NAME => Ok(Box::new(countdown::CountdownScorer::from_record(record)?)),
        name if scorers::NAMES.contains(&name) => Ok(Box::new(ResponseScorer::from_record(record)?)),
        other => Err(Error::input(format!(
            "field `task`: no scorer is named `{other}`; known: {}, {}, {}, {}",
            jigsaw::ORDER,
            jigsaw::PAIR,
            countdown::NAME,
            scorers::NAMES.join(", ")
        ))),
    }
}

/// What partial credit counts in a task, in words; `None` if it has no words of its own for it.
pub fn partial_credit_label(task: &str) -> Option<&'static str> {
    match task {
        jigsaw::ORDER => Some(jigsaw::PARTIAL_CREDIT),
        _ => None,
    }
}
