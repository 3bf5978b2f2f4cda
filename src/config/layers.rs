//! Layers of settings: defaults, a TOML file, `--set` arguments. Unknown keys are found here, with their place.

use crate::io::toml::{flatten, parse_value, put, to_table};
use crate::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

/// Settings of which a plan has only one: a layer that chooses one drops what the layer below chose instead.
const ALTERNATIVES: [[&str; 2]; 1] = [["steps", "epochs"]];

/// What was written by the user, file first and `--set` over it, with every key known to `every_key`.
///
/// `text` is the name of the file (for messages) and its content.
pub fn read<T: Serialize>(text: Option<(&str, &str)>, sets: &[String], every_key: &T) -> Result<Table> {
    let known = to_table(every_key)?;
    let mut written = Table::new();
    if let Some((name, text)) = text {
        let parsed = DeTable::parse(text).map_err(|e| Error::input(format!("{name}: {}", e.to_string().trim_end())))?;
        check_keys(parsed.get_ref(), &known, "", name, text)?;
        written = toml::from_str(text).map_err(|e| Error::input(format!("{name}: {}", e.to_string().trim_end())))?;
    }
    let mut over = Table::new();
    for set in sets {
        apply_set(&mut over, set, &known)?;
    }
    merge(&mut written, &over);
    Ok(written)
}

/// `written` over `defaults`, as the plan's own type.
pub fn apply<T: Serialize + DeserializeOwned>(defaults: &T, written: &Table) -> Result<T> {
    let mut all = to_table(defaults)?;
    merge(&mut all, written);
    // One key at a time, so that a value of the wrong type is reported with its key.
    let base = to_table(defaults)?;
    for (key, value) in flatten(written) {
        let mut one = base.clone();
        put(&mut one, &key, value.clone());
        if let Err(e) = one.try_into::<T>() {
            return Err(Error::input(format!("{key} = {value}: {}", first_line(e.message()))));
        }
    }
    all.try_into::<T>().map_err(|e| Error::input(format!("configuration: {}", first_line(e.message()))))
}

/// The keys of `over` written into `base`, section by section, without the alternatives they replace.
fn merge(base: &mut Table, over: &Table) {
    for pair in ALTERNATIVES {
        if pair.iter().any(|key| over.contains_key(*key)) {
            pair.iter().for_each(|key| drop(base.remove(*key)));
        }
    }
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Value::Table(inner)), Value::Table(over)) => merge(inner, over),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

fn check_keys(written: &DeTable<'_>, known: &Table, section: &str, name: &str, text: &str) -> Result<()> {
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

fn apply_set(written: &mut Table, set: &str, known: &Table) -> Result<()> {
    let place = format!("--set {set}");
    let Some((key, value)) = set.split_once('=') else {
        return Err(Error::input(format!("{place}: write --set section.key=value")));
    };
    let key = key.trim();
    let mut level = known;
    let mut section = String::new();
    let parts: Vec<&str> = key.split('.').collect();
    for (i, part) in parts.iter().enumerate() {
        match level.get(*part) {
            Some(Value::Table(inner)) if i + 1 < parts.len() => {
                level = inner;
                section = join(&section, part);
            }
            Some(Value::Table(_)) => {
                return Err(Error::input(format!("{place}: {key} is a section; name one key of it: {key}.key=value")));
            }
            Some(_) if i + 1 == parts.len() => {}
            _ => return Err(unknown(&place, key, level, &section)),
        }
    }
    put(written, key, parse_value(value.trim()));
    Ok(())
}

/// The error for a key that does not exist: the nearest one that does, first in the same section, then anywhere.
fn unknown(place: &str, path: &str, level: &Table, section: &str) -> Error {
    let last = path.rsplit('.').next().unwrap_or(path);
    let here = level.keys().map(|k| (strsim::jaro_winkler(last, k), join(section, k)));
    let nearest = here.max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match nearest {
        Some((similarity, key)) if similarity > 0.75 => format!("did you mean {key}?"),
        _ => {
            let keys: Vec<&str> = level.keys().map(String::as_str).collect();
            let whose = if section.is_empty() { "the sections are" } else { "the keys here are" };
            format!("{whose} {}", keys.join(", "))
        }
    };
    Error::input(format!("{place}: unknown key {path}; {hint}"))
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_string() } else { format!("{section}.{key}") }
}

fn line_of<T>(text: &str, spanned: &Spanned<T>) -> usize {
    text.as_bytes().iter().take(spanned.span().start).filter(|&&b| b == b'\n').count() + 1
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or(message)
}
