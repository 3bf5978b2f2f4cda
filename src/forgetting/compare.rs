//! Evaluate base and tuned models on the same benchmarks, and compare the results.
//!
//! ```text
//! OUT/base/<benchmark>/            the base's evaluation            OUT/base/results.{json,csv}
//! OUT/tuned/<benchmark>/           the tuned model's                (one model)
//! OUT/tuned/<model>/<benchmark>/   the same                         (several models)
//! OUT/divergence/<model>/<set>.jsonl   KL, perplexity, gold answers, a line for each prompt
//! OUT/gold/<model>.jsonl           log-probability of each gold answer to a prior question under both models
//! OUT/forgetting.{json,csv,md}     the comparison of all models
//! ```
//!
//! The dataset that the models were trained for is a benchmark named `new-task`. Finished parts are read and not repeated, so the same
//! command resumes.

use super::family::{common_family, family_of};
use super::gate::GATE_MD;
use super::gold::gold_changes;
use super::pairing::{ExampleLabel, FinishedEval, comparable, pair};
use super::prompt_sets::{LazyModel, PromptSet, check_held_out};
use super::result::{
    AggregateChange, BenchmarkTitle, ForgettingResult, MeasuredBenchmark, ModelRef, NEW_TASK, TunedResult,
};
use super::write::{FORGETTING_CSV, FORGETTING_JSON, FORGETTING_MD, write};
use crate::comm::Communicator;
use crate::eval::BaseSamples;
use crate::eval::bench::{self, BenchmarkSettings, BenchmarkSpec, PreparedBenchmark};
use crate::io::lock::LockFile;
use crate::io::output_dir::{self, Growing};
use crate::io::{files, jsonl};
use crate::model::inspect::inspect;
use crate::model::weight_diff::{PartDiff, weight_diff};
use crate::model::{self, ComputeDtype, ModelLoader};
use crate::sampling::{SamplePlan, SampleProgress, SamplingKey};
use crate::tasks::scorers;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// Directory of the gold answers' log-probabilities.
const GOLD: &str = "gold";

/// Prompts of each set on which the divergence is measured when nothing is said.
pub const PROMPTS: usize = 64;

/// What to compare.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct CompareRequest {
    /// Checkpoint directory of the base; may be left out if its evaluation is done and no divergence is wanted.
    pub base: Option<PathBuf>,
    /// Directory of an evaluation of the base done before, to be read instead of evaluating it.
    pub base_results: Option<PathBuf>,
    /// Checkpoint directories of the tuned models.
    pub tuned: Vec<PathBuf>,
    /// Prior knowledge.
    pub benchmarks: Vec<BenchmarkSpec>,
    /// The task that the models were trained for, if it is measured; its name is replaced.
    pub new_task: Option<BenchmarkSpec>,
    /// How everything is evaluated.
    pub settings: BenchmarkSettings,
    /// Prior prompts that are held out from the benchmarks: the divergence is measured on them and not on the benchmarks' prompts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prior: Vec<BenchmarkSpec>,
    /// Prompts of each set on which the divergence is measured; 0 for none.
    pub prompts: usize,
    /// Output directory.
    pub out: PathBuf,
    /// Remove the results of an earlier comparison first.
    pub fresh: bool,
}

/// Receives progress.
pub trait CompareObserver {
    /// A stage begins.
    fn stage(&mut self, what: &str);
    /// Progress of a benchmark.
    fn evaluating(&mut self, benchmark: &str, progress: SampleProgress);
    /// Progress of a divergence.
    fn diverging(&mut self, set: &str, done: usize, total: usize);
}

