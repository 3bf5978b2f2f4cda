//! Rollouts: sample responses to the prompts of a dataset, score them, keep the good ones, write them as a training dataset.
//!
//! The [`Teacher`] answers: the model itself (on-policy data), or another one with a style of its own. The task scores the responses, as in
//! reinforcement fine-tuning and in evaluation. All responses stay in `samples.jsonl`. Those that [`RolloutSelection`] keeps become the train
//! split of a dataset like those of `jigsaw gen`; its other splits are those of the source. An interrupted rollout continues when the
//! same call is made again.

mod dataset;
mod options;
mod rollout_dir;
mod scripted;
mod selection;

pub use dataset::{KeptResponse, TRAIN, write_dataset};
pub use options::{RolloutOptions, SAMPLES, TEMPERATURE};
pub use rollout_dir::RolloutInfo;
pub use selection::{Candidate, FinalAnswer, Keep, RolloutSelection, SelectionCounts, with_answer};

use crate::comm::Communicator;
use crate::data::{Dataset, Manifest};
use crate::io::files;
use crate::model::init::SPECIAL;
use crate::model::{ModelLoader, Processor, SamplingParams, require_checkpoint};
use crate::sampling::chat_api::{self, ChatClient, Endpoint, Note, TokenUsage};
use crate::sampling::{
    LocalModel, Responder, SamplePlan, SampleProgress, SamplingKey, ScoredResponse, Summary, checkpoint_key,
    generated_tokens, progress_of, run,
};
use crate::tasks::{DatasetTask, ScriptedTeacher, Task};
use crate::{Error, Result};
use rollout_dir::RolloutDir;
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Who answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Teacher {
    /// A checkpoint directory.
    Model(PathBuf),
    /// The scripted reasoner (see [`ScriptedTeacher`]).
    Scripted,
    /// A model behind a chat API.
    Endpoint(Endpoint),
}

/// What to sample, from whom, what to keep and where.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RolloutRequest {
    /// Who answers.
    pub teacher: Teacher,
    /// Dataset directory with the prompts, or a file of another tool (see [`Dataset::open`]).
    pub data: PathBuf,
    /// Split of a directory.
    pub split: String,
    /// Which prompts, how many responses to each, how many prompts at a time.
    pub plan: SamplePlan,
    /// How tokens are chosen. Of a scripted teacher only the seed counts.
    pub sampling: SamplingParams,
    /// What is kept.
    pub selection: RolloutSelection,
    /// Directory for the samples and the dataset.
    pub out: PathBuf,
    /// Start over, whatever an earlier rollout left in `out`.
    pub fresh: bool,
}

/// What a rollout came to.
#[derive(Debug)]
pub struct RolloutReport {
    /// Who answered what.
    pub about: RolloutInfo,
    /// The scores, with intervals over prompts.
    pub summary: Summary,
    /// What was kept and what was not.
    pub tally: SelectionCounts,
    /// Tokens that an endpoint counted, over all that is in the directory.
    pub usage: Option<TokenUsage>,
    /// The dataset.
    pub manifest: Manifest,
}

/// Sample what is missing and write the dataset. A finished rollout is only read; with another selection, the dataset is written again
/// from the samples that are there. `note` receives a message for each long pause that a server asks for. Every rank calls it; one that gets
/// an error must end the others ([`Communicator::abort`]). A server answers one process alone.
///
/// # Errors
/// An input error for prompts that do not fit the request or an `out` that holds something else; a failure if no response is kept. The
/// samples stay, so that another selection can use them.
pub fn rollout(
    request: &RolloutRequest,
    loader: &ModelLoader,
    comm: &dyn Communicator,
    note: Note<'_>,
    progress: impl FnMut(SampleProgress),
) -> Result<RolloutReport> {
    let RolloutRequest { data, split, plan, out, selection, .. } = request;
    for (flag, input) in [("--data", Some(data)), ("--model", request.teacher.directory())] {
        if input.is_some_and(|input| files::is_inside(out, input)) {
            return Err(Error::input(format!(
                "--out {} lies in the directory of {flag}, which is left as it is; choose another place",
                out.display()
            )));
        }
    }
    let (task, split) = (DatasetTask::open(data, split)?, if data.is_dir() { split.as_str() } else { "" });
    check_prompts(task.dataset(), request)?;
    let absolute = |p: &Path| std::path::absolute(p).unwrap_or_else(|_| p.to_path_buf());
    let about = RolloutInfo {
        key: request.teacher.key(loader, &task, plan, &request.sampling)?,
        teacher: request.teacher.name(),
        data: absolute(data),
        split: split.to_string(),
    };
    about.key.check_ranks(comm, plan, loader)?;
    let store = RolloutDir::open(out, about, request.fresh, comm)?;
    let read = || dataset::written(out)?.map(|written| finished(written, selection, out)).transpose();
    let written = comm.on_root(read)?.flatten();
    let started = Instant::now();
    let Sampled { outcomes, fresh_tokens, usage } = sample(request, &store, &task, (loader, comm), note, progress)?;
    let summary = Summary::of(task.name(), None, &outcomes, plan.num_generations, fresh_tokens, started.elapsed())?;
    let special = request.teacher.special_tokens()?;
    let (kept, tally) = select(&task, &outcomes, plan.num_generations, selection, &special)?;
    if kept.is_empty() {
        return Err(nothing_kept(&tally, selection, out));
    }
    let manifest = match written {
        Some(manifest) => manifest,
        None => {
            let settings = json!({
                "teacher": store.about.teacher, "key": store.about.key, "split": split, "selection": selection, "tally": tally,
            });
            comm.on_root(|| write_dataset(out, task.dataset(), data, split, &kept, settings))?
        }
    };
    Ok(RolloutReport { about: store.about, summary, tally, usage, manifest })
}

