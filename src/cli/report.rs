//! `jigsaw report`: runs and evaluations as one HTML page.

use super::output::{print, status};
use crate::Result;
use crate::io::text::counted;
use crate::report;
use std::path::PathBuf;

/// Make one HTML page from training runs and evaluations.
///
/// The page needs no network. It holds training curves, results with 95 % intervals, paired differences, examples with the models' answers
/// drawn in, and settings. A directory that is not a run is searched for runs two levels deep. Unfinished runs are shown up to their last
/// step.
///
/// Comparisons with a base (`jigsaw eval --baseline`) are shown by base: the change of each model by benchmark and family, new-task accuracy
/// against prior knowledge over each run, and all runs at equal new-task accuracy; then puzzles with the answers of base and models drawn in,
/// and the questions whose answers changed, to be looked through by family and model. The numbers are also written beside the page, as .csv
/// and .md of the same name.
#[derive(Debug, Clone, clap::Args)]
pub struct ReportArgs {
    /// Directories of training runs, evaluations or measurements of learning dynamics, or directories that contain them
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Heading of the page
    #[arg(long, value_name = "TEXT", default_value = "jigsaw report")]
    title: String,
    /// File to write
    #[arg(long, value_name = "FILE.html", default_value = "report.html")]
    out: PathBuf,
}

impl ReportArgs {
    /// Write the page and say where it is.
    pub fn run(self) -> Result<()> {
        let written = report::write(&self.runs, &self.title, &self.out)?;
        let compared = match written.compared {
            0 => String::new(),
            n => format!(", {} with its base", counted(n, "comparison of a model")),
        };
        let measured = match written.measured {
            0 => String::new(),
            n => format!(", {}", counted(n, "measurement of learning dynamics")),
        };
        let (runs, evaluations) = (counted(written.runs, "training run"), counted(written.evaluations, "evaluation"));
        status(&format!("{runs}, {evaluations}{compared}{measured}"));
        written.tables.iter().for_each(|path| status(&path.display().to_string()));
        print(&format!("{}\n", self.out.display()))
    }
}
