//! Unknown keys of a configuration: found with their place, answered with the key that was meant.

use crate::train::known_names;
use crate::{Error, Result};
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

/// Check every key of `written`, the part `section` of the file `name` with the content `text`, against `known`.
///
/// # Errors
/// An input error with file and line: an unknown key, or a value where a section belongs and the other way round.
pub fn check_keys(written: &DeTable<'_>, known: &Table, section: &str, name: &str, text: &str) -> Result<()> {
    for (key, value) in written {
        let path = join(section, key.get_ref());
        let place = format!("{name}:{}", line_of(text, key));
        match (known.get(key.get_ref().as_ref()), value.get_ref()) {
            (None, _) => return Err(unknown(&place, &path, known, section)),
            (Some(Value::Table(inner)), DeValue::Table(written)) => check_keys(written, inner, &path, name, text)?,
            (Some(Value::Table(_)), _) => {
                return Err(Error::input(format!("{place}: {path} is a section: write [{path}]")));
            }
            (Some(_), DeValue::Table(_)) => {
                return Err(Error::input(format!("{place}: {path} is a value, not a section")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The error for a key that does not exist, with what to write: the key of another section or that does the same as this name of another program, else
/// the nearest of the same section.
pub fn unknown(place: &str, path: &str, level: &Table, section: &str) -> Error {
    let last = path.rsplit('.').next().unwrap_or(path);
    let nearest = || {
        let here = level.keys().map(|k| (strsim::jaro_winkler(last, k), join(section, k)));
        let nearest = here.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(similarity, _)| *similarity > 0.75);
        nearest.map(|(_, key)| format!("did you mean {key}?"))
    };
    let hint = known_names::hint(path).or_else(nearest).unwrap_or_else(|| {
        let keys: Vec<&str> = level.keys().map(String::as_str).collect();
        let whose = if section.is_empty() { "the sections are" } else { "the keys here are" };
        format!("{whose} {}", keys.join(", "))
    });
    Error::input(format!("{place}: unknown key {path}; {hint}"))
}

/// The path of a key of a section.
pub fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_string() } else { format!("{section}.{key}") }
}

fn line_of<T>(text: &str, spanned: &Spanned<T>) -> usize {
    text.as_bytes().iter().take(spanned.span().start).filter(|&&b| b == b'\n').count() + 1
}
