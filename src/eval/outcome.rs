//! One scored response, and what many of them come to.

use super::chance::Chance;
use crate::stats::{Interval, share, unit_mean};
use crate::tasks::Score;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A response as it comes from the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// Text without special tokens.
    pub text: String,
    /// Tokens generated, with the closing one.
    pub tokens: usize,
    /// Ended by itself rather than by the length limit.
    pub finished: bool,
}

/// One response with its score: a line of `responses.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Index of the example in the task.
    pub index: usize,
    /// Id of the example.
    pub id: String,
    /// Which of the responses to this example.
    pub sample: usize,
    /// The response as generated, without special tokens.
    pub response: String,
    /// Tokens generated, with the closing one.
    pub tokens: usize,
    /// Ended by itself rather than by the length limit.
    pub finished: bool,
    /// The task's verdict.
    #[serde(flatten)]
    pub score: Score,
}

/// What an evaluation found. Every share is over examples: with several samples, an example counts as the mean of its
/// samples, because they are not independent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Name of the task.
    pub task: String,
    /// Examples evaluated.
    pub examples: usize,
    /// Responses to each.
    pub samples: usize,
    /// Share of answers that are wholly right.
    pub accuracy: Interval,
    /// Mean share of an answer's parts that are right (for a jigsaw: tiles in their place).
    pub hits: Interval,
    /// Share of responses in which an answer could be read.
    pub parsed: Interval,
    /// Share of responses that keep the requested format as a whole.
    pub well_formed: Interval,
    /// Responses by fault, in the task's words; responses without a fault are not listed.
    pub faults: BTreeMap<String, usize>,
    /// Responses cut off by the length limit.
    pub truncated: usize,
    /// What guessing earns, if that is known for the task.
    pub chance: Option<Chance>,
    /// Mean tokens of a response, with the closing one.
    pub mean_tokens: f64,
    /// Seconds that this process took, without the part done by an interrupted one.
    pub seconds: f64,
    /// Tokens generated a second by this process; `None` if it generated nothing.
    pub tokens_per_second: Option<f64>,
}

impl Summary {
    /// Summarise `outcomes`, `samples` consecutive ones for each example. `fresh_tokens` were generated in `took`.
    pub fn of(
        task: &str,
        chance: Option<Chance>,
        outcomes: &[Outcome],
        samples: usize,
        fresh_tokens: usize,
        took: Duration,
    ) -> Result<Summary> {
        if samples == 0 || outcomes.is_empty() || !outcomes.len().is_multiple_of(samples) {
            return Err(Error::failed(format!("{} responses are no whole number of examples", outcomes.len())));
        }
        let groups: Vec<&[Outcome]> = outcomes.chunks(samples).collect();
        let rate = |holds: fn(&Outcome) -> bool| -> Interval {
            if samples == 1 {
                share(outcomes.iter().filter(|o| holds(o)).count(), outcomes.len())
            } else {
                let of_group = |g: &&[Outcome]| g.iter().filter(|o| holds(o)).count() as f64 / samples as f64;
                unit_mean(&groups.iter().map(of_group).collect::<Vec<f64>>())
            }
        };
        let hits_of_group = |g: &&[Outcome]| g.iter().map(|o| o.score.hits).sum::<f64>() / samples as f64;
        let mut faults = BTreeMap::new();
        for outcome in outcomes.iter().filter(|o| !o.score.fault.is_empty()) {
            *faults.entry(outcome.score.fault.clone()).or_insert(0) += 1;
        }
        let seconds = took.as_secs_f64();
        Ok(Summary {
            task: task.to_string(),
            examples: groups.len(),
            samples,
            accuracy: rate(|o| o.score.correct),
            hits: unit_mean(&groups.iter().map(hits_of_group).collect::<Vec<f64>>()),
            parsed: rate(|o| o.score.parsed),
            well_formed: rate(|o| o.score.well_formed),
            faults,
            truncated: outcomes.iter().filter(|o| !o.finished).count(),
            chance,
            mean_tokens: outcomes.iter().map(|o| o.tokens as f64).sum::<f64>() / outcomes.len() as f64,
            seconds,
            tokens_per_second: (fresh_tokens > 0 && seconds > 0.0).then(|| fresh_tokens as f64 / seconds),
        })
    }
}
