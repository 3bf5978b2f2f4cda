//! The prompts on which base and tuned model are compared token by token: KL in both directions, perplexity, log-probability of gold answers.
//!
//! They are those of the new task and of the benchmarks; or, where prior prompts are held out (`--prior`), those of the new task and the held-out
//! ones. A score and a divergence on the same questions agree partly by construction; held-out prompts are in no scored benchmark.

use super::divergence_log::{DivergenceKey, open_log};
use super::family::family_of;
use super::gold::GoldItem;
use super::pairing::{ExampleLabel, FinishedEval};
use super::result::NEW_TASK;
use crate::comm::{Communicator, RootLog};
use crate::eval::bench::PreparedBenchmark;
use crate::eval::{BATCH, BaseSamples, Comparison, Divergence, PromptDivergence, PromptRole, spread};
use crate::io::hex;
use crate::model::{ComputeDtype, Model, ModelLoader};
use crate::sampling::{SamplingKey, ScoredResponse, hash_prompt};
use crate::tasks::gold_response;
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;

/// A set of prompts.
pub(super) struct PromptSet<'a> {
    bench: &'a PreparedBenchmark,
    role: PromptRole,
    /// The base's evaluation, where the prompts are scored too.
    base: Option<&'a FinishedEval>,
    /// What the base would be evaluated by.
    key: SamplingKey,
    /// The examples that are measured.
    examples: Vec<usize>,
    /// Of each of them, what it has in common with others (an image).
    groups: Vec<String>,
    /// Of each of them, the kind of knowledge.
    families: Vec<String>,
    /// Whether each of them has a gold answer.
    has_gold: Vec<bool>,
}

impl<'a> PromptSet<'a> {
    /// At most `prompts` examples of a set that was evaluated.
    pub fn scored(
        bench: &'a PreparedBenchmark,
        base: &'a FinishedEval,
        labels: &[ExampleLabel],
        prompts: usize,
    ) -> Result<Self> {
        let role = if bench.name == NEW_TASK { PromptRole::NewTask } else { PromptRole::Benchmark };
        let group = |label: &ExampleLabel| label.group.clone();
        PromptSet::new(bench, role, Some(base), base.about.key.clone(), labels.iter().map(group), prompts)
    }

    /// At most `prompts` examples of a set that is held out from those that are scored.
    pub fn held_out(
        bench: &'a PreparedBenchmark,
        base_hash: &str,
        dtype: ComputeDtype,
        prompts: usize,
    ) -> Result<Self> {
        let task = bench.task();
        let key = SamplingKey::new(base_hash, bench.prompt_hash()?, task, &bench.plan, &bench.sampling)?;
        let key = SamplingKey { bench: Some(bench.protocol.clone()), dtype, ..key };
        let labels = ExampleLabel::of_benchmark(task, bench.plan.examples(task))?;
        // Both styles of a question show one image.
        let group = |label: ExampleLabel| label.shares.into_iter().next().or(label.group);
        PromptSet::new(bench, PromptRole::HeldOut, None, key, labels.into_iter().map(group), prompts)
    }

    fn new(
        bench: &'a PreparedBenchmark,
        role: PromptRole,
        base: Option<&'a FinishedEval>,
        key: SamplingKey,
        groups: impl Iterator<Item = Option<String>>,
        prompts: usize,
    ) -> Result<Self> {
        let (task, all): (_, Vec<Option<String>>) = (bench.task(), groups.collect());
        let examples = spread(key.examples, prompts);
        // One group for everything (a single source) tells nothing apart.
        let first = examples.first().and_then(|&i| all.get(i));
        let useful = examples.iter().any(|&i| all.get(i) != first);
        let group = |&i: &usize| match all.get(i).cloned().flatten() {
            Some(group) if useful => group,
            _ => format!("{}, example {i}", bench.name),
        };
        let mut families = Vec::with_capacity(examples.len());
        let mut has_gold = Vec::with_capacity(examples.len());
        for &i in &examples {
            let record = task.example(i)?;
            families.push(family_of(&record, bench.protocol.benchmark.as_deref(), &bench.protocol.scorer));
            has_gold.push(gold_response(&record).is_some());
        }
        let groups = examples.iter().map(group).collect();
        Ok(PromptSet { bench, role, base, key, examples, groups, families, has_gold })
    }

