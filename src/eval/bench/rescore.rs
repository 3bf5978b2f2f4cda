//! Stored responses scored again, without a model, after a scorer or a gold answer was corrected.

use crate::data::is_dataset;
use crate::eval::EvalResult;
use crate::eval::eval_dir::{self, EvalInfo};
use crate::io::{files, output_dir};
use crate::model::processor::smart_resize;
use crate::sampling::{SamplePlan, SampleProgress, SamplingKey, ScoredResponse, Summary, progress_of};
use crate::tasks::benchmarks::{self, Pixels};
use crate::tasks::{self, Task};
use crate::{Error, Result};
use rayon::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Score the responses again of the evaluation in `out`, or of every one in the directories in it, by the data they were made
/// from as it is now. The responses themselves stay; their scores, `key.json` and `result.json` are written again.
///
/// # Errors
/// An input error if there is no evaluation, if the prompts or images of its data are no longer those that the responses answer,
/// or if the data cannot be read.
pub fn rescore(out: &Path, progress: &mut dyn FnMut(&str, SampleProgress)) -> Result<Vec<(String, EvalResult)>> {
    files::require_dir(out, "evaluation")?;
    let mut results = Vec::new();
    // An evaluation by itself is locked when it is scored.
    let _lock = match EvalInfo::read(out)? {
        None => Some(output_dir::lock(out, "evaluating")?),
        Some(_) => None,
    };
    for dir in evaluations(out)? {
        let name = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(result) = rescore_one(&dir, &name, progress)? {
            results.push((name, result));
        }
    }
    if out.join(super::RESULTS_JSON).exists() && !results.is_empty() {
        super::write_results(out, &results)?;
    }
    Ok(results)
}

/// The directory itself if it holds an evaluation, else those in it that do, by name.
fn evaluations(out: &Path) -> Result<Vec<PathBuf>> {
    if EvalInfo::read(out)?.is_some() {
        return Ok(vec![out.to_path_buf()]);
    }
    let unreadable = |e: std::io::Error| Error::input(format!("cannot read {}: {e}", out.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(out).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() && EvalInfo::read(&path)?.is_some() {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(Error::input(format!(
            "no evaluation in {}: neither it nor a directory in it has a key.json",
            out.display()
        )));
    }
    Ok(found)
}

/// `None` if the evaluation is not finished. Its responses are scored again all the same.
fn rescore_one(dir: &Path, name: &str, progress: &mut dyn FnMut(&str, SampleProgress)) -> Result<Option<EvalResult>> {
    let missing = || Error::input(format!("no evaluation in {}", dir.display()));
    let _lock = eval_dir::lock(dir)?;
    let about = EvalInfo::read(dir)?.ok_or_else(missing)?;
    let task = task_of(&about)?;
    let key = &about.key;
    let plan = SamplePlan { limit: Some(key.examples), num_generations: key.num_generations.max(1), batch_size: 1 };
    let now = SamplingKey::new(&key.model, &key.prompt, task.as_ref(), &plan, &key.sampling)?;
    let (code, bench) = (key.code.clone(), key.bench.clone());
    let now = SamplingKey { code, batch_size: key.batch_size, dtype: key.dtype, bench, ..now };
    if !key.differs_in_scoring_only(&now) {
        return Err(Error::input(format!(
            "{}: {} no longer asks what these responses answer (its prompts or images are others); evaluate it again with \
             --fresh",
            dir.display(),
            about.data.display()
        )));
    }
    let mut outcomes = eval_dir::stored(dir, task.as_ref(), plan.num_generations)?;
    // A response that a server refused stays unanswered.
    let answered = outcomes.par_iter_mut().filter(|outcome| outcome.score.unanswered().is_none());
    answered.for_each(|outcome| outcome.score = task.score(outcome.index, &outcome.response));
    let total = now.examples;
    progress(name, progress_of(&outcomes, total, plan.num_generations));
    let about = EvalInfo { key: now, ..about };
    let summary = match EvalResult::read(dir)? {
        Some(before) if outcomes.len() == total * plan.num_generations => {
            Some(summary(task.as_ref(), &plan, &outcomes, &before.summary)?)
        }
        _ => None,
    };
    eval_dir::rewrite(dir, &about, task.as_ref(), &outcomes, summary.clone())?;
    Ok(summary.map(|summary| EvalResult { about, summary }))
}

/// The new summary, with the time that the model took.
fn summary(task: &dyn Task, plan: &SamplePlan, outcomes: &[ScoredResponse], before: &Summary) -> Result<Summary> {
    let now = Summary::of_task(task, outcomes, plan.num_generations, 0, Duration::ZERO)?;
    Ok(Summary { seconds: before.seconds, tokens_per_second: before.tokens_per_second, ..now })
}

/// The task that was evaluated, from its data as it is now.
pub fn task_of(about: &EvalInfo) -> Result<Box<dyn Task>> {
    let protocol = match &about.key.bench {
        Some(protocol) if !is_dataset(&about.data) => protocol,
        _ => return tasks::load(&about.data, &about.split),
    };
    let pixels: Option<Pixels> = protocol.pixels;
    let raw = benchmarks::read(&about.key.task, &about.data, protocol.benchmark.as_deref())?;
    Ok(Box::new(raw.into_task(&about.key.task, &|(width, height)| {
        let Some(Pixels { min, max, factor }) = pixels else { return Ok((width, height)) };
        smart_resize(width, height, factor, min, max).map_err(|e| e.to_string())
    })?))
}
