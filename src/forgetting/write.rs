//! `forgetting.json`, and the same as CSV and Markdown.

use super::csv::{CSV_HEADER, rows};
use super::result::{ForgettingResult, TunedResult};
use super::table::{aggregates, divergences, summary, table};
use crate::Result;
use crate::io::files;
use std::fmt::Write;
use std::path::Path;

/// Everything, for programs.
pub const FORGETTING_JSON: &str = "forgetting.json";
/// A number a row.
pub const FORGETTING_CSV: &str = "forgetting.csv";
/// For people.
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
    let _ = writeln!(text, "# What fine-tuning cost\n\nBase: `{}` ({})\n", found.base.dir, brief(&found.base.hash));
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
    for more in [aggregates(tuned), divergences(tuned)].iter().flatten() {
        let _ = writeln!(text, "{}", more.markdown());
    }
    text
}

/// The beginning of a hash, enough to tell it from others.
pub(crate) fn brief(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// The same of the hash of training data, which is that of what is replayed too after a `+`.
pub(crate) fn brief_data(hash: &str) -> String {
    hash.split('+').map(brief).collect::<Vec<_>>().join("+")
}

/// How to read the tables.
pub(crate) const NOTES: &str = "\
Changes and their intervals are in percentage points, tuned minus base on the same examples. n: pairs of responses, in brackets the \
groups (images) that they come in. 0/1 scores of independent examples: \
Tango's score interval and McNemar's exact test; graded scores: paired t; examples that share an image: cluster-robust t. Retained: \
ratio of the mean scores, BCa bootstrap over examples (or images). p (Holm): adjusted for the number of benchmarks. Lenient: the change \
by a reading that forgives form. Unreadable: responses without a readable answer, base -> tuned. Means count each benchmark \
once, and an example that several share as one observation; their intervals are about new examples of these benchmarks, not about other benchmarks, other seeds or other training runs. \
KL in nats, over the whole vocabulary.\n";
