//! An evaluation on disk: what it is keyed by, its responses as they come, its result written last.

use super::hash::hash_examples;
use super::{Outcome, Plan, Summary};
use crate::io::files;
use crate::model::Sampling;
use crate::model::{hash_model, hash_prompt_files};
use crate::tasks::Task;
use crate::tasks::benchmarks::Protocol;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Raised whenever the evaluation itself changes what it finds, so that old results are not taken for new ones.
const EVAL_VERSION: u32 = 2;

const KEY: &str = "key.json";
const RESPONSES: &str = "responses.jsonl";
const RESULT: &str = "result.json";
/// Responses of a server as they come, each paid for.
pub(super) const PAID: &str = "paid.jsonl";

/// Everything that decides an evaluation's outcome. Two results with equal keys are the same result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// Version of this program and of its evaluation.
    pub code: String,
    /// Hash of the weights and `config.json`; of a server, the model's name and the address.
    pub model: String,
    /// Hash of tokenizer, chat template and image settings; empty for a server, which has its own.
    pub prompt: String,
    /// Hash of what the model is shown of the examples evaluated: prompts and images.
    pub data: String,
    /// Hash of what the responses are scored by: gold answers and the settings of the scorers.
    pub gold: String,
    /// Name of the task.
    pub task: String,
    /// Rules that score the responses, with the version of each.
    pub scorers: BTreeMap<String, u32>,
    /// Number of examples.
    pub examples: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Responses to each example.
    pub samples: usize,
    /// Batch size, where it decides which random numbers an example gets (temperature above 0).
    pub batch: Option<usize>,
    /// How the benchmark is put to the model, where the task is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bench: Option<Protocol>,
}

/// Parts of a key that bear on the scores and not on the responses.
const SCORING: [&str; 2] = ["gold", "scorers"];

impl Key {
    /// From the hashes of a checkpoint (see [`hash_model`] and [`hash_prompt_files`]); hashes the examples and their images.
    pub fn new(model: &str, prompt: &str, task: &dyn Task, plan: &Plan, sampling: &Sampling) -> Result<Key> {
        let examples = plan.examples(task);
        let (data, gold) = hash_examples(task, examples)?;
        Ok(Key {
            code: format!("{} eval {EVAL_VERSION}", env!("CARGO_PKG_VERSION")),
            model: model.to_string(),
            prompt: prompt.to_string(),
            data,
            gold,
            task: task.name().to_string(),
            scorers: task.scorers().into_iter().collect(),
            examples,
            sampling: sampling.clone(),
            samples: plan.samples,
            batch: (sampling.temperature > 0.0).then_some(plan.batch),
            bench: None,
        })
    }

    /// Nothing but the scoring differs: the responses are the same.
    pub fn differs_in_scoring_only(&self, other: &Key) -> bool {
        let scoring = |name: &str| SCORING.contains(&name.split('.').next().unwrap_or(name));
        self.differences(other).iter().all(|(name, _)| scoring(name))
    }

    /// Each part in which the keys differ, with `here -> there`; the parts of a part are told apart (`bench.pixels.min`).
    pub(crate) fn differences(&self, other: &Key) -> Vec<(String, String)> {
        differences(self, other)
    }

    /// Names of the parts in which the keys differ.
    #[cfg(test)]
    pub(super) fn differences_in(&self, other: &Key) -> Vec<String> {
        self.differences(other).into_iter().map(|(name, _)| name).collect()
    }
}

/// Each part in which two values differ as JSON, with `here -> there`; the parts of a part are told apart.
pub(crate) fn differences<T: Serialize>(here: &T, there: &T) -> Vec<(String, String)> {
    let fields = |value: &T| {
        let mut fields = serde_json::Map::new();
        flatten("", serde_json::to_value(value).unwrap_or_default(), &mut fields);
        fields
    };
    let (ours, theirs) = (fields(here), fields(there));
    let brief = |v: Option<&serde_json::Value>| {
        let Some(v) = v else { return "none".to_string() };
        let text = v.to_string();
        // A hash is told from another by its beginning.
        let is_hash = text.len() == 66 && v.is_string();
        if is_hash { format!("{}...\"", &text[..13]) } else { text }
    };
    let names = ours.keys().chain(theirs.keys().filter(|name| !ours.contains_key(*name)));
    names
        .filter(|name| ours.get(*name) != theirs.get(*name))
        .map(|name| (name.clone(), format!("{} -> {}", brief(ours.get(name)), brief(theirs.get(name)))))
        .collect()
}

/// The leaves of a JSON value under their paths.
fn flatten(path: &str, value: serde_json::Value, leaves: &mut serde_json::Map<String, serde_json::Value>) {
    let serde_json::Value::Object(map) = value else {
        leaves.insert(path.to_string(), value);
        return;
    };
    for (name, value) in map {
        let path = if path.is_empty() { name } else { format!("{path}.{name}") };
        flatten(&path, value, leaves);
    }
}

/// The key of an evaluation; hashes the model's files, the examples and their images.
pub fn key_of(model: &Path, task: &dyn Task, plan: &Plan, sampling: &Sampling) -> Result<Key> {
    Key::new(&hash_model(model)?, &hash_prompt_files(model)?, task, plan, sampling)
}