/// Evaluate, compare, and write the comparison. Finished parts are read and not repeated. Every rank calls it; one that gets an error must end
/// the others ([`Communicator::abort`]). Rank 0 alone writes, and compares the weights.
///
/// # Errors
/// Input errors before any weights are loaded: a name given twice, a benchmark that cannot be read, models that do not read prompts
/// alike, an output directory that holds something else, stored results of other settings.
pub fn run(
    request: &CompareRequest,
    (loader, comm): (&ModelLoader, &dyn Communicator),
    progress: &mut dyn CompareObserver,
) -> Result<ForgettingResult> {
    let specs = request.specs()?;
    let places = request.places(&specs)?;
    let Some(first) = request.tuned.first() else {
        return Err(Error::input("--model is missing: no tuned model to compare with the base"));
    };
    let prepared = bench::prepare(&specs, &request.settings, first)?;
    let held_out = bench::prepare(&request.prior, &request.prior_settings(), first)?;
    if let Some(bench) = prepared.iter().find(|bench| !bench.is_scored()) {
        return Err(Error::input(format!(
            "--bench {}: {} has no answers (column `answer`), so there are no scores to compare",
            bench.name,
            bench.path.display()
        )));
    }
    check_held_out(&held_out, &prepared, request.prompts)?;
    for model in request.tuned.iter().chain(&request.base) {
        let mut served = true;
        for bench in prepared.iter().chain(&held_out) {
            served = served && bench.serves(model)?;
        }
        if !served {
            return Err(Error::input(format!(
                "{} and {} do not read prompts alike: their tokenizer, chat template, preprocessor or generation files \
                 differ. Copy these files from the base into the tuned model's directory if that is what it was trained with",
                first.display(),
                model.display()
            )));
        }
    }
    comm.check_same(request)?;
    let _lock = comm.root_alone(|| request.claim())?;
    let base_out = match (&request.base_results, &request.base) {
        (Some(done), _) => done.clone(),
        (None, Some(base)) => {
            let out = request.out.join("base");
            progress.stage(&format!("base: {}", base.display()));
            bench::run(&prepared, base, (loader, comm), &out, request.fresh, &mut |name, p| {
                progress.evaluating(name, p)
            })?;
            out
        }
        (None, None) => return Err(Error::input("--baseline is missing: the model that --model was tuned from")),
    };
    let read = |bench: &PreparedBenchmark| FinishedEval::read(&base_out.join(&bench.name));
    let base = prepared.iter().map(read).collect::<Result<Vec<_>>>()?;
    if request.base_results.is_some() {
        // Stored results may be of other settings. Check before the tuned models are evaluated.
        let prompt = model::hash_prompt_files(first)?;
        for (bench, stored) in prepared.iter().zip(&base) {
            let key = SamplingKey::new(&stored.about.key.model, &prompt, bench.task(), &bench.plan, &bench.sampling)?;
            let key = SamplingKey { bench: Some(bench.protocol.clone()), dtype: loader.compute(), ..key };
            comparable(&stored.dir.display(), &stored.about.key, &"this comparison", &key)?;
        }
    }
    let labels = prepared
        .iter()
        .map(|bench| {
            // The new task is not part of any mean over benchmarks, so it shares nothing with them.
            let of = if bench.name == NEW_TASK { ExampleLabel::of } else { ExampleLabel::of_benchmark };
            of(bench.task(), bench.plan.examples(bench.task()))
        })
        .collect::<Result<Vec<_>>>()?;
    let base_dir = request.base_dir(&base)?;
    let about = base.first().map(|evaluation| &evaluation.about);
    let base_hash = about.map(|about| about.key.model.clone()).unwrap_or_default();
    if let Some(other) = base.iter().find(|e| e.about.key.model != base_hash) {
        return Err(Error::input(format!("{} is the evaluation of another base than the others", other.dir.display())));
    }
    if request.prompts > 0 && model::hash_model(&base_dir)? != base_hash {
        return Err(Error::input(format!(
            "{} is not the model whose results are in {}; give the one that they are of, or --kl-prompts 0",
            base_dir.display(),
            base_out.display()
        )));
    }
    let work = ComparisonContext { request, prepared: &prepared, base, labels };
    let sets = work.prompt_sets(&held_out, &base_hash, loader.compute())?;
    let mut base_model = LazyModel { dir: &base_dir, loader, model: None };
    let mut samples = Vec::new();
    samples.resize_with(sets.len(), BaseSamples::default);
    let mut found = ForgettingResult::new(ModelRef::of(&base_dir, &base_hash), Vec::new());
    found.base_results = request.base_results.as_ref().map(|dir| files::absolute(dir).display().to_string());
    for (dir, place) in request.tuned.iter().zip(&places) {
        progress.stage(&format!("tuned: {}", dir.display()));
        let out = &place.out;
        bench::run(&prepared, dir, (loader, comm), out, request.fresh, &mut |name, p| progress.evaluating(name, p))?;
        let mut tuned = work.compare(dir, place)?;
        tuned.weights = if comm.is_root() { weights(&base_dir, &base_hash, dir, progress) } else { None };
        // Write what is known before both models are loaded, which may exceed the memory.
        found.tuned.push(tuned.clone());
        comm.on_root(|| write(&request.out, &found))?;
        if !sets.is_empty() {
            if found.tuned.len() == 1 {
                progress.stage(&both_models(&base_dir, dir)?);
            }
            let mut tuned_model = LazyModel { dir, loader, model: None };
            let mut gold = Vec::new();
            for (set, samples) in sets.iter().zip(&mut samples) {
                let models = (&mut base_model, &mut tuned_model);
                let mut report = |name: &str, done, total| progress.diverging(name, done, total);
                let place = (place.divergence.as_path(), request.fresh);
                let measured = set.measure(place, &tuned.model.hash, comm, models, samples, &mut report)?;
                tuned.divergence.push(measured.0);
                gold.extend(measured.1.into_iter().filter(|_| set.is_prior()));
            }
            if !gold.is_empty() {
                comm.on_root(|| {
                    files::create_dir(&request.out.join(GOLD))?;
                    jsonl::write(&request.out.join(&place.gold), &gold)
                })?;
                tuned.gold_file = Some(place.gold.display().to_string());
                tuned.gold = gold_changes(&gold);
            }
            found.tuned.pop();
            found.tuned.push(tuned);
            comm.on_root(|| write(&request.out, &found))?;
        }
    }
    Ok(found)
}

