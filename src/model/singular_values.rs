//! Singular values of a matrix, and what they say about its rank.
//!
//! They are the roots of the eigenvalues of the smaller Gram matrix (A Aᵀ or Aᵀ A), in f64: Householder reflections make it tridiagonal, and
//! bisection by Sturm counts finds its eigenvalues (Golub and Van Loan, Matrix Computations, sections 8.3 and 8.4). What lies below about 1e-7 of
//! the largest singular value is rounding.

use rayon::prelude::*;

/// Columns of the longer side that are turned into f64 at a time.
const CHUNK: usize = 1024;
/// Bisections of an eigenvalue: each halves its interval.
const BISECTIONS: usize = 80;

/// The singular values of the `rows x cols` matrix `values` (row-major), largest first: as many as its shorter side has elements.
pub fn singular_values(values: &[f32], rows: usize, cols: usize) -> Vec<f64> {
    let n = rows.min(cols);
    let (diagonal, beside) = tridiagonal(gram(values, rows, cols), n);
    let mut found: Vec<f64> =
        (0..n).into_par_iter().map(|k| eigenvalue(&diagonal, &beside, k).max(0.0).sqrt()).collect();
    found.sort_by(|a, b| b.total_cmp(a));
    found
}

/// Effective rank: exp of the entropy of the singular values divided by their sum (Roy and Vetterli 2007, "The effective rank: a measure of
/// effective dimensionality"). From 1 for one direction to the number of values where all are equal; `None` for a matrix of zeros.
pub fn effective_rank(singular_values: &[f64]) -> Option<f64> {
    let sum: f64 = singular_values.iter().sum();
    let shares = singular_values.iter().map(|value| value / sum).filter(|share| *share > 0.0);
    (sum > 0.0).then(|| (-shares.map(|share| share * share.ln()).sum::<f64>()).exp())
}

/// Stable rank: squared Frobenius norm over squared largest singular value. Never more than the rank; `None` for a matrix of zeros.
pub fn stable_rank(singular_values: &[f64]) -> Option<f64> {
    let largest = singular_values.iter().copied().fold(0.0, f64::max);
    (largest > 0.0).then(|| singular_values.iter().map(|value| (value / largest).powi(2)).sum())
}

/// The smaller Gram matrix, row-major.
fn gram(values: &[f32], rows: usize, cols: usize) -> Vec<f64> {
    let (n, length) = (rows.min(cols), rows.max(cols));
    let at = |i: usize, k: usize| f64::from(if rows <= cols { values[i * cols + k] } else { values[k * cols + i] });
    let mut found = vec![0.0; n * n];
    for start in (0..length).step_by(CHUNK) {
        let width = CHUNK.min(length - start);
        let piece: Vec<f64> =
            (0..n).flat_map(|i| (start..start + width).map(move |k| (i, k))).map(|(i, k)| at(i, k)).collect();
        let row = |i: usize| &piece[i * width..(i + 1) * width];
        found.par_chunks_mut(n).enumerate().for_each(|(i, sums)| {
            sums[..=i].iter_mut().enumerate().for_each(|(j, sum)| *sum += dot(row(i), row(j)));
        });
    }
    for i in 0..n {
        for j in 0..i {
            found[j * n + i] = found[i * n + j];
        }
    }
    found
}

/// With eight running sums, which the compiler turns into vector instructions.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a.zip(b) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// Diagonal and subdiagonal of a tridiagonal matrix with the eigenvalues of the symmetric `n x n` matrix `a`.
fn tridiagonal(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut diagonal, mut beside) = (Vec::with_capacity(n), Vec::with_capacity(n));
    for k in 0..n {
        diagonal.push(a[k * n + k]);
        if k + 1 == n {
            break;
        }
        // The reflection that leaves one element of column k below the diagonal.
        let mut v: Vec<f64> = (k + 1..n).map(|i| a[i * n + k]).collect();
        let norm = dot(&v, &v).sqrt();
        let left = if v[0] > 0.0 { -norm } else { norm };
        beside.push(left);
        v[0] -= left;
        let scale = dot(&v, &v);
        if k + 2 == n || scale == 0.0 {
            continue;
        }
        let below = &mut a[(k + 1) * n..];
        let mut p: Vec<f64> = below.par_chunks(n).map(|row| 2.0 / scale * dot(&row[k + 1..], &v)).collect();
        let half = dot(&p, &v) / scale;
        p.iter_mut().zip(&v).for_each(|(p, v)| *p -= half * v);
        below.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
            let (vi, pi) = (v[i], p[i]);
            row[k + 1..].iter_mut().zip(&v).zip(&p).for_each(|((held, v), p)| *held -= vi * p + pi * v);
        });
    }
    (diagonal, beside)
}

