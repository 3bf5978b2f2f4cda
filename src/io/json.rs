//! Differences between values, by the names of their fields.

use serde::Serialize;
use serde_json::{Map, Value};

/// Each field in which two values differ as JSON, with `before -> after`; nested fields have their path (`bench.pixels.min`, `sets.0.name`). A field
/// without a value is `(not set)`.
pub fn differences<T: Serialize + ?Sized>(before: &T, after: &T) -> Vec<(String, String)> {
    let fields = |value: &T| {
        let mut fields = Map::new();
        flatten("", serde_json::to_value(value).unwrap_or_default(), &mut fields);
        fields
    };
    let (before, after) = (fields(before), fields(after));
    let brief = |value: Option<&Value>| {
        let Some(value) = value else { return "(not set)".to_string() };
        let text = value.to_string();
        // The beginning of a hash is enough to see that two differ.
        let is_hash = text.len() == 66 && value.is_string();
        if is_hash { format!("{}...\"", &text[..13]) } else { text }
    };
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| (name.clone(), format!("{} -> {}", brief(before.get(name)), brief(after.get(name)))))
        .collect()
}

/// [`differences`] as `name: before -> after`.
pub fn named_differences<T: Serialize + ?Sized>(before: &T, after: &T) -> Vec<String> {
    differences(before, after).into_iter().map(|(name, change)| format!("{name}: {change}")).collect()
}

/// The leaves of a JSON value under their paths. What is null is not set.
fn flatten(path: &str, value: Value, leaves: &mut Map<String, Value>) {
    let below = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
    match value {
        Value::Null => {}
        Value::Object(map) => map.into_iter().for_each(|(name, value)| flatten(&below(&name), value, leaves)),
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            items.into_iter().enumerate().for_each(|(i, value)| flatten(&below(&i.to_string()), value, leaves));
        }
        leaf => drop(leaves.insert(path.to_string(), leaf)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_named_by_their_paths_and_hashes_are_shortened() {
        let before =
            json!({"a": {"b": 1, "c": null}, "list": [1, 2], "sets": [{"n": 1}], "hash": "0".repeat(64), "same": "x"});
        let after =
            json!({"a": {"b": 2}, "list": [1], "sets": [{"n": 2}], "hash": "1".repeat(64), "same": "x", "new": true});
        let named = named_differences(&before, &after);
        let expected = [
            "a.b: 1 -> 2",
            "hash: \"000000000000...\" -> \"111111111111...\"",
            "list: [1,2] -> [1]",
            "new: (not set) -> true",
            "sets.0.n: 1 -> 2",
        ];
        assert_eq!(named, expected);
    }
}
