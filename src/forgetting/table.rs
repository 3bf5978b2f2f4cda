//! Tables of a comparison: the same cells on a terminal, in Markdown and on the page.

use super::change::Change;
use super::group_mean::GroupMean;
use super::outcome_tables::outcome_lines;
use super::result::{ALL, BenchmarkChange, TunedResult};
use crate::stats::Interval;
use crate::stats::table::{NONE, Table, interval, p_value, percent, points};

/// A ratio with its interval, in percent: `97.1 % (95.0 to 99.3)`.
fn ratio(interval: &Interval) -> String {
    let Interval { value, low, high } = *interval;
    match value.is_finite() && low.is_finite() && high.is_finite() {
        true => format!("{} ({:.1} to {:.1})", percent(value), 100.0 * low, 100.0 * high),
        false => percent(value),
    }
}

fn pair(of: impl Fn(f64) -> String, (base, tuned): (f64, f64)) -> String {
    format!("{} -> {}", of(base), of(tuned))
}

fn bare_percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1}", 100.0 * share) } else { NONE.into() }
}

fn tokens(n: f64) -> String {
    if n.is_finite() { format!("{n:.1}") } else { NONE.into() }
}

/// The column of the retention.
const RETAINED: usize = 8;

const CSV_HEADER: [&str; 12] = [
    "",
    "n",
    "base",
    "tuned",
    "change",
    "95 % interval",
    "p",
    "p (Holm)",
    "retained",
    "lenient",
    "unparsed %",
    "tokens",
];

fn cells(name: String, change: &Change, p_holm: f64) -> Vec<String> {
    let (base, tuned) = (&change.base, &change.tuned);
    let groups = change.clusters.map(|groups| format!(" ({groups})")).unwrap_or_default();
    vec![
        name,
        format!("{}{groups}", change.n),
        percent(base.value.value),
        percent(tuned.value.value),
        points(change.change.value),
        interval(&change.change),
        p_value(change.p),
        p_value(p_holm),
        ratio(&change.retention),
        points(change.lenient_change.value),
        pair(bare_percent, (base.unparsed, tuned.unparsed)),
        pair(tokens, (base.tokens, tuned.tokens)),
    ]
}

fn group_cells(name: String, group: &GroupMean) -> Vec<String> {
    vec![
        name,
        group.n.to_string(),
        percent(group.base),
        percent(group.tuned),
        points(group.change.value),
        interval(&group.change),
        p_value(group.p),
        String::new(),
        ratio(&group.retention),
        points(group.lenient_change.value),
        pair(bare_percent, group.unparsed),
        pair(tokens, group.tokens),
    ]
}

/// A row for the new task, each benchmark, each family, and the mean. With `categories`, the categories of each benchmark below it.
pub fn table(tuned: &TunedResult, categories: bool) -> Table {
    let with_parts = |benchmark: &BenchmarkChange, name: String, p_holm: f64| {
        let parts = benchmark.categories.iter().filter(|_| categories);
        let parts = parts.map(|part| cells(format!("- {}", part.name), &part.change, f64::NAN));
        [cells(name, &benchmark.all, p_holm)].into_iter().chain(parts).collect::<Vec<_>>()
    };
    let mut rows = Vec::new();
    if let Some(new_task) = &tuned.new_task {
        rows.extend(with_parts(new_task, "new task".into(), f64::NAN));
        // The new task is learned; there is nothing to retain.
        rows.iter_mut().for_each(|row| row[RETAINED] = NONE.into());
    }
    for benchmark in &tuned.benchmarks {
        rows.extend(with_parts(benchmark, benchmark.name.clone(), benchmark.p_holm));
    }
    // The mean of a family with one benchmark would repeat the benchmark.
    let families = tuned.families.iter().filter(|f| f.benchmarks.len() > 1);
    if tuned.families.len() > 1 {
        rows.extend(families.map(|family| group_cells(format!("mean: {}", family.name), family)));
    }
    if let Some(all) = tuned.all.as_ref().filter(|all| all.benchmarks.len() > 1) {
        debug_assert_eq!(all.name, ALL);
        rows.push(group_cells("mean: all benchmarks".into(), all));
    }
    Table { header: CSV_HEADER.map(String::from).to_vec(), rows }
}

/// The numbers that benchmarks define themselves; `None` if there are none.
pub fn aggregates(tuned: &TunedResult) -> Option<Table> {
    let number = |x: f64| if x.is_finite() { format!("{}", (x * 1e4).round() / 1e4) } else { NONE.into() };
    let of_benchmark = |benchmark: &BenchmarkChange| -> Vec<Vec<String>> {
        let row = |a: &super::AggregateChange| {
            vec![format!("{}: {}", benchmark.name, a.name), number(a.base), number(a.tuned), number(a.tuned - a.base)]
        };
        // The numbers of single categories are in the CSV and the JSON.
        benchmark.aggregates.iter().filter(|a| !a.name.contains('/')).map(row).collect()
    };
    let rows: Vec<Vec<String>> = tuned.benchmarks.iter().flat_map(of_benchmark).collect();
    (!rows.is_empty()).then(|| Table { header: ["", "base", "tuned", "change"].map(String::from).to_vec(), rows })
}

/// `12 worse, 1 better, sign test p = 0.0034`
fn by_question(group: &GroupMean) -> String {
    let GroupMean { worse, better, p_sign, .. } = group;
    format!("{worse} worse, {better} better, sign test p = {}", p_value(*p_sign))
}

/// The result in a few lines.
pub fn summary(tuned: &TunedResult) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(new_task) = &tuned.new_task {
        let change = &new_task.all;
        lines.push(format!(
            "new task: {} to {} right, {} points ({})",
            percent(change.base.value.value),
            percent(change.tuned.value.value),
            points(change.change.value),
            interval(&change.change)
        ));
    }
    let Some(all) = &tuned.all else {
        lines.extend(outcome_lines(tuned));
        return lines;
    };
    let n = all.benchmarks.len();
    lines.push(format!(
        "prior knowledge: {} points ({}) on the mean of {n} benchmark{}, {} retained",
        points(all.change.value),
        interval(&all.change),
        if n == 1 { "" } else { "s" },
        percent(all.retention.value)
    ));
    lines.push(format!("by question: {}", by_question(all)));
    if tuned.families.len() > 1 {
        let of = |family: &GroupMean| {
            format!(
                "{} {} points ({}; {})",
                family.name,
                points(family.change.value),
                interval(&family.change),
                by_question(family)
            )
        };
        let changed: Vec<String> =
            tuned.families.iter().filter(|family| family.change.excludes_zero()).map(of).collect();
        lines.push(match changed.as_slice() {
            [] => format!("the 95 % interval of each of the {} families includes 0", tuned.families.len()),
            changed => format!(
                "families whose 95 % interval leaves out 0 (of {}, not adjusted for their number): {}",
                tuned.families.len(),
                changed.join(", ")
            ),
        });
    }
    match &tuned.worst {
        Some(worst) => lines.push(format!(
            "largest loss: {} {} points ({})",
            worst.name,
            points(worst.change.value),
            interval(&worst.change)
        )),
        None => lines.push("no benchmark lost points".into()),
    }
    if tuned.worst.is_some() {
        lines.push(match tuned.significant_losses.as_slice() {
            [] => "no loss is significant (Holm, 5 %)".into(),
            real => format!("significant losses (Holm, 5 %): {}", real.join(", ")),
        });
    }
    lines.extend(outcome_lines(tuned));
    lines
}
