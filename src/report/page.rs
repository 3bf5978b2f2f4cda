//! Turns the inputs of a report into the values of the page's template.

use super::chart::{COLOURS, significant};
use super::comparison_group::ComparisonGroup;
use super::discover::{EvalRun, ReportInputs, RunState, TrainRun, canonical};
use super::dynamics_section;
use super::flips;
use super::prior_knowledge::{self, MAX_OPEN};
use super::samples;
use super::shown_models::shown_models;
use super::study::{self, StudyResults};
use super::training_curves::curves;
use crate::forgetting::brief;
use crate::io::toml::flatten;
use crate::stats::table::{NONE, Table, interval, p_value, points};
use crate::stats::{Interval, paired_difference};
use crate::tasks::{Chance, PARTIAL_CREDIT};
use crate::{Error, Result};
use minijinja::Environment;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// Responses listed of each run.
const MAX_SAMPLES: usize = 12;

/// The values of the page's template.
pub fn values(
    title: &str,
    found: &ReportInputs,
    groups: &[ComparisonGroup<'_>],
    studies: &[StudyResults<'_>],
) -> Value {
    let (runs, evals) = (&found.runs, &found.evals);
    let colours = Colours::of(runs, evals, groups, studies);
    let mut notices = notices(runs, evals);
    let chance = common_chance(evals);
    let coloured: Vec<(&TrainRun, usize)> = runs.iter().map(|r| (r, colours.get(&r.name))).collect();
    let (charts, more_charts) = curves(&coloured, chance);
    let colour = |name: &str| colours.get(name);
    let shown = shown_models(found, groups, studies, &colour);
    let answers: Vec<_> = shown.iter().flat_map(|models| samples::of_models(models, &mut notices)).collect();
    let examples = samples::of_evaluations(evals, &colour, &mut notices);
    let partial_credit = partial_credit_title(evals);
    let result = |eval: &EvalRun| result(eval, colours.get(&eval.name), partial_credit.as_deref());
    let results: Vec<Value> = evals.iter().filter_map(result).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "title": title,
        "subtitle": subtitle(found),
        "studies": studies.iter().map(study::view).collect::<Vec<_>>(),
        "many": MAX_OPEN,
        "prior": groups.iter().map(|group| prior_knowledge::view(group, &|name| colours.get(name))).collect::<Vec<_>>(),
        "dynamics": found.dynamics.iter().map(|(_, measurement)| dynamics_section::view(measurement)).collect::<Vec<_>>(),
        "legend": legend(runs, &colours),
        "notices": notices,
        "any_chance": evals.iter().any(|e| e.summary.as_ref().is_some_and(|s| s.chance.is_some())),
        "chances": chances(evals),
        "results": results,
        "partial_credit": partial_credit,
        "faults": faults(evals),
        "differences": differences(evals),
        "charts": charts,
        "more_charts": more_charts,
        "answers": answers,
        "flips": shown.iter().filter_map(flips::section).collect::<Vec<_>>(),
        "examples": examples,
        "samples": samples(runs),
        "configs": runs.iter().map(|r| json!({"name": r.name, "text": r.config_text})).collect::<Vec<_>>(),
        "config_differences": config_differences(runs),
        "sources": sources(found),
    })
}

/// The page's template, which also holds the styles.
pub const PAGE: &str = include_str!("page.html");

/// The page of these values.
///
/// # Errors
/// The template fails.
pub fn render(values: &Value) -> Result<String> {
    let page = template(PAGE, values)?;
    Ok(page.replacen(CONTENTS, &contents(&page), 1))
}

/// The place of the contents in the page.
const CONTENTS: &str = "<!-- contents -->";

/// Links to the sections of a page: its headings of the second level that have an id.
fn contents(page: &str) -> String {
    let heading = |text: &str| {
        let (id, rest) = text.split_once('"')?;
        let title = rest.split_once('>')?.1.split_once("</h2>")?.0;
        Some(format!("<a href=\"#{id}\">{title}</a>"))
    };
    let links: Vec<String> = page.split("<h2 id=\"").skip(1).filter_map(heading).collect();
    format!("<nav aria-label=\"Contents\">{}</nav>", links.join(" "))
}

/// A template of HTML with these values, which are escaped.
///
/// # Errors
/// The template fails.
pub fn template(source: &str, values: &Value) -> Result<String> {
    let mut environment = Environment::new();
    // Everything is escaped; only the charts are marked safe in the template.
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::Html);
    for (name, text) in [
        ("samples.html", include_str!("samples.html")),
        ("flips.html", include_str!("flips/flips.html")),
        ("answers.css", include_str!("answers.css")),
    ] {
        environment.add_template(name, text).map_err(|e| Error::failed(format!("the template {name}: {e:#}")))?;
    }
    let page = environment.render_str(source, minijinja::value::Serde(values));
    page.map_err(|e| Error::failed(format!("cannot render the report: {e:#}")))
}

