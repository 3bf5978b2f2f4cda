//! Tables of what a comparison finds besides scores: transitions, divergence, gold answers, weights.

use super::gold::PairedMean;
use super::result::{BenchmarkChange, TunedResult};
use super::transitions::TransitionShare;
use crate::eval::{Divergence, PromptRole};
use crate::model::weight_diff::PartDiff;
use crate::stats::Interval;
use crate::stats::table::{NONE, Table, percent, short};

/// A number with its interval in brackets.
fn with_interval(interval: &Interval, number: impl Fn(f64) -> String) -> String {
    let Interval { value, low, high } = *interval;
    match low.is_finite() && high.is_finite() {
        true => format!("{} ({} to {})", number(value), number(low), number(high)),
        false => number(value),
    }
}

fn bare_percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// Answers that were right and are wrong, and the other way round, of each set of questions: in percent.
pub fn transitions_table(tuned: &TunedResult) -> Table {
    let mut table = Table::new([
        "",
        "n",
        "chance",
        "right -> wrong",
        "share, %",
        "beyond guessing, %",
        "wrong -> right",
        "share, %",
        "beyond guessing, %",
    ]);
    let row = |name: &str, benchmark: &BenchmarkChange| {
        let transitions = &benchmark.transitions;
        let cells = |share: &TransitionShare| {
            let intervals = [share.raw, share.adjusted].map(|share| with_interval(&share, bare_percent));
            [share.count.to_string()].into_iter().chain(intervals).collect::<Vec<_>>()
        };
        let head = vec![name.to_string(), benchmark.all.n.to_string(), percent(transitions.chance)];
        [head, cells(&transitions.right_to_wrong), cells(&transitions.wrong_to_right)].concat()
    };
    table.rows.extend(tuned.new_task.iter().map(|benchmark| row("new task", benchmark)));
    table.rows.extend(tuned.benchmarks.iter().map(|benchmark| row(&benchmark.name, benchmark)));
    table
}

/// The divergences; `None` if none was measured.
pub fn divergences(tuned: &TunedResult) -> Option<Table> {
    let nats = |interval: &Interval| with_interval(interval, short);
    let row = |d: &Divergence| {
        let own = d.own.map_or(NONE.into(), |own| format!("{} -> {}", short(own.base.value), short(own.tuned.value)));
        let name = match d.role {
            PromptRole::NewTask => "new task".into(),
            PromptRole::Benchmark => d.prompts_of.clone(),
            PromptRole::HeldOut => format!("held-out prior: {}", d.prompts_of),
        };
        vec![
            name,
            d.prompts.to_string(),
            nats(&d.forward.per_token),
            nats(&d.forward.per_response),
            nats(&d.reverse.per_token),
            nats(&d.reverse.per_response),
            own,
        ]
    };
    let header = [
        "prompts of",
        "n",
        "KL(base || tuned) per token",
        "per response",
        "KL(tuned || base) per token",
        "per response",
        "perplexity of the base's answers",
    ];
    let header = header.map(String::from).to_vec();
    (!tuned.divergence.is_empty()).then(|| Table { header, rows: tuned.divergence.iter().map(row).collect() })
}

/// Log-probabilities of the gold answers, base -> tuned and the change, in nats; `None` if none was measured.
pub fn gold_table(tuned: &TunedResult) -> Option<Table> {
    let mut table = Table::new([
        "gold answers",
        "n",
        "per token",
        "change",
        "per answer",
        "change",
        "text of the answer",
        "change",
    ]);
    let cells = |mean: &PairedMean| {
        [format!("{} -> {}", short(mean.base), short(mean.tuned)), with_interval(&mean.change, short)]
    };
    table.rows = tuned
        .gold
        .iter()
        .map(|gold| {
            let n = if gold.groups == gold.answers {
                gold.answers.to_string()
            } else {
                format!("{} ({})", gold.answers, gold.groups)
            };
            let means = [&gold.per_token, &gold.per_answer, &gold.answer_text];
            [gold.name.clone(), n].into_iter().chain(means.into_iter().flat_map(cells)).collect()
        })
        .collect();
    (!tuned.gold.is_empty()).then_some(table)
}

/// The change of the weights by part.
pub fn weights_table(parts: &[PartDiff]) -> Table {
    let mut table = Table::new([
        "weights",
        "parameters",
        "L2 of the change",
        "of the base's",
        "changed",
        "changed in bf16",
        "effective rank",
        "of the highest",
        "stable rank",
    ]);
    let rank = |rank: Option<f64>| rank.map_or(NONE.to_string(), short);
    let row = |part: &PartDiff| {
        vec![
            part.part.clone(),
            part.parameters.to_string(),
            short(part.norm),
            percent(part.relative_norm),
            percent(part.changed),
            percent(part.changed_bf16),
            rank(part.effective_rank),
            part.effective_rank_share.map_or(NONE.to_string(), percent),
            rank(part.stable_rank),
        ]
    };
    table.rows = parts.iter().map(row).collect();
    table
}

/// Gold answers and weights in a line each.
pub(super) fn outcome_lines(tuned: &TunedResult) -> Vec<String> {
    let gold = tuned.gold.first().map(|all| {
        format!(
            "gold answers to {} prior questions: {} nats an answer, {} a token",
            all.answers,
            with_interval(&all.per_answer.change, short),
            with_interval(&all.per_token.change, short)
        )
    });
    let weights = tuned.weights.iter().filter_map(|parts| parts.last()).map(|all| {
        format!(
            "weights: moved by {} of their norm, {} of them changed, {} beyond bf16",
            percent(all.relative_norm),
            percent(all.changed),
            percent(all.changed_bf16)
        )
    });
    gold.into_iter().chain(weights).collect()
}
