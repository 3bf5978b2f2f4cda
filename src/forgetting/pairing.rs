//! Two evaluations of the same examples, paired response by response.

use crate::eval::{EvalInfo, EvalResult};
use crate::io::hex;
use crate::sampling::{SamplingKey, ScoredResponse};
use crate::tasks::Task;
use crate::tasks::scorers::Number;
use crate::{Error, Result};
use std::collections::HashMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// Ids listed in a message.
const NAMED: usize = 3;

/// Parts of an evaluation's key in which base and tuned model may differ: the weights are what is compared, and the batch size
/// decides nothing but which random numbers are drawn.
const FREE: [&str; 2] = ["model", "batch_size"];

/// A finished evaluation, read from its directory.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedEval {
    /// The directory.
    pub dir: PathBuf,
    /// What it is an evaluation of.
    pub about: EvalInfo,
    /// The responses, in order.
    pub outcomes: Vec<ScoredResponse>,
    /// The benchmark's own numbers (sums, F1).
    pub numbers: Vec<Number>,
}

impl FinishedEval {
    /// Read the evaluation in `dir`.
    ///
    /// # Errors
    /// An input error if there is none, or it is not finished.
    pub fn read(dir: &Path) -> Result<FinishedEval> {
        let Some(result) = EvalResult::read(dir)? else {
            let what = if dir.join("key.json").exists() { "the evaluation is not finished" } else { "no evaluation" };
            return Err(Error::input(format!(
                "{}: {what}; there is no result.json (run the same command again to resume the evaluation)",
                dir.display()
            )));
        };
        let outcomes = EvalResult::read_responses(dir)?;
        let expected = result.about.key.examples * result.about.key.num_generations;
        if outcomes.len() != expected {
            return Err(Error::input(format!(
                "{}: responses.jsonl has {} responses where the finished evaluation had {expected}; it was changed; \
                 evaluate again (--fresh)",
                dir.display(),
                outcomes.len()
            )));
        }
        Ok(FinishedEval { dir: dir.to_path_buf(), numbers: result.summary.aggregates, about: result.about, outcomes })
    }
}

/// Categories and groups of an example.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExampleLabel {
    /// Category within the benchmark, if it has categories.
    pub category: Option<String>,
    /// Examples of one group are not independent: `meta.group`, else the source image.
    pub group: Option<String>,
    /// What examples of other benchmarks may share with it: its images, or the question that is asked in both styles, where it has no image or
    /// all examples have the same.
    pub shares: Vec<String>,
    /// What guessing earns, as a share of whole answers right, where the scorer knows.
    pub chance: Option<f64>,
}

impl ExampleLabel {
    /// The labels of the first examples of a task.
    pub fn of(task: &dyn Task, examples: usize) -> Result<Vec<ExampleLabel>> {
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::String(text) if text.trim().is_empty() => None,
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Null => None,
            other => Some(other.to_string()),
        };
        (0..examples.min(task.len()))
            .map(|i| {
                let record = task.example(i)?;
                let source = record.shared_source().map(String::from);
                Ok(ExampleLabel {
                    category: record.meta.get("category").and_then(text),
                    group: record.meta.get("group").and_then(text).or(source),
                    shares: Vec::new(),
                    chance: task.chance(i).map(|chance| chance.accuracy),
                })
            })
            .collect()
    }

    /// The labels of the first examples of a benchmark, with what they may share with other benchmarks.
    pub fn of_benchmark(task: &dyn Task, examples: usize) -> Result<Vec<ExampleLabel>> {
        let mut labels = ExampleLabel::of(task, examples)?;
        // `X-direct` and `X-think` ask the same questions, row by row.
        let styles = ["-direct", "-think"];
        let asked = styles.iter().find_map(|style| task.name().strip_suffix(style));
        for (i, label) in labels.iter_mut().enumerate() {
            let digests = task.image_digests(i)?.unwrap_or_default();
            label.shares = digests.iter().map(|digest| hex(digest)).collect();
        }
        // One picture for all examples (a blank one) tells no question from another.
        let blank = labels.len() > 1 && labels.iter().all(|label| label.shares == labels[0].shares);
        for (i, label) in labels.iter_mut().enumerate().filter(|(_, label)| blank || label.shares.is_empty()) {
            label.shares = match asked {
                Some(asked) => vec![format!("{asked}, question {}", task.example(i)?.id)],
                None => Vec::new(),
            };
        }
        Ok(labels)
    }
}

