//! Sizes of the training examples: the largest decide how much memory a run takes, and whether an example is too long.

use super::batch_sampler::BatchSampler;
use super::job::{ExampleId, TrainJob};
use super::optimizer::name_some;
use crate::data::Cursor;
use crate::model::PromptSize;
use crate::tasks::{Task, example_size, named, reference_response, text_bytes};
use crate::train::settings::RolloutSettings;
use crate::{Error, Result};
use rayon::prelude::*;
use std::cmp::Reverse;

/// What the memory that an example takes depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExampleSize {
    /// Which example.
    pub id: ExampleId,
    /// Its prompt.
    pub prompt: PromptSize,
    /// Tokens of its response; of one that is still to be sampled, as many as it may get.
    pub response: usize,
}

impl ExampleSize {
    /// Tokens of prompt and response.
    pub fn tokens(&self) -> usize {
        self.prompt.tokens + self.response
    }
}

/// The sizes of the training examples. No image is decoded. With `train.max_length` all examples are measured; otherwise, of many examples,
/// only the [`largest_candidates`], so that a run starts at once.
pub(super) fn example_sizes(job: &TrainJob<'_>) -> Result<Vec<ExampleSize>> {
    let replayed = job.config.replayed_per_round();
    let prior = job.prior.map_or(Vec::new(), |prior| match job.config.train.max_length {
        0 => largest_candidates(prior, prior_per_step(job)),
        _ => (0..prior.measured()).collect(),
    });
    let ids: Vec<ExampleId> = match job.config.train.max_length {
        0 => {
            let own = largest_candidates(job.train, job.config.examples_per_round() - replayed);
            let replay = job.replay.map_or(Vec::new(), |replay| largest_candidates(replay, replayed));
            own.into_iter().map(ExampleId::Dataset).chain(replay.into_iter().map(ExampleId::Replay)).collect()
        }
        _ => job.examples().collect(),
    };
    let ids = ids.into_iter().chain(prior.into_iter().map(ExampleId::Prior)).collect();
    sizes(job, ids, |rollout, _| rollout.max_new_tokens)
}

/// Rounds that [`first_rounds`] looks at.
const FIRST_ROUNDS: usize = 8;

/// The examples of a run's first rounds, in the order of its sampler, whose sampled responses are as long as the reference responses where
/// there are any, and as they may get at most elsewhere.
pub(super) fn first_rounds(job: &TrainJob<'_>) -> Result<Vec<Vec<ExampleSize>>> {
    let per_round = job.config.examples_per_round();
    let steps = job.config.total_steps(job.train.len());
    let rounds = steps.div_ceil(job.config.steps_per_round()).clamp(1, FIRST_ROUNDS);
    let mut sampler = BatchSampler::of_job(job, Cursor::default(), None)?;
    let per_step = job.config.examples_per_step();
    let ids = (0..rounds * per_round / per_step).flat_map(|_| sampler.next_batch(per_step)).collect();
    let found = sizes(job, ids, |rollout, reference| reference.unwrap_or(usize::MAX).min(rollout.max_new_tokens))?;
    Ok(found.chunks(per_round).map(<[ExampleSize]>::to_vec).collect())
}

/// The sizes of examples. `sampled` gives the length of a response that is still to be sampled, from the length of the reference response.
fn sizes(
    job: &TrainJob<'_>,
    ids: Vec<ExampleId>,
    sampled: impl Fn(&RolloutSettings, Option<usize>) -> usize + Sync,
) -> Result<Vec<ExampleSize>> {
    let size = |id: ExampleId| -> Result<ExampleSize> {
        let (task, i) = job.locate(id)?;
        let rollout = job.config.rollout.as_ref().filter(|_| job.is_sampled(id));
        check_bytes(job, task, i, rollout.is_none())?;
        let reference = || reference_response(task, job.encoder, i).map(|tokens| tokens.len());
        let response = match rollout {
            Some(rollout) => sampled(rollout, reference().ok()),
            None => reference()?,
        };
        Ok(ExampleSize { id, prompt: example_size(task, job.encoder, i)?, response })
    };
    ids.into_par_iter().map(size).collect::<Vec<Result<_>>>().into_iter().collect()
}

