//! The words of the questions and of the reference responses.

use super::{Grid, PairPuzzle, Permutation};
use crate::io::text::counted;
use crate::tasks::response::{self, Style, ask};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Name of the task that asks for the order of the tiles.
pub const ORDER: &str = "jigsaw";
/// Name of the task that asks where one tile lay as seen from another.
pub const PAIR: &str = "jigsaw-pair";

/// What is asked about the shuffled picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum QuestionKind {
    /// The order of the tiles that restores the picture.
    Order,
    /// Where one tile lay as seen from another: lettered choices.
    Pair,
}

impl QuestionKind {
    /// Name under which its records are scored.
    pub fn task(self) -> &'static str {
        match self {
            QuestionKind::Order => ORDER,
            QuestionKind::Pair => PAIR,
        }
    }
}

/// Ask for the order of the tiles.
pub fn order_question(grid: Grid, style: Style) -> String {
    let tiles = grid.tiles();
    let mut text = introduction(grid);
    text += " For each place of the original, row by row, which tile belongs there?\n";
    text += &ask(style, &format!("the {tiles} numbers separated by spaces"));
    text
}

/// Ask where one tile lay as seen from another.
pub fn pair_question(grid: Grid, pair: &PairPuzzle, style: Style) -> String {
    let mut text = introduction(grid);
    let _ = write!(
        text,
        " In the original picture, where was tile {} as seen from tile {}?",
        pair.tile + 1,
        pair.seen_from + 1
    );
    if pair.choices.len() > 2 {
        text += " Above and below mean in the same column, left and right mean in the same row.";
    }
    text.push('\n');
    for (letter, direction) in ('A'..).zip(&pair.choices) {
        let _ = writeln!(text, "{letter}. {direction}");
    }
    text += &ask(style, "the letter of the right choice");
    text
}

/// The reference response. In think style the thought is written by rule from the answer, so that a model can be started
/// on it: the place that each tile shown comes from, in the order shown. It is no one's reasoning.
pub fn respond(permutation: &Permutation, answer: &str, style: Style) -> String {
    let mut thought = String::new();
    for (tile, place) in permutation.inverse().places().iter().enumerate() {
        let _ = write!(thought, "{}{} to {}", if tile == 0 { "" } else { ", " }, tile + 1, place + 1);
    }
    response::respond(style, &thought, answer)
}

fn introduction(grid: Grid) -> String {
    format!(
        "This picture was cut into {} and {}, and its tiles were shuffled. Number the tiles 1 to {}, row by row.",
        counted(grid.rows(), "row"),
        counted(grid.cols(), "column"),
        grid.tiles()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::jigsaw::PairDirection;

    #[test]
    fn the_order_question_names_grid_and_numbering() {
        let text = order_question("1x2".parse().unwrap(), Style::Direct);
        assert_eq!(
            text,
            "This picture was cut into 1 row and 2 columns, and its tiles were shuffled. Number the tiles 1 to 2, \
             row by row. For each place of the original, row by row, which tile belongs there?\n\
             Answer only <answer>the 2 numbers separated by spaces</answer>."
        );
        let think = order_question("3x3".parse().unwrap(), Style::Think);
        assert!(think.ends_with(
            "First think in <think></think>, then answer <answer>the 9 numbers separated by spaces</answer>."
        ));
    }

    #[test]
    fn the_pair_question_lists_its_choices() {
        let pair =
            PairPuzzle { tile: 1, seen_from: 0, choices: vec![PairDirection::Right, PairDirection::Left], right: 1 };
        let text = pair_question("1x2".parse().unwrap(), &pair, Style::Direct);
        assert!(
            text.contains("where was tile 2 as seen from tile 1?\nA. right\nB. left\nAnswer only <answer>the letter"),
            "{text}"
        );
    }

    #[test]
    fn the_written_thought_says_where_each_tile_comes_from() {
        let p = Permutation::new(vec![2, 0, 1]).unwrap();
        assert_eq!(respond(&p, "3 1 2", Style::Think), "<think>1 to 2, 2 to 3, 3 to 1</think><answer>3 1 2</answer>");
        assert_eq!(respond(&p, "3 1 2", Style::Direct), "<answer>3 1 2</answer>");
    }
}
