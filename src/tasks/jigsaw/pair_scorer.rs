//! Scores the lettered question about two tiles.

use crate::data::Record;
use crate::tasks::chance::Chance;
use crate::tasks::jigsaw::PAIR;
use crate::tasks::meta::meta;
use crate::tasks::response::{Style, answer_block, check_format, choice_letter};
use crate::tasks::score::Score;
use crate::tasks::scorer::Scorer;
use crate::{Error, Result};

const VERSION: u32 = 1;

/// The right letter of one question.
#[derive(Debug, Clone)]
pub struct PairScorer {
    right: usize,
    choices: usize,
    style: Style,
}

impl PairScorer {
    /// A scorer for a question with this many choices, of which `right` (from 0) is right.
    pub fn new(right: usize, choices: usize, style: Style) -> Self {
        PairScorer { right, choices, style }
    }

    /// From a record's `answer`, `meta.choices` (their number) and `meta.style`.
    pub fn from_record(record: &Record) -> Result<Self> {
        let choices: usize = meta(record, "choices")?;
        let right = choice_letter(&record.answer, choices).map_err(|fault| {
            Error::input(format!("field `answer`: `{}` is no letter of {choices} choices: {fault}", record.answer))
        })?;
        Ok(PairScorer::new(right, choices, meta(record, "style")?))
    }
}

impl Scorer for PairScorer {
    fn name(&self) -> &str {
        PAIR
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn score(&self, response: &str) -> Score {
        let answer = answer_block(response).and_then(|block| choice_letter(block, self.choices));
        let format = check_format(response, self.style);
        let correct = answer == Ok(self.right);
        let share = f64::from(u8::from(correct));
        Score {
            correct,
            value: share,
            lenient: share,
            partial_credit: share,
            raw_partial_credit: share,
            parsed: answer.is_ok(),
            well_formed: format.is_ok(),
            exact: None,
            fault: answer.err().or(format.err()).map(|f| f.to_string()).unwrap_or_default(),
        }
    }

    fn chance(&self) -> Option<Chance> {
        Chance::one_of(self.choices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_letter_in_one_answer_block_is_right() {
        let scorer = PairScorer::new(2, 8, Style::Direct);
        let s = scorer.score("<answer>C</answer>");
        assert_eq!(
            (s.correct, s.partial_credit, s.parsed, s.well_formed, s.fault.as_str()),
            (true, 1.0, true, true, "")
        );
        let s = scorer.score("<answer>A</answer>");
        assert_eq!((s.correct, s.partial_credit, s.parsed, s.well_formed), (false, 0.0, true, true));
        for (response, fault) in [
            ("C", "no answer block"),
            ("<answer>I</answer>", "not one of the choices"),
            ("<answer>A B C</answer>", "not one of the choices"),
            ("<answer>C</answer><answer>C</answer>", "several answer blocks"),
        ] {
            let s = scorer.score(response);
            assert_eq!((s.correct, s.partial_credit, s.parsed), (false, 0.0, false), "{response}");
            assert_eq!(s.fault, fault);
        }
    }
}
