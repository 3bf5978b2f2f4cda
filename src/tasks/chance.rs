//! What a guesser earns who sees nothing but the form of the answer: the line that an accuracy has to rise above. Each scorer's `chance`
//! computes its own.

use serde::{Deserialize, Serialize};

/// Expected scores of an answer drawn uniformly from the possible ones. Each scorer says what those are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Chance {
    /// Whole answers right.
    pub accuracy: f64,
    /// Partial credit.
    pub partial_credit: f64,
}

impl Chance {
    /// Of one right answer among `n`; `None` if there are none.
    pub fn one_of(n: usize) -> Option<Chance> {
        (n > 0).then(|| Chance { accuracy: 1.0 / n as f64, partial_credit: 1.0 / n as f64 })
    }

    /// The mean over examples; `None` if it is not known for one of them, or there are none.
    pub fn mean(chances: impl Iterator<Item = Option<Chance>>) -> Option<Chance> {
        let (mut accuracy, mut partial_credit, mut examples) = (0.0, 0.0, 0usize);
        for chance in chances {
            let chance = chance?;
            accuracy += chance.accuracy;
            partial_credit += chance.partial_credit;
            examples += 1;
        }
        let n = examples as f64;
        (examples > 0).then(|| Chance { accuracy: accuracy / n, partial_credit: partial_credit / n })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_unknown_if_one_example_has_no_chance_level() {
        let mean = |ns: &[usize]| Chance::mean(ns.iter().map(|&n| Chance::one_of(n))).map(|c| c.accuracy);
        assert_eq!((mean(&[2, 4]), mean(&[2, 0]), mean(&[])), (Some(0.375), None, None));
    }
}