/// Two evaluations as pairs of responses.
#[derive(Debug, Clone, PartialEq)]
pub struct PairedOutcomes {
    /// Base and tuned model's responses to the same example and sample, in the base's order.
    pub pairs: Vec<(ScoredResponse, ScoredResponse)>,
    /// The weights are the same.
    pub same_model: bool,
    /// Key of the base's evaluation.
    pub key: SamplingKey,
}

/// Check that two evaluations differ only in weights and batch size; `left` and `right` name their places.
///
/// # Errors
/// An input error that names every part of the settings that differs, and what to do about it.
pub fn comparable(left: &dyn Display, first: &SamplingKey, right: &dyn Display, second: &SamplingKey) -> Result<()> {
    let differing: Vec<(String, String)> =
        first.differences(second).into_iter().filter(|(name, _)| !FREE.contains(&name.as_str())).collect();
    if differing.is_empty() {
        return Ok(());
    }
    let parts: Vec<String> = differing.iter().map(|(name, change)| format!("{name}: {change}")).collect();
    Err(Error::input(format!(
        "{left} and {right} cannot be compared: {}{}",
        parts.join("; "),
        differing.iter().map(|(name, _)| hint(name)).find(|h| !h.is_empty()).unwrap_or_default()
    )))
}

/// Pair the responses of two evaluations by id and sample.
///
/// # Errors
/// An input error that names both directories and every part of the settings that differs, or the ids that only one side has.
pub fn pair(base: FinishedEval, tuned: FinishedEval) -> Result<PairedOutcomes> {
    let (first, second) = (&base.about.key, &tuned.about.key);
    comparable(&base.dir.display(), first, &tuned.dir.display(), second)?;
    let same_model = first.model == second.model;
    let mut theirs: HashMap<(String, usize), ScoredResponse> = HashMap::with_capacity(tuned.outcomes.len());
    for outcome in tuned.outcomes {
        let place = (outcome.id.clone(), outcome.sample);
        if theirs.insert(place, outcome.clone()).is_some() {
            return Err(twice(&tuned.dir, &outcome));
        }
    }
    let mut pairs = Vec::with_capacity(base.outcomes.len());
    let (mut missing, mut seen) = (Vec::new(), std::collections::HashSet::new());
    for outcome in base.outcomes {
        let place = (outcome.id.clone(), outcome.sample);
        if !seen.insert(place.clone()) {
            return Err(twice(&base.dir, &outcome));
        }
        match theirs.remove(&place) {
            Some(other) => pairs.push((outcome, other)),
            None => missing.push(outcome.id),
        }
    }
    let mut extra: Vec<String> = theirs.into_keys().map(|(id, _)| id).collect();
    extra.sort();
    for (ids, has, lacks) in [(missing, &base.dir, &tuned.dir), (extra, &tuned.dir, &base.dir)] {
        if !ids.is_empty() {
            let more = if ids.len() > NAMED { ", ..." } else { "" };
            return Err(Error::input(format!(
                "{} responses in {} have no partner in {}: {}{more}; evaluate both on the same examples",
                ids.len(),
                has.display(),
                lacks.display(),
                ids[..ids.len().min(NAMED)].join(", ")
            )));
        }
    }
    if pairs.is_empty() {
        return Err(Error::input(format!("{} holds no responses to compare", base.dir.display())));
    }
    Ok(PairedOutcomes { pairs, same_model, key: base.about.key })
}

fn twice(dir: &Path, outcome: &ScoredResponse) -> Error {
    Error::input(format!(
        "{}: two responses to {} (sample {}); pairs cannot be told apart",
        dir.display(),
        outcome.id,
        outcome.sample
    ))
}

/// How to resolve a difference.
fn hint(name: &str) -> &'static str {
    match name.split('.').next().unwrap_or(name) {
        "prompt" => {
            ". The models' tokenizer, chat template, preprocessor or generation files differ, so the prompts differ; \
             copy these files from the base's directory into the tuned model's if that is what it was trained with"
        }
        "code" => ". They were made by different versions of the evaluation; evaluate both again (--fresh)",
        "gold" | "scorers" => ". They were scored by different scorers; score both again (--rescore)",
        "data" | "examples" | "task" => ". The examples are not the same; evaluate both on the same data",
        "sampling" | "num_generations" | "bench" => ". Evaluate both with the same settings",
        _ => "",
    }
}
