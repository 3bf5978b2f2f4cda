//! A batch of prompts: its responses, scored.

use super::responder::{Prompts, Responder, SampleOptions};
use super::response::{Response, ScoredResponse};
use crate::tasks::Score;
use crate::{Error, Result};

/// Sample `options.num_generations` responses to each prompt, and score them by the task: `[prompt][sample]`.
///
/// # Errors
/// See [`Responder::respond`].
pub fn sample(
    responder: &dyn Responder,
    prompts: &Prompts<'_>,
    options: &SampleOptions<'_>,
) -> Result<Vec<Vec<ScoredResponse>>> {
    let Prompts { task, examples, .. } = *prompts;
    let groups = responder.respond(prompts, options)?;
    if groups.len() != examples.len() || groups.iter().any(|group| group.len() != options.num_generations) {
        return Err(Error::failed(format!(
            "{} groups of responses for {} examples with {} samples each",
            groups.len(),
            examples.len(),
            options.num_generations
        )));
    }
    let score = |(&index, group): (&usize, Vec<Response>)| {
        let id = &task.example(index)?.id;
        let score = |(sample, generated): (usize, Response)| ScoredResponse {
            index,
            id: id.clone(),
            sample,
            score: match generated.no_answer {
                Some(why) => Score::without_answer(why),
                None => task.score(index, &generated.text),
            },
            response: generated.text,
            tokens: generated.tokens,
            finished: generated.finished,
            token_ids: generated.token_ids,
            logprobs: generated.logprobs,
        };
        Ok(group.into_iter().enumerate().map(score).collect())
    };
    examples.iter().zip(groups).map(score).collect()
}

/// As [`sample`], `batch_size` prompts at a time. The number of the batch, from 0, is added to the position in the random stream.
///
/// # Errors
/// See [`sample`].
pub fn sample_in_batches(
    responder: &dyn Responder,
    prompts: &Prompts<'_>,
    options: &SampleOptions<'_>,
    batch_size: usize,
) -> Result<Vec<Vec<ScoredResponse>>> {
    let mut all = Vec::with_capacity(prompts.examples.len());
    for (batch, prompts) in prompts.batches(batch_size).enumerate() {
        let (name, position) = options.stream;
        let position = [position, &[batch as u64]].concat();
        all.extend(sample(responder, &prompts, &SampleOptions { stream: (name, &position), ..*options })?);
    }
    Ok(all)
}
