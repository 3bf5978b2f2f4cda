//! The file of a study: one TOML whose sections are the flags of the commands that the study is made of.
//!
//! ```text
//! [study]           title, base, seeds
//! [puzzles.NAME]    flags of `jigsaw gen`, also of `--task` and `--suite`
//! [prior]           flags of `jigsaw gen --suite`; benches: which of its benchmarks are evaluated
//! [benchmarks]      NAME = "FILE.tsv[:SCORER]", flags of `jigsaw eval --bench`
//! [rollouts.NAME]   from: who answers, data: whose prompts, and flags of `jigsaw rollout`
//! [regimes.NAME]    method, data, start, test, learning_rate (one or a ladder), steps_at, alpha; its sections are settings of `jigsaw train`
//! [sequence]        tasks: puzzles that are learned in a row, methods: the regimes that learn them
//! [eval]            checkpoints: how many intermediate checkpoints to evaluate, and flags of `jigsaw eval`
//! [recovery]        examples: how many gold prior examples the models are trained on afterwards, and how
//! [dynamics]        flags of `jigsaw dynamics`
//! ```

use super::command::GenSettings;
use super::read_section::{over, own_section, place, read, refuse_keys, section, sections, take, unknown_among};
use super::sequence_section::{SequenceSection, Stage};
use crate::dynamics::ResponseLoss;
use crate::eval::bench::BenchmarkSpec;
use crate::io::files;
use crate::io::plain::toml_fault;
use crate::io::schema::settings_of;
use crate::io::toml::{set as set_value, to_toml};
use crate::sampling::rollout;
use crate::tasks::countdown::CountdownSettings;
use crate::tasks::jigsaw::generate::JigsawSettings;
use crate::tasks::maths::MathsSettings;
use crate::tasks::suites::{self, SuiteSettings};
use crate::train::known_names;
use crate::train::settings::{Method, TrainConfig};
use crate::{Error, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Resolves the settings of a training run: the method, a file, and `section.key=value` over it. The study lies below the room that
/// knows how, and is given it.
pub type ResolveConfig = fn(Option<Method>, Option<&Path>, &[String]) -> Result<TrainConfig>;

/// A study as written, names not yet resolved.
#[derive(Debug, Clone)]
pub struct Study {
    /// The file, for messages.
    pub name: String,
    /// All of it, with what was set on the command line.
    pub table: Table,
    /// `[study]`.
    pub head: StudyHeader,
    /// `[puzzles.NAME]`.
    pub puzzles: Vec<(String, Puzzles)>,
    /// `[prior]`.
    pub prior: Option<Prior>,
    /// `[benchmarks]`.
    pub benchmarks: Vec<BenchmarkSpec>,
    /// `[rollouts.NAME]`.
    pub rollouts: Vec<(String, Rollouts)>,
    /// `[regimes.NAME]`, in the order written.
    pub regimes: Vec<(String, Regime)>,
    /// `[sequence]`.
    pub sequence: Option<SequenceSection>,
    /// Its methods with what they are; the regimes have their stages in place of them.
    pub methods: Vec<(String, String)>,
    /// The stages of all methods, in order.
    pub stages: Vec<Stage>,
    /// `[eval]`.
    pub eval: EvalSection,
    /// `[recovery]`.
    pub recovery: Option<RecoverySection>,
    /// `[dynamics]`.
    pub dynamics: Option<DynamicsSection>,
    pub(super) resolve: ResolveConfig,
    text: String,
}

/// `[study]`.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StudyHeader {
    /// Heading of the report.
    #[serde(default = "StudyHeader::title")]
    pub title: String,
    /// The base model: a directory, or a name on the Hub.
    pub base: PathBuf,
    /// Seeds of training; each regime is run with each.
    #[serde(default = "StudyHeader::seeds")]
    pub seeds: Vec<u64>,
}

impl StudyHeader {
    fn title() -> String {
        "jigsaw study".into()
    }

    fn seeds() -> Vec<u64> {
        vec![1]
    }
}

