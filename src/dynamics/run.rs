//! The whole measurement: check the request, score the samples with the base, measure the pairs under each checkpoint, summarize.
//! Finished parts are read and not repeated, so the same command resumes.

use super::influence::influences;
use super::kl_regression::{KlAndForgetting, kl_and_forgetting};
use super::output_dir::{DynamicsDir, MeasurementKey, PAIRS, SAMPLES, SampleSetKey};
use super::pairing::{choose, pair};
use super::perplexity::{Perplexity, bin_edges};
use super::result::{CheckpointResult, DynamicsResult, InfluenceConfig, Pair, SampleSetResult};
use super::samples::{BATCH, DynamicsSample, ResponseSource, SampleRole, SampleSet};
use super::sgd_step::SgdStep;
use super::write::write;
use crate::eval::bench::{self, BenchmarkSettings, BenchmarkSpec};
use crate::forgetting::{FORGETTING_JSON, ForgettingResult, ModelRef};
use crate::io::files;
use crate::io::jsonl::JsonlLog;
use crate::model::{ComputeDtype, Model, ModelLoader, SamplingParams, lora, read_architecture, require_checkpoint};
use crate::model::{hash_model, hash_prompt_files};
use crate::sampling::SamplePlan;
use crate::train::{check_parts, freeze};
use crate::{Error, Result};
use candle_core::Device;
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

/// Receives progress.
pub trait DynamicsObserver {
    /// A stage begins.
    fn stage(&mut self, what: &str);
    /// Samples scored by the base.
    fn samples(&mut self, set: &str, done: usize, total: usize);
    /// Pairs measured under a checkpoint.
    fn pairs(&mut self, model: &str, done: usize, total: usize);
}

/// Measure what is missing, summarize, and write the result.
///
/// # Errors
/// Input errors before any weights are loaded: a name given twice, data that cannot be read, training samples without a
/// response, models that do not read prompts alike, comparisons of different bases or benchmarks, an output directory with other files.
pub fn run(request: &DynamicsRequest, device: &Device, progress: &mut dyn DynamicsObserver) -> Result<DynamicsResult> {
    let kl = request.kl()?;
    let work = request.prepare()?;
    // Checkpoints with the same base share its weights.
    let loader = ModelLoader::new(device, ComputeDtype::F32);
    let samples = work.score_samples(&loader, progress)?;
    let pairs = work.measure(&loader, &samples, progress)?;
    let found = work.summarize(&samples, &pairs, kl);
    write(&request.out, &found)?;
    Ok(found)
}

impl DynamicsRequest {
    /// Refuse numbers that are out of range, and an output directory inside a model's.
    ///
    /// # Errors
    /// Input errors that name the flag.
    pub fn check(&self) -> Result<()> {
        let InfluenceConfig { eta, pairs, .. } = self.config;
        if pairs == 0 {
            return Err(Error::input("--pairs 0: must be at least 1"));
        }
        if let Some(eta) = eta.filter(|eta| !(*eta > 0.0 && eta.is_finite())) {
            return Err(Error::input(format!("--eta {eta}: must be a number above 0; leave it out to have it chosen")));
        }
        if self.max_new_tokens == Some(0) {
            return Err(Error::input("--max-new-tokens 0: must be at least 1"));
        }
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
    fn prepare(&self) -> Result<PreparedMeasurement<'_>> {
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
        let directory = DynamicsDir::open(&self.out, key, &checkpoints, self.fresh)?;
        Ok(PreparedMeasurement { request: self, base, checkpoints, sets, hashes, directory })
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

/// Errors about frozen parts name a key of the training configuration.
fn name_freeze_flag(e: Error) -> Error {
    match e {
        Error::Input(message) => Error::Input(message.replace("train.freeze", "--freeze")),
        failed => failed,
    }
}

/// A checked request.
struct PreparedMeasurement<'a> {
    request: &'a DynamicsRequest,
    base: ModelRef,
    checkpoints: Vec<ModelRef>,
    /// Training data, then prior knowledge.
    sets: Vec<SampleSet>,
    /// The hash of each set.
    hashes: Vec<String>,
    directory: DynamicsDir,
}

/// One training sample and the prior samples paired with it, under one checkpoint.
struct PairBatch {
    checkpoint: usize,
    regime: usize,
    /// Number of the pairs.
    index: usize,
    u: usize,
    /// Set and number of each prior sample.
    vs: Vec<(usize, usize)>,
}

impl PreparedMeasurement<'_> {
    fn load(&self, dir: &Path, loader: &ModelLoader) -> Result<Model> {
        let model = loader.trainable(dir, &[])?;
        freeze(&model, &self.request.config.frozen).map_err(name_freeze_flag)?;
        Ok(model)
    }

