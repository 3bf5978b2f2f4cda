//! The first section of a study's page: what each regime learned and forgot, and what it forgot at equal accuracy.

mod csv;
mod factorial;
mod kl;
mod level;
mod load;
#[cfg(test)]
mod outcome_tests;
mod outcomes;
mod rates;
mod recipe;
mod recovery;
mod seed_stats;
mod sentences;
mod tables;
#[cfg(test)]
mod tests;

pub use csv::{CSV_HEADER, csv};
pub use load::{StudyResults, load};

use super::chart::{Axis, COLOURS, Chart, Mark, Point, Reference, Series};
use crate::forgetting::TunedResult;
use crate::stats::table::percent;
use level::{ComparedRegimes, compared_regimes};
use load::{ACCURACY, NewTask, RegimeResults, RegimeRuns, SeedRun, prior};
use seed_stats::{AtAccuracy, SeedMean};
use sentences::Forgotten;
use serde_json::{Value, json};
use std::fmt::Write;
use tables::TableWithCaption;

/// The values of the page's template.
pub fn view(study: &StudyResults<'_>) -> Value {
    let groups = compared_regimes(study);
    let grids: Vec<TableWithCaption> = more(study, &groups);
    let legend = study.regimes.iter().enumerate().map(|(i, regime)| {
        let at = regime.best().map(|variant| variant.label());
        json!({"name": regime.name, "colour": i % COLOURS, "at": at})
    });
    json!({
        "title": study.index.title,
        "base": study.index.base,
        "sentences": sentences(study, &groups),
        "top": tables::top(study, &groups),
        "rates": rates::figure(study),
        "chart": learned_and_retained(study).svg(),
        "kl": kl::figure(study),
        "legend": legend.collect::<Vec<_>>(),
        "grids": grids,
        "missing": tables::missing(study),
        "runs": study.index.runs.len(),
        "left_out": study.left_out,
    })
}

/// As Markdown, below the title: the sentences and the tables.
pub fn markdown(study: &StudyResults<'_>) -> String {
    let groups = compared_regimes(study);
    let mut text = format!("\n## {}: results\n\n", study.index.title.replace('\n', " "));
    // Writing to a string cannot fail.
    for (lead, sentence) in sentences(study, &groups) {
        let _ = writeln!(text, "**{lead}** {sentence}\n");
    }
    let missing = tables::missing(study);
    if !missing.is_empty() {
        let _ = writeln!(text, "{} of {} runs are not fully measured:\n", missing.len(), study.index.runs.len());
        missing.iter().chain(&study.left_out).for_each(|line| text += &format!("- {line}\n"));
        text.push('\n');
    }
    for grid in [tables::top(study, &groups)].into_iter().chain(more(study, &groups)) {
        let _ = writeln!(text, "### {}\n\n{}\n\n{}\n{}\n", grid.title, grid.how, grid.table().markdown(), grid.source);
    }
    text
}

/// As paragraphs of plain text: the sentences, and the runs that are not fully measured.
pub fn headline(study: &StudyResults<'_>) -> Vec<String> {
    let sentences = sentences(study, &compared_regimes(study));
    let sentences = sentences.into_iter().map(|(lead, sentence)| format!("{lead} {sentence}"));
    let missing = tables::missing(study);
    sentences.chain(missing.into_iter().map(|line| format!("Not fully measured: {line}"))).collect()
}

fn more(study: &StudyResults<'_>, groups: &[ComparedRegimes<'_, '_>]) -> Vec<TableWithCaption> {
    let tables = [tables::ladder(study), tables::by_category(study), tables::by_family(study)];
    let factorial = groups.iter().map(|group| factorial::table(study, group));
    let matched = groups.iter().map(|group| tables::matched(study, group, groups.len() > 1));
    let outcomes = [kl::table(study), outcomes::table(study), recovery::table(study), outcomes::weights(study)];
    tables.into_iter().chain(factorial).chain(matched).chain(outcomes).flatten().collect()
}