/// `[puzzles.NAME]`: a dataset of puzzles, by the flags of `jigsaw gen`.
#[derive(Debug, Clone, PartialEq)]
pub struct Puzzles {
    /// What to make.
    pub dataset: GenSettings,
    /// The split ratios as written.
    pub split: Option<String>,
}

/// The keys of `[puzzles.NAME]` that are no settings of the puzzles.
#[derive(Debug, schemars::JsonSchema)]
pub(super) struct PuzzleKeys {
    /// `countdown` for countdown puzzles, `maths` for word problems; jigsaw puzzles when not given.
    task: Option<String>,
    /// In place of puzzles: families of questions, such as `ocr`; the keys are then those of `[prior]`, without `benches`.
    suite: Option<String>,
    /// Puzzles of the contact sheet `preview.png`; none when not given.
    preview: Option<usize>,
}

/// `[prior]`: suites of prior knowledge, by the flags of `jigsaw gen --suite`.
#[derive(Debug, Clone, PartialEq, schemars::JsonSchema)]
pub struct Prior {
    /// The benchmarks to evaluate, as `vqa-direct`; when not given, each family of the suite in both styles, but for `order` and `lists`.
    pub benches: Option<Vec<String>>,
    /// What to make.
    #[schemars(flatten)]
    pub settings: SuiteSettings,
    /// The split ratios as written.
    #[schemars(skip)]
    pub split: Option<String>,
}

/// `[rollouts.NAME]`: a dataset of sampled responses.
#[derive(Debug, Clone, PartialEq, schemars::JsonSchema)]
pub struct Rollouts {
    /// `base`, or a regime (`NAME`, or `NAME@LR` for a point of its ladder); not given with a teacher.
    pub from: Option<String>,
    /// The puzzles whose prompts are answered.
    pub data: String,
    /// The flags of `jigsaw rollout`.
    #[schemars(flatten)]
    pub options: rollout::RolloutOptions,
}

/// `[regimes.NAME]`: a way of fine-tuning.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
pub struct Regime {
    /// What it is, in a few words, for the report.
    #[serde(default)]
    pub about: String,
    /// `sft` or `rft`.
    pub method: Option<String>,
    /// Name of the puzzles or rollouts to train on.
    pub data: Option<String>,
    /// `base`, or the regime whose trained model this one starts from (`NAME` or `NAME@LR`).
    pub start: Option<String>,
    /// The puzzles whose test split is the new task; those that it is trained on when not given.
    pub test: Option<String>,
    /// Learning rate, or a ladder of them.
    #[serde(default)]
    pub learning_rate: OneOrMore,
    /// Steps in proportion to 1 / learning rate, in place of `train.steps`.
    pub steps_at: Option<StepsAt>,
    /// Seeds, in place of the study's.
    pub seeds: Option<Vec<u64>>,
    /// A file of settings that the sections here go over.
    pub config: Option<PathBuf>,
    /// In place of training: the regime (`NAME` or `NAME@LR`) whose model is interpolated with the base.
    pub interpolate: Option<String>,
    /// Share of that model, or several.
    #[serde(default)]
    pub alpha: OneOrMore,
    /// Whether it is evaluated and shown; `false` for what is only a start for others.
    #[serde(default = "yes")]
    pub measured: bool,
    /// Settings of training by section.
    #[serde(flatten)]
    #[schemars(skip)]
    pub settings: Table,
}

/// Steps at one learning rate; at another one in proportion to 1 / learning rate, so that all points of a ladder move the weights about equally
/// far. With `train.stop_when` they are the most that a run makes.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepsAt {
    /// The learning rate.
    pub learning_rate: f64,
    /// `train.steps` at that rate.
    pub steps: usize,
    /// `eval.steps` at that rate; the same at all rates when not given.
    pub eval_steps: Option<usize>,
    /// Most steps of any run.
    pub most: Option<usize>,
}

