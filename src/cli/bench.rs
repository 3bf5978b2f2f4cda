//! `jigsaw eval` on several benchmarks.

use super::eval_table::{benchmark_table, usage_line};
use super::output::{note, print, status};
use super::progress::EvalProgress;
use crate::comm::Communicator;
use crate::eval::bench::{self, BenchmarkSettings, BenchmarkSpec, PreparedBenchmark, RESULTS_CSV, RESULTS_JSON};
use crate::eval::{EvalResult, PREDICTIONS};
use crate::model::ModelLoader;
use crate::sampling::chat_api::{self, Endpoint, TokenUsage};
use crate::{Error, Result};
use std::fmt::Write;
use std::path::Path;

/// Bytes of files from which on reading them takes seconds.
const LARGE: u64 = 200 << 20;

/// Evaluate and print the table.
pub(super) fn evaluate(
    specs: &[BenchmarkSpec],
    settings: &BenchmarkSettings,
    model: &Path,
    (loader, comm): (&ModelLoader, &dyn Communicator),
    out: &Path,
    fresh: bool,
) -> Result<()> {
    warn_of_large_files(specs);
    let prepared = bench::prepare(specs, settings, model)?;
    tell_of_predictions(&prepared);
    let mut bars = EvalProgress::default();
    let results = bench::run(&prepared, model, (loader, comm), out, fresh, &mut |name, p| bars.update(name, p));
    bars.clear();
    print(&format!("{}\n{}", model.display(), outcome(&prepared, &results?, None, out)))
}

/// As [`evaluate`], by the model behind an address.
pub(super) fn evaluate_server(
    specs: &[BenchmarkSpec],
    settings: &BenchmarkSettings,
    endpoint: &Endpoint,
    out: &Path,
    fresh: bool,
) -> Result<()> {
    warn_of_large_files(specs);
    let prepared = bench::prepare_for_server(specs, settings)?;
    tell_of_predictions(&prepared);
    let mut bars = EvalProgress::default();
    let key = chat_api::api_key_from_env();
    let results = bench::run_server(&prepared, endpoint, key, &note, out, fresh, &mut |name, p| bars.update(name, p));
    bars.clear();
    let (results, usage) = results?;
    print(&format!("{}\n{}", endpoint.name(), outcome(&prepared, &results, Some(usage), out)))
}

/// Say at once which benchmarks are not scored.
fn tell_of_predictions(prepared: &[PreparedBenchmark]) {
    for bench in prepared.iter().filter(|bench| !bench.is_scored()) {
        status(&format!(
            "{}: {} has no answers (column `answer`): the responses are written down and not scored",
            bench.name,
            bench.path.display()
        ));
    }
}

/// The table of what was scored, and the files that were written.
fn outcome(
    prepared: &[PreparedBenchmark],
    results: &[(String, EvalResult)],
    usage: Option<TokenUsage>,
    out: &Path,
) -> String {
    let (mut text, mut files) = (String::new(), Vec::new());
    if !results.is_empty() {
        text += &benchmark_table(results);
        files.extend([RESULTS_JSON, RESULTS_CSV].map(|name| out.join(name)));
    }
    text += &usage.map(usage_line).unwrap_or_default();
    let unscored = prepared.iter().filter(|bench| !bench.is_scored());
    files.extend(unscored.map(|bench| out.join(&bench.name).join(PREDICTIONS)));
    files.iter().for_each(|file| text += &format!("{}\n", file.display()));
    text
}

fn warn_of_large_files(specs: &[BenchmarkSpec]) {
    let bytes: u64 = specs.iter().filter_map(|spec| std::fs::metadata(&spec.path).ok()).map(|m| m.len()).sum();
    if bytes > LARGE {
        status(&format!("reading and checking {:.1} GB of benchmark files", bytes as f64 / 1e9));
    }
}

/// Score stored responses again and print what they come to.
pub(super) fn rescore(out: &Path) -> Result<()> {
    let mut lines = String::new();
    let results = bench::rescore(out, &mut |name, p| {
        if p.done < p.total {
            let _ =
                writeln!(lines, "{name}: {} of {} examples have responses; evaluate on to the end", p.done, p.total);
        }
    })?;
    if results.is_empty() && lines.is_empty() {
        return Err(Error::input(format!("no responses in {}", out.display())));
    }
    print(&format!("{}{lines}", benchmark_table(&results)))
}
