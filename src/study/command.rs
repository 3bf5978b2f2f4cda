//! What a task runs: one variant for each subcommand, with the request that the subcommand makes of the library.
//!
//! A study plans, checks, estimates and compares these values. [`JigsawCommand::arguments`] renders one as the command line that a user could
//! type: for people, and for the process that runs it. Nothing reads a command line back.

use crate::dynamics::{DynamicsRequest, InfluenceConfig};
use crate::eval::SolverEvalRequest;
use crate::eval::bench::{self, BenchmarkSpec};
use crate::forgetting::{self, CompareRequest};
use crate::sampling::BATCH_SIZE;
use crate::sampling::chat_api::Endpoint;
use crate::sampling::rollout::{self, Teacher};
use crate::tasks::countdown::CountdownSettings;
use crate::tasks::jigsaw::generate::JigsawSettings;
use crate::tasks::maths::MathsSettings;
use crate::tasks::split::SplitRatios;
use crate::tasks::suites::SuiteSettings;
use crate::train::settings::Method;
use crate::{Error, Result};
use clap::ValueEnum;
use serde::Serialize;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// One command of this program.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum JigsawCommand {
    /// `jigsaw gen`.
    Gen(Gen),
    /// `jigsaw train`.
    Train(Train),
    /// `jigsaw rollout`.
    Rollout(rollout::RolloutRequest),
    /// `jigsaw eval`.
    Eval(Eval),
    /// `jigsaw eval --baseline`.
    Compare(CompareRequest),
    /// `jigsaw eval --solver`.
    Solve(SolverEvalRequest),
    /// `jigsaw dynamics`.
    Dynamics(DynamicsRequest),
    /// `jigsaw model interpolate`.
    Interpolate(Interpolate),
    /// `jigsaw report`.
    Report(Report),
}

/// A dataset to make. What a killed process left in its directory is replaced.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gen {
    /// What to make.
    pub dataset: GenSettings,
    /// Its split ratios as they are written, if they are: ratios that are divided by their sum twice differ in the last bit.
    pub split: Option<String>,
    /// Where.
    pub out: PathBuf,
}

/// What `jigsaw gen` makes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GenSettings {
    /// Jigsaw puzzles.
    Jigsaw {
        /// The puzzles.
        settings: JigsawSettings,
        /// Puzzles of the contact sheet, if there is to be one.
        preview: Option<usize>,
    },
    /// Countdown puzzles.
    Countdown(CountdownSettings),
    /// Word problems.
    Maths(MathsSettings),
    /// Suites of prior knowledge.
    Suites(SuiteSettings),
}

impl GenSettings {
    /// Examples over all splits, but for suites those of a family; and the ratios of the splits.
    pub fn size(&self) -> (usize, SplitRatios) {
        match self {
            GenSettings::Jigsaw { settings, .. } => (settings.count, settings.split),
            GenSettings::Countdown(settings) => (settings.count, settings.split),
            GenSettings::Maths(settings) => (settings.count, settings.split),
            GenSettings::Suites(settings) => (settings.count, settings.split),
        }
    }

    /// The same, asked in the default words and without a contact sheet: what is left decides pictures and right answers.
    pub(super) fn without_wording(mut self) -> GenSettings {
        match &mut self {
            GenSettings::Jigsaw { settings, preview } => {
                let JigsawSettings { style, question_first, .. } = JigsawSettings::default();
                (settings.style, settings.question_first, *preview) = (style, question_first, None);
            }
            GenSettings::Countdown(settings) => settings.style = CountdownSettings::default().style,
            GenSettings::Maths(settings) => settings.style = MathsSettings::default().style,
            // Its families are asked in both.
            GenSettings::Suites(_) => {}
        }
        self
    }

    /// The same with so many examples.
    pub(super) fn with_count(mut self, examples: usize) -> GenSettings {
        let (GenSettings::Jigsaw { settings: JigsawSettings { count, .. }, .. }
        | GenSettings::Countdown(CountdownSettings { count, .. })
        | GenSettings::Maths(MathsSettings { count, .. })
        | GenSettings::Suites(SuiteSettings { count, .. })) = &mut self;
        *count = examples;
        self
    }
}

/// A training run, its settings as they are written: a file, and values over it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Train {
    /// The model to start from.
    pub model: PathBuf,
    /// The dataset.
    pub data: PathBuf,
    /// The method, if the study names it.
    pub method: Option<Method>,
    /// A file of settings.
    pub config: Option<PathBuf>,
    /// Settings over the file's, by their dotted keys.
    pub settings: Table,
    /// The learning rate, if the study names it.
    pub learning_rate: Option<f64>,
    /// The seed.
    pub seed: u64,
    /// The run directory.
    pub out: PathBuf,
}

