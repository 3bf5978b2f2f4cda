//! The first section of a study's page: what each regime learned and lost, and what it lost at equal accuracy.

mod cells;
mod csv;
mod factorial;
mod first_screen;
mod kl;
mod level;
mod load;
mod measure;
#[cfg(test)]
mod outcome_tests;
mod outcomes;
mod rates;
mod recipe;
mod recovery;
mod seed_stats;
mod sentences;
mod sequence;
mod tables;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub use cells::FULL_TINT;
pub use csv::{CSV_HEADER, csv};
pub use load::{StudyResults, load};
pub use sequence::matrix_json as sequence_json;

use super::chart::COLOURS;
use crate::forgetting::TunedResult;
use cells::TableWithCaption;
use first_screen::RegimeSentence;
use level::{ComparedRegimes, compared_regimes};
use load::{RegimeResults, RegimeRuns};
use measure::ACCURACY;
use seed_stats::{AtAccuracy, SeedMean};
use sentences::RegimeResult;
use serde_json::{Value, json};
use std::fmt::Write;

/// The values of the page's template.
pub fn view(study: &StudyResults<'_>) -> Value {
    let groups = compared_regimes(study);
    let results = first_screen::results(study);
    let (regimes, comparisons) = sentences(study, &groups, &results);
    let unmeasured = study.regimes.iter().filter(|regime| regime.best().is_none());
    json!({
        "title": study.index.title,
        "introduction": first_screen::introduction(study),
        "regimes": regimes,
        "unmeasured": unmeasured.map(|regime| regime.name).collect::<Vec<_>>(),
        "figures": first_screen::figures(study, &results),
        "comparisons": comparisons,
        "tables": main_tables(study, &groups),
        "kl": kl::figure(study),
        "more_tables": more_tables(study, &groups),
        "missing": tables::missing(study),
        "runs": study.index.runs.len(),
        "left_out": study.left_out,
        "sequence": study.sequence.as_ref().map(sequence::view),
        "source": source(study),
    })
}

/// As Markdown, below the title: the sentences and the tables.
pub fn markdown(study: &StudyResults<'_>) -> String {
    let groups = compared_regimes(study);
    let mut text = format!("\n## {}: results\n\n", study.index.title.replace('\n', " "));
    // Writing to a string cannot fail.
    if let Some(introduction) = first_screen::introduction(study) {
        let _ = writeln!(text, "{introduction}\n");
    }
    let sequence = study.sequence.as_ref().map(sequence::markdown);
    if study.index.runs.is_empty() {
        return text + &sequence.unwrap_or_default();
    }
    let (regimes, comparisons) = sentences(study, &groups, &first_screen::results(study));
    regimes.iter().for_each(|one| text += &format!("- **{}**: {}\n", one.name, one.text));
    for (lead, sentence) in comparisons {
        let _ = write!(text, "\n**{lead}** {sentence}\n");
    }
    text.push('\n');
    let missing = tables::missing(study);
    if !missing.is_empty() {
        let _ = writeln!(text, "{} of {} runs are not fully measured:\n", missing.len(), study.index.runs.len());
        missing.iter().chain(&study.left_out).for_each(|line| text += &format!("- {line}\n"));
        text.push('\n');
    }
    for table in main_tables(study, &groups).into_iter().chain(more_tables(study, &groups)) {
        let _ = writeln!(text, "### {}\n\n{}\n\n{}", table.title, table.how, table.table().markdown());
    }
    text + &sequence.unwrap_or_default() + &source(study) + "\n"
}

/// As paragraphs of plain text: the sentences, and the runs that are not fully measured.
pub fn headline(study: &StudyResults<'_>) -> Vec<String> {
    let sequence = study.sequence.as_ref().map(sequence::headline).unwrap_or_default();
    if study.index.runs.is_empty() {
        return sequence;
    }
    let (regimes, comparisons) = sentences(study, &compared_regimes(study), &first_screen::results(study));
    let regimes = regimes.into_iter().map(|one| format!("{}: {}", one.name, one.text));
    let comparisons = comparisons.into_iter().map(|(lead, sentence)| format!("{lead} {sentence}"));
    let missing = tables::missing(study);
    let missing = missing.into_iter().map(|line| format!("Not fully measured: {line}"));
    let regimes = first_screen::introduction(study).into_iter().chain(regimes);
    regimes.chain(comparisons).chain(missing).chain(sequence).collect()
}

