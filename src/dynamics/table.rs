//! Tables of a measurement: the same cells on a terminal, in Markdown and on the page.

use super::influence::InfluenceConfig;
use super::kl_regression::KlAndForgetting;
use super::on_policy::OnPolicyResult;
use super::perplexity_and_change::PerplexityAndChange;
use super::result::{CheckpointResult, DynamicsResult, PairSummary, SampleSetResult};
use crate::stats::table::{Table, percent, points, short};
use crate::stats::{Interval, LinearFit};

/// Stands for all prior families together.
const ALL: &str = "all";

fn with_interval(value: &Interval) -> String {
    match value.low.is_finite() && value.high.is_finite() {
        true => format!("{} ({})", short(value.value), ends(value)),
        false => short(value.value),
    }
}

/// The ends of an interval.
fn ends(interval: &Interval) -> String {
    match interval.low.is_finite() && interval.high.is_finite() {
        true => format!("{} to {}", short(interval.low), short(interval.high)),
        false => short(f64::NAN),
    }
}

fn correlation(r: f64) -> String {
    if r.is_finite() { format!("{r:.3}") } else { short(r) }
}

/// The tables of one checkpoint, each with its title.
pub fn checkpoint_tables(found: &CheckpointResult, config: &InfluenceConfig) -> Vec<(String, Table)> {
    let adam = format!("A step of Adam at learning rate {}", config.learning_rate);
    vec![
        ("Steps of SGD, per unit of their size eta".into(), sgd_table(found)),
        (adam, adam_table(found)),
        ("Change of v against the perplexity of u under the base".into(), direction_table(found)),
        ("Check of the size of the steps and of rounding".into(), check_table(found)),
    ]
}

/// Regime, prior family and pairs of a row.
fn place(cell: &PairSummary) -> Vec<String> {
    let prior = cell.prior.clone().unwrap_or_else(|| ALL.into());
    vec![cell.regime.clone(), prior, format!("{} ({})", cell.pairs, cell.samples)]
}

/// Each regime with all prior families together, then with each.
fn sgd_table(found: &CheckpointResult) -> Table {
    let row = |cell: &PairSummary| {
        let mut row = place(cell);
        row.extend([
            with_interval(&cell.lbk),
            short(cell.lbk_median),
            with_interval(&cell.lbk_per_token),
            with_interval(&cell.effect),
            with_interval(&cell.sgd_kl),
            with_interval(&cell.change),
            percent(cell.harmed),
            with_interval(&cell.cosine),
        ]);
        row
    };
    let header = [
        "regime",
        "prior",
        "pairs (samples)",
        "LBK",
        "median",
        "per token of u",
        "effect, squared",
        "KL per token / eta^2",
        "change of v, nats / eta",
        "harmed",
        "cosine",
    ];
    Table { rows: found.summaries.iter().map(row).collect(), ..Table::new(header) }
}

/// The same cells after a step of Adam.
fn adam_table(found: &CheckpointResult) -> Table {
    let row = |cell: &PairSummary| {
        let mut row = place(cell);
        row.extend([with_interval(&cell.adam_kl), with_interval(&cell.adam_change), percent(cell.adam_harmed)]);
        row
    };
    let header = ["regime", "prior", "pairs (samples)", "KL per token of v, nats", "change of v, nats", "harmed"];
    Table { rows: found.summaries.iter().map(row).collect(), ..Table::new(header) }
}

/// The pairs of all regimes, then of each.
fn direction_table(found: &CheckpointResult) -> Table {
    let row = |fit: &PerplexityAndChange| {
        let mut row = vec![fit.regime.clone().unwrap_or_else(|| ALL.into()), fit.sgd.by_u.n.to_string()];
        for line in [&fit.sgd, &fit.adam, &fit.adam_kl] {
            row.extend([with_interval(&line.by_u.slope), ends(&line.by_v.slope), correlation(line.by_u.spearman)]);
        }
        row
    };
    let header = [
        "regime",
        "pairs",
        "change by SGD: slope (by u)",
        "(by v)",
        "Spearman",
        "change by Adam: slope (by u)",
        "(by v)",
        "Spearman",
        "KL by Adam: slope (by u)",
        "(by v)",
        "Spearman",
    ];
    Table { rows: found.perplexity_and_change.iter().map(row).collect(), ..Table::new(header) }
}

