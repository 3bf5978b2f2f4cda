//! What the runs cost in prior knowledge: runs with a common base and the same benchmarks, beside each other.

use super::discover::{TrainRun, canonical, shortest_unique_name};
use super::prior_charts::{self as charts, ColourOf};
use super::trajectory::{self, TrajectoryPoint, at, levels, starts_above, step};
use crate::forgetting::{
    self, BenchmarkChange, CsvRow, ForgettingResult, ModelRef, NEW_TASK, TunedResult, aggregates, brief, divergences,
    of_model, summary, table,
};
use crate::stats::Interval;
use crate::stats::table::{Table, interval, percent, points};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Runs up to which each stands open on the page; more are folded.
pub const MANY: usize = 8;

/// Models with one base, compared on the same examples by the same scorers.
pub struct Setting<'a> {
    /// The base.
    pub base: &'a ModelRef,
    /// One for each run, and one for each model that is of no run.
    pub lines: Vec<Line<'a>>,
}

impl<'a> Setting<'a> {
    /// The models of each run.
    pub fn models(&self) -> Vec<&[&'a TunedResult]> {
        self.lines.iter().map(|line| line.models.as_slice()).collect()
    }
}

/// A run on its trajectory.
pub struct Line<'a> {
    /// Name on the page.
    pub name: String,
    /// Its models in order of training; never empty.
    pub models: Vec<&'a TunedResult>,
}

impl Line<'_> {
    /// The run was started from this model.
    pub fn starts_at(&self, base: &ModelRef) -> bool {
        self.last().model.run.as_ref().is_some_and(|run| run.model_hash == base.hash)
    }

    /// The last model.
    pub fn last(&self) -> &TunedResult {
        self.models[self.models.len() - 1]
    }

    /// The run as a model of its own, for rows about all of it.
    fn as_model(&self) -> ModelRef {
        let last = &self.last().model;
        let run = last.run.clone().map(|run| forgetting::RunRef { step: None, ..run });
        ModelRef { name: self.name.clone(), run, ..last.clone() }
    }

    /// Seed and data.
    fn provenance(&self) -> String {
        self.last().model.provenance()
    }
}

/// Bring the models of all files together: by base and benchmarks, then by run. A training run that is in the report too
/// keeps its name there.
pub fn settings<'a>(found: &'a [(PathBuf, ForgettingResult)], runs: &[TrainRun]) -> Vec<Setting<'a>> {
    let mut settings: Vec<(Vec<String>, &ModelRef, Vec<&TunedResult>)> = Vec::new();
    for (_, one) in found {
        for tuned in &one.tuned {
            let key = key(&one.base, tuned);
            // The last checkpoint of a run and its model are the same weights.
            let same = |m: &&TunedResult| m.model.hash == tuned.model.hash && home(&m.model) == home(&tuned.model);
            match settings.iter_mut().find(|(k, ..)| *k == key) {
                Some((.., members)) if members.iter().any(same) => {}
                Some((.., members)) => members.push(tuned),
                None => settings.push((key, &one.base, vec![tuned])),
            }
        }
    }
    let mut homes: Vec<PathBuf> = Vec::new();
    for home in settings.iter().flat_map(|(.., members)| members.iter().map(|m| home(&m.model))) {
        if !homes.contains(&home) {
            homes.push(home);
        }
    }
    let name = |home: &Path| {
        let run = runs.iter().find(|run| canonical(&run.dir) == canonical(home));
        let place = homes.iter().position(|h| h == home).unwrap_or(0);
        run.map_or_else(|| shortest_unique_name(&homes, place), |run| run.name.clone())
    };
    settings
        .into_iter()
        .map(|(_, base, members)| {
            let mut lines: Vec<(PathBuf, Vec<&TunedResult>)> = Vec::new();
            for tuned in members {
                let home = home(&tuned.model);
                match lines.iter_mut().find(|(h, _)| *h == home) {
                    Some((_, models)) => models.push(tuned),
                    None => lines.push((home, vec![tuned])),
                }
            }
            let lines = lines.into_iter().map(|(home, mut models)| {
                let last = |m: &&TunedResult| step(m).unwrap_or(f64::INFINITY);
                models.sort_by(|a, b| last(a).total_cmp(&last(b)));
                Line { name: name(&home), models }
            });
            Setting { base, lines: lines.collect() }
        })
        .collect()
}

