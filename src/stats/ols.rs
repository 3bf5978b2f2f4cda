//! Ordinary least squares with cluster-robust errors, and effects coding for factors.

use super::intervals::Interval;
use super::student::{student_t_quantile, student_t_two_sided};

/// A pivot below this share of its column's sum of squares: the column is a combination of those before it.
const DEPENDENT: f64 = 1e-10;

/// A fitted linear model.
#[derive(Debug, Clone, PartialEq)]
pub struct Ols {
    /// Coefficients, in the order of the columns.
    pub coefficients: Vec<f64>,
    /// Share of the variance of y that the model explains; NaN if y does not vary.
    pub r2: f64,
    /// Clusters.
    pub clusters: usize,
    degrees: f64,
    covariance: Vec<Vec<f64>>,
}

/// A coefficient, or a linear combination of coefficients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coefficient {
    /// Its value with Student's t interval on G - 1 degrees of freedom for G clusters, never more than observations less columns; unknown ends are
    /// infinite.
    pub value: Interval,
    /// Two-sided p-value of 0; NaN where the error is unknown.
    pub p: f64,
}

impl Ols {
    /// Fit y to the columns of `rows` (one row for each observation, all of one length, without an implied intercept). Errors are robust to
    /// dependence within the clusters that `clusters` numbers (Liang and Zeger 1986), with the CR1 factor G / (G - 1) (n - 1) / (n - k) of
    /// Stata and statsmodels. `None` if there are no more observations than columns are needed for, or columns depend on each other.
    pub fn fit(rows: &[Vec<f64>], y: &[f64], clusters: &[usize]) -> Option<Ols> {
        let (n, k) = (rows.len(), rows.first()?.len());
        if n < k || y.len() != n || clusters.len() != n {
            return None;
        }
        let mut gram = vec![vec![0.0; k]; k];
        let mut moments = vec![0.0; k];
        for (row, y) in rows.iter().zip(y) {
            for i in 0..k {
                moments[i] += row[i] * y;
                (0..k).for_each(|j| gram[i][j] += row[i] * row[j]);
            }
        }
        let bread = inverse(gram)?;
        let coefficients: Vec<f64> = bread.iter().map(|row| dot(row, &moments)).collect();
        let residuals: Vec<f64> = rows.iter().zip(y).map(|(row, y)| y - dot(row, &coefficients)).collect();
        let mut names: Vec<usize> = clusters.to_vec();
        names.sort_unstable();
        names.dedup();
        let mut scores = vec![vec![0.0; k]; names.len()];
        for ((row, residual), cluster) in rows.iter().zip(&residuals).zip(clusters) {
            let own = &mut scores[names.partition_point(|name| name < cluster)];
            own.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * residual);
        }
        let (groups, n, free) = (names.len() as f64, n as f64, (n - k) as f64);
        let factor = groups / (groups - 1.0) * (n - 1.0) / free;
        // What each cluster adds to each coefficient's error.
        let parts: Vec<Vec<f64>> =
            scores.iter().map(|score| bread.iter().map(|row| dot(row, score)).collect()).collect();
        let entry = |i: usize, j: usize| factor * parts.iter().map(|part| part[i] * part[j]).sum::<f64>();
        let covariance = (0..k).map(|i| (0..k).map(|j| entry(i, j)).collect()).collect();
        let mean = y.iter().sum::<f64>() / n;
        let total: f64 = y.iter().map(|y| (y - mean).powi(2)).sum();
        let left: f64 = residuals.iter().map(|r| r * r).sum();
        let r2 = if total > 0.0 { 1.0 - left / total } else { f64::NAN };
        let degrees = (groups - 1.0).min(free);
        Some(Ols { coefficients, r2, clusters: names.len(), degrees, covariance })
    }

    /// The sum of the coefficients, each times its weight.
    pub fn combination(&self, weights: &[f64]) -> Coefficient {
        let value = dot(&self.coefficients, weights);
        let error = self.covariance.iter().zip(weights).map(|(row, w)| w * dot(row, weights)).sum::<f64>().sqrt();
        let degrees = self.degrees;
        if !error.is_finite() || degrees < 1.0 {
            let value = Interval { value, low: f64::NEG_INFINITY, high: f64::INFINITY };
            return Coefficient { value, p: f64::NAN };
        }
        let half = student_t_quantile(0.975, degrees) * error;
        let p = match error {
            0.0 if value == 0.0 => 1.0,
            0.0 => 0.0,
            _ => student_t_two_sided(value / error, degrees),
        };
        Coefficient { value: Interval { value, low: value - half, high: value + half }, p }
    }

    /// The coefficient of a column.
    pub fn coefficient(&self, column: usize) -> Coefficient {
        let weights: Vec<f64> = (0..self.coefficients.len()).map(|i| f64::from(u8::from(i == column))).collect();
        self.combination(&weights)
    }
}