impl Train {
    /// The settings over the file's as `section.key=value`.
    pub fn sets(&self) -> Vec<String> {
        let mut sets: Vec<String> = self.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        sets.extend(self.learning_rate.map(|lr| format!("train.learning_rate={lr:e}")));
        sets.push(format!("train.seed={}", self.seed));
        sets
    }
}

/// The evaluation of one model on benchmarks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Eval {
    /// The model.
    pub model: PathBuf,
    /// The benchmarks.
    pub benchmarks: Vec<BenchmarkSpec>,
    /// How they are evaluated.
    pub settings: bench::BenchmarkSettings,
    /// The output directory.
    pub out: PathBuf,
}

/// A model between two others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Interpolate {
    /// One end.
    pub base: PathBuf,
    /// The other end.
    pub tuned: PathBuf,
    /// Share of the tuned model.
    pub alpha: f64,
    /// Checkpoint directory to write.
    pub out: PathBuf,
}

/// A report page.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What it shows.
    pub runs: Vec<PathBuf>,
    /// Heading.
    pub title: String,
    /// The page.
    pub out: PathBuf,
}

impl JigsawCommand {
    /// The subcommand, as it is typed.
    pub fn subcommand(&self) -> &'static str {
        match self {
            JigsawCommand::Gen(_) => "gen",
            JigsawCommand::Train(_) => "train",
            JigsawCommand::Rollout(_) => "rollout",
            JigsawCommand::Eval(_) | JigsawCommand::Compare(_) | JigsawCommand::Solve(_) => "eval",
            JigsawCommand::Dynamics(_) => "dynamics",
            JigsawCommand::Interpolate(_) => "model",
            JigsawCommand::Report(_) => "report",
        }
    }

    /// Does it compute with a model, on the device that the study was given?
    pub fn uses_device(&self) -> bool {
        matches!(self.subcommand(), "train" | "eval" | "rollout" | "dynamics")
            && !matches!(self, JigsawCommand::Solve(_))
    }

    /// Refuse what cannot be run, as far as that can be seen without reading a file. The settings of training are checked when they are
    /// resolved.
    ///
    /// # Errors
    /// Input errors that name the setting.
    pub fn check(&self) -> Result<()> {
        match self {
            JigsawCommand::Gen(Gen { dataset: GenSettings::Jigsaw { settings, preview }, out, .. }) => {
                if *preview == Some(0) {
                    return Err(Error::input("preview 0: ask for at least one puzzle, or leave it out"));
                }
                settings.check(out)
            }
            JigsawCommand::Gen(Gen { dataset: GenSettings::Countdown(settings), .. }) => settings.check(),
            JigsawCommand::Rollout(request) => request.check(),
            JigsawCommand::Eval(eval) => eval.settings.check(),
            JigsawCommand::Compare(request) => request.settings.check(),
            JigsawCommand::Dynamics(request) => request.check(),
            JigsawCommand::Interpolate(Interpolate { alpha, .. }) if !(0.0..=1.0).contains(alpha) => {
                Err(Error::input(format!("alpha {alpha}: must be a share from 0 to 1")))
            }
            _ => Ok(()),
        }
    }

    /// The same command over these checkpoints too, which come before the last of its models.
    pub fn with_checkpoints(&self, checkpoints: &[PathBuf]) -> JigsawCommand {
        let mut command = self.clone();
        let models = match &mut command {
            JigsawCommand::Compare(request) => &mut request.tuned,
            JigsawCommand::Dynamics(request) => &mut request.models,
            _ => return command,
        };
        let last = models.len().saturating_sub(1);
        models.splice(last..last, checkpoints.iter().cloned());
        command
    }

    /// Version of the results that it writes, where another version must be made again: a comparison then reads the finished evaluations.
    pub fn results_version(&self) -> u32 {
        match self {
            JigsawCommand::Compare(_) => forgetting::FORMAT_VERSION,
            _ => 0,
        }
    }

    /// The settings that may have grown since the task was done, where it aggregates the results of others.
    pub fn growing(&self) -> &'static [&'static str] {
        match self {
            JigsawCommand::Dynamics(_) => &["models", "train", "prior", "forgetting"],
            JigsawCommand::Report(_) => &["runs", "title"],
            _ => &[],
        }
    }

    /// The arguments after `jigsaw`. Flags that would say what is the default are left out.
    pub fn arguments(&self) -> Vec<String> {
        match self {
            JigsawCommand::Gen(Gen { dataset, split, out }) => {
                let mut line = Arguments::of(&["gen"]);
                match dataset {
                    GenSettings::Jigsaw { settings, preview } => {
                        line.changed(settings, &JigsawSettings::default()).option("preview", preview.as_ref());
                    }
                    GenSettings::Countdown(settings) => {
                        line.flag("task", "countdown").changed(settings, &CountdownSettings::default());
                    }
                    GenSettings::Maths(settings) => {
                        line.flag("task", "maths").changed(settings, &MathsSettings::default());
                    }
                    GenSettings::Suites(settings) => {
                        line.changed(settings, &SuiteSettings::default());
                    }
                }
                line.option("split", split.as_ref()).path("out", out).word("--overwrite");
                line.0
            }
            JigsawCommand::Train(train) => {
                let mut line = Arguments::of(&["train"]);
                line.path("model", &train.model).path("data", &train.data).option("method", train.method.as_ref());
                if let Some(config) = &train.config {
                    line.path("config", config);
                }
                train.sets().iter().for_each(|set| {
                    line.flag("set", set);
                });
                line.path("out", &train.out);
                line.0
            }
            JigsawCommand::Rollout(request) => rollout_arguments(request),
            JigsawCommand::Eval(Eval { model, benchmarks, settings, out }) => {
                let mut line = Arguments::of(&["eval"]);
                line.path("model", model).benchmarks(benchmarks).evaluation(settings).path("out", out);
                line.0
            }
            JigsawCommand::Compare(request) => {
                let mut line = Arguments::of(&["eval"]);
                line.paths("model", &request.tuned);
                request.base.iter().for_each(|base| {
                    line.path("baseline", base);
                });
                request.base_results.iter().for_each(|results| {
                    line.path("baseline-results", results);
                });
                request.new_task.iter().for_each(|task| {
                    line.path("data", &task.path);
                });
                line.benchmarks(&request.benchmarks).evaluation(&request.settings);
                request.prior.iter().for_each(|prior| {
                    line.flag("prior", prior).unless("prior-split", &prior.split, &"validation".to_string());
                });
                line.unless("kl-prompts", &request.prompts, &forgetting::PROMPTS).path("out", &request.out);
                line.0
            }
            JigsawCommand::Solve(SolverEvalRequest { solver, train, data, limit, out, .. }) => {
                let mut line = Arguments::of(&["eval"]);
                line.flag("solver", solver.name()).path("data", data);
                if train != data {
                    line.path("solver-train", train);
                }
                line.option("limit", limit.as_ref()).path("out", out);
                line.0
            }
            JigsawCommand::Dynamics(request) => dynamics_arguments(request),
            JigsawCommand::Interpolate(Interpolate { base, tuned, alpha, out }) => {
                let mut line = Arguments::of(&["model", "interpolate"]);
                line.word(&text(base)).word(&text(tuned)).flag("alpha", alpha);
                // A process that was killed before its task was recorded may have written it.
                line.word("--overwrite").path("out", out);
                line.0
            }
            JigsawCommand::Report(Report { runs, title, out }) => {
                let mut line = Arguments::of(&["report"]);
                runs.iter().for_each(|run| {
                    line.word(&text(run));
                });
                line.flag("title", title).path("out", out);
                line.0
            }
        }
    }
}

