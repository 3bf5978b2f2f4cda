//! Fields of a record's `meta`.

use crate::data::Record;
use crate::io::plain::json_fault;
use crate::{Error, Result};

/// A field of the record's `meta`, or an input error that names it.
pub fn meta<T: serde::de::DeserializeOwned>(record: &Record, field: &str) -> Result<T> {
    let value = record.meta.get(field).ok_or_else(|| Error::input(format!("field `meta.{field}` is missing")))?;
    serde_json::from_value(value.clone()).map_err(|e| Error::input(format!("field `meta.{field}`: {}", json_fault(&e))))
}