/// The change of the weights; none, with a note, for models whose weights do not fit together, and without the base's weights.
fn weights(base: &Path, base_hash: &str, tuned: &Path, progress: &mut dyn CompareObserver) -> Option<Vec<PartDiff>> {
    // A base that is known by its stored results alone may have moved, or be another one by now.
    if model::hash_model(base).ok()? != base_hash {
        return None;
    }
    match weight_diff(base, tuned) {
        Ok(found) => Some(found.parts),
        Err(error) => {
            progress.stage(&format!("the change of the weights is left out: {error}"));
            None
        }
    }
}

/// What all tuned models share.
struct ComparisonContext<'a> {
    request: &'a CompareRequest,
    prepared: &'a [PreparedBenchmark],
    /// The base's evaluation of each benchmark.
    base: Vec<FinishedEval>,
    /// Labels of the examples of each benchmark.
    labels: Vec<Vec<ExampleLabel>>,
}

/// Where one tuned model's results go.
struct OutputPaths {
    out: PathBuf,
    divergence: PathBuf,
    /// In the output directory.
    gold: PathBuf,
}

impl CompareRequest {
    fn specs(&self) -> Result<Vec<BenchmarkSpec>> {
        if let Some(spec) = self.benchmarks.iter().find(|spec| spec.name.eq_ignore_ascii_case(NEW_TASK)) {
            return Err(Error::input(format!(
                "--bench {}={}: this name is reserved for the task that the models were trained for (--data); choose another",
                spec.name,
                spec.path.display()
            )));
        }
        let new_task = self.new_task.iter().map(|spec| BenchmarkSpec { name: NEW_TASK.to_string(), ..spec.clone() });
        let specs: Vec<BenchmarkSpec> = new_task.chain(self.benchmarks.iter().cloned()).collect();
        if let Some(spec) =
            self.prior.iter().find(|prior| specs.iter().any(|spec| spec.name.eq_ignore_ascii_case(&prior.name)))
        {
            return Err(Error::input(format!("--prior {spec}: a benchmark has this name; choose another")));
        }
        if !self.prior.is_empty() && self.prompts == 0 {
            return Err(Error::input("--prior has no effect with --kl-prompts 0; leave out one of them"));
        }
        if specs.is_empty() {
            return Err(Error::input("nothing to compare on: give --bench NAME=FILE, --data DIR, or both"));
        }
        Ok(specs)
    }

    /// How the held-out prompts are put to the models: as the benchmarks, of all examples.
    fn prior_settings(&self) -> BenchmarkSettings {
        let plan = SamplePlan { limit: None, ..self.settings.plan.clone() };
        BenchmarkSettings { plan, ..self.settings.clone() }
    }

