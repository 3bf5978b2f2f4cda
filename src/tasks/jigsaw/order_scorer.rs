//! Scores the order of the tiles.

use crate::data::Record;
use crate::tasks::chance::Chance;
use crate::tasks::jigsaw::answer::{OrderError, numbers, permutation_answer};
use crate::tasks::jigsaw::{Grid, ORDER, Permutation, chance, draw};
use crate::tasks::meta::meta;
use crate::tasks::response::{Style, answer_block, check_format};
use crate::tasks::score::Score;
use crate::tasks::scorer::{AnswerDrawing, GoldDrawing, Scorer};
use crate::{Error, Result};
use image::RgbImage;

/// What partial credit counts.
pub const PARTIAL_CREDIT: &str = "tiles in place";

const VERSION: u32 = 1;

/// The gold order of one puzzle.
#[derive(Debug, Clone)]
pub struct JigsawScorer {
    grid: Grid,
    gold: Permutation,
    style: Style,
}

impl JigsawScorer {
    /// A scorer for a puzzle with this grid and order, whose question asked for this style.
    pub fn new(grid: Grid, gold: Permutation, style: Style) -> Self {
        JigsawScorer { grid, gold, style }
    }

    /// From a record's `answer`, `meta.grid` and `meta.style`.
    pub fn from_record(record: &Record) -> Result<Self> {
        let grid: Grid = meta(record, "grid")?;
        let gold = permutation_answer(&record.answer, grid.tiles()).map_err(|fault| {
            Error::input(format!(
                "field `answer`: `{}` is not the order of {} tiles: {fault}",
                record.answer,
                grid.tiles()
            ))
        })?;
        Ok(JigsawScorer::new(grid, gold, meta(record, "style")?))
    }
}

impl Scorer for JigsawScorer {
    fn name(&self) -> &str {
        ORDER
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn score(&self, response: &str) -> Score {
        let tiles = self.gold.places().len();
        let block = answer_block(response).map_err(OrderError::from);
        let numbers = block.and_then(|block| numbers(block, tiles)).unwrap_or_default();
        let right = numbers.iter().zip(self.gold.places()).filter(|&(&n, &place)| n as usize == place + 1).count();
        let raw_partial_credit = right as f64 / tiles as f64;
        let answer = block.and_then(|block| permutation_answer(block, tiles));
        let format = check_format(response, self.style);
        let fault = answer.as_ref().err().copied().or(format.err().map(OrderError::from));
        let correct = answer.as_ref() == Ok(&self.gold);
        let value = f64::from(u8::from(correct));
        Score {
            correct,
            value,
            lenient: value,
            partial_credit: if answer.is_ok() { raw_partial_credit } else { 0.0 },
            raw_partial_credit,
            parsed: answer.is_ok(),
            well_formed: format.is_ok(),
            exact: None,
            fault: fault.map(|f| f.to_string()).unwrap_or_default(),
        }
    }

    fn chance(&self) -> Option<Chance> {
        chance::chance(self.grid.tiles())
    }

    fn draw_gold(&self, shown: &RgbImage) -> Result<Option<GoldDrawing>> {
        draw::gold(shown, self.grid, &self.gold).map(Some)
    }

    fn draw_answer(&self, shown: &RgbImage, response: &str) -> Option<AnswerDrawing> {
        let given = permutation_answer(answer_block(response).ok()?, self.grid.tiles()).ok()?;
        draw::answer(shown, self.grid, &self.gold, &given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::reward::RewardSettings;

    fn score(style: Style, response: &str) -> Score {
        JigsawScorer::new("2x2".parse().unwrap(), Permutation::new(vec![2, 0, 3, 1]).unwrap(), style).score(response) // gold `3 1 4 2`
    }

    fn total(require_valid: bool, response: &str) -> f64 {
        RewardSettings { require_valid, ..Default::default() }.reward(&score(Style::Think, response)).total
    }

    #[test]
    fn the_right_answer_in_the_right_form_earns_everything() {
        let s = score(Style::Think, "<think>tile 3 is sky</think>\n<answer>3 1 4 2</answer>");
        assert_eq!(
            (s.correct, s.partial_credit, s.raw_partial_credit, s.parsed, s.well_formed),
            (true, 1.0, 1.0, true, true)
        );
        assert_eq!(s.fault, "");
        assert_eq!(RewardSettings::default().reward(&s).total, 3.0);
    }

    #[test]
    fn tiles_in_place_are_counted_and_form_is_apart_from_content() {
        let s = score(Style::Direct, "<answer>3 1 2 4</answer>");
        assert_eq!((s.correct, s.partial_credit, s.parsed, s.well_formed), (false, 0.5, true, true));
        let s = score(Style::Direct, "I say <answer>3 1 4 2</answer>");
        assert_eq!((s.correct, s.partial_credit, s.parsed, s.well_formed), (true, 1.0, true, false));
        assert_eq!(s.fault, "text outside the blocks");
    }

    #[test]
    fn tricks_earn_what_the_rules_say_and_no_more() {
        let long = format!("<think></think><answer>{}</answer>", "3 1 4 2 ".repeat(2500));
        for (response, any, valid) in [
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
            assert_eq!(total(false, response), any, "any: {response:.60}");
            assert_eq!(total(true, response), valid, "valid: {response:.60}");
        }
    }
}
