//! A measurement at work: score the samples with the base, measure the pairs under each checkpoint, let it sample, summarize. Finished parts are
//! read and not repeated, so the same command resumes. Each rank scores and measures whole batches, as one process does.

use super::influence::{InfluenceConfig, influences};
use super::kl_regression::KlAndForgetting;
use super::on_policy::{OnPolicyLog, OnPolicyResult, OnPolicySample};
use super::output_dir::{DynamicsDir, ON_POLICY, PAIRS, SAMPLES};
use super::pairing::{Pair, pair};
use super::perplexity::{Perplexity, bin_edges};
use super::result::{CheckpointResult, DynamicsResult, SampleSetResult};
use super::samples::{BATCH, DynamicsSample, ResponseSource, SampleRole, SampleSet};
use super::stepper::Stepper;
use crate::comm::{Communicator, RootLog};
use crate::forgetting::ModelRef;
use crate::io::jsonl::JsonlLog;
use crate::model::{Model, ModelLoader, lora};
use crate::train::freeze;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// Receives progress.
pub trait DynamicsObserver {
    /// A stage begins.
    fn stage(&mut self, what: &str);
    /// Samples of all sets scored by the base.
    fn samples(&mut self, done: usize, total: usize);
    /// Pairs measured under a checkpoint.
    fn pairs(&mut self, model: &str, done: usize, total: usize);
}

/// Errors about frozen parts name a key of the training configuration.
pub fn name_freeze_flag(e: Error) -> Error {
    match e {
        Error::Input(message) => Error::Input(message.replace("train.freeze", "--freeze")),
        failed => failed,
    }
}

/// A checked request.
pub struct PreparedMeasurement<'a> {
    /// Its settings.
    pub config: &'a InfluenceConfig,
    /// Directory of the base.
    pub base_dir: &'a Path,
    /// Directories of the checkpoints.
    pub models: &'a [PathBuf],
    /// The base.
    pub base: ModelRef,
    /// The checkpoints.
    pub checkpoints: Vec<ModelRef>,
    /// Training data, then prior knowledge.
    pub sets: Vec<SampleSet>,
    /// The hash of each set.
    pub hashes: Vec<String>,
    /// Where the results are written.
    pub directory: DynamicsDir,
    /// The ranks that measure.
    pub comm: &'a dyn Communicator,
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

/// How many batches of these sizes are whole in the first `lines` lines, and how many lines these batches have.
fn whole_batches(sizes: impl Iterator<Item = usize>, lines: usize) -> (usize, usize) {
    let ends = sizes.scan(0, |end, size| {
        *end += size;
        Some(*end)
    });
    ends.take_while(|end| *end <= lines).fold((0, 0), |(batches, _), end| (batches + 1, end))
}

