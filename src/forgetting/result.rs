//! The result of a comparison with the base, as `forgetting.json` holds it.

use super::change::{Change, ChangeStats, measure};
use super::gold::GoldChange;
use super::group_mean::GroupMean;
use super::overlap::joint_clusters;
use super::pairing::{ExampleLabel, PairedOutcomes};
use super::question_score::{self, QuestionScore};
use super::transitions::Transitions;
use crate::eval::Divergence;
use crate::io::files;
use crate::model::weight_diff::PartDiff;
use crate::stats::{Interval, RESAMPLES, holm, nan_if_null};
use crate::tasks::scorers::Number;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Raised whenever the format of `forgetting.json` or the way its numbers are computed changes.
pub const FORMAT_VERSION: u32 = 3;

/// A loss is called significant below this adjusted p.
const LEVEL: f64 = 0.05;

/// Name of the mean over all benchmarks.
pub const ALL: &str = "all";

/// Name of the task that the models were trained for, among the sets of examples.
pub const NEW_TASK: &str = "new-task";

/// A base model and the models tuned from it, on the same benchmarks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForgettingResult {
    /// Version of the file format.
    pub format_version: u32,
    /// Version of the program.
    pub jigsaw: String,
    /// Resamples of each bootstrap.
    pub resamples: usize,
    /// The base model.
    pub base: ModelRef,
    /// Where the base's evaluations are, if it was evaluated before (`--baseline-results`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_results: Option<String>,
    /// The tuned models, in the order given.
    pub tuned: Vec<TunedResult>,
}

impl ForgettingResult {
    /// The result of this version of the program.
    pub fn new(base: ModelRef, tuned: Vec<TunedResult>) -> ForgettingResult {
        let jigsaw = env!("CARGO_PKG_VERSION").to_string();
        ForgettingResult {
            format_version: FORMAT_VERSION,
            jigsaw,
            resamples: RESAMPLES,
            base,
            base_results: None,
            tuned,
        }
    }

    /// Read `forgetting.json`.
    pub fn read(path: &Path) -> Result<ForgettingResult> {
        files::read_versioned(path, FORMAT_VERSION, "run the command that wrote it again")
    }
}

/// A model and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelRef {
    /// Short name.
    pub name: String,
    /// Its directory.
    pub dir: String,
    /// Hash of its weights and configuration.
    pub hash: String,
    /// The training run that made it, if its directory lies in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunRef>,
}

/// The training run of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRef {
    /// Name of its directory.
    pub name: String,
    /// Its directory.
    pub dir: String,
    /// Optimizer steps made, if that is known.
    pub step: Option<u64>,
    /// Seed of everything random in it.
    pub seed: Option<u64>,
    /// Hash of the data it was trained on.
    pub data_hash: String,
    /// Hash of the model that training started from.
    pub model_hash: String,
}

impl ModelRef {
    /// The model in the directory `dir`, whose weights have this hash. If `dir` is `RUN/model` or `RUN/checkpoints/step-N` of a training run,
    /// the run is read too.
    pub fn of(dir: &Path, hash: &str) -> ModelRef {
        let full = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
        let name_of = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let own = name_of(&full);
        let parent = full.parent();
        let (run_dir, step) = match own.strip_prefix("step-").and_then(|n| n.parse::<u64>().ok()) {
            Some(step) => (parent.and_then(Path::parent), Some(step)),
            None => {
                let finished =
                    parent.and_then(|p| files::read_json::<serde_json::Value>(&p.join("finished.json")).ok());
                (parent, finished.and_then(|f| f.get("step")?.as_u64()))
            }
        };
        let run = run_dir.and_then(|dir| {
            let about: serde_json::Value = files::read_json(&dir.join("run.json")).ok()?;
            let text = |key: &str| about.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_string();
            Some(RunRef {
                name: name_of(dir),
                dir: dir.display().to_string(),
                step,
                seed: about.get("seed").and_then(|v| v.as_u64()),
                data_hash: text("data_hash"),
                model_hash: text("model_hash"),
            })
        });
        let name = match &run {
            Some(run) if own == "model" => run.name.clone(),
            Some(run) => format!("{}/{own}", run.name),
            None => own,
        };
        ModelRef { name, dir: full.display().to_string(), hash: hash.to_string(), run }
    }

    /// Seed and data of the run, to stand beside a number: `seed 7, data 3fa91c02`.
    pub fn provenance(&self) -> String {
        let Some(run) = &self.run else { return String::new() };
        let seed = run.seed.map_or("seed unknown".to_string(), |seed| format!("seed {seed}"));
        // The run's own data, then the data that it replays.
        let parts: Option<Vec<&str>> = run.data_hash.split('+').map(|hash| hash.get(..8)).collect();
        match parts {
            Some(hashes) => format!("{seed}, data {}", hashes.join("+")),
            None => seed,
        }
    }
}

