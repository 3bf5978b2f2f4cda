//! `jigsaw report`: runs and evaluations as one HTML page that loads nothing from anywhere.

mod chart;
mod curves;
mod page;
mod puzzles;
mod runs;

use crate::{Error, Result, files};
use std::path::{Path, PathBuf};

/// What went into a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Training runs.
    pub runs: usize,
    /// Evaluations.
    pub evaluations: usize,
}

/// Read the runs and evaluations in and below `paths` and write the page to `out`.
///
/// # Errors
/// Input errors that name the directory or file that is not there or not readable.
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
    let (runs, evals) = runs::collect(paths)?;
    let html = page::render(title, &runs, &evals)?;
    if let Some(parent) = out.parent().filter(|p| !p.as_os_str().is_empty()) {
        files::create_dir(parent)?;
    }
    files::write_atomic(out, html.as_bytes())?;
    Ok(Written { runs: runs.len(), evaluations: evals.len() })
}

#[cfg(test)]
mod tests;
