//! `jigsaw report`: runs and evaluations as one self-contained HTML page.

mod chart;
mod comparison_group;
mod discover;
mod dynamics_section;
mod example_cards;
mod flips;
mod page;
mod picture;
mod prior_charts;
mod prior_knowledge;
mod samples;
mod shown_models;
mod study;
mod study_index;
mod training_curves;
mod trajectory;

pub use study_index::{RecoveryRun, RegimeEntry, STUDY_JSON, SolverEntry, StudyIndex, StudyRun};

use crate::forgetting::CSV_HEADER;
use crate::io::{files, lock, output_dir};
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use study::StudyResults;

/// Contents of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportSummary {
    /// Training runs.
    pub runs: usize,
    /// Evaluations.
    pub evaluations: usize,
    /// Models compared with their base.
    pub compared: usize,
    /// Measurements of learning dynamics.
    pub measured: usize,
    /// Files written beside the page: comparisons with a base as CSV and Markdown, and the numbers of a study.
    pub tables: Vec<PathBuf>,
}

/// Read the runs, evaluations and comparisons with a base in and below `paths` and write the page to `out`; the comparisons also
/// beside it, under the same name as `.csv` and `.md`. Where a path holds a `study.json`, the page begins with the study, whose numbers
/// also go to `.study.csv`.
///
/// # Errors
/// Input errors that name the directory or file that is not there or not readable, or the file beside the page that is not
/// an earlier report's.
pub fn write(paths: &[PathBuf], title: &str, out: &Path) -> Result<ReportSummary> {
    if out.is_dir() {
        return Err(Error::input(format!("--out {} is a directory; name the file to write", out.display())));
    }
    if out.exists() && !out.extension().is_some_and(|e| e == "html" || e == "htm") {
        return Err(Error::input(format!(
            "--out {} exists and is not a .html file; give a new file or one that ends in .html",
            out.display()
        )));
    }
    let found = discover::discover(paths)?;
    let groups = comparison_group::group_comparisons(&found);
    let studies: Vec<StudyResults<'_>> =
        found.studies.iter().map(|(dir, index)| study::load(dir, index, &found)).collect::<Result<_>>()?;
    let beside = |extension: &str| out.with_extension(extension);
    let mut tables = Vec::new();
    if !groups.is_empty() {
        tables.push((beside("csv"), CSV_HEADER, prior_knowledge::csv(&found.forgetting, &groups)));
    }
    if !groups.is_empty() || !studies.is_empty() {
        let first: String = studies.iter().map(study::markdown).collect();
        tables.push((beside("md"), prior_knowledge::MARK, prior_knowledge::markdown(title, &first, &groups)));
    }
    if !studies.is_empty() {
        tables.push((beside("study.csv"), study::CSV_HEADER, study::csv(&studies)));
    }
    for (path, begins, _) in &tables {
        if path == out || path.exists() && !files::read_text(path).is_ok_and(|text| text.starts_with(begins)) {
            return Err(Error::input(format!(
                "--out {}: the tables go to {}, which exists and was not written by an earlier report; choose another \
                 name",
                out.display(),
                path.display()
            )));
        }
    }
    let html = page::render(title, &found, &groups, &studies)?;
    let _lock = output_dir::lock_file(out)?;
    for (path, _, text) in &tables {
        lock::remove_temporaries_of(path);
        files::write_atomic(path, text.as_bytes())?;
    }
    files::write_atomic(out, html.as_bytes())?;
    Ok(ReportSummary {
        runs: found.runs.len(),
        evaluations: found.evals.len(),
        compared: found.forgetting.iter().map(|(_, one)| one.tuned.len()).sum(),
        measured: found.dynamics.len(),
        tables: tables.into_iter().map(|(path, ..)| path).collect(),
    })
}

/// The results of the study in `dir`, a paragraph each: the sentences of its page, and its runs that are not fully measured.
///
/// # Errors
/// As [`write`].
pub fn headline(dir: &Path) -> Result<Vec<String>> {
    let found = discover::discover(&[dir.to_path_buf()])?;
    let mut paragraphs = Vec::new();
    for (dir, index) in &found.studies {
        paragraphs.extend(study::headline(&study::load(dir, index, &found)?));
    }
    Ok(paragraphs)
}

#[cfg(test)]
mod sample_tests;
#[cfg(test)]
mod tests;
