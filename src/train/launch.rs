//! A whole training run from paths: open the run directory, load model and data, train. What `jigsaw train` and the study call.

use super::run::{Identity, Opened, Run};
use super::trainer::{Ended, Job, Progress, train};
use crate::config::Config;
use crate::data::Dataset;
use crate::eval::hash_model;
use crate::model::Processor;
use crate::model::qwen2_5_vl::Model;
use crate::policy::Policy;
use crate::tasks::{DatasetTask, Task};
use crate::{Error, Result};
use candle_core::Device;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

/// Stack of the training thread: autograd graphs are walked and dropped recursively.
const STACK: usize = 256 << 20;

/// What to train, on what, and where to.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The plan.
    pub config: Config,
    /// Model directory to start from.
    pub model: PathBuf,
    /// Dataset directory with a `train` and, if possible, a `validation` split.
    pub data: PathBuf,
    /// Run directory, new or of the same run.
    pub out: PathBuf,
    /// Where to compute.
    pub device: Device,
    /// The command line, for the record.
    pub command: Vec<String>,
}

/// Start the run, or go on with it. `stop`, once set, ends it after the current round with a checkpoint.
///
/// # Errors
/// See [`Run::open`] for a run directory that does not fit, and [`train`].
pub fn launch(launch: &Launch, stop: &AtomicBool, progress: &mut (dyn Progress + Send)) -> Result<Ended> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("train".into()).stack_size(STACK);
        let handle = thread
            .spawn_scoped(scope, || on_this_thread(launch, stop, progress))
            .map_err(|e| Error::failed(format!("cannot start the training thread: {e}")))?;
        handle.join().unwrap_or_else(|_| Err(Error::failed("the training thread panicked; see above")))
    })
}

fn on_this_thread(launch: &Launch, stop: &AtomicBool, progress: &mut dyn Progress) -> Result<Ended> {
    let train_set = Dataset::open(&launch.data, "train")?;
    let has_validation = train_set.root() != launch.data
        && train_set.manifest().splits.get("validation").is_some_and(|split| split.records > 0);
    let data_hash = train_set.manifest().sha256.clone();
    let identity = Identity {
        jigsaw: env!("CARGO_PKG_VERSION").into(),
        command: launch.command.clone(),
        model: launch.model.display().to_string(),
        model_hash: hash_model(&launch.model)?,
        data: launch.data.display().to_string(),
        data_hash,
        examples: train_set.len(),
        seed: launch.config.train.seed,
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
    };
    let train_task = DatasetTask::new(train_set)?;
    let validation = match has_validation {
        true => Some(DatasetTask::new(Dataset::open(&launch.data, "validation")?)?),
        false => None,
    };
    let processor = Processor::from_dir(&launch.model)?;
    let (run, checkpoint) = match Run::open(&launch.out, &launch.config, &identity)? {
        Opened::Finished(finished) => return Ok(Ended::Already(finished)),
        Opened::Fresh(run) => (run, None),
        Opened::Resumed(run, checkpoint) => (run, Some(checkpoint)),
    };
    if let Some(checkpoint) = &checkpoint {
        progress.note(&format!("going on after step {} ({})", checkpoint.state.step, checkpoint.dir.display()));
    }
    if validation.is_none() && launch.config.eval.every > 0 {
        progress.note("the dataset has no validation split: there will be no evaluation during training");
    }
    let weights = checkpoint.as_ref().map_or(launch.model.as_path(), |c| c.dir.as_path());
    let policy = Model::load(weights, &launch.device)?;
    let reference = match launch.config.grpo.as_ref().is_some_and(|g| g.beta != 0.0) {
        true => {
            let reference = Model::load(&launch.model, &launch.device)?;
            reference.parameters().iter().for_each(|p| p.set_trainable(false));
            Some(reference)
        }
        false => None,
    };
    let job = Job {
        config: &launch.config,
        policy: &policy,
        reference: reference.as_ref().map(|r| r as &dyn Policy),
        base: &launch.model,
        codec: &processor,
        train: &train_task,
        validation: validation.as_ref().map(|v| v as &dyn Task),
        stop,
    };
    train(&job, &run, checkpoint.as_ref(), progress)
}
