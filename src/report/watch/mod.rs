//! `jigsaw report --watch`: the page of runs that are still going on, with what is under way above it. A browser asks for it again and again,
//! and it is made again when a file has changed.

mod progress;
mod study_tasks;

pub use study_tasks::{StudyTasks, TaskUnderWay};

use super::comparison_group::group_comparisons;
use super::discover::{ReportInputs, RunState, TrainRun, canonical, discover};
use super::page;
use super::study;
use super::training_curves::curves;
use crate::Result;
use crate::io::files;
use crate::io::loopback::Page;
use crate::stats::table::{duration, short};
use progress::{Seen, seconds_per_step, total_steps};
use serde_json::{Map, Value, json};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use walkdir::WalkDir;

/// Depth to which files are looked at for changes: those of an evaluation in a comparison of a study.
const DEPTH: usize = 4;
/// After this time the page is made again though no file has changed: a process that was killed leaves its files as they were.
const LONGEST: Duration = Duration::from_secs(10);
/// Making the page takes at most this share of the time.
const SHARE: u32 = 4;
/// Responses of a run that are shown.
const SAMPLES: usize = 3;

/// Reads the tasks of the study in a directory; `None` if there is no study.
pub type ReadTasks = fn(&Path) -> Result<Option<StudyTasks>>;

/// Runs that are followed.
pub struct Watch {
    paths: Vec<PathBuf>,
    title: String,
    tasks: ReadTasks,
    latest: Mutex<Latest>,
}

/// The page as it was last made.
#[derive(Default)]
struct Latest {
    made: Option<(Instant, Duration)>,
    files: u64,
    /// The last report that could be made, without what is under way.
    report: String,
    /// The colours of its runs.
    legend: Value,
    page: Arc<Page>,
    seen: Seen,
}

impl Watch {
    /// Follow what is in `paths`, where nothing needs to be yet.
    ///
    /// # Errors
    /// An input error that names a path that is no directory.
    pub fn new(paths: &[PathBuf], title: &str, tasks: ReadTasks) -> Result<Watch> {
        paths.iter().try_for_each(|path| files::require_dir(path, "run"))?;
        Ok(Watch { paths: paths.to_vec(), title: title.into(), tasks, latest: Mutex::default() })
    }

    /// The page as things are now.
    pub fn page(&self) -> Arc<Page> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        let files = fingerprint(&self.paths);
        let due = latest.made.is_none_or(|(at, took)| {
            let age = begun.duration_since(at);
            age >= took * SHARE && (files != latest.files || age >= LONGEST)
        });
        if due {
            let html = self.make(&mut latest);
            let mut hash = DefaultHasher::new();
            html.hash(&mut hash);
            latest.page = Arc::new(Page { etag: format!("{:016x}", hash.finish()), html });
            (latest.files, latest.made) = (files, Some((begun, begun.elapsed())));
        }
        latest.page.clone()
    }

    /// The report with what is under way in it. What cannot be read now is said there, over the last report that could be made.
    fn make(&self, latest: &mut Latest) -> String {
        let mut notices = Vec::new();
        let found = self.discover(&mut notices);
        if !found.is_empty() || latest.report.is_empty() {
            let values = report_values(&self.title, &found);
            match values.and_then(|values| Ok((page::render(&values)?, values))) {
                Ok((html, mut values)) => (latest.report, latest.legend) = (html, values["legend"].take()),
                Err(e) => notices.push(e.to_string()),
            }
        }
        if latest.report.is_empty() {
            let nothing = report_values(&self.title, &ReportInputs::default());
            latest.report = nothing.and_then(|values| page::render(&values)).unwrap_or_default();
        }
        let under_way = self.under_way(&found, notices, latest);
        let panel = page::template(include_str!("panel.html"), &under_way).unwrap_or_else(|e| e.to_string());
        let html = latest.report.replacen("</header>", &format!("</header>\n{panel}"), 1);
        html.replacen("</main>", &format!("</main>\n<script>\n{}</script>", include_str!("refresh.js")), 1)
    }

    /// What is there; of several paths, those in which something can be read.
    fn discover(&self, notices: &mut Vec<String>) -> ReportInputs {
        if let Ok(found) = discover(&self.paths) {
            return found;
        }
        let mut readable = Vec::new();
        for path in &self.paths {
            match discover(std::slice::from_ref(path)) {
                Ok(_) => readable.push(path.clone()),
                Err(e) => notices.push(e.to_string()),
            }
        }
        discover(&readable).unwrap_or_default()
    }

    /// The values of the panel: runs, evaluations and tasks that are not finished.
    fn under_way(&self, found: &ReportInputs, mut notices: Vec<String>, latest: &mut Latest) -> Value {
        let mut tasks = Vec::new();
        let mut studies: Vec<&Path> = Vec::new();
        for dir in self.paths.iter().map(PathBuf::as_path).chain(found.studies.iter().map(|(dir, _)| dir.as_path())) {
            if studies.iter().any(|other| canonical(other) == canonical(dir)) {
                continue;
            }
            studies.push(dir);
            match (self.tasks)(dir) {
                Ok(Some(one)) => tasks.push(of_study(dir, &one)),
                Ok(None) => {}
                Err(e) => notices.push(format!("the tasks of the study in {} are not known: {e}", dir.display())),
            }
        }
        let colour = |name: &str| {
            let legend = latest.legend.as_array().into_iter().flatten();
            legend.filter(|one| one["name"] == name).find_map(|one| one["colour"].as_u64()).unwrap_or(0) as usize
        };
        let going = found.runs.iter().filter(|run| run.state == RunState::Running);
        let stopped = found.runs.iter().filter(|run| run.state == RunState::Stopped);
        // Where every run is going on, the report below begins with the same curves.
        let going: Vec<(&TrainRun, usize)> = going.map(|run| (run, colour(&run.name))).collect();
        let drawn = if going.len() < found.runs.len() { going.as_slice() } else { &[] };
        let evaluations = found.evals.iter().filter(|eval| !eval.finished).map(|eval| {
            let of = eval.about.key.examples * eval.about.key.num_generations.max(1);
            json!({"name": eval.name, "done": eval.outcomes.len(), "of": of, "percent": percent(eval.outcomes.len() as u64, of as u64)})
        });
        let charts = curves(drawn, None).0;
        let now = Instant::now();
        json!({
            "notices": notices,
            "tasks": tasks,
            "runs": going.into_iter().map(|(run, colour)| of_run(run, colour, &mut latest.seen, now)).collect::<Vec<_>>(),
            "stopped": stopped.map(|run| json!({"name": run.name, "step": run.last_step(), "of": total_steps(run)})).collect::<Vec<_>>(),
            "evaluations": evaluations.collect::<Vec<_>>(),
            "charts": charts,
            "finished": found.runs.iter().filter(|run| run.state == RunState::Finished).count(),
        })
    }
}