/// How well three measurements of one number agree, a row for each regime.
fn check_table(found: &CheckpointResult) -> Table {
    let row = |cell: &PairSummary| {
        let check = &cell.check;
        vec![
            cell.regime.clone(),
            cell.pairs.to_string(),
            percent(check.gradients.difference),
            percent(check.both_ways.difference),
            correlation(check.both_ways.correlation),
            check.rounded_pairs.to_string(),
            check.curved_pairs.to_string(),
        ]
    };
    let header = [
        "regime",
        "pairs",
        "steps off the gradients",
        "steps on u off steps on v",
        "their correlation",
        "pairs uncertain by rounding",
        "by curvature",
    ];
    Table { rows: found.overall().map(row).collect(), ..Table::new(header) }
}

/// The checkpoints' own responses, a row each; `None` if there are none.
pub fn on_policy_table(found: &DynamicsResult) -> Option<Table> {
    let row = |checkpoint: &CheckpointResult| {
        let OnPolicyResult { base, own } = checkpoint.on_policy.as_ref()?;
        let mut row = vec![checkpoint.model.name.clone(), own.responses.to_string(), own.tokens.to_string()];
        row.push(short(base.whole.median));
        row.extend([&base.whole, &base.reasoning, &base.answer, own].map(|part| with_interval(&part.nats_per_token)));
        Some(row)
    };
    let rows: Vec<Vec<String>> = found.checkpoints.iter().filter_map(row).collect();
    let header = [
        "own responses of",
        "n",
        "tokens",
        "perplexity under the base (median)",
        "nats per token under the base",
        "of the reasoning",
        "of the answer",
        "under itself",
    ];
    (!rows.is_empty()).then(|| Table { rows, ..Table::new(header) })
}

/// LBK and the divergence after a step of Adam over the checkpoints, a row for each regime; no table for a single checkpoint.
pub fn influence_over_checkpoints(found: &DynamicsResult) -> Vec<Table> {
    let table = |name: &str, measure: fn(&PairSummary) -> &Interval| {
        let row = |regime: &SampleSetResult| {
            let of = |checkpoint: &CheckpointResult| {
                let cell = checkpoint.overall().find(|cell| cell.regime == regime.name);
                cell.map_or(short(f64::NAN), |cell| with_interval(measure(cell)))
            };
            std::iter::once(regime.name.clone()).chain(found.checkpoints.iter().map(of)).collect()
        };
        let header = std::iter::once(name).chain(found.checkpoints.iter().map(|c| c.model.name.as_str()));
        Table { rows: found.regimes.iter().map(row).collect(), ..Table::new(header) }
    };
    match found.checkpoints.len() {
        0 | 1 => Vec::new(),
        _ => vec![
            table("LBK", |cell| &cell.lbk),
            table("KL per token of v after the step of Adam, nats", |cell| &cell.adam_kl),
        ],
    }
}

/// Perplexity of the responses of each set under the base.
pub fn likelihood(found: &DynamicsResult) -> Table {
    let row = |kind: &str, set: &SampleSetResult| {
        let p = &set.perplexity;
        let by_base = match set.answered_by_base {
            0 => "data".to_string(),
            n if n == p.whole.responses => "base".to_string(),
            n => format!("{n} by base"),
        };
        vec![
            set.name.clone(),
            kind.to_string(),
            p.whole.responses.to_string(),
            by_base,
            p.whole.tokens.to_string(),
            short(p.whole.median),
            with_interval(&p.whole.nats_per_token),
            with_interval(&p.reasoning.nats_per_token),
            with_interval(&p.answer.nats_per_token),
        ]
    };
    let rows =
        found.regimes.iter().map(|set| row("train", set)).chain(found.priors.iter().map(|set| row("prior", set)));
    let header = [
        "responses under the base",
        "",
        "n",
        "from",
        "tokens",
        "perplexity (median)",
        "nats per token",
        "of the reasoning",
        "of the answer",
    ];
    Table { rows: rows.collect(), ..Table::new(header) }
}

