//! What a run will hold in memory, said before it starts.

use super::trainer::Job;
use crate::config::{Config, Method};
use crate::files::megabytes;
use crate::model::{Prompt, Sequence};
use crate::nn::Parameter;
use std::collections::HashSet;
use std::sync::Arc;

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
    /// The plan of a run whose first examples are `first` (those of one step; for RFT without responses). `held` is what the
    /// process holds now, before any of them was made ready, and `resumed` says that the moments are part of it.
    pub fn of(job: &Job<'_>, first: &[Sequence], held: usize, resumed: bool) -> Self {
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
            generation: generation(job, first),
        }
    }

    /// The highest sum. Activations and generation never happen at the same time, but blocks freed by the one seldom have the
    /// sizes that the other asks for, and stay with the process.
    pub fn total(&self) -> usize {
        self.program + self.weights + self.gradients + self.moments + self.examples + self.activations + self.generation
    }
}

/// The sequences of the first forward and backward. Responses still to be sampled are as long as they may get.
fn micro_batch(config: &Config, first: &[Sequence]) -> Vec<Sequence> {
    let first = &first[..first.len().min(config.train.batch_size)];
    match (&config.rollout, config.train.method) {
        (Some(rollout), Method::Rft) => {
            let longest =
                |s: &Sequence| Sequence { prompt: s.prompt.clone(), response: vec![0; rollout.max_new_tokens] };
            first.iter().flat_map(|s| std::iter::repeat_n(longest(s), rollout.samples)).collect()
        }
        _ => first.to_vec(),
    }
}

/// The larger of rollouts and evaluation.
fn generation(job: &Job<'_>, first: &[Sequence]) -> usize {
    let config = job.config;
    let bytes = |count: usize, samples: usize, new_tokens: usize| {
        let prompts: Vec<Arc<Prompt>> = first.iter().cycle().take(count).map(|s| s.prompt.clone()).collect();
        job.policy.generate_bytes(&prompts, samples, new_tokens)
    };
    let rollouts = config.rollout.as_ref().map_or(0, |r| {
        let at_once = if r.batch_size == 0 { first.len() } else { r.batch_size.min(first.len()) };
        bytes(at_once, r.samples, r.max_new_tokens)
    });
    let evaluates = config.eval.every > 0 && job.validation.is_some_and(|t| !t.is_empty());
    let evaluation = if evaluates { bytes(config.eval.batch_size, 1, config.eval.max_new_tokens) } else { 0 };
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

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_knows_its_memory() {
        let (now, highest) = (process_memory("VmRSS").unwrap(), process_memory("VmHWM").unwrap());
        assert!(now > 1 << 20 && highest >= now);
        assert_eq!(process_memory("VmNothing"), None);
    }
}