/// Colours by name, in order of appearance. A run of a study has the colour of its regime.
struct Colours(Vec<(String, usize)>);

impl Colours {
    fn of(runs: &[TrainRun], evals: &[EvalRun], groups: &[ComparisonGroup<'_>], studies: &[StudyResults<'_>]) -> Self {
        let mut colours = Colours(Vec::new());
        for run in runs {
            colours.add(&run.name, study::colour(studies, &run.dir, None));
        }
        for eval in evals {
            let run = runs.iter().find(|run| canonical(&eval.about.model).starts_with(canonical(&run.dir)));
            colours.add(&eval.name, run.and_then(|run| study::colour(studies, &run.dir, None)));
        }
        for run in groups.iter().flat_map(|group| &group.runs) {
            colours.add(&run.name, study::colour(studies, Path::new(&run.last().model.dir), Some(run.last())));
        }
        colours
    }

    fn add(&mut self, name: &str, of_regime: Option<usize>) {
        if !self.0.iter().any(|(known, _)| known == name) {
            self.0.push((name.to_string(), of_regime.unwrap_or(self.0.len() % COLOURS)));
        }
    }

    fn get(&self, name: &str) -> usize {
        self.0.iter().find(|(known, _)| known == name).map_or(0, |(_, colour)| *colour)
    }
}

fn plural(n: usize, word: &str) -> String {
    // The plural is that of the words before `of`: `2 measurements of learning dynamics`.
    let (first, rest) =
        word.split_once(" of ").map_or((word, String::new()), |(first, rest)| (first, format!(" of {rest}")));
    if n == 1 { format!("1 {word}") } else { format!("{n} {first}s{rest}") }
}

fn subtitle(found: &ReportInputs) -> String {
    let compared = found.forgetting.iter().map(|(_, one)| one.tuned.len()).sum();
    let parts = [
        (found.runs.len(), "training run"),
        (found.evals.len(), "evaluation"),
        (compared, "comparison"),
        (found.dynamics.len(), "measurement of learning dynamics"),
    ];
    let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|&(n, word)| plural(n, word)).collect();
    match parts.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => parts.concat(),
    }
}

fn legend(runs: &[TrainRun], colours: &Colours) -> Vec<Value> {
    let of_run = |name: &str| runs.iter().find(|r| r.name == name);
    let entry = |(name, _): &(String, usize)| {
        let state = of_run(name).map(|run| match run.state {
            RunState::Finished => plural(run.last_step() as usize, "step"),
            RunState::Running => format!("running, step {}", run.last_step()),
            RunState::Stopped => format!("not finished, step {}", run.last_step()),
        });
        let live = of_run(name).is_some_and(|r| r.state != RunState::Finished);
        json!({"name": name, "colour": colours.get(name), "state": state, "live": live})
    };
    colours.0.iter().map(entry).collect()
}

fn notices(runs: &[TrainRun], evals: &[EvalRun]) -> Vec<String> {
    let mut notices = Vec::new();
    for run in runs.iter().filter(|r| r.metrics.is_empty()) {
        notices.push(format!("{}: no step has been recorded yet ({}).", run.name, run.dir.display()));
    }
    for eval in evals.iter().filter(|e| !e.finished) {
        let of = eval.about.key.examples * eval.about.key.num_generations;
        let n = eval.outcomes.len();
        notices.push(format!(
            "{}: the evaluation is not finished ({n} of {of} responses in {}); its results are over these responses.",
            eval.name,
            eval.dir.display()
        ));
    }
    notices
}

/// A share as the template shows it.
#[derive(Serialize)]
struct ShareCell {
    text: String,
    range: String,
    value: f64,
    low: f64,
    high: f64,
}

fn share_cell(interval: &Interval) -> Option<ShareCell> {
    let Interval { value, low, high } = *interval;
    if !(value.is_finite() && low.is_finite() && high.is_finite()) {
        return None;
    }
    Some(ShareCell {
        text: format!("{:.1} %", 100.0 * value),
        range: format!("{:.1} \u{2013} {:.1}", 100.0 * low, 100.0 * high),
        value: value.clamp(0.0, 1.0),
        low: low.clamp(0.0, 1.0),
        high: high.clamp(0.0, 1.0),
    })
}

/// Heading of the column for partial credit: what it counts, if that is the same for all evaluations that give any; `None` if none does.
fn partial_credit_title(evals: &[EvalRun]) -> Option<String> {
    let labels: BTreeSet<&str> = evals.iter().filter_map(EvalRun::partial_credit).collect();
    let label = if labels.len() > 1 { PARTIAL_CREDIT } else { labels.into_iter().next()? };
    let mut letters = label.chars();
    let first = letters.next()?;
    Some(first.to_uppercase().chain(letters).collect())
}

