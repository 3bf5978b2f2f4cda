//! The samples of pairs: prompts with one response each, and the log-probability of the response under the base.
//!
//! A training sample has the response of its record. So has a prior sample of a dataset directory. A prior sample of a benchmark file has
//! the base's greedy answer instead: gold answers are not written as a model writes, and what the base answers is what it knows.

use crate::eval::bench::PreparedBenchmark;
use crate::io::hex;
use crate::model::Predictor;
use crate::model::{SamplingParams, Sequence};
use crate::sampling::{LocalModel, Prompts, SampleOptions, sample};
use crate::tasks::Task;
use crate::tasks::encode_example;
use crate::tasks::reference_response;
use crate::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Samples in a batch through the base.
pub const BATCH: usize = 8;
/// Ids listed in a message.
const NAMED: usize = 5;

/// The role of a set of samples in a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SampleRole {
    /// Training data of a regime: u.
    Train,
    /// Prior knowledge: v.
    Prior,
}

/// Where a response comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResponseSource {
    /// The assistant's turn of the record.
    Data,
    /// The base's greedy answer.
    Base,
}

/// One sample: a line of `samples.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DynamicsSample {
    /// Role of its set.
    pub kind: SampleRole,
    /// Name of its set.
    pub set: String,
    /// Index of its example.
    pub index: usize,
    /// Id of its example.
    pub id: String,
    /// Where its response comes from.
    pub origin: ResponseSource,
    /// The response, including the end token if there is one.
    pub token_ids: Vec<u32>,
    /// -log pi of the whole response under the base, in nats.
    pub nats: f64,
}

impl DynamicsSample {
    /// -log pi per token: the logarithm of the perplexity.
    pub fn nats_per_token(&self) -> f64 {
        self.nats / self.token_ids.len() as f64
    }
}

/// A set of samples, ready for encoding.
pub struct SampleSet {
    /// Its role in a pair.
    pub kind: SampleRole,
    /// Examples and processor.
    pub prepared: PreparedBenchmark,
    /// The examples chosen.
    pub chosen: Vec<usize>,
}

impl SampleSet {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.prepared.name
    }

    /// An input error unless every chosen training example has a response.
    pub fn check(&self) -> Result<()> {
        let task = self.prepared.task();
        let mut missing = Vec::new();
        for &i in self.chosen.iter().filter(|_| self.kind == SampleRole::Train) {
            let record = task.example(i)?;
            if record.response().is_none() {
                missing.push(record.id.clone());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::input(format!(
            "--train {}={}: {} of {} records have no assistant response, so there is no loss to take a step on: {}{}",
            self.name(),
            self.prepared.path.display(),
            missing.len(),
            self.chosen.len(),
            missing[..missing.len().min(NAMED)].join(", "),
            if missing.len() > NAMED { ", ..." } else { "" }
        )))
    }

    /// SHA-256 over the chosen examples: their records as a whole and their images.
    pub fn hash(&self) -> Result<String> {
        let task = self.prepared.task();
        let parts: Vec<Result<[u8; 32]>> = self.chosen.par_iter().map(|&i| hash_example(task, i)).collect();
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part?);
        }
        Ok(hex(&hash.finalize()))
    }

    /// The samples of these examples, with the log-probability of each response under `base`.
    ///
    /// # Errors
    /// A log-probability that is not finite, or an empty response; the error names the example.
    pub fn samples(&self, base: &dyn Predictor, examples: &[usize]) -> Result<Vec<DynamicsSample>> {
        let (task, codec) = (self.prepared.task(), self.prepared.codec()?);
        let prompts: Vec<_> = examples.par_iter().map(|&i| encode_example(task, codec, i)).collect();
        let prompts = prompts.into_iter().collect::<Result<Vec<_>>>()?;
        let mut responses: Vec<Option<Vec<u32>>> = Vec::with_capacity(examples.len());
        for &i in examples {
            let own = task.example(i)?.response().is_some();
            responses.push(own.then(|| reference_response(task, codec, i)).transpose()?);
        }
        let without = |(i, r): (usize, &Option<Vec<u32>>)| r.is_none().then_some(i);
        let open: Vec<usize> = responses.iter().enumerate().filter_map(without).collect();
        let mut answers = Vec::new();
        if !open.is_empty() {
            let examples: Vec<usize> = open.iter().map(|&at| examples[at]).collect();
            let prompts: Vec<_> = open.iter().map(|&at| prompts[at].clone()).collect();
            let sampling = SamplingParams::greedy(self.prepared.sampling.max_new_tokens);
            let options = SampleOptions { num_generations: 1, sampling: &sampling, stream: ("dynamics", &[]) };
            answers = sample(&LocalModel::new(base, codec), &Prompts::encoded(task, &examples, &prompts), &options)?;
        }
        let mut answers = answers.into_iter().flatten().map(|answer| answer.token_ids);
        let mut origins = Vec::with_capacity(examples.len());
        let mut batch = Vec::with_capacity(examples.len());
        for (prompt, response) in prompts.into_iter().zip(responses) {
            origins.push(if response.is_some() { ResponseSource::Data } else { ResponseSource::Base });
            let response = response.or_else(|| answers.next()).unwrap_or_default();
            batch.push(Sequence { prompt, response });
        }
        let stats = base.score(&batch, 1.0)?;
        let mut rest = stats.logprobs.as_slice();
        let mut found = Vec::with_capacity(examples.len());
        for ((&index, origin), sequence) in examples.iter().zip(origins).zip(batch) {
            let id = task.example(index)?.id.clone();
            let Some((own, after)) = rest.split_at_checked(sequence.response.len()).filter(|(own, _)| !own.is_empty())
            else {
                return Err(Error::failed(format!("{} example {id}: a response without a token", self.name())));
            };
            rest = after;
            let nats = -own.iter().map(|&p| f64::from(p)).sum::<f64>();
            if !nats.is_finite() {
                return Err(Error::failed(format!(
                    "{} example {id}: the base's log-probability is {}; are its weights finite?",
                    self.name(),
                    -nats
                )));
            }
            let (kind, set) = (self.kind, self.name().to_string());
            found.push(DynamicsSample { kind, set, index, id, origin, token_ids: sequence.response, nats });
        }
        Ok(found)
    }

    /// A sample as model input.
    pub fn sequence(&self, sample: &DynamicsSample) -> Result<Sequence> {
        let prompt = encode_example(self.prepared.task(), self.prepared.codec()?, sample.index)?;
        Ok(Sequence { prompt, response: sample.token_ids.clone() })
    }
}

fn hash_example(task: &dyn Task, i: usize) -> Result<[u8; 32]> {
    let record = task.example(i)?;
    let text = serde_json::to_vec(&*record).map_err(|e| Error::failed(format!("record {}: {e}", record.id)))?;
    let mut hash = Sha256::new();
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(&text);
    match task.image_digests(i)? {
        Some(digests) => digests.iter().for_each(|digest| hash.update(digest)),
        None => {
            for image in task.images(i)? {
                hash.update(image.width().to_le_bytes());
                hash.update(image.height().to_le_bytes());
                hash.update(image.as_raw());
            }
        }
    }
    Ok(hash.finalize().into())
}
