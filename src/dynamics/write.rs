//! Writes `dynamics.json`, and the same as CSV and Markdown.

use super::output_dir::{DYNAMICS_CSV, DYNAMICS_JSON, DYNAMICS_MD};
use super::result::{CheckpointResult, DynamicsResult, PairSummary, SampleSetResult};
use super::table::{divergence, influence_over_checkpoints, influence_table, likelihood, notes};
use crate::Result;
use crate::forgetting::{ModelRef, brief};
use crate::io::files;
use crate::stats::table::csv_field;
use crate::stats::{Interval, LinearFit};
use std::fmt::Write;
use std::path::Path;

/// The columns of `dynamics.csv`; `ci_low` and `ci_high` are the ends of a 95 % interval. A number that does not exist is an empty cell.
const HEADER: &str = "model,run,step,seed,set,prior,measure,n,samples,value,ci_low,ci_high";

/// Write all three into `dir`; the JSON last.
pub fn write(dir: &Path, found: &DynamicsResult) -> Result<()> {
    files::create_dir(dir)?;
    files::write_atomic(&dir.join(DYNAMICS_CSV), csv(found).as_bytes())?;
    files::write_atomic(&dir.join(DYNAMICS_MD), markdown(found).as_bytes())?;
    files::write_json(&dir.join(DYNAMICS_JSON), found)
}

/// A row of the CSV, without its model.
struct CsvRow<'a> {
    set: &'a str,
    prior: &'a str,
    measure: &'a str,
    n: usize,
    samples: usize,
    value: Interval,
}

fn csv(found: &DynamicsResult) -> String {
    let mut text = format!("{HEADER}\n");
    for checkpoint in &found.checkpoints {
        checkpoint.summaries.iter().for_each(|cell| of_cell(&mut text, checkpoint, cell));
    }
    for (set, prior) in found.regimes.iter().map(|set| (set, false)).chain(found.priors.iter().map(|set| (set, true))) {
        of_set(&mut text, &found.base, set, prior);
    }
    if let Some(kl) = &found.kl {
        let prior = kl.prior_per_token.iter().map(|line| ("per token, prior prompts", line));
        for (name, line) in [("per token", &kl.per_token), ("per response", &kl.per_response)].into_iter().chain(prior)
        {
            of_line(&mut text, &found.base, name, line);
        }
    }
    text
}

fn bare(value: f64) -> Interval {
    Interval { value, ..Interval::UNKNOWN }
}

fn of_cell(text: &mut String, checkpoint: &CheckpointResult, cell: &PairSummary) {
    let numbers = [
        ("LBK", cell.lbk),
        ("median of LBK", bare(cell.lbk_median)),
        ("change of v per unit of eta", cell.change),
        ("harmed", bare(cell.harmed)),
        ("cosine", cell.cosine),
        ("symmetry: correlation", bare(cell.symmetry.correlation)),
        ("symmetry: relative difference", bare(cell.symmetry.difference)),
        ("first order: correlation", bare(cell.first_order.correlation)),
        ("first order: relative difference", bare(cell.first_order.difference)),
        ("pairs uncertain by rounding", bare(cell.rounded_pairs as f64)),
        ("pairs uncertain by curvature", bare(cell.curved_pairs as f64)),
    ];
    for (measure, value) in numbers {
        let (set, prior) = (cell.regime.as_str(), cell.prior.as_deref().unwrap_or("all"));
        line(text, &checkpoint.model, &CsvRow { set, prior, measure, n: cell.pairs, samples: cell.samples, value });
    }
}

fn of_set(text: &mut String, base: &ModelRef, set: &SampleSetResult, prior: bool) {
    let p = &set.perplexity;
    for (measure, value) in
        [("nats per token under the base", p.nats_per_token), ("median perplexity under the base", bare(p.median))]
    {
        let (of_train, of_prior) = if prior { ("", set.name.as_str()) } else { (set.name.as_str(), "") };
        let row = CsvRow { set: of_train, prior: of_prior, measure, n: p.responses, samples: p.responses, value };
        line(text, base, &row);
    }
}

