//! Responses that each checkpoint samples itself to the prompts of one set of training data, and how likely the base finds them: whether training
//! by reinforcement stays where the base is likely to be.

use super::perplexity::{PartPerplexity, Perplexity};
use super::samples::{BATCH, DynamicsSample, ResponseSource, SampleSet};
use crate::Result;
use crate::comm::{Communicator, RootLog};
use crate::forgetting::ModelRef;
use crate::model::{Predictor, SamplingParams};
use crate::sampling::LocalModel;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A response of a checkpoint: a line of `on-policy.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OnPolicySample {
    /// Number of the checkpoint among those measured, from 0.
    pub checkpoint: usize,
    /// Its name.
    pub model: String,
    /// -log pi of the whole response under the checkpoint, in nats.
    pub own_nats: f64,
    /// The response under the base.
    #[serde(flatten)]
    pub sample: DynamicsSample,
}

/// The responses of one checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OnPolicyResult {
    /// Perplexity under the base.
    pub base: Perplexity,
    /// Perplexity under the checkpoint itself.
    pub own: PartPerplexity,
}

impl OnPolicyResult {
    /// Of the responses of one checkpoint, with the histogram between these edges.
    pub fn of(samples: &[&OnPolicySample], edges: &[f64]) -> OnPolicyResult {
        let under_base: Vec<&DynamicsSample> = samples.iter().map(|own| &own.sample).collect();
        let own = samples.iter().map(|own| (own.sample.token_ids.len(), own.own_nats));
        OnPolicyResult { base: Perplexity::of(&under_base, edges), own: PartPerplexity::of(own) }
    }
}

/// The responses of the checkpoints on disk: those of whole checkpoints, in order.
pub struct OnPolicyLog<'a> {
    set: &'a SampleSet,
    seed: u64,
    comm: &'a dyn Communicator,
    log: RootLog<OnPolicySample>,
}

impl<'a> OnPolicyLog<'a> {
    /// Open the file `path` of responses to the prompts of `set`. Those of a checkpoint that was not finished are dropped.
    ///
    /// # Errors
    /// An input error that names a line that is none of these responses.
    pub fn open(
        path: &Path,
        set: &'a SampleSet,
        checkpoints: &[ModelRef],
        seed: u64,
        comm: &'a dyn Communicator,
    ) -> Result<OnPolicyLog<'a>> {
        let log = RootLog::open(path, comm, |log, lines: &[OnPolicySample]| {
            let each = set.chosen.len();
            for (at, line) in lines.iter().enumerate() {
                let (checkpoint, example) = (at / each.max(1), set.chosen.get(at % each.max(1)));
                let known = checkpoint < checkpoints.len() && line.checkpoint == checkpoint;
                if !known || Some(&line.sample.index) != example {
                    let expected = match (checkpoints.get(checkpoint), example) {
                        (Some(model), Some(i)) => {
                            format!("the response of {} to example {i} of {}", model.name, set.name())
                        }
                        _ => "the end".into(),
                    };
                    return Err(log.unexpected_line(at, &expected));
                }
            }
            Ok(lines.len() / each.max(1) * each)
        })?;
        Ok(OnPolicyLog { set, seed, comm, log })
    }

    /// Whether the responses of this checkpoint are there.
    pub fn has(&self, checkpoint: usize) -> bool {
        self.log.lines.len() >= (checkpoint + 1) * self.set.chosen.len()
    }

    /// A response of `model` to each prompt at temperature 1, with its log-probability under it. No token is excluded. Each rank samples whole
    /// batches.
    pub fn sample(&self, model: &dyn Predictor) -> Result<Vec<DynamicsSample>> {
        let responder = LocalModel::unrestricted(model, self.set.prepared.codec()?);
        let max_new_tokens = self.set.prepared.sampling.max_new_tokens;
        let sampling = SamplingParams {
            max_new_tokens,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            stop: Vec::new(),
            seed: self.seed,
        };
        let mut samples = Vec::with_capacity(self.set.chosen.len());
        let respond = |examples: &&[usize]| {
            let responses = self.set.sample(&responder, examples, &sampling, "dynamics on-policy")?;
            let responses = responses.into_iter().map(|response| (ResponseSource::Checkpoint, response)).collect();
            self.set.score(model, examples, responses)
        };
        let batches: Vec<&[usize]> = self.set.chosen.chunks(BATCH).collect();
        self.comm.in_rounds(&batches, respond, |batch| {
            samples.extend(batch);
            Ok(())
        })?;
        Ok(samples)
    }

    /// Score what the checkpoint with this number and name sampled with the base, and write it down. Each rank scores whole batches.
    pub fn score(
        &mut self,
        (checkpoint, name): (usize, &str),
        samples: Vec<DynamicsSample>,
        base: &dyn Predictor,
    ) -> Result<()> {
        let mut lines = Vec::with_capacity(samples.len());
        let score = |(examples, own): &(&[usize], &[DynamicsSample])| -> Result<Vec<OnPolicySample>> {
            let responses = own.iter().map(|own| (own.origin, own.token_ids.clone())).collect();
            let under_base = self.set.score(base, examples, responses)?;
            let line = |(own, sample): (&DynamicsSample, _)| {
                let (model, own_nats) = (name.to_string(), own.nats);
                OnPolicySample { checkpoint, model, own_nats, sample }
            };
            Ok(own.iter().zip(under_base).map(line).collect())
        };
        let batches: Vec<_> = self.set.chosen.chunks(BATCH).zip(samples.chunks(BATCH)).collect();
        self.comm.in_rounds(&batches, score, |batch| {
            lines.extend(batch);
            Ok(())
        })?;
        self.log.append(lines)
    }

    /// All responses.
    pub fn into_lines(self) -> Vec<OnPolicySample> {
        self.log.lines
    }
}
