//! The file of a study: one TOML whose sections are the flags of the commands that the study is made of.
//!
//! ```text
//! [study]           title, base, seeds
//! [puzzles.NAME]    flags of `jigsaw gen`
//! [prior]           flags of `jigsaw gen --suite`; benches: which of its benchmarks are evaluated
//! [benchmarks]      NAME = "FILE.tsv[:SCORER]", flags of `jigsaw eval --bench`
//! [rollouts.NAME]   from: who answers, data: whose prompts, and flags of `jigsaw rollout`
//! [regimes.NAME]    method, data, start, test, lr (one or a ladder), alpha; its sections are settings of `jigsaw train`
//! [eval]            checkpoints: how many intermediate checkpoints to evaluate, and flags of `jigsaw eval`
//! [dynamics]        flags of `jigsaw dynamics`
//! ```

use crate::io::files;
use crate::{Error, Result, config};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A study as written, names not yet resolved.
#[derive(Debug, Clone)]
pub struct Study {
    /// The file, for messages.
    pub name: String,
    /// All of it, with what was set on the command line.
    pub table: Table,
    /// `[study]`.
    pub head: Head,
    /// `[puzzles.NAME]`: flags of `jigsaw gen`.
    pub puzzles: Vec<(String, Table)>,
    /// `[prior]`.
    pub prior: Option<Prior>,
    /// `[benchmarks]`: name, and file with its scorer.
    pub benchmarks: Vec<(String, String)>,
    /// `[rollouts.NAME]`.
    pub rollouts: Vec<(String, Rollouts)>,
    /// `[regimes.NAME]`, in the order written.
    pub regimes: Vec<(String, Regime)>,
    /// `[eval]`.
    pub eval: Evaluation,
    /// `[dynamics]`.
    pub dynamics: Option<Measurement>,
    text: String,
}

/// `[study]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Heading of the report.
    #[serde(default = "Head::title")]
    pub title: String,
    /// The base model: a directory, or a name on the Hub.
    pub base: PathBuf,
    /// Seeds of training; each regime is run with each.
    #[serde(default = "Head::seeds")]
    pub seeds: Vec<u64>,
}

impl Head {
    fn title() -> String {
        "jigsaw study".into()
    }

    fn seeds() -> Vec<u64> {
        vec![1]
    }
}

/// `[prior]`: suites of prior knowledge.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Prior {
    /// The benchmarks to evaluate, as `vqa-direct`; when not given, each family of the suite in both styles, but for `order` and `lists`.
    pub benches: Option<Vec<String>>,
    /// Flags of `jigsaw gen`; `suite` is one of them.
    #[serde(flatten)]
    pub flags: Table,
}

/// `[rollouts.NAME]`: a dataset of sampled responses.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Rollouts {
    /// `base`, or a regime (`NAME`, or `NAME@LR` for a point of its ladder); not given with a teacher.
    pub from: Option<String>,
    /// The puzzles whose prompts are answered.
    pub data: String,
    /// Flags of `jigsaw rollout`.
    #[serde(flatten)]
    pub flags: Table,
}

/// `[regimes.NAME]`: a way of fine-tuning.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Regime {
    /// What it is, in a few words, for the report.
    #[serde(default)]
    pub about: String,
    /// `sft` or `rft`.
    pub method: Option<String>,
    /// Name of the puzzles or rollouts to train on.
    pub data: Option<String>,
    /// `base`, or a regime whose model it goes on from (`NAME` or `NAME@LR`).
    pub start: Option<String>,
    /// The puzzles whose test split is the new task; those that it is trained on when not given.
    pub test: Option<String>,
    /// Learning rate, or a ladder of them.
    #[serde(default)]
    pub lr: OneOrMore,
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
    pub settings: Table,
}

fn yes() -> bool {
    true
}

/// A number or a list of numbers.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(try_from = "Numbers")]
pub struct OneOrMore(pub Vec<f64>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "a number or a list of numbers is needed")]
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

/// `[eval]`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Evaluation {
    /// Most intermediate checkpoints to evaluate besides the final model, evenly spread over those that a run has kept.
    #[serde(default)]
    pub checkpoints: usize,
    /// Flags of `jigsaw eval`.
    #[serde(flatten)]
    pub flags: Table,
}

/// `[dynamics]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Measurement {
    /// Names of puzzles and rollouts that the steps are made on; all that some regime is trained on by SFT when not given.
    pub train: Option<Vec<String>>,
    /// Names of the benchmarks that they act on; all when not given.
    pub prior: Option<Vec<String>>,
    /// Regimes (`NAME` or `NAME@LR`) over whose checkpoints (of the first seed) it is measured too.
    #[serde(default)]
    pub over: Vec<String>,
    /// Flags of `jigsaw dynamics`.
    #[serde(flatten)]
    pub flags: Table,
}

