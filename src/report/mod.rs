//! `jigsaw report`: runs and evaluations as one self-contained HTML page, a live one while they go on, or files for other programs.

mod chart;
mod comparison_group;
mod discover;
mod dynamics_section;
mod example_cards;
mod export;
mod figures;
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
mod watch;

pub use study_index::{
    RecoveryRun, RegimeEntry, STUDY_JSON, SequenceIndex, SequenceStage, SolverEntry, StudyIndex, StudyRun,
};
pub use watch::{ReadTasks, StudyTasks, TaskUnderWay, Watch};

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
    /// The files written: figures, tables, the page last.
    pub files: Vec<PathBuf>,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One page for a browser, with the tables as .md and .csv beside it
    #[default]
    Html,
    /// The tables as Markdown
    Md,
    /// The numbers of comparisons with a base, and those of a study as .study.csv beside them
    Csv,
    /// Everything that the runs' own files hold, in one file
    Json,
}

impl Format {
    /// Ending of its files.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Html => "html",
            Format::Md => "md",
            Format::Csv => "csv",
            Format::Json => "json",
        }
    }
}

/// What to write.
#[derive(Debug, Clone)]
pub struct ReportRequest {
    /// Directories of runs, evaluations, comparisons and studies, or that contain them.
    pub paths: Vec<PathBuf>,
    /// Heading.
    pub title: String,
    /// The file.
    pub out: PathBuf,
    /// Its form.
    pub format: Format,
    /// A directory for the figures, each as an SVG file.
    pub figures: Option<PathBuf>,
}

/// A file of a report: path, how an earlier report's begins, text.
type OutputFile = (PathBuf, &'static str, String);

/// An HTML page and what belongs beside it.
#[cfg(test)]
fn write(paths: &[PathBuf], title: &str, out: &Path) -> Result<ReportSummary> {
    let (paths, title, out) = (paths.to_vec(), title.to_string(), out.to_path_buf());
    write_report(&ReportRequest { paths, title, out, format: Format::Html, figures: None })
}

/// Read the runs, evaluations and comparisons with a base in and below the paths and write the report. Beside a page, comparisons also
/// go to files of the same name with `.csv` and `.md`. Where a path holds a `study.json`, the page begins with the study, whose numbers
/// also go to `.study.csv`, and tasks in a row to `.sequence.json`.
///
/// # Errors
/// Input errors that name the directory or file that is not there or not readable, or the file to write that is not
/// an earlier report's.
pub fn write_report(request: &ReportRequest) -> Result<ReportSummary> {
    let ReportRequest { paths, title, out, format, figures } = request;
    let extension = format.extension();
    if out.is_dir() {
        return Err(Error::input(format!("--out {} is a directory; name the file to write", out.display())));
    }
    let is_own = |e: &std::ffi::OsStr| e == extension || *format == Format::Html && e == "htm";
    if out.exists() && !out.extension().is_some_and(is_own) {
        return Err(Error::input(format!(
            "--out {} exists and is not a .{extension} file; give a new file or one that ends in .{extension}",
            out.display()
        )));
    }
    let found = discover::discover(paths)?;
    let groups = comparison_group::group_comparisons(&found);
    let studies: Vec<StudyResults<'_>> =
        found.studies.iter().map(|(dir, index)| study::load(dir, index, &found)).collect::<Result<_>>()?;
    let beside = |extension: &str| out.with_extension(extension);
    let markdown = || {
        let first: String = studies.iter().map(study::markdown).collect();
        prior_knowledge::markdown(title, &(first + &export::evaluations_markdown(&found.evals)), &groups)
    };
    let with_values = *format == Format::Html || figures.is_some();
    let values = with_values.then(|| page::values(title, &found, &groups, &studies));
    let mut written: Vec<OutputFile> = Vec::new();
    if let (Some(dir), Some(values)) = (figures, &values) {
        let of_page = figures::figures(values).into_iter();
        written.extend(of_page.map(|(name, text)| (dir.join(format!("{name}.svg")), figures::MARK, text)));
    }
    if !groups.is_empty() && matches!(format, Format::Html | Format::Csv) {
        written.push((beside("csv"), CSV_HEADER, prior_knowledge::csv(&found.forgetting, &groups)));
    }
    if !studies.is_empty() && matches!(format, Format::Html | Format::Csv) {
        written.push((beside("study.csv"), study::CSV_HEADER, study::csv(&studies)));
    }
    if *format == Format::Html {
        let sequences = export::sequences(&studies)?;
        written.extend(sequences.map(|text| (beside("sequence.json"), export::SEQUENCE_MARK, text)));
    }
    match format {
        Format::Html if groups.is_empty() && studies.is_empty() => {}
        Format::Html => written.push((beside("md"), prior_knowledge::MARK, markdown())),
        Format::Md => written.push((out.clone(), prior_knowledge::MARK, markdown())),
        Format::Json => written.push((out.clone(), export::MARK, export::json(title, &found, &studies)?)),
        Format::Csv if groups.is_empty() && studies.is_empty() => {
            return Err(Error::input(
                "--format csv holds comparisons with a base and studies, and there are none; --format json and md have runs and evaluations",
            ));
        }
        Format::Csv => {}
    }
    for (path, begins, _) in &written {
        let is_earlier = || files::read_text(path).is_ok_and(|text| text.starts_with(begins));
        if *format == Format::Html && path == out || path.exists() && !is_earlier() {
            let flag = if *begins == figures::MARK { "--figures" } else { "--out" };
            return Err(Error::input(format!(
                "the report would replace {}, which exists and was not written by an earlier report; choose another {flag}",
                path.display()
            )));
        }
    }
    let html = values.filter(|_| *format == Format::Html).map(|values| page::render(&values)).transpose()?;
    let _lock = output_dir::lock_file(out)?;
    figures.iter().try_for_each(|dir| files::create_dir(dir))?;
    for (path, _, text) in &written {
        lock::remove_temporaries_of(path);
        files::write_atomic(path, text.as_bytes())?;
    }
    if let Some(html) = html {
        files::write_atomic(out, html.as_bytes())?;
        written.push((out.clone(), "", html));
    }
    Ok(ReportSummary {
        runs: found.runs.len(),
        evaluations: found.evals.len(),
        compared: found.forgetting.iter().map(|(_, one)| one.tuned.len()).sum(),
        measured: found.dynamics.len(),
        files: written.into_iter().map(|(path, ..)| path).collect(),
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
