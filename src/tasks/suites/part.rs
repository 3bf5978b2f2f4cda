//! A family with its weight among the others: `vqa`, or `lists:3`.

use super::Family;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A family, and how many times the training questions of a family of weight one it gets. Written `NAME` or `NAME:TIMES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Part {
    /// The family.
    pub family: Family,
    /// Its weight, at least 1. Validation and test are as large as every other family's.
    pub times: usize,
}

impl From<Family> for Part {
    fn from(family: Family) -> Part {
        Part { family, times: 1 }
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Part, String> {
        let (name, times) = text.split_once(':').unwrap_or((text, "1"));
        let family = Family::ALL.into_iter().find(|f| f.name() == name).ok_or_else(|| {
            let names = Family::ALL.map(Family::name).join(", ");
            format!("no family is named `{name}`; there are: {names}, or all of them by `all`")
        })?;
        match times.parse() {
            Ok(times @ 1..=1000) => Ok(Part { family, times }),
            _ => Err(format!("`{text}`: the weight after the colon is a whole number from 1 to 1000")),
        }
    }
}

/// The families of a list such as `vqa,lists:3`, or of `all`.
///
/// # Errors
/// Says which name is unknown or given twice.
pub fn parts(list: &str) -> Result<Vec<Part>, String> {
    let mut parts: Vec<Part> = Vec::new();
    for name in list.split(',') {
        let named = match name {
            "all" => Family::ALL.map(Part::from).to_vec(),
            _ => vec![name.parse()?],
        };
        for part in named {
            if parts.iter().any(|p| p.family == part.family) {
                return Err(format!("`{}` is named twice", part.family.name()));
            }
            parts.push(part);
        }
    }
    Ok(parts)
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.times {
            1 => f.write_str(self.family.name()),
            times => write!(f, "{}:{times}", self.family.name()),
        }
    }
}

impl TryFrom<String> for Part {
    type Error = String;

    fn try_from(text: String) -> Result<Part, String> {
        text.parse()
    }
}

impl From<Part> for String {
    fn from(part: Part) -> String {
        part.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_read_and_written_and_nonsense_is_refused() {
        for text in ["vqa", "lists:3"] {
            assert_eq!(text.parse::<Part>().unwrap().to_string(), text);
        }
        assert_eq!("pope:1".parse::<Part>().unwrap(), Part::from(Family::Pope));
        for (text, named) in
            [("riddles", "riddles"), ("vqa:0", "vqa:0"), ("vqa:x", "vqa:x"), ("vqa:", "vqa:"), ("", "``")]
        {
            assert!(text.parse::<Part>().unwrap_err().contains(named), "{text}");
        }
    }
}
