//! The first section of a study's page: what each regime learned and forgot, and what it forgot at equal accuracy.

mod csv;
mod level;
mod load;
mod seed_stats;
mod sentences;
mod tables;
#[cfg(test)]
mod tests;

pub use csv::{CSV_HEADER, csv};
pub use load::{StudyResults, load};

use super::chart::{Axis, COLOURS, Chart, Mark, Point, Series};
use crate::forgetting::{BenchmarkChange, TunedResult, brief};
use crate::stats::table::percent;
use level::level;
use load::{RegimeRuns, SeedRun, accuracy, prior};
use seed_stats::SeedMean;
use sentences::Forgotten;
use serde_json::{Value, json};
use std::fmt::Write;
use tables::TableWithCaption;

/// The values of the page's template.
pub fn view(study: &StudyResults<'_>) -> Value {
    let grids: Vec<TableWithCaption> = more(study);
    let legend = study.regimes.iter().enumerate().map(|(i, regime)| {
        let at = regime.best().map(|variant| variant.label());
        json!({"name": regime.name, "colour": i % COLOURS, "at": at})
    });
    json!({
        "title": study.index.title,
        "base": study.index.base,
        "sentences": sentences(study),
        "top": tables::top(study, level(study)),
        "chart": learned_and_retained(study).svg(),
        "legend": legend.collect::<Vec<_>>(),
        "grids": grids,
        "missing": tables::missing(study),
        "runs": study.index.runs.len(),
        "left_out": study.left_out,
    })
}

/// As Markdown, below the title: the sentences and the tables.
pub fn markdown(study: &StudyResults<'_>) -> String {
    let mut text = format!("\n## {}: results\n\n", study.index.title.replace('\n', " "));
    // Writing to a string cannot fail.
    for (lead, sentence) in sentences(study) {
        let _ = writeln!(text, "**{lead}** {sentence}\n");
    }
    let missing = tables::missing(study);
    if !missing.is_empty() {
        let _ = writeln!(text, "{} of {} runs are not fully measured:\n", missing.len(), study.index.runs.len());
        missing.iter().chain(&study.left_out).for_each(|line| text += &format!("- {line}\n"));
        text.push('\n');
    }
    for grid in [tables::top(study, level(study))].into_iter().chain(more(study)) {
        let _ = writeln!(text, "### {}\n\n{}\n\n{}\n{}\n", grid.title, grid.how, grid.table().markdown(), grid.source);
    }
    text
}

fn more(study: &StudyResults<'_>) -> Vec<TableWithCaption> {
    let tables = [tables::by_category(study), tables::by_family(study), tables::ladder(study)];
    tables.into_iter().chain([tables::matched(study, level(study))]).flatten().collect()
}

/// The results in sentences, each with its heading.
fn sentences(study: &StudyResults<'_>) -> Vec<(&'static str, String)> {
    let named = |of: &dyn Fn(&RegimeRuns<'_>) -> Option<SeedMean>| -> Vec<(&str, SeedMean)> {
        study.regimes.iter().filter_map(|regime| Some((regime.name, of(regime.best()?)?))).collect()
    };
    let right = named(&|variant| variant.over(accuracy, (0.0, 1.0)));
    if right.is_empty() {
        return vec![("Nothing is measured yet.", "No finished run has been compared with the base.".into())];
    }
    let lost: Vec<Forgotten<'_>> =
        study.regimes.iter().filter_map(|regime| forgotten(study, regime.name, regime.best()?)).collect();
    // The base has several values if the regimes have different prompts.
    let bases: Vec<f64> = study.new_tasks().iter().map(|one| one.all.base.value.value).collect();
    let base = bases.iter().copied().reduce(f64::max).map(|most| match bases.len() {
        1 => percent(most),
        _ => format!("at most {}", percent(most)),
    });
    let score = study.any().and_then(|tuned| tuned.all.as_ref()).map(|all| all.base);
    let level = level(study);
    let there = |variant: &RegimeRuns<'_>| {
        let found = variant.reached(level?);
        found.change.filter(|_| found.seeds == found.of)
    };
    let paid = named(&there);
    // Ways that begin above it cannot be read there.
    let begins_above = |variant: &RegimeRuns<'_>| level.is_some_and(|level| variant.reached(level).above > 0);
    let above = study.regimes.iter().filter(|regime| regime.best().is_some_and(begins_above));
    let above: Vec<&str> = above.map(|regime| regime.name).collect();
    let absent = right.iter().map(|(name, _)| *name).filter(|name| !paid.iter().any(|(other, _)| other == name));
    let absent: Vec<&str> = absent.filter(|name| !above.contains(name)).collect();
    let mut price = sentences::price(&paid, level, &absent);
    if !above.is_empty() {
        price +=
            &format!(" {} started above that accuracy, from a model that is not measured.", sentences::and(&above));
    }
    let all = [
        ("Learned.", sentences::learned(&right, base.as_deref())),
        ("Forgotten.", sentences::forgotten(&lost, score)),
        ("Forgotten at equal accuracy.", Some(price)),
        ("Note.", sentences::caution(&right)),
        ("Note.", sentences::sets(&sets(study))),
    ];
    all.into_iter().filter_map(|(lead, text)| Some((lead, text?))).collect()
}