/// What an evaluation is of: `key.json`, written first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// What it is keyed by. The rest is for people and for the report.
    pub key: Key,
    /// The checkpoint directory; of a server, the model's name and the address.
    pub model: PathBuf,
    /// The dataset directory.
    pub data: PathBuf,
    /// The split of it.
    pub split: String,
}

impl About {
    /// Read what the evaluation in `dir` is of; `None` if there is none.
    pub fn read(dir: &Path) -> Result<Option<About>> {
        let path = dir.join(KEY);
        if path.exists() { files::read_json(&path).map(Some) } else { Ok(None) }
    }
}

/// A finished evaluation: `result.json`, written last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalResult {
    /// What it is the result of.
    #[serde(flatten)]
    pub about: About,
    /// What was found.
    pub summary: Summary,
}

impl EvalResult {
    /// Read the result of an evaluation directory; `None` if it is not finished.
    pub fn read(dir: &Path) -> Result<Option<EvalResult>> {
        let path = dir.join(RESULT);
        if path.exists() { files::read_json(&path).map(Some) } else { Ok(None) }
    }

    /// The responses of an evaluation directory, complete lines only, in order.
    pub fn read_responses(dir: &Path) -> Result<Vec<Outcome>> {
        let path = dir.join(RESPONSES);
        if !path.exists() { Ok(Vec::new()) } else { Ok(read_lines(&path)?.into_iter().map(|(o, _)| o).collect()) }
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// The output directory of one evaluation. While it is not finished, no other process evaluates in it.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    about: About,
    _lock: Option<File>,
}

impl Directory {
    /// Open `path` for the evaluation `key` of `model` on `data`'s `split`, making it if need be. With `fresh`, what an
    /// earlier evaluation left there is removed.
    ///
    /// # Errors
    /// Input error if the directory holds another evaluation, of which it names the parts of the key that differ, or if another
    /// process evaluates in it.
    pub fn open(path: &Path, key: Key, model: &Path, data: &Path, split: &str, fresh: bool) -> Result<Directory> {
        let about = About { key, model: absolute(model), data: absolute(data), split: split.to_string() };
        Directory::open_for(path, about, fresh)
    }

    /// As [`Directory::open`], for answers of the model that is called `server`.
    pub fn open_for_server(
        path: &Path,
        key: Key,
        server: &str,
        data: &Path,
        split: &str,
        fresh: bool,
    ) -> Result<Directory> {
        let about = About { key, model: PathBuf::from(server), data: absolute(data), split: split.to_string() };
        Directory::open_for(path, about, fresh)
    }

    fn open_for(path: &Path, about: About, fresh: bool) -> Result<Directory> {
        files::create_dir(path)?;
        // Before the lock is written there, which would leave a file in a directory of something else.
        if ![KEY, RESPONSES, RESULT].iter().any(|name| path.join(name).exists()) {
            require_own(path)?;
        }
        // What is finished is only read, by as many as like.
        let only_read = !fresh && path.join(RESULT).exists();
        let lock = if only_read { None } else { Some(lock(path)?) };
        let directory = Directory { path: path.to_path_buf(), about, _lock: lock };
        if fresh {
            // The result goes first: what remains after an interruption never looks finished.
            for name in [RESULT, RESPONSES, PAID, KEY] {
                match fs::remove_file(path.join(name)) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::failed(format!("cannot remove {}: {e}", path.join(name).display())));
                    }
                    _ => {}
                }
            }
        }
        if let Some(found) = About::read(path)? {
            if found.key != directory.about.key {
                let differences = found.key.differences(&directory.about.key);
                let parts: Vec<String> = differences.iter().map(|(name, change)| format!("{name}: {change}")).collect();
                let rescore = match found.key.differs_in_scoring_only(&directory.about.key) {
                    true => "--rescore to score its responses again, ",
                    false => "",
                };
                return Err(Error::input(format!(
                    "{} holds another evaluation ({}); give {rescore}another --out, or --fresh to start over",
                    path.display(),
                    parts.join("; ")
                )));
            }
        } else if path.join(RESPONSES).exists() || path.join(RESULT).exists() {
            return Err(Error::input(format!(
                "{} holds responses but no {KEY}, so what they are responses to is unknown; give another --out, or --fresh",
                path.display()
            )));
        } else {
            require_own(path)?;
            files::write_json(&path.join(KEY), &directory.about)?;
        }
        Ok(directory)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The result, if this evaluation is finished.
    pub fn finished(&self) -> Result<Option<EvalResult>> {
        EvalResult::read(&self.path)
    }

    /// The responses already there, cut back to where the evaluation can go on; the file is cut accordingly.
    pub fn resume(&self, task: &dyn Task, plan: &Plan) -> Result<Vec<Outcome>> {
        let key = &self.about.key;
        resume(&self.path.join(RESPONSES), task, key.examples, plan.samples, key.batch.unwrap_or(1))
    }

    /// Append responses, in one write.
    pub fn append(&mut self, outcomes: &[Outcome]) -> Result<()> {
        let path = self.path.join(RESPONSES);
        let text = to_lines(outcomes)?;
        let written = OpenOptions::new().create(true).append(true).open(&path).and_then(|mut f| f.write_all(&text));
        written.map_err(|e| Error::failed(format!("cannot write {}: {e}", path.display())))
    }

    /// Write the result: the evaluation is done.
    pub fn finish(&self, summary: Summary) -> Result<EvalResult> {
        let result = EvalResult { about: self.about.clone(), summary };
        files::write_json(&self.path.join(RESULT), &result)?;
        Ok(result)
    }
}

