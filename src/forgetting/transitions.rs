//! Answers that were right and are wrong, and the other way round, also without those that guessing explains.
//!
//! The adjustment is that of arXiv 2510.17776 ("Mapping Post-Training Forgetting", table "Adj. Abs. Forgetting" of its code): who does not know
//! an answer guesses, and two independent guesses with chance c turn from right to wrong in a share of
//! (1 - before)(1 - after) c / (1 - c) of the questions, which for k choices is (1 - before)(1 - after) / (k - 1). As many turn from wrong to
//! right. Both shares are subtracted, and what falls below 0 is 0. Questions with another chance level are a group of their own: before and
//! after are the shares of right answers in the group. A question whose chance level is unknown (an open answer) counts as one that cannot be
//! guessed.

use crate::sampling::ScoredResponse;
use crate::stats::{Interval, clustered_unit_mean, nan_if_null, share, totals};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Transitions between right and wrong answers over pairs of responses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transitions {
    /// Mean chance level of the questions; unknown ones count 0.
    #[serde(deserialize_with = "nan_if_null")]
    pub chance: f64,
    /// Right before, wrong after: forgetting.
    pub right_to_wrong: TransitionShare,
    /// Wrong before, right after: backward transfer.
    pub wrong_to_right: TransitionShare,
}

/// How many pairs made a transition.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TransitionShare {
    /// Pairs.
    pub count: usize,
    /// Share of all pairs: Wilson's interval, cluster-robust where pairs are not independent.
    pub raw: Interval,
    /// Share of all pairs beyond what guessing explains: the interval is the cluster-robust t interval of the linearized share.
    pub adjusted: Interval,
}

impl Transitions {
    /// Of pairs of responses with the chance level of each, in clusters numbered from 0.
    pub fn of(pairs: &[(ScoredResponse, ScoredResponse)], chances: &[Option<f64>], clusters: &[usize]) -> Transitions {
        let right: Vec<(bool, bool)> =
            pairs.iter().map(|(base, tuned)| (base.score.correct, tuned.score.correct)).collect();
        let by_chance = GuessedShare::by_chance(&right, chances);
        let count = clusters.iter().max().map_or(0, |&last| last + 1);
        let independent = count == right.len();
        let of = |made: fn(&(bool, bool)) -> bool| {
            let count = right.iter().filter(|pair| made(pair)).count();
            let indicator = |pair: &(bool, bool)| f64::from(u8::from(made(pair)));
            let raw = match independent {
                true => share(count, right.len()),
                false => clustered_unit_mean(&totals(right.iter().map(indicator), clusters)),
            };
            let adjusted = match by_chance.is_empty() {
                true => raw,
                false => {
                    let guessed = |(pair, chance): (&(bool, bool), &Option<f64>)| {
                        let group = chance.and_then(|chance| by_chance.get(&chance.to_bits()));
                        indicator(pair) - group.map_or(0.0, |group| group.of_pair(pair))
                    };
                    let linear = right.iter().zip(chances).map(guessed);
                    not_negative(clustered_unit_mean(&totals(linear, clusters)))
                }
            };
            TransitionShare { count, raw, adjusted }
        };
        Transitions {
            chance: chances.iter().map(|chance| chance.unwrap_or(0.0)).sum::<f64>() / chances.len() as f64,
            right_to_wrong: of(|&(before, after)| before && !after),
            wrong_to_right: of(|&(before, after)| !before && after),
        }
    }
}

fn not_negative(interval: Interval) -> Interval {
    Interval { value: interval.value.max(0.0), low: interval.low.max(0.0), high: interval.high.max(0.0) }
}

/// Share of the questions of one chance level whose answers guessing turns from right to wrong: wrong before x wrong after x odds.
struct GuessedShare {
    /// Share of wrong answers before and after.
    wrong: (f64, f64),
    /// c / (1 - c).
    odds: f64,
}

