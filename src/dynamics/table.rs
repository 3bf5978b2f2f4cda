//! Tables of a measurement: the same cells on a terminal, in Markdown and on the page.

use super::kl_regression::KlAndForgetting;
use super::result::{CheckpointResult, DynamicsResult, PairSummary, SampleSetResult};
use crate::stats::table::{Table, points, short};
use crate::stats::{Agreement, Interval, LinearFit};

/// Stands for all prior families together.
const ALL: &str = "all";

fn with_interval(interval: &Interval) -> String {
    match interval.low.is_finite() && interval.high.is_finite() {
        true => format!("{} ({} to {})", short(interval.value), short(interval.low), short(interval.high)),
        false => short(interval.value),
    }
}

fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", 100.0 * share) } else { short(share) }
}

fn correlation(agreement: &Agreement) -> String {
    if agreement.correlation.is_finite() { format!("{:.3}", agreement.correlation) } else { short(f64::NAN) }
}

fn strings<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(String::from).to_vec()
}

/// One checkpoint: each regime with all prior families together, then with each.
pub fn influence_table(found: &CheckpointResult) -> Table {
    let row = |cell: &PairSummary| {
        vec![
            cell.regime.clone(),
            cell.prior.clone().unwrap_or_else(|| ALL.into()),
            format!("{} ({})", cell.pairs, cell.samples),
            with_interval(&cell.lbk),
            short(cell.lbk_median),
            with_interval(&cell.change),
            percent(cell.harmed),
            with_interval(&cell.cosine),
            correlation(&cell.symmetry),
            percent(cell.symmetry.difference),
            percent(cell.first_order.difference),
        ]
    };
    let header = strings([
        "regime",
        "prior",
        "pairs (samples)",
        "LBK",
        "median",
        "change of v, nats / eta",
        "harmed",
        "cosine",
        "symmetry r",
        "asymmetry",
        "measured off first order",
    ]);
    Table { header, rows: found.summaries.iter().map(row).collect() }
}

/// LBK over the checkpoints, a row for each regime; `None` for a single checkpoint.
pub fn influence_over_checkpoints(found: &DynamicsResult) -> Option<Table> {
    if found.checkpoints.len() < 2 {
        return None;
    }
    let header = std::iter::once("LBK".to_string()).chain(found.checkpoints.iter().map(|c| c.model.name.clone()));
    let rows = found.regimes.iter().map(|regime| {
        let of = |checkpoint: &CheckpointResult| {
            let cell = checkpoint.overall().find(|cell| cell.regime == regime.name);
            cell.map_or(short(f64::NAN), |cell| with_interval(&cell.lbk))
        };
        std::iter::once(regime.name.clone()).chain(found.checkpoints.iter().map(of)).collect()
    });
    Some(Table { header: header.collect(), rows: rows.collect() })
}

/// Perplexity of the responses of each set under the base.
pub fn likelihood(found: &DynamicsResult) -> Table {
    let row = |kind: &str, set: &SampleSetResult| {
        let p = &set.perplexity;
        let by_base = match set.answered_by_base {
            0 => "data".to_string(),
            n if n == p.responses => "base".to_string(),
            n => format!("{n} by base"),
        };
        vec![
            set.name.clone(),
            kind.to_string(),
            p.responses.to_string(),
            by_base,
            p.tokens.to_string(),
            short(p.median),
            with_interval(&p.nats_per_token),
        ]
    };
    let rows =
        found.regimes.iter().map(|set| row("train", set)).chain(found.priors.iter().map(|set| row("prior", set)));
    let header =
        strings(["responses under the base", "", "n", "from", "tokens", "perplexity (median)", "nats per token"]);
    Table { header, rows: rows.collect() }
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
    let header = strings([
        "model",
        "KL(base || tuned) per token",
        "per response",
        "per token, prior prompts",
        "mean loss, points",
    ]);
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
    (Table { header, rows: models.collect() }, lines)
}

/// Warnings about these numbers.
pub fn notes(found: &DynamicsResult) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(uncertain(found, "rounding to f32", "larger", |cell| cell.rounded_pairs));
    notes.extend(uncertain(found, "curvature", "smaller", |cell| cell.curved_pairs));
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
    let few = found.regimes.iter().filter(|set| set.perplexity.responses < found.config.pairs);
    let few: Vec<String> = few.map(|set| format!("{} ({})", set.name, set.perplexity.responses)).collect();
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
