//! A whole training run from paths: open the run directory, load model and data, train. What `jigsaw train` and the study call.

use super::callback::{Silent, TrainerCallback};
use super::job::TrainJob;
use super::objective;
use super::prior_evaluation;
use super::run_dir::{ResumeState, RunDir, RunManifest};
use super::trainer::{TrainOutcome, train};
use crate::comm::Communicator;
use crate::data::{Dataset, MixPart, Record, mix, parse_part};
use crate::io::toml::to_table;
use crate::model::LanguageModel;
use crate::model::lora::{self, Adapter};
use crate::model::weights::check_frozen_variable;
use crate::model::{ComputeDtype, Model, ModelLoader, Processor, require_checkpoint};
use crate::model::{hash_model, hash_prompt_files, missing_files};
use crate::sampling::hash_examples;
use crate::tasks::{DatasetTask, Task, open_dataset};
use crate::train::settings::{CommDtype, Method, TrainConfig};
use crate::{Error, Result, hub, nn, rng};
use candle_core::Device;
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

/// Stack of the training thread: autograd graphs are walked and dropped recursively.
const STACK: usize = 256 << 20;

/// A training run as it is asked for: what to train, on what, and where to.
#[derive(Debug, Clone)]
pub struct TrainRequest {
    /// The settings.
    pub config: TrainConfig,
    /// Model directory to start from.
    pub model: PathBuf,
    /// Dataset directory with a `train` and, if possible, a `validation` split; or a file of another tool (see [`Dataset::open`]).
    pub data: PathBuf,
    /// Run directory, new or of the same run.
    pub out: PathBuf,
    /// The run in it is to go on with more steps or other criteria than it began with (see [`RunDir::lengthen`]).
    pub lengthen: bool,
    /// Where to compute.
    pub device: Device,
    /// The command line, for the record.
    pub command: Vec<String>,
}

/// Start or resume the run. `stop`, once set, ends it after the current round with a checkpoint. Every rank calls it; a rank that gets an error
/// must end the others ([`Communicator::abort`]).
///
/// # Errors
/// See [`RunDir::open`] for a run directory that does not fit, and [`train`]. An input error if ranks differ in settings, data or weights.
pub fn launch(
    request: &TrainRequest,
    comm: &dyn Communicator,
    stop: &AtomicBool,
    callback: &mut (dyn TrainerCallback + Send),
) -> Result<TrainOutcome> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("train".into()).stack_size(STACK);
        let handle = thread
            .spawn_scoped(scope, || on_this_thread(request, comm, stop, callback))
            .map_err(|e| Error::failed(format!("cannot start the training thread: {e}")))?;
        handle.join().unwrap_or_else(|_| Err(Error::failed("the training thread panicked; see above")))
    })
}