    /// A directory for each tuned model.
    fn places(&self, specs: &[BenchmarkSpec]) -> Result<Vec<OutputPaths>> {
        let root = self.out.join("tuned");
        let names = names(&self.tuned);
        if names.len() > 1
            && let Some(name) = names.iter().find(|name| specs.iter().any(|s| s.name.eq_ignore_ascii_case(name)))
        {
            return Err(Error::input(format!("a model and a benchmark are both called {name}; rename the benchmark")));
        }
        for (i, dir) in self.tuned.iter().enumerate() {
            let full = |p: &Path| p.canonicalize().or_else(|_| std::path::absolute(p)).unwrap_or_default();
            if self.tuned[..i].iter().any(|other| full(other) == full(dir)) {
                return Err(Error::input(format!("--model {} is given twice", dir.display())));
            }
        }
        let place = |name: &String| OutputPaths {
            out: if names.len() == 1 { root.clone() } else { root.join(name) },
            divergence: self.out.join("divergence").join(name),
            gold: Path::new(GOLD).join(format!("{name}.jsonl")),
        };
        Ok(names.iter().map(place).collect())
    }

    /// Lock the output directory until the lock is dropped. It may hold an earlier comparison and nothing else.
    fn claim(&self) -> Result<LockFile> {
        let own = ["base", "tuned", "divergence", GOLD, FORGETTING_JSON, FORGETTING_CSV, FORGETTING_MD, GATE_MD];
        let is_own = |name: &str| own.contains(&name);
        let content = Growing { what: "a comparison with a base", doing: "comparing", mark: None, own: &is_own };
        output_dir::open(&self.out, &content)
    }

    /// Directory of the base: as given, else the one that its stored results name.
    fn base_dir(&self, base: &[FinishedEval]) -> Result<PathBuf> {
        if let Some(dir) = &self.base {
            return Ok(dir.clone());
        }
        let stored = base.first().map(|evaluation| evaluation.about.model.clone()).unwrap_or_default();
        if self.prompts > 0 && !stored.join("config.json").exists() {
            return Err(Error::input(format!(
                "the divergence needs the base's weights, and {} of the stored results is not there; give --baseline, or \
                 --kl-prompts 0 to leave it out",
                stored.display()
            )));
        }
        Ok(stored)
    }
}

impl ComparisonContext<'_> {
    /// The responses of one tuned model, whose evaluation is done, against the base's.
    fn compare(&self, dir: &Path, place: &OutputPaths) -> Result<TunedResult> {
        let mut new_task = None;
        let mut benchmarks = Vec::new();
        let mut hash = String::new();
        for ((bench, base), labels) in self.prepared.iter().zip(&self.base).zip(&self.labels) {
            let tuned = FinishedEval::read(&place.out.join(&bench.name))?;
            hash.clone_from(&tuned.about.key.model);
            let own = match bench.task().aggregate() {
                None | Some(scorers::Aggregate::Mean) => Vec::new(),
                Some(_) => AggregateChange::of(&base.numbers, &tuned.numbers),
            };
            let pairing = pair(base.clone(), tuned)?;
            let scorers: Vec<String> =
                pairing.key.scorers.iter().map(|(name, version)| format!("{name} v{version}")).collect();
            let (task, benchmark, scorer) = (bench.task(), bench.protocol.benchmark.as_deref(), &bench.protocol.scorer);
            let families = (0..task.len()).map(|i| Ok(family_of(&*task.example(i)?, benchmark, scorer)));
            let family = common_family(families, benchmark, scorer)?;
            let title = BenchmarkTitle { name: bench.name.clone(), family, scorer: scorers.join(", ") };
            let compared = MeasuredBenchmark::of(title, &pairing, labels, own)?;
            if bench.name == NEW_TASK { new_task = Some(compared) } else { benchmarks.push(compared) }
        }
        Ok(TunedResult::of(ModelRef::of(dir, &hash), new_task, benchmarks, Vec::new()))
    }

    /// The sets of prompts on which the divergence is measured.
    fn prompt_sets<'a>(
        &'a self,
        held_out: &'a [PreparedBenchmark],
        base_hash: &str,
        dtype: ComputeDtype,
    ) -> Result<Vec<PromptSet<'a>>> {
        let prompts = self.request.prompts;
        if prompts == 0 {
            return Ok(Vec::new());
        }
        let scored = self.prepared.iter().zip(&self.base).zip(&self.labels);
        let chosen = scored.filter(|((bench, _), _)| held_out.is_empty() || bench.name == NEW_TASK);
        let chosen = chosen.map(|((bench, base), labels)| PromptSet::scored(bench, base, labels, prompts));
        let mut sets = chosen.collect::<Result<Vec<_>>>()?;
        for bench in held_out {
            sets.push(PromptSet::held_out(bench, base_hash, dtype, prompts)?);
        }
        Ok(sets)
    }
}