    /// Measure what is not in the file of this set below `dir` yet; also the gold answers. Each rank measures whole batches.
    pub fn measure(
        &self,
        (dir, fresh): (&Path, bool),
        tuned_hash: &str,
        comm: &dyn Communicator,
        (base, tuned): (&mut LazyModel<'_>, &mut LazyModel<'_>),
        samples: &mut BaseSamples,
        progress: &mut dyn FnMut(&str, usize, usize),
    ) -> Result<(Divergence, Vec<GoldItem>)> {
        let PromptSet { bench, examples, .. } = self;
        let mut log = self.open(dir, tuned_hash, fresh, comm)?;
        let first = log.lines.len();
        progress(&bench.name, first, examples.len());
        let measure = |&start: &usize| {
            let comparison = Comparison {
                base: base.load()?,
                tuned: tuned.load()?,
                codec: bench.codec()?,
                task: bench.task(),
                max_new_tokens: bench.sampling.max_new_tokens,
                seed: bench.sampling.seed,
            };
            let batch = &examples[start..examples.len().min(start + BATCH)];
            comparison.measure(batch, |i| self.own_answer(i), samples).map_err(|e| e.context(&bench.name))
        };
        let starts: Vec<usize> = (first..examples.len()).step_by(BATCH).collect();
        comm.in_rounds(&starts, measure, |lines| {
            log.append(lines)?;
            progress(&bench.name, log.lines.len(), examples.len());
            Ok(())
        })?;
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let clusters: Vec<usize> = self
            .groups
            .iter()
            .map(|group| {
                let next = numbers.len();
                *numbers.entry(group).or_insert(next)
            })
            .collect();
        let of_line = log.lines.iter().zip(&self.families).zip(&self.groups);
        let gold = of_line.filter_map(|((line, family), group)| GoldItem::of(&bench.name, line, family, group));
        let divergence = Divergence::of(&bench.name, self.role, bench.sampling.seed, &log.lines, &clusters);
        Ok((divergence, gold.collect()))
    }

    /// Whether its prompts ask for prior knowledge.
    pub fn is_prior(&self) -> bool {
        self.role != PromptRole::NewTask
    }

    /// The file of what is measured already.
    fn open(
        &self,
        dir: &Path,
        tuned_hash: &str,
        fresh: bool,
        comm: &dyn Communicator,
    ) -> Result<RootLog<PromptDivergence>> {
        let PromptSet { bench, key, examples, .. } = self;
        let divergence_key = DivergenceKey {
            code: DivergenceKey::code(),
            base: key.model.clone(),
            tuned: tuned_hash.to_string(),
            prompt: key.prompt.clone(),
            data: key.data.clone(),
            dtype: key.dtype,
            bench: key.bench.clone(),
            prompts: examples.len(),
            max_new_tokens: bench.sampling.max_new_tokens,
            seed: bench.sampling.seed,
            answers: hash_answers(examples.iter().filter_map(|&i| self.own_answer(i))),
        };
        open_log(dir, &bench.name, &divergence_key, (examples, &self.has_gold), fresh, comm)
    }

    /// The base's greedy answer to an example, at index i where there is one answer per example. `None` if answers were sampled, or not at all.
    fn own_answer(&self, i: usize) -> Option<&ScoredResponse> {
        let base = self.base.filter(|base| base.about.key.sampling.temperature == 0.0)?;
        base.outcomes.get(i)
    }
}

/// See that no prompt of the sets that are held out, of which at most `prompts` each are measured, is among the scored ones.
///
/// # Errors
/// An input error that names both examples; an image that cannot be read.
pub(super) fn check_held_out(
    held_out: &[PreparedBenchmark],
    scored: &[PreparedBenchmark],
    prompts: usize,
) -> Result<()> {
    if held_out.is_empty() {
        return Ok(());
    }
    let mut known: HashMap<[u8; 32], (&str, String)> = HashMap::new();
    for bench in scored {
        let task = bench.task();
        for i in 0..bench.plan.examples(task) {
            known.insert(hash_prompt(task, i)?, (&bench.name, task.example(i)?.id.clone()));
        }
    }
    for bench in held_out {
        let task = bench.task();
        for i in spread(bench.plan.examples(task), prompts) {
            if let Some((scored, id)) = known.get(&hash_prompt(task, i)?) {
                return Err(Error::input(format!(
                    "--prior {}: example {} asks the same as example {id} of {scored}, which is scored; give prompts that are in no scored \
                     benchmark, such as another split",
                    bench.name,
                    task.example(i)?.id
                )));
            }
        }
    }
    Ok(())
}

/// A model that is loaded on first use.
pub(super) struct LazyModel<'a> {
    pub dir: &'a Path,
    pub loader: &'a ModelLoader,
    pub model: Option<Model>,
}

impl LazyModel<'_> {
    fn load(&mut self) -> Result<&Model> {
        match &mut self.model {
            Some(model) => Ok(model),
            empty => Ok(empty.insert(self.loader.frozen(self.dir)?)),
        }
    }
}

fn hash_answers<'a>(answers: impl Iterator<Item = &'a ScoredResponse>) -> String {
    let mut hash = Sha256::new();
    for answer in answers {
        hash.update((answer.response.len() as u64).to_le_bytes());
        hash.update(answer.response.as_bytes());
        hash.update([u8::from(answer.finished)]);
    }
    hex(&hash.finalize())
}
