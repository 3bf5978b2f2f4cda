//! Two ways to solve a puzzle without a model, as lines to measure models against: by the borders of its tiles, and by their colour.
//!
//! Neither knows the answer. `edges` shows what the pixels at the seams tell; `colour` shows what can be had without looking at seams at all,
//! because the sky is above and the ground is below.

mod colour;
mod search;

use super::tile_features::{TileEdge, TileFeatures};
use super::{Grid, ORDER, Permutation, permutation_answer, respond};
use crate::tasks::meta::meta;
use crate::tasks::task::Task;
use crate::{Error, Result};
use colour::ColourModel;
use search::cheapest_order;
use std::fmt;

/// How a puzzle is solved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SolverKind {
    /// The order in which the borders of neighbouring tiles differ least
    Edges,
    /// The order that fits the places predicted from the colours of the tiles, by ridge regression on training puzzles
    Colour,
}

impl SolverKind {
    /// Both.
    pub const ALL: [SolverKind; 2] = [SolverKind::Edges, SolverKind::Colour];
    /// Raised whenever some answer would change.
    pub const VERSION: u32 = 1;

    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            SolverKind::Edges => "edges",
            SolverKind::Colour => "colour",
        }
    }
}

/// The name in results: `solver: edges`.
impl fmt::Display for SolverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "solver: {}", self.name())
    }
}

/// Solves puzzles, once it is ready to.
#[derive(Debug, Clone)]
pub enum Solver {
    /// By borders.
    Edges,
    /// By colour.
    Colour(Box<ColourModel>),
}

impl Solver {
    /// Most training puzzles that a solver learns from.
    pub const TRAINED_ON: usize = 4096;

    /// The solver by colour, from the first [`Solver::TRAINED_ON`] puzzles of `train`.
    ///
    /// # Errors
    /// An input error for a record that is no puzzle.
    pub fn by_colour(train: &dyn Task) -> Result<Solver> {
        let mut model = colour::Sums::default();
        for i in 0..train.len().min(Solver::TRAINED_ON) {
            with_tiles(train, i, |grid, features| {
                let record = train.example(i)?;
                let order = permutation_answer(&record.answer, grid.tiles());
                let order = order.map_err(|fault| Error::input(format!("field `answer`: {fault}")))?;
                for (cell, &tile) in order.places().iter().enumerate() {
                    model.add(&colour::statistics(features, tile), colour::place(grid, cell));
                }
                Ok(())
            })?;
        }
        Ok(Solver::Colour(Box::new(model.fit()?)))
    }

    /// The response to example `i`, in the form that it asks for.
    ///
    /// # Errors
    /// An input error for a record that is no puzzle of the order of all tiles, or whose picture does not divide into its grid.
    pub fn respond(&self, task: &dyn Task, i: usize) -> Result<String> {
        with_tiles(task, i, |grid, features| {
            let order = self.order(grid, features);
            Ok(respond(&order, &order.to_string(), meta(&*task.example(i)?, "style")?))
        })
    }

    fn order(&self, grid: Grid, features: &TileFeatures<'_>) -> Permutation {
        let tiles = grid.tiles();
        match self {
            Solver::Edges => {
                let seams = |side| -> Vec<Vec<f64>> {
                    (0..tiles).map(|a| (0..tiles).map(|b| features.seam(a, side, b)).collect()).collect()
                };
                let (right, bottom) = (seams(TileEdge::Right), seams(TileEdge::Bottom));
                cheapest_order(tiles, |placed, tile| {
                    let cell = placed.len();
                    let left = (cell % grid.cols() > 0).then(|| right[placed[cell - 1]][tile]);
                    let above = (cell >= grid.cols()).then(|| bottom[placed[cell - grid.cols()]][tile]);
                    left.unwrap_or(0.0) + above.unwrap_or(0.0)
                })
            }
            Solver::Colour(model) => {
                let predicted: Vec<[f64; 2]> =
                    (0..tiles).map(|tile| model.predict(&colour::statistics(features, tile))).collect();
                cheapest_order(tiles, |placed, tile| {
                    let (there, place) = (predicted[tile], colour::place(grid, placed.len()));
                    (there[0] - place[0]).powi(2) + (there[1] - place[1]).powi(2)
                })
            }
        }
    }
}

/// Look at the tiles of example `i`; errors name its record.
fn with_tiles<T>(task: &dyn Task, i: usize, look: impl FnOnce(Grid, &TileFeatures<'_>) -> Result<T>) -> Result<T> {
    let record = task.example(i)?;
    let look = || {
        if record.task != ORDER {
            return Err(Error::input(format!(
                "field `task`: `{}`; the solvers order the tiles of `{ORDER}` puzzles only",
                record.task
            )));
        }
        let grid: Grid = meta(&record, "grid")?;
        let images = task.images(i)?;
        let image = images.first().ok_or_else(|| Error::input("field `images` is empty"))?;
        look(grid, &TileFeatures::of_puzzle(image, grid)?)
    };
    look().map_err(|e: Error| e.context(format!("record `{}`", record.id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use crate::tasks::jigsaw::shuffle;
    use image::{Rgb, RgbImage};

    fn solved(solver: &Solver, original: &RgbImage, grid: &str, seed: u64) -> (Permutation, Permutation) {
        let grid: Grid = grid.parse().unwrap();
        let order = Permutation::random(grid.tiles(), &mut rng::stream(seed, "test", &[]));
        let shown = shuffle(original, grid, &order);
        (solver.order(grid, &TileFeatures::new(&shown, grid).unwrap()), order)
    }

    #[test]
    fn a_smooth_picture_is_put_together_by_its_edges() {
        // Smooth, and no two places alike.
        let smooth = |x: u32, y: u32| Rgb([(x * 3) as u8, (y * 3) as u8, ((x * x + 2 * y * y) / 140) as u8]);
        for (grid, width, height) in
            [("2x2", 56, 56), ("3x3", 84, 84), ("1x5", 80, 16), ("5x1", 16, 80), ("4x3", 60, 80)]
        {
            let original = RgbImage::from_fn(width, height, smooth);
            for seed in 0..5 {
                let (found, order) = solved(&Solver::Edges, &original, grid, seed);
                assert_eq!(found, order, "{grid}, seed {seed}");
            }
        }
    }

    #[test]
    fn colours_that_belong_to_places_are_learnt_and_their_absence_is_not_made_up() {
        let grid: Grid = "3x3".parse().unwrap();
        let lit = |shift: u8| RgbImage::from_fn(84, 84, move |x, y| Rgb([(x * 2) as u8, (y * 2) as u8, shift]));
        let mut sums = colour::Sums::default();
        for shift in [0, 40, 80, 200] {
            let picture = lit(shift);
            let features = TileFeatures::new(&picture, grid).unwrap();
            (0..9).for_each(|cell| sums.add(&colour::statistics(&features, cell), colour::place(grid, cell)));
        }
        let solver = Solver::Colour(Box::new(sums.fit().unwrap()));
        for seed in 0..5 {
            let (found, order) = solved(&solver, &lit(120), "3x3", seed);
            assert_eq!(found, order, "seed {seed}");
        }
        // A picture of one colour tells nothing: every answer is the same one.
        let plain = RgbImage::from_pixel(84, 84, Rgb([90, 90, 90]));
        assert_eq!(solved(&solver, &plain, "3x3", 1).0, solved(&solver, &plain, "3x3", 2).0);
        assert!(colour::Sums::default().fit().is_err(), "nothing to learn from");
    }
}
