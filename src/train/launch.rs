//! A whole training run from paths: open the run directory, load model and data, train. What `jigsaw train` and the study call.

use super::run_dir::{ResumeState, RunDir, RunManifest};
use super::trainer::{TrainJob, TrainOutcome, TrainerCallback, train};
use crate::data::Dataset;
use crate::model::LanguageModel;
use crate::model::lora::{self, Adapter, LoraSettings};
use crate::model::weights::Storage;
use crate::model::{Compute, Model, ModelLoader, Processor, require_checkpoint};
use crate::model::{hash_model, hash_prompt_files, missing_files};
use crate::tasks::{Concat, DatasetTask, Task};
use crate::train::settings::{Method, TrainConfig};
use crate::{Error, Result, hub};
use candle_core::Device;
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

/// Stack of the training thread: autograd graphs are walked and dropped recursively.
const STACK: usize = 256 << 20;

/// What to train, on what, and where to.
#[derive(Debug, Clone)]
pub struct TrainRequest {
    /// The plan.
    pub config: TrainConfig,
    /// Model directory to start from.
    pub model: PathBuf,
    /// Dataset directory with a `train` and, if possible, a `validation` split; or a file of another tool (see [`Dataset::open`]).
    pub data: PathBuf,
    /// RunDir directory, new or of the same run.
    pub out: PathBuf,
    /// Where to compute.
    pub device: Device,
    /// The command line, for the record.
    pub command: Vec<String>,
}

/// Start the run, or go on with it. `stop`, once set, ends it after the current round with a checkpoint.
///
/// # Errors
/// See [`RunDir::open`] for a run directory that does not fit, and [`train`].
pub fn launch(
    launch: &TrainRequest,
    stop: &AtomicBool,
    progress: &mut (dyn TrainerCallback + Send),
) -> Result<TrainOutcome> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("train".into()).stack_size(STACK);
        let handle = thread
            .spawn_scoped(scope, || on_this_thread(launch, stop, progress))
            .map_err(|e| Error::failed(format!("cannot start the training thread: {e}")))?;
        handle.join().unwrap_or_else(|_| Err(Error::failed("the training thread panicked; see above")))
    })
}

fn on_this_thread(
    launch: &TrainRequest,
    stop: &AtomicBool,
    progress: &mut dyn TrainerCallback,
) -> Result<TrainOutcome> {
    // What is quick to read comes first: a mistake is told before gigabytes of weights are read.
    let replay = launch.config.sft.as_ref().map(|sft| sft.replay.as_str()).filter(|replay| !replay.is_empty());
    let open = || Data::open(&launch.data, replay.map(Path::new));
    let (data, processor) = both(open, || Processor::from_dir(&launch.model));
    let data = data?;
    require_checkpoint(&launch.model)?;
    check_start(launch)?;
    let processor = processor?;
    data.check_texts(&processor, &launch.config)?;
    // What stays in f32 on a GPU beside products in bf16, as attention does, may be rounded to TF32 there, which is finer.
    candle_core::cuda::set_gemm_reduced_precision_f32(launch.config.train.dtype == Compute::Bf16);
    // A run that begins needs these weights; one that goes on, those of its checkpoint.
    let begins = !launch.out.join("run.json").exists();
    // The reference model shares the frozen weights of the model that trains.
    let loader = ModelLoader::new(&launch.device, launch.config.train.dtype);
    let load = || begins.then(|| start(launch, &loader)).transpose();
    let (model_hash, loaded) = both(|| hash_model(&launch.model), load);
    let identity = RunManifest {
        jigsaw: env!("CARGO_PKG_VERSION").into(),
        command: launch.command.clone(),
        model: launch.model.display().to_string(),
        model_hash: model_hash?,
        prompt_hash: Some(hash_prompt_files(&launch.model)?),
        data: launch.data.display().to_string(),
        data_hash: data.hash,
        examples: data.train.len(),
        seed: launch.config.train.seed,
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
    };
    let (run, checkpoint) = match RunDir::open(&launch.out, &launch.config, &identity)? {
        ResumeState::Finished(finished) => return Ok(TrainOutcome::AlreadyFinished(finished)),
        ResumeState::Fresh(run) => (run, None),
        ResumeState::Resumed(run, checkpoint) => (run, Some(checkpoint)),
    };
    for dir in run.damaged() {
        progress.note(&format!("{} is incomplete or damaged, and passed over", dir.display()));
    }
    if let Some(checkpoint) = &checkpoint {
        progress.note(&format!("going on after step {} ({})", checkpoint.state.step, checkpoint.dir.display()));
    }
    if let Some(note) = data.train.dataset().note() {
        progress.note(note);
    }
    if data.validation.is_none() && launch.config.eval.every > 0 {
        progress.note("the dataset has no validation split: there will be no evaluation during training");
    }
    let policy = match (&checkpoint, loaded?) {
        (None, Some(policy)) => policy,
        (Some(checkpoint), _) => loader.trainable(&checkpoint.dir, &launch.config.train.freeze)?,
        (None, None) => start(launch, &loader)?,
    };
    let policy = policy.with_gradient_checkpointing(launch.config.train.gradient_checkpointing);
    if launch.config.train.method == Method::Rft && policy.dropout() > 0.0 {
        progress.note(&format!(
            "the adapter's lora_dropout, {}, is not used: with train.method = \"rft\" it would change the log-probabilities that the policy \
             ratio compares",
            policy.dropout()
        ));
    }
    let penalised = launch.config.grpo.as_ref().is_some_and(|g| g.beta != 0.0);
    let near = launch.config.sft.as_ref().is_some_and(|sft| sft.kl_coef > 0.0);
    let reference = match penalised || near {
        // The base with the fresh adapter off is the model that the run began with: no second copy.
        true if launch.config.lora.is_some() => Some(policy.without_adapter()?),
        true => Some(loader.frozen(&launch.model)?),
        false => None,
    };
    let replayed = data.replay.as_ref().map(|replay| Concat { first: &data.train, second: replay });
    let job = TrainJob {
        config: &launch.config,
        policy: &policy,
        reference: reference.as_ref().map(|r| r as &dyn LanguageModel),
        base: &launch.model,
        codec: &processor,
        train: replayed.as_ref().map_or(&data.train as &dyn Task, |joined| joined),
        replayed: data.replay.as_ref().map_or(0, |replay| replay.len()),
        validation: data.validation.as_ref().map(|v| v as &dyn Task),
        stop,
    };
    train(&job, &run, checkpoint.as_ref(), progress)
}