fn result(eval: &EvalRun, colour: usize, title: Option<&str>) -> Option<Value> {
    let s = eval.summary.as_ref()?;
    let partial_credit = eval.partial_credit();
    let state = (!eval.finished)
        .then(|| format!("{} of {}", eval.outcomes.len(), eval.about.key.examples * eval.about.key.num_generations));
    Some(json!({
        "name": eval.name, "colour": colour, "state": state, "task": s.task, "split": eval.about.split,
        "accuracy": share_cell(&s.accuracy), "partial_credit": partial_credit.and_then(|_| share_cell(&s.partial_credit)),
        "partial_credit_label": partial_credit.filter(|label| title.is_none_or(|title| !title.eq_ignore_ascii_case(label))),
        "parsed": share_cell(&s.parsed), "well_formed": share_cell(&s.well_formed),
        "chance_accuracy": s.chance.map(|c| c.accuracy),
        "chance_partial_credit": s.chance.filter(|_| partial_credit.is_some()).map(|c| c.partial_credit),
        "examples": s.examples, "samples": s.samples, "mean_tokens": format!("{:.1}", s.mean_tokens),
    }))
}

/// Each chance level with its task, and whether that gives partial credit.
fn each_chance(evals: &[EvalRun]) -> Vec<(&str, Chance, bool)> {
    let mut all: Vec<(&str, Chance, bool)> = Vec::new();
    for eval in evals {
        let Some((task, chance)) = eval.summary.as_ref().and_then(|s| Some((s.task.as_str(), s.chance?))) else {
            continue;
        };
        if !all.iter().any(|(t, c, _)| *t == task && *c == chance) {
            all.push((task, chance, eval.partial_credit().is_some()));
        }
    }
    all
}

/// The chance level, if it is the same for all evaluations.
fn common_chance(evals: &[EvalRun]) -> Option<Chance> {
    match each_chance(evals).as_slice() {
        [(_, chance, _)] => Some(*chance),
        _ => None,
    }
}

fn chances(evals: &[EvalRun]) -> Vec<Value> {
    let all = each_chance(evals);
    let name = |task: &str| if all.len() == 1 { "guessing".to_string() } else { format!("guessing ({task})") };
    let percent = |share: f64| format!("{} %", significant_percent(share));
    let row = |(task, c, graded): &(&str, Chance, bool)| {
        let partial_credit = if *graded { percent(c.partial_credit) } else { String::new() };
        json!({"name": name(task), "accuracy": percent(c.accuracy), "partial_credit": partial_credit})
    };
    all.iter().map(row).collect()
}

/// A percentage with one decimal, or as many as a small one needs.
fn significant_percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent >= 0.1 || percent == 0.0 { format!("{percent:.1}") } else { significant(percent) }
}

fn faults(evals: &[EvalRun]) -> Option<Table> {
    let with: Vec<(&EvalRun, _)> = evals.iter().filter_map(|e| Some((e, &e.summary.as_ref()?.faults))).collect();
    let kinds: BTreeSet<&String> = with.iter().flat_map(|(_, faults)| faults.keys()).collect();
    let mut table = Table::new(["run"].into_iter().chain(kinds.iter().map(|kind| kind.as_str())));
    for (eval, faults) in &with {
        let counts = kinds.iter().map(|kind| faults.get(*kind).copied().unwrap_or(0).to_string());
        table.rows.push([eval.name.clone()].into_iter().chain(counts).collect());
    }
    (!kinds.is_empty()).then_some(table)
}

/// Each pair of finished evaluations of the same examples.
fn differences(evals: &[EvalRun]) -> Table {
    let mut table = Table::new(["comparison", "difference in points", "95 % interval", "p", "examples"]);
    for (i, first) in evals.iter().enumerate() {
        for second in &evals[i + 1..] {
            let (a, b) = (&first.about.key, &second.about.key);
            let same = a.data == b.data && a.gold == b.gold && a.task == b.task;
            if !(first.finished && second.finished && same) {
                continue;
            }
            let (before, after) = (per_example(first), per_example(second));
            let Some(d) = paired_difference(&before, &after) else { continue };
            // Equal differences have no spread, so no interval.
            let (range, p) = match before.iter().zip(&after).all(|(x, y)| y - x == after[0] - before[0]) {
                true if before == after => ("no example differs".to_string(), NONE.to_string()),
                true => ("every example differs by the same amount".to_string(), NONE.to_string()),
                false => (interval(&d.mean), p_value(d.p)),
            };
            let name = format!("{} minus {}", second.name, first.name);
            table.rows.push(vec![name, points(d.mean.value), range, p, a.examples.to_string()]);
        }
    }
    table
}

