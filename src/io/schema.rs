//! The keys of a settings type with their types, defaults and doc comments, as its derived JSON schema has them.

use super::plain::one_of;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// A key of a settings type, or a section of keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Dotted path, such as `train.batch_size`.
    pub key: String,
    /// What its values are, such as `whole number`; empty for a section.
    pub kind: String,
    /// The doc comment in one line.
    pub meaning: String,
    /// The words that it takes, each with its doc comment; empty if it takes others.
    pub words: Vec<(String, String)>,
    /// The default that the type itself has, if it has one.
    pub default: Option<Value>,
    /// It must be written: the type has no default for it.
    pub required: bool,
    /// TRL's name, from `#[schemars(extend("trl" = "..."))]`; empty if it has none.
    pub trl: String,
}

impl Setting {
    /// Whether it is a section of keys.
    pub fn is_section(&self) -> bool {
        self.kind.is_empty()
    }

    /// The last part of the key.
    pub fn name(&self) -> &str {
        self.key.rsplit('.').next().unwrap_or_default()
    }

    /// What it means, with the words that it takes and TRL's name, in one line.
    pub fn describe(&self) -> String {
        let mut text = self.meaning.clone();
        if !self.words.is_empty() {
            let words: Vec<String> = self.words.iter().map(|(word, _)| format!("`{word}`")).collect();
            text += &format!(" One of {}.", words.join(", "));
        }
        if !self.trl.is_empty() && self.trl != self.name() {
            text += &format!(" TRL: {}.", self.trl);
        }
        text
    }
}

/// All keys of a type, each section before its keys, in the order in which they are declared.
pub fn settings_of<T: JsonSchema>() -> Vec<Setting> {
    let generator = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let schema = generator.into_generator().into_root_schema_for::<T>();
    let mut settings = Vec::new();
    collect(schema.as_value(), "", &mut settings);
    settings
}

fn collect(schema: &Value, path: &str, settings: &mut Vec<Setting>) {
    let required = schema.get("required").and_then(Value::as_array);
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let inner = without_null(field);
        let is_section = inner.get("properties").is_some();
        settings.push(Setting {
            key: key.clone(),
            kind: if is_section { String::new() } else { kind(inner) },
            meaning: text(field, "description").or(text(inner, "description")).map(one_line).unwrap_or_default(),
            words: words(inner),
            default: field.get("default").filter(|default| !default.is_null()).cloned(),
            required: required.is_some_and(|names| names.iter().any(|required| required == name)),
            trl: text(field, "trl").unwrap_or_default().to_string(),
        });
        collect(inner, &key, settings);
    }
}

/// What is not null of a value that may be left out.
fn without_null(schema: &Value) -> &Value {
    let is_null = |choice: &&Value| choice.get("type").and_then(Value::as_str) == Some("null");
    match schema.get("anyOf").and_then(Value::as_array).map(Vec::as_slice) {
        Some([one, other]) if is_null(&other) => one,
        _ => schema,
    }
}

/// The words of an enumeration.
fn words(schema: &Value) -> Vec<(String, String)> {
    let list = |key: &str| schema.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let plain = list("enum").iter().filter_map(|word| Some((word.as_str()?.to_string(), String::new())));
    let explained = list("oneOf").iter().filter_map(|choice| {
        let meaning = text(choice, "description").map(one_line).unwrap_or_default();
        Some((text(choice, "const")?.to_string(), meaning))
    });
    plain.chain(explained).collect()
}

/// The type of a value, in words.
fn kind(schema: &Value) -> String {
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => {
            several.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect()
        }
        _ => Vec::new(),
    };
    let count = |key: &str| schema.get(key).and_then(Value::as_u64);
    match types.as_slice() {
        ["integer"] => "whole number".into(),
        ["number"] => "number".into(),
        ["boolean"] => "true or false".into(),
        ["string"] => "text".into(),
        ["array"] => {
            let items = schema.get("items").map_or_else(|| "value".into(), kind);
            match (count("minItems"), count("maxItems")) {
                (Some(least), Some(most)) if least == most => format!("list of {least}: {items}"),
                _ => format!("list: {items}"),
            }
        }
        _ if !words(schema).is_empty() => "text".into(),
        _ => {
            let choices = schema.get("anyOf").and_then(Value::as_array);
            let kinds: Vec<String> = choices.into_iter().flatten().map(kind).collect();
            one_of(&kinds)
        }
    }
}

fn text<'a>(schema: &'a Value, key: &str) -> Option<&'a str> {
    schema.get(key).and_then(Value::as_str)
}

/// A doc comment in one line, with links to code as code, and a full stop.
fn one_line(comment: &str) -> String {
    let line = comment.split_whitespace().collect::<Vec<_>>().join(" ").replace("[`", "`").replace("`]", "`");
    if line.ends_with(['.', '!', '?']) || line.is_empty() { line } else { line + "." }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A colour.
    #[derive(JsonSchema)]
    #[serde(rename_all = "lowercase")]
    #[allow(dead_code)]
    enum Colour {
        /// As blood
        Red,
        /// As the sea.
        Blue,
    }

    #[derive(JsonSchema)]
    #[allow(dead_code)]
    struct Inner {
        /// How many,
        /// of all.
        #[schemars(extend("trl" = "max_count"))]
        count: Option<usize>,
        /// Two rates.
        rates: [f64; 2],
        /// [`Colour`] of the paint.
        colour: Option<Colour>,
    }

    #[derive(JsonSchema)]
    #[allow(dead_code)]
    struct Outer {
        /// Inside.
        inner: Option<Inner>,
        /// Names.
        names: Vec<String>,
    }

    #[test]
    fn keys_come_with_their_types_and_comments() {
        let settings = settings_of::<Outer>();
        let shown: Vec<String> =
            settings.iter().map(|s| format!("{} | {} | {}", s.key, s.kind, s.describe())).collect();
        assert_eq!(
            shown,
            [
                "inner |  | Inside.",
                "inner.count | whole number | How many, of all. TRL: max_count.",
                "inner.rates | list of 2: number | Two rates.",
                "inner.colour | text | `Colour` of the paint. One of `red`, `blue`.",
                "names | list: text | Names.",
            ]
        );
        assert_eq!(settings[3].words[0], ("red".to_string(), "As blood.".to_string()));
    }
}
