//! `jigsaw eval` on several benchmarks.

use super::eval_table::{benchmark_table, usage_line};
use super::output::{note, print, status};
use super::progress::EvalProgress;
use crate::eval::bench::{self, BenchmarkSettings, BenchmarkSpec, RESULTS_CSV, RESULTS_JSON};
use crate::model::{ComputeDtype, ModelLoader};
use crate::sampling::chat_api::{self, Endpoint};
use crate::{Error, Result};
use candle_core::Device;
use std::fmt::Write;
use std::path::Path;

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
    let results =
        bench::run(&prepared, model, &ModelLoader::new(device, ComputeDtype::F32), out, fresh, &mut |name, p| {
            bars.update(name, p)
        });
    bars.clear();
    let results = results?;
    let files = [RESULTS_JSON, RESULTS_CSV].map(|name| format!("{}\n", out.join(name).display())).concat();
    print(&format!("{}\n{}{files}", model.display(), benchmark_table(&results)))
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
    let key = chat_api::api_key_from_env();
    let results = bench::run_server(&prepared, endpoint, key, &note, out, fresh, &mut |name, p| bars.update(name, p));
    bars.clear();
    let (results, usage) = results?;
    let files = [RESULTS_JSON, RESULTS_CSV].map(|name| format!("{}\n", out.join(name).display())).concat();
    print(&format!("{}\n{}{}{files}", endpoint.name(), benchmark_table(&results), usage_line(usage)))
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