/// The sections that there are.
const SECTIONS: [&str; 8] = ["study", "puzzles", "prior", "benchmarks", "rollouts", "regimes", "eval", "dynamics"];

impl Study {
    /// Read `file` and apply `sets` (`section.key=value`).
    ///
    /// # Errors
    /// Input errors that name the file, line and section, or the `--set` argument.
    pub fn read(file: &Path, sets: &[String]) -> Result<Study> {
        Study::from_text(&file.display().to_string(), &files::read_text(file)?, sets)
    }

    /// As [`Study::read`], for a text with the name to use for it in messages.
    pub fn from_text(name: &str, text: &str, sets: &[String]) -> Result<Study> {
        let mut table: Table =
            toml::from_str(text).map_err(|e| Error::input(format!("{name}: {}", e.to_string().trim_end())))?;
        for set in sets {
            config::set(&mut table, set)?;
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
        let study = Study {
            head,
            puzzles: sections(&table, "puzzles", &place)?,
            prior: section(&table, "prior", &place)?,
            benchmarks: benchmarks(&table, &place)?,
            rollouts: sections(&table, "rollouts", &place)?,
            regimes: sections(&table, "regimes", &place)?,
            eval: section(&table, "eval", &place)?.unwrap_or_default(),
            dynamics: section(&table, "dynamics", &place)?,
            name: name.to_string(),
            text: text.to_string(),
            table,
        };
        study.check()?;
        Ok(study)
    }

    /// The whole of it as TOML.
    pub fn to_toml(&self) -> Result<String> {
        config::to_toml(&self.table)
    }

    /// An input error about a section, with its place in the file.
    pub fn error(&self, section: &str, why: impl std::fmt::Display) -> Error {
        Error::input(format!("{}: {why}", place(&self.name, &self.text, section)))
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
            once(&section, "seeds", regime.seeds.as_deref().and_then(twice))?;
            once(&section, "lr", twice(&regime.lr.0))?;
            once(&section, "alpha", twice(&regime.alpha.0))?;
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

/// `FILE:LINE: [section]`, the line if the section is written in the file.
fn place(name: &str, text: &str, section: &str) -> String {
    let header = format!("[{section}]");
    match text.lines().position(|line| line.trim_start().starts_with(&header)) {
        Some(line) => format!("{name}:{}: {header}", line + 1),
        None => format!("{name}: {header}"),
    }
}

fn section<T: DeserializeOwned>(table: &Table, name: &str, place: &impl Fn(&str) -> String) -> Result<Option<T>> {
    table.get(name).map(|value| read(value, &place(name))).transpose()
}

fn sections<T: DeserializeOwned>(
    table: &Table,
    name: &str,
    place: &impl Fn(&str) -> String,
) -> Result<Vec<(String, T)>> {
    let Some(value) = table.get(name) else { return Ok(Vec::new()) };
    let Value::Table(all) = value else {
        return Err(Error::input(format!("{}: write [{name}.NAME] for each", place(name))));
    };
    all.iter().map(|(key, value)| Ok((key.clone(), read(value, &place(&format!("{name}.{key}")))?))).collect()
}

fn read<T: DeserializeOwned>(value: &Value, place: &str) -> Result<T> {
    let read = |value: &Value| -> std::result::Result<T, String> {
        let why = |e: toml::de::Error| e.message().lines().next().unwrap_or_default().to_string();
        value.clone().try_into().map_err(why)
    };
    read(value).map_err(|why| {
        // The key without which another thing is wrong, or nothing, is the one that it is about.
        let without = |key: &String| {
            let mut rest = value.as_table().cloned().unwrap_or_default();
            rest.remove(key);
            read(&Value::Table(rest)).err() != Some(why.clone())
        };
        let key = value.as_table().and_then(|table| table.iter().find(|(key, _)| without(key)));
        match key.filter(|(key, _)| !why.contains(&format!("`{key}`"))) {
            Some((key, value)) => Error::input(format!("{place}: {key} = {value}: {why}")),
            None => Error::input(format!("{place}: {why}")),
        }
    })
}

fn benchmarks(table: &Table, place: &impl Fn(&str) -> String) -> Result<Vec<(String, String)>> {
    let all: Table = section(table, "benchmarks", place)?.unwrap_or_default();
    all.into_iter()
        .map(|(name, value)| match value {
            Value::String(file) => Ok((name, file)),
            other => Err(Error::input(format!("{}: {name} = {other}: give \"FILE.tsv\"", place("benchmarks")))),
        })
        .collect()
}
