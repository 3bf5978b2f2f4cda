//! What a run will hold in memory, said before it starts.

use super::trainer::Job;
use crate::config::{Config, Method};
use crate::files::megabytes;
use crate::model::{Prompt, Sequence};
use crate::nn::Parameter;
use crate::policy::{reference_response, reference_sequence};
use crate::tasks::Task;
use crate::{Error, Result};
use rayon::prelude::*;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// What the memory that an example takes goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Tokens of its prompt and its response; of a response still to be sampled, as many as it may get.
    pub tokens: usize,
    /// Patches of its images.
    pub patches: usize,
}

/// The sizes of the training examples; images are not decoded for it. Without a limit of length to check, and of many examples, only of
/// those that are likely to be among the largest (see [`likely`]): the others are left at 0, so that a run begins at once.
pub(super) fn sizes(job: &Job<'_>) -> Result<Vec<Size>> {
    let (own, replayed) = (job.own(), job.config.replayed_per_round());
    let wanted = match job.config.train.max_length {
        0 => {
            let of_own = likely(job.train, 0..own, job.config.examples_per_round() - replayed);
            of_own.into_iter().chain(likely(job.train, own..job.train.len(), replayed)).collect()
        }
        _ => (0..job.train.len()).collect::<Vec<usize>>(),
    };
    let size = |i: usize| -> Result<Size> {
        let response = match sampled(job, i) {
            Some(new) => new,
            None => reference_response(job.train, job.codec, i)?.len(),
        };
        let (prompt, patches) = job.codec.prompt_size(job.train, i)?;
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
fn likely(task: &dyn Task, range: Range<usize>, count: usize) -> Vec<usize> {
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
fn sampled(job: &Job<'_>, i: usize) -> Option<usize> {
    job.config.rollout.as_ref().filter(|_| i < job.sampled()).map(|rollout| rollout.max_new_tokens)
}

/// An example with its response, or, of one still to be sampled, the longest there may be.
fn at_most(job: &Job<'_>, i: usize) -> Result<Sequence> {
    match sampled(job, i) {
        Some(new) => Ok(Sequence { prompt: job.codec.prompt(job.train, i)?, response: vec![0; new] }),
        None => reference_sequence(job.train, job.codec, i),
    }
}

/// The examples of the largest round that there may be, largest first: of the first `own` ones and of the replayed ones after them as
/// many as a round of `each` takes. Where rounds run over the end of an epoch, they may hold an example twice.
fn largest_round(sizes: &[Size], own: usize, each: [usize; 2], by: fn(&Size) -> usize) -> Vec<usize> {
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

/// Bytes by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MemoryPlan {
    /// What the process holds before training, but for weights: the program, its tokenizer, the list of examples.
    pub program: usize,
    /// Weights of the model, and of the reference model if there is one.
    pub weights: usize,
    /// Gradients, those that the lanes of a small model hold for themselves among them.
    pub gradients: usize,
    /// AdamW's two moments.
    pub moments: usize,
    /// Examples of the current step and of the next.
    pub examples: usize,
    /// What the forward pass keeps for the backward pass, and what that adds.
    pub activations: usize,
    /// Rollouts and evaluation: caches of keys and values, prefill, logits.
    pub generation: usize,
}

impl MemoryPlan {
    /// The plan of a run over the examples of these `sizes`, with the largest of them in one round: those of the most tokens and patches
    /// together, of the most tokens, or of the most patches, whichever take the most. `held` is what the process holds now, before any
    /// of them was made ready, and `resumed` says that the moments are part of it.
    ///
    /// # Errors
    /// An example that cannot be made ready.
    pub fn largest(job: &Job<'_>, sizes: &[Size], held: usize, resumed: bool) -> Result<Self> {
        let replayed = job.config.replayed_per_round();
        let each = [job.config.examples_per_round() - replayed, replayed];
        let by: [fn(&Size) -> usize; 3] = [|size| size.tokens + size.patches, |size| size.tokens, |size| size.patches];
        let evaluated = evaluated(job)?;
        let mut rounds = by.map(|by| largest_round(sizes, job.own(), each, by)).to_vec();
        rounds.dedup();
        let plans = rounds.iter().map(|round| {
            let examples = round.par_iter().map(|&i| at_most(job, i)).collect::<Vec<Result<_>>>();
            Ok(MemoryPlan::of(job, &examples.into_iter().collect::<Result<Vec<_>>>()?, &evaluated, held, resumed))
        });
        let plans = plans.collect::<Result<Vec<MemoryPlan>>>()?;
        plans.into_iter().max_by_key(MemoryPlan::total).ok_or_else(|| Error::failed("a memory plan of no examples"))
    }

    /// The plan of a run whose rounds have the examples `first`, with responses as long as they may get, and whose evaluations have the
    /// prompts `evaluated` at a time.
    fn of(job: &Job<'_>, first: &[Sequence], evaluated: &[Arc<Prompt>], held: usize, resumed: bool) -> Self {
        let config = job.config;
        let bytes = |p: &Arc<Parameter>| p.var.elem_count() * p.var.dtype().size_in_bytes();
        let trained: usize = job.policy.parameters().iter().filter(|p| p.trainable()).map(bytes).sum();
        let models = [Some(job.policy), job.reference];
        // Models may share weights.
        let mut seen = HashSet::new();
        let all = models.into_iter().flatten().flat_map(|m| m.parameters());
        let weights: usize = all.filter(|p| seen.insert(Arc::as_ptr(p))).map(bytes).sum();
        let loaded = weights + if resumed { 2 * trained } else { 0 };
        let (activations, apart) = job.policy.backward_bytes(&micro_batch(config, first));
        let pixels = |s: &Sequence| s.prompt.images.iter().map(|image| 4 * image.patches.len()).sum::<usize>();
        MemoryPlan {
            program: held.saturating_sub(loaded),
            weights,
            gradients: trained + apart,
            moments: 2 * trained,
            examples: 2 * first.iter().map(pixels).sum::<usize>(),
            activations,
            generation: generation(job, first, evaluated),
        }
    }

    /// The highest sum. Activations and generation never happen at the same time, but blocks freed by the one seldom have the
    /// sizes that the other asks for, and stay with the process.
    pub fn total(&self) -> usize {
        self.program + self.weights + self.gradients + self.moments + self.examples + self.activations + self.generation
    }
}

/// The sequences of the first forward and backward.
fn micro_batch(config: &Config, first: &[Sequence]) -> Vec<Sequence> {
    let first = &first[..first.len().min(config.train.batch_size)];
    match (&config.rollout, config.train.method) {
        (Some(rollout), Method::Rft) => {
            first.iter().flat_map(|s| std::iter::repeat_n(s.clone(), rollout.samples)).collect()
        }
        _ => first.to_vec(),
    }
}

/// The prompts of the largest batch of the evaluations on the way, if there are any.
fn evaluated(job: &Job<'_>) -> Result<Vec<Arc<Prompt>>> {
    let settings = &job.config.eval;
    let Some(task) = job.validation.filter(|_| settings.every > 0) else { return Ok(Vec::new()) };
    let count = if settings.samples == 0 { task.len() } else { settings.samples.min(task.len()) };
    let wanted = likely(task, 0..count, settings.batch_size);
    let size = |&i: &usize| job.codec.prompt_size(task, i).map(|(tokens, patches)| (tokens + patches, i));
    let sizes = wanted.par_iter().map(size).collect::<Vec<Result<_>>>();
    let mut largest = sizes.into_iter().collect::<Result<Vec<(usize, usize)>>>()?;
    largest.sort_by_key(|&(size, i)| (Reverse(size), i));
    largest.into_iter().take(settings.batch_size).map(|(_, i)| job.codec.prompt(task, i)).collect()
}

/// The larger of rollouts and evaluation.
fn generation(job: &Job<'_>, first: &[Sequence], evaluated: &[Arc<Prompt>]) -> usize {
    let config = job.config;
    let rollouts = config.rollout.as_ref().map_or(0, |r| {
        let at_once = if r.batch_size == 0 { first.len() } else { r.batch_size.min(first.len()) };
        let prompts: Vec<Arc<Prompt>> = first[..at_once].iter().map(|s| s.prompt.clone()).collect();
        job.policy.generate_bytes(&prompts, r.samples, r.max_new_tokens)
    });
    let evaluation = match evaluated {
        [] => 0,
        prompts => job.policy.generate_bytes(prompts, 1, config.eval.max_new_tokens),
    };
    rollouts.max(evaluation)
}

impl std::fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "memory: about {} at most", megabytes(self.total()))?;
        let parts = [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("moments", self.moments),
            ("activations", self.activations),
            ("generation", self.generation),
            ("examples", self.examples),
            ("program", self.program),
        ];
        let shown: Vec<String> = parts
            .into_iter()
            .filter(|(_, bytes)| *bytes > 0)
            .map(|(name, bytes)| format!("{name} {}", megabytes(bytes)))
            .collect();
        write!(f, " ({})", shown.join(", "))
    }
}