fn on_this_thread(
    request: &TrainRequest,
    comm: &dyn Communicator,
    stop: &AtomicBool,
    callback: &mut dyn TrainerCallback,
) -> Result<TrainOutcome> {
    let mut silent = Silent;
    let callback = if comm.is_root() { callback } else { &mut silent };
    // What is quick to read comes first, so that a mistake is reported before gigabytes of weights are read.
    let (data, processor) = open(request)?;
    comm.round_gradients(request.config.train.comm_dtype == CommDtype::Bf16);
    if comm.world_size() > 1 {
        comm.check_same(&same_job(request, &data)?)?;
    }
    // What stays in f32 on a GPU beside products in bf16, as attention does, may be rounded to TF32 there, which is finer.
    candle_core::cuda::set_gemm_reduced_precision_f32(request.config.train.dtype == ComputeDtype::Bf16);
    // A new run needs these weights; a resumed one, those of its checkpoint.
    let begins = !request.out.join("run.json").exists();
    // The reference model shares the frozen weights of the model that trains.
    let loader = ModelLoader::new(&request.device, request.config.train.dtype);
    let load = || begins.then(|| start(request, &loader)).transpose();
    let (model_hash, loaded) =
        concurrently(|| if comm.is_root() { hash_model(&request.model) } else { Ok(String::new()) }, load);
    let identity = RunManifest {
        jigsaw: env!("CARGO_PKG_VERSION").into(),
        command: request.command.clone(),
        model: request.model.display().to_string(),
        model_hash: model_hash?,
        prompt_hash: Some(hash_prompt_files(&request.model)?),
        data: request.data.display().to_string(),
        data_hash: data.hash.clone(),
        examples: data.train.len(),
        seed: request.config.train.seed,
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        lengthened: Vec::new(),
    };
    if request.lengthen
        && let Some(note) = comm.on_root(|| RunDir::lengthen(&request.out, &request.config, &identity))?
    {
        callback.note(&note);
    }
    let (run, checkpoint) = match RunDir::open(&request.out, &request.config, &identity, comm)? {
        ResumeState::Finished(finished) => return Ok(TrainOutcome::AlreadyFinished(finished)),
        ResumeState::Fresh(run) => (run, None),
        ResumeState::Resumed(run, checkpoint) => (run, Some(checkpoint)),
    };
    for dir in run.damaged() {
        callback.note(&format!("skipping {}: it is incomplete or damaged", dir.display()));
    }
    if let Some(checkpoint) = &checkpoint {
        callback.note(&format!("resuming after step {} ({})", checkpoint.state.step, checkpoint.dir.display()));
    }
    if let Some(note) = data.train.dataset().note() {
        callback.note(&note);
    }
    if request.config.train.dtype == ComputeDtype::Bf16 && request.device.is_cpu() {
        callback.note(&ComputeDtype::bf16_on_cpu("train.dtype = \"bf16\""));
    }
    if data.validation.is_none() && request.config.eval.steps > 0 {
        callback.note("the dataset has no validation split: there will be no evaluation during training");
    }
    let model = match (&checkpoint, loaded?) {
        (None, Some(model)) => model,
        (Some(checkpoint), _) => loader.trainable(&checkpoint.dir, &request.config.train.freeze)?,
        (None, None) => start(request, &loader)?,
    };
    if comm.world_size() > 1 {
        comm.check_same(&serde_json::json!({ "weights at the start": weights_hash(&model)? }))?;
    }
    let settings = &request.config.train;
    let model = model
        .with_gradient_checkpointing(settings.gradient_checkpointing)
        .with_gradient_buffers(settings.gradient_buffers);
    if request.config.train.method == Method::Rft && model.dropout() > 0.0 {
        callback.note(&format!(
            "the adapter's lora_dropout, {}, is not used: with train.method = \"rft\" it would change the log-probabilities that the policy \
             ratio compares",
            model.dropout()
        ));
    }
    let reference = match objective::needs_reference(&request.config) {
        // The base without the fresh adapter is the model that the run started from: no second copy.
        true if request.config.lora.is_some() => Some(model.without_adapter()?),
        true => Some(loader.frozen(&request.model)?),
        false => None,
    };
    let reference = reference.as_ref().map(|r| r as &dyn LanguageModel);
    let job = data.job(&request.config, (&model, reference), &request.model, &processor, stop, comm);
    train(&job, &run, checkpoint.as_ref(), callback)
}

/// What is quick to read, checked.
pub(super) fn open(request: &TrainRequest) -> Result<(RunData, Processor)> {
    let processor = Processor::from_dir(&request.model);
    // Errors of the data come before those of the model.
    let mut data = RunData::open(request, processor.as_ref().ok())?;
    require_checkpoint(&request.model)?;
    check_start(request)?;
    let processor = processor?;
    data.open_prior(&processor, &request.config)?;
    data.check_texts(&processor, &request.config)?;
    Ok((data, processor))
}

/// What ranks must have alike before they begin, by name.
fn same_job(request: &TrainRequest, data: &RunData) -> Result<serde_json::Value> {
    Ok(serde_json::json!({
        "settings": to_table(&request.config)?,
        "on a CPU": request.device.is_cpu(),
        "data": data.hash,
        "examples": data.train.len(),
        "tokenizer and templates": hash_prompt_files(&request.model)?,
    }))
}

