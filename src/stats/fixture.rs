//! Reads `tests/fixtures/stats.json`: numbers of scipy and statsmodels, recorded by `scripts/reference/record_stats.py`.

use serde_json::Value;

/// The cases recorded under `name`.
pub fn cases(name: &str) -> Vec<Value> {
    let recorded: Value = serde_json::from_str(include_str!("../../tests/fixtures/stats.json")).unwrap();
    let cases = recorded[name].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

/// A number of a case.
pub fn number(case: &Value, name: &str) -> f64 {
    case[name].as_f64().unwrap()
}

/// A list of numbers of a case.
pub fn numbers(case: &Value, name: &str) -> Vec<f64> {
    case[name].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// Equal to 1e-9, relative to numbers above 1.
pub fn close(got: f64, expected: f64, what: &str) {
    assert!((got - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{what}: {got} is not {expected}");
}