/// The run's directory; of a model that is of no run, its own.
fn home(model: &ModelRef) -> PathBuf {
    PathBuf::from(model.run.as_ref().map_or(&model.dir, |run| &run.dir))
}

/// What must be the same for two models to be comparable.
fn key(base: &ModelRef, tuned: &TunedResult) -> Vec<String> {
    key_of(base, tuned.new_task.iter().chain(&tuned.benchmarks))
}

/// The same, as far as these benchmarks go.
pub fn key_of<'a>(base: &ModelRef, benchmarks: impl Iterator<Item = &'a BenchmarkChange>) -> Vec<String> {
    let parts = benchmarks.map(|b| format!("{} {} {} {}", b.name, b.data, b.scorer, b.samples));
    [base.hash.clone()].into_iter().chain(parts).collect()
}

/// The values of the page's template for one setting; `colour` is that of a name.
pub fn view(setting: &Setting<'_>, colour: ColourOf<'_>) -> Value {
    let many = setting.lines.len() > MANY;
    // Of many runs, all models are in the tables and in the files beside the page.
    let shown = if many { 1 } else { usize::MAX };
    let details = setting.lines.iter().flat_map(|line| line.models.iter().rev().take(shown).map(move |m| (line, *m)));
    let details = details.map(|(line, tuned)| {
        let tables: Vec<Value> =
            [Some(table(tuned, true)), aggregates(tuned), divergences(tuned)].iter().flatten().map(cells).collect();
        json!({
            "name": label(line, tuned), "colour": colour(&line.name), "provenance": tuned.model.provenance(),
            "dir": tuned.model.dir, "summary": summary(tuned), "tables": tables,
            "open": !many && std::ptr::eq(line, &setting.lines[0]) && std::ptr::eq(tuned, line.last()),
        })
    });
    json!({
        "many": many,
        "base": setting.base.name, "base_dir": setting.base.dir, "base_hash": brief(&setting.base.hash),
        "overview": cells(&overview(setting)), "matched": at_equal_accuracy(setting).as_ref().map(cells), "matched_how": MATCHED,
        "charts": charts::main(setting, colour), "more_charts": charts::by_family(setting, colour), "details": details.collect::<Vec<_>>(), "notes": forgetting::NOTES,
    })
}

fn cells(table: &Table) -> Value {
    json!({"header": table.header, "rows": table.rows})
}

/// A line's model with its step.
pub fn label(line: &Line<'_>, tuned: &TunedResult) -> String {
    match tuned.model.run.as_ref().and_then(|run| run.step) {
        Some(step) => format!("{}, step {step}", line.name),
        None => line.name.clone(),
    }
}

fn overview(setting: &Setting<'_>) -> Table {
    let mut rows = Vec::new();
    for (line, tuned) in setting.lines.iter().flat_map(|line| line.models.iter().map(move |m| (line, *m))) {
        let none = || "-".to_string();
        let new_task = tuned.new_task.as_ref().map(|b| &b.all);
        let all = tuned.all.as_ref();
        let kl = tuned.divergence.iter().find(|d| d.prompts_of == NEW_TASK);
        rows.push(vec![
            label(line, tuned),
            line.provenance(),
            new_task.map_or_else(none, |c| percent(c.tuned.value.value)),
            new_task.map_or_else(none, |c| points(c.change.value)),
            all.map_or_else(none, |g| percent(g.tuned)),
            all.map_or_else(none, |g| points(g.change.value)),
            all.map_or_else(none, |g| interval(&g.change)),
            all.map_or_else(none, |g| percent(g.retention.value)),
            tuned.worst.as_ref().map_or_else(none, |w| format!("{} {}", w.name, points(w.change.value))),
            format!("{} of {}", tuned.real_drops.len(), tuned.benchmarks.len()),
            kl.map_or_else(none, |d| format!("{:.4}", d.forward.per_token.value)),
        ]);
    }
    let header = vec![
        "model",
        "from",
        "new task",
        "gain",
        "prior, mean",
        "change",
        "95 % interval",
        "retained",
        "worst",
        "beyond chance",
        "KL, new task",
    ];
    Table { header: header.into_iter().map(String::from).collect(), rows }
}

