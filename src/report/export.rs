//! A report for other programs: everything as one JSON file, and the results of evaluations as a table of Markdown.
//!
//! The numbers are those that the files of the runs hold, as they stand there; those of a study are the rows of its `.study.csv`.

use super::discover::{EvalRun, ReportInputs};
use super::study::{self, StudyResults};
use super::study_index::StudyIndex;
use crate::dynamics::DYNAMICS_JSON;
use crate::forgetting::FORGETTING_JSON;
use crate::io::files;
use crate::stats::Interval;
use crate::stats::table::{NONE, Table, percent};
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Raised whenever the format changes.
const FORMAT_VERSION: u32 = 1;
/// Begins every JSON report, so that a report is never mistaken for a file of the user's.
pub const MARK: &str = "{\n  \"jigsaw_report\":";

/// Begins the JSON files of tasks in a row.
pub const SEQUENCE_MARK: &str = "{\n  \"jigsaw_sequence\":";

/// The tasks in a row of these studies: the matrix R of each method, and what it comes to. `None` if there are none.
///
/// # Errors
/// A number that JSON cannot hold.
pub fn sequences(studies: &[StudyResults<'_>]) -> Result<Option<String>> {
    let all: Vec<Value> =
        studies.iter().filter_map(|study| study.sequence.as_ref()).map(study::sequence_json).collect();
    if all.is_empty() {
        return Ok(None);
    }
    let text = files::to_json(&json!({"jigsaw_sequence": FORMAT_VERSION, "sequences": all}))?;
    String::from_utf8(text).map(Some).map_err(|e| Error::failed(format!("the sequences are not UTF-8: {e}")))
}

/// Everything as JSON.
///
/// # Errors
/// A file that cannot be read, or a number that JSON cannot hold.
pub fn json(title: &str, found: &ReportInputs, studies: &[StudyResults<'_>]) -> Result<String> {
    let read = |dir: &Path, name: &str| files::read_json::<Value>(&dir.join(name));
    let whole = |dir: &Path, name: &str| Ok(json!({"dir": dir, "result": read(dir, name)?}));
    let runs = found.runs.iter().map(|run| {
        let last = |key: &str| run.metrics.iter().rfind(|row| row.contains_key(key));
        json!({
            "name": run.name, "dir": run.dir, "method": run.method(), "state": run.state, "step": run.last_step(),
            "run": run.identity, "config": run.config, "last_step": last("loss"), "last_evaluation": last("eval/accuracy"),
        })
    });
    let evaluations = found.evals.iter().map(|eval| {
        json!({
            "name": eval.name, "dir": eval.dir, "model": eval.about.model, "data": eval.about.data, "split": eval.about.split,
            "finished": eval.finished, "responses": eval.outcomes.len(), "summary": eval.summary,
        })
    });
    let of_study = |(i, (dir, index)): (usize, &(PathBuf, StudyIndex))| {
        let mut one = json!({"dir": dir, "study": index, "rows": rows(&study::csv(&studies[i..=i]))?});
        if let Some(sequence) = &studies[i].sequence {
            one["sequence"] = study::sequence_json(sequence);
        }
        Ok(one)
    };
    let text = files::to_json(&json!({
        "jigsaw_report": FORMAT_VERSION,
        "jigsaw": env!("CARGO_PKG_VERSION"),
        "title": title,
        "runs": runs.collect::<Vec<_>>(),
        "evaluations": evaluations.collect::<Vec<_>>(),
        "comparisons": found.forgetting.iter().map(|(dir, _)| whole(dir, FORGETTING_JSON)).collect::<Result<Vec<_>>>()?,
        "dynamics": found.dynamics.iter().map(|(dir, _)| whole(dir, DYNAMICS_JSON)).collect::<Result<Vec<_>>>()?,
        "studies": found.studies.iter().enumerate().map(of_study).collect::<Result<Vec<_>>>()?,
    }))?;
    String::from_utf8(text).map_err(|e| Error::failed(format!("the report is not UTF-8: {e}")))
}

/// The rows of a CSV file as objects. A cell that is a number becomes one, `true` and `false` become those, and an empty one `null`.
fn rows(csv: &str) -> Result<Vec<Map<String, Value>>> {
    let failed = |e: csv::Error| Error::failed(format!("the rows of the study cannot be read back: {e}"));
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let header = reader.headers().map_err(failed)?.clone();
    let cell = |(name, text): (&str, &str)| {
        // These are names, though they may look like numbers.
        let is_text = ["regime", "learning_rate", "seeds", "family", "data"].contains(&name);
        let value =
            if is_text { Value::from(text) } else { serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)) };
        (name.to_string(), if text.is_empty() { Value::Null } else { value })
    };
    reader.records().map(|row| Ok(header.iter().zip(&row.map_err(failed)?).map(cell).collect())).collect()
}

/// The results of evaluations as Markdown, below a heading; empty if there are none.
pub fn evaluations_markdown(evals: &[EvalRun]) -> String {
    let mut table = Table::new(["evaluation", "task", "split", "right", "95 % interval", "parsed", "examples"]);
    for eval in evals {
        let Some(summary) = &eval.summary else { continue };
        let Interval { low, high, .. } = summary.accuracy;
        let range = if low.is_finite() { format!("{:.1} to {:.1}", 100.0 * low, 100.0 * high) } else { NONE.into() };
        let state = if eval.finished { "" } else { " (not finished)" };
        table.rows.push(vec![
            format!("{}{state}", eval.name),
            summary.task.clone(),
            eval.about.split.clone(),
            percent(summary.accuracy.value),
            range,
            percent(summary.parsed.value),
            summary.examples.to_string(),
        ]);
    }
    if table.rows.is_empty() { String::new() } else { format!("\n## Evaluations\n\n{}", table.markdown()) }
}
