//! TOML tables: dotted keys, and values given as `section.key=value`.

use crate::{Error, Result};
use serde::Serialize;
use toml::{Table, Value};

/// A value as TOML text.
pub fn to_toml<T: Serialize>(value: &T) -> Result<String> {
    toml::to_string(value).map_err(|e| Error::failed(format!("cannot write the configuration as TOML: {e}")))
}

/// A value as a TOML table.
pub fn to_table<T: Serialize>(value: &T) -> Result<Table> {
    Table::try_from(value).map_err(|e| Error::failed(format!("cannot represent the configuration as TOML: {e}")))
}

/// All values with their dotted keys, in the table's order.
pub fn flatten(table: &Table) -> Vec<(String, Value)> {
    let mut flat = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                flat.extend(flatten(inner).into_iter().map(|(k, v)| (format!("{key}.{k}"), v)));
            }
            other => flat.push((key.clone(), other.clone())),
        }
    }
    flat
}

/// Write the value of `section.key=value` into `table`, whatever keys it has.
///
/// # Errors
/// An input error for a text without `=`, or a key below something that is no section.
pub fn set(table: &mut Table, set: &str) -> Result<()> {
    let place = format!("--set {set}");
    let Some((key, value)) = set.split_once('=') else {
        return Err(Error::input(format!("{place}: write --set section.key=value")));
    };
    let parts: Vec<&str> = key.trim().split('.').collect();
    let mut level = Some(&*table);
    for (i, part) in parts[..parts.len() - 1].iter().enumerate() {
        level = match level.and_then(|table| table.get(*part)) {
            Some(Value::Table(inner)) => Some(inner),
            Some(_) => {
                return Err(Error::input(format!("{place}: {} is a value, not a section", parts[..=i].join("."))));
            }
            None => None,
        };
    }
    put(table, key.trim(), parse_value(value.trim()));
    Ok(())
}

/// A TOML value, or the text itself where it is none (so that `--set train.method=sft` needs no quotes).
pub(crate) fn parse_value(text: &str) -> Value {
    let mut parsed = format!("v = {text}").parse::<Table>().ok();
    match parsed.as_mut().filter(|t| t.len() == 1).and_then(|t| t.remove("v")) {
        Some(value) => value,
        None => Value::String(text.to_string()),
    }
}

/// A value as TOML text, small numbers with an exponent: `1e-6`.
pub fn literal(value: &Value) -> String {
    match value {
        Value::Float(number) if *number != 0.0 && number.abs() < 1e-3 => format!("{number:e}"),
        other => other.to_string(),
    }
}

/// Write `value` under a dotted key, making the sections on the way.
pub(crate) fn put(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_string(), value);
        }
        Some((section, rest)) => {
            let entry = table.entry(section.to_string()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = entry {
                put(inner, rest, value);
            }
        }
    }
}
