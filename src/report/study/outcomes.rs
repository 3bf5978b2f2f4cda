//! What fine-tuning changed besides the scores: distance from the base, gold answers, transitions, weights.

use super::cells::{Cell, TableWithCaption, fixed, nats};
use super::load::{RegimeRuns, StudyResults};
use super::measure::KL_PRIOR;
use super::seed_stats::{SeedMean, SeedValue, seed_mean};
use super::tables::name;
use crate::forgetting::{ALL, GoldChange, TunedResult};
use crate::model::weight_diff::{ALL_PARTS, PartDiff};
use crate::stats::Interval;
use crate::stats::table::{percent, short};

/// KL(tuned || base) on prior prompts, nats per token.
const REVERSE_KL: &str = "reverse KL prior";
/// Change of the log-probability of the gold answers, nats an answer.
const GOLD: &str = "gold log-probability change";
/// The same of the text between the answer tags alone.
const GOLD_TEXT: &str = "gold log-probability change of the answer text";
/// Shares of answers.
const RIGHT_TO_WRONG: &str = "right to wrong beyond guessing";
const WRONG_TO_RIGHT: &str = "wrong to right beyond guessing";
/// Change of the weights.
const RELATIVE_NORM: &str = "weights: norm of the change over that of the base";
const NORM: &str = "weights: norm of the change";
const CHANGED: &str = "weights: share changed in f32";
const RANK: &str = "weights: effective rank of the change";

/// An outcome of a model.
pub struct Outcome {
    /// What it is.
    pub measure: &'static str,
    /// Family of benchmarks, or part of the model.
    pub part: String,
    /// Its value; of the gold answers to all questions of a final model with what these contribute.
    pub value: SeedValue,
    /// What is possible.
    bounds: (f64, f64),
}

/// All outcomes of a model.
pub fn of_model(study: &StudyResults<'_>, tuned: &TunedResult) -> Vec<Outcome> {
    const ANY: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);
    const POSITIVE: (f64, f64) = (0.0, f64::INFINITY);
    const SHARE: (f64, f64) = (0.0, 1.0);
    let one = |measure, part: &str, value: SeedValue, bounds| Outcome { measure, part: part.into(), value, bounds };
    let mut all: Vec<Outcome> =
        tuned.prior_reverse_kl().map(|kl| one(REVERSE_KL, ALL, kl.into(), POSITIVE)).into_iter().collect();
    let questions = study.gold_by_group(tuned);
    for (i, gold) in tuned.gold.iter().enumerate() {
        // The first is about all questions.
        let strata = |which: usize| questions.filter(|_| i == 0).map(|both| both[which].clone());
        let value = |interval, which| SeedValue { interval, questions: strata(which) };
        all.push(one(GOLD, &gold.name, value(gold.per_answer.change, 0), ANY));
        all.push(one(GOLD_TEXT, &gold.name, value(gold.answer_text.change, 1), ANY));
    }
    for (measure, share) in [RIGHT_TO_WRONG, WRONG_TO_RIGHT].into_iter().zip(tuned.transitions().into_iter().flatten())
    {
        all.push(one(measure, ALL, share.into(), SHARE));
    }
    for part in tuned.weights.iter().flatten() {
        let alone = |value: f64| SeedValue::from(Interval { value, low: f64::NAN, high: f64::NAN });
        all.push(one(RELATIVE_NORM, &part.part, alone(part.relative_norm), POSITIVE));
        all.push(one(NORM, &part.part, alone(part.norm), POSITIVE));
        all.push(one(CHANGED, &part.part, alone(part.changed), SHARE));
        all.extend(part.effective_rank.map(|rank| one(RANK, &part.part, alone(rank), POSITIVE)));
    }
    all
}