    fn numbers(&self, kind: SampleRole) -> impl Iterator<Item = usize> {
        (0..self.sets.len()).filter(move |&i| self.sets[i].kind == kind)
    }

    /// The samples of each set with their log-probabilities under the base; those on disk are not scored again.
    fn score_samples(
        &self,
        loader: &ModelLoader,
        progress: &mut dyn DynamicsObserver,
    ) -> Result<Vec<Vec<DynamicsSample>>> {
        let (mut log, mut lines) = JsonlLog::open::<DynamicsSample>(&self.directory.file(SAMPLES))?;
        let expected: Vec<(usize, usize)> =
            self.sets.iter().enumerate().flat_map(|(s, set)| set.chosen.iter().map(move |&i| (s, i))).collect();
        if lines.len() > expected.len() {
            return Err(log.unexpected_line(expected.len(), "the end"));
        }
        for (at, (line, &(set, i))) in lines.iter().zip(&expected).enumerate() {
            let set = &self.sets[set];
            if (line.kind, line.set.as_str(), line.index) != (set.kind, set.name(), i) {
                return Err(log.unexpected_line(at, &format!("example {i} of {}", set.name())));
            }
        }
        let mut base = None;
        let mut start = 0;
        for set in &self.sets {
            for (piece, examples) in set.chosen.chunks(BATCH).enumerate() {
                let (at, total) = (piece * BATCH, set.chosen.len());
                // An incomplete batch is scored again as a whole, so that batches do not depend on where a run was stopped.
                if lines.len() >= start + at + examples.len() {
                    continue;
                }
                lines.truncate(start + at);
                log.truncate(lines.len())?;
                if base.is_none() {
                    progress.stage(&format!("base: {}", self.request.base.display()));
                    base = Some(self.load(&self.request.base, loader)?);
                }
                let Some(model) = &base else { continue };
                progress.samples(set.name(), at, total);
                let samples = set.samples(model, examples)?;
                log.append(&samples)?;
                lines.extend(samples);
                progress.samples(set.name(), at + examples.len(), total);
            }
            start += set.chosen.len();
        }
        let mut rest = lines.as_slice();
        let mut samples = Vec::with_capacity(self.sets.len());
        for set in &self.sets {
            let (own, after) = rest.split_at_checked(set.chosen.len()).unwrap_or((rest, &[]));
            samples.push(own.to_vec());
            rest = after;
        }
        Ok(samples)
    }

    /// All pairs, in the order in which they are measured.
    fn batches(&self) -> Vec<PairBatch> {
        let mut batches = Vec::new();
        for checkpoint in 0..self.checkpoints.len() {
            for regime in self.numbers(SampleRole::Train) {
                let us = self.sets[regime].chosen.len();
                for index in 0..self.request.config.pairs {
                    let v = |set: usize| Some((set, pair(index, us, self.sets[set].chosen.len())?.1));
                    let vs: Vec<(usize, usize)> = self.numbers(SampleRole::Prior).filter_map(v).collect();
                    if !vs.is_empty() {
                        batches.push(PairBatch { checkpoint, regime, index, u: index % us, vs });
                    }
                }
            }
        }
        batches
    }

    /// All pairs under all checkpoints; those on disk are not measured again.
    fn measure(
        &self,
        loader: &ModelLoader,
        samples: &[Vec<DynamicsSample>],
        progress: &mut dyn DynamicsObserver,
    ) -> Result<Vec<Pair>> {
        let (mut log, mut lines) = JsonlLog::open::<Pair>(&self.directory.file(PAIRS))?;
        let batches = self.batches();
        let (done, whole) = self.resume(&log, &lines, &batches, samples)?;
        lines.truncate(whole);
        log.truncate(whole)?;
        let mut batches = batches[done..].iter().peekable();
        while let Some(first) = batches.peek() {
            let checkpoint = first.checkpoint;
            let (dir, name) = (&self.request.models[checkpoint], &self.checkpoints[checkpoint].name);
            progress.stage(&format!("checkpoint {} of {}: {}", checkpoint + 1, self.checkpoints.len(), dir.display()));
            let model = self.load(dir, loader)?;
            let stepper = SgdStep::new(&model)?;
            let of_checkpoint = |pairs: &[Pair]| pairs.iter().filter(|p| p.checkpoint == checkpoint).count();
            let (before, total) = (of_checkpoint(&lines), self.pairs_of_a_checkpoint());
            let mut measured = before;
            progress.pairs(name, measured, total);
            while let Some(batch) = batches.next_if(|batch| batch.checkpoint == checkpoint) {
                let pairs = self.measure_batch(&stepper, batch, samples)?;
                measured += pairs.len();
                log.append(&pairs)?;
                lines.extend(pairs);
                progress.pairs(name, measured, total);
            }
        }
        Ok(lines)
    }

