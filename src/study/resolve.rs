//! What the names in a study's file stand for: regimes and the points of their ladders, data, settings of training.

use super::command::GenSettings;
use super::study_file::{OneOrMore, Prior, Puzzles, Regime, Rollouts, Study};
use crate::io::toml::flatten;
use crate::tasks::suites::Family;
use crate::train::settings::{Method, TrainConfig};
use crate::{Error, Result};
use toml::Table;

/// Most points of a ladder.
const MAX_LADDER_POINTS: usize = 20;

/// A point of a ladder: what distinguishes the runs of a regime besides their seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum LadderPoint {
    Lr(f64),
    Alpha(f64),
}

impl LadderPoint {
    pub(super) fn number(self) -> f64 {
        match self {
            LadderPoint::Lr(number) | LadderPoint::Alpha(number) => number,
        }
    }

    pub(super) fn learning_rate(self) -> Option<f64> {
        match self {
            LadderPoint::Lr(lr) => Some(lr),
            LadderPoint::Alpha(_) => None,
        }
    }

    /// Name of the run.
    pub(super) fn run(self, regime: &str, seed: u64) -> String {
        match self {
            LadderPoint::Lr(lr) => format!("{regime}.lr-{lr:e}.seed-{seed}"),
            LadderPoint::Alpha(alpha) => format!("{regime}.alpha-{alpha}.seed-{seed}"),
        }
    }
}

impl Study {
    /// The benchmarks of the suites that are evaluated.
    pub(super) fn bench_names(&self, prior: &Prior) -> Vec<String> {
        if let Some(names) = &prior.benches {
            return names.clone();
        }
        let families = prior.settings.suite.iter().map(|part| part.family);
        let measured = families.filter(|family| ![Family::Order, Family::Lists].contains(family));
        measured.flat_map(|family| ["direct", "think"].map(|style| format!("{}-{style}", family.name()))).collect()
    }

    /// The puzzles that a regime is tested on.
    pub(super) fn test_of(&self, name: &str) -> Result<String> {
        let regime = self.find(name)?;
        let section = format!("regimes.{name}");
        let is_puzzles = |name: &str| self.puzzles.iter().any(|(n, _)| n == name);
        let test = match (&regime.test, &regime.data, &regime.interpolate) {
            (Some(test), ..) => test.clone(),
            (None, _, Some(of)) => return self.test_of(of.split('@').next().unwrap_or(of)),
            (None, Some(data), None) => match self.rollouts.iter().find(|(n, _)| n == data) {
                Some((_, rollouts)) => rollouts.data.clone(),
                None => data.clone(),
            },
            (None, None, None) => {
                return Err(self.error(&section, "data is missing: the puzzles or rollouts to train on"));
            }
        };
        match is_puzzles(&test) {
            true => Ok(test),
            false => Err(self.error(&section, format!("test = {test:?}: there is no [puzzles.{test}]"))),
        }
    }