/// Refuse an example that has more bytes of text than `train.max_length` tokens can have: tokenising it could take more memory than the run.
fn check_bytes(job: &TrainJob<'_>, task: &dyn Task, i: usize, with_response: bool) -> Result<()> {
    let limit = job.config.train.max_length;
    if limit == 0 {
        return Ok(());
    }
    let (bytes, most) = (text_bytes(task, i, with_response)?, job.encoder.most_text_bytes(limit));
    if bytes <= most {
        return Ok(());
    }
    let why = format!(
        "{bytes} bytes of text are more than train.max_length = {limit} tokens can have ({most} bytes); raise it, or leave the example out"
    );
    Err(named(Error::input(why), task, i))
}

/// Refuse examples longer than `train.max_length`, by id.
pub(super) fn check_lengths(job: &TrainJob<'_>, sizes: &[ExampleSize]) -> Result<()> {
    let limit = job.config.train.max_length;
    let too_long = sizes.iter().filter(|size| limit > 0 && size.tokens() > limit);
    let long = too_long
        .map(|size| Ok(format!("{} ({})", job.record(size.id)?.id, size.tokens())))
        .collect::<Result<Vec<String>>>()?;
    if long.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = long.iter().map(String::as_str).collect();
    Err(Error::input(format!(
        "{} examples are longer than train.max_length = {limit} tokens: {}; raise it, make the images smaller, or leave them out",
        long.len(),
        name_some(&names)
    )))
}

/// The examples of a task that may be among its `count` largest, judged by the bytes of their text and by the pixels of their images: four
/// times as many of either, and all if there are few.
pub(super) fn largest_candidates(task: &dyn Task, count: usize) -> Vec<usize> {
    candidates_among(task, task.measured(), count)
}

/// As [`largest_candidates`], of the first `len` examples.
pub(super) fn candidates_among(task: &dyn Task, len: usize, count: usize) -> Vec<usize> {
    let most = count.saturating_mul(4).max(64);
    if len / 2 <= most {
        return (0..len).collect();
    }
    // An example that cannot be read is reported when it is trained on.
    let measured: Vec<(usize, u64)> = (0..len).into_par_iter().map(|i| task.rough_size(i)).collect();
    let largest = |by: fn(&(usize, u64)) -> u64| {
        let mut order: Vec<usize> = (0..len).collect();
        order.select_nth_unstable_by_key(most, |&i| (Reverse(by(&measured[i])), i));
        order.truncate(most);
        order
    };
    let mut found = [largest(|&(text, _)| text as u64), largest(|&(_, area)| area)].concat();
    found.sort_unstable();
    found.dedup();
    found
}

/// The examples of the largest possible round, largest first: `own` examples of the dataset and `replayed` ones. Where rounds run over the
/// end of an epoch, they can hold an example twice; `own_len` and `replay_len` are the lengths of the epochs.
pub(super) fn largest_round(
    sizes: &[ExampleSize],
    [own, replayed]: [usize; 2],
    [own_len, replay_len]: [usize; 2],
    by: fn(&ExampleSize) -> usize,
) -> Vec<ExampleSize> {
    let part = |is_part: fn(&ExampleId) -> bool, len: usize, count: usize| -> Vec<ExampleSize> {
        let times = if len.is_multiple_of(count) { 1 } else { 2 };
        let mut part: Vec<ExampleSize> = sizes.iter().copied().filter(|s| is_part(&s.id)).collect();
        part.sort_by_key(|size| Reverse(by(size)));
        part.iter().flat_map(|&size| std::iter::repeat_n(size, times)).cycle().take(count).collect()
    };
    let own = part(|id| matches!(id, ExampleId::Dataset(_)), own_len, own);
    let mut round = [own, part(|id| matches!(id, ExampleId::Replay(_)), replay_len, replayed)].concat();
    round.sort_by_key(|size| Reverse(by(size)));
    round
}

/// Examples of the KL penalty in a step.
pub(super) fn prior_per_step(job: &TrainJob<'_>) -> usize {
    job.config.prior_kl.as_ref().map_or(0, |prior| prior.batch_size)
}

