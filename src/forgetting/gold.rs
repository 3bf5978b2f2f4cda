//! Log-probabilities of the gold answers to prior questions under base and tuned model: an outcome without a ceiling.
//!
//! A score of 100 % hides every drift that leaves the best answer the best one; the log-probability of the gold answer does not. It counts the
//! whole response in the form that is asked for, so a lost form lowers it too; the text between the answer tags is also counted alone, given
//! what stands before it.

use crate::Result;
use crate::eval::{GoldAnswer, PromptDivergence};
use crate::io::jsonl;
use crate::stats::{ClusterTotal, Interval, Stratum, clustered_mean, nan_if_null};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Name of all questions together.
const ALL: &str = "all";

/// The gold answer to one question: a line of `gold/MODEL.jsonl`. Log-probabilities are natural logarithms, summed over tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoldItem {
    /// The set of prompts that it belongs to.
    pub set: String,
    /// Id of the question, unique in its set.
    pub id: String,
    /// Kind of knowledge that it asks for.
    pub family: String,
    /// Questions with the same group (an image) are not independent, in other sets either.
    pub group: String,
    /// Tokens of the response, with the closing one.
    pub tokens: usize,
    /// Log-probability of the response under the base.
    pub base: f64,
    /// The same under the tuned model.
    pub tuned: f64,
    /// Tokens that hold a part of the text between the answer tags; of a response without tags all but the closing one.
    pub answer_tokens: usize,
    /// Log-probability of these under the base.
    pub answer_base: f64,
    /// The same under the tuned model.
    pub answer_tuned: f64,
}

impl GoldItem {
    /// The item of a line of a set; `None` where its question has no gold answer.
    pub(super) fn of(set: &str, line: &PromptDivergence, family: &str, group: &str) -> Option<GoldItem> {
        let GoldAnswer { response, first, end } = line.gold.as_ref()?;
        let answer = |logprobs: &[f32]| -> f64 {
            logprobs.get(*first..*end).unwrap_or_default().iter().map(|&logprob| f64::from(logprob)).sum()
        };
        Some(GoldItem {
            set: set.to_string(),
            id: line.id.clone(),
            family: family.to_string(),
            group: group.to_string(),
            tokens: response.tokens,
            base: -response.base,
            tuned: -response.tuned,
            answer_tokens: end - first,
            answer_base: answer(&response.base_logprobs),
            answer_tuned: answer(&response.tuned_logprobs),
        })
    }

    /// All items of a tuned model; `path` is [`TunedResult::gold_file`](super::TunedResult::gold_file) in the directory of the comparison.
    ///
    /// # Errors
    /// A file that cannot be read, by its line.
    pub fn read(path: &Path) -> Result<Vec<GoldItem>> {
        jsonl::read(path)
    }
}

/// A mean under both models, in nats, and its paired difference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedMean {
    /// Under the base.
    #[serde(deserialize_with = "nan_if_null")]
    pub base: f64,
    /// Under the tuned model.
    #[serde(deserialize_with = "nan_if_null")]
    pub tuned: f64,
    /// Tuned minus base, with the cluster-robust t interval.
    pub change: Interval,
}

/// Log-probabilities of the gold answers to the questions of one family, or of all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoldChange {
    /// The family; `all` for all questions.
    pub name: String,
    /// Questions.
    pub answers: usize,
    /// Groups of them that are independent.
    pub groups: usize,
    /// Tokens of the responses.
    pub tokens: usize,
    /// Mean per token of the response.
    pub per_token: PairedMean,
    /// Mean per response: the sum over its tokens.
    pub per_answer: PairedMean,
    /// Mean per response over the text between the answer tags alone.
    pub answer_text: PairedMean,
}

/// All questions together, then each family, in order of appearance; nothing for no items.
pub(super) fn gold_changes(items: &[GoldItem]) -> Vec<GoldChange> {
    let mut families: Vec<&str> = Vec::new();
    for item in items {
        if !families.contains(&item.family.as_str()) {
            families.push(&item.family);
        }
    }
    let of_family = |name: &&str| change(name, &items.iter().filter(|item| item.family == **name).collect::<Vec<_>>());
    let all = (!items.is_empty()).then(|| change(ALL, &items.iter().collect::<Vec<_>>()));
    all.into_iter().chain(families.iter().filter(|_| families.len() > 1).map(of_family)).collect()
}

/// What each group of questions contributes to the mean change per response, and to that of the text between the answer tags, for means over
/// several training runs.
pub fn gold_by_group(items: &[GoldItem]) -> [Vec<Stratum>; 2] {
    let all: Vec<&GoldItem> = items.iter().collect();
    let of = |value: fn(&GoldItem) -> f64| vec![Stratum::unbounded(&by_group(&all, value, |_| 1.0))];
    [of(|item| item.tuned - item.base), of(|item| item.answer_tuned - item.answer_base)]
}