/// One tuned model against the base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TunedResult {
    /// The model.
    pub model: ModelRef,
    /// The task that it was trained for; its gain is in none of the means.
    pub new_task: Option<BenchmarkChange>,
    /// Prior knowledge, in the order given.
    pub benchmarks: Vec<BenchmarkChange>,
    /// Means over the benchmarks of each family.
    pub families: Vec<GroupMean>,
    /// The mean over all benchmarks.
    pub all: Option<GroupMean>,
    /// The benchmark with the largest loss.
    pub worst: Option<NamedInterval>,
    /// Benchmarks whose loss is significant after Holm's correction.
    pub significant_losses: Vec<String>,
    /// Divergence from the base, for each set of prompts.
    pub divergence: Vec<Divergence>,
    /// Log-probabilities of the gold answers to prior questions: all of them, then each family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gold: Vec<GoldChange>,
    /// The file of these by question (see [`GoldItem`](super::GoldItem)), in the directory of the comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold_file: Option<String>,
    /// Change of the weights by part; the whole model last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Vec<PartDiff>>,
}

/// A name with a number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedInterval {
    /// Name.
    pub name: String,
    /// Number.
    pub change: Interval,
}

/// The change on one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkChange {
    /// Name.
    pub name: String,
    /// Kind of knowledge it asks for.
    pub family: String,
    /// The scorer, with its version.
    pub scorer: String,
    /// Hash of the examples, with their images.
    pub data: String,
    /// Responses to each example.
    pub samples: usize,
    /// The change over all examples.
    pub all: Change,
    /// `all.p`, adjusted for the number of benchmarks (Holm).
    #[serde(deserialize_with = "nan_if_null")]
    pub p_holm: f64,
    /// Answers that were right and are wrong, and the other way round.
    pub transitions: Transitions,
    /// The change in each category, by name.
    pub categories: Vec<CategoryChange>,
    /// Numbers that the benchmark defines itself.
    pub aggregates: Vec<AggregateChange>,
    /// The scores by question; empty in files that were written before they were kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "question_score")]
    pub questions: Vec<QuestionScore>,
}

/// The change in one part of a benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CategoryChange {
    /// Name of the category.
    pub name: String,
    /// The change.
    pub change: Change,
}

/// A number that a benchmark defines itself (a sum of scores, an F1), in its own unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AggregateChange {
    /// What it is.
    pub name: String,
    /// The base's.
    #[serde(deserialize_with = "nan_if_null")]
    pub base: f64,
    /// The tuned model's.
    #[serde(deserialize_with = "nan_if_null")]
    pub tuned: f64,
}

impl AggregateChange {
    /// The numbers that both models have.
    pub fn of(base: &[Number], tuned: &[Number]) -> Vec<AggregateChange> {
        let both = base.iter().filter_map(|number| {
            let tuned = tuned.iter().find(|other| other.name == number.name)?.value;
            Some(AggregateChange { name: number.name.clone(), base: number.value, tuned })
        });
        both.collect()
    }
}

/// How a benchmark is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchmarkTitle {
    /// Name.
    pub name: String,
    /// Kind of knowledge it asks for.
    pub family: String,
    /// The scorer, with its version.
    pub scorer: String,
}

/// The change on a benchmark, with the statistics that a mean over benchmarks needs.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredBenchmark {
    benchmark: BenchmarkChange,
    measured: ChangeStats,
}

