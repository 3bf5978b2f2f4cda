//! What word problems to make.

use super::families::Family;
use crate::tasks::response::Style;
use crate::tasks::split::SplitRatios;
use crate::tasks::text_form::{range, range_text, text_form};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The hardest level.
const HARDEST: u32 = 3;

/// Names of the families.
const NAMES: [&str; 9] = ["shopping", "sharing", "travel", "percent", "ages", "garden", "marbles", "groups", "pairs"];

/// Levels of difficulty: `2`, or `1-3` for any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Levels {
    /// Easiest.
    pub min: u32,
    /// Hardest.
    pub max: u32,
}

impl FromStr for Levels {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match range(text) {
            Some((min, max)) if 1 <= min && min <= max && max <= HARDEST => Ok(Levels { min, max }),
            _ => Err(Error::input(format!(
                "levels `{text}`: one from 1 to {HARDEST}, such as 2, or a range such as 1-3"
            ))),
        }
    }
}

text_form!(Levels);

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&range_text(self.min, self.max))
    }
}

/// Kinds of problems: `all`, or names with commas between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Families(pub Vec<Family>);

impl FromStr for Families {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "all" {
            return Ok(Families(Family::ALL.to_vec()));
        }
        let mut families = Vec::new();
        for name in text.split(',').map(str::trim) {
            let at = NAMES.iter().position(|known| *known == name);
            let at = at.ok_or_else(|| {
                Error::input(format!("families: no family is called `{name}`; known: all, {}", NAMES.join(", ")))
            })?;
            if families.contains(&Family::ALL[at]) {
                return Err(Error::input(format!("families: `{name}` is named twice")));
            }
            families.push(Family::ALL[at]);
        }
        Ok(Families(families))
    }
}

text_form!(Families);

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 == Family::ALL {
            true => f.write_str("all"),
            false => f.write_str(&self.0.iter().map(|&family| NAMES[family as usize]).collect::<Vec<_>>().join(",")),
        }
    }
}

/// What to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MathsSettings {
    /// Kinds of problems; each is as likely.
    pub families: Families,
    /// Levels of difficulty; each is as likely.
    pub levels: Levels,
    /// Number of problems over all splits.
    pub count: usize,
    /// Form of the response asked for.
    pub style: Style,
    /// Seed of everything random.
    pub seed: u64,
    /// Ratios of train, validation and test.
    pub split: SplitRatios,
}

impl Default for MathsSettings {
    /// What `jigsaw gen --task maths` makes unless something else is asked for.
    fn default() -> MathsSettings {
        MathsSettings {
            families: Families(Family::ALL.to_vec()),
            levels: Levels { min: 1, max: HARDEST },
            count: 2000,
            style: Style::Direct,
            seed: 7,
            split: SplitRatios::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_families_read_back_and_nonsense_is_refused() {
        for text in ["1", "1-3", "2-3"] {
            assert_eq!(text.parse::<Levels>().unwrap().to_string(), text);
        }
        for text in ["", "0", "4", "3-1", "1-4", "a", "1-"] {
            assert_eq!(text.parse::<Levels>().unwrap_err().exit_code(), 2, "{text}");
        }
        for text in ["all", "travel,ages"] {
            assert_eq!(text.parse::<Families>().unwrap().to_string(), text);
        }
        for (text, said) in
            [("travel,algebra", "no family is called `algebra`"), ("travel,travel", "twice"), ("", "called ``")]
        {
            assert!(text.parse::<Families>().unwrap_err().to_string().contains(said), "{text}");
        }
        for (family, name) in Family::ALL.iter().zip(NAMES) {
            assert_eq!(serde_json::to_value(family).unwrap(), name);
        }
    }
}