/// What a regime forgot at one learning rate, on the whole and by family.
fn forgotten<'a>(study: &StudyResults<'a>, name: &'a str, variant: &RegimeRuns<'a>) -> Option<Forgotten<'a>> {
    let families = tables::families(study);
    let of = |family: &'a str| Some((family, tables::over_family(variant, family)?));
    let only = match variant.done().collect::<Vec<_>>().as_slice() {
        [(_, tuned)] => prior(tuned),
        _ => None,
    };
    Some(Forgotten {
        name,
        mean: variant.change(prior)?,
        families: families.into_iter().filter_map(of).collect(),
        questions: only.map(|all| (all.worse, all.better, all.p_sign)),
    })
}

/// Each set of examples of the new task by its hash, with the regimes that are measured on it.
fn sets<'a>(study: &StudyResults<'a>) -> Vec<(&'a str, Vec<&'a str>)> {
    let on = |regime: &load::RegimeResults<'a>, data: &str| {
        let mut models = regime.variants.iter().flat_map(|variant| &variant.runs).flat_map(|run| &run.models);
        models.any(|tuned| tuned.new_task.as_ref().is_some_and(|one| one.data == data))
    };
    let regimes = |data: &str| study.regimes.iter().filter(|one| on(one, data)).map(|one| one.name).collect();
    let new_tasks = study.new_tasks();
    new_tasks.iter().map(|one| (brief(&one.data), regimes(&one.data))).collect()
}

/// New-task accuracy against change of prior knowledge: every checkpoint of every run, those of the best variants on top.
fn learned_and_retained(study: &StudyResults<'_>) -> Chart {
    let (mut thin, mut thick) = (Vec::new(), Vec::new());
    for (i, regime) in study.regimes.iter().enumerate() {
        for (j, variant) in regime.variants.iter().enumerate() {
            let best = regime.best == Some(j);
            let line = |run: &SeedRun<'_>| Series {
                name: run.plan.name.clone(),
                colour: i % COLOURS,
                mark: if best { Mark::Thick } else { Mark::Thin },
                points: run.trajectory.iter().map(|p| Point::new(p.accuracy, 100.0 * p.value)).collect(),
            };
            let lines = variant.runs.iter().filter(|run| !run.trajectory.is_empty()).map(line);
            if best { thick.extend(lines) } else { thin.extend(lines) }
        }
    }
    let x = Axis::percent("new-task accuracy");
    let mut chart = Chart::new(x, Axis::new("prior knowledge (points)"), [thin, thick].concat());
    let several = study.new_tasks().len() > 1;
    let base = |one: &BenchmarkChange| {
        let name = if several { format!("base ({})", brief(&one.data)) } else { "base".into() };
        (name, Point::new(one.all.base.value.value, 0.0))
    };
    chart.named = study.new_tasks().into_iter().map(base).collect();
    chart
}

/// Colour of a training run or a model, by its regime.
pub fn colour(studies: &[StudyResults<'_>], dir: &std::path::Path, model: Option<&TunedResult>) -> Option<usize> {
    let hash = model.map(|tuned| tuned.model.hash.as_str()).unwrap_or("none");
    studies.iter().find_map(|study| study.regime_of(dir, hash)).map(|regime| regime % COLOURS)
}