fn change(name: &str, items: &[&GoldItem]) -> GoldChange {
    let mean = |of: fn(&GoldItem) -> (f64, f64), weight: fn(&GoldItem) -> f64| {
        let side = |pick: fn((f64, f64)) -> f64| clustered(items, |item| pick(of(item)), weight);
        let (base, tuned) = (side(|pair| pair.0).value, side(|pair| pair.1).value);
        PairedMean { base, tuned, change: side(|(base, tuned)| tuned - base) }
    };
    let response = |item: &GoldItem| (item.base, item.tuned);
    GoldChange {
        name: name.to_string(),
        answers: items.len(),
        groups: items.iter().map(|item| &item.group).collect::<std::collections::HashSet<_>>().len(),
        tokens: items.iter().map(|item| item.tokens).sum(),
        per_token: mean(response, |item| item.tokens as f64),
        per_answer: mean(response, |_| 1.0),
        answer_text: mean(|item| (item.answer_base, item.answer_tuned), |_| 1.0),
    }
}

fn clustered(items: &[&GoldItem], value: impl Fn(&GoldItem) -> f64, weight: fn(&GoldItem) -> f64) -> Interval {
    clustered_mean(&by_group(items, value, weight)).mean
}

/// Sums of each group, in the order of their names.
fn by_group(items: &[&GoldItem], value: impl Fn(&GoldItem) -> f64, weight: fn(&GoldItem) -> f64) -> Vec<ClusterTotal> {
    let mut groups: BTreeMap<&str, ClusterTotal> = BTreeMap::new();
    for item in items {
        let total = groups.entry(&item.group).or_default();
        *total = (total.0 + value(item), total.1 + weight(item));
    }
    groups.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::mean_of_strata;

    fn item(id: &str, family: &str, group: &str, tokens: usize, (base, tuned): (f64, f64)) -> GoldItem {
        GoldItem {
            set: "prior".into(),
            id: id.into(),
            family: family.into(),
            group: group.into(),
            tokens,
            base,
            tuned,
            answer_tokens: 1,
            answer_base: base / 2.0,
            answer_tuned: tuned / 2.0,
        }
    }

    #[test]
    fn the_text_between_the_answer_tags_is_counted_by_its_own_tokens() {
        let measured =
            serde_json::json!({ "tokens": 0, "nats": 0.0, "finished": true, "token_ids": [], "token_nats": [] });
        let line: PromptDivergence = serde_json::from_value(serde_json::json!({
            "index": 3, "id": "q3", "forward": measured, "reverse": measured, "own": null,
            "gold": {
                "tokens": 4, "base": 8.0, "tuned": 16.0, "token_ids": [7, 8, 9, 2], "first": 1, "end": 3,
                "base_logprobs": [-1.0, -2.0, -4.0, -1.0], "tuned_logprobs": [-1.0, -8.0, -6.0, -1.0]
            }
        }))
        .unwrap();
        let found = GoldItem::of("prior", &line, "ocr", "g").unwrap();
        assert_eq!((found.tokens, found.base, found.tuned), (4, -8.0, -16.0));
        assert_eq!((found.answer_tokens, found.answer_base, found.answer_tuned), (2, -6.0, -14.0));
        assert_eq!(GoldItem::of("prior", &PromptDivergence { gold: None, ..line }, "ocr", "g"), None);
    }

    #[test]
    fn means_are_per_token_and_per_answer_and_groups_are_one_observation() {
        let items = [
            item("a", "ocr", "1", 2, (-1.0, -2.0)),
            item("b", "ocr", "1", 4, (-1.0, -3.0)),
            item("c", "vqa", "2", 4, (-0.5, -0.5)),
        ];
        let found = gold_changes(&items);
        assert_eq!(found.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), [ALL, "ocr", "vqa"]);
        let all = &found[0];
        assert_eq!((all.answers, all.groups, all.tokens), (3, 2, 10));
        assert!((all.per_answer.change.value + 1.0).abs() < 1e-12 && (all.per_token.base + 0.25).abs() < 1e-12);
        assert!((all.per_token.change.value + 0.3).abs() < 1e-12);
        assert!((all.answer_text.change.value + 0.5).abs() < 1e-12);
        // One group has no spread: its interval is infinite. Of two, the interval is wide.
        assert_eq!(found[1].per_answer.change.low, f64::NEG_INFINITY);
        assert!(all.per_answer.change.low < -2.0 && all.per_answer.change.low.is_finite());
        // The contributions of the groups have the mean and, within the rounding of t, the interval of the clustered mean.
        let [per_answer, text] = gold_by_group(&items);
        for (strata, expected) in [(per_answer, all.per_answer.change), (text, all.answer_text.change)] {
            let got = mean_of_strata(&strata).mean;
            assert!((got.value - expected.value).abs() < 1e-12 && (got.low - expected.low).abs() < 1e-9, "{got:?}");
        }
        assert!(gold_changes(&[]).is_empty());
        assert_eq!(gold_changes(&items[2..]).len(), 1, "a single family is all");
    }
}