/// All responses of a rollout.
struct Sampled {
    outcomes: Vec<ScoredResponse>,
    /// Tokens of those sampled now.
    fresh_tokens: usize,
    usage: Option<TokenUsage>,
}

/// The responses that are there, and those still missing.
fn sample(
    request: &RolloutRequest,
    store: &RolloutDir,
    task: &DatasetTask,
    (loader, comm): (&ModelLoader, &dyn Communicator),
    note: Note<'_>,
    mut progress: impl FnMut(SampleProgress),
) -> Result<Sampled> {
    let plan = &request.plan;
    let (mut log, mut outcomes) = store.resume(task, plan, comm)?;
    let total = plan.examples(task);
    progress(progress_of(&outcomes, total, plan.num_generations));
    let done = outcomes.len() / plan.num_generations;
    let client = match &request.teacher {
        Teacher::Endpoint(endpoint) => {
            let cache = request.out.join(rollout_dir::API_CACHE);
            Some(ChatClient::open(endpoint, chat_api::api_key_from_env(), &cache)?.with_note(note))
        }
        _ => None,
    };
    let usage = || client.as_ref().map(ChatClient::usage);
    if done == total {
        return Ok(Sampled { outcomes, fresh_tokens: 0, usage: usage() });
    }
    let before = generated_tokens(&outcomes);
    let keep = |batch: Vec<ScoredResponse>| {
        log.append(task, &batch)?;
        outcomes.extend(batch);
        progress(progress_of(&outcomes, total, plan.num_generations));
        Ok(())
    };
    let sample = |responder: &dyn Responder| run(responder, comm, task, (plan, &request.sampling), done, keep);
    match (&request.teacher, &client) {
        (Teacher::Model(dir), _) => {
            let processor = Processor::from_dir(dir)?;
            sample(&LocalModel::new(&loader.frozen(dir)?, &processor))?;
        }
        (Teacher::Endpoint(_), Some(client)) => sample(client)?,
        (Teacher::Endpoint(_), None) => return Err(Error::failed("an endpoint without its client")),
        (Teacher::Scripted, _) => sample(&ScriptedTeacher { seed: request.sampling.seed })?,
    }
    let fresh_tokens = generated_tokens(&outcomes) - before;
    Ok(Sampled { outcomes, fresh_tokens, usage: usage() })
}

/// The responses to keep, prompt after prompt.
fn select(
    task: &DatasetTask,
    outcomes: &[ScoredResponse],
    samples: usize,
    selection: &RolloutSelection,
    special: &[String],
) -> Result<(Vec<KeptResponse>, SelectionCounts)> {
    let (mut kept, mut tally) = (Vec::new(), SelectionCounts::default());
    for (index, group) in outcomes.chunks(samples).enumerate() {
        let record = task.example(index)?;
        let candidates = group.iter().map(|o| Candidate { text: &o.response, finished: o.finished, score: &o.score });
        for (i, response) in selection.choose(&record.answer, special, candidates, &mut tally) {
            if selection.answer == FinalAnswer::Gold && !task.score(index, &response).correct {
                return Err(Error::input(format!(
                    "{}: field `answer`: `{}` in answer tags is not scored as right, so it cannot be paired with sampled reasoning",
                    task.dataset().place(index),
                    record.answer
                )));
            }
            kept.push(KeptResponse { index, sample: group[i].sample, response });
        }
    }
    Ok((kept, tally))
}

impl Teacher {
    /// The directory that must not be written to.
    fn directory(&self) -> Option<&PathBuf> {
        match self {
            Teacher::Model(dir) => Some(dir),
            Teacher::Scripted | Teacher::Endpoint(_) => None,
        }
    }

