//! The plan of a study: one TOML with a section for each stage.

use crate::config::{self, Config, Method};
use crate::data::generate::{self, Shares};
use crate::model::init::Preset;
use crate::puzzle::{Grid, QuestionKind, Style};
use crate::{Error, Result, files};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A study, resolved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The study as a whole.
    pub study: StudyPlan,
    /// The puzzles, as `jigsaw gen` makes them.
    #[serde(rename = "gen")]
    pub gen_: generate::Settings,
    /// The base model.
    pub model: ModelPlan,
    /// The supervised start of both branches: a training configuration.
    pub start: Config,
    /// The SFT branch: a training configuration.
    pub sft: Config,
    /// The GRPO branch: a training configuration.
    pub rft: Config,
    /// The final evaluations.
    pub eval: EvalPlan,
}

/// `[study]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyPlan {
    /// Heading of the report.
    pub title: String,
}

/// `[model]`: what training starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPlan {
    /// Size of a fresh model with random weights: `tiny` or `small`. Not read when `dir` is given.
    pub preset: String,
    /// Seed of the random weights.
    pub seed: u64,
    /// A checkpoint directory to use instead of a fresh model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
}

impl ModelPlan {
    /// The preset.
    pub fn preset(&self) -> Result<Preset> {
        Preset::from_str(&self.preset, false).map_err(|_| {
            let known: Vec<String> = Preset::value_variants()
                .iter()
                .filter_map(|p| p.to_possible_value().map(|v| v.get_name().to_string()))
                .collect();
            Error::input(format!("model.preset = {:?}: give one of {}", self.preset, known.join(", ")))
        })
    }
}

/// `[eval]`: the evaluations on the test split, greedy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalPlan {
    /// Only the first so many examples; all when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Longest response in tokens.
    pub max_new_tokens: usize,
    /// Examples answered at a time.
    pub batch: usize,
}

impl Plan {
    /// Read `file` and apply `sets` (`section.key=value`), fill in defaults, and refuse what does not fit together.
    ///
    /// # Errors
    /// Input errors that name the file and line (or the `--set` argument) and the key.
    pub fn resolve(file: &Path, sets: &[String]) -> Result<Plan> {
        let text = files::read_text(file)?;
        Plan::from_text(&file.display().to_string(), &text, sets)
    }

    /// As [`Plan::resolve`], for a text with the name to use for it in messages.
    pub fn from_text(name: &str, text: &str, sets: &[String]) -> Result<Plan> {
        let written = config::read(Some((name, text)), sets, &Plan::every_key()?)?;
        let part = |key: &str| written.get(key).and_then(Value::as_table).cloned().unwrap_or_default();
        let train = |key: &str, method| {
            Config::from_table(Some(method), &part(key)).map_err(|e| e.context(format!("{name}: section [{key}]")))
        };
        let named = |key: &'static str| move |e: Error| e.context(format!("{name}: section [{key}]"));
        let plan = Plan {
            study: config::apply(&StudyPlan::default(), &part("study")).map_err(named("study"))?,
            gen_: config::apply(&puzzles()?, &part("gen")).map_err(named("gen"))?,
            model: config::apply(&ModelPlan::default(), &part("model")).map_err(named("model"))?,
            start: train("start", Method::Sft)?,
            sft: train("sft", Method::Sft)?,
            rft: train("rft", Method::Rft)?,
            eval: config::apply(&EvalPlan::default(), &part("eval")).map_err(named("eval"))?,
        };
        plan.model.preset()?;
        for (key, value) in [
            ("eval.limit", plan.eval.limit.unwrap_or(1)),
            ("eval.max_new_tokens", plan.eval.max_new_tokens),
            ("eval.batch", plan.eval.batch),
        ] {
            if value == 0 {
                return Err(Error::input(format!("{name}: {key} = 0: must be at least 1")));
            }
        }
        if plan.gen_.split.apportion(plan.gen_.count)?.contains(&0) {
            return Err(Error::input(format!(
                "{name}: gen.split: a study needs training, validation and test examples; give each a share"
            )));
        }
        Ok(plan)
    }

    /// The configuration of a training stage.
    pub(super) fn training(&self, stage: &str) -> &Config {
        match stage {
            "sft" => &self.sft,
            "rft" => &self.rft,
            _ => &self.start,
        }
    }

    /// The whole plan as TOML.
    pub fn to_toml(&self) -> Result<String> {
        config::to_toml(self)
    }

    /// Every key that exists.
    fn every_key() -> Result<Table> {
        let mut all = Table::new();
        let mut put = |key: &str, value: Table| {
            all.insert(key.to_string(), Value::Table(value));
        };
        put("study", table(&StudyPlan::default())?);
        put("gen", table(&generate::Settings { limit: Some(1), ..puzzles()? })?);
        put("model", table(&ModelPlan { dir: Some(PathBuf::from("model")), ..Default::default() })?);
        put("eval", table(&EvalPlan { limit: Some(1), ..Default::default() })?);
        for stage in ["start", "sft", "rft"] {
            put(stage, table(&Config::every_key())?);
        }
        Ok(all)
    }
}

fn table<T: Serialize>(value: &T) -> Result<Table> {
    Table::try_from(value).map_err(|e| Error::failed(format!("cannot represent the plan as TOML: {e}")))
}

impl Default for StudyPlan {
    fn default() -> Self {
        StudyPlan { title: "jigsaw study".into() }
    }
}

impl Default for ModelPlan {
    fn default() -> Self {
        ModelPlan { preset: "tiny".into(), seed: 0, dir: None }
    }
}

impl Default for EvalPlan {
    fn default() -> Self {
        EvalPlan { limit: None, max_new_tokens: 512, batch: 32 }
    }
}

/// What `jigsaw gen` makes without flags.
fn puzzles() -> Result<generate::Settings> {
    Ok(generate::Settings {
        images: PathBuf::from("data/photos"),
        cues: Default::default(),
        grid: Grid::new(3, 3)?,
        tile: generate::TOKEN_PIXELS,
        tile_any: false,
        count: 2000,
        style: Style::Direct,
        question: QuestionKind::Order,
        question_first: false,
        min_crop: generate::MIN_CROP,
        seed: 7,
        split: Shares::new([8.0, 1.0, 1.0])?,
        limit: None,
        strict: false,
    })
}
