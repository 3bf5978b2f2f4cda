//! Teacher-forced log-probabilities of given responses.

use crate::comm::Communicator;
use crate::model::{LanguageModel, ModelLoader, PromptEncoder, Sequence, hash_model, hash_prompt_files};
use crate::sampling::hash_examples;
use crate::tasks::Task;
use crate::tasks::reference_sequence;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::ops::Range;
use std::path::Path;

/// A record's response under a model: a line of the output of `jigsaw score`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResponseScore {
    /// Id of the record.
    pub id: String,
    /// Tokens of the response and the closing `<|im_end|>`.
    pub token_ids: Vec<u32>,
    /// `log pi(token | prompt, tokens before)` of each, natural logarithm, temperature 1.
    pub logprobs: Vec<f32>,
    /// exp(-mean of `logprobs`).
    pub ppl: f64,
}

impl ResponseScore {
    fn new(id: String, token_ids: Vec<u32>, logprobs: Vec<f32>) -> Result<Self> {
        if logprobs.len() != token_ids.len() || logprobs.is_empty() {
            return Err(Error::failed(format!(
                "record {id}: {} log-probabilities for {} response tokens",
                logprobs.len(),
                token_ids.len()
            )));
        }
        if let Some(at) = logprobs.iter().position(|p| !p.is_finite()) {
            return Err(Error::failed(format!(
                "record {id}: the log-probability of response token {at} is {}; are the model's weights finite?",
                logprobs[at]
            )));
        }
        let mean = logprobs.iter().map(|&p| f64::from(p)).sum::<f64>() / logprobs.len() as f64;
        Ok(ResponseScore { id, token_ids, logprobs, ppl: (-mean).exp() })
    }
}

/// Ids of the records that have no assistant response, and so nothing to score.
pub fn missing_responses(task: &dyn Task) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for i in 0..task.len() {
        let record = task.example(i)?;
        if record.response().is_none() {
            missing.push(record.id.clone());
        }
    }
    Ok(missing)
}

/// See that all ranks are about to score the same responses under the same model. A process alone has nothing to compare, and reads nothing for it.
pub fn check_ranks(
    comm: &dyn Communicator,
    model: &Path,
    loader: &ModelLoader,
    task: &dyn Task,
    batch_size: usize,
) -> Result<()> {
    if comm.world_size() == 1 {
        return Ok(());
    }
    let mut responses = crc32fast::Hasher::new();
    for i in 0..task.len() {
        responses.update(task.example(i)?.response().unwrap_or_default().as_bytes());
    }
    comm.check_same(&json!({
        "model": hash_model(model)?,
        "tokenizer and templates": hash_prompt_files(model)?,
        "prompts": hash_examples(task, task.len())?.0,
        "responses": responses.finalize(),
        "batch size": batch_size,
        "dtype": loader.compute(),
        "on a CPU": loader.device().is_cpu(),
    }))
}

/// Score the assistant responses of `examples` given their prompts, in one batch.
pub fn score_responses(
    policy: &dyn LanguageModel,
    codec: &dyn PromptEncoder,
    task: &dyn Task,
    examples: Range<usize>,
) -> Result<Vec<ResponseScore>> {
    let batch = examples.clone().map(|i| reference_sequence(task, codec, i)).collect::<Result<Vec<Sequence>>>()?;
    let stats = policy.score(&batch, 1.0)?;
    let expected: usize = batch.iter().map(|s| s.response.len()).sum();
    if stats.logprobs.len() != expected {
        return Err(Error::failed(format!("{} log-probabilities for {expected} tokens", stats.logprobs.len())));
    }
    let mut rest = stats.logprobs.as_slice();
    let mut scores = Vec::with_capacity(examples.len());
    for (i, sequence) in examples.zip(batch) {
        let (own, after) = rest.split_at(sequence.response.len());
        rest = after;
        scores.push(ResponseScore::new(task.example(i)?.id.clone(), sequence.response, own.to_vec())?);
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perplexity_is_the_inverse_geometric_mean_of_the_probabilities() {
        let score = ResponseScore::new("a".into(), vec![1, 2], vec![0.5_f32.ln(), 0.125_f32.ln()]).unwrap();
        assert!((score.ppl - 4.0).abs() < 1e-6, "{}", score.ppl);
    }

    #[test]
    fn a_log_probability_that_is_no_number_is_an_error_naming_the_record() {
        let error = ResponseScore::new("puzzle-7".into(), vec![1, 2], vec![-1.0, f32::NAN]).unwrap_err();
        assert!(error.to_string().contains("puzzle-7") && error.to_string().contains("token 1"), "{error}");
        assert!(ResponseScore::new("b".into(), vec![1], vec![]).is_err());
    }
}
