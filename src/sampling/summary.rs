//! What many scored responses come to: accuracy, mean score and the rest, each with its 95 % interval.

use super::ScoredResponse;
use crate::stats::{Interval, share, unit_mean};
use crate::tasks::scorers::{Number, Scored};
use crate::tasks::{Chance, Score, Task};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

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
    /// Rules that scored the responses, with the version of each.
    pub scorers: BTreeMap<String, u32>,
    /// Mean of what the benchmark's published rule gives: its score.
    pub value: Interval,
    /// Mean of what the same responses earn if nothing but the exact form counts ([`Score::exact_form`]); `None` in files of before it was
    /// told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_form: Option<Interval>,
    /// Mean of what a lenient reading of the same responses earns.
    pub lenient: Interval,
    /// Share of answers that are wholly right.
    pub accuracy: Interval,
    /// Mean partial credit (see [`Score::partial_credit`]).
    pub partial_credit: Interval,
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
    /// The benchmark's own numbers; with several samples, the mean of what each comes to.
    pub aggregates: Vec<Number>,
    /// Of a dataset whose records name a `meta.category`: each category by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub categories: BTreeMap<String, Category>,
}

/// The examples of one category.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Category {
    /// Examples evaluated.
    pub examples: usize,
    /// As [`Summary::accuracy`].
    pub accuracy: Interval,
    /// As [`Summary::partial_credit`].
    pub partial_credit: Interval,
}

impl Summary {
    /// Summarise `outcomes`, `samples` consecutive ones for each example. `fresh_tokens` were generated in `took`. What the
    /// task tells is left out; see [`Summary::of_task`].
    pub fn of(
        task: &str,
        chance: Option<Chance>,
        outcomes: &[ScoredResponse],
        samples: usize,
        fresh_tokens: usize,
        took: Duration,
    ) -> Result<Summary> {
        if samples == 0 || outcomes.is_empty() || !outcomes.len().is_multiple_of(samples) {
            return Err(Error::failed(format!("{} responses are no whole number of examples", outcomes.len())));
        }
        let groups: Vec<&[ScoredResponse]> = outcomes.chunks(samples).collect();
        let rate = |holds: fn(&ScoredResponse) -> bool| -> Interval {
            if samples == 1 {
                share(outcomes.iter().filter(|o| holds(o)).count(), outcomes.len())
            } else {
                let of_group = |g: &&[ScoredResponse]| g.iter().filter(|o| holds(o)).count() as f64 / samples as f64;
                unit_mean(&groups.iter().map(of_group).collect::<Vec<f64>>())
            }
        };
        let of_groups = |part: fn(&Score) -> f64| -> Vec<f64> {
            groups.iter().map(|g| g.iter().map(|o| part(&o.score)).sum::<f64>() / samples as f64).collect()
        };
        let mean = |part: fn(&Score) -> f64| -> Interval {
            let values = of_groups(part);
            // Of values that are all or nothing, the interval of a share.
            match values.iter().all(|v| [0.0, 1.0].contains(v)) {
                true => share(values.iter().filter(|v| **v == 1.0).count(), values.len()),
                false => unit_mean(&values),
            }
        };
        let mut faults = BTreeMap::new();
        for outcome in outcomes.iter().filter(|o| !o.score.fault.is_empty()) {
            *faults.entry(outcome.score.fault.clone()).or_insert(0) += 1;
        }
        let seconds = took.as_secs_f64();
        Ok(Summary {
            task: task.to_string(),
            examples: groups.len(),
            samples,
            scorers: BTreeMap::new(),
            value: mean(|s| s.value),
            exact_form: Some(mean(Score::exact_form)),
            lenient: mean(|s| s.lenient),
            accuracy: rate(|o| o.score.correct),
            partial_credit: unit_mean(&of_groups(|s| s.partial_credit)),
            parsed: rate(|o| o.score.parsed),
            well_formed: rate(|o| o.score.well_formed),
            faults,
            truncated: outcomes.iter().filter(|o| !o.finished).count(),
            chance,
            mean_tokens: outcomes.iter().map(|o| o.tokens as f64).sum::<f64>() / outcomes.len() as f64,
            seconds,
            tokens_per_second: (fresh_tokens > 0 && seconds > 0.0).then(|| fresh_tokens as f64 / seconds),
            aggregates: Vec::new(),
            categories: BTreeMap::new(),
        })
    }

    /// As [`Summary::of`], with what the task tells: its chance level and scorers, a benchmark's own numbers, a dataset's categories.
    ///
    /// # Errors
    /// An example of the task that cannot be read.
    pub fn of_task(
        task: &dyn Task,
        responses: &[ScoredResponse],
        samples: usize,
        fresh_tokens: usize,
        took: Duration,
    ) -> Result<Summary> {
        let chance = task.mean_chance(responses.len() / samples.max(1));
        let mut summary = Summary::of(task.name(), chance, responses, samples, fresh_tokens, took)?;
        summary.scorers = task.scorers().into_iter().collect();
        summary.aggregates = aggregates(task, responses, samples)?;
        if task.aggregate().is_none() {
            summary.categories = categories(task, responses, samples)?;
        }
        Ok(summary)
    }
}

fn categories(task: &dyn Task, outcomes: &[ScoredResponse], samples: usize) -> Result<BTreeMap<String, Category>> {
    let mut members: BTreeMap<String, Vec<ScoredResponse>> = BTreeMap::new();
    for outcome in outcomes {
        if let Some(category) = task.example(outcome.index)?.meta.get("category").and_then(|c| c.as_str()) {
            members.entry(category.to_string()).or_default().push(outcome.clone());
        }
    }
    let of = |(name, outcomes): (String, Vec<ScoredResponse>)| {
        let Summary { examples, accuracy, partial_credit, .. } =
            Summary::of(task.name(), None, &outcomes, samples, 0, Duration::ZERO)?;
        Ok((name, Category { examples, accuracy, partial_credit }))
    };
    members.into_iter().map(of).collect()
}

/// The numbers of each sample, one response to each question, and of those the mean.
fn aggregates(task: &dyn Task, outcomes: &[ScoredResponse], samples: usize) -> Result<Vec<Number>> {
    let Some(aggregate) = task.aggregate() else { return Ok(Vec::new()) };
    let mut sums: Vec<(Number, usize)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for sample in 0..samples {
        let outcomes = || outcomes.iter().filter(|o| o.sample == sample);
        let records = outcomes().map(|o| task.example(o.index)).collect::<Result<Vec<_>>>()?;
        let scored = records.iter().zip(outcomes()).map(|(record, o)| Scored::new(record, &o.score, &o.response));
        let scored: Vec<Scored<'_>> = scored.collect();
        for number in aggregate.numbers(&scored)? {
            match places.get(&number.name) {
                Some(&place) => {
                    let (sum, times) = &mut sums[place];
                    sum.value += number.value;
                    *times += 1;
                }
                None => {
                    places.insert(number.name.clone(), sums.len());
                    sums.push((number, 1));
                }
            }
        }
    }
    Ok(sums.into_iter().map(|(sum, times)| Number { value: sum.value / times as f64, ..sum }).collect())
}
