//! How much memory a run takes: what `jigsaw train` says before it starts, and what `--dry-run` compares with the machine.

use super::example_sizes::{ExampleSize, candidates_among, largest_round, upper_bound};
use super::job::TrainJob;
use super::optimizer::DEVICE_PIECE;
use crate::io::files::format_bytes;
use crate::machine;
use crate::model::{BackwardBytes, Prompt, Sequence};
use crate::nn::Parameter;
use crate::tasks::{example_size, meta_example};
use crate::train::settings::Method;
use crate::{Error, Result};
use rayon::prelude::*;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

/// What CUDA and its libraries take of a GPU for themselves: the usual size on today's cards, not measured here.
const CUDA_CONTEXT: usize = 600 << 20;
/// Tensors that an optimizer step in candle ops makes of each piece.
const OPTIMIZER_TENSORS: usize = 8;

/// Bytes by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MemoryPlan {
    /// Of a GPU's memory, not of the machine's.
    pub gpu: bool,
    /// What the process holds before training, but for weights: the program, its tokenizer, the list of examples; on a GPU what CUDA
    /// takes for itself.
    pub program: usize,
    /// Weights of the model, and of the reference model if there is one.
    pub weights: usize,
    /// Working copies of the weights in bf16.
    pub copies: usize,
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
    /// The plan of a run whose examples have these `sizes`, for its largest round: that of the examples with the most tokens and patches
    /// together, the most tokens, or the most patches, whichever takes the most. `held` is what the process holds now, before any
    /// example was encoded; `resumed` says that the moments are part of it.
    ///
    /// # Errors
    /// An example that cannot be encoded.
    pub fn of_run(job: &TrainJob<'_>, sizes: &[ExampleSize], held: usize, resumed: bool) -> Result<Self> {
        let replayed = job.config.replayed_per_round();
        let counts = [job.config.examples_per_round() - replayed, replayed];
        let lens = [job.train.len(), job.replay.map_or(0, |replay| replay.len())];
        let by: [fn(&ExampleSize) -> usize; 3] = [|s| s.tokens + s.patches, |s| s.tokens, |s| s.patches];
        let evaluated = evaluated(job)?;
        let mut rounds = by.map(|by| largest_round(sizes, counts, lens, by)).to_vec();
        rounds.dedup();
        let plans = rounds.iter().map(|round| {
            let examples = round.par_iter().map(|&id| upper_bound(job, id)).collect::<Vec<Result<_>>>();
            Ok(MemoryPlan::of_round(job, &examples.into_iter().collect::<Result<Vec<_>>>()?, &evaluated, held, resumed))
        });
        let plans = plans.collect::<Result<Vec<MemoryPlan>>>()?;
        plans.into_iter().max_by_key(MemoryPlan::total).ok_or_else(|| Error::failed("a memory plan of no examples"))
    }

    /// The plan of a run whose rounds have the examples `round`, with the longest possible responses, and whose evaluations have the
    /// prompts `evaluated` at a time.
    fn of_round(job: &TrainJob<'_>, round: &[Sequence], evaluated: &[Arc<Prompt>], held: usize, resumed: bool) -> Self {
        let bytes = |p: &Arc<Parameter>| p.bytes().0;
        let trained: usize = job.model.parameters().iter().filter(|p| p.trainable()).map(bytes).sum();
        let models = [Some(job.model), job.reference];
        // Models may share weights.
        let mut seen = HashSet::new();
        let all = models.into_iter().flatten().flat_map(|m| m.parameters());
        let (weights, copies) = all
            .filter(|p| seen.insert(Arc::as_ptr(p)))
            .map(|p| p.bytes())
            .fold((0, 0), |(weights, copies), (value, copy)| (weights + value, copies + copy));
        let loaded = weights + copies + if resumed { 2 * trained } else { 0 };
        let footprint = job.model.memory_footprint();
        let BackwardBytes { activations, thread_gradients } =
            footprint.map(|footprint| footprint.backward_bytes(&micro_batch(job, round))).unwrap_or_default();
        if footprint.is_some_and(|footprint| !footprint.uses_cpu_kernels()) {
            // Examples wait in main memory.
            return MemoryPlan {
                gpu: true,
                program: CUDA_CONTEXT,
                weights,
                copies,
                gradients: trained,
                moments: 2 * trained,
                examples: 0,
                activations: activations.max(OPTIMIZER_TENSORS * size_of::<f32>() * DEVICE_PIECE.min(trained)),
                generation: generation(job, round, evaluated),
            };
        }
        let pixels = |s: &Sequence| footprint.map_or(0, |footprint| footprint.pixel_bytes(&s.prompt));
        MemoryPlan {
            gpu: false,
            program: held.saturating_sub(loaded),
            weights,
            copies,
            gradients: trained + thread_gradients,
            moments: 2 * trained,
            examples: 2 * round.iter().map(pixels).sum::<usize>(),
            activations,
            generation: generation(job, round, evaluated),
        }
    }

    /// The highest sum. Activations and generation never happen at the same time, but blocks freed by the one seldom have the
    /// sizes that the other asks for, and stay with the process.
    pub fn total(&self) -> usize {
        self.program
            + self.weights
            + self.copies
            + self.gradients
            + self.moments
            + self.examples
            + self.activations
            + self.generation
    }

    /// A warning if the plan exceeds the main memory of this machine. The process holds `held` bytes of it already.
    pub fn warning(&self, held: usize) -> Option<String> {
        let free = machine::available_memory().filter(|_| !self.gpu)?;
        (self.total() > free + held).then(|| {
            format!(
                "that is more than the {} available here; train --dry-run shows which settings would make it fit",
                format_bytes(free + held)
            )
        })
    }
}