/// KL to the base and forgetting: the models, and the fitted lines in words.
pub fn divergence(found: &KlAndForgetting) -> (Table, Vec<String>) {
    let models = found.points.iter().map(|point| {
        vec![
            point.model.clone(),
            short(point.per_token),
            short(point.per_response),
            short(point.prior_per_token),
            points(point.forgetting),
        ]
    });
    let header =
        ["model", "KL(base || tuned) per token", "per response", "per token on prior prompts", "mean loss, points"];
    let line = |what: &str, line: &LinearFit| {
        format!(
            "loss against KL {what}: R^2 {}, Spearman {}, slope {} points per nat (interval clustered by run), {} models of {} runs",
            short(line.r2),
            short(line.spearman),
            with_interval(&Interval {
                value: 100.0 * line.slope.value,
                low: 100.0 * line.slope.low,
                high: 100.0 * line.slope.high
            }),
            line.n,
            line.clusters
        )
    };
    let mut lines = vec![line("per token", &found.per_token), line("per response", &found.per_response)];
    lines.extend(found.prior_per_token.iter().map(|fit| line("per token on prompts of prior knowledge", fit)));
    if found.per_token.n < 3 {
        lines.push("fewer than three models: a line through them explains nothing".into());
    }
    lines.extend(found.left_out.iter().map(|left| format!("left out: {left}")));
    (Table { rows: models.collect(), ..Table::new(header) }, lines)
}

/// Warnings about these numbers.
pub fn notes(found: &DynamicsResult) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(uncertain(found, "rounding to f32", "larger", |cell| cell.check.rounded_pairs));
    notes.extend(uncertain(found, "curvature", "smaller", |cell| cell.check.curved_pairs));
    let (adapters, whole): (Vec<&CheckpointResult>, Vec<&CheckpointResult>) =
        found.checkpoints.iter().partition(|checkpoint| checkpoint.adapter);
    let names = |of: &[&CheckpointResult]| of.iter().map(|c| c.model.name.as_str()).collect::<Vec<_>>().join(", ");
    if !adapters.is_empty() {
        let beside = match whole.is_empty() {
            true => "with those of whole models or of other adapters' sizes".to_string(),
            false => format!("with those of the whole models {}", names(&whole)),
        };
        notes.push(format!(
            "the step changes only the adapter of {}: LBK, cosine and changes are over the adapter's parameters alone and cannot \
             be compared {beside}",
            names(&adapters)
        ));
    }
    let few = found.regimes.iter().filter(|set| set.perplexity.whole.responses < found.config.pairs);
    let few: Vec<String> = few.map(|set| format!("{} ({})", set.name, set.perplexity.whole.responses)).collect();
    if !few.is_empty() {
        notes.push(format!("fewer training samples than pairs, so samples are used several times: {}", few.join(", ")));
    }
    notes
}

/// What is uncertain by `error`, if anything: pairs of each regime under each checkpoint. Steps that are `better` help if their size was given.
fn uncertain(
    found: &DynamicsResult,
    error: &str,
    better: &str,
    count: impl Fn(&PairSummary) -> usize,
) -> Option<String> {
    let cells =
        found.checkpoints.iter().flat_map(|checkpoint| checkpoint.overall().map(move |cell| (checkpoint, cell)));
    let pairs: Vec<String> = cells
        .filter(|(_, cell)| count(cell) > 0)
        .map(|(checkpoint, cell)| {
            format!("{} on {} ({} of {} pairs)", checkpoint.model.name, cell.regime, count(cell), cell.pairs)
        })
        .collect();
    let hint = match found.config.eta {
        Some(eta) => format!("give a {better} --eta than {eta}, or leave it out to have it chosen for each pair"),
        None => "f32 resolves them with no size of steps; pairs.jsonl has the errors of each pair".to_string(),
    };
    (!pairs.is_empty()).then(|| {
        format!(
            "{error} is more than 5 % of the measured change, so LBK is uncertain, for {}; {hint}",
            pairs.join(", ")
        )
    })
}