/// The largest examples of the KL penalty that go through the model together, largest first.
pub(super) fn largest_prior(
    job: &TrainJob<'_>,
    sizes: &[ExampleSize],
    by: fn(&ExampleSize) -> usize,
) -> Vec<ExampleSize> {
    let mut prior: Vec<ExampleSize> = sizes.iter().copied().filter(|s| matches!(s.id, ExampleId::Prior(_))).collect();
    prior.sort_by_key(|size| Reverse(by(size)));
    let at_once = prior_per_step(job).min(job.config.train.batch_size);
    prior.into_iter().cycle().take(at_once).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::data::Record;
    use crate::tasks::Score;

    #[test]
    fn the_largest_round_has_the_largest_examples_wherever_they_stand() {
        let prompt = |tokens, patches| PromptSize { tokens, patches, largest_image: patches };
        let size = |(i, (tokens, patches))| ExampleSize {
            id: ExampleId::Dataset(i),
            prompt: prompt(tokens, patches),
            response: 0,
        };
        let numbers = [(10, 16), (9, 400), (700, 0), (8, 8), (5, 5), (90, 64)];
        let sizes: Vec<ExampleSize> = numbers.into_iter().enumerate().map(size).collect();
        let index = |size: ExampleSize| match size.id {
            ExampleId::Dataset(i) => i,
            ExampleId::Replay(i) => 100 + i,
            ExampleId::Prior(i) => 200 + i,
        };
        let all = |count: usize, by: fn(&ExampleSize) -> usize| -> Vec<usize> {
            largest_round(&sizes, [count, 0], [6, 0], by).into_iter().map(index).collect()
        };
        assert_eq!(all(3, |s| s.tokens() + s.prompt.patches), [2, 1, 5]);
        assert_eq!(all(2, |s| s.tokens()), [2, 5]);
        assert_eq!(all(1, |s| s.prompt.patches), [1]);
        // Rounds of 4 run over the end of an epoch of 6; one of 12 has each example twice.
        assert_eq!(all(4, |s| s.tokens()), [2, 2, 5, 5]);
        assert_eq!(all(12, |s| s.tokens()).iter().filter(|i| **i == 2).count(), 2);
        // The last two are replayed, one a round. Those of the KL penalty have a pass of their own.
        let mut sizes = sizes.clone();
        sizes.push(ExampleSize { id: ExampleId::Prior(0), ..sizes[2] });
        (sizes[4].id, sizes[5].id) = (ExampleId::Replay(0), ExampleId::Replay(1));
        let round = largest_round(&sizes, [2, 1], [4, 2], |s| s.tokens());
        assert_eq!(round.into_iter().map(index).collect::<Vec<_>>(), [2, 101, 0]);
    }

    /// A thousand examples: the longest text is that of 700, the largest image that of 900, and that of 5 cannot be read.
    struct Many(Vec<Record>);

    impl Task for Many {
        fn name(&self) -> &str {
            "many"
        }

        fn len(&self) -> usize {
            self.0.len()
        }

        fn example(&self, i: usize) -> Result<std::borrow::Cow<'_, Record>> {
            Ok(std::borrow::Cow::Borrowed(&self.0[i]))
        }

        fn images(&self, i: usize) -> Result<Vec<image::RgbImage>> {
            match i {
                5 => Err(Error::input("unreadable")),
                900 => Ok(vec![image::RgbImage::new(90, 90)]),
                _ => Ok(vec![image::RgbImage::new(8, 8)]),
            }
        }

        fn score(&self, _: usize, _: &str) -> Score {
            unreachable!("nothing is scored")
        }
    }

    #[test]
    fn of_many_examples_those_of_the_longest_text_and_the_largest_images_are_looked_at() {
        let record = |i: usize| -> Record {
            let content = "word ".repeat(if i == 700 { 50 } else { 5 });
            serde_json::from_value(serde_json::json!({
                "file_name": "", "id": i.to_string(), "task": "many", "messages": [{"role": "user", "content": content}], "images": [],
                "answer": "", "source": "", "seed": 0
            }))
            .unwrap()
        };
        let task = Many((0..1000).map(record).collect());
        let found = largest_candidates(&task, 8);
        assert!(found.contains(&700) && found.contains(&900), "{found:?}");
        assert!(found.len() <= 128 && found.iter().all(|i| (0..1000).contains(i)), "{}", found.len());
        assert_eq!(candidates_among(&task, 100, 8).len(), 100);
        assert!(!candidates_among(&task, 800, 8).contains(&900));
    }
}