/// What it takes to hold both models at once, computed in f32.
fn both_models(base: &Path, tuned: &Path) -> Result<String> {
    let tuned = inspect(tuned)?;
    // Of an adapter the base is shared.
    let parameters = inspect(base)?.parameters + tuned.adapter.map_or(tuned.parameters, |a| a.parameters);
    Ok(format!(
        "divergence: loads both models at once, {} of weights; --kl-prompts 0 leaves it out",
        files::format_bytes(size_of::<f32>() * parameters)
    ))
}

/// A short name for each model directory: its last part, with as much of the path before it as makes the names differ.
fn names(dirs: &[PathBuf]) -> Vec<String> {
    let parts = |dir: &Path| -> Vec<String> {
        let full = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
        let named = full.components().filter(|c| matches!(c, std::path::Component::Normal(_)));
        named.map(|c| c.as_os_str().to_string_lossy().into_owned()).collect()
    };
    let all: Vec<Vec<String>> = dirs.iter().map(|dir| parts(dir)).collect();
    let end = |parts: &[String], n: usize| parts[parts.len().saturating_sub(n)..].join("-");
    let longest = all.iter().map(Vec::len).max().unwrap_or(1).max(1);
    let unique = |n: &usize| {
        let mut names: Vec<String> = all.iter().map(|parts| end(parts, *n).to_lowercase()).collect();
        names.sort();
        names.windows(2).all(|pair| pair[0] != pair[1])
    };
    let n = (1..=longest).find(unique).unwrap_or(longest);
    all.iter().map(|parts| end(parts, n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::SamplePlan;

    #[test]
    fn models_are_named_by_as_little_of_their_path_as_tells_them_apart() {
        let of = |dirs: &[&str]| names(&dirs.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(of(&["/a/run/checkpoints/step-00000010", "/a/run/model"]), ["step-00000010", "model"]);
        assert_eq!(of(&["/a/sft/model", "/a/rft/model"]), ["sft-model", "rft-model"]);
        assert_eq!(of(&["/only/model"]), ["model"]);
    }

    fn request(tuned: &[&str], benchmarks: &[&str]) -> CompareRequest {
        CompareRequest {
            base: Some("base".into()),
            base_results: None,
            tuned: tuned.iter().map(PathBuf::from).collect(),
            benchmarks: benchmarks.iter().map(|text| BenchmarkSpec::parse(text, "test").unwrap()).collect(),
            new_task: None,
            settings: BenchmarkSettings {
                plan: SamplePlan { limit: None, num_generations: 1, batch_size: 1 },
                sampling: crate::model::SamplingParams::greedy(8),
                max_new_tokens: None,
                min_pixels: None,
                max_pixels: None,
            },
            prior: Vec::new(),
            prompts: 0,
            out: "out".into(),
            fresh: false,
        }
    }

    #[test]
    fn names_that_would_meet_are_refused() {
        let refused = |request: &CompareRequest, expected: &str| {
            let error = request.specs().and_then(|specs| request.places(&specs).map(|_| ())).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(expected), "{error}");
        };
        refused(&request(&["a"], &["new-task=x.tsv:choice"]), "--data");
        refused(&request(&["a"], &[]), "--bench");
        refused(&request(&["a", "b"], &["b=x.tsv:choice"]), "rename the benchmark");
        refused(&request(&["a", "./a"], &["mmstar=x.tsv"]), "given twice");
        let prior = vec![BenchmarkSpec::parse("mmstar=prior.tsv", "test").unwrap()];
        let with_prior =
            |prompts| CompareRequest { prior: prior.clone(), prompts, ..request(&["a"], &["MMStar=x.tsv"]) };
        refused(&with_prior(8), "--prior mmstar=prior.tsv: a benchmark has this name");
        let none = CompareRequest { benchmarks: request(&["a"], &["pope=x.tsv"]).benchmarks, ..with_prior(0) };
        refused(&none, "--kl-prompts 0");
        let one = request(&["runs/sft/model"], &["mmstar=x.tsv"]);
        let places = one.places(&one.specs().unwrap()).unwrap();
        assert_eq!(places[0].out, Path::new("out/tuned"));
        let two = request(&["runs/sft/model", "runs/rft/model"], &["mmstar=x.tsv"]);
        let places = two.places(&two.specs().unwrap()).unwrap();
        assert_eq!(places[1].out, Path::new("out/tuned/rft-model"));
    }
}
