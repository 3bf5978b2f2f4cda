//! What decides the responses to a task and their scores. Equal keys stand for equal responses.

use super::SamplePlan;
use super::example_hash::hash_examples;
use crate::Result;
use crate::comm::Communicator;
use crate::io::json;
use crate::model::{ComputeDtype, ModelLoader, SamplingParams, hash_model, hash_prompt_files};
use crate::tasks::Task;
use crate::tasks::benchmarks::Protocol;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// Raised whenever the evaluation itself changes what it finds, so that old results are not taken for new ones.
const EVAL_VERSION: u32 = 2;

/// Everything that decides an evaluation's outcome. Two results with equal keys are the same result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SamplingKey {
    /// Version of this program and of its evaluation.
    pub code: String,
    /// Hash of the weights and `config.json`; of a server, the model's name and the address.
    pub model: String,
    /// Hash of tokenizer, chat template and image settings; empty for a server, which has its own.
    pub prompt: String,
    /// Hash of what the model is shown of the examples evaluated: prompts and images.
    pub data: String,
    /// Hash of what the responses are scored by: gold answers and the settings of the scorers.
    pub gold: String,
    /// Name of the task.
    pub task: String,
    /// Rules that score the responses, with the version of each.
    pub scorers: BTreeMap<String, u32>,
    /// Number of examples.
    pub examples: usize,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Responses to each example.
    pub num_generations: usize,
    /// Batch size, where it decides which random numbers an example gets (temperature above 0).
    pub batch_size: Option<usize>,
    /// Type of the model's matrix products.
    #[serde(default, skip_serializing_if = "ComputeDtype::is_f32")]
    pub dtype: ComputeDtype,
    /// How the benchmark is put to the model, where the task is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bench: Option<Protocol>,
}

/// Fields of a key that decide the scores and not the responses.
const SCORING: [&str; 2] = ["gold", "scorers"];

impl SamplingKey {
    /// Of products in f32, from the hashes of a checkpoint (see [`hash_model`] and [`hash_prompt_files`]); hashes the examples and their images.
    pub fn new(
        model: &str,
        prompt: &str,
        task: &dyn Task,
        plan: &SamplePlan,
        sampling: &SamplingParams,
    ) -> Result<SamplingKey> {
        let examples = plan.examples(task);
        let (data, gold) = hash_examples(task, examples)?;
        Ok(SamplingKey {
            code: format!("{} eval {EVAL_VERSION}", env!("CARGO_PKG_VERSION")),
            model: model.to_string(),
            prompt: prompt.to_string(),
            data,
            gold,
            task: task.name().to_string(),
            scorers: task.scorers().into_iter().collect(),
            examples,
            sampling: sampling.clone(),
            num_generations: plan.num_generations,
            batch_size: (sampling.temperature > 0.0).then_some(plan.batch_size),
            dtype: ComputeDtype::F32,
            bench: None,
        })
    }

    /// See that every rank has this key, the same batches, and a device of the same kind.
    ///
    /// # Errors
    /// See `check_same` of the communicator.
    pub fn check_ranks(&self, comm: &dyn Communicator, plan: &SamplePlan, loader: &ModelLoader) -> Result<()> {
        let on_a_cpu = loader.device().is_cpu();
        comm.check_same(&json!({ "evaluation": self, "batch size": plan.batch_size, "on a CPU": on_a_cpu }))
    }

    /// Whether only the scoring differs, so that the responses are the same.
    pub fn differs_in_scoring_only(&self, other: &SamplingKey) -> bool {
        let scoring = |name: &str| SCORING.contains(&name.split('.').next().unwrap_or(name));
        self.differences(other).iter().all(|(name, _)| scoring(name))
    }

    /// Each field in which the keys differ, with `here -> there`; nested fields have their path (`bench.pixels.min`).
    pub(crate) fn differences(&self, other: &SamplingKey) -> Vec<(String, String)> {
        json::differences(self, other)
    }

    /// Names of the fields in which the keys differ.
    #[cfg(test)]
    pub(crate) fn differences_in(&self, other: &SamplingKey) -> Vec<String> {
        self.differences(other).into_iter().map(|(name, _)| name).collect()
    }
}

/// The key of an evaluation with products in `dtype`; hashes the model's files, the examples and their images.
pub fn checkpoint_key(
    model: &Path,
    dtype: ComputeDtype,
    task: &dyn Task,
    plan: &SamplePlan,
    sampling: &SamplingParams,
) -> Result<SamplingKey> {
    let key = SamplingKey::new(&hash_model(model)?, &hash_prompt_files(model)?, task, plan, sampling)?;
    Ok(SamplingKey { dtype, ..key })
}