impl StepsAt {
    /// `train.steps` and, if they are scaled, `eval.steps` at a learning rate: whole numbers of rounds.
    pub fn at(&self, learning_rate: f64, round: usize) -> (usize, Option<usize>) {
        let scaled = |steps: usize| {
            let exact = steps as f64 * self.learning_rate / learning_rate;
            ((exact / round as f64).round() as usize).max(1) * round
        };
        let steps = scaled(self.steps);
        let most = self.most.map_or(steps, |most| (most / round).max(1) * round);
        (steps.min(most), self.eval_steps.map(scaled))
    }
}

fn yes() -> bool {
    true
}

/// A number or a list of numbers.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "Numbers")]
pub struct OneOrMore(pub Vec<f64>);

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(untagged, expecting = "must be a number or a list of numbers")]
enum Numbers {
    One(f64),
    More(Vec<f64>),
}

impl TryFrom<Numbers> for OneOrMore {
    type Error = String;

    fn try_from(numbers: Numbers) -> std::result::Result<Self, String> {
        match numbers {
            Numbers::One(number) => Ok(OneOrMore(vec![number])),
            Numbers::More(numbers) if numbers.is_empty() => Err("an empty list: give at least one number".into()),
            Numbers::More(numbers) => Ok(OneOrMore(numbers)),
        }
    }
}

/// `[eval]`: how base and tuned models are evaluated, by the flags of `jigsaw eval`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EvalSection {
    /// Most intermediate checkpoints to evaluate besides the final model, evenly spread over those that a run has kept.
    pub checkpoints: usize,
    /// Only the first examples of each benchmark; all when not given.
    pub limit: Option<usize>,
    /// Examples answered at a time.
    pub batch_size: Option<usize>,
    /// Longest response in tokens, in place of each benchmark's own.
    pub max_new_tokens: Option<usize>,
    /// Fewest pixels of a resized image, in place of each benchmark's own.
    pub min_pixels: Option<usize>,
    /// Most pixels of a resized image, in place of each benchmark's own.
    pub max_pixels: Option<usize>,
    /// Prompts of each set on which the divergence is measured.
    pub kl_prompts: Option<usize>,
    /// Split of `[prior]` whose prompts the divergence is measured on, in place of those of the benchmarks, which are of the test split.
    pub prior_split: Option<String>,
}

/// `[recovery]`: how much of the lost prior knowledge comes back after a few gold prior examples (arXiv 2501.13453): knowledge that does was hidden,
/// not lost. The model of each run is trained on so many examples and compared with the base again.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RecoverySection {
    /// Numbers of examples; each is a run of its own. The examples of a smaller number are among those of a larger one.
    pub examples: Vec<usize>,
    /// Data whose train split they are drawn from.
    pub data: String,
    /// Regimes (`NAME` or `NAME@LR`) whose models recover; every measured run when not given.
    pub regimes: Option<Vec<String>>,
    /// Optimizer steps.
    pub steps: usize,
    /// Examples of a step.
    pub batch_size: usize,
    /// Learning rate, constant.
    pub learning_rate: f64,
}

impl Default for RecoverySection {
    fn default() -> Self {
        let (examples, data) = (vec![10, 50], "prior".to_string());
        RecoverySection { examples, data, regimes: None, steps: 20, batch_size: 10, learning_rate: 1e-4 }
    }
}

/// `[dynamics]`: measurements of learning dynamics, by the flags of `jigsaw dynamics`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DynamicsSection {
    /// Names of puzzles and rollouts that the steps are made on; all that some regime is trained on by SFT when not given.
    pub train: Option<Vec<String>>,
    /// Names of the benchmarks that they act on; all when not given.
    pub prior: Option<Vec<String>>,
    /// Regimes (`NAME` or `NAME@LR`) over whose checkpoints (of the first seed) it is measured too.
    pub over: Vec<String>,
    /// Most pairs of each training set with each benchmark.
    pub pairs: Option<usize>,
    /// Size of the steps; chosen for each pair when not given.
    pub eta: Option<f64>,
    /// Learning rate of the step of Adam.
    pub learning_rate: Option<f64>,
    /// Name of one of the training sets, to whose prompts each checkpoint responds.
    pub on_policy: Option<String>,
    /// The loss that it descends.
    pub loss: Option<ResponseLoss>,
    /// Parts that take no step.
    pub freeze: Vec<String>,
    /// Split of the training data.
    pub split: Option<String>,
    /// Split of the prior datasets.
    pub prior_split: Option<String>,
    /// Longest answer of the base in tokens.
    pub max_new_tokens: Option<usize>,
    /// Seed of the choice of samples.
    pub seed: Option<u64>,
}

