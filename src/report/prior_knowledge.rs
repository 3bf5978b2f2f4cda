//! The section about prior knowledge: what each run cost, beside the other runs of the same base and benchmarks.

use super::comparison_group::{ComparisonGroup, checkpoint_name};
use super::prior_charts::{ColourOf, family_charts, main_charts};
use super::trajectory::{Reading, at, levels, trajectories};
use crate::forgetting::{
    self, CsvRow, ForgettingResult, NEW_TASK, aggregates, brief, divergences, of_model, summary, table,
};
use crate::stats::Interval;
use crate::stats::table::{NONE, Table, interval, percent, points};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;

/// Up to so many runs each stand open on the page; more are folded.
pub const MAX_OPEN: usize = 8;

/// The values of the page's template for one group of comparisons; `colour` is that of a name.
pub fn view(group: &ComparisonGroup<'_>, colour: ColourOf<'_>) -> Value {
    let many = group.runs.len() > MAX_OPEN;
    // Of many runs, the tables and the files beside the page have all models.
    let shown = if many { 1 } else { usize::MAX };
    let details = group.runs.iter().flat_map(|run| run.models.iter().rev().take(shown).map(move |m| (run, *m)));
    let details = details.map(|(run, tuned)| {
        let tables: Vec<Table> =
            [Some(table(tuned, true)), aggregates(tuned), divergences(tuned)].into_iter().flatten().collect();
        json!({
            "name": checkpoint_name(run, tuned), "colour": colour(&run.name), "provenance": tuned.model.provenance(),
            "dir": tuned.model.dir, "summary": summary(tuned), "tables": tables,
            "open": !many && std::ptr::eq(run, &group.runs[0]) && std::ptr::eq(tuned, run.last()),
        })
    });
    json!({
        "many": many,
        "base": group.base.name, "base_dir": group.base.dir, "base_hash": brief(&group.base.hash),
        "overview": overview(group), "matched": at_equal_accuracy(group), "matched_how": MATCHED,
        "charts": main_charts(group, colour), "more_charts": family_charts(group, colour),
        "details": details.collect::<Vec<_>>(), "notes": forgetting::NOTES,
    })
}

fn overview(group: &ComparisonGroup<'_>) -> Table {
    let none = || NONE.to_string();
    let mut overview = Table::new([
        "model",
        "from",
        "new task",
        "gain",
        "prior, mean",
        "change",
        "95 % interval",
        "retained",
        "largest loss",
        "significant losses",
        "KL, new task",
    ]);
    for (run, tuned) in group.all_models() {
        let new_task = tuned.new_task.as_ref().map(|b| &b.all);
        let all = tuned.all.as_ref();
        let kl = tuned.divergence.iter().find(|d| d.prompts_of == NEW_TASK);
        overview.rows.push(vec![
            checkpoint_name(run, tuned),
            tuned.model.provenance(),
            new_task.map_or_else(none, |c| percent(c.tuned.value.value)),
            new_task.map_or_else(none, |c| points(c.change.value)),
            all.map_or_else(none, |g| percent(g.tuned)),
            all.map_or_else(none, |g| points(g.change.value)),
            all.map_or_else(none, |g| interval(&g.change)),
            all.map_or_else(none, |g| percent(g.retention.value)),
            tuned.worst.as_ref().map_or_else(none, |w| format!("{} {}", w.name, points(w.change.value))),
            format!("{} of {}", tuned.significant_losses.len(), tuned.benchmarks.len()),
            kl.map_or_else(none, |d| format!("{:.4}", d.forward.per_token.value)),
        ]);
    }
    overview
}

/// Change of prior knowledge at equal accuracy on the new task; `None` without a new task, or if no run learned it.
fn at_equal_accuracy(group: &ComparisonGroup<'_>) -> Option<Table> {
    let trajectories = trajectories(&group.models(), &group.base.hash);
    let levels = levels(&trajectories);
    let cell = |reading: Reading<'_>| match reading {
        Reading::Between { value, step, .. } if step.is_finite() => format!("{} (step {step:.0})", points(value)),
        Reading::Between { value, .. } => points(value),
        Reading::BeforeFirst => "before the first checkpoint".into(),
        Reading::StartsAbove => "starts above".into(),
        Reading::NotReached => "not reached".into(),
    };
    let heads: Vec<String> = levels.iter().map(|level| percent(*level)).collect();
    let mut table = Table::new(["run"].into_iter().chain(heads.iter().map(String::as_str)));
    for (run, trajectory) in group.runs.iter().zip(&trajectories) {
        let cells = levels.iter().map(|&level| cell(at(trajectory, level)));
        table.rows.push([run.name.clone()].into_iter().chain(cells).collect());
    }
    (!levels.is_empty()).then_some(table)
}

/// Everything as CSV: the rows of `forgetting.csv`, and the runs at equal accuracy on the new task.
pub fn csv(comparisons: &[(PathBuf, ForgettingResult)], groups: &[ComparisonGroup<'_>]) -> String {
    let mut text = format!("{}\n", forgetting::CSV_HEADER);
    comparisons.iter().for_each(|(_, one)| text += &forgetting::rows(one));
    for group in groups {
        let trajectories = trajectories(&group.models(), &group.base.hash);
        for level in levels(&trajectories) {
            for (run, trajectory) in group.runs.iter().zip(&trajectories) {
                let mut change = Interval::UNKNOWN;
                if let Reading::Between { value, .. } = at(trajectory, level) {
                    change.value = value;
                }
                let row = CsvRow { change, new_task_accuracy: level, ..CsvRow::empty("equal-accuracy", "score") };
                text += &row.csv(group.base, &run.as_model());
            }
        }
    }
    text
}

/// Begins every Markdown report, so that a report is never mistaken for a file of the user's.
pub const MARK: &str = "<!-- jigsaw report -->";

/// Everything as Markdown, `first` standing below the title.
pub fn markdown(title: &str, first: &str, groups: &[ComparisonGroup<'_>]) -> String {
    let mut text = format!("{MARK}\n# {}\n{first}", title.replace('\n', " "));
    for group in groups {
        let base = group.base;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n## Prior knowledge: base {} ({})\n", base.name, brief(&base.hash));
        let _ = writeln!(text, "`{}`\n\n{}", base.dir, overview(group).markdown());
        if let Some(matched) = at_equal_accuracy(group) {
            let _ = writeln!(text, "{MATCHED}\n\n{}", matched.markdown());
        }
        for run in &group.runs {
            run.models.iter().rev().for_each(|tuned| text += &of_model(tuned, "###"));
        }
    }
    text + forgetting::NOTES
}

/// How the comparison at equal accuracy is made.
const MATCHED: &str = "Change of the mean prior score, in points, where each run first reaches an accuracy on the new task: at a measured \
                       checkpoint, or interpolated linearly between two of them. On the way from the base to the first checkpoint nothing is \
                       read (\u{201c}before the first checkpoint\u{201d}): measure earlier checkpoints. A run that continued from another \
                       run\u{2019}s model includes that run\u{2019}s trajectory. Where that model is not measured, nothing is known \
                       below the first checkpoint, and the run \u{201c}starts above\u{201d} such an accuracy.";