impl PreparedMeasurement<'_> {
    fn load(&self, dir: &Path, loader: &ModelLoader) -> Result<Model> {
        let model = loader.trainable(dir, &[])?;
        freeze(&model, &self.config.frozen).map_err(name_freeze_flag)?;
        Ok(model)
    }

    fn numbers(&self, kind: SampleRole) -> impl Iterator<Item = usize> {
        (0..self.sets.len()).filter(move |&i| self.sets[i].kind == kind)
    }

    /// The samples of each set with their log-probabilities under the base; those on disk are not scored again.
    pub fn score_samples(
        &self,
        loader: &ModelLoader,
        progress: &mut dyn DynamicsObserver,
    ) -> Result<Vec<Vec<DynamicsSample>>> {
        let of_sets = self.sets.iter().flat_map(|set| set.chosen.chunks(BATCH).map(move |examples| (set, examples)));
        let batches: Vec<(&SampleSet, &[usize])> = of_sets.collect();
        // An incomplete batch is scored again as a whole, so that batches do not depend on where a run was stopped.
        let whole = |lines| whole_batches(batches.iter().map(|(_, examples)| examples.len()), lines);
        let mut log = RootLog::open(&self.directory.file(SAMPLES), self.comm, |log, lines: &[DynamicsSample]| {
            let mut expected = batches.iter().flat_map(|&(set, examples)| examples.iter().map(move |&i| (set, i)));
            for (at, line) in lines.iter().enumerate() {
                let Some((set, i)) = expected.next() else { return Err(log.unexpected_line(at, "the end")) };
                if (line.kind, line.set.as_str(), line.index) != (set.kind, set.name(), i) {
                    return Err(log.unexpected_line(at, &format!("example {i} of {}", set.name())));
                }
            }
            Ok(whole(lines.len()).1)
        })?;
        let left = &batches[whole(log.lines.len()).0..];
        if !left.is_empty() {
            progress.stage(&format!("base: {}", self.base_dir.display()));
            let base = self.load(self.base_dir, loader)?;
            let total = self.sets.iter().map(|set| set.chosen.len()).sum();
            progress.samples(log.lines.len(), total);
            self.comm.in_rounds(
                left,
                |(set, examples)| set.samples(&base, examples),
                |samples| {
                    log.append(samples)?;
                    progress.samples(log.lines.len(), total);
                    Ok(())
                },
            )?;
        }
        let mut lines = log.lines.into_iter();
        Ok(self.sets.iter().map(|set| lines.by_ref().take(set.chosen.len()).collect()).collect())
    }

    /// All pairs, in the order in which they are measured.
    fn batches(&self) -> Vec<PairBatch> {
        let mut batches = Vec::new();
        for checkpoint in 0..self.checkpoints.len() {
            for regime in self.numbers(SampleRole::Train) {
                let us = self.sets[regime].chosen.len();
                for index in 0..self.config.pairs {
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

    /// All pairs under all checkpoints, and the responses that the checkpoints sample; those on disk are not measured again.
    pub fn measure(
        &self,
        loader: &ModelLoader,
        samples: &[Vec<DynamicsSample>],
        progress: &mut dyn DynamicsObserver,
    ) -> Result<(Vec<Pair>, Vec<OnPolicySample>)> {
        let mut own = self.on_policy_log()?;
        let batches = self.batches();
        let whole = |lines| whole_batches(batches.iter().map(|batch| batch.vs.len()), lines);
        let mut log = RootLog::open(&self.directory.file(PAIRS), self.comm, |log, lines: &[Pair]| {
            self.check_pairs(log, lines, &batches, samples)?;
            Ok(whole(lines.len()).1)
        })?;
        let total = batches.iter().filter(|batch| batch.checkpoint == 0).map(|batch| batch.vs.len()).sum::<usize>();
        let mut left = &batches[whole(log.lines.len()).0..];
        for checkpoint in 0..self.checkpoints.len() {
            let here = left.iter().take_while(|batch| batch.checkpoint == checkpoint).count();
            let (here, later) = left.split_at(here);
            left = later;
            let unsampled = own.as_ref().is_some_and(|own| !own.has(checkpoint));
            if here.is_empty() && !unsampled {
                continue;
            }
            let (dir, name) = (&self.models[checkpoint], &self.checkpoints[checkpoint].name);
            progress.stage(&format!("checkpoint {} of {}: {}", checkpoint + 1, self.checkpoints.len(), dir.display()));
            let model = self.load(dir, loader)?;
            let stepper = Stepper::new(&model)?;
            let measured = |lines: &[Pair]| lines.iter().filter(|pair| pair.checkpoint == checkpoint).count();
            progress.pairs(name, measured(&log.lines), total);
            self.comm.in_rounds(
                here,
                |batch| self.measure_batch(&stepper, batch, samples),
                |pairs| {
                    log.append(pairs)?;
                    progress.pairs(name, measured(&log.lines), total);
                    Ok(())
                },
            )?;
            if let Some(own) = own.as_mut().filter(|_| unsampled) {
                progress.stage(&format!("responses of {name}, and how likely the base finds them"));
                let responses = own.sample(&model)?;
                // Two whole models need not be in memory at a time.
                drop(stepper);
                drop(model);
                own.score((checkpoint, name), responses, &self.load(self.base_dir, loader)?)?;
            }
        }
        Ok((log.lines, own.map(OnPolicyLog::into_lines).unwrap_or_default()))
    }

    /// The responses that checkpoints sample, if they are asked for.
    fn on_policy_log(&self) -> Result<Option<OnPolicyLog<'_>>> {
        let Some(wanted) = &self.config.on_policy else { return Ok(None) };
        let set = self.sets.iter().find(|set| set.kind == SampleRole::Train && set.name() == wanted);
        let set = set.ok_or_else(|| Error::failed(format!("--on-policy {wanted}: no such training data")))?;
        let path = self.directory.file(ON_POLICY);
        OnPolicyLog::open(&path, set, &self.checkpoints, self.config.seed, self.comm).map(Some)
    }

    /// Check that the pairs on disk are the first of the pairs to measure.
    fn check_pairs(
        &self,
        log: &JsonlLog,
        lines: &[Pair],
        batches: &[PairBatch],
        samples: &[Vec<DynamicsSample>],
    ) -> Result<()> {
        let mut expected = batches.iter().flat_map(|batch| batch.vs.iter().map(move |&v| (batch, v)));
        for (at, line) in lines.iter().enumerate() {
            let Some((batch, (set, v))) = expected.next() else { return Err(log.unexpected_line(at, "the end")) };
            let (regime, prior) = (self.sets[batch.regime].name(), self.sets[set].name());
            let (u, v) = (&samples[batch.regime][batch.u].id, &samples[set][v].id);
            let found = (line.checkpoint, line.regime.as_str(), line.prior.as_str(), line.pair, &line.u, &line.v);
            if found != (batch.checkpoint, regime, prior, batch.index, u, v) {
                let expected = format!("pair {} of {regime} and {prior} ({u}, {v})", batch.index);
                return Err(log.unexpected_line(at, &expected));
            }
        }
        Ok(())
    }

    fn measure_batch(
        &self,
        stepper: &Stepper<'_>,
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
        let found = influences(stepper, &regime.sequence(u)?, &sequences, self.config).map_err(blame)?;
        let pair = |((set, v), influence): (&(&SampleSet, &DynamicsSample), _)| Pair {
            checkpoint: batch.checkpoint,
            model: self.checkpoints[batch.checkpoint].name.clone(),
            regime: regime.name().to_string(),
            prior: set.name().to_string(),
            pair: batch.index,
            u: u.id.clone(),
            v: v.id.clone(),
            u_base_nats: u.nats,
            influence,
        };
        Ok(vs.iter().zip(found).map(pair).collect())
    }

    /// The result of all that was measured.
    pub fn summarize(
        &self,
        samples: &[Vec<DynamicsSample>],
        pairs: &[Pair],
        own: &[OnPolicySample],
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
            let measured: Vec<&Pair> = pairs.iter().filter(|pair| pair.checkpoint == i).collect();
            let found =
                CheckpointResult::of(model.clone(), &measured, &names(SampleRole::Train), &names(SampleRole::Prior));
            let responses: Vec<&OnPolicySample> = own.iter().filter(|sample| sample.checkpoint == i).collect();
            let on_policy = (!responses.is_empty()).then(|| OnPolicyResult::of(&responses, &edges));
            CheckpointResult { adapter: lora::is_adapter(&self.models[i]), on_policy, ..found }
        };
        let checkpoints = self.checkpoints.iter().enumerate().map(checkpoint).collect();
        let sets = (sets(SampleRole::Train), sets(SampleRole::Prior));
        DynamicsResult::new(self.config.clone(), self.base.clone(), sets, edges, checkpoints, kl)
    }
}