/// The `k`-th eigenvalue of a symmetric tridiagonal matrix, from the smallest, which is the 0th.
fn eigenvalue(diagonal: &[f64], beside: &[f64], k: usize) -> f64 {
    // Gershgorin's circles hold all of them.
    let radius = |i: usize| {
        let left = if i > 0 { beside[i - 1].abs() } else { 0.0 };
        left + beside.get(i).map_or(0.0, |right| right.abs())
    };
    let ends = |sign: f64| diagonal.iter().enumerate().map(move |(i, d)| d + sign * radius(i));
    let (mut low, mut high) = (ends(-1.0).fold(f64::INFINITY, f64::min), ends(1.0).fold(f64::NEG_INFINITY, f64::max));
    for _ in 0..BISECTIONS {
        let middle = low + (high - low) / 2.0;
        if smaller(diagonal, beside, middle) > k { high = middle } else { low = middle }
    }
    low + (high - low) / 2.0
}

/// How many eigenvalues are below `x`: the negative pivots of the matrix less `x`.
fn smaller(diagonal: &[f64], beside: &[f64], x: f64) -> usize {
    let (mut count, mut pivot) = (0, 1.0);
    for (i, d) in diagonal.iter().enumerate() {
        let removed = if i > 0 { beside[i - 1] * beside[i - 1] / pivot } else { 0.0 };
        pivot = d - x - removed;
        if pivot == 0.0 {
            pivot = f64::MIN_POSITIVE;
        }
        count += usize::from(pivot < 0.0);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// `scripts/reference/record_outcomes.py`: numpy's SVD.
    fn cases() -> Vec<Value> {
        let recorded: Value = serde_json::from_str(include_str!("../../tests/fixtures/outcomes.json")).unwrap();
        recorded["singular_values"].as_array().unwrap().clone()
    }

    fn numbers(case: &Value, name: &str) -> Vec<f64> {
        case[name].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    #[test]
    fn singular_values_and_ranks_are_numpys() {
        for case in cases() {
            let values: Vec<f32> = numbers(&case, "matrix").iter().map(|&v| v as f32).collect();
            let (rows, cols) = (case["rows"].as_u64().unwrap() as usize, case["cols"].as_u64().unwrap() as usize);
            let (got, expected) = (singular_values(&values, rows, cols), numbers(&case, "values"));
            assert_eq!(got.len(), expected.len());
            for (got, value) in got.iter().zip(&expected) {
                // Squares of small values are lost beside the largest one.
                assert!((got - value).abs() <= 1e-7 * expected[0], "{rows} x {cols}: {got} is not {value}");
            }
            for (got, name, most) in
                [(effective_rank(&got), "effective_rank", 1e-5), (stable_rank(&got), "stable_rank", 1e-9)]
            {
                let (got, expected) = (got.unwrap(), case[name].as_f64().unwrap());
                assert!((got - expected).abs() <= most * expected, "{rows} x {cols}: {name} {got} is not {expected}");
            }
        }
    }

    #[test]
    fn equal_values_have_full_rank_and_nothing_has_none() {
        let mut identity = vec![0.0f32; 25];
        (0..5).for_each(|i| identity[i * 6] = -0.3);
        let values = singular_values(&identity, 5, 5);
        assert!((effective_rank(&values).unwrap() - 5.0).abs() < 1e-9, "{values:?}");
        assert!((stable_rank(&values).unwrap() - 5.0).abs() < 1e-9);
        let zeros = singular_values(&[0.0; 6], 2, 3);
        assert_eq!((zeros.len(), effective_rank(&zeros), stable_rank(&zeros)), (2, None, None));
    }
}
