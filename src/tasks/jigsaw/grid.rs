//! The grid a picture is cut into.

use crate::tasks::text_form::text_form;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Most tiles of a puzzle: beyond this no one, human or model, is asked a sensible question.
pub const MAX_TILES: usize = 100;

/// Rows x columns, between 2 and [`MAX_TILES`] tiles; written `3x3`. Cells and tiles are counted in reading order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Grid {
    rows: usize,
    cols: usize,
}

impl Grid {
    /// A grid of `rows` x `cols`; an input error if that is fewer than 2 or more than [`MAX_TILES`] tiles.
    pub fn new(rows: usize, cols: usize) -> Result<Self> {
        match rows.checked_mul(cols) {
            Some(0) | None => {
                Err(Error::input(format!("grid {rows}x{cols}: rows and columns must be between 1 and 100")))
            }
            Some(1) => Err(Error::input("grid 1x1: a single tile cannot be shuffled; use at least two, such as 1x2")),
            Some(n) if n > MAX_TILES => {
                Err(Error::input(format!("grid {rows}x{cols}: {n} tiles, but a puzzle has at most {MAX_TILES}")))
            }
            Some(_) => Ok(Grid { rows, cols }),
        }
    }

    /// Number of rows.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(self) -> usize {
        self.cols
    }

    /// Number of tiles.
    pub fn tiles(self) -> usize {
        self.rows * self.cols
    }

    /// `(row, column)` of a cell, both from 0.
    pub fn place(self, cell: usize) -> (usize, usize) {
        (cell / self.cols, cell % self.cols)
    }
}

impl Default for Grid {
    /// 3x3.
    fn default() -> Grid {
        Grid { rows: 3, cols: 3 }
    }
}

impl FromStr for Grid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |part: &str| -> Option<usize> {
            (!part.is_empty() && part.len() <= 4 && part.bytes().all(|b| b.is_ascii_digit()))
                .then(|| part.parse().ok())
                .flatten()
        };
        let (rows, cols) = text
            .split_once(['x', 'X'])
            .and_then(|(rows, cols)| Some((number(rows)?, number(cols)?)))
            .ok_or_else(|| Error::input(format!("grid `{text}`: write rows x columns, such as 3x3 or 1x2")))?;
        Grid::new(rows, cols)
    }
}

text_form!(Grid);

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.rows, self.cols)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_reads_back_as_it_was_written() {
        for text in ["3x3", "2x2", "1x2", "4x1", "10x10", "1x100"] {
            assert_eq!(text.parse::<Grid>().unwrap().to_string(), text);
        }
        let grid: Grid = "2X3".parse().unwrap();
        assert_eq!((grid.rows(), grid.cols(), grid.tiles()), (2, 3, 6));
        assert_eq!(grid.place(4), (1, 1));
    }

    #[test]
    fn a_grid_that_is_no_puzzle_is_refused_with_the_reason() {
        for (text, says) in [
            ("1x1", "single tile"),
            ("0x3", "between 1"),
            ("11x10", "at most 100"),
            ("9999x9999", "at most 100"),
            ("3", "rows x columns"),
            ("3x", "rows x columns"),
            ("3x3x3", "rows x columns"),
            ("-3x3", "rows x columns"),
            ("+3x3", "rows x columns"),
            ("99999999999999999999x2", "rows x columns"),
            ("٣x٣", "rows x columns"),
            ("", "rows x columns"),
        ] {
            let message = text.parse::<Grid>().unwrap_err().to_string();
            assert!(message.contains(says), "{text}: {message}");
        }
    }
}