fn of_line(text: &mut String, base: &ModelRef, name: &str, fit: &LinearFit) {
    let numbers = [
        ("slope", fit.slope),
        ("intercept", bare(fit.intercept)),
        ("R^2", bare(fit.r2)),
        ("Spearman", bare(fit.spearman)),
    ];
    for (what, value) in numbers {
        let measure = format!("loss against KL {name}: {what}");
        line(text, base, &CsvRow { set: "", prior: "", measure: &measure, n: fit.n, samples: fit.clusters, value });
    }
}

fn line(text: &mut String, model: &ModelRef, row: &CsvRow<'_>) {
    let run = model.run.as_ref();
    let whole = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
    let texts = [
        model.name.as_str(),
        run.map_or("", |r| r.name.as_str()),
        &whole(run.and_then(|r| r.step)),
        &whole(run.and_then(|r| r.seed)),
        row.set,
        row.prior,
        row.measure,
        &row.n.to_string(),
        &row.samples.to_string(),
    ]
    .map(csv_field);
    text.push_str(&texts.join(","));
    for number in [row.value.value, row.value.low, row.value.high] {
        text.push(',');
        if number.is_finite() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{number}");
        }
    }
    text.push('\n');
}

fn markdown(found: &DynamicsResult) -> String {
    let mut text = String::new();
    let config = &found.config;
    let frozen =
        if config.frozen.is_empty() { String::new() } else { format!(", frozen: {}", config.frozen.join(", ")) };
    let _ = writeln!(
        text,
        "# Learning dynamics\n\nBase: `{}` ({}). Steps: {}, {:?} of the negative log-likelihood over a response{frozen}. Up to {} \
         pairs of each regime with each family, seed {}.\n",
        found.base.dir,
        brief(&found.base.hash),
        config.step_size(),
        config.loss,
        config.pairs,
        config.seed
    );
    notes(found).iter().for_each(|note| {
        let _ = writeln!(text, "- {note}");
    });
    let _ = writeln!(text, "\n{}", likelihood(found).markdown());
    if let Some(table) = influence_over_checkpoints(found) {
        let _ = writeln!(text, "{}", table.markdown());
    }
    for checkpoint in &found.checkpoints {
        let model = &checkpoint.model;
        let provenance = model.provenance();
        let comma = if provenance.is_empty() { "" } else { ", " };
        let _ = writeln!(text, "## {}\n\n`{}` ({}{comma}{provenance})\n", model.name, model.dir, brief(&model.hash));
        let _ = writeln!(text, "{}", influence_table(checkpoint).markdown());
    }
    if let Some(kl) = &found.kl {
        let (table, lines) = divergence(kl);
        let _ = writeln!(text, "## KL to the base and forgetting\n\n{}", table.markdown());
        lines.iter().for_each(|line| {
            let _ = writeln!(text, "- {line}");
        });
        text.push('\n');
    }
    text + NOTES
}

/// How to read the tables.
const NOTES: &str = "\
LBK: lower bound of the squared norm of the kernel of u and v, mean over pairs with a 95 % BCa bootstrap interval over training samples. Change of v: \
how fast the log-likelihood of a prior sample changes by steps on a training sample, in nats per unit of step size; it is the inner product of their \
gradients, and a step of size 0.001 changes v by a thousandth of it. Harmed: share of pairs in which it is below 0. Cosine: between the gradients of \
both log-likelihoods. Symmetry: change of v by steps on u against change of u by steps on v, both measured; in theory they are equal. Asymmetry and \
measured off first order (measured change of v against the inner product) are relative differences (root mean square) and show the precision of \
the measurement. Intervals are for new training samples, not for other prior samples, seeds or training runs.\n";
