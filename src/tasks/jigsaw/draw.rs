//! A puzzle and the answers to it as pictures, for the report.

use super::{Grid, Permutation, restore};
use crate::tasks::scorer::{AnswerDrawing, GoldDrawing, RegionMark};
use crate::{Error, Result};
use image::RgbImage;

/// The original, and the numbers of the tiles at their places in the shuffled picture.
///
/// # Errors
/// An input error if the picture does not divide into the grid.
pub fn gold(shown: &RgbImage, grid: Grid, gold: &Permutation) -> Result<GoldDrawing> {
    if !divides(shown, grid) {
        let (width, height) = shown.dimensions();
        return Err(Error::input(format!("a picture of {width}x{height} pixels does not divide into {grid} tiles")));
    }
    Ok(GoldDrawing {
        kind: grid.to_string(),
        shown: marks(grid, shown, |place| (place + 1, true)),
        picture: restore(shown, grid, gold),
        legend: "A solid green frame is a tile in its place, a dashed orange one is not.",
    })
}

/// The picture that an answer restores; `None` if the picture does not divide into the grid.
pub fn answer(shown: &RgbImage, grid: Grid, gold: &Permutation, given: &Permutation) -> Option<AnswerDrawing> {
    if !divides(shown, grid) {
        return None;
    }
    let marks = marks(grid, shown, |cell| (given.places()[cell] + 1, given.places()[cell] == gold.places()[cell]));
    let right = marks.iter().filter(|mark| mark.right).count();
    let verdict = format!("{right} of {} tiles", grid.tiles());
    Some(AnswerDrawing { picture: restore(shown, grid, given), marks, verdict })
}

fn divides(image: &RgbImage, grid: Grid) -> bool {
    let (width, height) = (image.width() as usize, image.height() as usize);
    width > 0 && height > 0 && width.is_multiple_of(grid.cols()) && height.is_multiple_of(grid.rows())
}

fn marks(grid: Grid, image: &RgbImage, of_cell: impl Fn(usize) -> (usize, bool)) -> Vec<RegionMark> {
    let (w, h) = (f64::from(image.width()) / grid.cols() as f64, f64::from(image.height()) / grid.rows() as f64);
    (0..grid.tiles())
        .map(|cell| {
            let (row, col) = grid.place(cell);
            let (number, right) = of_cell(cell);
            RegionMark { x: col as f64 * w, y: row as f64 * h, w, h, label: number.to_string(), right }
        })
        .collect()
}