/// Their means over the seeds that are done: measure, part, mean.
pub fn over_seeds(study: &StudyResults<'_>, variant: &RegimeRuns<'_>) -> Vec<(&'static str, String, SeedMean)> {
    type Collected = (&'static str, String, (f64, f64), Vec<SeedValue>);
    let mut found: Vec<Collected> = Vec::new();
    for Outcome { measure, part, value, bounds } in variant.done().flat_map(|(_, tuned)| of_model(study, tuned)) {
        match found.iter_mut().find(|one| (one.0, &one.1) == (measure, &part)) {
            Some(one) => one.3.push(value),
            None => found.push((measure, part, bounds, vec![value])),
        }
    }
    let mean = |(measure, part, bounds, values): Collected| Some((measure, part, seed_mean(&values, bounds)?));
    found.into_iter().filter_map(mean).collect()
}

/// Prior knowledge by other measures than its score, a row per regime; `None` while nothing is measured.
pub fn table(study: &StudyResults<'_>) -> Option<TableWithCaption> {
    let any = study.any()?;
    let gold = any.gold.first();
    let base = |of: fn(&GoldChange) -> f64| {
        gold.map_or(Cell::none(), |all| Cell::with(three_decimals(of(all)), "log-probability"))
    };
    let mut rows = vec![
        [
            Cell::text("base"),
            Cell::none(),
            Cell::none(),
            base(|all| all.per_answer.base),
            base(|all| all.answer_text.base),
        ]
        .to_vec(),
    ];
    rows[0].resize(7, Cell::none());
    for regime in &study.regimes {
        let Some(variant) = regime.best() else { continue };
        let means = over_seeds(study, variant);
        let of = |measure: &str| means.iter().find(|(own, part, _)| *own == measure && part == ALL).map(|one| one.2);
        let gold = |measure| Cell::over(of(measure), three_decimals, three_decimals);
        let shares = |measure| Cell::over(of(measure), percent, |share| format!("{:.1}", 100.0 * share));
        rows.push(vec![
            name(study, regime, &variant.label()),
            Cell::over(variant.over(&KL_PRIOR), nats, nats),
            Cell::over(of(REVERSE_KL), nats, nats),
            gold(GOLD),
            gold(GOLD_TEXT),
            shares(RIGHT_TO_WRONG),
            shares(WRONG_TO_RIGHT),
        ]);
    }
    let header = [
        "regime",
        "KL(base || tuned)",
        "KL(tuned || base)",
        "gold answers",
        "text of the gold answers",
        "right to wrong",
        "wrong to right",
    ];
    let prompts =
        if any.has_held_out_prompts() { "prompts held out from the benchmarks" } else { "prompts of the benchmarks" };
    let questions = gold.map_or(String::new(), |all| format!(" to {} questions", all.answers));
    (rows.len() > 1).then(|| TableWithCaption {
        title: "Prior knowledge by other measures",
        how: format!(
            "At each regime\u{2019}s best learning rate: means over seeds with 95 % intervals over seeds and questions. KL in nats per token on {prompts}. Gold answers{questions}: change of the log-probability of the right answer, nats an \
             answer, with its form or of the text between the answer tags alone; it has no ceiling, so it shows losses that the score does not. Right to wrong \
             and back: shares of all answers to benchmark questions, less what two independent guesses explain."
        ),
        header: header.map(String::from).to_vec(),
        rows,
    })
}

fn three_decimals(nats: f64) -> String {
    fixed(nats, 3)
}

fn two_decimals(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// How far the weights moved, by part of the model, a row per regime; `None` where that was not measured.
pub fn weights(study: &StudyResults<'_>) -> Option<TableWithCaption> {
    let measured: Vec<&[PartDiff]> = study
        .regimes
        .iter()
        .filter_map(|regime| regime.best())
        .flat_map(RegimeRuns::done)
        .filter_map(|(_, tuned)| tuned.weights.as_deref())
        .collect();
    let mut parts: Vec<&str> = Vec::new();
    for part in measured.iter().flat_map(|parts| parts.iter()) {
        if !parts.contains(&part.part.as_str()) {
            parts.push(&part.part);
        }
    }
    // The whole model first.
    parts.sort_by_key(|part| *part != ALL_PARTS);
    let mut rows = Vec::new();
    for regime in &study.regimes {
        let Some(variant) = regime.best() else { continue };
        let means = over_seeds(study, variant);
        let of =
            |measure: &str, part: &str| means.iter().find(|one| one.0 == measure && one.1 == part).map(|one| one.2);
        let whole = |measure: &str, form: fn(f64) -> String| Cell::over(of(measure, ALL_PARTS), form, form);
        let moved =
            |part: &&str| Cell::over(of(RELATIVE_NORM, part), two_decimals, |end| format!("{:.2}", 100.0 * end));
        let mut row = vec![name(study, regime, &variant.label())];
        row.extend([whole(NORM, short), whole(RANK, short), whole(CHANGED, percent)]);
        row.extend(parts.iter().map(moved));
        rows.push(row);
    }
    let heads = ["regime", "L2 norm", "effective rank", "changed in f32"].into_iter();
    let heads = heads.chain(parts.iter().map(|part| if *part == ALL_PARTS { "whole model" } else { part }));
    (!parts.is_empty()).then(|| TableWithCaption {
        title: "Change of the weights",
        how: "At each regime\u{2019}s best learning rate, means over seeds with 95 % intervals over seeds. Of the whole model: the L2 norm of the change, the mean \
              effective rank of the changes of its matrices, the share of the weights whose f32 value differs; then the norm as a share of that of \
              the base\u{2019}s weights, of the whole and by part. All of these by part: report.study.csv."
            .into(),
        header: heads.map(String::from).collect(),
        rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forgetting::{GoldItem, gold_by_group};

    /// Four questions whose change is that of the seed minus 1 or plus 1.
    fn gold(seed: f64) -> SeedValue {
        let item = |i: usize| GoldItem {
            set: "prior".into(),
            id: format!("q{i}"),
            family: "ocr".into(),
            group: format!("q{i}"),
            tokens: 3,
            base: -5.0,
            tuned: -5.0 + seed + if i.is_multiple_of(2) { -1.0 } else { 1.0 },
            answer_tokens: 1,
            answer_base: -1.0,
            answer_tuned: -1.0,
        };
        let [per_answer, text] = gold_by_group(&(0..4).map(item).collect::<Vec<_>>());
        assert!(text[0].clusters.iter().all(|cluster| cluster.change == 0.0));
        let interval = Interval { value: seed, low: f64::NAN, high: f64::NAN };
        SeedValue { interval, questions: Some(per_answer) }
    }

    #[test]
    fn gold_answers_have_the_interval_over_seeds_and_questions() {
        let got = seed_mean(&[gold(-0.5), gold(-0.7)], (f64::NEG_INFINITY, f64::INFINITY)).unwrap();
        // Variance of seeds 0.02 / 2, of questions (4 / 3) / 4, no interaction; Satterthwaite's degrees of freedom 3.1741; the half width
        // 1.808186 by scipy's t.ppf.
        let near = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-6, "{got} is not {expected}");
        near(got.mean.value, -0.6);
        near(got.mean.low, -2.408_186);
        near(got.mean.high, 1.208_186);
    }
}
