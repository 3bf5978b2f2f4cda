//! `jigsaw report`: runs and evaluations as one HTML page that loads nothing from anywhere.

mod bars;
mod chart;
mod curves;
mod dynamics;
mod matched;
mod page;
mod plane;
mod prior;
mod prior_charts;
mod puzzles;
mod runs;
mod study_index;

pub use study_index::{Regime, STUDY_JSON, StudyIndex, StudyRun};

use crate::forgetting::HEADER;
use crate::{Error, Result, files};
use std::path::{Path, PathBuf};

/// What went into a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Training runs.
    pub runs: usize,
    /// Evaluations.
    pub evaluations: usize,
    /// Models compared with their base.
    pub compared: usize,
    /// Measurements of learning dynamics.
    pub measured: usize,
    /// What was written beside the page: the comparisons with a base as CSV and Markdown, if there are any.
    pub tables: Vec<PathBuf>,
}

/// Read the runs, evaluations and comparisons with a base in and below `paths` and write the page to `out`; the comparisons also
/// beside it, under the same name as `.csv` and `.md`.
///
/// # Errors
/// Input errors that name the directory or file that is not there or not readable, or the file beside the page that is not
/// an earlier report's.
pub fn write(paths: &[PathBuf], title: &str, out: &Path) -> Result<Written> {
    if out.is_dir() {
        return Err(Error::input(format!("--out {} is a directory; name the file to write", out.display())));
    }
    if out.exists() && !out.extension().is_some_and(|e| e == "html" || e == "htm") {
        return Err(Error::input(format!(
            "--out {} is there already and is no .html file; name a new one, or one that ends in .html",
            out.display()
        )));
    }
    let found = runs::collect(paths)?;
    let settings = prior::settings(&found.forgetting, &found.runs);
    let (csv, md) = (out.with_extension("csv"), out.with_extension("md"));
    let mut tables = Vec::new();
    if !settings.is_empty() {
        for (path, begins) in [(&csv, HEADER), (&md, prior::MARK)] {
            if path == out || path.exists() && !files::read_text(path).is_ok_and(|text| text.starts_with(begins)) {
                return Err(Error::input(format!(
                    "--out {}: the tables go to {} beside it, which is there and is no table of an earlier report; \
                     choose another name",
                    out.display(),
                    path.display()
                )));
            }
        }
        tables.push((csv, prior::csv(&found.forgetting, &settings)));
        tables.push((md, prior::markdown(title, &settings)));
    }
    let html = page::render(title, &found, &settings)?;
    if let Some(parent) = out.parent().filter(|p| !p.as_os_str().is_empty()) {
        files::create_dir(parent)?;
    }
    for (path, text) in &tables {
        files::write_atomic(path, text.as_bytes())?;
    }
    files::write_atomic(out, html.as_bytes())?;
    Ok(Written {
        runs: found.runs.len(),
        evaluations: found.evals.len(),
        compared: found.forgetting.iter().map(|(_, one)| one.tuned.len()).sum(),
        measured: found.dynamics.len(),
        tables: tables.into_iter().map(|(path, _)| path).collect(),
    })
}

#[cfg(test)]
mod tests;
