//! What serde, toml, serde_json and Rust's own parsers say, in the words of a person who writes the file or the flag.

/// What is wrong with a value that the message shows already: `must be a whole number, 0 or more`.
pub fn fault(said: &str) -> String {
    translated(said, false)
}

/// What a JSON text is refused for, with the place in it: `column 12: must be a number, not "3"`. The line is left out of a text of one line, which
/// the message names already.
pub fn json_fault(error: &serde_json::Error) -> String {
    json_said(&error.to_string())
}

/// As [`json_fault`], from the words of an error that a library passes on.
pub fn json_said(said: &str) -> String {
    let (what, place) = parts(said);
    let what = translated(what, true);
    match place.and_then(|place| place.split_once(" column ")) {
        None => what,
        Some(("1", column)) => format!("column {column}: {what}"),
        Some((line, column)) => format!("line {line}, column {column}: {what}"),
    }
}

/// As [`json_fault`], without the place.
pub fn json_words(error: &serde_json::Error) -> String {
    translated(parts(&error.to_string()).0, true)
}

/// What serde_json says, and where: `LINE column COLUMN`.
fn parts(said: &str) -> (&str, Option<&str>) {
    said.rsplit_once(" at line ").map_or((said, None), |(what, place)| (what, Some(place)))
}

/// What a TOML text is refused for, with the line itself under it.
pub fn toml_fault(error: &toml::de::Error) -> String {
    let said = error.to_string();
    let said = said.trim_end();
    match said.rsplit_once('\n') {
        Some((place, what)) => format!("{place}\n  {}", translated(what.trim(), true)),
        None => translated(said, true),
    }
}

/// A message of the command line's parser, with what Rust's parsers of numbers say replaced.
pub fn parse_fault(said: &str) -> String {
    PARSERS.iter().fold(said.to_string(), |said, (theirs, ours)| said.replace(theirs, ours))
}

/// What Rust's parsers say of a text that is no number, and what it means.
const PARSERS: [(&str, &str); 7] = [
    ("invalid digit found in string", "a whole number, 0 or more, is needed"),
    ("cannot parse integer from empty string", "a whole number is needed"),
    ("number too large to fit in target type", "the number is too large"),
    ("number too small to fit in target type", "the number is too small"),
    ("invalid float literal", "a number is needed"),
    ("cannot parse float from empty string", "a number is needed"),
    ("provided string was not `true` or `false`", "true or false is needed"),
];

/// What the parsers of JSON and TOML say of a text with a slip in it.
const SYNTAX: [(&str, &str); 9] = [
    ("EOF while parsing", "the text ends in the middle"),
    ("expected value", "no JSON value stands here"),
    ("expected ident", "no JSON value stands here"),
    ("trailing characters", "there is more text after the end of the JSON value"),
    ("key must be a string", "a key must be text in double quotes"),
    ("invalid key-value pair, expected key", "no TOML stands here: lines are written key = value"),
    ("string values must be quoted", "text must be in quotes"),
    ("duplicate key", "this key is there twice; keep one"),
    ("recursion limit exceeded", "values are nested too deeply"),
];

fn translated(said: &str, shows_value: bool) -> String {
    // serde calls anything that is no word a unit variant.
    let not = |found: &str| {
        if shows_value && found != "unit variant" { format!(", not {}", value(found)) } else { String::new() }
    };
    for prefix in ["invalid type: ", "invalid value: ", "invalid length "] {
        if let Some((found, expected)) = said.strip_prefix(prefix).and_then(|rest| rest.rsplit_once(", expected ")) {
            let wanted = wanted(expected).unwrap_or_else(|| expected.to_string());
            return format!("must be {wanted}{}", not(found));
        }
    }
    let quoted = || said.split('`').skip(1).step_by(2);
    let first = quoted().next().unwrap_or_default();
    if said.starts_with("unknown variant ") {
        let choices: Vec<String> = quoted().skip(1).map(|choice| format!("`{choice}`")).collect();
        let not = if shows_value { format!(", not `{first}`") } else { String::new() };
        return format!("must be {}{not}", one_of(&choices));
    }
    if said.starts_with("unknown field ") {
        let known: Vec<String> = quoted().skip(1).map(|field| format!("`{field}`")).collect();
        return format!("`{first}` is not known here; there are {}", known.join(", "));
    }
    if said.starts_with("missing field ") {
        return format!("`{first}` is missing");
    }
    if let Some(form) = said.strip_prefix("data did not match any variant of untagged enum ") {
        return format!("has a form that is not known here ({form})");
    }
    if said.starts_with("duplicate field ") {
        return format!("`{first}` is there twice; keep one");
    }
    let known = SYNTAX.iter().chain(&PARSERS).find(|(theirs, _)| said.starts_with(theirs));
    known.map_or_else(|| said.to_string(), |(_, ours)| ours.to_string())
}

/// A value as a person would write it, from the description of what was found.
fn value(found: &str) -> String {
    match found {
        "sequence" => return "a list".into(),
        "map" => return "named values".into(),
        "null" | "unit value" | "Option value" => return "null".into(),
        _ => {}
    }
    let described = ["boolean ", "integer ", "floating point ", "character ", "string "];
    let written = described.iter().find_map(|kind| found.strip_prefix(kind)).unwrap_or(found);
    written.trim_matches('`').to_string()
}

