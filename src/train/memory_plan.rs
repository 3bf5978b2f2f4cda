//! How much memory a run takes: what `jigsaw train` says before it starts, and what `--dry-run` compares with the machine.
//!
//! Some things are held all the time: the program, weights, moments. The rest comes and goes with what the run does at the moment: it
//! trains, samples responses, or evaluates. The plan counts each of these for its largest batch, and the peak is that of the largest.

use super::example_sizes::{ExampleSize, candidates_among, first_rounds, largest_prior, largest_round};
use super::job::TrainJob;
use super::optimizer::{DEVICE_PIECE, owners};
use crate::io::files::format_bytes;
use crate::machine;
use crate::model::{BackwardBytes, GroupSize, MemoryFootprint, PromptSize};
use crate::nn::Parameter;
use crate::tasks::example_size;
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
/// What the process takes beside what is counted once it computes: code that is read from disk when it first runs, stacks and buffers of
/// threads, logs. Measured (`scripts/memory_sweep.py`).
const RUNNING: usize = 10_000_000;
/// What the allocator adds to blocks that come and go: it rounds sizes up by at most an eighth, and keeps free blocks (see [`crate::alloc`]).
const REUSE: f64 = 0.08;

/// Lengths of sampled responses that are looked at: so many equal parts of the longest.
const LENGTHS: usize = 8;

/// What is known of the lengths of sampled responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lengths {
    /// They have at most so many tokens.
    UpTo,
    /// They have so many tokens.
    Exactly,
}

/// Bytes by what they are for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MemoryPlan {
    /// Of a GPU's memory, not of the machine's.
    pub gpu: bool,
    /// What the process holds beside all that is counted here; on a GPU what CUDA takes for itself.
    pub program: usize,
    /// Weights of the model, and of the reference model if there is one.
    pub weights: usize,
    /// Working copies of the weights in bf16.
    pub copies: usize,
    /// AdamW's two moments; of the rank that has the most.
    pub moments: usize,
    /// What the run does in turns.
    pub phases: Vec<Phase>,
    /// The peak of the run's first rounds, if the responses that it samples are as long as the reference responses.
    pub as_references: Option<usize>,
}

/// What one of the things that a run does in turns takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phase {
    /// `training`, `rollouts` or `evaluation`.
    pub name: &'static str,
    /// Pixels of the examples that are worked on, and of those that are read in advance.
    pub examples: usize,
    /// Gradients, those that the lanes of a small model hold for themselves among them.
    pub gradients: usize,
    /// What the forward pass keeps for the backward pass, and what that adds.
    pub activations: usize,
    /// Caches of keys and values, prefill, logits.
    pub generation: usize,
}

impl Phase {
    fn total(&self) -> usize {
        self.examples + self.gradients + self.activations + self.generation
    }
}

impl MemoryPlan {
    /// The plan of a run whose examples have these `sizes`, for its largest round: that of the examples with the most tokens and patches
    /// together, the most tokens, or the most patches, whichever takes the most. `program` is what the process holds beside the weights.
    ///
    /// # Errors
    /// An example that cannot be read.
    pub fn of_run(job: &TrainJob<'_>, sizes: &[ExampleSize], program: usize) -> Result<Self> {
        let replayed = job.config.replayed_per_round();
        let counts = [job.config.examples_per_round() - replayed, replayed];
        let lens = [job.train.len(), job.replay.map_or(0, |replay| replay.len())];
        let by: [fn(&ExampleSize) -> usize; 3] =
            [|s| s.tokens() + s.prompt.patches, ExampleSize::tokens, |s| s.prompt.patches];
        let evaluated = evaluated(job)?;
        let rounds = by.map(|by| (largest_round(sizes, counts, lens, by), largest_prior(job, sizes, by)));
        let plan = |round: &[ExampleSize], prior: &[ExampleSize], lengths: Lengths| {
            MemoryPlan::of_round(job, (round, prior), lengths, &evaluated, program)
        };
        let plans = rounds.iter().map(|(round, prior)| plan(round, prior, Lengths::UpTo));
        let largest =
            plans.max_by_key(MemoryPlan::total).ok_or_else(|| Error::failed("a memory plan of no examples"))?;
        if job.config.rollout.is_none() {
            return Ok(largest);
        }
        let first = first_rounds(job)?;
        let plans = first.iter().map(|round| plan(round, &rounds[0].1, Lengths::Exactly));
        let as_references = plans.map(|plan| plan.total()).max();
        Ok(MemoryPlan { as_references, ..largest })
    }