/// The known sections.
const SECTIONS: [&str; 10] =
    ["study", "puzzles", "prior", "benchmarks", "rollouts", "regimes", "sequence", "eval", "recovery", "dynamics"];

impl Study {
    /// Read `file` and apply `sets` (`section.key=value`). `resolve` resolves the settings of training.
    ///
    /// # Errors
    /// Input errors that name the file, line and section, or the `--set` argument.
    pub fn read(file: &Path, sets: &[String], resolve: ResolveConfig) -> Result<Study> {
        Study::from_text(&file.display().to_string(), &files::read_text(file)?, sets, resolve)
    }

    /// As [`Study::read`], for a text with the name to use for it in messages.
    pub fn from_text(name: &str, text: &str, sets: &[String], resolve: ResolveConfig) -> Result<Study> {
        let mut table: Table = toml::from_str(text).map_err(|e| Error::input(format!("{name}: {}", toml_fault(&e))))?;
        for set in sets {
            set_value(&mut table, set)?;
        }
        if let Some(other) = table.keys().find(|key| !SECTIONS.contains(&key.as_str())) {
            return Err(Error::input(format!(
                "{name}: unknown section [{other}]; the sections of a study are {}",
                SECTIONS.join(", ")
            )));
        }
        let place = |section: &str| place(name, text, section);
        let head = section(&table, "study", &place)?.ok_or_else(|| {
            Error::input(format!("{name}: [study] is missing; it names the base model: base = \"DIR\""))
        })?;
        let mut study = Study {
            head,
            puzzles: sections(&table, "puzzles", &place, puzzles)?,
            prior: table.get("prior").map(|value| prior(value, &place("prior"))).transpose()?,
            benchmarks: benchmarks(&table, &place)?,
            rollouts: sections(&table, "rollouts", &place, rollouts)?,
            regimes: sections(&table, "regimes", &place, read)?,
            sequence: section(&table, "sequence", &place)?,
            methods: Vec::new(),
            stages: Vec::new(),
            eval: own_section(&table, "eval", SET_IN_EVAL, &place)?.unwrap_or_default(),
            recovery: section(&table, "recovery", &place)?,
            dynamics: own_section(&table, "dynamics", SET_IN_DYNAMICS, &place)?,
            name: name.to_string(),
            resolve,
            text: text.to_string(),
            table,
        };
        study.check()?;
        study.expand_sequence()?;
        Ok(study)
    }

    /// The whole of it as TOML.
    pub fn to_toml(&self) -> Result<String> {
        to_toml(&self.table)
    }

    /// An input error about a section, with its place in the file.
    pub fn error(&self, section: &str, why: impl std::fmt::Display) -> Error {
        Error::input(format!("{}: {why}", place(&self.name, &self.text, section)))
    }

    /// An input error about settings of training that a section has, without the `--set` that the user has not written.
    pub(super) fn settings_error(&self, section: &str, sets: &[String], error: &Error) -> Error {
        let said = error.to_string();
        let own = sets.iter().find_map(|set| said.strip_prefix(&format!("--set {set}: ")));
        self.error(section, own.unwrap_or(&said))
    }

