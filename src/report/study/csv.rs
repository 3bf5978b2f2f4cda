//! A study as one long table, a number in each row.

use super::factorial::factorial;
use super::kl;
use super::level::{ComparedRegimes, compared_regimes};
use super::load::{RegimeRuns, SeedRun, StudyResults};
use super::measure::{ACCURACY, FORMAT_LOSS, KL_NEW, KL_PRIOR, accuracy, format_loss, prior};
use super::seed_stats::{SeedMean, SeedValue, seed_mean};
use super::tables::{equal_levels, families};
use super::{outcomes, recovery, sequence};
use crate::forgetting::{ALL, BenchmarkChange, TunedResult, brief, brief_data};
use crate::report::trajectory::step;
use crate::sampling::Summary;
use crate::stats::Interval;
use crate::stats::table::csv_field;
use crate::tasks::partial_credit_label;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The columns; `family` is a family of benchmarks, of the new task a category of its examples. Scores and changes are shares (0 to 1); an empty cell is a number that does not exist. Without a seed, the row is a mean over
/// the seeds named in `seeds`.
pub const CSV_HEADER: &str = "regime,learning_rate,seed,seeds,step,final,measure,family,value,ci_low,ci_high,data";

/// What a row is about, besides its measure.
struct RowContext<'a> {
    regime: &'a str,
    variant: String,
    seed: Option<u64>,
    seeds: Vec<u64>,
    step: Option<u64>,
    last: bool,
}

/// Everything about these studies.
pub fn csv(studies: &[StudyResults<'_>]) -> String {
    let mut out = format!("{CSV_HEADER}\n");
    studies.iter().for_each(|study| of_study(&mut out, study));
    out
}

fn of_study(out: &mut String, study: &StudyResults<'_>) {
    base(out, study);
    for regime in &study.regimes {
        for variant in &regime.variants {
            for run in &variant.runs {
                run.models.iter().for_each(|tuned| of_model(out, study, (regime.name, run), tuned));
            }
            over(out, study, regime.name, variant);
        }
    }
    compared_regimes(study).iter().for_each(|group| {
        at_equal_accuracy(out, group);
        effects(out, group);
    });
    lines(out, study);
    study.sequence.iter().flat_map(sequence::numbers).for_each(|one| {
        let context = RowContext {
            regime: one.method,
            variant: String::new(),
            seed: one.seed,
            seeds: one.seeds,
            step: None,
            last: one.last,
        };
        context.row(out, &one.measure, &one.of, one.value, "");
    });
}

/// The effects of data, learning rate and method on the points lost.
fn effects(out: &mut String, group: &ComparedRegimes<'_, '_>) {
    for effect in factorial(group).into_iter().flat_map(|found| found.effects) {
        for (clusters, found) in [("run", Some(effect.by_run)), ("seed", effect.by_seed)] {
            let Some(found) = found else { continue };
            let measure = format!("effect on points lost clustered by {clusters}");
            RowContext::of_study().row(out, &measure, &effect.name, found.value, "");
        }
    }
}

/// The lines of points lost over KL.
fn lines(out: &mut String, study: &StudyResults<'_>) {
    for line in kl::lines(study) {
        let numbers = [
            ("slope clustered by run", line.by_run.slope),
            ("slope clustered by regime", line.by_regime.slope),
            ("R^2", alone(line.by_run.r2)),
            ("Spearman", alone(line.by_run.spearman)),
        ];
        for (what, value) in numbers {
            RowContext::of_study().row(out, &format!("points lost against KL: {what}"), &line.name, value, "");
        }
    }
}

fn base(out: &mut String, study: &StudyResults<'_>) {
    let context =
        RowContext { regime: "base", variant: String::new(), seed: None, seeds: Vec::new(), step: None, last: true };
    for new_task in study.new_tasks().iter().map(|one| one.measured) {
        context.row(out, "new-task accuracy", "", new_task.all.base.value, brief(&new_task.data));
        for (measure, category, value) in study.base_evaluation(&new_task.data).into_iter().flat_map(answered) {
            context.row(out, measure, category, value, brief(&new_task.data));
        }
    }
    let Some(any) = study.any() else { return };
    for family in any.families.iter().chain(&any.all) {
        context.row(out, "score", &family.name, alone(family.base), &hashes(any, &family.benchmarks));
    }
}

fn of_model(out: &mut String, study: &StudyResults<'_>, (regime, run): (&str, &SeedRun<'_>), tuned: &TunedResult) {
    let last = run.done && run.models.last().is_some_and(|other| std::ptr::eq(*other, tuned));
    let (seed, seeds) = (Some(run.plan.seed), vec![run.plan.seed]);
    let variant = run.plan.learning_rate.map_or(run.plan.setting().to_string(), |lr| format!("{lr:e}"));
    let context = RowContext { regime, variant, seed, seeds, step: step(tuned).map(|step| step as u64), last };
    let new_task = tuned.new_task.as_ref().map(|one| brief(&one.data)).unwrap_or_default().to_string();
    let names: Vec<String> = tuned.benchmarks.iter().map(|one| one.name.clone()).collect();
    let all = hashes(tuned, &names);
    let figures = [
        ("new-task accuracy", "", accuracy(tuned), &new_task),
        ("change", ALL, prior(tuned).map(|all| all.change), &all),
        ("format loss", ALL, format_loss(tuned), &all),
        ("KL new task", "", tuned.new_task_kl(), &new_task),
        ("KL prior", ALL, tuned.prior_kl(), &all),
    ];
    for (measure, family, value, data) in figures {
        if let Some(value) = value {
            context.row(out, measure, family, value, data);
        }
    }
    for (measure, category, value) in study.evaluation(tuned).into_iter().flat_map(answered) {
        context.row(out, measure, category, value, &new_task);
    }
    for outcome in outcomes::of_model(study, tuned) {
        context.row(out, outcome.measure, &outcome.part, outcome.value.interval, "");
    }
    for one in recovery::of_run(study, run, tuned).iter().filter(|_| last) {
        let measures = recovery_measures(one.examples);
        context.row(out, &measures[0], ALL, one.change.interval, &all);
        context.row(out, &measures[1], ALL, one.back.interval, &all);
    }
    for family in &tuned.families {
        context.row(out, "change", &family.name, family.change, &hashes(tuned, &family.benchmarks));
    }
}

