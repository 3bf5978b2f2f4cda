//! Writes `dynamics.json`, and the same as CSV and Markdown.

use super::output_dir::{DYNAMICS_CSV, DYNAMICS_JSON, DYNAMICS_MD};
use super::perplexity::Perplexity;
use super::perplexity_and_change::{PerplexityAndChange, PerplexityFit};
use super::result::{CheckpointResult, DynamicsResult, PairSummary, SampleSetResult};
use super::table::{checkpoint_tables, divergence, influence_over_checkpoints, likelihood, notes, on_policy_table};
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
        checkpoint.perplexity_and_change.iter().for_each(|fit| of_fit(&mut text, checkpoint, fit));
        if let Some(own) = &checkpoint.on_policy {
            of_perplexity(&mut text, &checkpoint.model, ("own responses", ""), &own.base);
            let (n, value) = (own.own.responses, own.own.nats_per_token);
            let measure = "nats per token under itself";
            let row = CsvRow { set: "own responses", prior: "", measure, n, samples: n, value };
            line(&mut text, &checkpoint.model, &row);
        }
    }
    for (set, prior) in found.regimes.iter().map(|set| (set, false)).chain(found.priors.iter().map(|set| (set, true))) {
        of_set(&mut text, &found.base, set, prior);
    }
    if let Some(kl) = &found.kl {
        let prior = kl.prior_per_token.iter().map(|line| ("per token on prior prompts", line));
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
        ("LBK per token of u", cell.lbk_per_token),
        ("squared effect per eta^2", cell.effect),
        ("KL per token of v per eta^2", cell.sgd_kl),
        ("change of v per unit of eta", cell.change),
        ("harmed", bare(cell.harmed)),
        ("cosine", cell.cosine),
        ("Adam: KL per token of v", cell.adam_kl),
        ("Adam: change of v", cell.adam_change),
        ("Adam: harmed", bare(cell.adam_harmed)),
        ("check: correlation of steps on u and on v", bare(cell.check.both_ways.correlation)),
        ("check: relative difference of steps on u and on v", bare(cell.check.both_ways.difference)),
        ("check: relative difference of steps and gradients", bare(cell.check.gradients.difference)),
        ("pairs uncertain by rounding", bare(cell.check.rounded_pairs as f64)),
        ("pairs uncertain by curvature", bare(cell.check.curved_pairs as f64)),
    ];
    for (measure, value) in numbers {
        let (set, prior) = (cell.regime.as_str(), cell.prior.as_deref().unwrap_or("all"));
        line(text, &checkpoint.model, &CsvRow { set, prior, measure, n: cell.pairs, samples: cell.samples, value });
    }
}

fn of_fit(text: &mut String, checkpoint: &CheckpointResult, fit: &PerplexityAndChange) {
    let lines =
        [("change of v per unit of eta", &fit.sgd), ("Adam: change of v", &fit.adam), ("Adam: KL", &fit.adam_kl)];
    for (name, PerplexityFit { by_u, by_v }) in lines {
        let measures = [
            ("slope with interval by u", by_u.clusters, by_u.slope),
            ("slope with interval by v", by_v.clusters, by_v.slope),
            ("Spearman", by_u.clusters, bare(by_u.spearman)),
        ];
        for (what, samples, value) in measures {
            let measure = format!("{name} against nats per token of u: {what}");
            let set = fit.regime.as_deref().unwrap_or("all");
            line(text, &checkpoint.model, &CsvRow { set, prior: "all", measure: &measure, n: by_u.n, samples, value });
        }
    }
}

fn of_set(text: &mut String, base: &ModelRef, set: &SampleSetResult, prior: bool) {
    let place = if prior { ("", set.name.as_str()) } else { (set.name.as_str(), "") };
    of_perplexity(text, base, place, &set.perplexity);
}

fn of_perplexity(text: &mut String, model: &ModelRef, (set, prior): (&str, &str), found: &Perplexity) {
    for (part, name) in [(&found.whole, ""), (&found.reasoning, " of the reasoning"), (&found.answer, " of the answer")]
    {
        let measures = [
            (format!("nats per token{name} under the base"), part.nats_per_token),
            (format!("median perplexity{name} under the base"), bare(part.median)),
        ];
        for (measure, value) in measures.iter().filter(|_| part.responses > 0) {
            let n = part.responses;
            line(text, model, &CsvRow { set, prior, measure, n, samples: n, value: *value });
        }
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
        config.steps(),
        config.loss,
        config.pairs,
        config.seed
    );
    notes(found).iter().for_each(|note| {
        let _ = writeln!(text, "- {note}");
    });
    let _ = writeln!(text, "\n{}", likelihood(found).markdown());
    for table in influence_over_checkpoints(found).iter().chain(&on_policy_table(found)) {
        let _ = writeln!(text, "{}", table.markdown());
    }
    for checkpoint in &found.checkpoints {
        let model = &checkpoint.model;
        let provenance = model.provenance();
        let comma = if provenance.is_empty() { "" } else { ", " };
        let _ = writeln!(text, "## {}\n\n`{}` ({}{comma}{provenance})\n", model.name, model.dir, brief(&model.hash));
        for (title, table) in checkpoint_tables(checkpoint, config) {
            let _ = writeln!(text, "{title}:\n\n{}", table.markdown());
        }
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
v is a sample of prior knowledge, u one of the training data. LBK: lower bound of the squared norm of the kernel of u and v, mean over pairs with \
a 95 % BCa bootstrap interval over training samples. Per token of u: LBK divided by the tokens of u, a lower bound of the LBK of its single tokens; \
LBK grows with the length of u. Effect, squared: what LBK divides by the norms of A and G, ||d log pi(v) / d eta||^2. KL: how far the distributions \
of v move, KL(pi(v) || pi'(v)). Change of v: how its log-likelihood changes; by SGD in nats per unit of step size, the inner product of both \
gradients, and by Adam in nats, after its first step with new moments. Harmed: share of pairs in which it is below 0. Cosine: between the gradients \
of both log-likelihoods. Slopes: per nat of the perplexity of u (nats per token under the base), least squares over pairs, with intervals that are \
robust to pairs that share u or v. The check compares three measurements of one inner product; it shows the precision of the measurement and says \
nothing about the model. Intervals are for new training samples, not for other prior samples, seeds or training runs.\n";