/// Share of wholly right responses to each example.
fn per_example(eval: &EvalRun) -> Vec<f64> {
    let samples = eval.about.key.num_generations.max(1);
    let right =
        |g: &[crate::sampling::ScoredResponse]| g.iter().filter(|o| o.score.correct).count() as f64 / samples as f64;
    eval.outcomes.chunks(samples).map(right).collect()
}

/// The last responses that each run recorded.
fn samples(runs: &[TrainRun]) -> Vec<Value> {
    let text = |row: &Map<String, Value>, key: &str| row.get(key).and_then(Value::as_str).unwrap_or("").to_string();
    let of_run = |run: &TrainRun| {
        let rows = run.samples.iter().rev().take(MAX_SAMPLES).map(|row| {
            let reward = row.get("reward").and_then(Value::as_f64).map(significant);
            json!({
                "step": row.get("step").and_then(Value::as_u64), "id": text(row, "id"),
                "response": text(row, "response"), "reward": reward.unwrap_or_else(|| "\u{2013}".into()),
            })
        });
        json!({"name": format!("{}: the last {} recorded", run.name, run.samples.len().min(MAX_SAMPLES)), "rows": rows.collect::<Vec<_>>()})
    };
    runs.iter().filter(|r| !r.samples.is_empty()).map(of_run).collect()
}

/// Settings that are not the same in all runs.
fn config_differences(runs: &[TrainRun]) -> Table {
    let all: Vec<Vec<(String, toml::Value)>> = runs.iter().map(|r| flatten(&r.config)).collect();
    let mut keys: Vec<&String> = Vec::new();
    for (key, _) in all.iter().flatten() {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let many = runs.len() > MAX_OPEN;
    let names = runs.iter().map(|run| run.name.as_str()).filter(|_| !many);
    let mut table = Table::new(["setting"].into_iter().chain(names).chain(many.then_some("values")));
    for key in keys {
        let find =
            |config: &Vec<(String, toml::Value)>| config.iter().find(|(k, _)| k == key).map(|(_, v)| v.to_string());
        let values: Vec<String> = all.iter().map(|own| find(own).unwrap_or_else(|| NONE.into())).collect();
        if values.iter().all(|value| *value == values[0]) {
            continue;
        }
        let cells = if many { vec![by_value(runs, &values)] } else { values };
        table.rows.push([key.clone()].into_iter().chain(cells).collect());
    }
    table
}

/// Each value once, with its runs: their names, or of more than three their number.
fn by_value(runs: &[TrainRun], values: &[String]) -> String {
    let mut groups: Vec<(&String, Vec<&str>)> = Vec::new();
    for (value, run) in values.iter().zip(runs) {
        match groups.iter_mut().find(|(known, _)| *known == value) {
            Some((_, names)) => names.push(&run.name),
            None => groups.push((value, vec![&run.name])),
        }
    }
    let of = |(value, names): &(&String, Vec<&str>)| match names.as_slice() {
        some if some.len() <= 3 => format!("{value} ({})", some.join(", ")),
        more => format!("{value} ({} runs)", more.len()),
    };
    groups.iter().map(of).collect::<Vec<_>>().join("; ")
}

/// What the page was made of.
fn sources(found: &ReportInputs) -> Table {
    let ReportInputs { runs, evals, forgetting, dynamics, studies: _ } = found;
    let text = |run: &TrainRun, key: &str| run.identity.get(key).and_then(Value::as_str).unwrap_or("").to_string();
    let named = |name: &str, hash: &str| format!("{name} ({})", brief(hash));
    let mut table = Table::new(["run", "directory", "model", "data"]);
    let mut row = |name: String, dir: &Path, model: String, data: String| {
        table.rows.push(vec![name, dir.display().to_string(), model, data]);
    };
    for run in runs {
        row(run.name.clone(), &run.dir, text(run, "model"), text(run, "data"));
    }
    for eval in evals {
        let data = format!("{} ({})", eval.about.data.display(), eval.about.split);
        row(format!("{}: evaluation", eval.name), &eval.dir, eval.about.model.display().to_string(), data);
    }
    for (dir, one) in forgetting {
        let models: Vec<&str> = one.tuned.iter().map(|t| t.model.dir.as_str()).collect();
        let benchmarks = one.tuned.first().map(|t| t.new_task.iter().chain(&t.benchmarks));
        let data: Vec<String> = benchmarks.into_iter().flatten().map(|b| named(&b.name, &b.data)).collect();
        row(format!("comparison with {}", one.base.name), dir, models.join(", "), data.join(", "));
    }
    for (dir, one) in dynamics {
        let models: Vec<&str> = one.found.checkpoints.iter().map(|c| c.model.dir.as_str()).collect();
        let sets = one.found.regimes.iter().chain(&one.found.priors);
        let data: Vec<String> = sets.map(|set| named(&set.name, &set.data)).collect();
        row("learning dynamics".into(), dir, models.join(", "), data.join(", "));
    }
    table
}
