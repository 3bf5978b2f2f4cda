//! A family with its weight among the others: `vqa`, or `lists:3`.

use super::Family;
use crate::tasks::text_form::text_form;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A family and its weight: it gets `times` as many training questions as a family of weight one. Written `NAME` or `NAME:TIMES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct FamilyWeight {
    /// The family.
    pub family: Family,
    /// Its weight, at least 1. Validation and test are as large as every other family's.
    pub times: usize,
}

impl From<Family> for FamilyWeight {
    fn from(family: Family) -> FamilyWeight {
        FamilyWeight { family, times: 1 }
    }
}

impl FromStr for FamilyWeight {
    type Err = String;

    fn from_str(text: &str) -> Result<FamilyWeight, String> {
        let (name, times) = text.split_once(':').unwrap_or((text, "1"));
        let family = Family::ALL.into_iter().find(|f| f.name() == name).ok_or_else(|| {
            let names = Family::ALL.map(Family::name).join(", ");
            format!("no family is named `{name}`; there are: {names}, or all of them by `all`")
        })?;
        match times.parse() {
            Ok(times @ 1..=1000) => Ok(FamilyWeight { family, times }),
            _ => Err(format!("`{text}`: the weight after the colon is a whole number from 1 to 1000")),
        }
    }
}

/// The families of a list such as `vqa,lists:3`, or of `all`.
///
/// # Errors
/// Says which name is unknown or given twice.
pub fn parse_families(list: &str) -> Result<Vec<FamilyWeight>, String> {
    let mut families: Vec<FamilyWeight> = Vec::new();
    for name in list.split(',') {
        let named = match name {
            "all" => Family::ALL.map(FamilyWeight::from).to_vec(),
            _ => vec![name.parse()?],
        };
        for weighted in named {
            if families.iter().any(|other| other.family == weighted.family) {
                return Err(format!("`{}` is named twice", weighted.family.name()));
            }
            families.push(weighted);
        }
    }
    Ok(families)
}

impl fmt::Display for FamilyWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.times {
            1 => f.write_str(self.family.name()),
            times => write!(f, "{}:{times}", self.family.name()),
        }
    }
}

text_form!(FamilyWeight);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_read_and_written_and_nonsense_is_refused() {
        for text in ["vqa", "lists:3"] {
            assert_eq!(text.parse::<FamilyWeight>().unwrap().to_string(), text);
        }
        assert_eq!("pope:1".parse::<FamilyWeight>().unwrap(), FamilyWeight::from(Family::Pope));
        for (text, named) in
            [("riddles", "riddles"), ("vqa:0", "vqa:0"), ("vqa:x", "vqa:x"), ("vqa:", "vqa:"), ("", "``")]
        {
            assert!(text.parse::<FamilyWeight>().unwrap_err().contains(named), "{text}");
        }
    }
}