fn report_values(title: &str, found: &ReportInputs) -> Result<Value> {
    let groups = group_comparisons(found);
    let studies =
        found.studies.iter().map(|(dir, index)| study::load(dir, index, found)).collect::<Result<Vec<_>>>()?;
    Ok(page::values(title, found, &groups, &studies))
}

fn percent(done: u64, of: u64) -> f64 {
    100.0 * done as f64 / of.max(1) as f64
}

fn of_run(run: &TrainRun, colour: usize, seen: &mut Seen, now: Instant) -> Value {
    let (step, of) = (run.last_step(), total_steps(run));
    let each = seconds_per_step(run, seen, now);
    let left = of.zip(each).map(|(of, each)| duration(of.saturating_sub(step) as f64 * each));
    let metric = |name: &str| run.series(name).last().map(|(_, value)| *value);
    let number = |label: &str, name: &str| metric(name).map(|value| format!("{label} {}", short(value)));
    let share = |label: &str, name: &str| metric(name).map(|value| format!("{label} {:.1} %", 100.0 * value));
    // The loss of GRPO is near zero by construction.
    let loss = if run.method() == "rft" { None } else { number("loss", "loss") };
    let latest = [
        loss,
        number("reward", "reward"),
        share("validation accuracy", "eval/accuracy"),
        number("tokens per second:", "tokens_per_second"),
    ];
    let text = |row: &Map<String, Value>, key: &str| row.get(key).and_then(Value::as_str).unwrap_or("").to_string();
    let samples = run.samples.iter().rev().take(SAMPLES).map(|row| {
        let reward = row.get("reward").and_then(Value::as_f64).map(short);
        json!({"step": row.get("step"), "id": text(row, "id"), "response": text(row, "response"), "answer": text(row, "answer"), "reward": reward})
    });
    json!({
        "name": run.name, "colour": colour, "step": step, "of": of, "left": left, "each": each.map(duration_of_step),
        "percent": of.map(|of| percent(step, of)), "latest": latest.into_iter().flatten().collect::<Vec<_>>(),
        "samples": samples.collect::<Vec<_>>(),
    })
}

fn duration_of_step(seconds: f64) -> String {
    if seconds < 10.0 { format!("{} s", short(seconds)) } else { duration(seconds) }
}

fn of_study(dir: &Path, tasks: &StudyTasks) -> Value {
    json!({
        "dir": dir.display().to_string(), "all": tasks, "percent": percent(tasks.done.len() as u64, tasks.total as u64),
        "time_left": (tasks.seconds_left > 0.0).then(|| duration(tasks.seconds_left)),
    })
}

/// Changes when a file in `paths` does: of its path, length and time.
fn fingerprint(paths: &[PathBuf]) -> u64 {
    let mut hash = DefaultHasher::new();
    for path in paths {
        let entries = WalkDir::new(path).max_depth(DEPTH).sort_by_file_name().into_iter();
        let kept = entries.filter_entry(|entry| {
            entry.file_type().is_file()
                || !matches!(entry.file_name().to_str(), Some("checkpoints" | "model" | "images"))
        });
        for entry in kept.flatten().filter(|entry| entry.file_type().is_file()) {
            entry.path().hash(&mut hash);
            if let Ok(found) = entry.metadata() {
                (found.len(), found.modified().ok()).hash(&mut hash);
            }
        }
    }
    hash.finish()
}
