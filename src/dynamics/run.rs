//! The whole measurement, from a request to written results: the request is checked before any weights are loaded.

use super::influence::InfluenceConfig;
use super::kl_regression::{KlAndForgetting, kl_and_forgetting};
use super::measurement::{DynamicsObserver, PreparedMeasurement, name_freeze_flag};
use super::output_dir::{DynamicsDir, MeasurementKey, SampleSetKey};
use super::pairing::choose;
use super::result::DynamicsResult;
use super::samples::{BATCH, SampleRole, SampleSet};
use super::write::write;
use crate::comm::Communicator;
use crate::eval::bench::{self, BenchmarkSettings, BenchmarkSpec};
use crate::forgetting::{FORGETTING_JSON, ForgettingResult, ModelRef};
use crate::io::files;
use crate::model::{ComputeDtype, ModelLoader, SamplingParams, read_architecture, require_checkpoint};
use crate::model::{hash_model, hash_prompt_files};
use crate::sampling::{SamplePlan, sampling_flags};
use crate::train::check_parts;
use crate::{Error, Result};
use candle_core::Device;
use serde_json::json;
use std::path::{Path, PathBuf};

/// What to measure.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DynamicsRequest {
    /// Checkpoints, in the order of training.
    pub models: Vec<PathBuf>,
    /// The base model.
    pub base: PathBuf,
    /// Training data of the regimes: dataset directories.
    pub train: Vec<BenchmarkSpec>,
    /// Prior knowledge: benchmark files or dataset directories.
    pub prior: Vec<BenchmarkSpec>,
    /// Step, loss, pairs, seed, frozen parts.
    pub config: InfluenceConfig,
    /// Token limit of the base's greedy answers, in place of each benchmark's own.
    pub max_new_tokens: Option<usize>,
    /// Directories (or files) of comparisons with the base.
    pub forgetting: Vec<PathBuf>,
    /// Output directory.
    pub out: PathBuf,
    /// Remove the results of an earlier measurement first.
    pub fresh: bool,
}

/// Measure what is missing, summarize, and write the result. Every rank calls it; one that gets an error must end the others
/// ([`Communicator::abort`]).
///
/// # Errors
/// Input errors before any weights are loaded: a name given twice, data that cannot be read, training samples without a
/// response, models that do not read prompts alike, comparisons of different bases or benchmarks, an output directory with other files, ranks
/// that differ.
pub fn run(
    request: &DynamicsRequest,
    device: &Device,
    comm: &dyn Communicator,
    progress: &mut dyn DynamicsObserver,
) -> Result<DynamicsResult> {
    let kl = request.kl()?;
    let work = request.prepare(device, comm)?;
    // Checkpoints with the same base share its weights.
    let loader = ModelLoader::new(device, ComputeDtype::F32);
    let samples = work.score_samples(&loader, progress)?;
    let (pairs, own) = work.measure(&loader, &samples, progress)?;
    let found = work.summarize(&samples, &pairs, &own, kl);
    comm.on_root(|| write(&request.out, &found))?;
    Ok(found)
}

impl DynamicsRequest {
    /// Refuse numbers that are out of range, and an output directory inside a model's.
    ///
    /// # Errors
    /// Input errors that name the flag.
    pub fn check(&self) -> Result<()> {
        let InfluenceConfig { eta, pairs, learning_rate, .. } = self.config;
        if pairs == 0 {
            return Err(Error::input("--pairs 0: must be at least 1"));
        }
        if let Some(eta) = eta.filter(|eta| !(*eta > 0.0 && eta.is_finite())) {
            return Err(Error::input(format!("--eta {eta}: must be a number above 0; leave it out to have it chosen")));
        }
        if !(learning_rate > 0.0 && learning_rate < 1.0) {
            return Err(Error::input(format!("--learning-rate {learning_rate}: must be above 0 and below 1")));
        }
        if let Some(name) =
            self.config.on_policy.as_ref().filter(|name| self.train.iter().all(|set| set.name != **name))
        {
            let names: Vec<&str> = self.train.iter().map(|set| set.name.as_str()).collect();
            return Err(Error::input(format!(
                "--on-policy {name}: no set of --train is called so; there are {}",
                names.join(", ")
            )));
        }
        self.max_new_tokens.map_or(Ok(()), sampling_flags::check_new_tokens)?;
        for (flag, inputs) in [("--model", &self.models[..]), ("--base", std::slice::from_ref(&self.base))] {
            if inputs.iter().any(|input| files::is_inside(&self.out, input)) {
                return Err(Error::input(format!(
                    "--out {} lies in the directory of {flag}; choose another directory",
                    self.out.display()
                )));
            }
        }
        Ok(())
    }

    /// KL and forgetting over the given comparisons.
    fn kl(&self) -> Result<Option<KlAndForgetting>> {
        let read = |path: &PathBuf| -> Result<(String, ForgettingResult)> {
            let file = if path.is_dir() { path.join(FORGETTING_JSON) } else { path.clone() };
            Ok((path.display().to_string(), ForgettingResult::read(&file).map_err(|e| e.context("--forgetting"))?))
        };
        let found = self.forgetting.iter().map(read).collect::<Result<Vec<_>>>()?;
        if found.is_empty() { Ok(None) } else { kl_and_forgetting(&found).map(Some) }
    }

