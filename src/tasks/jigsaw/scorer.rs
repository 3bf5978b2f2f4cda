//! Scores the order of the tiles.

use crate::data::Record;
use crate::tasks::jigsaw::{self, Fault, Grid, Permutation, Style};
use crate::tasks::{Score, Scorer, meta};
use crate::{Error, Result};

/// Version of the rule.
const VERSION: u32 = 1;

/// The gold order of one puzzle.
#[derive(Debug, Clone)]
pub struct JigsawScorer {
    gold: Permutation,
    style: Style,
}

impl JigsawScorer {
    /// A scorer for a puzzle with this order, whose question asked for this style.
    pub fn new(gold: Permutation, style: Style) -> Self {
        JigsawScorer { gold, style }
    }

    /// From a record's `answer`, `meta.grid` and `meta.style`.
    pub fn from_record(record: &Record) -> Result<Self> {
        let grid: Grid = meta(record, "grid")?;
        let gold = jigsaw::permutation_answer(&record.answer, grid.tiles()).map_err(|fault| {
            Error::input(format!(
                "field `answer`: `{}` is not the order of {} tiles: {fault}",
                record.answer,
                grid.tiles()
            ))
        })?;
        Ok(JigsawScorer::new(gold, meta(record, "style")?))
    }
}

impl Scorer for JigsawScorer {
    fn rule(&self) -> (&str, u32) {
        ("jigsaw", VERSION)
    }

    fn score(&self, response: &str) -> Score {
        let tiles = self.gold.places().len();
        let block = jigsaw::answer_block(response);
        let numbers = block.and_then(|block| jigsaw::numbers(block, tiles)).unwrap_or_default();
        let right = numbers.iter().zip(self.gold.places()).filter(|&(&n, &place)| n as usize == place + 1).count();
        let positions = right as f64 / tiles as f64;
        let answer = block.and_then(|block| jigsaw::permutation_answer(block, tiles));
        let form = jigsaw::check_format(response, self.style);
        let fault: Option<Fault> = answer.as_ref().err().copied().or(form.err());
        let correct = answer.as_ref() == Ok(&self.gold);
        let value = f64::from(u8::from(correct));
        Score {
            correct,
            value,
            lenient: value,
            hits: if answer.is_ok() { positions } else { 0.0 },
            positions,
            parsed: answer.is_ok(),
            well_formed: form.is_ok(),
            fault: fault.map(|f| f.to_string()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::jigsaw::{PermutationRule, RewardConfig};

    fn score(style: Style, response: &str) -> Score {
        JigsawScorer::new(Permutation::new(vec![2, 0, 3, 1]).unwrap(), style).score(response) // gold `3 1 4 2`
    }

    fn total(permutation: PermutationRule, response: &str) -> f64 {
        score(Style::Think, response).reward(&RewardConfig { permutation, ..Default::default() }).total
    }

    #[test]
    fn the_right_answer_in_the_right_form_earns_everything() {
        let s = score(Style::Think, "<think>tile 3 is sky</think>\n<answer>3 1 4 2</answer>");
        assert_eq!((s.correct, s.hits, s.positions, s.parsed, s.well_formed), (true, 1.0, 1.0, true, true));
        assert_eq!(s.fault, "");
        assert_eq!(s.reward(&RewardConfig::default()).total, 3.0);
    }

    #[test]
    fn tiles_in_place_are_counted_and_form_is_apart_from_content() {
        let s = score(Style::Direct, "<answer>3 1 2 4</answer>");
        assert_eq!((s.correct, s.hits, s.parsed, s.well_formed), (false, 0.5, true, true));
        let s = score(Style::Direct, "I say <answer>3 1 4 2</answer>");
        assert_eq!((s.correct, s.hits, s.parsed, s.well_formed), (true, 1.0, true, false));
        assert_eq!(s.fault, "text outside the blocks");
    }

    #[test]
    fn tricks_earn_what_the_rules_say_and_no_more() {
        use PermutationRule::*;
        let long = format!("<think></think><answer>{}</answer>", "3 1 4 2 ".repeat(2500));
        for (response, ignore, require) in [
            ("<think></think><answer>1 1 1 1</answer>", 1.25, 1.0),
            ("<think></think><answer>3</answer>", 1.25, 1.0),
            ("<think></think><answer>3 1 4 99999999999</answer>", 1.75, 1.0),
            ("<think></think><answer>3 1 4 2 2</answer>", 1.0, 1.0),
            (long.as_str(), 1.0, 1.0),
            ("<think></think><answer></answer>", 0.0, 0.0),
            ("<think></think><answer>3 1 4 2</answer><answer>3 1 4 2</answer>", 0.0, 0.0),
            ("<think><answer>3 1 4 2</answer></think>", 0.0, 0.0),
            ("<think></think><answer>\u{ff13} 1 4 2</answer>", 1.0, 1.0),
            ("3 1 4 2", 0.0, 0.0),
            ("", 0.0, 0.0),
            ("<answer>3 1 4 2</answer>", 2.0, 2.0),
        ] {
            assert_eq!(total(Ignore, response), ignore, "ignore: {response:.60}");
            assert_eq!(total(Require, response), require, "require: {response:.60}");
        }
    }
}
