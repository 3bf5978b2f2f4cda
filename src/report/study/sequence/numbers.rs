//! The numbers of tasks in a row for other programs: as rows of the study's CSV file, and R with its measures as JSON.

use super::load::{MethodResults, SequenceResults};
use crate::forgetting::ALL;
use crate::report::study::seed_stats::{SeedMean, SeedValue};
use crate::stats::{Interval, SequenceMeasure};
use serde_json::{Map, Value, json};

/// A number about a method.
pub struct SequenceNumber<'a> {
    /// The method.
    pub method: &'a str,
    /// Its seed; none of a mean over seeds.
    pub seed: Option<u64>,
    /// The seeds that it is over.
    pub seeds: Vec<u64>,
    /// What it is, and after which task.
    pub measure: String,
    /// The task, or the family of prior sets.
    pub of: String,
    /// The number with its interval.
    pub value: Interval,
    /// It is after the last task.
    pub last: bool,
}

/// All numbers, of each seed and as means over seeds.
pub fn numbers<'a>(sequence: &SequenceResults<'a>) -> Vec<SequenceNumber<'a>> {
    let all = sequence.tasks.len();
    let families = sequence.families();
    let mut found = Vec::new();
    for method in &sequence.methods {
        for time in 1..=all {
            let (last, after) = (time == all, format!("after task {time}"));
            let mut add = |measure: &str,
                           of: &str,
                           mean: Option<SeedMean>,
                           one: &dyn Fn(&super::load::SeedResults) -> Option<SeedValue>| {
                let each: Vec<(u64, Interval)> =
                    method.seeds.iter().filter_map(|seed| Some((seed.seed, one(seed)?.interval))).collect();
                let seeds: Vec<u64> = each.iter().map(|(seed, _)| *seed).collect();
                let number = |seed: Option<u64>, seeds: Vec<u64>, value: Interval| SequenceNumber {
                    method: &method.entry.name,
                    seed,
                    seeds,
                    measure: format!("{measure} {after}"),
                    of: of.to_string(),
                    value,
                    last,
                };
                found.extend(each.iter().map(|(seed, value)| number(Some(*seed), vec![*seed], *value)));
                found.extend(mean.map(|mean| number(None, seeds, mean.mean)));
            };
            for (j, task) in sequence.tasks.iter().enumerate() {
                add("accuracy", task, method.accuracy(time, j), &|seed| seed.accuracy(time, j));
            }
            for measure in SequenceMeasure::ALL {
                add(measure.name(), "", method.measure(measure, time), &|seed| seed.measure(measure, time));
            }
            add("prior change", ALL, method.prior(None, time), &|seed| seed.prior(None, time));
            for family in &families {
                add("prior change", family, method.prior(Some(family), time), &|seed| seed.prior(Some(family), time));
            }
        }
    }
    found
}

/// R and its measures: `r[t][j]` is the accuracy on task j after t tasks, the base's first; `measures[k]` are those after k + 1 tasks.
pub fn matrix_json(sequence: &SequenceResults<'_>) -> Value {
    let all = sequence.tasks.len();
    let measures = |value: &dyn Fn(SequenceMeasure, usize) -> Option<Interval>| -> Vec<Value> {
        let after = |learned: usize| -> Map<String, Value> {
            let named = |measure: SequenceMeasure| Some((measure.name().to_string(), json!(value(measure, learned)?)));
            SequenceMeasure::ALL.into_iter().filter_map(named).collect()
        };
        (1..=all).map(|learned| Value::Object(after(learned))).collect()
    };
    let of_method = |method: &MethodResults<'_>| {
        let row = |time: usize| -> Option<Vec<Interval>> {
            (0..all).map(|task| Some(method.accuracy(time, task)?.mean)).collect()
        };
        let seeds = method.seeds.iter().map(|seed| {
            let of = |measure, learned| Some(seed.measure(measure, learned)?.interval);
            json!({"seed": seed.seed, "r": seed.r, "measures": measures(&of)})
        });
        json!({
            "name": method.entry.name,
            "about": method.entry.about,
            "r": (0..=all).map_while(row).collect::<Vec<_>>(),
            "measures": measures(&|measure, learned| Some(method.measure(measure, learned)?.mean)),
            "prior_change": (1..=all).map_while(|time| Some(method.prior(None, time)?.mean)).collect::<Vec<_>>(),
            "seeds": seeds.collect::<Vec<_>>(),
        })
    };
    json!({
        "tasks": sequence.tasks,
        "chance": sequence.chance,
        "prior_base": sequence.any().and_then(|seed| seed.prior_base(None)),
        "methods": sequence.methods.iter().map(of_method).collect::<Vec<_>>(),
    })
}
