//! Layers of settings: defaults, a TOML file, `--set` arguments. Unknown keys are found here, with their place.

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
    let known = table(every_key)?;
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
    let mut all = table(defaults)?;
    merge(&mut all, written);
    // One key at a time, so that a value of the wrong type is reported with its key.
    let base = table(defaults)?;
    for (key, value) in flatten(written) {
        let mut one = base.clone();
        put(&mut one, &key, value.clone());
        if let Err(e) = one.try_into::<T>() {
            return Err(Error::input(format!("{key} = {value}: {}", first_line(e.message()))));
        }
    }
    all.try_into::<T>().map_err(|e| Error::input(format!("configuration: {}", first_line(e.message()))))
}

/// A value as TOML text.
pub fn to_toml<T: Serialize>(value: &T) -> Result<String> {
    toml::to_string(value).map_err(|e| Error::failed(format!("cannot write the configuration as TOML: {e}")))
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

/// The keys whose values differ between two tables, as `key: a -> b`.
pub fn differences(before: &Table, after: &Table) -> Vec<String> {
    let (before, after) = (flatten(before), flatten(after));
    let find = |list: &[(String, Value)], key: &str| list.iter().find(|(k, _)| k == key).map(|(_, v)| v.to_string());
    let mut keys: Vec<&String> = before.iter().chain(&after).map(|(k, _)| k).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .filter_map(|key| {
            let (a, b) = (find(&before, key), find(&after, key));
            let text = |v: Option<String>| v.unwrap_or_else(|| "(not set)".into());
            (a != b).then(|| format!("{key}: {} -> {}", text(a), text(b)))
        })
        .collect()
}

fn table<T: Serialize>(value: &T) -> Result<Table> {
    Table::try_from(value).map_err(|e| Error::failed(format!("cannot represent the configuration as TOML: {e}")))
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

/// A TOML value, or the text itself where it is none (so that `--set train.method=sft` needs no quotes).
fn parse_value(text: &str) -> Value {
    let mut parsed = format!("v = {text}").parse::<Table>().ok();
    match parsed.as_mut().filter(|t| t.len() == 1).and_then(|t| t.remove("v")) {
        Some(value) => value,
        None => Value::String(text.to_string()),
    }
}

fn put(table: &mut Table, key: &str, value: Value) {
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