    fn check_steps_at(&self, at: &StepsAt, regime: &Regime) -> std::result::Result<(), String> {
        let given = |section: &str, key: &str| regime.settings.get(section).is_some_and(|keys| keys.get(key).is_some());
        if given("train", "steps") || given("train", "epochs") {
            return Err("it takes the place of train.steps and train.epochs; give one of them".into());
        }
        if at.eval_steps.is_some() && given("eval", "steps") {
            return Err("eval_steps takes the place of eval.steps; give one of them".into());
        }
        if !(at.learning_rate > 0.0 && at.learning_rate.is_finite()) {
            return Err(format!("learning_rate = {}: must be above 0", at.learning_rate));
        }
        match [Some(at.steps), at.eval_steps, at.most].contains(&Some(0)) {
            true => Err("steps, eval_steps and most must be at least 1".into()),
            false => Ok(()),
        }
    }

    /// What can be seen without resolving names.
    fn check(&self) -> Result<()> {
        if self.regimes.is_empty() {
            return Err(Error::input(format!("{}: no regime to study; give at least one [regimes.NAME]", self.name)));
        }
        if self.head.seeds.is_empty() {
            return Err(self.error("study", "seeds = []: give at least one"));
        }
        let once = |section: &str, key: &str, twice: Option<String>| match twice {
            Some(value) => Err(self.error(section, format!("{key}: {value} is given twice; give each once"))),
            None => Ok(()),
        };
        once("study", "seeds", twice(&self.head.seeds))?;
        for (name, regime) in &self.regimes {
            let section = format!("regimes.{name}");
            check_keys(regime).map_err(|why| self.error(&section, why))?;
            once(&section, "seeds", regime.seeds.as_deref().and_then(twice))?;
            once(&section, "learning_rate", twice(&regime.learning_rate.0))?;
            once(&section, "alpha", twice(&regime.alpha.0))?;
            if let Some(at) = &regime.steps_at {
                self.check_steps_at(at, regime).map_err(|why| self.error(&section, format!("steps_at: {why}")))?;
            }
        }
        if let Some(recovery) = &self.recovery {
            once("recovery", "examples", twice(&recovery.examples))?;
            if recovery.examples.is_empty() || recovery.examples.contains(&0) {
                return Err(self.error("recovery", "examples: give at least one number, each at least 1"));
            }
            if recovery.regimes.as_ref().is_some_and(Vec::is_empty) {
                return Err(self.error("recovery", "regimes = []: name at least one, or leave it out for all"));
            }
        }
        let mut seen: Vec<&str> = vec!["base", "prior"];
        let named = |list: &'static str| move |name: &String| (list, name.clone());
        let all = (self.puzzles.iter().map(|(n, _)| n).map(named("puzzles")))
            .chain(self.rollouts.iter().map(|(n, _)| n).map(named("rollouts")))
            .chain(self.regimes.iter().map(|(n, _)| n).map(named("regimes")));
        let all: Vec<(&str, String)> = all.collect();
        for (list, name) in &all {
            let section = format!("{list}.{name}");
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
                return Err(self.error(&section, "a name is made of letters, digits, - and _"));
            }
            if seen.contains(&name.as_str()) {
                return Err(
                    self.error(&section, "this name is taken; puzzles, rollouts and regimes each need their own")
                );
            }
            seen.push(name);
        }
        Ok(())
    }
}

/// What a list holds more than once.
fn twice<T: PartialEq + std::fmt::Display>(list: &[T]) -> Option<String> {
    list.iter().enumerate().find(|(i, value)| list[..*i].contains(value)).map(|(_, value)| value.to_string())
}

/// Keys of a section that the study sets itself.
pub(super) const SET_IN_GEN: &[&str] = &["out", "overwrite"];
pub(super) const SET_IN_ROLLOUTS: &[&str] = &["out", "model", "fresh", "seed", "device"];
const SET_IN_EVAL: &[&str] = &[
    "model",
    "api",
    "baseline",
    "baseline_results",
    "data",
    "bench",
    "out",
    "fresh",
    "rescore",
    "device",
    "split",
    "num_generations",
    "temperature",
    "top_p",
    "top_k",
    "seed",
];
const SET_IN_DYNAMICS: &[&str] = &["out", "model", "base", "forgetting", "fresh", "device"];