    fn name(&self) -> String {
        match self {
            Teacher::Model(dir) => std::path::absolute(dir).unwrap_or_else(|_| dir.clone()).display().to_string(),
            Teacher::Scripted => "scripted".into(),
            Teacher::Endpoint(endpoint) => endpoint.name(),
        }
    }

    /// Texts of special tokens: those of the teacher, and those of any Qwen2.5-VL, because such a model may learn from the responses.
    fn special_tokens(&self) -> Result<Vec<String>> {
        let mut tokens = SPECIAL.map(String::from).to_vec();
        if let Teacher::Model(dir) = self {
            let processor = Processor::from_dir(dir)?;
            let own = processor.tokens().special().iter().map(|(_, token)| token);
            tokens.extend(own.filter(|token| !SPECIAL.contains(&token.as_str())).cloned());
        }
        Ok(tokens)
    }

    fn key(
        &self,
        loader: &ModelLoader,
        task: &dyn Task,
        plan: &SamplePlan,
        sampling: &SamplingParams,
    ) -> Result<SamplingKey> {
        match self {
            Teacher::Model(dir) => {
                require_checkpoint(dir)?;
                checkpoint_key(dir, loader.compute(), task, plan, sampling)
            }
            Teacher::Scripted => {
                let sampling = SamplingParams { seed: sampling.seed, ..SamplingParams::greedy(0) };
                SamplingKey::new(&format!("scripted {}", ScriptedTeacher::VERSION), "", task, plan, &sampling)
            }
            Teacher::Endpoint(endpoint) => SamplingKey::new(&endpoint.name(), "", task, plan, sampling),
        }
    }
}

/// Refuse prompts that do not ask for the kind of response that is requested.
fn check_prompts(dataset: &Dataset, request: &RolloutRequest) -> Result<()> {
    let who = match (&request.teacher, request.selection.answer) {
        (Teacher::Scripted, _) => "--teacher scripted reasons before it answers",
        (_, FinalAnswer::Gold) => "--answer gold pairs reasoning with the right answer",
        (Teacher::Model(_) | Teacher::Endpoint(_), FinalAnswer::Sampled) => return Ok(()),
    };
    let examples = request.plan.limit.unwrap_or(usize::MAX).min(dataset.len());
    for i in 0..examples.min(dataset.stream().map_or(usize::MAX, |stream| stream.measured())) {
        let record = dataset.record(i)?;
        if record.meta.get("style").and_then(|style| style.as_str()) != Some("think") {
            return Err(Error::input(format!(
                "{}: record `{}`: field `meta.style` is not \"think\", but {who}; use prompts that ask for reasoning \
                 (`jigsaw gen --style think`)",
                dataset.place(i),
                record.id
            )));
        }
    }
    Ok(())
}

/// The manifest of a finished dataset of this selection; `None` if the dataset is of another selection.
///
/// # Errors
/// An input error if no rollout wrote the dataset.
fn finished(
    (manifest, settings): (Manifest, serde_json::Value),
    selection: &RolloutSelection,
    out: &Path,
) -> Result<Option<Manifest>> {
    let now = serde_json::to_value(selection).map_err(|e| Error::failed(format!("selection: {e}")))?;
    match settings.get("selection") {
        Some(before) if *before == now => Ok(Some(manifest)),
        Some(_) => Ok(None),
        None => Err(Error::input(format!(
            "{} holds a dataset that no rollout made: its manifest has no `settings.rollout.selection`; give another --out",
            out.display()
        ))),
    }
}

fn nothing_kept(tally: &SelectionCounts, selection: &RolloutSelection, out: &Path) -> Error {
    let reasons = [
        (tally.refused, "refused by the server"),
        (tally.truncated, "cut off by the length limit (raise --max-new-tokens)"),
        (tally.empty, "without any text"),
        (
            tally.filtered,
            match selection.keep {
                Keep::Correct => "wrong or not in the form asked for (train the model first, or keep more with --keep)",
                _ => "not in the form asked for",
            },
        ),
        (tally.no_reasoning, "without a readable thought"),
        (tally.special, "with a special token of the tokenizer in the text"),
    ];
    let reasons: Vec<String> = reasons.iter().filter(|(n, _)| *n > 0).map(|(n, why)| format!("{n} {why}")).collect();
    Error::failed(format!(
        "nothing to learn from: none of {} responses to {} prompts is kept: {}. No dataset is written; the samples stay in {}, and \
         the same command with another --keep or --answer selects from them",
        tally.samples,
        tally.prompts,
        reasons.join(", "),
        out.join("samples.jsonl").display()
    ))
}

#[cfg(test)]
mod tests;
