//! Which examples of a dataset are its largest, by which a run's memory is planned.

use super::trainer::TrainJob;
use crate::Result;
use crate::model::PromptSize;
use crate::model::Sequence;
use crate::tasks::Task;
use crate::tasks::example_size;
use crate::tasks::meta_example;
use crate::tasks::reference_response;
use rayon::prelude::*;
use std::cmp::Reverse;
use std::ops::Range;

/// What the memory that an example takes goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Tokens of its prompt and its response; of a response still to be sampled, as many as it may get.
    pub tokens: usize,
    /// Patches of its images.
    pub patches: usize,
}

/// The sizes of the training examples; images are not decoded for it. Without a limit of length to check, and of many examples, only of
/// those that are largest_candidates to be among the largest (see [`largest_candidates`]): the others are left at 0, so that a run begins at once.
pub(super) fn sizes(job: &TrainJob<'_>) -> Result<Vec<Size>> {
    let (own, replayed) = (job.own(), job.config.replayed_per_round());
    let wanted = match job.config.train.max_length {
        0 => {
            let of_own = largest_candidates(job.train, 0..own, job.config.examples_per_round() - replayed);
            of_own.into_iter().chain(largest_candidates(job.train, own..job.train.len(), replayed)).collect()
        }
        _ => (0..job.train.len()).collect::<Vec<usize>>(),
    };
    let size = |i: usize| -> Result<Size> {
        let response = match sampled(job, i) {
            Some(new) => new,
            None => reference_response(job.train, job.codec, i)?.len(),
        };
        let PromptSize { tokens: prompt, patches } = example_size(job.train, job.codec, i)?;
        Ok(Size { tokens: prompt + response, patches })
    };
    let found = wanted.par_iter().map(|&i| size(i)).collect::<Vec<Result<_>>>();
    let mut sizes = vec![Size::default(); job.train.len()];
    for (i, size) in wanted.into_iter().zip(found) {
        sizes[i] = size?;
    }
    Ok(sizes)
}

/// The examples of `range` that may be among the `count` largest, by the bytes of their text and by the pixels of their images: four times
/// as many of either, and all of few.
pub(super) fn largest_candidates(task: &dyn Task, range: Range<usize>, count: usize) -> Vec<usize> {
    let most = (4 * count).max(64);
    if range.len() <= 2 * most {
        return range.collect();
    }
    // What cannot be read is told when its turn comes.
    let look = |i: usize| {
        let text = task.example(i).map_or(0, |record| record.messages.iter().map(|m| m.content.len()).sum::<usize>());
        let area = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
        (text, task.image_sizes(i).map_or(0, |sizes| sizes.into_iter().map(area).sum::<u64>()))
    };
    let looks: Vec<(usize, u64)> = range.clone().into_par_iter().map(look).collect();
    let mut by_text: Vec<usize> = (0..looks.len()).collect();
    let mut by_area = by_text.clone();
    by_text.sort_by_key(|&i| Reverse(looks[i].0));
    by_area.sort_by_key(|&i| Reverse(looks[i].1));
    let mut found: Vec<usize> = by_text.into_iter().take(most).chain(by_area.into_iter().take(most)).collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(|i| range.start + i).collect()
}

/// The most tokens of the model's own response to an example, if it is to give one.
fn sampled(job: &TrainJob<'_>, i: usize) -> Option<usize> {
    job.config.rollout.as_ref().filter(|_| i < job.sampled()).map(|rollout| rollout.max_new_tokens)
}

/// An example with its response, or, of one still to be sampled, the longest there may be; without pixels.
pub(super) fn upper_bound(job: &TrainJob<'_>, i: usize) -> Result<Sequence> {
    match sampled(job, i) {
        Some(new) => Ok(Sequence { prompt: meta_example(job.train, job.codec, i)?, response: vec![0; new] }),
        None => {
            let response = reference_response(job.train, job.codec, i)?;
            Ok(Sequence { prompt: meta_example(job.train, job.codec, i)?, response })
        }
    }
}

/// The examples of the largest round that there may be, largest first: of the first `own` ones and of the replayed ones after them as
/// many as a round of `each` takes. Where rounds run over the end of an epoch, they may hold an example twice.
pub(super) fn largest_round(sizes: &[Size], own: usize, each: [usize; 2], by: fn(&Size) -> usize) -> Vec<usize> {
    let part = |range: Range<usize>, count: usize| -> Vec<usize> {
        let times = if range.len().is_multiple_of(count) { 1 } else { 2 };
        let mut examples: Vec<usize> = range.collect();
        examples.sort_by_key(|&i| Reverse(by(&sizes[i])));
        examples.iter().flat_map(|&i| std::iter::repeat_n(i, times)).cycle().take(count).collect()
    };
    let mut round = [part(0..own, each[0]), part(own..sizes.len(), each[1])].concat();
    round.sort_by_key(|&i| Reverse(by(&sizes[i])));
    round
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::data::Record;
    use crate::tasks::Score;

    #[test]
    fn the_largest_round_has_the_largest_examples_wherever_they_stand() {
        let size = |(tokens, patches)| Size { tokens, patches };
        let sizes = [(10, 16), (9, 400), (700, 0), (8, 8), (5, 5), (90, 64)].map(size);
        let all = |each: usize, by: fn(&Size) -> usize| largest_round(&sizes, 6, [each, 0], by);
        assert_eq!(all(3, |s| s.tokens + s.patches), [2, 1, 5]);
        assert_eq!(all(2, |s| s.tokens), [2, 5]);
        assert_eq!(all(1, |s| s.patches), [1]);
        // Rounds of 4 run over the end of an epoch of 6; one of 12 has each example twice.
        assert_eq!(all(4, |s| s.tokens), [2, 2, 5, 5]);
        assert_eq!(all(12, |s| s.tokens).iter().filter(|i| **i == 2).count(), 2);
        // The last two are replayed, one a round.
        assert_eq!(largest_round(&sizes, 4, [2, 1], |s| s.tokens), [2, 5, 0]);
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

        fn example(&self, i: usize) -> Result<&Record> {
            Ok(&self.0[i])
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
        let found = largest_candidates(&task, 100..1000, 8);
        assert!(found.contains(&700) && found.contains(&900), "{found:?}");
        assert!(found.len() <= 128 && found.iter().all(|i| (100..1000).contains(i)), "{}", found.len());
        assert_eq!(largest_candidates(&task, 0..100, 8).len(), 100);
        assert!(largest_candidates(&task, 0..1000, 8).contains(&900));
    }
}