    fn pairs_of_a_checkpoint(&self) -> usize {
        self.batches().iter().filter(|batch| batch.checkpoint == 0).map(|batch| batch.vs.len()).sum()
    }

    /// Check that the pairs on disk are the first of the pairs to measure, and drop an incomplete batch. Returns the number of complete batches.
    fn resume(
        &self,
        log: &JsonlLog,
        lines: &[Pair],
        batches: &[PairBatch],
        samples: &[Vec<DynamicsSample>],
    ) -> Result<(usize, usize)> {
        let (mut at, mut done) = (0, 0);
        for batch in batches {
            for (number, &(set, v)) in batch.vs.iter().enumerate() {
                let Some(line) = lines.get(at + number) else { return Ok((done, at)) };
                let (regime, prior) = (self.sets[batch.regime].name(), self.sets[set].name());
                let (u, v) = (&samples[batch.regime][batch.u].id, &samples[set][v].id);
                let found = (line.checkpoint, line.regime.as_str(), line.prior.as_str(), line.pair, &line.u, &line.v);
                if found != (batch.checkpoint, regime, prior, batch.index, u, v) {
                    let expected = format!("pair {} of {regime} and {prior} ({u}, {v})", batch.index);
                    return Err(log.unexpected_line(at + number, &expected));
                }
            }
            at += batch.vs.len();
            done += 1;
        }
        if lines.len() > at {
            return Err(log.unexpected_line(at, "the end"));
        }
        Ok((done, at))
    }

    fn measure_batch(
        &self,
        stepper: &SgdStep<'_>,
        batch: &PairBatch,
        samples: &[Vec<DynamicsSample>],
    ) -> Result<Vec<Pair>> {
        let regime = &self.sets[batch.regime];
        let u = &samples[batch.regime][batch.u];
        let vs: Vec<(&SampleSet, &DynamicsSample)> =
            batch.vs.iter().map(|&(set, v)| (&self.sets[set], &samples[set][v])).collect();
        let blame = |e: Error| {
            let names: Vec<String> = vs.iter().map(|(set, v)| format!("{} {}", set.name(), v.id)).collect();
            e.context(format!("training sample {} {} with {}", regime.name(), u.id, names.join(", ")))
        };
        let sequences = vs.iter().map(|(set, v)| set.sequence(v)).collect::<Result<Vec<_>>>()?;
        let InfluenceConfig { eta, loss, .. } = self.request.config;
        let found = influences(stepper, &regime.sequence(u)?, &sequences, eta, loss).map_err(blame)?;
        let pair = |((set, v), influence): (&(&SampleSet, &DynamicsSample), _)| Pair {
            checkpoint: batch.checkpoint,
            model: self.checkpoints[batch.checkpoint].name.clone(),
            regime: regime.name().to_string(),
            prior: set.name().to_string(),
            pair: batch.index,
            u: u.id.clone(),
            v: v.id.clone(),
            influence,
        };
        Ok(vs.iter().zip(found).map(pair).collect())
    }

    fn summarize(
        &self,
        samples: &[Vec<DynamicsSample>],
        pairs: &[Pair],
        kl: Option<KlAndForgetting>,
    ) -> DynamicsResult {
        let all: Vec<DynamicsSample> = samples.iter().flatten().cloned().collect();
        let edges = bin_edges(&all);
        let set_found = |i: usize| {
            let (set, own) = (&self.sets[i], &samples[i]);
            SampleSetResult {
                name: set.name().to_string(),
                path: set.prepared.path.display().to_string(),
                split: set.prepared.split.clone(),
                data: self.hashes[i].clone(),
                protocol: set.prepared.protocol.clone(),
                examples: set.prepared.task().len(),
                answered_by_base: own.iter().filter(|sample| sample.origin == ResponseSource::Base).count(),
                perplexity: Perplexity::of(&own.iter().collect::<Vec<_>>(), &edges),
            }
        };
        let sets = |kind: SampleRole| self.numbers(kind).map(set_found).collect::<Vec<_>>();
        let names = |kind: SampleRole| self.numbers(kind).map(|i| self.sets[i].name()).collect::<Vec<_>>();
        let checkpoint = |(i, model): (usize, &ModelRef)| {
            let own: Vec<&Pair> = pairs.iter().filter(|pair| pair.checkpoint == i).collect();
            let found = CheckpointResult::of(model.clone(), &own, &names(SampleRole::Train), &names(SampleRole::Prior));
            CheckpointResult { adapter: lora::is_adapter(&self.request.models[i]), ..found }
        };
        let checkpoints = self.checkpoints.iter().enumerate().map(checkpoint).collect();
        let sets = (sets(SampleRole::Train), sets(SampleRole::Prior));
        DynamicsResult::new(self.request.config.clone(), self.base.clone(), sets, edges, checkpoints, kl)
    }
}