/// Names of the change after so many prior examples, and of the part that came back.
fn recovery_measures(examples: usize) -> [String; 2] {
    [format!("change after {examples} prior examples"), format!("came back after {examples} prior examples")]
}

/// Partial credit, if there is any, and both by category of the examples: measure, category, value.
fn answered(summary: &Summary) -> impl Iterator<Item = (&'static str, &str, Interval)> {
    const PARTIAL: &str = "partial credit";
    let graded = partial_credit_label(summary.scorers.keys()).is_some();
    let by_category = summary.categories.iter().flat_map(|(name, category)| {
        [("new-task accuracy", name.as_str(), category.accuracy), (PARTIAL, name.as_str(), category.partial_credit)]
    });
    let all = [(PARTIAL, "", summary.partial_credit)].into_iter().chain(by_category);
    all.filter(move |(measure, ..)| graded || *measure != PARTIAL)
}

/// Means over the seeds that are done.
fn over(out: &mut String, study: &StudyResults<'_>, regime: &str, variant: &RegimeRuns<'_>) {
    let Some((_, any)) = variant.done().next() else { return };
    let context = RowContext::over(regime, variant);
    let new_task = any.new_task.as_ref().map(|one| brief(&one.data)).unwrap_or_default().to_string();
    let names: Vec<String> = any.benchmarks.iter().map(|one| one.name.clone()).collect();
    let all = hashes(any, &names);
    let mut row = |measure: &str, family: &str, over: Option<SeedMean>, data: &str| {
        if let Some(over) = over {
            context.row(out, measure, family, over.mean, data);
        }
    };
    row("new-task accuracy", "", variant.over(&ACCURACY), &new_task);
    let mut of_parts: BTreeMap<(&str, &str), Vec<SeedValue>> = BTreeMap::new();
    for (measure, category, value) in variant.done().filter_map(|(_, tuned)| study.evaluation(tuned)).flat_map(answered)
    {
        of_parts.entry((measure, category)).or_default().push(value.into());
    }
    for ((measure, category), values) in of_parts {
        row(measure, category, seed_mean(&values, (0.0, 1.0)), &new_task);
    }
    row("change", ALL, variant.change(None), &all);
    row("format loss", ALL, variant.over(&FORMAT_LOSS), &all);
    row("KL new task", "", variant.over(&KL_NEW), &new_task);
    row("KL prior", ALL, variant.over(&KL_PRIOR), &all);
    for (measure, part, over) in outcomes::over_seeds(study, variant) {
        row(measure, &part, Some(over), "");
    }
    for (examples, change, back) in recovery::over_seeds(study, variant) {
        let measures = recovery_measures(examples);
        row(&measures[0], ALL, Some(change), &all);
        row(&measures[1], ALL, Some(back), &all);
    }
    for family in families(study) {
        let members = any.families.iter().find(|one| one.name == family).map(|one| one.benchmarks.clone());
        let data = hashes(any, &members.unwrap_or_default());
        row("change", family, variant.change(Some(family)), &data);
    }
}