    /// Check names, files and models, before any weights are loaded.
    fn prepare<'a>(&'a self, device: &Device, comm: &'a dyn Communicator) -> Result<PreparedMeasurement<'a>> {
        self.check()?;
        self.check_sets()?;
        for model in std::iter::once(&self.base).chain(&self.models) {
            require_checkpoint(model)?;
        }
        let architecture = read_architecture(&self.base)?;
        let shapes = architecture.parameter_shapes();
        let names: Vec<_> = shapes.iter().map(|(name, _)| (name.as_str(), architecture.part(name))).collect();
        check_parts(&names, &self.config.frozen).map_err(name_freeze_flag)?;
        let prompt = hash_prompt_files(&self.base)?;
        for model in &self.models {
            if hash_prompt_files(model)? != prompt {
                return Err(Error::input(format!(
                    "{} and {} do not read prompts alike: their tokenizer, chat template, preprocessor or generation files \
                     differ. Copy these files from the base into the tuned model's directory if that is what it was trained with",
                    self.base.display(),
                    model.display()
                )));
            }
        }
        let mut sets = self.sets(SampleRole::Train, &self.train)?;
        sets.extend(self.sets(SampleRole::Prior, &self.prior)?);
        let hashes = sets.iter().map(SampleSet::hash).collect::<Result<Vec<_>>>()?;
        let base = ModelRef::of(&self.base, &hash_model(&self.base)?);
        let checkpoints =
            self.models.iter().map(|dir| Ok(ModelRef::of(dir, &hash_model(dir)?))).collect::<Result<Vec<_>>>()?;
        let keys = |kind: SampleRole| {
            let of_kind = sets.iter().zip(&hashes).filter(|(set, _)| set.kind == kind);
            let key = |(set, hash): (&SampleSet, &String)| {
                let (data, protocol) = (hash.clone(), set.prepared.protocol.clone());
                let max_new_tokens = set.prepared.sampling.max_new_tokens;
                (set.name().to_string(), SampleSetKey { data, samples: set.chosen.len(), protocol, max_new_tokens })
            };
            of_kind.map(key).collect()
        };
        let key = MeasurementKey {
            code: MeasurementKey::code(),
            config: self.config.clone(),
            base: base.hash.clone(),
            prompt,
            order: sets.iter().map(|set| set.name().to_string()).collect(),
            train: keys(SampleRole::Train),
            prior: keys(SampleRole::Prior),
        };
        let hashes_of_checkpoints: Vec<_> = checkpoints.iter().map(|model| (&model.name, &model.hash)).collect();
        let on_a_cpu = device.is_cpu();
        comm.check_same(&json!({ "measurement": key, "checkpoints": hashes_of_checkpoints, "on a CPU": on_a_cpu }))?;
        let directory = DynamicsDir::open(&self.out, key, &checkpoints, self.fresh, comm)?;
        Ok(PreparedMeasurement {
            config: &self.config,
            base_dir: &self.base,
            models: &self.models,
            base,
            checkpoints,
            sets,
            hashes,
            directory,
            comm,
        })
    }

    fn check_sets(&self) -> Result<()> {
        for (flag, missing) in [
            ("--model", self.models.is_empty()),
            ("--train", self.train.is_empty()),
            ("--prior", self.prior.is_empty()),
        ] {
            if missing {
                return Err(Error::input(format!("{flag} is missing")));
            }
        }
        let specs: Vec<&BenchmarkSpec> = self.train.iter().chain(&self.prior).collect();
        for (i, spec) in specs.iter().enumerate() {
            if specs[..i].iter().any(|other| other.name.eq_ignore_ascii_case(&spec.name)) {
                return Err(Error::input(format!(
                    "--train and --prior: the name {} is given twice; give each set one of its own",
                    spec.name
                )));
            }
        }
        if let Some(spec) = self.train.iter().find(|spec| spec.kind.is_some() || !spec.path.is_dir()) {
            return Err(Error::input(format!(
                "--train {}={}: give a dataset directory, whose records have the responses that the regime trains on",
                spec.name,
                spec.path.display()
            )));
        }
        if let Some(spec) = self.prior.iter().find(|spec| !spec.path.exists()) {
            return Err(Error::input(format!("--prior {}={}: there is no such file", spec.name, spec.path.display())));
        }
        let full = |p: &Path| p.canonicalize().or_else(|_| std::path::absolute(p)).unwrap_or_default();
        for (i, dir) in self.models.iter().enumerate() {
            if self.models[..i].iter().any(|other| full(other) == full(dir)) {
                return Err(Error::input(format!("--model {} is given twice", dir.display())));
            }
        }
        Ok(())
    }

    fn sets(&self, kind: SampleRole, specs: &[BenchmarkSpec]) -> Result<Vec<SampleSet>> {
        let settings = BenchmarkSettings {
            plan: SamplePlan { limit: None, num_generations: 1, batch_size: BATCH },
            sampling: SamplingParams::greedy(0),
            max_new_tokens: self.max_new_tokens,
            min_pixels: None,
            max_pixels: None,
        };
        let flag = if kind == SampleRole::Train { "--train" } else { "--prior" };
        // Errors about benchmarks name the flag of `jigsaw eval`.
        let prepared = bench::prepare(specs, &settings, &self.base).map_err(|e| match e {
            Error::Input(message) => Error::Input(message.replace("--bench", flag)),
            failed => failed,
        })?;
        let mut sets = Vec::with_capacity(specs.len());
        for prepared in prepared {
            let chosen = choose(prepared.task().len(), self.config.pairs, self.config.seed);
            let set = SampleSet { kind, prepared, chosen };
            set.check()?;
            sets.push(set);
        }
        Ok(sets)
    }
}