fn puzzles(value: &Value, place: &str) -> Result<Puzzles> {
    refuse_keys(value, SET_IN_GEN, place)?;
    let split = value.get("split").and_then(Value::as_str).map(String::from);
    let mut rest = value.clone();
    let keys = PuzzleKeys {
        task: take(&mut rest, "task", place)?,
        preview: take(&mut rest, "preview", place)?,
        suite: take(&mut rest, "suite", place)?,
    };
    if keys.suite.is_some() {
        return Ok(Puzzles { dataset: GenSettings::Suites(suite(value.clone(), place)?), split });
    }
    let (value, preview) = (rest, keys.preview);
    let dataset = match keys.task.as_deref() {
        None => GenSettings::Jigsaw { settings: over(&JigsawSettings::default(), &value, place)?, preview },
        Some("countdown") => GenSettings::Countdown(over(&CountdownSettings::default(), &value, place)?),
        Some("maths") => GenSettings::Maths(over(&MathsSettings::default(), &value, place)?),
        Some(other) => {
            return Err(Error::input(format!(
                "{place}: task = {other:?}: give \"countdown\" or \"maths\", or leave it out"
            )));
        }
    };
    Ok(Puzzles { dataset, split })
}

fn prior(value: &Value, place: &str) -> Result<Prior> {
    refuse_keys(value, SET_IN_GEN, place)?;
    let mut value = value.clone();
    let benches = take(&mut value, "benches", place)?;
    let split = value.get("split").and_then(Value::as_str).map(String::from);
    Ok(Prior { benches, settings: suite(value, place)?, split })
}

/// Suites by the flags of `jigsaw gen --suite`.
fn suite(mut value: Value, place: &str) -> Result<SuiteSettings> {
    let Some(Value::String(suite)) = value.get("suite").cloned() else {
        return Err(Error::input(format!("{place}: suite is missing; give \"all\" or names of families")));
    };
    let families =
        suites::parse_families(&suite).map_err(|why| Error::input(format!("{place}: suite = {suite:?}: {why}")))?;
    let families = families.into_iter().map(|family| Value::String(family.to_string())).collect();
    value.as_table_mut().map(|table| table.insert("suite".into(), Value::Array(families)));
    over(&SuiteSettings::default(), &value, place)
}

fn rollouts(value: &Value, place: &str) -> Result<Rollouts> {
    refuse_keys(value, SET_IN_ROLLOUTS, place)?;
    let mut value = value.clone();
    let from = take(&mut value, "from", place)?;
    let data = take(&mut value, "data", place)?;
    let data = data.ok_or_else(|| Error::input(format!("{place}: data is missing: the puzzles to answer")))?;
    Ok(Rollouts { from, data, options: read(&value, place)? })
}

/// Refuse a key of a regime that is none of its own and no section of training.
fn check_keys(regime: &Regime) -> std::result::Result<(), String> {
    let Some((key, value)) = regime.settings.iter().find(|(_, value)| !value.is_table()) else { return Ok(()) };
    if known_names::settings().iter().any(|setting| setting.is_section() && setting.key == *key) {
        return Err(format!("{key} = {value}: {key} is a section of settings; write [regimes.NAME.{key}]"));
    }
    let own = settings_of::<Regime>();
    let known: Vec<&str> = own.iter().map(|setting| setting.key.as_str()).filter(|key| !key.contains('.')).collect();
    Err(unknown_among(key, &known))
}

fn benchmarks(table: &Table, place: &impl Fn(&str) -> String) -> Result<Vec<BenchmarkSpec>> {
    let all: Table = section(table, "benchmarks", place)?.unwrap_or_default();
    all.into_iter()
        .map(|(name, value)| match value {
            Value::String(file) => {
                BenchmarkSpec::parse(&format!("{name}={file}"), "test").map_err(|e| e.context(place("benchmarks")))
            }
            other => Err(Error::input(format!("{}: {name} = {other}: give \"FILE.tsv\"", place("benchmarks")))),
        })
        .collect()
}