/// The columns of a factor in effects coding: one fewer than it has levels. Each column is 1 for its level, -1 for the last one and 0 for the
/// others, so that the effects of all levels sum to zero and that of the last is the negative sum of the coefficients.
pub fn effects(level: usize, levels: usize) -> Vec<f64> {
    (0..levels.saturating_sub(1))
        .map(|column| match level {
            own if own == column => 1.0,
            last if last + 1 == levels => -1.0,
            _ => 0.0,
        })
        .collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The inverse of a symmetric positive definite matrix, by Gauss-Jordan elimination; `None` if a column depends on those before it.
fn inverse(mut matrix: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    let k = matrix.len();
    let diagonal: Vec<f64> = (0..k).map(|i| matrix[i][i]).collect();
    let mut inverse: Vec<Vec<f64>> = (0..k).map(|i| (0..k).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for column in 0..k {
        let pivot = matrix[column][column];
        if pivot.is_nan() || pivot <= DEPENDENT * diagonal[column] {
            return None;
        }
        for values in [&mut matrix[column], &mut inverse[column]] {
            values.iter_mut().for_each(|value| *value /= pivot);
        }
        let (of_matrix, of_inverse) = (matrix[column].clone(), inverse[column].clone());
        for row in (0..k).filter(|row| *row != column) {
            let factor = matrix[row][column];
            matrix[row].iter_mut().zip(&of_matrix).for_each(|(value, own)| *value -= factor * own);
            inverse[row].iter_mut().zip(&of_inverse).for_each(|(value, own)| *value -= factor * own);
        }
    }
    Some(inverse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture;

    fn indices(case: &serde_json::Value, name: &str) -> Vec<usize> {
        fixture::numbers(case, name).iter().map(|&x| x as usize).collect()
    }

    #[test]
    fn a_factorial_model_has_the_coefficients_and_clustered_intervals_of_statsmodels() {
        for case in fixture::cases("factorial") {
            let (data, method) = (indices(&case, "data"), indices(&case, "method"));
            let levels = |of: &[usize]| of.iter().max().unwrap() + 1;
            let rows: Vec<Vec<f64>> = fixture::numbers(&case, "rate")
                .iter()
                .enumerate()
                .map(|(i, rate)| {
                    let (a, b) = (effects(data[i], levels(&data)), effects(method[i], levels(&method)));
                    let slopes: Vec<f64> = a.iter().chain(&b).map(|x| x * rate).collect();
                    [vec![1.0], a, b, vec![*rate], slopes].concat()
                })
                .collect();
            let fit = Ols::fit(&rows, &fixture::numbers(&case, "y"), &indices(&case, "seed")).unwrap();
            fixture::close(fit.r2, fixture::number(&case, "r2"), "r2");
            let expected = ["values", "low", "high", "p"].map(|name| fixture::numbers(&case, name));
            for i in 0..rows[0].len() {
                let got = fit.coefficient(i);
                for (got, expected) in [got.value.value, got.value.low, got.value.high, got.p].iter().zip(&expected) {
                    fixture::close(*got, expected[i], &format!("column {i}"));
                }
            }
            // The effect of the last level of data: statsmodels' t_test of the negative sum.
            let last: Vec<f64> =
                (0..rows[0].len()).map(|i| if (1..levels(&data)).contains(&i) { -1.0 } else { 0.0 }).collect();
            let got = fit.combination(&last);
            for (got, name) in [(got.value.value, "last"), (got.value.low, "last_low"), (got.value.high, "last_high")] {
                fixture::close(got, fixture::number(&case, name), name);
            }
        }
    }

    #[test]
    fn observations_that_are_their_own_clusters_have_the_robust_interval_of_statsmodels() {
        // sm.OLS([1, 2, 2, 4, 7], sm.add_constant(range(5))).fit(cov_type="HC1", use_t=True): t on 3 degrees of freedom.
        let rows: Vec<Vec<f64>> = (0..5).map(|x| vec![1.0, f64::from(x)]).collect();
        let slope = Ols::fit(&rows, &[1.0, 2.0, 2.0, 4.0, 7.0], &[0, 1, 2, 3, 4]).unwrap().coefficient(1);
        let expected = [1.4, 0.407_131_155_033_377_3, 2.392_868_844_966_623, 0.020_645_065_588_073_1];
        for (got, expected) in [slope.value.value, slope.value.low, slope.value.high, slope.p].iter().zip(expected) {
            assert!((got - expected).abs() < 1e-9, "{got} is not {expected}");
        }
    }

    #[test]
    fn effects_of_all_levels_sum_to_zero() {
        assert_eq!([effects(0, 3), effects(1, 3), effects(2, 3)], [vec![1.0, 0.0], vec![0.0, 1.0], vec![-1.0, -1.0]]);
        assert!(effects(0, 1).is_empty());
    }

    #[test]
    fn columns_that_depend_on_each_other_and_too_few_observations_are_no_model() {
        let y = [1.0, 2.0, 4.0];
        assert!(Ols::fit(&[vec![1.0, 2.0], vec![1.0, 2.0], vec![1.0, 2.0]], &y, &[0, 1, 2]).is_none());
        assert!(Ols::fit(&[vec![1.0, 2.0]], &y[..1], &[0]).is_none());
        assert!(Ols::fit(&[], &[], &[]).is_none());
        // As many columns as observations, or a single cluster: values without intervals.
        let exact = Ols::fit(&[vec![1.0, 0.0], vec![1.0, 1.0]], &y[..2], &[0, 1]).unwrap().coefficient(1);
        assert!((exact.value.value - 1.0).abs() < 1e-12 && exact.value.high == f64::INFINITY && exact.p.is_nan());
        let together = Ols::fit(&[vec![1.0], vec![1.0], vec![1.0]], &y, &[4, 4, 4]).unwrap().coefficient(0);
        assert!(together.value.low == f64::NEG_INFINITY && together.p.is_nan());
    }
}
