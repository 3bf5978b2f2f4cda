//! The scorers that a record's `task` can name. A new task adds its lines here; a new scorer of short answers goes into [`super::scorers`].

use super::scorer::Scorer;
use super::scorers::{self, ResponseScorer};
use super::{countdown, jigsaw};
use crate::data::{Record, RecordStream};
use crate::io::files;
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// The scorer that a record's `task` names, made from the record.
///
/// # Errors
/// An input error that names the field that is wrong.
pub fn scorer(record: &Record) -> Result<Box<dyn Scorer>> {
    type Make = fn(&Record) -> Result<Box<dyn Scorer>>;
    const OF_TASKS: [(&str, Make); 3] = [
        (jigsaw::ORDER, |record| Ok(Box::new(jigsaw::JigsawScorer::from_record(record)?))),
        (jigsaw::PAIR, |record| Ok(Box::new(jigsaw::PairScorer::from_record(record)?))),
        (countdown::NAME, |record| Ok(Box::new(countdown::CountdownScorer::from_record(record)?))),
    ];
    let wanted = record.task.as_str();
    if let Some((_, make)) = OF_TASKS.iter().find(|(name, _)| *name == wanted) {
        return make(record);
    }
    if scorers::NAMES.contains(&wanted) {
        return Ok(Box::new(ResponseScorer::from_record(record)?));
    }
    let known: Vec<&str> = OF_TASKS.iter().map(|(name, _)| *name).chain(scorers::NAMES.iter().copied()).collect();
    Err(Error::input(format!("field `task`: no scorer is named `{wanted}`; known: {}", known.join(", "))))
}

/// The records that a `stream.json` describes, made by the task that it names.
///
/// # Errors
/// An input error for a description that cannot be read, or sources that have changed.
pub fn open_stream(path: &Path) -> Result<Box<dyn RecordStream>> {
    let task: serde_json::Value = files::read_json(path)?;
    match task["task"].as_str() {
        Some(jigsaw::ORDER) => Ok(Box::new(jigsaw::generate::PuzzleStream::open(path)?)),
        other => Err(Error::input(format!(
            "{}: field `task`: no task {} makes records as they are needed; known: {}",
            path.display(),
            other.unwrap_or("without a name"),
            jigsaw::ORDER
        ))),
    }
}

/// What partial credit counts where nothing more can be said in a few words.
pub const PARTIAL_CREDIT: &str = "partial credit";

/// What partial credit counts in a task with these scorers, in words: those of its scorer, or [`PARTIAL_CREDIT`] where its scorers count
/// different things. `None` if no scorer gives partial credit: an answer is right or wrong, and there is nothing to show between.
pub fn partial_credit_label<'a>(scorers: impl IntoIterator<Item = &'a String>) -> Option<&'static str> {
    let labels: BTreeSet<Option<&str>> = scorers.into_iter().map(|name| label_of(name)).collect();
    match labels.len() {
        0 | 1 => labels.into_iter().next().flatten(),
        _ => Some(PARTIAL_CREDIT),
    }
}

/// What one scorer's partial credit counts.
fn label_of(scorer: &str) -> Option<&'static str> {
    match scorer {
        jigsaw::ORDER => Some(jigsaw::PARTIAL_CREDIT),
        countdown::NAME => Some(PARTIAL_CREDIT),
        name => scorers::partial_credit_label(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_credit_has_the_words_of_its_scorer_and_none_where_an_answer_is_right_or_wrong() {
        let label = |names: &[&str]| partial_credit_label(&names.iter().map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(label(&["jigsaw"]), Some("tiles in place"));
        assert_eq!(label(&["iou"]), Some("overlap (IoU)"));
        for none in ["exact", "choice", "yes-no", "containment", "relaxed", "jigsaw-pair", "a scorer of tomorrow"] {
            assert_eq!(label(&[none]), None, "{none}");
        }
        assert_eq!((label(&[]), label(&["exact", "choice"])), (None, None));
        assert_eq!(label(&["jigsaw", "countdown"]), Some("partial credit"));
        assert_eq!(label(&["jigsaw", "exact"]), Some("partial credit"));
    }
}