    /// The plan of a run whose rounds have the examples `round`, and `prior` ones of the KL penalty in a pass of their own, and whose
    /// evaluations have the prompts `evaluated` at a time.
    fn of_round(
        job: &TrainJob<'_>,
        (round, prior): (&[ExampleSize], &[ExampleSize]),
        lengths: Lengths,
        evaluated: &[PromptSize],
        program: usize,
    ) -> Self {
        let (weights, copies, trained) = weights(job);
        let held = MemoryPlan { program, weights, copies, moments: moments(job), ..MemoryPlan::default() };
        let Some(model) = job.model.memory_footprint() else { return held };
        let both = [round, prior].map(|examples| backward(job, model, examples, lengths));
        let larger = both.into_iter().max_by_key(|bytes| bytes.activations + bytes.thread_gradients);
        let BackwardBytes { activations, thread_gradients } = larger.unwrap_or_default();
        let rollouts = rollout_batch(job, round).map(|(prompts, samples, tokens)| {
            let generation = model.generate_bytes(&prompts, samples, tokens);
            Phase { name: "rollouts", generation, ..Phase::default() }
        });
        let evaluation = (!evaluated.is_empty()).then(|| {
            let generation = model.generate_bytes(evaluated, 1, job.config.eval.max_new_tokens);
            Phase { name: "evaluation", generation, ..Phase::default() }
        });
        let training =
            Phase { name: "training", gradients: trained + thread_gradients, activations, ..Phase::default() };
        if !model.uses_cpu_kernels() {
            // Examples wait in main memory.
            let optimizer = OPTIMIZER_TENSORS * size_of::<f32>() * DEVICE_PIECE.min(trained);
            let training = Phase { activations: activations.max(optimizer), ..training };
            // Blocks freed by one phase seldom have the sizes that another asks for.
            let generation = rollouts.into_iter().chain(evaluation).map(|phase| phase.generation).max().unwrap_or(0);
            let phases = vec![Phase { generation, ..training }];
            return MemoryPlan { gpu: true, program: CUDA_CONTEXT, phases, ..held };
        }
        let pixels = |prompts: &[PromptSize]| prompts.iter().map(|prompt| model.pixel_bytes(prompt)).sum::<usize>();
        let of_round = pixels(&round.iter().map(|s| s.prompt).collect::<Vec<_>>());
        let on_policy = job.config.resamples();
        // Rounds whose examples are held: this one, the next, and those whose groups dynamic sampling sets aside.
        let rounds = if on_policy { 1 } else { 2 + job.config.grpo.as_ref().map_or(0, |grpo| grpo.dynamic_sampling) };
        let of_prior = pixels(&prior.iter().map(|s| s.prompt).collect::<Vec<_>>());
        let training = Phase { examples: rounds * of_round + of_prior, ..training };
        let rollouts = rollouts.map(|phase| Phase { examples: training.examples, ..phase });
        let next = if on_policy { 0 } else { of_round };
        let evaluation = evaluation.map(|phase| Phase { examples: next + pixels(evaluated), ..phase });
        MemoryPlan { phases: [Some(training), rollouts, evaluation].into_iter().flatten().collect(), ..held }
    }

    /// The peak: what is held all the time, and the largest phase.
    pub fn total(&self) -> usize {
        self.phases.iter().map(|phase| self.total_in(phase)).max().unwrap_or_else(|| self.total_in(&Phase::default()))
    }

    fn total_in(&self, phase: &Phase) -> usize {
        self.program + self.weights + self.copies + self.moments + phase.total() + self.reuse(phase)
    }

