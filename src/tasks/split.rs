//! How much of a dataset goes to each split, and which split a source belongs to.

use crate::tasks::text_form::text_form;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Names of the splits, in the order of their ratios.
pub const SPLITS: [&str; 3] = ["train", "validation", "test"];

/// Most examples of a dataset: `train-999999` is the last name of six digits.
pub const MAX_COUNT: usize = 1_000_000;

/// Ratios of train, validation and test: not negative, their sum 1. Written `0.8,0.1,0.1`, or as a ratio of
/// whole numbers, `8,1,1`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct SplitRatios([f64; 3]);

impl Default for SplitRatios {
    fn default() -> SplitRatios {
        SplitRatios([0.8, 0.1, 0.1])
    }
}

impl SplitRatios {
    /// Ratios in proportion to `weights`.
    pub fn new(weights: [f64; 3]) -> Result<Self> {
        let sum: f64 = weights.iter().sum();
        if !sum.is_finite() || sum <= 0.0 || weights.iter().any(|w| *w < 0.0) {
            return Err(Error::input(format!(
                "split {weights:?}: three shares that are not negative and not all zero"
            )));
        }
        Ok(SplitRatios(weights.map(|w| w / sum)))
    }

    /// Divide `count` examples over the splits in proportion, the rest by largest remainder; a split whose ratio is not 0 gets at least one.
    pub fn apportion(self, count: usize) -> Result<[usize; 3]> {
        if count > MAX_COUNT {
            return Err(Error::input(format!(
                "count {count}: a dataset has at most {MAX_COUNT} examples; their names have six digits"
            )));
        }
        let sides = self.0.iter().filter(|s| **s > 0.0).count();
        if count < sides {
            return Err(Error::input(format!(
                "count {count}: too few for {sides} splits; ask for more, or put all on one side, such as --split 1,0,0"
            )));
        }
        let exact = self.0.map(|share| share * count as f64);
        let mut parts = exact.map(|x| x.floor() as usize);
        while parts.iter().sum::<usize>() < count {
            let lag = |i: usize| exact[i] - parts[i] as f64;
            let most = (0..3).fold(0, |best, i| if lag(i) > lag(best) + 1e-9 { i } else { best });
            parts[most] += 1;
        }
        for side in 0..3 {
            if self.0[side] > 0.0 && parts[side] == 0 {
                let largest = (0..3).fold(0, |best, i| if parts[i] > parts[best] { i } else { best });
                parts[largest] -= 1;
                parts[side] += 1;
            }
        }
        Ok(parts)
    }

    /// The ratios of the other splits without this one; `None` if it has everything.
    pub fn without(self, side: usize) -> Option<SplitRatios> {
        let mut weights = self.0;
        weights[side] = 0.0;
        SplitRatios::new(weights).ok()
    }

    /// The split (index into [`SPLITS`]) of a source with this content hash: the hash as a number in [0, 1) against the ratios.
    pub fn side(self, hash: &[u8; 32]) -> usize {
        let [a, b, c, d, e, f, g, h, ..] = *hash;
        let at = u64::from_be_bytes([a, b, c, d, e, f, g, h]) as f64 / (u64::MAX as f64);
        if at < self.0[0] {
            0
        } else if at < self.0[0] + self.0[1] || self.0[2] == 0.0 {
            if self.0[1] > 0.0 { 1 } else { 0 }
        } else {
            2
        }
    }
}

impl FromStr for SplitRatios {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers: Vec<f64> = text.split(',').map_while(|part| part.trim().parse().ok()).collect();
        match <[f64; 3]>::try_from(numbers) {
            Ok(weights) if text.split(',').count() == 3 => {
                let ratios = SplitRatios::new(weights)?;
                let sum: f64 = weights.iter().sum();
                let rounded = (sum * 1e6).round() / 1e6;
                match weights.iter().all(|weight| weight.fract() == 0.0) || rounded == 1.0 {
                    true => Ok(ratios),
                    false => Err(Error::input(format!(
                        "split `{text}`: the shares of train, validation and test add up to {rounded}, not to 1; correct one of them, or write whole \
                         numbers for a ratio, such as 8,1,1"
                    ))),
                }
            }
            _ => Err(Error::input(format!(
                "split `{text}`: write the shares of train, validation and test, such as 0.8,0.1,0.1"
            ))),
        }
    }
}

text_form!(SplitRatios);

impl fmt::Display for SplitRatios {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.0[0], self.0[1], self.0[2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(text: &str) -> SplitRatios {
        text.parse().unwrap()
    }

    #[test]
    fn puzzles_are_divided_in_proportion_and_no_side_is_left_empty() {
        assert_eq!(shares("0.8,0.1,0.1").apportion(2000).unwrap(), [1600, 200, 200]);
        assert_eq!(shares("8,1,1").apportion(7).unwrap(), [5, 1, 1]);
        assert_eq!(shares("0.98,0.01,0.01").apportion(10).unwrap(), [8, 1, 1]);
        assert_eq!(shares("1,0,0").apportion(3).unwrap(), [3, 0, 0]);
        assert_eq!(shares("1,1,1").apportion(3).unwrap(), [1, 1, 1]);
        assert!(shares("1,1,1").apportion(2).is_err());
        for count in 3..200 {
            assert_eq!(shares("0.7,0.15,0.15").apportion(count).unwrap().iter().sum::<usize>(), count);
        }
    }

    #[test]
    fn a_share_of_zero_gets_no_photo() {
        for byte in [0u8, 100, 128, 200, 255] {
            let hash = [byte; 32];
            assert_eq!(shares("1,0,0").side(&hash), 0);
            assert_eq!(shares("0,0,1").side(&hash), 2);
            assert_eq!(shares("0,1,0").side(&hash), 1);
            assert_ne!(shares("1,0,1").side(&hash), 1);
            assert_ne!(shares("1,1,0").side(&hash), 2);
            assert_ne!(shares("0,1,1").side(&hash), 0);
        }
    }

    #[test]
    fn what_is_not_three_shares_is_refused() {
        for text in ["", "0.8,0.2", "1,1,1,1", "a,b,c", "-1,1,1", "0,0,0", "nan,1,1", "inf,1,1", "0.8 0.1 0.1", "1,,1"]
        {
            assert!(text.parse::<SplitRatios>().is_err(), "{text}");
        }
        let refused = "0.8,0.1,0.2".parse::<SplitRatios>().unwrap_err().to_string();
        assert!(refused.contains("`0.8,0.1,0.2`") && refused.contains("add up to 1.1, not to 1"), "{refused}");
        for text in ["8,1,1", "80,10,10", "1,0,0", "0.7,0.2,0.1", "0.333333,0.333333,0.333334"] {
            let written = text.parse::<SplitRatios>().map(String::from).unwrap();
            assert!(written.parse::<SplitRatios>().is_ok(), "{text}");
        }
    }
}