impl GuessedShare {
    /// For each chance level above 0, by its bits. Where every answer is right by chance, nothing is wrong, and nothing is guessed wrong.
    fn by_chance(right: &[(bool, bool)], chances: &[Option<f64>]) -> BTreeMap<u64, GuessedShare> {
        let mut counts: BTreeMap<u64, (f64, f64, f64)> = BTreeMap::new();
        for (&(before, after), chance) in right.iter().zip(chances) {
            let Some(chance) = chance.filter(|chance| *chance > 0.0 && *chance < 1.0) else { continue };
            let count = counts.entry(chance.to_bits()).or_default();
            let wrong = |right: bool| f64::from(u8::from(!right));
            *count = (count.0 + wrong(before), count.1 + wrong(after), count.2 + 1.0);
        }
        let of = |(bits, (before, after, n)): (u64, (f64, f64, f64))| {
            let chance = f64::from_bits(bits);
            (bits, GuessedShare { wrong: (before / n, after / n), odds: chance / (1.0 - chance) })
        };
        counts.into_iter().map(of).collect()
    }

    /// The linear part that a pair has in the share. The mean over the group is the share itself, and the spread is that of its estimate (the
    /// delta method: the derivative of a product of two means).
    fn of_pair(&self, &(before, after): &(bool, bool)) -> f64 {
        let (first, second) = self.wrong;
        let wrong = |right: bool| f64::from(u8::from(!right));
        self.odds * (wrong(before) * second + wrong(after) * first - first * second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forgetting::fixtures::outcome;
    use serde_json::Value;

    fn pairs(right: impl Iterator<Item = (bool, bool)>) -> Vec<(ScoredResponse, ScoredResponse)> {
        let scored = |i: usize, right: bool| outcome(i, f64::from(u8::from(right)));
        right.enumerate().map(|(i, (before, after))| (scored(i, before), scored(i, after))).collect()
    }

    #[test]
    fn shares_and_intervals_are_those_of_the_published_formula_and_of_statsmodels() {
        let recorded: Value = serde_json::from_str(include_str!("../../tests/fixtures/outcomes.json")).unwrap();
        for case in recorded["transitions"].as_array().unwrap() {
            let flags = |name: &str| case[name].as_array().unwrap().iter().map(|v| v.as_u64() == Some(1));
            let pairs = pairs(flags("before").zip(flags("after")));
            let choices = case["choices"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap());
            let chances: Vec<Option<f64>> = choices.map(|k| (k > 0).then(|| 1.0 / k as f64)).collect();
            let clusters: Vec<usize> =
                case["clusters"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
            let found = Transitions::of(&pairs, &chances, &clusters);
            for (got, name) in [(found.right_to_wrong, "right_to_wrong"), (found.wrong_to_right, "wrong_to_right")] {
                let expected = &case[name];
                let number = |key: &str| expected[key].as_f64().unwrap();
                assert_eq!(got.count as f64, number("count"));
                for (got, key) in [
                    (got.raw.value, "raw"),
                    (got.raw.low, "raw_low"),
                    (got.raw.high, "raw_high"),
                    (got.adjusted.value, "adjusted"),
                    (got.adjusted.low, "adjusted_low"),
                    (got.adjusted.high, "adjusted_high"),
                ] {
                    assert!((got - number(key)).abs() < 1e-9, "{name} {key}: {got} is not {}", number(key));
                }
            }
        }
    }

    #[test]
    fn two_models_that_only_guess_have_transitions_and_forget_nothing() {
        // Four choices: a quarter right before, a quarter after, independently.
        let guessed = (0..400).map(|i| (i % 4 == 0, (i / 4) % 4 == 0));
        let all: Vec<usize> = (0..400).collect();
        let found = Transitions::of(&pairs(guessed.clone()), &[Some(0.25); 400], &all);
        assert!((found.right_to_wrong.raw.value - 0.1875).abs() < 1e-12);
        assert!(found.right_to_wrong.adjusted.value.abs() < 1e-12 && found.wrong_to_right.adjusted.low == 0.0);
        // The same answers to open questions cannot be guessed.
        let open = Transitions::of(&pairs(guessed), &[None; 400], &all);
        assert_eq!((open.right_to_wrong.adjusted, open.chance), (open.right_to_wrong.raw, 0.0));
    }

    #[test]
    fn nothing_changed_leaves_room_for_what_was_not_seen() {
        let all: Vec<usize> = (0..40).collect();
        let found = Transitions::of(&pairs((0..40).map(|_| (true, true))), &[Some(0.5); 40], &all);
        let adjusted = found.right_to_wrong.adjusted;
        assert!(adjusted.value == 0.0 && adjusted.low == 0.0 && adjusted.high > 0.05, "{adjusted:?}");
    }
}
