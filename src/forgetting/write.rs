//! Writes `forgetting.json`, and the same as CSV and Markdown.

use super::csv::{CSV_HEADER, rows};
use super::outcome_tables::{divergences, gold_table, transitions_table, weights_table};
use super::result::{ForgettingResult, TunedResult};
use super::table::{aggregates, summary, table};
use crate::Result;
use crate::io::files;
use std::fmt::Write;
use std::path::Path;

/// The whole result, for programs.
pub const FORGETTING_JSON: &str = "forgetting.json";
/// The whole result as one table, a number in each row.
pub const FORGETTING_CSV: &str = "forgetting.csv";
/// The tables, for reading.
pub const FORGETTING_MD: &str = "forgetting.md";

/// Write all three into `dir`; the JSON last, so that it is never newer than the others.
pub fn write(dir: &Path, found: &ForgettingResult) -> Result<()> {
    files::create_dir(dir)?;
    files::write_atomic(&dir.join(FORGETTING_CSV), format!("{CSV_HEADER}\n{}", rows(found)).as_bytes())?;
    files::write_atomic(&dir.join(FORGETTING_MD), markdown(found).as_bytes())?;
    files::write_json(&dir.join(FORGETTING_JSON), found)
}

fn markdown(found: &ForgettingResult) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# Forgetting\n\nBase: `{}` ({})\n", found.base.dir, brief(&found.base.hash));
    found.tuned.iter().for_each(|tuned| text += &of_model(tuned, "##"));
    text += NOTES;
    text
}

/// One model's tables as Markdown, under a heading of this depth.
pub(crate) fn of_model(tuned: &TunedResult, heading: &str) -> String {
    let mut text = String::new();
    let model = &tuned.model;
    let _ = writeln!(text, "{heading} {}\n", model.name);
    let provenance = model.provenance();
    let comma = if provenance.is_empty() { "" } else { ", " };
    let _ = writeln!(text, "`{}` ({}{comma}{provenance})\n", model.dir, brief(&model.hash));
    summary(tuned).iter().for_each(|line| {
        let _ = writeln!(text, "- {line}");
    });
    let _ = writeln!(text, "\n{}", table(tuned, true).markdown());
    let weights = tuned.weights.as_ref().map(|parts| weights_table(parts));
    let more = [aggregates(tuned), Some(transitions_table(tuned)), gold_table(tuned), divergences(tuned), weights];
    for more in more.iter().flatten() {
        let _ = writeln!(text, "{}", more.markdown());
    }
    text
}

/// The first 12 digits of a hash.
pub(crate) fn brief(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// The same of a hash of training data, which has the hash of replayed data after a `+`.
pub(crate) fn brief_data(hash: &str) -> String {
    hash.split('+').map(brief).collect::<Vec<_>>().join("+")
}

/// How to read the tables.
pub(crate) const NOTES: &str = "\
Changes and their 95 % intervals are in percentage points, tuned minus base on the same examples. n: pairs of responses, and in \
brackets the number of groups (images). 0/1 scores of independent examples: \
Tango's score interval and McNemar's exact test; graded scores, examples that share an image, and means over benchmarks: cluster-robust t with one unseen \
loss and one unseen gain. No interval goes beyond what the base's score leaves possible. Retained: \
ratio of the mean scores, BCa bootstrap over examples (or images). p (Holm): adjusted for the number of benchmarks. Lenient: the change \
by the lenient score, which ignores the format of the answer. Unparsed: responses without a readable answer, base -> tuned. A mean counts each \
benchmark once, and a question that several benchmarks share (asked in both styles, or about one image) as one observation; by question: how many lost \
and gained, with the exact sign test. The interval of a mean is for new examples of these benchmarks, not for other benchmarks, seeds or training runs. \
Right -> wrong and wrong -> right: shares of all pairs; beyond guessing: without what two independent guesses at the chance level of each \
question explain. Gold answers: mean log-probability in nats, base -> tuned; text of the answer: what stands between the answer tags, given \
what is before it. KL in nats, over the whole vocabulary. Weights: L2 norm of the change, also as a share of the norm of the base's weights; \
share of weights whose f32 bits differ, and that differ in bf16; means over the changes of matrices of effective rank (exp of the entropy of the \
singular values), of its share of the highest possible rank, and of stable rank.\n";