/// The results in sentences, each with its heading. Only regimes with the same new task are ranked on it.
fn sentences(study: &StudyResults<'_>, groups: &[ComparedRegimes<'_, '_>]) -> Vec<(&'static str, String)> {
    let named = |of: &dyn Fn(&RegimeRuns<'_>) -> Option<SeedMean>| -> Vec<(&str, SeedMean)> {
        study.regimes.iter().filter_map(|regime| Some((regime.name, of(regime.best()?)?))).collect()
    };
    let right = named(&|variant| variant.over(&ACCURACY));
    if right.is_empty() {
        return vec![("Nothing is measured yet.", "No finished run has been compared with the base.".into())];
    }
    let lost: Vec<Forgotten<'_>> =
        study.regimes.iter().filter_map(|regime| forgotten(study, regime.name, regime.best()?)).collect();
    let score = study.any().and_then(|tuned| tuned.all.as_ref()).map(|all| all.base);
    let several = groups.len() > 1;
    let mut all = Vec::new();
    for group in groups {
        let own: Vec<_> = right.iter().copied().filter(|(name, _)| group.has(name)).collect();
        let on = several.then(|| sentences::and(&group.names()));
        let base = base_accuracy(&group.new_tasks);
        all.push(("Learned.", sentences::learned(&own, on.as_deref(), Some(&base), group.has_criterion())));
    }
    all.push(("Forgotten.", sentences::forgotten(&lost, score)));
    all.extend(groups.iter().map(|group| ("Forgotten at equal accuracy.", price(group, &right, several))));
    all.push(("Note.", sentences::caution(&right)));
    all.push(("Note.", sentences::new_tasks(&wordings(groups))));
    let trained = study
        .runs()
        .filter_map(|(_, run)| Some((run.plan.name.as_str(), run.plan.training.as_ref()?.criterion.as_ref()?)));
    all.push(("Note.", sentences::criteria(&trained.collect::<Vec<_>>())));
    all.into_iter().filter_map(|(lead, text)| Some((lead, text?))).collect()
}

/// What the regimes of a group paid at an accuracy that they reach. `None` for a group of one among several.
fn price(group: &ComparedRegimes<'_, '_>, right: &[(&str, SeedMean)], several: bool) -> Option<String> {
    if several && group.regimes.len() < 2 {
        return None;
    }
    let named = |text: String| {
        if several { format!("New task {}: {text}", sentences::and(&group.names())) } else { text }
    };
    let at_criterion = group.has_criterion().then(|| at_criterion(group));
    if let (Some(text), None) = (&at_criterion, group.level) {
        return Some(named(text.clone()));
    }
    let level = group.level;
    let there = |variant: &RegimeRuns<'_>| {
        let found = variant.reached(level?);
        found.change.filter(|_| found.seeds == found.of)
    };
    let paid: Vec<(&str, SeedMean)> =
        group.regimes.iter().filter_map(|regime| Some((regime.name, there(regime.best()?)?))).collect();
    // Ways that begin above it cannot be read there.
    let with = |count: fn(&AtAccuracy) -> usize| -> Vec<&str> {
        let some = |variant: &RegimeRuns<'_>| level.is_some_and(|level| count(&variant.reached(level)) > 0);
        group.regimes.iter().filter(|regime| regime.best().is_some_and(some)).map(|regime| regime.name).collect()
    };
    let (above, before) = (with(|at| at.above), with(|at| at.before));
    let own = right.iter().map(|(name, _)| *name).filter(|name| group.has(name));
    let absent = own.filter(|name| !paid.iter().any(|(other, _)| other == name));
    let absent: Vec<&str> = absent.filter(|name| !above.contains(name) && !before.contains(name)).collect();
    let mut price = sentences::price(&paid, level, &absent);
    if !above.is_empty() {
        price +=
            &format!(" {} started above that accuracy, from a model that is not measured.", sentences::and(&above));
    }
    if !before.is_empty() {
        price += &format!(
            " {} passed that accuracy before the first measured checkpoint, so what was paid there is not known.",
            sentences::and(&before)
        );
    }
    Some(named(at_criterion.map_or(String::new(), |text| text + " ") + &price))
}