fn at_equal_accuracy(out: &mut String, group: &ComparedRegimes<'_, '_>) {
    let bests = group.regimes.iter().filter_map(|regime| Some((*regime, regime.best()?)));
    let bests: Vec<_> = bests.collect();
    let all: Vec<_> = bests.iter().flat_map(|(_, variant)| variant.trajectories()).collect();
    let levels = equal_levels(&all, group.level);
    for (regime, variant) in &bests {
        let Some((_, any)) = variant.done().next() else { continue };
        let names: Vec<String> = any.benchmarks.iter().map(|one| one.name.clone()).collect();
        for level in &levels {
            let found = variant.reached(*level);
            let at = format!("at new-task accuracy {level:.4}");
            let share = |seeds: usize| alone(seeds as f64 / found.of.max(1) as f64);
            let context = RowContext { last: false, ..RowContext::over(regime.name, variant) };
            context.row(out, &format!("share of seeds {at}"), "", share(found.seeds), "");
            context.row(
                out,
                &format!("share of seeds before their first checkpoint {at}"),
                "",
                share(found.before),
                "",
            );
            if let Some(over) = found.change {
                context.row(out, &format!("change {at}"), ALL, over.mean, &hashes(any, &names));
            }
        }
        if let Some(perplexity) = regime.perplexity {
            let data: Vec<String> = variant.runs.iter().filter_map(|run| run.data.as_deref()).map(brief_data).collect();
            RowContext::over(regime.name, variant).row(
                out,
                "training-data perplexity",
                "",
                alone(perplexity),
                &data.join(" "),
            );
        }
    }
}

impl<'a> RowContext<'a> {
    /// A row about all regimes.
    fn of_study() -> RowContext<'a> {
        RowContext { regime: "all", variant: String::new(), seed: None, seeds: Vec::new(), step: None, last: true }
    }

    fn over(regime: &'a str, variant: &RegimeRuns<'_>) -> RowContext<'a> {
        let seeds = variant.done().map(|(run, _)| run.plan.seed).collect();
        RowContext { regime, variant: variant_name(variant), seed: None, seeds, step: None, last: true }
    }

    fn row(&self, out: &mut String, measure: &str, family: &str, value: Interval, data: &str) {
        let number = |value: f64| if value.is_finite() { value.to_string() } else { String::new() };
        let seeds: Vec<String> = self.seeds.iter().map(u64::to_string).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{},{},{},{},{},{},{},{},{},{},{},{}",
            csv_field(self.regime),
            self.variant,
            self.seed.map(|seed| seed.to_string()).unwrap_or_default(),
            seeds.join(" "),
            self.step.map(|step| step.to_string()).unwrap_or_default(),
            self.last,
            csv_field(measure),
            csv_field(family),
            number(value.value),
            number(value.low),
            number(value.high),
            csv_field(data)
        );
    }
}

/// The learning rate, or what stands in its context.
fn variant_name(variant: &RegimeRuns<'_>) -> String {
    variant.learning_rate.map_or(variant.setting.to_string(), |lr| format!("{lr:e}"))
}

fn alone(value: f64) -> Interval {
    Interval { value, low: f64::NAN, high: f64::NAN }
}

/// Hashes of these benchmarks' examples.
fn hashes(tuned: &TunedResult, names: &[String]) -> String {
    let own = |name: &String| tuned.benchmarks.iter().find(|one: &&BenchmarkChange| one.name == *name);
    names.iter().filter_map(own).map(|one| brief(&one.data)).collect::<Vec<_>>().join(" ")
}
