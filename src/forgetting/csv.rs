//! The whole result as one long table, a number in each row, for pandas and R.

use super::change::Change;
use super::gold::{GoldChange, PairedMean};
use super::group_mean::GroupMean;
use super::result::{BenchmarkChange, ForgettingResult, ModelRef, TunedResult};
use super::transitions::Transitions;
use crate::eval::{Divergence, DivergenceStats, PromptRole};
use crate::model::weight_diff::PartDiff;
use crate::stats::Interval;
use crate::stats::table::csv_field;
use std::fmt::Write;

/// The columns. Scores are shares (0 to 1), `ci_low` and `ci_high` the ends of a 95 % interval. A number that does not exist is an empty cell.
pub const CSV_HEADER: &str = "base_model,model,run,step,seed,train_data,scope,family,benchmark,category,measure,n,base,tuned,change,\
                          ci_low,ci_high,p,p_holm,new_task_accuracy";

/// One number and what it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct CsvRow {
    /// `new-task`, `benchmark`, `category`, `family`, `all`, `aggregate`, `prompts`, `gold`, `weights` or `equal-accuracy`.
    pub scope: &'static str,
    /// Family of the benchmark.
    pub family: String,
    /// Benchmark.
    pub benchmark: String,
    /// Category of the benchmark.
    pub category: String,
    /// What is measured.
    pub measure: String,
    /// Pairs of responses.
    pub n: Option<usize>,
    /// The base's number.
    pub base: f64,
    /// The tuned model's.
    pub tuned: f64,
    /// The number itself where it compares both, with its interval.
    pub change: Interval,
    /// p-value of no change.
    pub p: f64,
    /// Adjusted for the number of benchmarks.
    pub p_holm: f64,
    /// For `equal-accuracy`: the new-task accuracy at which runs are compared.
    pub new_task_accuracy: f64,
}

impl CsvRow {
    /// A row without any number.
    pub fn empty(scope: &'static str, measure: &str) -> CsvRow {
        CsvRow {
            scope,
            family: String::new(),
            benchmark: String::new(),
            category: String::new(),
            measure: measure.to_string(),
            n: None,
            base: f64::NAN,
            tuned: f64::NAN,
            change: Interval::UNKNOWN,
            p: f64::NAN,
            p_holm: f64::NAN,
            new_task_accuracy: f64::NAN,
        }
    }

    /// As a line of CSV, for this model.
    pub fn csv(&self, base: &ModelRef, model: &ModelRef) -> String {
        let run = model.run.as_ref();
        let whole = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        let texts = [
            &base.name,
            &model.name,
            run.map_or(&String::new(), |r| &r.name),
            &whole(run.and_then(|r| r.step)),
            &whole(run.and_then(|r| r.seed)),
            run.map_or(&String::new(), |r| &r.data_hash),
            &self.scope.to_string(),
            &self.family,
            &self.benchmark,
            &self.category,
            &self.measure,
            &whole(self.n.map(|n| n as u64)),
        ]
        .map(|text| csv_field(text));
        let Interval { value, low, high } = self.change;
        let mut line = texts.join(",");
        for number in [self.base, self.tuned, value, low, high, self.p, self.p_holm, self.new_task_accuracy] {
            line.push(',');
            if number.is_finite() {
                let _ = write!(line, "{number}");
            }
        }
        line.push('\n');
        line
    }
}

/// Every number of every model, as CSV without the header.
pub fn rows(found: &ForgettingResult) -> String {
    let of_model = |tuned: &TunedResult| -> String {
        of_tuned(tuned).iter().map(|row| row.csv(&found.base, &tuned.model)).collect()
    };
    found.tuned.iter().map(of_model).collect()
}

fn of_tuned(tuned: &TunedResult) -> Vec<CsvRow> {
    let mut rows = Vec::new();
    for (scope, benchmark) in
        tuned.new_task.iter().map(|b| ("new-task", b)).chain(tuned.benchmarks.iter().map(|b| ("benchmark", b)))
    {
        of_benchmark(scope, benchmark, &mut rows);
    }
    for group in tuned.families.iter().chain(&tuned.all) {
        of_group(group, if tuned.all.as_ref() == Some(group) { "all" } else { "family" }, &mut rows);
    }
    tuned.divergence.iter().for_each(|divergence| of_divergence(divergence, &mut rows));
    tuned.gold.iter().for_each(|gold| of_gold(gold, &mut rows));
    tuned.weights.iter().flatten().for_each(|part| of_weights(part, &mut rows));
    rows
}

fn of_benchmark(scope: &'static str, benchmark: &BenchmarkChange, rows: &mut Vec<CsvRow>) {
    let place = |scope, category: &str, measure: &str| CsvRow {
        family: benchmark.family.clone(),
        benchmark: benchmark.name.clone(),
        category: category.to_string(),
        ..CsvRow::empty(scope, measure)
    };
    let all = of_change(&benchmark.all, |measure| place(scope, "", measure));
    rows.extend(all.into_iter().map(|row| match row.measure.as_str() {
        "score" => CsvRow { p_holm: benchmark.p_holm, ..row },
        _ => row,
    }));
    let Transitions { right_to_wrong, wrong_to_right, .. } = &benchmark.transitions;
    for (name, found) in [("right to wrong", right_to_wrong), ("wrong to right", wrong_to_right)] {
        let n = Some(benchmark.all.n);
        rows.push(CsvRow { n, change: found.raw, ..place(scope, "", name) });
        rows.push(CsvRow { n, change: found.adjusted, ..place(scope, "", &format!("{name}, beyond guessing")) });
    }
    for part in &benchmark.categories {
        rows.extend(of_change(&part.change, |measure| place("category", &part.name, measure)));
    }
    for aggregate in &benchmark.aggregates {
        let value = aggregate.tuned - aggregate.base;
        let change = Interval { value, ..Interval::UNKNOWN };
        let row = place("aggregate", "", &aggregate.name);
        rows.push(CsvRow { base: aggregate.base, tuned: aggregate.tuned, change, ..row });
    }
}