/// The tables of what was learned and lost.
fn main_tables(study: &StudyResults<'_>, groups: &[ComparedRegimes<'_, '_>]) -> Vec<TableWithCaption> {
    let all = [Some(tables::answers(study, groups)), tables::ladder(study), tables::by_family(study)];
    all.into_iter().flatten().map(TableWithCaption::explained).collect()
}

/// The tables below them: what else was measured, in the order of the page.
fn more_tables(study: &StudyResults<'_>, groups: &[ComparedRegimes<'_, '_>]) -> Vec<TableWithCaption> {
    let matched = groups.iter().map(|group| tables::matched(study, group, groups.len() > 1));
    let factorial = groups.iter().map(factorial::table);
    let rest = [tables::by_category(study), tables::distances(study), kl::table(study)];
    let outcomes = [outcomes::table(study), recovery::table(study), outcomes::weights(study)];
    matched.chain(factorial).chain(rest).chain(outcomes).flatten().map(TableWithCaption::explained).collect()
}

/// Where all figures and tables are from.
fn source(study: &StudyResults<'_>) -> String {
    let variants = study.regimes.iter().flat_map(|regime| regime.variants.iter().map(|variant| (regime.name, variant)));
    load::source(study, &variants.collect::<Vec<_>>())
}

/// The results in sentences: one for each regime, and what can be said between them, each with its heading. Only regimes with the same new
/// task are ranked on it.
fn sentences<'s>(
    study: &'s StudyResults<'_>,
    groups: &[ComparedRegimes<'_, '_>],
    results: &[RegimeResult<'s>],
) -> (Vec<RegimeSentence<'s>>, Vec<(&'static str, String)>) {
    if results.is_empty() {
        let nothing = ("Nothing is measured yet.", "No finished run has been compared with the base.".into());
        return (Vec::new(), vec![nothing]);
    }
    let right: Vec<(&str, SeedMean)> = results.iter().map(|one| (one.name, one.accuracy)).collect();
    let several = groups.len() > 1;
    let mut all = Vec::new();
    for group in groups {
        let own: Vec<_> = right.iter().copied().filter(|(name, _)| group.has(name)).collect();
        let on = several.then(|| sentences::and(&group.names()));
        all.push(("Learned.", sentences::learned(&own, on.as_deref(), group.has_criterion())));
    }
    all.push(("Lost.", sentences::forgotten(results)));
    all.extend(groups.iter().map(|group| ("Lost at equal accuracy.", price(group, &right, several))));
    all.push(("Note.", sentences::caution(&right)));
    all.push(("Note.", sentences::new_tasks(&wordings(groups))));
    let trained = study
        .runs()
        .filter_map(|(_, run)| Some((run.plan.name.as_str(), run.plan.training.as_ref()?.criterion.as_ref()?)));
    all.push(("Note.", sentences::criteria(&trained.collect::<Vec<_>>())));
    let comparisons = all.into_iter().filter_map(|(lead, text)| Some((lead, text?))).collect();
    (first_screen::regime_sentences(study, results), comparisons)
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

/// The new tasks by what is compared, each with the regimes that are measured on it.
fn wordings<'s>(groups: &'s [ComparedRegimes<'_, '_>]) -> Vec<Vec<(&'s str, Vec<&'s str>)>> {
    let of_group = |group: &'s ComparedRegimes<'_, '_>| {
        let one = |new_task: &'s load::NewTask<'_>| {
            let on = group.regimes.iter().filter(|regime| regime.is_measured_on(&new_task.measured.data));
            (new_task.name.as_str(), on.map(|regime| regime.name).collect())
        };
        group.new_tasks.iter().map(one).collect()
    };
    groups.iter().map(of_group).collect()
}

/// Colour of a training run or a model, by its regime.
pub fn colour(studies: &[StudyResults<'_>], dir: &std::path::Path, model: Option<&TunedResult>) -> Option<usize> {
    let hash = model.map(|tuned| tuned.model.hash.as_str()).unwrap_or("none");
    studies.iter().find_map(|study| study.regime_of(dir, hash)).map(|regime| regime % COLOURS)
}
