//! Layers of settings: defaults, a TOML file, `--set` arguments. Keys are checked by [`check_keys`].

use super::check_keys::{check_keys, join, unknown};
use crate::io::plain::{fault, toml_fault};
use crate::io::toml::{flatten, parse_value, put, to_table};
use crate::train::known_names::value_hint;
use crate::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use toml::de::DeTable;
use toml::{Table, Value};

/// Settings of which a plan has only one: a layer that chooses one drops what the layer below chose instead.
const ALTERNATIVES: [[&str; 2]; 1] = [["steps", "epochs"]];

/// What was written by the user, file first and `--set` over it, with every key known to `every_key`.
///
/// `text` is the name of the file (for messages) and its content.
pub fn read<T: Serialize>(text: Option<(&str, &str)>, sets: &[String], every_key: &T) -> Result<Table> {
    let known = to_table(every_key)?;
    let mut written = Table::new();
    if let Some((name, text)) = text {
        let parsed = DeTable::parse(text).map_err(|e| Error::input(format!("{name}: {}", toml_fault(&e))))?;
        check_keys(parsed.get_ref(), &known, "", name, text)?;
        written = toml::from_str(text).map_err(|e| Error::input(format!("{name}: {}", toml_fault(&e))))?;
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
            let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
            let advice = match value_hint(&key, &value.to_string()) {
                _ if value.as_str().is_some_and(digits) => "; this number is too large".into(),
                advice => advice.map(|advice| format!("; {advice}")).unwrap_or_default(),
            };
            return Err(Error::input(format!("{key} = {value}: {}{advice}", fault(e.message()))));
        }
    }
    all.try_into::<T>().map_err(|e| Error::input(format!("configuration: {}", fault(e.message()))))
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