impl MeasuredBenchmark {
    /// Compare base and tuned model on a benchmark; `labels` are those of its examples, in order.
    ///
    /// # Errors
    /// An input error if a response is to an example that has no label.
    pub fn of(
        title: BenchmarkTitle,
        pairing: &PairedOutcomes,
        labels: &[ExampleLabel],
        aggregates: Vec<AggregateChange>,
    ) -> Result<MeasuredBenchmark> {
        let mut of_pair = Vec::with_capacity(pairing.pairs.len());
        for (outcome, _) in &pairing.pairs {
            of_pair.push(labels.get(outcome.index).ok_or_else(|| {
                Error::input(format!("{}: a response to example {}, which is not there", title.name, outcome.index))
            })?);
        }
        let groups = groups(pairing, &of_pair);
        let all: Vec<&_> = pairing.pairs.iter().collect();
        let mut measured = measure(&all, &groups, pairing.same_model);
        measured.shares = vec![Vec::new(); measured.units.len()];
        for (label, &cluster) in of_pair.iter().zip(&measured.clusters) {
            measured.shares[cluster].extend(label.shares.iter().cloned());
        }
        let mut members: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (i, label) in of_pair.iter().enumerate() {
            if let Some(category) = &label.category {
                members.entry(category).or_default().push(i);
            }
        }
        if members.len() < 2 {
            members.clear();
        }
        let categories = members.into_iter().map(|(name, indices)| {
            let pairs: Vec<&_> = indices.iter().map(|&i| &pairing.pairs[i]).collect();
            let groups: Vec<usize> = indices.iter().map(|&i| groups[i]).collect();
            CategoryChange { name: name.to_string(), change: measure(&pairs, &groups, pairing.same_model).change }
        });
        let categories = categories.collect();
        let chances: Vec<Option<f64>> = of_pair.iter().map(|label| label.chance).collect();
        let transitions = Transitions::of(&pairing.pairs, &chances, &measured.clusters);
        let BenchmarkTitle { name, family, scorer } = title;
        let benchmark = BenchmarkChange {
            name,
            family,
            scorer,
            data: pairing.key.data.clone(),
            samples: pairing.key.num_generations,
            p_holm: measured.change.p,
            all: measured.change.clone(),
            transitions,
            categories,
            aggregates,
            questions: measured.units.iter().enumerate().map(|(i, unit)| QuestionScore::of(i, unit)).collect(),
        };
        Ok(MeasuredBenchmark { benchmark, measured })
    }
}

/// The number of the group that each pair belongs to. Pairs without a named group are grouped by example (several samples). If a single
/// group holds everything (one source for a whole file), it is ignored.
fn groups(pairing: &PairedOutcomes, labels: &[&ExampleLabel]) -> Vec<usize> {
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let named: Vec<Option<&str>> = labels.iter().map(|label| label.group.as_deref()).collect();
    named.iter().flatten().for_each(|name| {
        let next = numbers.len();
        numbers.entry(name).or_insert(next);
    });
    let useful = numbers.len() > 1;
    let group = |(i, pair): (usize, &(crate::sampling::ScoredResponse, _))| match named[i] {
        Some(name) if useful => numbers[name],
        _ => numbers.len() + pair.0.index,
    };
    pairing.pairs.iter().enumerate().map(group).collect()
}

impl TunedResult {
    /// Combine the comparisons of one model: Holm's correction, the means over families and over all benchmarks, the largest loss. Without gold
    /// answers and change of weights.
    pub fn of(
        model: ModelRef,
        new_task: Option<MeasuredBenchmark>,
        mut benchmarks: Vec<MeasuredBenchmark>,
        divergence: Vec<Divergence>,
    ) -> TunedResult {
        let p: Vec<f64> = benchmarks.iter().map(|c| c.measured.change.p).collect();
        for (compared, p) in benchmarks.iter_mut().zip(holm(&p)) {
            compared.benchmark.p_holm = p;
        }
        let joint = joint_clusters(&benchmarks.iter().map(|c| &c.measured).collect::<Vec<_>>());
        for (compared, numbers) in benchmarks.iter_mut().zip(joint) {
            compared.benchmark.questions.iter_mut().zip(numbers).for_each(|(one, number)| one.question = number);
        }
        let mut names: Vec<&str> = Vec::new();
        for compared in &benchmarks {
            if !names.contains(&compared.benchmark.family.as_str()) {
                names.push(&compared.benchmark.family);
            }
        }
        let members = |family: Option<&str>| -> Vec<(&str, &ChangeStats)> {
            let chosen = benchmarks.iter().filter(|c| family.is_none_or(|f| c.benchmark.family == f));
            chosen.map(|c| (c.benchmark.name.as_str(), &c.measured)).collect()
        };
        let families = names.iter().filter_map(|name| GroupMean::of(name, &members(Some(name)))).collect();
        let all = GroupMean::of(ALL, &members(None));
        let lost = |c: &&MeasuredBenchmark| c.measured.change.change.value < 0.0;
        let worst = benchmarks
            .iter()
            .filter(lost)
            .min_by(|a, b| a.measured.change.change.value.total_cmp(&b.measured.change.change.value))
            .map(|c| NamedInterval { name: c.benchmark.name.clone(), change: c.measured.change.change });
        let real = benchmarks.iter().filter(lost).filter(|c| c.benchmark.p_holm < LEVEL);
        let significant_losses = real.map(|c| c.benchmark.name.clone()).collect();
        TunedResult {
            model,
            new_task: new_task.map(|c| c.benchmark),
            families,
            all,
            worst,
            significant_losses,
            benchmarks: benchmarks.into_iter().map(|c| c.benchmark).collect(),
            divergence,
            gold: Vec::new(),
            gold_file: None,
            weights: None,
        }
    }
}
