//! `jigsaw report`: runs and evaluations as one HTML page, as a live page, or as files for other programs.

use super::output::{print, status};
use super::train::Signals;
use crate::io::loopback;
use crate::io::text::counted;
use crate::report::{self, Format, ReportRequest, Watch};
use crate::train::settings::TrainConfig;
use crate::{Error, Result, study};
use std::path::PathBuf;
use std::sync::Arc;

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
///
/// With --watch, nothing is written: the page is served to a browser on this machine, and follows the runs with the steps done, the time
/// left, curves and the latest responses. Ctrl-C ends it.
#[derive(Debug, Clone, clap::Args)]
pub struct ReportArgs {
    /// Directories of training runs, evaluations or measurements of learning dynamics, or directories that contain them
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Heading of the page
    #[arg(long, value_name = "TEXT", default_value = "jigsaw report")]
    title: String,
    /// File to write [default: report.html, or with the ending of --format]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// What to write
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "html")]
    format: Format,
    /// Also write each figure as an SVG file of its own into this directory
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,
    /// Serve the page at http://127.0.0.1:PORT/ while the runs go on; write nothing
    #[arg(long, conflicts_with_all = ["out", "format", "figures"])]
    watch: bool,
    /// Port of --watch; 0 for any free one
    #[arg(long, requires = "watch", default_value_t = 7860)]
    port: u16,
}

impl ReportArgs {
    /// Write the report and say where it is, or serve it until Ctrl-C.
    pub fn run(self) -> Result<()> {
        if self.watch {
            return self.serve();
        }
        let out = self.out.unwrap_or_else(|| PathBuf::from(format!("report.{}", self.format.extension())));
        let (paths, title, format, figures) = (self.runs, self.title, self.format, self.figures);
        let written = report::write_report(&ReportRequest { paths, title, out, format, figures })?;
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
        // The result itself goes to stdout.
        if let Some((last, others)) = written.files.split_last() {
            others.iter().for_each(|path| status(&path.display().to_string()));
            print(&format!("{}\n", last.display()))?;
        }
        Ok(())
    }

    fn serve(&self) -> Result<()> {
        let tasks = |dir: &std::path::Path| study::status(dir, TrainConfig::resolve, false);
        let watch = Watch::new(&self.runs, &self.title, tasks)?;
        let listener = loopback::listen(self.port)?;
        let address = listener.local_addr().map_err(|e| Error::failed(format!("cannot serve the page: {e}")))?;
        let signals = Signals::listen()?;
        print(&format!("http://{address}/\n"))?;
        status("the page follows the runs; Ctrl-C ends it");
        let page: Arc<loopback::MakePage> = Arc::new(move || watch.page());
        loopback::serve(&listener, &signals.stop, &page)
    }
}
