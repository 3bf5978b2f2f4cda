//! The gold answers of a record.

use crate::data::Record;
use crate::tasks::meta::meta;
use crate::{Error, Result};

/// The gold answers of a record: `meta.answers` if it is there, else `answer`. None is blank.
pub fn golds(record: &Record) -> Result<Vec<String>> {
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
pub fn gold(record: &Record) -> Result<&str> {
    let gold = record.answer.trim();
    if gold.is_empty() { Err(Error::input("field `answer` is blank")) } else { Ok(gold) }
}