fn of_change(change: &Change, place: impl Fn(&str) -> CsvRow) -> Vec<CsvRow> {
    let (base, tuned, n) = (&change.base, &change.tuned, Some(change.n));
    let plain = |measure: &str, base: f64, tuned: f64| {
        let change = Interval { value: tuned - base, ..Interval::UNKNOWN };
        CsvRow { n, base, tuned, change, ..place(measure) }
    };
    let score = plain("score", base.value.value, tuned.value.value);
    let lenient = plain("lenient score", base.lenient.value, tuned.lenient.value);
    vec![
        CsvRow { change: change.change, p: change.p, ..score },
        CsvRow { change: change.lenient_change, ..lenient },
        plain("exact-form score", base.exact_form, tuned.exact_form),
        CsvRow { n, change: change.retention, ..place("retained") },
        plain("unparsed", base.unparsed, tuned.unparsed),
        plain("malformed", base.malformed, tuned.malformed),
        plain("parsed but wrong", base.wrong, tuned.wrong),
        plain("truncated", base.truncated, tuned.truncated),
        plain("tokens", base.tokens, tuned.tokens),
    ]
}

fn of_group(group: &GroupMean, scope: &'static str, rows: &mut Vec<CsvRow>) {
    let n = Some(group.n);
    let plain = |measure: &str, (base, tuned): (f64, f64)| {
        let change = Interval { value: tuned - base, ..Interval::UNKNOWN };
        CsvRow { family: group.name.clone(), n, base, tuned, change, ..CsvRow::empty(scope, measure) }
    };
    let bare = |measure: &str, change| CsvRow { change, ..plain(measure, (f64::NAN, f64::NAN)) };
    let changed = Interval { value: group.better as f64 - group.worse as f64, ..Interval::UNKNOWN };
    rows.extend([
        CsvRow { change: group.change, p: group.p, ..plain("score", (group.base, group.tuned)) },
        CsvRow {
            n: Some(group.better + group.worse),
            p: group.p_sign,
            ..bare("questions better minus worse", changed)
        },
        bare("lenient score", group.lenient_change),
        bare("retained", group.retention),
        plain("unparsed", group.unparsed),
        plain("malformed", group.malformed),
        plain("tokens", group.tokens),
    ]);
}

fn of_divergence(divergence: &Divergence, rows: &mut Vec<CsvRow>) {
    let n = Some(divergence.prompts);
    let bare = |measure: &str, change| CsvRow {
        benchmark: divergence.prompts_of.clone(),
        category: if divergence.role == PromptRole::HeldOut { "held-out prior".into() } else { String::new() },
        n,
        change,
        ..CsvRow::empty("prompts", measure)
    };
    let mut direction = |name: &str, of: &DivergenceStats| {
        rows.push(bare(&format!("{name}, nats per token"), of.per_token));
        rows.push(bare(&format!("{name}, nats per response"), of.per_response));
    };
    direction("KL(base || tuned)", &divergence.forward);
    direction("KL(tuned || base)", &divergence.reverse);
    if let Some(own) = &divergence.own {
        let row = bare("perplexity of the base's answers", Interval::UNKNOWN);
        rows.push(CsvRow { base: own.base.value, tuned: own.tuned.value, n: Some(own.answers), ..row });
        rows.push(bare("change of the base's answers, nats per token", own.change));
    }
}

fn of_gold(gold: &GoldChange, rows: &mut Vec<CsvRow>) {
    for (measure, mean) in [
        ("gold log-probability per token", &gold.per_token),
        ("gold log-probability per answer", &gold.per_answer),
        ("gold log-probability of the answer's text", &gold.answer_text),
    ] {
        let PairedMean { base, tuned, change } = *mean;
        let (family, n) = (gold.name.clone(), Some(gold.answers));
        rows.push(CsvRow { family, n, base, tuned, change, ..CsvRow::empty("gold", measure) });
    }
}

fn of_weights(part: &PartDiff, rows: &mut Vec<CsvRow>) {
    for (measure, value) in [
        ("L2 norm of the change", Some(part.norm)),
        ("L2 norm of the change, relative", Some(part.relative_norm)),
        ("changed", Some(part.changed)),
        ("changed in bf16", Some(part.changed_bf16)),
        ("effective rank", part.effective_rank),
        ("effective rank, share of the highest", part.effective_rank_share),
        ("stable rank", part.stable_rank),
    ] {
        let change = Interval { value: value.unwrap_or(f64::NAN), ..Interval::UNKNOWN };
        let (category, n) = (part.part.clone(), Some(part.parameters));
        rows.push(CsvRow { category, n, change, ..CsvRow::empty("weights", measure) });
    }
}
