//! Reading the sections of a study's file, with errors that name file, line, section and key.

use crate::io::plain::fault;
use crate::train::known_names;
use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// `FILE:LINE: [section]`, the line if the section is written in the file.
pub(super) fn place(name: &str, text: &str, section: &str) -> String {
    let header = format!("[{section}]");
    match text.lines().position(|line| line.trim_start().starts_with(&header)) {
        Some(line) => format!("{name}:{}: {header}", line + 1),
        None => format!("{name}: {header}"),
    }
}

/// A section, if the file has it.
pub(super) fn section<T: DeserializeOwned>(
    table: &Table,
    name: &str,
    place: &impl Fn(&str) -> String,
) -> Result<Option<T>> {
    table.get(name).map(|value| read(value, &place(name))).transpose()
}

/// A section some of whose keys the study sets itself.
pub(super) fn own_section<T: DeserializeOwned>(
    table: &Table,
    name: &str,
    set: &[&str],
    place: &impl Fn(&str) -> String,
) -> Result<Option<T>> {
    let read = |value: &Value| {
        refuse_keys(value, set, &place(name))?;
        read(value, &place(name))
    };
    table.get(name).map(read).transpose()
}

/// The sections `[name.NAME]`, in the order written.
pub(super) fn sections<T>(
    table: &Table,
    name: &str,
    place: &impl Fn(&str) -> String,
    read: impl Fn(&Value, &str) -> Result<T>,
) -> Result<Vec<(String, T)>> {
    let Some(value) = table.get(name) else { return Ok(Vec::new()) };
    let Value::Table(all) = value else {
        return Err(Error::input(format!("{}: write [{name}.NAME] for each", place(name))));
    };
    all.iter().map(|(key, value)| Ok((key.clone(), read(value, &place(&format!("{name}.{key}")))?))).collect()
}

/// Refuse the keys that the study sets itself.
pub(super) fn refuse_keys(value: &Value, set: &[&str], place: &str) -> Result<()> {
    match value.as_table().and_then(|table| table.keys().find(|key| set.contains(&key.as_str()))) {
        Some(key) => Err(Error::input(format!("{place}: {key}: the study sets this itself; remove it"))),
        None => Ok(()),
    }
}

/// A key of a section that is none of the command's flags, taken out of it.
pub(super) fn take<T: DeserializeOwned>(value: &mut Value, key: &str, place: &str) -> Result<Option<T>> {
    let Some(table) = value.as_table_mut() else { return Ok(None) };
    let Some(taken) = table.remove(key) else { return Ok(None) };
    let shown = taken.to_string();
    taken.try_into().map(Some).map_err(|e| Error::input(format!("{place}: {key} = {shown}: {}", fault(e.message()))))
}

/// The section's keys over the defaults.
pub(super) fn over<T: Serialize + DeserializeOwned>(defaults: &T, value: &Value, place: &str) -> Result<T> {
    let mut all =
        Table::try_from(defaults).map_err(|e| Error::failed(format!("cannot write settings as TOML: {e}")))?;
    let Some(table) = value.as_table() else { return read(value, place) };
    all.extend(table.clone());
    read(&Value::Table(all), place)
}

/// A section as its type, with an error that names the key that is wrong.
pub(super) fn read<T: DeserializeOwned>(value: &Value, place: &str) -> Result<T> {
    let read = |value: &Value| -> std::result::Result<T, String> {
        let why = |e: toml::de::Error| e.message().lines().next().unwrap_or_default().to_string();
        value.clone().try_into().map_err(why)
    };
    read(value).map_err(|why| {
        if let Some(unknown) = unknown_key(&why) {
            return Error::input(format!("{place}: {unknown}"));
        }
        // The key without which another thing is wrong, or nothing, is the one that it is about.
        let without = |key: &String| {
            let mut rest = value.as_table().cloned().unwrap_or_default();
            rest.remove(key);
            read(&Value::Table(rest)).err() != Some(why.clone())
        };
        let key = value.as_table().and_then(|table| table.iter().find(|(key, _)| without(key)));
        match key.filter(|(key, _)| !why.contains(&format!("`{key}`"))) {
            Some((key, value)) => Error::input(format!("{place}: {key} = {value}: {}", fault(&why))),
            None => Error::input(format!("{place}: {}", fault(&why))),
        }
    })
}

/// Serde's "unknown field" with the one of those that it expects that was meant.
fn unknown_key(why: &str) -> Option<String> {
    let mut names = why.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let key = names.next()?;
    Some(unknown_among(key, &names.collect::<Vec<_>>()))
}

/// What to say of a key that is none of those that are known.
pub(super) fn unknown_among(key: &str, known: &[&str]) -> String {
    let elsewhere = known_names::keys(key).into_iter().filter_map(|known| known.rsplit('.').next());
    let similar = |name: &&&str| strsim::jaro_winkler(key, name);
    let nearest = known.iter().max_by(|a, b| similar(a).total_cmp(&similar(b))).filter(|name| similar(name) > 0.75);
    match elsewhere.into_iter().find(|name| known.contains(name)).or(nearest.copied()) {
        Some(meant) => format!("unknown key {key}; did you mean {meant}?"),
        None => format!("unknown key {key}; the keys of this section are {}", known.join(", ")),
    }
}
