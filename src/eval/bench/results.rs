//! The results of several benchmarks, in one file for programs and one for spreadsheets.

use crate::eval::EvalResult;
use crate::io::files;
use crate::sampling::Summary;
use crate::stats::Interval;
use crate::{Error, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The file for programs.
pub const RESULTS_JSON: &str = "results.json";
/// The file for spreadsheets: one number in each line.
pub const RESULTS_CSV: &str = "results.csv";

/// A line of `results.json`.
#[derive(Serialize)]
struct Row<'a> {
    bench: &'a str,
    model: &'a PathBuf,
    data: &'a PathBuf,
    #[serde(flatten)]
    summary: &'a Summary,
}

/// Write `results.json` (for each benchmark its name, model, file and whole summary) and `results.csv` (columns `bench`,
/// `metric`, `n`, `value`, `low`, `high`; the ends of the 95 % interval are empty where there is none) into `out`.
pub fn write_results(out: &Path, results: &[(String, EvalResult)]) -> Result<()> {
    let rows: Vec<Row> = results
        .iter()
        .map(|(bench, r)| Row { bench, model: &r.about.model, data: &r.about.data, summary: &r.summary })
        .collect();
    files::write_json(&out.join(RESULTS_JSON), &rows)?;
    let path = out.join(RESULTS_CSV);
    let failed = |e: String| Error::failed(format!("cannot write {}: {e}", path.display()));
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(["bench", "metric", "n", "value", "low", "high"]).map_err(|e| failed(e.to_string()))?;
    for (bench, result) in results {
        for (metric, n, value, low, high) in metrics(&result.summary) {
            let fields = [bench.clone(), metric, n.to_string(), number(value), number(low), number(high)];
            csv.write_record(fields).map_err(|e| failed(e.to_string()))?;
        }
    }
    let bytes = csv.into_inner().map_err(|e| failed(e.to_string()))?;
    files::write_atomic(&path, &bytes)
}

/// Name, number of examples, value and interval of each figure.
fn metrics(s: &Summary) -> Vec<(String, usize, f64, f64, f64)> {
    let whole = |name: &str, i: Interval| (name.to_string(), s.examples, i.value, i.low, i.high);
    let alone = |name: &str, value: f64| (name.to_string(), s.examples, value, f64::NAN, f64::NAN);
    let unparsed = Interval { value: 1.0 - s.parsed.value, low: 1.0 - s.parsed.high, high: 1.0 - s.parsed.low };
    let mut metrics = vec![
        whole("score", s.value),
        whole("lenient", s.lenient),
        whole("unparsed", unparsed),
        whole("exact-form", s.exact_form.unwrap_or(Interval::UNKNOWN)),
        alone("truncated", s.truncated as f64 / (s.examples * s.samples).max(1) as f64),
        alone("mean_tokens", s.mean_tokens),
    ];
    metrics.extend(s.tokens_per_second.map(|speed| alone("tokens_per_second", speed)));
    metrics.extend(s.chance.map(|chance| alone("chance", chance.accuracy)));
    // The first numbers of a mean are those above.
    let own =
        s.aggregates.iter().filter(|n| !["score", "parsed", "exact-form", "lenient/score"].contains(&n.name.as_str()));
    metrics.extend(own.map(|n| (n.name.clone(), n.n, n.value, f64::NAN, f64::NAN)));
    metrics
}

/// Empty where there is no number.
fn number(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { String::new() }
}
