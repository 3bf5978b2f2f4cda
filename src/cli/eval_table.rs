//! The tables that `jigsaw eval` prints.

use crate::eval::EvalResult;
use crate::io::text::counted;
use crate::sampling::Summary;
use crate::sampling::chat_api::TokenUsage;
use crate::stats::Interval;
use crate::tasks::{NoAnswer, partial_credit_label};
use std::fmt::Write;

/// Numbers of a benchmark's own that are printed; the rest is in the files.
const PRINTED: usize = 6;

/// What a server counts, which may be what it charges for.
pub fn usage_line(usage: TokenUsage) -> String {
    format!("  {:<22} {usage}\n", "tokens used")
}

/// The result for a person, one line a figure.
pub fn dataset_table(result: &EvalResult) -> String {
    let s: &Summary = &result.summary;
    let mut text = String::new();
    let split = if result.about.split.is_empty() { String::new() } else { format!(" ({})", result.about.split) };
    let samples = if s.samples == 1 { String::new() } else { format!(", {} responses each", s.samples) };
    let examples = counted(s.examples, "example");
    let _ = writeln!(text, "{} on {}{split}, {examples}{samples}", result.about.model.display(), s.task);
    let mut share = |name: &str, i: &Interval, chance: Option<f64>| {
        let chance = chance.map(|c| format!("   guessing {:5.1} %", 100.0 * c)).unwrap_or_default();
        let (value, low, high) = (100.0 * i.value, 100.0 * i.low, 100.0 * i.high);
        let _ = writeln!(text, "  {name:<22} {value:5.1} %   95 % interval {low:5.1} to {high:5.1} %{chance}");
    };
    share("whole answer right", &s.accuracy, s.chance.map(|c| c.accuracy));
    let label = partial_credit_label(result.about.key.scorers.keys());
    if let Some(label) = label {
        share(label, &s.partial_credit, s.chance.map(|c| c.partial_credit));
    }
    for (name, category) in &s.categories {
        share(&format!("  {name}: right"), &category.accuracy, None);
        if let Some(label) = label {
            share(&format!("  {name}: {label}"), &category.partial_credit, None);
        }
    }
    share("answer readable", &s.parsed, None);
    share("format kept", &s.well_formed, None);
    for (fault, n) in &s.faults {
        let _ = writeln!(text, "    {fault}: {n}");
    }
    if s.truncated > 0 {
        let _ = writeln!(text, "    cut off by the length limit: {}", s.truncated);
    }
    let speed = s.tokens_per_second.map(|t| format!(", {t:.0} tokens/s")).unwrap_or_default();
    // A solver makes none, and a server may not count them; a model here always makes one at least.
    if s.mean_tokens > 0.0 {
        let _ = writeln!(text, "  {:<22} {:5.1} tokens{speed}", "mean response", s.mean_tokens);
    }
    text
}

/// One line for each benchmark, and below it the numbers that its own tables have.
pub fn benchmark_table(results: &[(String, EvalResult)]) -> String {
    let width = results.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max("bench".len());
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<width$}  {:>6}  {:>7}  {:>18}  {:>10}  {:>8}  {:>8}  {:>6}  {:>8}",
        "bench", "n", "score", "95 % interval", "exact form", "lenient", "unparsed", "tokens", "tokens/s"
    );
    for (name, result) in results {
        let s: &Summary = &result.summary;
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let interval = format!("{:.1} to {:.1} %", 100.0 * s.value.low, 100.0 * s.value.high);
        let speed = s.tokens_per_second.map_or("-".into(), |speed| format!("{speed:.0}"));
        let _ = writeln!(
            text,
            "{name:<width$}  {:>6}  {:>7}  {interval:>18}  {:>10}  {:>8}  {:>8}  {:>6.1}  {speed:>8}",
            s.examples,
            percent(s.value.value),
            s.exact_form.map_or("-".into(), |exact| percent(exact.value)),
            percent(s.lenient.value),
            percent(1.0 - s.parsed.value),
            s.mean_tokens,
        );
        for (name, value) in own_numbers(s) {
            let _ = writeln!(text, "{:<width$}  {name}: {value}", "");
        }
        for why in NoAnswer::ALL {
            if let Some(n) = s.faults.get(why.fault()) {
                let _ = writeln!(text, "{:<width$}  {}: {n}", "", why.fault());
            }
        }
        if s.truncated > 0 {
            let _ = writeln!(text, "{:<width$}  cut off by the length limit: {}", "", s.truncated);
        }
    }
    text
}

/// The first of a benchmark's own numbers by its published rule, except those in the line above and those of its categories.
fn own_numbers(s: &Summary) -> Vec<(&str, String)> {
    let own = s
        .aggregates
        .iter()
        .filter(|n| !n.name.contains('/') && !["score", "parsed", "exact-form"].contains(&n.name.as_str()));
    // Everything but MME's sums of percentages.
    const SHARES: [&str; 7] = ["accuracy", "precision", "recall", "f1", "yes-ratio", "unknown", "partial-credit"];
    let value = |name: &str, v: f64| match SHARES.contains(&name) {
        true => format!("{:.1} %", 100.0 * v),
        false => format!("{v:.1}"),
    };
    own.take(PRINTED).map(|n| (n.name.as_str(), value(&n.name, n.value))).collect()
}