/// Change of prior knowledge at equal accuracy on the new task; `None` without a new task, or if nobody learnt it.
fn at_equal_accuracy(setting: &Setting<'_>) -> Option<Table> {
    let trajectories = trajectories(setting);
    let levels = levels(&trajectories);
    if levels.is_empty() {
        return None;
    }
    let cell = |trajectory: &Vec<TrajectoryPoint>, level: f64| match at(trajectory, level) {
        Some(point) if point.step.is_finite() => format!("{} (step {:.0})", points(point.value), point.step),
        Some(point) => points(point.value),
        None if starts_above(trajectory, level) => "starts above".into(),
        None => "not reached".into(),
    };
    let row = |&level: &f64| {
        [percent(level)].into_iter().chain(trajectories.iter().map(|trajectory| cell(trajectory, level))).collect()
    };
    let names = setting.lines.iter().map(|line| line.name.clone());
    let header = ["new-task accuracy".to_string()].into_iter().chain(names).collect();
    Some(Table { header, rows: levels.iter().map(row).collect() })
}

/// Accuracy on the new task against mean change of prior knowledge, from the base on, for each run.
fn trajectories(setting: &Setting<'_>) -> Vec<Vec<TrajectoryPoint>> {
    trajectory::trajectories(&setting.models(), &setting.base.hash)
}

/// Everything as CSV: what `forgetting.csv` holds, and the runs at matched accuracy.
pub fn csv(found: &[(PathBuf, ForgettingResult)], settings: &[Setting<'_>]) -> String {
    let mut text = format!("{}\n", forgetting::CSV_HEADER);
    found.iter().for_each(|(_, one)| text += &forgetting::rows(one));
    for setting in settings {
        let trajectories = trajectories(setting);
        for level in levels(&trajectories) {
            for (line, trajectory) in setting.lines.iter().zip(&trajectories) {
                let value = at(trajectory, level).map_or(f64::NAN, |point| point.value);
                let change = Interval { value, low: f64::NAN, high: f64::NAN };
                let row = CsvRow { change, at: level, ..CsvRow::empty("matched", "score") };
                text += &row.csv(setting.base, &line.as_model());
            }
        }
    }
    text
}

/// Begins every Markdown report, so that one is known from a file of somebody's own.
pub const MARK: &str = "<!-- jigsaw report -->";

/// Everything as Markdown, below what is to stand first.
pub fn markdown(title: &str, first: &str, settings: &[Setting<'_>]) -> String {
    let mut text = format!("{MARK}\n# {}\n{first}", title.replace('\n', " "));
    for setting in settings {
        let base = setting.base;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n## Prior knowledge: base {} ({})\n", base.name, brief(&base.hash));
        let _ = writeln!(text, "`{}`\n\n{}", base.dir, overview(setting).markdown());
        if let Some(matched) = at_equal_accuracy(setting) {
            let _ = writeln!(text, "{MATCHED}\n\n{}", matched.markdown());
        }
        for line in &setting.lines {
            line.models.iter().rev().for_each(|tuned| text += &of_model(tuned, "###"));
        }
    }
    text + forgetting::NOTES
}

/// How the comparison at equal accuracy is made.
pub const MATCHED: &str = "Change of the mean prior score, in points, where each run first reaches an accuracy on the new task; linear \
                           between its checkpoints, the base being the first. A run that went on from another run\u{2019}s \
                           model has that run\u{2019}s way before its own; where that model is not measured, it starts above what \
                           lies below its first checkpoint.";