/// A memory figure of this process in bytes, by its name in Linux's `/proc/self/status`: `VmRSS` now, `VmHWM` at its highest.
pub fn process_memory(name: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(1024 * line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Record;
    use crate::tasks::Score;

    #[test]
    fn the_total_counts_everything_and_the_text_names_every_part() {
        let plan = MemoryPlan {
            program: 20_000_000,
            weights: 200_000_000,
            gradients: 200_000_000,
            moments: 400_000_000,
            examples: 0,
            activations: 300_000_000,
            generation: 100_000_000,
        };
        assert_eq!(plan.total(), 1_220_000_000);
        let text = plan.to_string();
        assert!(text.starts_with("memory: about 1.22 GB at most (weights 200 MB, gradients 200 MB"), "{text}");
        assert!(text.contains("generation 100 MB") && !text.contains("examples"), "{text}");
    }

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
        let found = likely(&task, 100..1000, 8);
        assert!(found.contains(&700) && found.contains(&900), "{found:?}");
        assert!(found.len() <= 128 && found.iter().all(|i| (100..1000).contains(i)), "{}", found.len());
        assert_eq!(likely(&task, 0..100, 8).len(), 100);
        assert!(likely(&task, 0..1000, 8).contains(&900));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_knows_its_memory() {
        let (now, highest) = (process_memory("VmRSS").unwrap(), process_memory("VmHWM").unwrap());
        assert!(now > 1 << 20 && highest >= now);
        assert_eq!(process_memory("VmNothing"), None);
    }
}