    pub(super) fn find(&self, name: &str) -> Result<&Regime> {
        let found = self.regimes.iter().find(|(n, _)| n == name).map(|(_, regime)| regime);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.regimes.iter().map(|(n, _)| n.as_str()).collect();
            Error::input(format!("{}: there is no [regimes.{name}]; there are {}", self.name, names.join(", ")))
        })
    }

    /// The points of a regime's ladder.
    pub(super) fn ladder_points(&self, name: &str, regime: &Regime) -> Result<Vec<LadderPoint>> {
        let section = format!("regimes.{name}");
        let error = |why: &str| Err(self.error(&section, why));
        let ladder = |OneOrMore(numbers): &OneOrMore| numbers.len() <= MAX_LADDER_POINTS;
        if !ladder(&regime.learning_rate) || !ladder(&regime.alpha) {
            return error("a ladder has at most 20 points");
        }
        let given = |key: &str| regime.settings.get("train").and_then(|train| train.get(key)).is_some();
        if given("seed") {
            return error("train.seed: the study sets this itself, by its seeds; remove it");
        }
        if given("learning_rate") && !regime.learning_rate.0.is_empty() {
            return error("learning_rate and train.learning_rate are the same setting; give one of them");
        }
        if regime.interpolate.is_some() {
            let OneOrMore(alphas) = &regime.alpha;
            if alphas.is_empty()
                || !regime.learning_rate.0.is_empty()
                || regime.data.is_some()
                || !regime.settings.is_empty()
            {
                return error(
                    "interpolate goes with alpha (a share in [0, 1], or several), and with no data, lr or settings",
                );
            }
            return Ok(alphas.iter().map(|alpha| LadderPoint::Alpha(*alpha)).collect());
        }
        if !regime.alpha.0.is_empty() {
            return error("alpha is for interpolate");
        }
        match regime.learning_rate.0.as_slice() {
            [] => Ok(vec![LadderPoint::Lr(self.config(name, regime)?.train.learning_rate)]),
            ladder => Ok(ladder.iter().map(|lr| LadderPoint::Lr(*lr)).collect()),
        }
    }

    /// `NAME@LR` as a regime and a point of it; the first point where none is named.
    pub(super) fn ladder_point<'t>(&self, section: &str, reference: &'t str) -> Result<(&'t str, LadderPoint)> {
        let (name, lr) = reference.split_once('@').map_or((reference, None), |(name, lr)| (name, Some(lr)));
        let regime = self.find(name).map_err(|e| self.error(section, e))?;
        let ladder_points = self.ladder_points(name, regime)?;
        let point = match lr {
            None => ladder_points.first(),
            Some(lr) => ladder_points.iter().find(|point| lr.parse() == Ok(point.number())),
        };
        point.copied().map(|point| (name, point)).ok_or_else(|| {
            let known: Vec<String> = ladder_points.iter().map(|point| format!("{name}@{:e}", point.number())).collect();
            self.error(section, format!("{reference}: no such point; there are {}", known.join(", ")))
        })
    }

    /// Training examples of puzzles or rollouts, roughly.
    pub(super) fn examples(&self, name: Option<&str>) -> f64 {
        const UNKNOWN: f64 = 1000.0;
        let of_puzzles = |name: &str| {
            let found = self.puzzles.iter().find(|(n, _)| n == name);
            found.map(|(_, puzzles)| puzzles.examples(0))
        };
        let Some(name) = name else { return UNKNOWN };
        of_puzzles(name).unwrap_or_else(|| match self.rollouts.iter().find(|(n, _)| n == name) {
            Some((_, Rollouts { data, options, .. })) => {
                let prompts = options.limit.map_or_else(|| of_puzzles(data).unwrap_or(UNKNOWN), |limit| limit as f64);
                prompts * options.max_per_prompt.unwrap_or(1) as f64
            }
            None => UNKNOWN,
        })
    }

    pub(super) fn is_data(&self, name: &str) -> bool {
        name == "prior" && self.prior.is_some()
            || self.puzzles.iter().any(|(n, _)| n == name)
            || self.rollouts.iter().any(|(n, _)| n == name)
    }

    /// The settings of a regime by their dotted keys.
    pub(super) fn settings(&self, regime: &Regime) -> Table {
        flatten(&regime.settings).into_iter().collect()
    }

    pub(super) fn method(&self, name: &str, regime: &Regime) -> Result<Option<Method>> {
        match regime.method.as_deref() {
            None => Ok(None),
            Some("sft") => Ok(Some(Method::Sft)),
            Some("rft") => Ok(Some(Method::Rft)),
            Some(other) => {
                Err(self.error(&format!("regimes.{name}"), format!("method = {other:?}: give \"sft\" or \"rft\"")))
            }
        }
    }

    /// The resolved settings of a regime, but for its learning rate and seed.
    pub(super) fn config(&self, name: &str, regime: &Regime) -> Result<TrainConfig> {
        let sets: Vec<String> = self.settings(regime).iter().map(|(key, value)| format!("{key}={value}")).collect();
        let resolved = (self.resolve)(self.method(name, regime)?, regime.config.as_deref(), &sets);
        resolved.map_err(|e| self.settings_error(&format!("regimes.{name}"), &sets, &e))
    }

    /// Does a regime train an adapter, or go on training one?
    pub(super) fn adapts(&self, name: &str) -> Result<bool> {
        let regime = self.find(name)?;
        match regime.start.as_deref() {
            _ if regime.interpolate.is_some() => Ok(false),
            _ if self.config(name, regime)?.lora.is_some() => Ok(true),
            None | Some("base") => Ok(false),
            Some(start) => self.adapts(start.split('@').next().unwrap_or(start)),
        }
    }

    /// The data of all measured regimes that are supervised, each once.
    pub(super) fn supervised(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        for (name, regime) in self.regimes.iter().filter(|(_, regime)| regime.measured) {
            if regime.interpolate.is_some() || self.config(name, regime)?.train.method != Method::Sft {
                continue;
            }
            names.extend(regime.data.iter().filter(|data| !names.contains(data)).cloned().collect::<Vec<_>>());
        }
        Ok(names)
    }
}

impl Puzzles {
    /// Puzzles of a split, roughly: 0 for training, 2 for test.
    pub(super) fn examples(&self, split: usize) -> f64 {
        let (count, split_ratios) = self.dataset.size();
        let counts = match &self.dataset {
            GenSettings::Jigsaw { settings, .. } => settings.puzzles_by_split(),
            _ => split_ratios.apportion(count),
        };
        counts.map_or(0.0, |counts| counts[split] as f64)
    }
}
