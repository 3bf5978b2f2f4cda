//! The samples of pairs: prompts with one response each, and the log-probability of the response under the base.
//!
//! A training sample has the response of its record. So has a prior sample of a dataset directory. A prior sample of a benchmark file has
//! the base's greedy answer instead: gold answers are not written as a model writes, and what the base answers is what it knows.

use crate::eval::bench::PreparedBenchmark;
use crate::io::hex;
use crate::model::{Predictor, PromptEncoder, SamplingParams, Sequence};
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
    /// Sampled from the checkpoint.
    Checkpoint,
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
    /// Tokens before the answer: before `<answer>`, or all of a response that was cut off while it thought.
    pub reasoning_tokens: usize,
    /// -log pi of these, in nats.
    pub reasoning_nats: f64,
}

impl DynamicsSample {
    /// Tokens and nats of the answer, as [`DynamicsSample::reasoning_tokens`] parts it from the reasoning.
    pub fn answer(&self) -> (usize, f64) {
        (self.token_ids.len() - self.reasoning_tokens, self.nats - self.reasoning_nats)
    }

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
        let mut own = Vec::with_capacity(examples.len());
        for &i in examples {
            let has_one = task.example(i)?.response().is_some();
            own.push(has_one.then(|| reference_response(task, codec, i)).transpose()?);
        }
        let without: Vec<usize> =
            examples.iter().zip(&own).filter_map(|(&i, response)| response.is_none().then_some(i)).collect();
        let sampling = SamplingParams::greedy(self.prepared.sampling.max_new_tokens);
        let answers = self.sample(&LocalModel::new(base, codec), &without, &sampling, "dynamics")?;
        let mut answers = answers.into_iter();
        let responses = own.into_iter().map(|response| match response {
            Some(response) => (ResponseSource::Data, response),
            None => (ResponseSource::Base, answers.next().unwrap_or_default()),
        });
        self.score(base, examples, responses.collect())
    }

    /// A response of `responder` to each of these examples. The random numbers are those of `seed`, `stream` and the first example.
    pub fn sample(
        &self,
        responder: &LocalModel<'_>,
        examples: &[usize],
        sampling: &SamplingParams,
        stream: &str,
    ) -> Result<Vec<Vec<u32>>> {
        let Some(&first) = examples.first() else { return Ok(Vec::new()) };
        let options = SampleOptions { num_generations: 1, sampling, stream: (stream, &[first as u64]) };
        let answers = sample(responder, &Prompts::new(self.prepared.task(), examples), &options)?;
        Ok(answers.into_iter().flatten().map(|answer| answer.token_ids).collect())
    }

    /// The samples of these examples with these responses, and the log-probability of each under `model`.
    ///
    /// # Errors
    /// As [`SampleSet::samples`].
    pub fn score(
        &self,
        model: &dyn Predictor,
        examples: &[usize],
        responses: Vec<(ResponseSource, Vec<u32>)>,
    ) -> Result<Vec<DynamicsSample>> {
        let (task, codec) = (self.prepared.task(), self.prepared.codec()?);
        let prompts: Vec<_> = examples.par_iter().map(|&i| encode_example(task, codec, i)).collect();
        let (origins, responses): (Vec<_>, Vec<_>) = responses.into_iter().unzip();
        let sequence = |(prompt, response): (Result<_>, _)| Ok(Sequence { prompt: prompt?, response });
        let batch = prompts.into_iter().zip(responses).map(sequence).collect::<Result<Vec<_>>>()?;
        let stats = model.score(&batch, 1.0)?;
        let mut rest = stats.logprobs.as_slice();
        let mut found = Vec::with_capacity(examples.len());
        for ((&index, origin), sequence) in examples.iter().zip(origins).zip(batch) {
            let id = task.example(index)?.id.clone();
            let Some((own, after)) = rest.split_at_checked(sequence.response.len()).filter(|(own, _)| !own.is_empty())
            else {
                return Err(Error::failed(format!("{} example {id}: a response without a token", self.name())));
            };
            rest = after;
            let nats_of = |logprobs: &[f32]| 0.0 - logprobs.iter().map(|&p| f64::from(p)).sum::<f64>();
            let nats = nats_of(own);
            if !nats.is_finite() {
                return Err(Error::failed(format!(
                    "{} example {id}: the model's log-probability is {}; are its weights finite?",
                    self.name(),
                    -nats
                )));
            }
            let reasoning_tokens = reasoning_tokens(codec, &sequence.response)?;
            found.push(DynamicsSample {
                kind: self.kind,
                set: self.name().to_string(),
                index,
                id,
                origin,
                token_ids: sequence.response,
                nats,
                reasoning_tokens,
                reasoning_nats: nats_of(&own[..reasoning_tokens]),
            });
        }
        Ok(found)
    }

    /// A sample as model input.
    pub fn sequence(&self, sample: &DynamicsSample) -> Result<Sequence> {
        let prompt = encode_example(self.prepared.task(), self.prepared.codec()?, sample.index)?;
        Ok(Sequence { prompt, response: sample.token_ids.clone() })
    }
}

/// How many tokens of a response come before its answer: before the token that `<answer>` begins in. A response without tags is all answer, one
/// that only thinks has none.
fn reasoning_tokens(codec: &dyn PromptEncoder, response: &[u32]) -> Result<usize> {
    let text = codec.decode(response)?;
    let Some(answer) = text.rfind("<answer>") else {
        return Ok(if text.contains("<think>") { response.len() } else { 0 });
    };
    // The fewest tokens whose text reaches into the tag.
    let (mut too_few, mut enough) = (0, response.len());
    while enough - too_few > 1 {
        let middle = too_few.midpoint(enough);
        match codec.decode(&response[..middle])?.len() > answer {
            true => enough = middle,
            false => too_few = middle,
        }
    }
    Ok(enough.saturating_sub(1))
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
