//! A verdict for people who ship a model: `jigsaw eval --baseline BASE --fail-if 'mean < -1'`.
//!
//! A rule names a mean, a family or a benchmark and the largest loss that is allowed, in points. The verdict goes by the 95 % interval of the
//! change: the loss is shown where the whole interval lies below the limit, and excluded where no part of it does. In between, the data cannot
//! tell; only more examples can.

use super::result::{ALL, ForgettingResult, NEW_TASK, TunedResult};
use crate::stats::Interval;
use crate::{Error, Result};
use serde::Serialize;
use std::fmt::Write;

/// The verdict as a table in Markdown, in the output directory.
pub const GATE_MD: &str = "gate.md";

/// The largest loss that is allowed: `NAME < POINTS`.
#[derive(Debug, Clone, PartialEq)]
pub struct GateRule {
    name: String,
    /// In points.
    limit: f64,
}

impl GateRule {
    /// Parse `mean < -1`.
    ///
    /// # Errors
    /// An input error that says how a rule is written.
    pub fn parse(text: &str) -> Result<GateRule> {
        let wrong = |why: &str| {
            Error::input(format!(
                "--fail-if '{text}': {why}; write 'NAME < POINTS', such as 'mean < -1' or 'pope < -2', where NAME is mean, a family or a \
                 benchmark"
            ))
        };
        let (name, limit) = text.split_once('<').ok_or_else(|| wrong("there is no <"))?;
        let limit = limit.trim().parse::<f64>().ok().filter(|limit| limit.is_finite());
        let limit = limit.ok_or_else(|| wrong("what follows < is no number"))?;
        let name = name.trim();
        if name.is_empty() {
            return Err(wrong("there is no name before <"));
        }
        if !(-100.0..=100.0).contains(&limit) {
            return Err(wrong("a change lies between -100 and 100 points"));
        }
        Ok(GateRule { name: name.to_string(), limit })
    }
}

/// What the interval says about a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// The whole interval lies below the limit.
    Lost,
    /// No part of it does.
    NotLost,
    /// The limit lies inside.
    CannotTell,
}

impl Verdict {
    fn of(change: Interval, limit: f64) -> Verdict {
        match () {
            () if change.high < limit => Verdict::Lost,
            () if change.low >= limit => Verdict::NotLost,
            () => Verdict::CannotTell,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Verdict::Lost => "lost",
            Verdict::NotLost => "not lost",
            Verdict::CannotTell => "cannot tell",
        }
    }
}

/// A rule held against a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Name of the model.
    pub model: String,
    /// The rule.
    pub rule: GateRule,
    /// The change that it is about, in points.
    pub change: Interval,
    /// The verdict.
    pub verdict: Verdict,
}

/// Hold every rule against every tuned model.
///
/// # Errors
/// An input error for a name that is in no result; it lists those that are.
pub fn judge(result: &ForgettingResult, rules: &[GateRule]) -> Result<Vec<Judgement>> {
    let mut judgements = Vec::new();
    for tuned in &result.tuned {
        for rule in rules {
            let change = change_of(tuned, &rule.name)?;
            let points = |share: f64| 100.0 * share;
            let change = Interval { value: points(change.value), low: points(change.low), high: points(change.high) };
            let verdict = Verdict::of(change, rule.limit);
            judgements.push(Judgement { model: tuned.model.name.clone(), rule: rule.clone(), change, verdict });
        }
    }
    Ok(judgements)
}

fn change_of(tuned: &TunedResult, name: &str) -> Result<Interval> {
    let means = || tuned.all.iter().map(|mean| ("mean", mean.change));
    let families = || tuned.families.iter().map(|family| (family.name.as_str(), family.change));
    let new_task = tuned.new_task.iter().map(|set| (NEW_TASK, set.all.change));
    let benchmarks = tuned.benchmarks.iter().map(|set| (set.name.as_str(), set.all.change));
    let name = if name == ALL { "mean" } else { name };
    let mut known = means().chain(families()).chain(benchmarks).chain(new_task);
    let found = known.clone().find(|(known, _)| *known == name);
    found.map(|(_, change)| change).ok_or_else(|| {
        let mut names: Vec<&str> = Vec::new();
        known.by_ref().for_each(|(known, _)| {
            if !names.contains(&known) {
                names.push(known)
            }
        });
        Error::input(format!("--fail-if: nothing is called {name}; there are {}", names.join(", ")))
    })
}

/// The judgements as a table in Markdown, for a pull request.
pub fn markdown(judgements: &[Judgement]) -> String {
    let mut text =
        String::from("| model | allowed | change in points (95 % interval) | verdict |\n|---|---|---|---|\n");
    for Judgement { model, rule, change, verdict } in judgements {
        let (value, low, high) = (change.value, change.low, change.high);
        let (name, limit) = (&rule.name, rule.limit);
        let verdict = match verdict {
            Verdict::Lost => "**lost**",
            verdict => verdict.words(),
        };
        let _ = writeln!(text, "| {model} | {name} >= {limit} | {value:+.1} ({low:+.1} to {high:+.1}) | {verdict} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(low: f64, high: f64) -> Interval {
        Interval { value: (low + high) / 2.0, low, high }
    }

    #[test]
    fn a_loss_is_shown_excluded_or_neither() {
        assert_eq!(Verdict::of(interval(-3.0, -1.5), -1.0), Verdict::Lost);
        assert_eq!(Verdict::of(interval(-1.0, 0.5), -1.0), Verdict::NotLost);
        assert_eq!(Verdict::of(interval(-1.5, 0.5), -1.0), Verdict::CannotTell);
        assert_eq!(Verdict::of(interval(-3.0, -1.0), -1.0), Verdict::CannotTell, "its end is not below the limit");
        let unknown = Interval { value: -2.0, low: f64::NAN, high: f64::NAN };
        assert_eq!(Verdict::of(unknown, -1.0), Verdict::CannotTell);
    }

    #[test]
    fn what_is_no_rule_is_refused_with_an_example() {
        assert_eq!(GateRule::parse(" mean<-1 ").unwrap(), GateRule { name: "mean".into(), limit: -1.0 });
        for text in ["mean", "mean > 1", "< -1", "mean < -1 %", "mean < nan", "mean < -101"] {
            let error = GateRule::parse(text).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("'mean < -1'"), "{error}");
        }
    }
}