/// A checksum of all weights of a model, with their names.
fn weights_hash(model: &Model) -> Result<u32> {
    let mut hash = crc32fast::Hasher::new();
    for parameter in model.parameters() {
        hash.update(parameter.name.as_bytes());
        for values in nn::numbers(parameter.var.as_tensor())?.chunks(1 << 14) {
            hash.update(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
        }
    }
    Ok(hash.finalize())
}

/// The model that a new run starts with: that of the directory, with a fresh adapter if `[lora]` asks for one.
fn start(request: &TrainRequest, loader: &ModelLoader) -> Result<Model> {
    let Some(settings) = &request.config.lora else {
        return loader.trainable(&request.model, &request.config.train.freeze);
    };
    let base = loader.frozen(&request.model)?;
    // A name on the Hub finds the base on other machines, too.
    let named =
        hub::HubConfig::from_env().ok().and_then(|config| hub::repo_id_of(&request.model, &config, &missing_files));
    let (place, revision) = match named {
        Some(name) => (name.id, Some(name.revision)),
        None => (request.model.canonicalize().unwrap_or_else(|_| request.model.clone()).display().to_string(), None),
    };
    let (named, seed) = ((place.as_str(), revision.as_deref()), request.config.train.seed);
    let adapter = Adapter::fresh(settings, base.architecture(), named, seed, base.device())?;
    base.with_adapter(adapter)
}

/// # Errors
/// An adapter is to be trained from an adapter or with L2-SP, or frozen weights are to be held in f32 and multiplied in bf16.
fn check_start(request: &TrainRequest) -> Result<()> {
    check_frozen_variable(request.config.train.dtype)?;
    if request.config.lora.is_some() && lora::is_adapter(&request.model) {
        return Err(Error::input(format!(
            "{} is an adapter and is trained as it is: leave [lora] out, or merge it into its base first (jigsaw model merge-lora)",
            request.model.display()
        )));
    }
    if request.config.train.l2_sp > 0.0 && lora::is_adapter(&request.model) {
        return Err(Error::input(format!(
            "train.l2_sp has no meaning for {}: it is an adapter; leave it out, or merge the adapter first (jigsaw model merge-lora)",
            request.model.display()
        )));
    }
    Ok(())
}

/// The data that a run uses.
pub(super) struct RunData {
    /// Of the dataset, and of those that are replayed and that the KL penalty has.
    hash: String,
    pub(super) train: DatasetTask,
    replay: Option<DatasetTask>,
    prior: Option<DatasetTask>,
    validation: Option<DatasetTask>,
    prior_eval: Option<Box<dyn Task>>,
}

impl RunData {
    /// Each record is looked at once, also for what [`RunData::check_texts`] refuses.
    fn open(request: &TrainRequest, processor: Option<&Processor>) -> Result<RunData> {
        let dir = &request.data;
        let replay = request.config.sft.as_ref().map(|sft| sft.replay.as_str()).filter(|replay| !replay.is_empty());
        let open_as = |dir: &Path, needed: Responses| match processor {
            Some(processor) => open_dataset(dir, "train", Some(&|record| refusal(processor, record, needed).is_some())),
            None => open_dataset(dir, "train", None),
        };
        let open = |dir: &str, key: &str| open_as(Path::new(dir), Responses::Trained).map_err(|e| e.context(key));
        let trained_on = Responses::of_training(&request.config);
        let replay = replay.map(|dir| open(dir, "sft.replay")).transpose()?;
        let prior = request.config.prior_kl.as_ref();
        let prior = prior.map(|prior| open(&prior.data, "prior_kl.data")).transpose()?;
        if prior.as_ref().is_some_and(|prior| prior.is_empty()) {
            return Err(Error::input("prior_kl.data: the dataset has no training examples"));
        }
        let hashes = [&replay, &prior].into_iter().flatten();
        let mut also: String = hashes.map(|more| format!("+{}", more.manifest().sha256)).collect();
        let mut train = open_as(dir, trained_on)?;
        let prompts_of = &request.config.train.prompts_of;
        if !prompts_of.is_empty() {
            if train.stream().is_some() {
                return Err(Error::input(format!(
                    "train.prompts_of: the training puzzles of {} are made as they are needed; it needs stored ones (gen without --stream)",
                    dir.display()
                )));
            }
            let rollouts = open(prompts_of, "train.prompts_of")?;
            keep_prompts_of(&mut train, &rollouts).map_err(|e| e.context("train.prompts_of"))?;
            also += &format!("+prompts of {}", rollouts.manifest().sha256);
        }
        let mut others = Vec::new();
        for text in &request.config.train.mix {
            let key = |e: Error| e.context("train.mix");
            let (dir, weight) = parse_part(text).map_err(key)?;
            let more = open_as(dir, trained_on).map_err(key)?;
            also += &format!("+{weight} of {}", more.manifest().sha256);
            others.push((dir, weight, more));
        }
        // The manifest of another tool's file knows no split but its own.
        let has_validation = |dataset: &Dataset, dir: &Path| {
            let split = dataset.manifest().splits.get("validation");
            dataset.root() != dir && split.is_some_and(|split| split.records > 0)
        };
        let mut validated = match has_validation(&train, dir) {
            true => vec![part(dir, 1.0, open_dataset(dir, "validation", None)?)],
            false => Vec::new(),
        };
        if !others.is_empty() {
            let mut parts = vec![part(dir, 1.0, train)];
            for (dir, weight, more) in others {
                if has_validation(&more, dir) {
                    validated.push(part(dir, weight, open_dataset(dir, "validation", None)?));
                }
                parts.push(part(dir, weight, more));
            }
            train = mix(parts, true).map_err(|e| e.context("train.mix"))?;
        }
        let validation = match validated.len() {
            0 | 1 => validated.pop().map(|part| part.dataset),
            _ => Some(mix(validated, false).map_err(|e| e.context("train.mix"))?),
        };
        let most = request.config.train.max_examples;
        if most > 0 && train.stream().is_some() {
            return Err(Error::input(format!(
                "train.max_examples: the training puzzles of {} are made as they are needed; it needs stored ones (gen without --stream)",
                dir.display()
            )));
        }
        if most > train.len() {
            return Err(Error::input(format!(
                "train.max_examples = {most}: there are {} training examples in {}; give at most as many, or 0 for all",
                train.len(),
                dir.display()
            )));
        }
        if most > 0 {
            train = train.sampled(most, &mut rng::stream(request.config.train.seed, "training examples", &[]));
        }
        request.config.check_size(train.len())?;
        Ok(RunData {
            hash: train.manifest().sha256.clone() + &also,
            train: DatasetTask::new(train)?,
            replay: replay.map(DatasetTask::new).transpose()?,
            prior: prior.map(DatasetTask::new).transpose()?,
            validation: validation.map(DatasetTask::new).transpose()?,
            prior_eval: None,
        })
    }

    /// Open `eval.prior`, if it is given and evaluations are made.
    fn open_prior(&mut self, processor: &Processor, config: &TrainConfig) -> Result<()> {
        let path = config.eval.prior.as_str();
        if path.is_empty() || config.eval.steps == 0 {
            return Ok(());
        }
        let task = prior_evaluation::open(Path::new(path), processor).map_err(|e| e.context("eval.prior"))?;
        let (shown, scored) = hash_examples(task.as_ref(), task.len())?;
        self.hash += &format!("+prior {shown} {scored}");
        self.prior_eval = Some(task);
        Ok(())
    }

    /// The job of training a model on this data, with the reference model that its objective may need.
    pub(super) fn job<'a>(
        &'a self,
        config: &'a TrainConfig,
        (model, reference): (&'a dyn LanguageModel, Option<&'a dyn LanguageModel>),
        base: &'a Path,
        encoder: &'a Processor,
        stop: &'a AtomicBool,
        comm: &'a dyn Communicator,
    ) -> TrainJob<'a> {
        let task = |task: &'a DatasetTask| task as &dyn Task;
        let [replay, prior, validation] =
            [&self.replay, &self.prior, &self.validation].map(|data| data.as_ref().map(task));
        let (train, prior_eval) = (&self.train, self.prior_eval.as_deref());
        TrainJob { config, model, reference, base, encoder, train, replay, prior, validation, prior_eval, stop, comm }
    }

    /// Check that every example whose reference response is trained on has one, and that no text of the examples that the run uses holds a
    /// special token. Reference responses are checked for every method: the gradient check uses them.
    ///
    /// # Errors
    /// An input error that names file, line, id and message of the first one.
    fn check_texts(&self, processor: &Processor, config: &TrainConfig) -> Result<()> {
        let eval = &config.eval;
        let validated = match (eval.steps, eval.limit) {
            (0, _) => 0,
            (_, 0) => usize::MAX,
            (_, samples) => samples,
        };
        let check = |task: &DatasetTask, most: usize, needed: Responses| {
            let dataset = task.dataset();
            let doubtful = |i: &usize| dataset.seen(*i).is_none_or(|seen| seen.refused);
            let wrong = (0..task.measured().min(most)).into_par_iter().filter(doubtful).find_map_first(|i| {
                let record = match dataset.record(i) {
                    Ok(record) => record,
                    Err(error) => return Some(error),
                };
                let refused = refusal(processor, &record, needed)?;
                Some(refused.context(format!("{}: example {}", dataset.place(i), record.id)))
            });
            wrong.map_or(Ok(()), Err)
        };
        check(&self.train, usize::MAX, Responses::of_training(config))?;
        for more in [&self.replay, &self.prior].into_iter().flatten() {
            check(more, usize::MAX, Responses::Trained)?;
        }
        self.validation.as_ref().map_or(Ok(()), |validation| check(validation, validated, Responses::Unused))
    }
}

