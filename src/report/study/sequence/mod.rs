//! The section of a study whose tasks are learned in a row: the matrix R of accuracies as a heat map, what it comes to, and curves over the tasks.

mod figures;
mod load;
mod numbers;
mod tables;
#[cfg(test)]
mod tests;

pub use load::{SequenceResults, load};
pub use numbers::{matrix_json, numbers};

use crate::report::chart::COLOURS;
use crate::report::study::cells::{TableWithCaption, bare, lost_points};
use crate::report::study::seed_stats::SeedMean;
use crate::stats::SequenceMeasure;
use crate::stats::table::{percent, points};
use load::MethodResults;
use serde_json::{Value, json};
use std::fmt::Write;

/// The values of the page's template.
pub fn view(sequence: &SequenceResults<'_>) -> Value {
    let one = |(i, method): (usize, &MethodResults<'_>)| json!({"name": method.entry.name, "colour": i % COLOURS, "text": sentence(sequence, method)});
    json!({
        "introduction": introduction(sequence),
        "regimes": sequence.methods.iter().enumerate().map(one).collect::<Vec<_>>(),
        "figures": figures::figures(sequence),
        "tables": all_tables(sequence),
        "missing": sequence.missing,
    })
}

/// As Markdown.
pub fn markdown(sequence: &SequenceResults<'_>) -> String {
    let mut text = format!("## Tasks in a row\n\n{}\n\n", introduction(sequence));
    // Writing to a string cannot fail.
    for method in &sequence.methods {
        let _ = writeln!(text, "- **{}**: {}", method.entry.name, sentence(sequence, method));
    }
    sequence.missing.iter().for_each(|line| text += &format!("- {line}\n"));
    for table in all_tables(sequence) {
        let _ = write!(text, "\n### {}\n\n{}\n\n{}", table.title, table.how, table.table().markdown());
    }
    text + "\n"
}

/// As paragraphs of plain text.
pub fn headline(sequence: &SequenceResults<'_>) -> Vec<String> {
    let methods = sequence.methods.iter().map(|one| format!("{}: {}", one.entry.name, sentence(sequence, one)));
    let missing = sequence.missing.iter().map(|line| format!("Not fully measured: {line}"));
    std::iter::once(introduction(sequence)).chain(methods).chain(missing).collect()
}

fn all_tables(sequence: &SequenceResults<'_>) -> Vec<TableWithCaption> {
    let all = [Some(tables::measures(sequence)), Some(tables::heat_map(sequence)), tables::prior(sequence)];
    all.into_iter().flatten().map(TableWithCaption::explained).collect()
}

fn introduction(sequence: &SequenceResults<'_>) -> String {
    let sets = sequence.any().map_or(0, |seed| seed.prior_sets().len());
    format!(
        "{} tasks are learned one after another: {}. Before the first and after each, the model answers the test questions of all tasks and of {sets} \
         sets of prior knowledge. In brackets: 95 % intervals over seeds and questions.",
        sequence.tasks.len(),
        sequence.tasks.join(", ")
    )
}

/// What a method came to after all tasks.
fn sentence(sequence: &SequenceResults<'_>, method: &MethodResults<'_>) -> String {
    let about = match method.entry.about.as_str() {
        "" => String::new(),
        about => format!("{about}: "),
    };
    let all = sequence.tasks.len();
    let with = |mean: SeedMean, form: fn(f64) -> String, end: fn(f64) -> String| match mean.mean.low.is_finite() {
        true => format!("{} ({} to {})", form(mean.mean.value), end(mean.mean.low), end(mean.mean.high)),
        false => form(mean.mean.value),
    };
    let Some(average) = method.measure(SequenceMeasure::AverageAccuracy, all) else {
        return format!("{about}not measured after all tasks yet.");
    };
    let of = |measure: SequenceMeasure, form: fn(f64) -> String| {
        method.measure(measure, all).map(|mean| with(mean, form, form))
    };
    let parts = [
        Some(format!("average accuracy {}", with(average, percent, bare))),
        of(SequenceMeasure::Forgetting, lost_points).map(|text| format!("forgetting {text} points")),
        of(SequenceMeasure::BackwardTransfer, points).map(|text| format!("backward transfer {text}")),
        of(SequenceMeasure::ForwardTransfer, points).map(|text| format!("forward transfer {text}")),
        method
            .prior(None, all)
            .map(|mean| format!("points of prior knowledge lost {}", with(mean.negated(), lost_points, lost_points))),
    ];
    format!("{about}{}.", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}