/// Keep other processes from evaluating in `dir` until the file is closed.
pub(super) fn lock(dir: &Path) -> Result<File> {
    files::lock(dir, "evaluating")
}

/// An input error unless a directory without an evaluation is empty.
fn require_own(dir: &Path) -> Result<()> {
    match files::holds_foreign(dir, |_| false) {
        true => {
            Err(Error::input(format!("{} is not empty and holds no evaluation; give another --out", dir.display())))
        }
        false => Ok(()),
    }
}

/// Write the responses of an evaluation with new scores, its key, and its result if it is finished, in this order: after an
/// interruption the same call puts right what does not fit together.
pub(super) fn rewrite(dir: &Path, about: &About, outcomes: &[Outcome], summary: Option<Summary>) -> Result<()> {
    files::write_atomic(&dir.join(RESPONSES), &to_lines(outcomes)?)?;
    files::write_json(&dir.join(KEY), about)?;
    match summary {
        Some(summary) => files::write_json(&dir.join(RESULT), &EvalResult { about: about.clone(), summary }),
        None => Ok(()),
    }
}

/// The responses stored in `dir`, seen to be those to the first examples of `task`, in order.
pub(super) fn stored(dir: &Path, task: &dyn Task, samples: usize) -> Result<Vec<Outcome>> {
    let path = dir.join(RESPONSES);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let outcomes: Vec<Outcome> = read_lines(&path)?.into_iter().map(|(outcome, _)| outcome).collect();
    check_order(&path, outcomes.iter(), task, samples)?;
    Ok(outcomes)
}

/// The responses of an interrupted process in `path`, cut back to what can be gone on from: whole examples of `samples` responses, and,
/// where random numbers are drawn by the batch, whole batches. None where there is no file.
///
/// # Errors
/// An input error for what is not this task's, in order.
pub(crate) fn resume(
    path: &Path,
    task: &dyn Task,
    examples: usize,
    samples: usize,
    batch: usize,
) -> Result<Vec<Outcome>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut lines = read_lines(path)?;
    if lines.len() < examples * samples {
        let unit = samples * batch;
        lines.truncate(lines.len() / unit * unit);
    }
    check_order(path, lines.iter().map(|(outcome, _)| outcome), task, samples)?;
    let end = lines.last().map_or(0, |(_, end)| *end);
    let cut = OpenOptions::new().write(true).open(path).and_then(|f| f.set_len(end));
    cut.map_err(|e| Error::failed(format!("cannot shorten {}: {e}", path.display())))?;
    Ok(lines.into_iter().map(|(outcome, _)| outcome).collect())
}

/// See that these responses, read from `path`, are those to the first examples of `task`, in order.
fn check_order<'a>(
    path: &Path,
    outcomes: impl Iterator<Item = &'a Outcome>,
    task: &dyn Task,
    samples: usize,
) -> Result<()> {
    for (at, outcome) in outcomes.enumerate() {
        let (index, sample) = (at / samples, at % samples);
        let expected = if index < task.len() { task.example(index)?.id.as_str() } else { "" };
        if (outcome.index, outcome.sample, outcome.id.as_str()) != (index, sample, expected) {
            return Err(Error::input(format!(
                "{}:{}: a response to {} (sample {}) where {expected:?} (sample {sample}) was expected; \
                 --fresh starts over",
                path.display(),
                at + 1,
                outcome.id,
                outcome.sample
            )));
        }
    }
    Ok(())
}

/// Responses as lines of JSON.
pub(crate) fn to_lines(outcomes: &[Outcome]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for outcome in outcomes {
        serde_json::to_writer(&mut text, outcome)
            .map_err(|e| Error::failed(format!("response to {}: {e}", outcome.id)))?;
        text.push(b'\n');
    }
    Ok(text)
}

/// Complete lines with the offset at which each ends. What follows the last newline is a torn write and left out.
fn read_lines(path: &Path) -> Result<Vec<(Outcome, u64)>> {
    let bytes = files::read(path)?;
    let mut lines = Vec::new();
    let mut end = 0;
    for line in bytes.split_inclusive(|&b| b == b'\n').filter(|l| l.ends_with(b"\n")) {
        end += line.len() as u64;
        let outcome = serde_json::from_slice(line).map_err(|e| {
            Error::input(format!("{}:{}: not a response: {e}; --fresh starts over", path.display(), lines.len() + 1))
        })?;
        lines.push((outcome, end));
    }
    Ok(lines)
}
