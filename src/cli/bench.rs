//! The side of `jigsaw eval` that deals with several benchmarks, and the table over them.

use super::eval::usage_line;
use super::output::{print, status};
use super::progress::{NamedProgress, bar};
use crate::eval::EvalResult;
use crate::eval::bench::{self, BenchmarkSettings, BenchmarkSpec, RESULTS_CSV, RESULTS_JSON};
use crate::model::{Compute, ModelLoader};
use crate::sampling::server::{self, Endpoint};
use crate::sampling::{SampleProgress, Summary};
use crate::tasks::NoAnswer;
use crate::{Error, Result};
use candle_core::Device;
use std::fmt::Write;
use std::path::Path;

/// Numbers of a benchmark's own that are printed; the rest is in the files.
const PRINTED: usize = 6;
/// Bytes of files from which on reading them takes seconds.
const LARGE: u64 = 200 << 20;

/// Evaluate and print the table.
pub(super) fn evaluate(
    specs: &[BenchmarkSpec],
    settings: &BenchmarkSettings,
    model: &Path,
    device: &Device,
    out: &Path,
    fresh: bool,
) -> Result<()> {
    warn_of_large_files(specs);
    let prepared = bench::prepare(specs, settings, model)?;
    let mut bars = EvalProgress::default();
    let results = bench::run(&prepared, model, &ModelLoader::new(device, Compute::F32), out, fresh, &mut |name, p| {
        bars.update(name, p)
    });
    bars.clear();
    let results = results?;
    let files = [RESULTS_JSON, RESULTS_CSV].map(|name| format!("{}\n", out.join(name).display())).concat();
    print(&format!("{}\n{}{files}", model.display(), table(&results)))
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
    let mut bars = EvalProgress::default();
    let key = server::api_key_from_env();
    let results = bench::run_server(&prepared, endpoint, key, out, fresh, &mut |name, p| bars.update(name, p));
    bars.clear();
    let (results, usage) = results?;
    let files = [RESULTS_JSON, RESULTS_CSV].map(|name| format!("{}\n", out.join(name).display())).concat();
    print(&format!("{}\n{}{}{files}", endpoint.name(), table(&results), usage_line(usage)))
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
    print(&format!("{}{lines}", table(&results)))
}

/// A bar with the name of the benchmark that is under way.
#[derive(Default)]
pub(super) struct EvalProgress(NamedProgress);

impl EvalProgress {
    pub(super) fn update(&mut self, name: &str, p: SampleProgress) {
        let new = || bar(p.total, "{prefix} {pos}/{len}, {msg}, {eta} left");
        let right = format!("{:.1} % right", 100.0 * p.correct as f64 / p.responses.max(1) as f64);
        self.0.show(name, p.done as u64, new).set_message(right);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// One line for each benchmark, and below it the numbers that its own tables have.
pub(super) fn table(results: &[(String, EvalResult)]) -> String {
    let width = results.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max("bench".len());
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<width$}  {:>6}  {:>7}  {:>18}  {:>8}  {:>8}  {:>6}  {:>8}",
        "bench", "n", "score", "95 % interval", "lenient", "unparsed", "tokens", "tokens/s"
    );
    for (name, result) in results {
        let s: &Summary = &result.summary;
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let interval = format!("{:.1} to {:.1} %", 100.0 * s.value.low, 100.0 * s.value.high);
        let speed = s.tokens_per_second.map_or("-".into(), |speed| format!("{speed:.0}"));
        let _ = writeln!(
            text,
            "{name:<width$}  {:>6}  {:>7}  {interval:>18}  {:>8}  {:>8}  {:>6.1}  {speed:>8}",
            s.examples,
            percent(s.value.value),
            percent(s.lenient.value),
            percent(1.0 - s.parsed.value),
            s.mean_tokens,
        );
        for (name, value) in own_numbers(s) {
            let _ = writeln!(text, "{:<width$}  {name}: {value}", "");
        }
        for why in [NoAnswer::Refused, NoAnswer::Empty] {
            if let Some(n) = s.faults.get(why.fault()) {
                let _ = writeln!(text, "{:<width$}  {}: {n}", "", why.fault());
            }
        }
        if s.truncated > 0 {
            let _ = writeln!(text, "{:<width$}  cut off by the length limit: {}", "", s.truncated);
        }
    }
    text
}

/// The first of a benchmark's own numbers by the strict reading, except those in the line above and those of its categories.
fn own_numbers(s: &Summary) -> Vec<(&str, String)> {
    let own = s.aggregates.iter().filter(|n| !n.name.contains('/') && !["score", "parsed"].contains(&n.name.as_str()));
    // Everything but MME's sums of percentages.
    const SHARES: [&str; 7] = ["accuracy", "precision", "recall", "f1", "yes-ratio", "unknown", "partial-credit"];
    let value = |name: &str, v: f64| match SHARES.contains(&name) {
        true => format!("{:.1} %", 100.0 * v),
        false => format!("{v:.1}"),
    };
    own.take(PRINTED).map(|n| (n.name.as_str(), value(&n.name, n.value))).collect()
}