/// What the regimes of a group paid where they met their criterion.
fn at_criterion(group: &ComparedRegimes<'_, '_>) -> String {
    let (met, not_met): (Vec<&RegimeResults<'_>>, Vec<&RegimeResults<'_>>) = group
        .regimes
        .iter()
        .copied()
        .filter(|regime| regime.best().is_some())
        .partition(|regime| regime.met_criterion());
    let over = |of: &dyn Fn(&RegimeRuns<'_>) -> Option<SeedMean>| -> Vec<(&str, SeedMean)> {
        met.iter().filter_map(|regime| Some((regime.name, of(regime.best()?)?))).collect()
    };
    let mut criteria: Vec<&str> = Vec::new();
    for (run, _) in met.iter().filter_map(|regime| regime.best()).flat_map(RegimeRuns::done) {
        let own = run.plan.training.as_ref().and_then(|training| training.criterion.as_ref());
        criteria.extend(own.map(|criterion| criterion.stop_when.as_str()).filter(|own| !criteria.contains(own)));
    }
    let not_met: Vec<&str> =
        not_met.iter().filter(|r| r.best().is_some_and(|v| v.criterion().is_some())).map(|r| r.name).collect();
    sentences::at_criterion(
        &criteria,
        &over(&|variant| variant.change(None)),
        &over(&|variant| variant.over(&ACCURACY)),
        &not_met,
    )
}

/// What a regime forgot at one learning rate, on the whole and by family.
fn forgotten<'a>(study: &StudyResults<'a>, name: &'a str, variant: &RegimeRuns<'a>) -> Option<Forgotten<'a>> {
    let families = tables::families(study);
    let of = |family: &'a str| Some((family, variant.change(Some(family))?));
    let only = match variant.done().collect::<Vec<_>>().as_slice() {
        [(_, tuned)] => prior(tuned),
        _ => None,
    };
    Some(Forgotten {
        name,
        mean: variant.change(None)?,
        families: families.into_iter().filter_map(of).collect(),
        questions: only.map(|all| (all.worse, all.better, all.p_sign)),
    })
}

/// Accuracy of the base on the new task, for each wording.
fn base_accuracy(new_tasks: &[NewTask<'_>]) -> String {
    let of = |one: &NewTask<'_>| percent(one.measured.all.base.value.value);
    match new_tasks {
        [one] => of(one),
        several => {
            let each: Vec<String> = several.iter().map(|one| format!("{} on {}", of(one), one.name)).collect();
            sentences::and(&each.iter().map(String::as_str).collect::<Vec<_>>())
        }
    }
}

/// The new tasks by what is compared, each with the regimes that are measured on it.
fn wordings<'s>(groups: &'s [ComparedRegimes<'_, '_>]) -> Vec<Vec<(&'s str, Vec<&'s str>)>> {
    let of_group = |group: &'s ComparedRegimes<'_, '_>| {
        let one = |new_task: &'s NewTask<'_>| {
            let on = group.regimes.iter().filter(|regime| regime.is_measured_on(&new_task.measured.data));
            (new_task.name.as_str(), on.map(|regime| regime.name).collect())
        };
        group.new_tasks.iter().map(one).collect()
    };
    groups.iter().map(of_group).collect()
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
    let new_tasks = study.new_tasks();
    let base = |one: &NewTask<'_>| {
        let name = if new_tasks.len() > 1 { format!("base ({})", one.name) } else { "base".into() };
        (name, Point::new(one.measured.all.base.value.value, 0.0))
    };
    chart.named = new_tasks.iter().map(base).collect();
    // The same puzzles in other words have the same line.
    for one in &new_tasks {
        for (name, summary) in study.solvers_on(&one.measured.data) {
            let line = Reference::At(summary.accuracy.value, name.to_string());
            if !chart.references.contains(&line) {
                chart.references.push(line);
            }
        }
    }
    chart
}

/// Colour of a training run or a model, by its regime.
pub fn colour(studies: &[StudyResults<'_>], dir: &std::path::Path, model: Option<&TunedResult>) -> Option<usize> {
    let hash = model.map(|tuned| tuned.model.hash.as_str()).unwrap_or("none");
    studies.iter().find_map(|study| study.regime_of(dir, hash)).map(|regime| regime % COLOURS)
}
