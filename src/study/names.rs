//! What the names and numbers of a study's file stand for: regimes, points of their ladders, data, settings and flags.

use super::file::{OneOrMore, Prior, Regime, Rollouts, Study};
use crate::config::flatten;
use crate::tasks::suites::Family;
use crate::train::settings::{Method, TrainConfig};
use crate::{Error, Result};
use toml::{Table, Value};

/// Longest list of numbers that a ladder may have.
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

    pub(super) fn lr(self) -> Option<f64> {
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
    pub(super) fn bench_names(&self, prior: &Prior) -> Result<Vec<String>> {
        let Some(Value::String(suite)) = prior.flags.get("suite") else {
            return Err(self.error("prior", "suite is missing; give \"all\" or names of families"));
        };
        if let Some(names) = &prior.benches {
            return Ok(names.clone());
        }
        let known = Family::ALL.map(Family::name);
        let named: Vec<&str> = match suite.as_str() {
            "all" => known.to_vec(),
            list => list.split(',').map(|part| part.split(':').next().unwrap_or(part)).collect(),
        };
        let measured = named.into_iter().filter(|name| !["order", "lists"].contains(name));
        Ok(measured.flat_map(|name| ["direct", "think"].map(|style| format!("{name}-{style}"))).collect())
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
            (None, None, None) => return Err(self.error(&section, "data is missing: what to train on")),
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
        if !ladder(&regime.lr) || !ladder(&regime.alpha) {
            return error("a ladder has at most 20 points");
        }
        let given = |key: &str| regime.settings.get("train").and_then(|train| train.get(key)).is_some();
        if given("seed") {
            return error("train.seed: the study sets this itself, by its seeds; remove it");
        }
        if given("lr") && !regime.lr.0.is_empty() {
            return error("lr and train.learning_rate are the same setting; give one of them");
        }
        if regime.interpolate.is_some() {
            let OneOrMore(alphas) = &regime.alpha;
            if alphas.is_empty() || !regime.lr.0.is_empty() || regime.data.is_some() || !regime.settings.is_empty() {
                return error(
                    "interpolate goes with alpha (a share in [0, 1], or several), and with no data, lr or settings",
                );
            }
            return Ok(alphas.iter().map(|alpha| LadderPoint::Alpha(*alpha)).collect());
        }
        if !regime.alpha.0.is_empty() {
            return error("alpha is for interpolate");
        }
        match regime.lr.0.as_slice() {
            [] => Ok(vec![LadderPoint::Lr(self.config(name, regime, None, 1)?.train.learning_rate)]),
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
        let flags = |name: &str| self.puzzles.iter().find(|(n, _)| n == name).map(|(_, flags)| flags);
        let of = |flags: &Table| number(flags, "count", 2000.0) * share(flags, 0);
        match (name, name.and_then(flags)) {
            (_, Some(flags)) => of(flags),
            (Some(name), None) => match self.rollouts.iter().find(|(n, _)| n == name) {
                Some((_, Rollouts { data, flags: own, .. })) => {
                    number(own, "limit", flags(data).map_or(1000.0, of)) * number(own, "cap", 1.0)
                }
                None => 1000.0,
            },
            _ => 1000.0,
        }
    }

    pub(super) fn is_data(&self, name: &str) -> bool {
        name == "prior" && self.prior.is_some()
            || self.puzzles.iter().any(|(n, _)| n == name)
            || self.rollouts.iter().any(|(n, _)| n == name)
    }

    /// The settings of a run as `section.key=value`.
    pub(super) fn sets(&self, regime: &Regime, point: Option<LadderPoint>, seed: u64) -> Vec<String> {
        let mut sets: Vec<String> =
            flatten(&regime.settings).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        if let Some(LadderPoint::Lr(lr)) = point.filter(|_| !regime.lr.0.is_empty()) {
            sets.push(format!("train.learning_rate={lr:e}"));
        }
        sets.push(format!("train.seed={seed}"));
        sets
    }

    pub(super) fn config(
        &self,
        name: &str,
        regime: &Regime,
        point: Option<LadderPoint>,
        seed: u64,
    ) -> Result<TrainConfig> {
        let section = format!("regimes.{name}");
        let method = match regime.method.as_deref() {
            None => None,
            Some("sft") => Some(Method::Sft),
            Some("rft") => Some(Method::Rft),
            Some(other) => {
                return Err(self.error(&section, format!("method = {other:?}: give \"sft\" or \"rft\"")));
            }
        };
        let sets = self.sets(regime, point, seed);
        TrainConfig::resolve(method, regime.config.as_deref(), &sets).map_err(|e| self.error(&section, e))
    }

    /// Does a regime train an adapter, or go on training one?
    pub(super) fn adapts(&self, name: &str) -> Result<bool> {
        let regime = self.find(name)?;
        match regime.start.as_deref() {
            _ if regime.interpolate.is_some() => Ok(false),
            _ if self.config(name, regime, None, 1)?.lora.is_some() => Ok(true),
            None | Some("base") => Ok(false),
            Some(start) => self.adapts(start.split('@').next().unwrap_or(start)),
        }
    }

    /// The data of all measured regimes that are supervised, each once.
    pub(super) fn supervised(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        for (name, regime) in self.regimes.iter().filter(|(_, regime)| regime.measured) {
            if regime.interpolate.is_some() || self.config(name, regime, None, 1)?.train.method != Method::Sft {
                continue;
            }
            names.extend(regime.data.iter().filter(|data| !names.contains(data)).cloned().collect::<Vec<_>>());
        }
        Ok(names)
    }

    /// A section's keys as flags of a command.
    pub(super) fn flags(&self, section: &str, table: &Table, own: &[&str]) -> Result<Vec<String>> {
        let mut flags = Vec::new();
        for (key, value) in table {
            if own.contains(&key.as_str()) {
                return Err(self.error(section, format!("{key}: the study sets this itself; remove it")));
            }
            let flag = format!("--{}", key.replace('_', "-"));
            let plain = |value: &Value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            match value {
                Value::Boolean(true) => flags.push(flag),
                Value::Boolean(false) => {}
                Value::Array(values) => flags.extend(values.iter().flat_map(|v| [flag.clone(), plain(v)])),
                Value::Table(_) => {
                    return Err(self.error(section, format!("{key} is a section; this one has only keys")));
                }
                other => flags.extend([flag, plain(other)]),
            }
        }
        Ok(flags)
    }
}

pub(super) fn number(flags: &Table, key: &str, otherwise: f64) -> f64 {
    match flags.get(key) {
        Some(Value::Integer(n)) => *n as f64,
        Some(Value::Float(x)) => *x,
        _ => otherwise,
    }
}

/// A split's share of puzzles: 0 for training, 2 for test.
pub(super) fn share(flags: &Table, split: usize) -> f64 {
    let text = flags.get("split").and_then(Value::as_str).unwrap_or("0.8,0.1,0.1");
    let parts: Vec<f64> = text.split(',').filter_map(|part| part.trim().parse().ok()).collect();
    parts.get(split).map_or(0.1, |part| part / parts.iter().sum::<f64>())
}
