//! The pair question: in which direction one tile lay from another in the original picture.

use super::{Grid, Permutation};
use crate::rng::Rng;
use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use std::fmt;

/// Direction from one cell of the original to another. The four diagonals cover every offset that is neither in the same
/// row nor in the same column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PairDirection {
    /// Same column, a row further up.
    Above,
    /// Same column, a row further down.
    Below,
    /// Same row, a column further left.
    Left,
    /// Same row, a column further right.
    Right,
    /// Further up and left.
    AboveLeft,
    /// Further up and right.
    AboveRight,
    /// Further down and left.
    BelowLeft,
    /// Further down and right.
    BelowRight,
}

use PairDirection::*;

impl PairDirection {
    /// All that can occur on `grid`: 2 on a single row or column, otherwise 8.
    pub fn all(grid: Grid) -> &'static [PairDirection] {
        match (grid.rows(), grid.cols()) {
            (1, _) => &[Left, Right],
            (_, 1) => &[Above, Below],
            _ => &[Above, Below, Left, Right, AboveLeft, AboveRight, BelowLeft, BelowRight],
        }
    }

    /// Direction of `cell` as seen from another cell of the grid; `None` if they are the same.
    pub fn of(grid: Grid, cell: usize, seen_from: usize) -> Option<Self> {
        use std::cmp::Ordering::*;
        let ((row, col), (from_row, from_col)) = (grid.place(cell), grid.place(seen_from));
        match (row.cmp(&from_row), col.cmp(&from_col)) {
            (Equal, Equal) => None,
            (Less, Equal) => Some(Above),
            (Greater, Equal) => Some(Below),
            (Equal, Less) => Some(Left),
            (Equal, Greater) => Some(Right),
            (Less, Less) => Some(AboveLeft),
            (Less, Greater) => Some(AboveRight),
            (Greater, Less) => Some(BelowLeft),
            (Greater, Greater) => Some(BelowRight),
        }
    }
}

impl fmt::Display for PairDirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Above => "above",
            Below => "below",
            Left => "left",
            Right => "right",
            AboveLeft => "above left",
            AboveRight => "above right",
            BelowLeft => "below left",
            BelowRight => "below right",
        })
    }
}

/// One pair question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairPuzzle {
    /// The tile asked about: its place (from 0) in the shuffled picture.
    pub tile: usize,
    /// The tile it is seen from: its place (from 0) in the shuffled picture.
    pub seen_from: usize,
    /// The choices in the order of their letters.
    pub choices: Vec<PairDirection>,
    /// Index of the right choice.
    pub right: usize,
}

impl PairPuzzle {
    /// Draw a direction, then two tiles in that direction, then the order of the choices, each uniformly: no letter and no direction is a
    /// better guess than another.
    pub fn random(grid: Grid, permutation: &Permutation, rng: &mut Rng) -> Self {
        let mut choices = PairDirection::all(grid).to_vec();
        let wanted = choices[rng.random_range(0..choices.len())];
        let cells: Vec<(usize, usize)> = (0..grid.tiles())
            .flat_map(|cell| (0..grid.tiles()).map(move |from| (cell, from)))
            .filter(|&(cell, from)| PairDirection::of(grid, cell, from) == Some(wanted))
            .collect();
        let &(cell, from) = cells.choose(rng).expect("every direction of a grid has a pair of cells");
        choices.shuffle(rng);
        let right = choices.iter().position(|&c| c == wanted).expect("the wanted direction is among the choices");
        PairPuzzle { tile: permutation.places()[cell], seen_from: permutation.places()[from], choices, right }
    }

    /// Letter of the right choice.
    pub fn answer(&self) -> char {
        char::from(b'A' + self.right as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::stream;
    use std::collections::HashMap;

    #[test]
    fn the_right_choice_is_the_direction_in_the_original() {
        for (rows, cols) in [(1, 2), (3, 1), (2, 2), (3, 3), (4, 5)] {
            let grid = Grid::new(rows, cols).unwrap();
            for seed in 0..300 {
                let mut rng = stream(seed, "test", &[]);
                let p = Permutation::random(grid.tiles(), &mut rng);
                let pair = PairPuzzle::random(grid, &p, &mut rng);
                let origin = p.inverse();
                let (row, col) = grid.place(origin.places()[pair.tile]);
                let (from_row, from_col) = grid.place(origin.places()[pair.seen_from]);
                let words = pair.choices[pair.right].to_string();
                assert_eq!(words.contains("above"), row < from_row);
                assert_eq!(words.contains("below"), row > from_row);
                assert_eq!(words.contains("left"), col < from_col);
                assert_eq!(words.contains("right"), col > from_col);
                assert_eq!(pair.choices.len(), if rows > 1 && cols > 1 { 8 } else { 2 });
            }
        }
    }

    #[test]
    fn no_letter_and_no_direction_is_a_better_guess_than_another() {
        let grid = Grid::new(3, 3).unwrap();
        let mut rng = stream(3, "test", &[]);
        let (mut letters, mut directions) = (HashMap::new(), HashMap::new());
        for _ in 0..4000 {
            let p = Permutation::random(9, &mut rng);
            let pair = PairPuzzle::random(grid, &p, &mut rng);
            *letters.entry(pair.answer()).or_insert(0) += 1;
            *directions.entry(pair.choices[pair.right]).or_insert(0) += 1;
        }
        assert_eq!((letters.len(), directions.len()), (8, 8));
        assert!(letters.values().all(|&n| (400..600).contains(&n)), "{letters:?}");
        assert!(directions.values().all(|&n| (400..600).contains(&n)), "{directions:?}");
    }
}