/// What becomes of the reference responses of a dataset.
#[derive(Clone, Copy, PartialEq)]
enum Responses {
    /// They are trained on, or a teacher sees them: each example must have one.
    Trained,
    /// Those that there are may be looked at.
    Optional,
    /// Nothing.
    Unused,
}

impl Responses {
    /// Of the training examples. A run that samples its own responses trains on those; a teacher may have to see the others.
    fn of_training(config: &TrainConfig) -> Responses {
        match config.rollout.is_none() || objective::of_config(config).needs().reference_sees_response {
            true => Responses::Trained,
            false => Responses::Optional,
        }
    }
}

/// Why a run refuses an example, if it does.
fn refusal(processor: &Processor, record: &Record, needed: Responses) -> Option<Error> {
    let response = record.response().filter(|_| needed != Responses::Unused);
    match response {
        None if needed == Responses::Trained => {
            Some(Error::input("no assistant turn, and so no response to learn from"))
        }
        _ => processor.refuse_special(record.prompt(), response).err(),
    }
}

/// Keep the examples of `train` of which `rollouts` holds a response: the same puzzles, whatever the words in which they are asked.
///
/// # Errors
/// An input error if a response of `rollouts` is to a prompt that `train` does not have, or that is another puzzle there.
fn keep_prompts_of(train: &mut Dataset, rollouts: &Dataset) -> Result<()> {
    let number = |(i, record): (usize, Result<Record>)| record.map(|record| (record.id, i));
    let numbers: HashMap<String, usize> = train.records().enumerate().map(number).collect::<Result<_>>()?;
    let mut wanted: HashSet<usize> = HashSet::new();
    for (i, record) in rollouts.records().enumerate() {
        let record = record?;
        let refused = |why: String| Error::input(format!("{}: {why}", rollouts.place(i)));
        let prompt = record.meta.get("rollout").and_then(|rollout| rollout.get("prompt")?.as_str());
        let prompt = prompt.ok_or_else(|| refused("no `meta.rollout.prompt`: no rollout made it".into()))?;
        let number = *numbers.get(prompt).ok_or_else(|| refused(format!("the data has no example `{prompt}`")))?;
        let puzzle = train.record(number)?;
        if (&puzzle.answer, &puzzle.source, puzzle.seed) != (&record.answer, &record.source, record.seed) {
            return Err(refused(format!("the example `{prompt}` of the data is another puzzle")));
        }
        wanted.insert(number);
    }
    train.retain(|i| wanted.contains(&i));
    Ok(())
}

/// A part of the training data, called by the last name of its path.
fn part(dir: &Path, weight: f64, dataset: Dataset) -> MixPart {
    let name = dir.file_stem().map_or("data".into(), |name| name.to_string_lossy().into_owned());
    MixPart { name, dataset, weight }
}

/// Run `other` in a thread of its own while `here` runs in this one.
fn concurrently<A: Send, B>(
    other: impl FnOnce() -> Result<A> + Send,
    here: impl FnOnce() -> Result<B>,
) -> (Result<A>, Result<B>) {
    std::thread::scope(|scope| {
        let handle = scope.spawn(other);
        let here = here();
        (handle.join().unwrap_or_else(|_| Err(Error::failed("a thread panicked; see above"))), here)
    })
}
