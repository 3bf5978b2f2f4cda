//! Reading a JSON object field by field, so that every error says which field is wrong and how.

use crate::io::files;
use crate::io::plain::json_fault;
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::Path;

/// Most layers, and largest width, that a configuration can sensibly ask for.
pub(crate) const MAX_LAYERS: usize = 10_000;
pub(crate) const MAX_WIDTH: usize = 1 << 24;

/// Read and parse a JSON file that another program may have begun with a byte order mark; a parse error names file, line and column.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = files::read_text(path)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    serde_json::from_str(text).map_err(|e| Error::input(format!("{}: {}", path.display(), json_fault(&e))))
}

/// A JSON object and the path at which it stands in its file.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    /// The top-level object of a file.
    pub(crate) fn root(value: &Value) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Fields { path: String::new(), map: map.clone() }),
            other => Err(Error::input(format!("must be a JSON object, not {}", kind(other)))),
        }
    }

    /// An object without any field.
    pub(crate) fn empty(path: &str) -> Self {
        Fields { path: path.to_string(), map: Map::new() }
    }

    /// An input error about `key`.
    pub(crate) fn error(&self, key: &str, what: impl std::fmt::Display) -> Error {
        Error::input(format!("{}: {what}", self.name(key)))
    }

    /// The key is written, even if as `null`.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The keys, in the order of the file.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    /// A nested object; `null` counts as absent.
    pub(crate) fn section(&self, key: &str) -> Result<Option<Fields>> {
        self.read(key, "an object", |v| v.as_object().map(|map| Fields { path: self.name(key), map: map.clone() }))
    }

    /// A string.
    pub(crate) fn string(&self, key: &str) -> Result<Option<String>> {
        self.read(key, "a string", |v| v.as_str().map(String::from))
    }

    /// A list of strings.
    pub(crate) fn strings(&self, key: &str) -> Result<Option<Vec<String>>> {
        self.read(key, "a list of strings", |v| v.as_array()?.iter().map(|s| s.as_str().map(String::from)).collect())
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self, key: &str) -> Result<Option<bool>> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// A whole number >= 0.
    pub(crate) fn count(&self, key: &str) -> Result<Option<usize>> {
        self.read(key, "a whole number", whole)
    }

    /// A whole number > 0.
    pub(crate) fn positive(&self, key: &str) -> Result<Option<usize>> {
        self.read(key, "a whole number above 0", |v| whole(v).filter(|&n| n > 0))
    }

    /// A whole number > 0 that is at most `most`: a size that memory could hold.
    pub(crate) fn size(&self, key: &str, most: usize) -> Result<Option<usize>> {
        self.within(key, self.positive(key)?, most)
    }

    /// As [`Fields::square`], at most `most`.
    pub(crate) fn small_square(&self, key: &str, most: usize) -> Result<Option<usize>> {
        self.within(key, self.square(key)?, most)
    }

    fn within(&self, key: &str, value: Option<usize>, most: usize) -> Result<Option<usize>> {
        match value.filter(|&n| n > most) {
            Some(n) => Err(self.error(key, format!("{n} is too large; at most {most} is possible"))),
            None => Ok(value),
        }
    }

    /// A finite number > 0.
    pub(crate) fn positive_number(&self, key: &str) -> Result<Option<f64>> {
        self.read(key, "a number above 0", |v| v.as_f64().filter(|x| x.is_finite() && *x > 0.0))
    }

    /// A number from 0 on and below 1.
    pub(crate) fn fraction(&self, key: &str) -> Result<Option<f64>> {
        self.read(key, "a number in [0, 1)", |v| v.as_f64().filter(|x| (0.0..1.0).contains(x)))
    }

    /// A list of whole numbers >= 0.
    pub(crate) fn counts(&self, key: &str) -> Result<Option<Vec<usize>>> {
        self.read(key, "a list of whole numbers", |v| v.as_array()?.iter().map(whole).collect())
    }

    /// A list of finite numbers.
    pub(crate) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.read(key, "a list of numbers", |v| {
            v.as_array()?.iter().map(|x| x.as_f64().filter(|x| x.is_finite())).collect()
        })
    }

    /// A whole number > 0, or a list that repeats it (transformers 5 allows both for patch sizes).
    pub(crate) fn square(&self, key: &str) -> Result<Option<usize>> {
        self.read(key, "a whole number above 0, or a list of equal ones", |v| {
            let single = |v: &Value| whole(v).filter(|&n| n > 0);
            match v.as_array() {
                None => single(v),
                Some(items) => {
                    let first = single(items.first()?)?;
                    items.iter().all(|v| single(v) == Some(first)).then_some(first)
                }
            }
        })
    }

    /// A token id.
    pub(crate) fn id(&self, key: &str) -> Result<Option<u32>> {
        self.read(key, "a token id", token_id)
    }

    /// A token id or a list of them.
    pub(crate) fn ids(&self, key: &str) -> Result<Option<Vec<u32>>> {
        self.read(key, "a token id or a list of token ids", |v| match v.as_array() {
            None => token_id(v).map(|id| vec![id]),
            Some(items) => items.iter().map(token_id).collect(),
        })
    }

    /// Refuse every activation but SiLU, the only one of the architecture.
    pub(crate) fn activation(&self, key: &str) -> Result<()> {
        match self.string(key)?.as_deref() {
            None | Some("silu" | "swish") => Ok(()),
            Some(other) => Err(self.error(key, format!("activation `{other}` is not supported; only `silu` is"))),
        }
    }

    /// The value of `key` as `convert` reads it; absent and `null` are `None`, anything else is an error.
    fn read<T>(&self, key: &str, expected: &str, convert: impl FnOnce(&Value) -> Option<T>) -> Result<Option<T>> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match convert(value) {
                Some(converted) => Ok(Some(converted)),
                None => Err(self.error(key, format!("must be {expected}, not `{}`", shortened(value)))),
            },
        }
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) }
    }
}

fn whole(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok())
}

fn token_id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|n| u32::try_from(n).ok())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