/// The model as a run begins with it: that of the directory, with a fresh adapter if the plan asks for one.
fn start(launch: &TrainRequest, loader: &ModelLoader) -> Result<Model> {
    let Some(settings) = &launch.config.lora else {
        return loader.trainable(&launch.model, &launch.config.train.freeze);
    };
    let base = loader.frozen(&launch.model)?;
    adapted(base, settings, launch)
}

pub(super) fn adapted(base: Model, settings: &LoraSettings, launch: &TrainRequest) -> Result<Model> {
    // A name on the Hub finds the base on other machines, too.
    let named =
        hub::HubConfig::from_env().ok().and_then(|config| hub::repo_id_of(&launch.model, &config, &missing_files));
    let (place, revision) = match named {
        Some(name) => (name.id, Some(name.revision)),
        None => (launch.model.canonicalize().unwrap_or_else(|_| launch.model.clone()).display().to_string(), None),
    };
    let (named, seed) = ((place.as_str(), revision.as_deref()), launch.config.train.seed);
    let adapter = Adapter::fresh(settings, base.architecture(), named, seed, base.device())?;
    base.with_adapter(adapter)
}

/// # Errors
/// An adapter is to be trained from an adapter, or frozen weights are to be held in f32 and multiplied in bf16.
pub(super) fn check_start(launch: &TrainRequest) -> Result<()> {
    Storage::check_compute(launch.config.train.dtype)?;
    if launch.config.lora.is_some() && lora::is_adapter(&launch.model) {
        return Err(Error::input(format!(
            "{} is an adapter, which goes on training as it is: leave [lora] out, or merge it into its base first (jigsaw model merge-lora)",
            launch.model.display()
        )));
    }
    Ok(())
}

/// The splits of the dataset that a run uses.
pub(super) struct Data {
    /// Of the dataset, and of the one replayed.
    hash: String,
    pub(super) train: DatasetTask,
    pub(super) replay: Option<DatasetTask>,
    pub(super) validation: Option<DatasetTask>,
}

impl Data {
    pub(super) fn open(dir: &Path, replay: Option<&Path>) -> Result<Data> {
        let replay = replay.map(|dir| Dataset::open(dir, "train").map_err(|e| e.context("sft.replay"))).transpose()?;
        let also = replay.as_ref().map(|replay| format!("+{}", replay.manifest().sha256));
        let train = Dataset::open(dir, "train")?;
        let has_validation =
            train.root() != dir && train.manifest().splits.get("validation").is_some_and(|split| split.records > 0);
        Ok(Data {
            hash: train.manifest().sha256.clone() + also.as_deref().unwrap_or_default(),
            train: DatasetTask::new(train)?,
            replay: replay.map(DatasetTask::new).transpose()?,
            validation: match has_validation {
                true => Some(DatasetTask::new(Dataset::open(dir, "validation")?)?),
                false => None,
            },
        })
    }
}

impl Data {
    /// See that every example that is to be learnt from has a response, and that no text of the examples that the run takes up holds a special
    /// token. By their responses the gradients of any method are looked at, whether it learns them or not.
    ///
    /// # Errors
    /// An input error that names file, line, id and message of the first one.
    pub(super) fn check_texts(&self, processor: &Processor, config: &TrainConfig) -> Result<()> {
        let eval = &config.eval;
        let validated = match (eval.every, eval.limit) {
            (0, _) => 0,
            (_, 0) => usize::MAX,
            (_, samples) => samples,
        };
        // A run that samples its own responses learns from those.
        let own = config.rollout.is_none();
        let check = |task: &DatasetTask, most: usize, (responses, learnt): (bool, bool)| {
            let dataset = task.dataset();
            let wrong = dataset.records().par_iter().take(most).enumerate().find_map_first(|(i, record)| {
                let response = record.response().filter(|_| responses);
                let refused = match response {
                    None if learnt => Error::input("no assistant turn, and so no response to learn from"),
                    _ => processor.refuse_special(record.prompt(), response).err()?,
                };
                Some(refused.context(format!("{}: example {}", dataset.place(i), record.id)))
            });
            wrong.map_or(Ok(()), Err)
        };
        check(&self.train, usize::MAX, (true, own))?;
        self.replay.as_ref().map_or(Ok(()), |replay| check(replay, usize::MAX, (true, true)))?;
        self.validation.as_ref().map_or(Ok(()), |validation| check(validation, validated, (false, false)))
    }
}

/// Do two things at the same time.
fn both<A: Send, B>(
    other: impl FnOnce() -> Result<A> + Send,
    here: impl FnOnce() -> Result<B>,
) -> (Result<A>, Result<B>) {
    std::thread::scope(|scope| {
        let handle = scope.spawn(other);
        let here = here();
        (handle.join().unwrap_or_else(|_| Err(Error::failed("a thread panicked; see above"))), here)
    })
}