    /// What the allocator adds.
    fn reuse(&self, phase: &Phase) -> usize {
        if self.gpu { 0 } else { (phase.total() as f64 * REUSE) as usize }
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

    /// Refuse what cannot run, however short the responses are: a plan of more than twice the memory that this process can ever have.
    ///
    /// # Errors
    /// An input error with both.
    pub fn check(&self) -> Result<()> {
        match machine::total_memory().filter(|&all| !self.gpu && self.total() / 2 > all) {
            Some(all) => Err(Error::input(format!(
                "{self}: more than twice the {} that there are here; train --dry-run shows which settings would make it fit",
                format_bytes(all)
            ))),
            None => Ok(()),
        }
    }
}

/// Bytes of all weights, of their copies in bf16, and of those that train.
fn weights(job: &TrainJob<'_>) -> (usize, usize, usize) {
    let bytes = |p: &Arc<Parameter>| p.bytes();
    let trained = job.model.parameters().iter().filter(|p| p.trainable()).map(|p| bytes(p).0).sum();
    // Models may share weights.
    let mut seen = HashSet::new();
    let all = [Some(job.model), job.reference].into_iter().flatten().flat_map(|m| m.parameters());
    let (weights, copies) = all
        .filter(|p| seen.insert(Arc::as_ptr(p)))
        .map(bytes)
        .fold((0, 0), |(weights, copies), (value, copy)| (weights + value, copies + copy));
    (weights, copies, trained)
}

/// Bytes of the moments of the rank that has the most.
fn moments(job: &TrainJob<'_>) -> usize {
    let trained = job.model.parameters().iter().filter(|p| p.trainable());
    let sizes: Vec<usize> = trained.map(|p| 2 * p.bytes().0).collect();
    let owners = owners(&sizes, job.comm.world_size());
    let of = |rank| sizes.iter().zip(&owners).filter(|(_, owner)| **owner == rank).map(|(size, _)| size).sum();
    (0..job.comm.world_size()).map(of).max().unwrap_or(0)
}

/// What a process that holds `held` bytes now, the weights among them, holds beside what a plan counts.
pub fn program_bytes(job: &TrainJob<'_>, held: usize) -> usize {
    let (weights, copies, _) = weights(job);
    held.saturating_sub(weights + copies) + RUNNING
}

/// As [`program_bytes`], of a process that holds no weights.
pub fn program_without_weights(held: usize) -> usize {
    held + RUNNING
}

/// The most that the first forward and backward can take. Sampled responses may be short, and then a batch is cut into fewer shards, which
/// can be larger: the longest responses do not always take the most.
fn backward(job: &TrainJob<'_>, model: &dyn MemoryFootprint, round: &[ExampleSize], lengths: Lengths) -> BackwardBytes {
    let config = job.config;
    if round.is_empty() {
        return BackwardBytes::default();
    }
    let responses = match (&config.rollout, config.train.method) {
        (Some(rollout), Method::Rft) => rollout.num_generations,
        _ => 1,
    };
    let of_share = |share: usize| {
        let group = |size: &ExampleSize| GroupSize {
            prompt: size.prompt,
            responses: if job.is_sampled(size.id) { responses } else { 1 },
            response_tokens: match job.is_sampled(size.id) {
                true => (size.response * share / LENGTHS).max(1),
                false => size.response,
            },
        };
        let batch: Vec<GroupSize> = round.iter().take(config.train.batch_size).map(group).collect();
        model.backward_bytes(&batch, job.comm.world_size())
    };
    let shortest = if config.rollout.is_some() && lengths == Lengths::UpTo { 1 } else { LENGTHS };
    let shares = shortest..=LENGTHS;
    let taken = shares.map(of_share);
    taken.max_by_key(|bytes| bytes.activations + bytes.thread_gradients).unwrap_or_default()
}

/// The prompts that are sampled from at a time, the responses to each and their longest length, if the model samples its own.
fn rollout_batch(job: &TrainJob<'_>, round: &[ExampleSize]) -> Option<(Vec<PromptSize>, usize, usize)> {
    let rollout = job.config.rollout.as_ref().filter(|rollout| rollout.server.is_none())?;
    let at_once = if rollout.batch_size == 0 { round.len() } else { rollout.batch_size.min(round.len()) };
    let prompts = round[..at_once].iter().map(|size| size.prompt).collect();
    let longest = round.iter().filter(|size| job.is_sampled(size.id)).map(|size| size.response).max();
    Some((prompts, rollout.num_generations, longest.unwrap_or(rollout.max_new_tokens)))
}

/// The prompts of the largest batch of the evaluations on the way, if there are any.
fn evaluated(job: &TrainJob<'_>) -> Result<Vec<PromptSize>> {
    let settings = &job.config.eval;
    if settings.steps == 0 {
        return Ok(Vec::new());
    }
    let mut largest: Vec<PromptSize> = Vec::new();
    for (task, limit) in
        job.validation.map(|task| (task, settings.limit)).into_iter().chain(job.prior_eval.map(|task| (task, 0)))
    {
        let count = if limit == 0 { task.len() } else { limit.min(task.len()) };
        let wanted = candidates_among(task, count, settings.batch_size);
        let sizes = wanted.par_iter().map(|&i| example_size(task, job.encoder, i)).collect::<Vec<Result<PromptSize>>>();
        largest.extend(sizes.into_iter().collect::<Result<Vec<PromptSize>>>()?);
    }
    largest.sort_by_key(|size| Reverse(size.tokens + size.patches));
    largest.truncate(settings.batch_size);
    Ok(largest)
}

impl std::fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whose = if self.gpu { "memory of the GPU" } else { "memory" };
        let peak = self.phases.iter().max_by_key(|phase| self.total_in(phase)).copied().unwrap_or_default();
        write!(f, "{whose}: about {} at most", format_bytes(self.total()))?;
        let others: Vec<&Phase> = self.phases.iter().filter(|phase| phase.name != peak.name).collect();
        if !others.is_empty() {
            write!(f, ", in {}", peak.name)?;
        }
        let parts = [
            ("weights", self.weights),
            ("copies in bf16", self.copies),
            ("gradients", peak.gradients),
            ("moments", self.moments),
            ("activations", peak.activations),
            ("generation", peak.generation),
            ("examples", peak.examples),
            ("kept for reuse", self.reuse(&peak)),
            (if self.gpu { "CUDA" } else { "program" }, self.program),
        ];
        let shown: Vec<String> = parts
            .into_iter()
            .filter(|(_, bytes)| *bytes > 0)
            .map(|(name, bytes)| format!("{name} {}", format_bytes(bytes)))
            .collect();
        write!(f, " ({})", shown.join(", "))?;
        for phase in others {
            write!(f, "; in {} {}", phase.name, format_bytes(self.total_in(phase)))?;
        }
        if let Some(bytes) = self.as_references.filter(|bytes| *bytes < self.total()) {
            write!(f, "; {} if responses are as long as the references", format_bytes(bytes))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_that_of_the_largest_phase_and_the_text_names_every_part_of_it() {
        let training = Phase { name: "training", gradients: 200_000_000, activations: 300_000_000, ..Phase::default() };
        let rollouts = Phase { name: "rollouts", generation: 100_000_000, ..Phase::default() };
        let held =
            MemoryPlan { weights: 200_000_000, moments: 400_000_000, program: 20_000_000, ..MemoryPlan::default() };
        let plan = MemoryPlan { phases: vec![training, rollouts], ..held.clone() };
        assert_eq!(plan.total(), 1_120_000_000 + (500_000_000.0 * REUSE) as usize);
        let text = plan.to_string();
        assert!(text.contains(" at most, in training (weights 200 MB, gradients 200 MB, moments 400 MB"), "{text}");
        assert!(text.contains("; in rollouts 7") && !text.contains("examples"), "{text}");
        let shorter = MemoryPlan { as_references: Some(900_000_000), ..plan.clone() };
        assert_eq!(shorter.to_string(), format!("{text}; 900 MB if responses are as long as the references"));
        let gpu = MemoryPlan { gpu: true, phases: vec![Phase { generation: 100_000_000, ..training }], ..held.clone() };
        assert_eq!(gpu.total(), 1_220_000_000);
        assert!(!gpu.to_string().contains("in training"), "{gpu}");
        let far = MemoryPlan { phases: vec![Phase { activations: 1 << 60, ..training }], ..held };
        assert!(far.warning(0).unwrap().contains("--dry-run"));
        let error = far.check().unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("more than twice the"), "{error}");
        assert_eq!(far.warning(1 << 61), None);
        let gpu = MemoryPlan { gpu: true, ..far };
        assert!(gpu.warning(0).is_none() && gpu.check().is_ok() && plan.check().is_ok());
    }
}