fn rollout_arguments(request: &rollout::RolloutRequest) -> Vec<String> {
    let mut line = Arguments::of(&["rollout"]);
    let (plan, sampling, selection) = (&request.plan, &request.sampling, &request.selection);
    let defaults = rollout::RolloutOptions::default();
    match &request.teacher {
        Teacher::Model(model) => {
            line.path("model", model);
        }
        Teacher::Scripted => {
            line.flag("teacher", "scripted");
        }
        Teacher::Endpoint(endpoint) => {
            let Endpoint { url, model, concurrency, per_minute, retries, .. } = endpoint;
            line.flag("teacher", url).flag("teacher-model", model).unless(
                "concurrency",
                concurrency,
                &defaults.concurrency,
            );
            line.option("per-minute", per_minute.as_ref()).unless("retries", retries, &defaults.retries);
        }
    }
    line.path("data", &request.data).unless("split", &request.split, &defaults.split);
    line.option("limit", plan.limit.as_ref());
    if request.teacher != Teacher::Scripted {
        line.unless("num-generations", &plan.num_generations, &rollout::SAMPLES);
        line.unless("temperature", &sampling.temperature, &rollout::TEMPERATURE);
        line.unless("top-p", &sampling.top_p, &1.0).unless("top-k", &sampling.top_k, &0);
        line.unless("max-new-tokens", &sampling.max_new_tokens, &crate::tasks::benchmarks::DEFAULT_NEW_TOKENS);
    } else {
        line.unless("num-generations", &plan.num_generations, &1);
    }
    line.unless("batch-size", &plan.batch_size, &defaults.batch_size);
    line.unless("keep", &name(selection.keep), &name(selection.answer.keeps_by_default()));
    line.option("max-per-prompt", selection.max_per_prompt.as_ref()).unless(
        "answer",
        &name(selection.answer),
        &name(defaults.answer),
    );
    line.flag("seed", sampling.seed).path("out", &request.out);
    line.0
}

