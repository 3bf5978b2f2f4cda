//! What countdown puzzles to make.

use crate::tasks::response::Style;
use crate::tasks::split::SplitRatios;
use crate::tasks::text_form::{range, range_text, text_form};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Most numbers of a puzzle, as in the game of that name.
const MAX_NUMBERS: usize = 6;
/// Largest number and largest target: all results on the way then fit 128 bits by far.
const MAX_VALUE: u32 = 10_000;

/// How many numbers a puzzle has: `4`, or `3-4` for either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct NumberCount {
    /// Fewest.
    pub min: usize,
    /// Most.
    pub max: usize,
}

impl FromStr for NumberCount {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match range(text) {
            Some((min, max)) if 2 <= min && min <= max && max <= MAX_NUMBERS => Ok(NumberCount { min, max }),
            _ => Err(Error::input(format!(
                "numbers `{text}`: how many numbers a puzzle has, from 2 to {MAX_NUMBERS}: one number such as 4, or a range such as 3-4"
            ))),
        }
    }
}

text_form!(NumberCount);

impl fmt::Display for NumberCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&range_text(self.min, self.max))
    }
}

/// What to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CountdownSettings {
    /// How many numbers a puzzle has.
    pub numbers: NumberCount,
    /// Numbers are drawn from 1 to this.
    pub max_number: u32,
    /// Targets are from 1 to this.
    pub max_target: u32,
    /// Number of puzzles over all splits.
    pub count: usize,
    /// Form of the response asked for.
    pub style: Style,
    /// Seed of everything random.
    pub seed: u64,
    /// Ratios of train, validation and test.
    pub split: SplitRatios,
}

impl Default for CountdownSettings {
    /// What `jigsaw gen --task countdown` makes unless something else is asked for.
    fn default() -> CountdownSettings {
        CountdownSettings {
            numbers: NumberCount { min: 3, max: 4 },
            max_number: 99,
            max_target: 100,
            count: 2000,
            style: Style::Direct,
            seed: 7,
            split: SplitRatios::default(),
        }
    }
}

impl CountdownSettings {
    /// Refuse what no puzzle can be made of, before any work.
    ///
    /// # Errors
    /// Input errors that name the setting.
    pub fn check(&self) -> Result<()> {
        if self.count == 0 {
            return Err(Error::input("count 0: ask for at least one puzzle"));
        }
        for (name, value) in [("max-number", self.max_number), ("max-target", self.max_target)] {
            if !(1..=MAX_VALUE).contains(&value) {
                return Err(Error::input(format!("{name} {value}: must be from 1 to {MAX_VALUE}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_count_reads_back_as_it_was_written_and_nonsense_is_refused() {
        for text in ["", "1", "7", "4-3", "0-3", "a", "3-", "-3", "3-4-5"] {
            assert!(text.parse::<NumberCount>().is_err(), "{text}");
        }
        for text in ["3", "3-4", "2-6"] {
            assert_eq!(text.parse::<NumberCount>().unwrap().to_string(), text);
        }
    }
}
