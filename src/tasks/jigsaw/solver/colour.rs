//! Where a tile belongs, by ridge regression on its colours.

use crate::tasks::jigsaw::Grid;
use crate::tasks::jigsaw::tile_features::TileFeatures;
use crate::{Error, Result};

/// Statistics of a tile: its mean colour, upper half minus lower half, left half minus right half.
const STATISTICS: usize = 9;
/// Weight of the squares of the coefficients, for statistics of mean 0 and variance 1; that of the errors is 1 a tile.
const RIDGE: f64 = 1.0;

/// The statistics of a tile, colours in shares of 255.
pub fn statistics(features: &TileFeatures<'_>, tile: usize) -> [f64; STATISTICS] {
    let (mean, [upper, lower, left, right]) = (features.mean(tile), features.halves(tile));
    std::array::from_fn(|i| {
        let channel = i % 3;
        let value = match i / 3 {
            0 => mean[channel],
            1 => upper[channel] - lower[channel],
            _ => left[channel] - right[channel],
        };
        value / 255.0
    })
}

/// Row and column of a cell, from the middle of the grid.
pub fn place(grid: Grid, cell: usize) -> [f64; 2] {
    let (row, col) = grid.place(cell);
    [row as f64 - (grid.rows() - 1) as f64 / 2.0, col as f64 - (grid.cols() - 1) as f64 / 2.0]
}

/// Predicts the place of a tile: y = mean(y) + sum over statistics of weight (x - mean(x)) / sd(x).
#[derive(Debug, Clone)]
pub struct ColourModel {
    mean: [f64; STATISTICS],
    /// For row and column: weight / standard deviation.
    weights: [[f64; STATISTICS]; 2],
    /// Mean row and column.
    intercept: [f64; 2],
}

impl ColourModel {
    /// Row and column from the middle of the grid.
    pub fn predict(&self, x: &[f64; STATISTICS]) -> [f64; 2] {
        std::array::from_fn(|side| {
            let terms = (0..STATISTICS).map(|i| self.weights[side][i] * (x[i] - self.mean[i]));
            self.intercept[side] + terms.sum::<f64>()
        })
    }
}

/// Sums over training tiles.
#[derive(Debug, Clone, Default)]
pub struct Sums {
    n: f64,
    x: [f64; STATISTICS],
    y: [f64; 2],
    xx: [[f64; STATISTICS]; STATISTICS],
    xy: [[f64; STATISTICS]; 2],
}

impl Sums {
    /// A tile with these statistics that belongs at `y`.
    pub fn add(&mut self, x: &[f64; STATISTICS], y: [f64; 2]) {
        self.n += 1.0;
        for i in 0..STATISTICS {
            self.x[i] += x[i];
            (0..STATISTICS).for_each(|j| self.xx[i][j] += x[i] * x[j]);
            (0..2).for_each(|side| self.xy[side][i] += x[i] * y[side]);
        }
        (0..2).for_each(|side| self.y[side] += y[side]);
    }

    /// The weights that minimise the squared errors plus [`RIDGE`] times the squared weights.
    ///
    /// # Errors
    /// An input error if there are no tiles.
    pub fn fit(&self) -> Result<ColourModel> {
        if self.n == 0.0 {
            return Err(Error::input("no puzzle to learn the places of colours from"));
        }
        let mean = self.x.map(|sum| sum / self.n);
        let intercept = self.y.map(|sum| sum / self.n);
        let scale: [f64; STATISTICS] = std::array::from_fn(|i| {
            let variance = self.xx[i][i] / self.n - mean[i] * mean[i];
            // A statistic that never varies has no weight; what is left of it is rounding.
            if variance > 1e-12 { 1.0 / variance.sqrt() } else { 0.0 }
        });
        let mut matrix: [[f64; STATISTICS]; STATISTICS] = std::array::from_fn(|i| {
            std::array::from_fn(|j| {
                let covariance = (self.xx[i][j] - self.n * mean[i] * mean[j]) * scale[i] * scale[j];
                covariance + if i == j { RIDGE } else { 0.0 }
            })
        });
        let mut targets: [[f64; STATISTICS]; 2] = std::array::from_fn(|side| {
            std::array::from_fn(|i| (self.xy[side][i] - self.n * mean[i] * intercept[side]) * scale[i])
        });
        solve(&mut matrix, &mut targets);
        let weights = targets.map(|solved| std::array::from_fn(|i| solved[i] * scale[i]));
        Ok(ColourModel { mean, weights, intercept })
    }
}

/// Solve `matrix` x = target for each target, in place, by Gaussian elimination; the matrix is positive definite, so no pivoting is needed.
fn solve(matrix: &mut [[f64; STATISTICS]; STATISTICS], targets: &mut [[f64; STATISTICS]; 2]) {
    for i in 0..STATISTICS {
        for row in 0..STATISTICS {
            if row == i {
                continue;
            }
            let factor = matrix[row][i] / matrix[i][i];
            let pivot = matrix[i];
            matrix[row].iter_mut().zip(pivot).for_each(|(value, above)| *value -= factor * above);
            targets.iter_mut().for_each(|target| target[row] -= factor * target[i]);
        }
    }
    targets.iter_mut().for_each(|target| (0..STATISTICS).for_each(|i| target[i] /= matrix[i][i]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Fixture {
        x: Vec<[f64; STATISTICS]>,
        y: Vec<[f64; 2]>,
        test: Vec<[f64; STATISTICS]>,
        predicted: Vec<[f64; 2]>,
    }

    /// scripts/reference/record_solvers.py: the same regression by numpy, on standardised statistics.
    #[test]
    fn predictions_are_those_of_numpy() {
        let text = include_str!("../../../../tests/fixtures/solvers.json");
        let fixture: Fixture = serde_json::from_str(text).unwrap();
        let mut sums = Sums::default();
        fixture.x.iter().zip(&fixture.y).for_each(|(x, &y)| sums.add(x, y));
        let model = sums.fit().unwrap();
        assert!(!fixture.test.is_empty());
        for (x, expected) in fixture.test.iter().zip(&fixture.predicted) {
            let found = model.predict(x);
            (0..2).for_each(|side| assert!((found[side] - expected[side]).abs() < 1e-9, "{found:?} {expected:?}"));
        }
    }
}