fn dynamics_arguments(request: &DynamicsRequest) -> Vec<String> {
    let mut line = Arguments::of(&["dynamics"]);
    line.paths("model", &request.models).path("base", &request.base);
    line.specs("train", &request.train).specs("prior", &request.prior);
    if !request.forgetting.is_empty() {
        line.paths("forgetting", &request.forgetting);
    }
    let defaults = InfluenceConfig::default();
    let InfluenceConfig { eta, learning_rate, loss, pairs, seed, frozen, on_policy } = &request.config;
    line.unless("pairs", pairs, &defaults.pairs).option("eta", eta.as_ref());
    line.unless("learning-rate", learning_rate, &defaults.learning_rate).option("on-policy", on_policy.as_ref());
    line.unless("loss", &name(*loss), &name(defaults.loss));
    if !frozen.is_empty() {
        line.word("--freeze");
        frozen.iter().for_each(|part| {
            line.word(part);
        });
    }
    let split = |specs: &[BenchmarkSpec]| specs.first().map(|spec| spec.split.clone()).unwrap_or_default();
    line.unless("split", &split(&request.train), &"train".to_string());
    line.unless("prior-split", &split(&request.prior), &"test".to_string());
    line.option("max-new-tokens", request.max_new_tokens.as_ref()).unless("seed", seed, &defaults.seed);
    if request.fresh {
        line.word("--fresh");
    }
    line.path("out", &request.out);
    line.0
}

/// A command line under construction.
struct Arguments(Vec<String>);

impl Arguments {
    fn of(words: &[&str]) -> Arguments {
        Arguments(words.iter().map(|word| word.to_string()).collect())
    }

    fn word(&mut self, word: &str) -> &mut Self {
        self.0.push(word.to_string());
        self
    }

    fn flag(&mut self, name: &str, value: impl Display) -> &mut Self {
        self.0.extend([format!("--{name}"), value.to_string()]);
        self
    }

    fn path(&mut self, name: &str, path: &Path) -> &mut Self {
        self.flag(name, path.display())
    }

    fn paths(&mut self, name: &str, paths: &[PathBuf]) -> &mut Self {
        self.0.push(format!("--{name}"));
        self.0.extend(paths.iter().map(|path| text(path)));
        self
    }

    fn option(&mut self, name: &str, value: Option<&impl Display>) -> &mut Self {
        match value {
            Some(value) => self.flag(name, value),
            None => self,
        }
    }

    fn unless<T: PartialEq + Display>(&mut self, name: &str, value: &T, default: &T) -> &mut Self {
        if value == default { self } else { self.flag(name, value) }
    }

    fn benchmarks(&mut self, specs: &[BenchmarkSpec]) -> &mut Self {
        specs.iter().for_each(|spec| {
            self.flag("bench", spec);
        });
        self
    }

    fn specs(&mut self, name: &str, specs: &[BenchmarkSpec]) -> &mut Self {
        self.0.push(format!("--{name}"));
        self.0.extend(specs.iter().map(BenchmarkSpec::to_string));
        self
    }

    fn evaluation(&mut self, settings: &bench::BenchmarkSettings) -> &mut Self {
        let bench::BenchmarkSettings { plan, max_new_tokens, min_pixels, max_pixels, .. } = settings;
        self.option("limit", plan.limit.as_ref()).option("max-new-tokens", max_new_tokens.as_ref());
        self.option("min-pixels", min_pixels.as_ref()).option("max-pixels", max_pixels.as_ref());
        self.unless("batch-size", &plan.batch_size, &BATCH_SIZE)
    }

    /// The settings that differ from the defaults, each by the flag of its name, but for the split ratios.
    fn changed<T: Serialize>(&mut self, settings: &T, defaults: &T) -> &mut Self {
        let table = |value: &T| Table::try_from(value).unwrap_or_default();
        let defaults = table(defaults);
        for (key, value) in
            table(settings).into_iter().filter(|(key, value)| key != "split" && defaults.get(key) != Some(value))
        {
            let flag = key.replace('_', "-");
            match value {
                Value::Boolean(true) => {
                    self.word(&format!("--{flag}"));
                }
                Value::Boolean(false) => {}
                Value::Array(values) => {
                    self.flag(&flag, values.iter().map(plain).collect::<Vec<_>>().join(","));
                }
                value => {
                    self.flag(&flag, plain(&value));
                }
            }
        }
        self
    }
}

/// A value as it is typed.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The name of a choice as it is typed.
fn name(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