/// The sequences of the first forward and backward.
fn micro_batch(job: &TrainJob<'_>, round: &[Sequence]) -> Vec<Sequence> {
    let config = job.config;
    let first = &round[..round.len().min(config.train.batch_size)];
    match (&config.rollout, config.train.method) {
        (Some(rollout), Method::Rft) => {
            first.iter().flat_map(|s| std::iter::repeat_n(s.clone(), rollout.num_generations)).collect()
        }
        _ => first.to_vec(),
    }
}

/// The prompts of the largest batch of the evaluations on the way, if there are any.
fn evaluated(job: &TrainJob<'_>) -> Result<Vec<Arc<Prompt>>> {
    let settings = &job.config.eval;
    let Some(task) = job.validation.filter(|_| settings.steps > 0) else { return Ok(Vec::new()) };
    let count = if settings.limit == 0 { task.len() } else { settings.limit.min(task.len()) };
    let wanted = candidates_among(task, count, settings.batch_size);
    let size = |&i: &usize| example_size(task, job.encoder, i).map(|size| (size.tokens + size.patches, i));
    let sizes = wanted.par_iter().map(size).collect::<Vec<Result<_>>>();
    let mut largest = sizes.into_iter().collect::<Result<Vec<(usize, usize)>>>()?;
    largest.sort_by_key(|&(size, i)| (Reverse(size), i));
    largest.into_iter().take(settings.batch_size).map(|(_, i)| meta_example(task, job.encoder, i)).collect()
}

/// The larger of rollouts and evaluation.
fn generation(job: &TrainJob<'_>, round: &[Sequence], evaluated: &[Arc<Prompt>]) -> usize {
    let (Some(footprint), config) = (job.model.memory_footprint(), job.config) else { return 0 };
    let rollouts = config.rollout.as_ref().map_or(0, |r| {
        let at_once = if r.batch_size == 0 { round.len() } else { r.batch_size.min(round.len()) };
        let prompts: Vec<Arc<Prompt>> = round[..at_once].iter().map(|s| s.prompt.clone()).collect();
        footprint.generate_bytes(&prompts, r.num_generations, r.max_new_tokens)
    });
    let evaluation = match evaluated {
        [] => 0,
        prompts => footprint.generate_bytes(prompts, 1, config.eval.max_new_tokens),
    };
    rollouts.max(evaluation)
}

impl std::fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whose = if self.gpu { "memory of the GPU" } else { "memory" };
        write!(f, "{whose}: about {} at most", format_bytes(self.total()))?;
        let parts = [
            ("weights", self.weights),
            ("copies in bf16", self.copies),
            ("gradients", self.gradients),
            ("moments", self.moments),
            ("activations", self.activations),
            ("generation", self.generation),
            ("examples", self.examples),
            (if self.gpu { "CUDA" } else { "program" }, self.program),
        ];
        let shown: Vec<String> = parts
            .into_iter()
            .filter(|(_, bytes)| *bytes > 0)
            .map(|(name, bytes)| format!("{name} {}", format_bytes(bytes)))
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

    #[test]
    fn the_total_counts_everything_and_the_text_names_every_part() {
        let plan = MemoryPlan {
            gpu: false,
            program: 20_000_000,
            weights: 200_000_000,
            copies: 0,
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
        let far = MemoryPlan { activations: 1 << 60, ..plan };
        assert!(far.warning(0).unwrap().contains("--dry-run"));
        assert_eq!((far.warning(1 << 61), MemoryPlan { gpu: true, ..far }.warning(0)), (None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_knows_its_memory() {
        let (now, highest) = (process_memory("VmRSS").unwrap(), process_memory("VmHWM").unwrap());
        assert!(now > 1 << 20 && highest >= now);
        assert_eq!(process_memory("VmNothing"), None);
    }
}