/// What is needed, from the type that was expected; none for the words of a type of this program, which are plain.
fn wanted(expected: &str) -> Option<String> {
    let plain = match expected {
        "usize" | "u8" | "u16" | "u32" | "u64" | "u128" => "a whole number, 0 or more",
        "isize" | "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "string" | "str" | "a borrowed string" | "path string" | "a character" => "text in quotes",
        "a sequence" => "a list in brackets, such as [\"a\", \"b\"]",
        "a map" | "map" => "named values",
        _ if expected.starts_with("struct ") => "named values",
        // A word out of a few.
        "string only" | "string or map" | "string or table" | "variant identifier" => "text in quotes",
        _ if expected.starts_with("enum ") => "text in quotes",
        _ => {
            let counted = ["an array of length ", "a tuple of size "];
            let count = counted.iter().find_map(|kind| expected.strip_prefix(kind))?;
            return Some(format!("a list of {count} values"));
        }
    };
    Some(plain.to_string())
}

/// `a, b or c`.
pub fn one_of<T: AsRef<str>>(choices: &[T]) -> String {
    match choices {
        [] => "left out".into(),
        [only] => only.as_ref().to_string(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} or {}", first.join(", "), last.as_ref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        One,
        Two,
        Three,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Everything {
        count: usize,
        #[serde(default)]
        share: f64,
        #[serde(default)]
        flag: bool,
        #[serde(default)]
        name: String,
        path: Option<std::path::PathBuf>,
        word: Option<Word>,
        list: Option<Vec<u32>>,
        pair: Option<[f64; 2]>,
        inner: Option<Box<Everything>>,
    }

    #[test]
    fn types_of_this_language_are_in_no_message() {
        for (toml, said) in [
            ("count = \"many\"", "must be a whole number, 0 or more"),
            ("count = -1", "must be a whole number, 0 or more"),
            ("count = 1.5", "must be a whole number, 0 or more"),
            ("count = 1\nshare = \"x\"", "must be a number"),
            ("count = 1\nflag = 1", "must be true or false"),
            ("count = 1\nname = 1", "must be text in quotes"),
            ("count = 1\npath = 1", "must be text in quotes"),
            ("count = 1\nword = \"four\"", "must be `one`, `two` or `three`"),
            ("count = 1\nword = 4", "must be text in quotes"),
            ("count = 1\nlist = 4", "must be a list in brackets"),
            ("count = 1\npair = [1.0]", "must be a list of 2 values"),
            ("count = 1\ninner = 1", "must be named values"),
            ("share = 1", "`count` is missing"),
            ("count = 1\nshares = 1", "`shares` is not known here; there are `count`, `share`"),
        ] {
            let table: toml::Table = toml.parse().unwrap();
            let error = table.try_into::<Everything>().unwrap_err();
            let fault = fault(error.message());
            assert!(fault.starts_with(said), "{toml}: {fault} ({})", error.message());
        }
        for (json, said) in [
            ("{\"count\": \"3\"}", "column 13: must be a whole number, 0 or more, not \"3\""),
            ("{\n\"count\": null}", "line 2, column 13: must be a whole number, 0 or more, not null"),
            ("{\"count\": 1, \"word\": \"four\"}", "must be `one`, `two` or `three`, not `four`"),
            ("{\"count\": 1, \"flag\": [1]}", "must be true or false, not a list"),
            ("{}", "`count` is missing"),
            ("{\"count\": 1", "the text ends in the middle"),
            ("{\"count\": 1}}", "there is more text after the end of the JSON value"),
            ("{\"count\": }", "no JSON value stands here"),
            ("{count: 1}", "a key must be text in double quotes"),
            ("{\"count\": 1, \"count\": 2}", "`count` is there twice; keep one"),
        ] {
            let fault = json_fault(&serde_json::from_str::<Everything>(json).unwrap_err());
            assert!(fault.ends_with(said), "{json}: {fault}");
        }
        let toml_said = |text: &str| toml_fault(&toml::from_str::<toml::Table>(text).unwrap_err());
        assert!(toml_said("a = 1\nb = sft\n").contains("line 2, column 5"), "{}", toml_said("a = 1\nb = sft\n"));
        assert!(toml_said("b = sft\n").ends_with("  text must be in quotes"));
        assert!(toml_said("b = 1\nb = 2\n").ends_with("  this key is there twice; keep one"));
    }

    #[test]
    fn parsers_of_numbers_speak_of_numbers() {
        for (said, plain) in [
            ("1.5".parse::<usize>().unwrap_err().to_string(), "a whole number, 0 or more, is needed"),
            ("-1".parse::<u64>().unwrap_err().to_string(), "a whole number, 0 or more, is needed"),
            ("".parse::<usize>().unwrap_err().to_string(), "a whole number is needed"),
            ("9".repeat(40).parse::<usize>().unwrap_err().to_string(), "the number is too large"),
            ("x".parse::<f64>().unwrap_err().to_string(), "a number is needed"),
            ("".parse::<f32>().unwrap_err().to_string(), "a number is needed"),
            ("x".parse::<bool>().unwrap_err().to_string(), "true or false is needed"),
        ] {
            assert_eq!(
                parse_fault(&format!("invalid value 'x' for '--a': {said}")),
                format!("invalid value 'x' for '--a': {plain}")
            );
        }
    }
}
