//! A benchmark's own numbers, from the scores of its questions.
//!
//! Each number comes from the published rule under its name, from the lenient reading under `lenient/` and its name, and, where the rule reads
//! other forms too, from answers in the exact form alone under `exact-form/` and its name.
//! Shares are in [0, 1]. The functions expect one response to each question; with several, aggregate each sample separately.

use super::answer_score::share;
use super::extract_answer::ExtractedAnswer;
use super::response_scorer::style;
use super::yes_no;
use crate::data::Record;
use crate::tasks::Score;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a benchmark sums up its questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregate {
    /// MME (arXiv 2306.13394). For each `meta.category`: `/accuracy`, `/accuracy-plus` (share of images, by `meta.group`,
    /// whose two questions are both right) and, under the category's name, 100 times their sum. `perception` and
    /// `cognition` are the sums over their 10 and 4 categories (at most 2000 and 800), `total` the sum of both; each is given
    /// if all its categories are there.
    Mme,
    /// POPE (arXiv 2305.10355): `accuracy`, `precision`, `recall`, `f1` of yes, `yes-ratio` (share of responses that say
    /// yes), `unknown` (share that say neither). A response that says neither is wrong, and counts as no in the other
    /// numbers. Over all, then for each `meta.category`; a question of several categories (`random,popular`) counts once in
    /// each, over all as well, because the published sets repeat it.
    Pope,
    /// The rest: `score` (mean value), `partial-credit` and `exact-form` where they differ, `parsed`; then `score` for each `meta.category` and each
    /// `meta.l2-category`.
    Mean,
}

/// One of a benchmark's numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Number {
    /// What it is, with the category before it (`random/f1`).
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Questions (for accuracy-plus: images; for precision and recall: answers in its denominator) that it is over.
    pub n: usize,
}

/// A question with the score of a response to it.
#[derive(Debug, Clone, Copy)]
pub struct Scored<'a> {
    /// Gold answer.
    pub answer: &'a str,
    /// The record's `meta`.
    pub meta: &'a serde_json::Map<String, serde_json::Value>,
    /// The response's score.
    pub score: &'a Score,
    /// The response.
    pub response: &'a str,
}

impl<'a> Scored<'a> {
    /// A record with a response to it and its score.
    pub fn new(record: &'a Record, score: &'a Score, response: &'a str) -> Self {
        Scored { answer: &record.answer, meta: &record.meta, score, response }
    }

    /// A text or number of the record's `meta` as text.
    fn text(&self, field: &str) -> Option<String> {
        match self.meta.get(field)? {
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn needed(&self, field: &str, whose: &str) -> Result<String> {
        self.text(field)
            .ok_or_else(|| Error::input(format!("field `meta.{field}` is missing; {whose} is summed up by it")))
    }
}

/// MME's categories of perception.
const PERCEPTION: [&str; 10] =
    ["existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR"];
/// MME's categories of cognition.
const COGNITION: [&str; 4] = ["commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"];

impl Aggregate {
    /// The benchmark's numbers in the order of its tables; none if there are no questions. An input error if a question
    /// lacks what its benchmark is summed up by.
    pub fn numbers(self, scored: &[Scored]) -> Result<Vec<Number>> {
        if scored.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Aggregate::Mme => {
                let mut numbers = mme(scored, |score| score.correct)?;
                numbers.extend(under("exact-form", mme(scored, |score| score.exact_form() >= 1.0)?));
                numbers.extend(under("lenient", mme(scored, |score| score.lenient >= 1.0)?));
                Ok(numbers)
            }
            Aggregate::Pope => {
                let mut numbers = pope(scored, prediction)?;
                numbers.extend(under("exact-form", pope(scored, exact_prediction)?));
                numbers.extend(under("lenient", pope(scored, lenient_prediction)?));
                Ok(numbers)
            }
            Aggregate::Mean => {
                let mut numbers = means(scored, |score| score.value);
                let all = scored.len();
                if scored.iter().any(|s| s.score.exact_form() != s.score.value) {
                    numbers.insert(1, Number::mean("exact-form", scored.iter().map(|s| s.score.exact_form()), all));
                }
                if scored.iter().any(|s| s.score.partial_credit != s.score.value) {
                    numbers
                        .insert(1, Number::mean("partial-credit", scored.iter().map(|s| s.score.partial_credit), all));
                }
                numbers.insert(1, Number::mean("parsed", scored.iter().map(|s| share(s.score.parsed)), all));
                numbers.extend(under("lenient", means(scored, |score| score.lenient)));
                Ok(numbers)
            }
        }
    }
}

impl Number {
    fn new(name: impl Into<String>, value: f64, n: usize) -> Self {
        Number { name: name.into(), value, n }
    }

    fn mean(name: impl Into<String>, values: impl Iterator<Item = f64>, n: usize) -> Self {
        Number::new(name, values.sum::<f64>() / n as f64, n)
    }
}

fn under(reading: &str, numbers: Vec<Number>) -> impl Iterator<Item = Number> {
    numbers.into_iter().map(move |number| Number { name: format!("{reading}/{}", number.name), ..number })
}

fn mme(scored: &[Scored], right: fn(&Score) -> bool) -> Result<Vec<Number>> {
    let mut categories: BTreeMap<String, BTreeMap<String, Vec<bool>>> = BTreeMap::new();
    for question in scored {
        let images = categories.entry(question.needed("category", "MME")?).or_default();
        images.entry(question.needed("group", "MME")?).or_default().push(right(question.score));
    }
    let mut parts = Vec::new();
    let mut scores: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
    let named = PERCEPTION.iter().chain(&COGNITION);
    let others = categories.keys().map(String::as_str).filter(|c| !PERCEPTION.contains(c) && !COGNITION.contains(c));
    for category in named.copied().chain(others) {
        let Some((category, images)) = categories.get_key_value(category) else { continue };
        if let Some((image, answers)) = images.iter().find(|(_, answers)| answers.len() > 2) {
            return Err(Error::input(format!(
                "field `meta.group`: {} questions of category `{category}` are about image `{image}`; MME asks two",
                answers.len()
            )));
        }
        let answers: Vec<bool> = images.values().flatten().copied().collect();
        let pairs: Vec<bool> = images.values().filter(|a| a.len() == 2).map(|a| a[0] && a[1]).collect();
        let rate = |holds: &[bool]| holds.iter().filter(|&&h| h).count() as f64 / holds.len() as f64;
        if !pairs.is_empty() {
            // An image of which only one question was asked (an evaluation cut short) counts in accuracy alone.
            let score = 100.0 * (rate(&answers) + rate(&pairs));
            scores.insert(category, (score, answers.len()));
            parts.push(Number::new(category, score, answers.len()));
        }
        parts.push(Number::new(format!("{category}/accuracy"), rate(&answers), answers.len()));
        if !pairs.is_empty() {
            parts.push(Number::new(format!("{category}/accuracy-plus"), rate(&pairs), pairs.len()));
        }
    }
    let sum = |name: &str, categories: &[&str]| -> Option<Number> {
        let parts: Vec<(f64, usize)> = categories.iter().map(|c| scores.get(c).copied()).collect::<Option<_>>()?;
        Some(Number::new(name, parts.iter().map(|p| p.0).sum(), parts.iter().map(|p| p.1).sum()))
    };
    let all: Vec<&str> = PERCEPTION.iter().chain(&COGNITION).copied().collect();
    let sums = [sum("total", &all), sum("perception", &PERCEPTION), sum("cognition", &COGNITION)];
    Ok(sums.into_iter().flatten().chain(parts).collect())
}

type Prediction = fn(&Scored, bool) -> Result<Option<bool>>;

/// What a response says by the published rule, derived from its score.
fn prediction(question: &Scored, gold: bool) -> Result<Option<bool>> {
    Ok(question.score.parsed.then_some(question.score.correct == gold))
}

/// The same of a response in the exact form.
fn exact_prediction(question: &Scored, gold: bool) -> Result<Option<bool>> {
    let exact = question.score.well_formed && question.score.exact != Some(false);
    Ok(prediction(question, gold)?.filter(|_| exact))
}

fn lenient_prediction(question: &Scored, gold: bool) -> Result<Option<bool>> {
    let reading = ExtractedAnswer::of(question.response, style(question.meta)?);
    Ok(yes_no::lenient_prediction(reading.lenient).or(prediction(question, gold)?))
}

fn pope(scored: &[Scored], said_by: Prediction) -> Result<Vec<Number>> {
    let mut all = Vec::new();
    let mut categories: BTreeMap<String, Vec<(bool, Option<bool>)>> = BTreeMap::new();
    for question in scored {
        let gold = yes_no::right_answer(question.answer)?;
        let said = (gold, said_by(question, gold)?);
        let named = question.text("category").unwrap_or_default();
        let named: Vec<&str> = named.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        for category in &named {
            categories.entry(category.to_string()).or_default().push(said);
        }
        all.extend(std::iter::repeat_n(said, named.len().max(1)));
    }
    let mut numbers = detection("", &all);
    for (category, said) in &categories {
        numbers.extend(detection(&format!("{category}/"), said));
    }
    Ok(numbers)
}

/// Precision, recall and F1 of `yes`, from pairs of (gold answer, prediction).
fn detection(prefix: &str, said: &[(bool, Option<bool>)]) -> Vec<Number> {
    let count = |holds: fn(&(bool, Option<bool>)) -> bool| said.iter().filter(|pair| holds(pair)).count();
    let right = count(|&(gold, said)| said == Some(gold));
    let true_positives = count(|&pair| pair == (true, Some(true)));
    let (yes, true_yes) = (count(|pair| pair.1 == Some(true)), count(|pair| pair.0));
    let ratio = |a: usize, b: usize| if b == 0 { 0.0 } else { a as f64 / b as f64 };
    let all = said.len();
    let numbers = [
        ("accuracy", ratio(right, all), all),
        ("precision", ratio(true_positives, yes), yes),
        ("recall", ratio(true_positives, true_yes), true_yes),
        ("f1", ratio(2 * true_positives, yes + true_yes), all), // the harmonic mean of precision and recall, without dividing by 0
        ("yes-ratio", ratio(yes, all), all),
        ("unknown", ratio(count(|pair| pair.1.is_none()), all), all),
    ];
    numbers.into_iter().map(|(name, value, n)| Number::new(format!("{prefix}{name}"), value, n)).collect()
}

fn means(scored: &[Scored], value: fn(&Score) -> f64) -> Vec<Number> {
    let mut numbers = vec![Number::mean("score", scored.iter().map(|s| value(s.score)), scored.len())];
    for field in ["category", "l2-category"] {
        let mut parts: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for question in scored {
            if let Some(part) = question.text(field) {
                parts.entry(part).or_default().push(value(question.score));
            }
        }
        let mean = |(part, values): (String, Vec<f64>)| {
            Number::mean(format!("{part}/score"), values.iter().copied(), values.len())
        };
        numbers.extend(parts.into_iter().map(mean));
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Scorer;
    use crate::tasks::scorers::{ResponseScorer, YesNo};
    use serde_json::json;

    /// A question of this gold answer and meta, answered so.
    struct Case(&'static str, serde_json::Value, &'static str);

    fn numbers(aggregate: Aggregate, cases: &[Case]) -> Result<Vec<Number>> {
        let parts: Vec<_> = cases
            .iter()
            .map(|Case(answer, meta, response)| {
                let meta = meta.as_object().unwrap().clone();
                let gold = yes_no::right_answer(answer).unwrap();
                (meta, ResponseScorer::new(Box::new(YesNo::new(gold)), None).score(response))
            })
            .collect();
        let scored: Vec<Scored> = cases
            .iter()
            .zip(&parts)
            .map(|(Case(answer, _, response), (meta, score))| Scored { answer, meta, score, response })
            .collect();
        aggregate.numbers(&scored)
    }

    fn get(numbers: &[Number], name: &str) -> (f64, usize) {
        let number = numbers.iter().find(|n| n.name == name).unwrap_or_else(|| panic!("no {name} in {numbers:?}"));
        (number.value, number.n)
    }

    #[test]
    fn mme_adds_accuracy_and_accuracy_plus() {
        let meta = |category: &str, group: &str| json!({"category": category, "group": group});
        let found = numbers(
            Aggregate::Mme,
            &[
                Case("Yes", meta("OCR", "1"), "Yes"),
                Case("No", meta("OCR", "1"), "no."),
                Case("Yes", meta("OCR", "2"), "Yes, it does"),
                Case("No", meta("OCR", "2"), "No"),
                Case("Yes", meta("OCR", "3"), "No"),
                Case("No", meta("OCR", "3"), "No"),
                Case("No", meta("count", "1"), "No"),
            ],
        )
        .unwrap();
        assert_eq!(get(&found, "OCR/accuracy"), (5.0 / 6.0, 6));
        assert_eq!(get(&found, "OCR/accuracy-plus"), (2.0 / 3.0, 3));
        assert_eq!(get(&found, "OCR"), (150.0, 6));
        assert_eq!(get(&found, "exact-form/OCR/accuracy"), (4.0 / 6.0, 6));
        assert_eq!(get(&found, "exact-form/OCR"), (100.0, 6));
        assert_eq!(get(&found, "lenient/OCR"), (150.0, 6));
        assert_eq!(get(&found, "count/accuracy"), (1.0, 1));
        let names: Vec<&str> = found.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names[..4], ["count/accuracy", "OCR", "OCR/accuracy", "OCR/accuracy-plus"]);
        assert!(!names.contains(&"perception") && !names.contains(&"count"));
    }

    #[test]
    fn mme_totals_are_those_of_the_paper() {
        let mut cases = Vec::new();
        for category in PERCEPTION.iter().chain(&COGNITION) {
            for (gold, group) in [("Yes", 1), ("No", 1), ("Yes", 2), ("No", 2)] {
                cases.push(Case(gold, json!({"category": category, "group": group}), gold));
            }
        }
        let found = numbers(Aggregate::Mme, &cases).unwrap();
        assert_eq!(get(&found, "total"), (2800.0, 56));
        assert_eq!(get(&found, "perception"), (2000.0, 40));
        assert_eq!(get(&found, "cognition"), (800.0, 16));
        assert_eq!(found[0].name, "total");
        // always yes: half the questions, no image
        let yes: Vec<Case> = cases.into_iter().map(|Case(gold, meta, _)| Case(gold, meta, "Yes")).collect();
        assert_eq!(get(&numbers(Aggregate::Mme, &yes).unwrap(), "total"), (700.0, 56));
    }

    #[test]
    fn mme_counts_answers_in_sentences_as_published_numbers_do() {
        let mut cases = Vec::new();
        for category in PERCEPTION.iter().chain(&COGNITION) {
            for (gold, group, response) in [
                ("Yes", 1, "Yes, there is a dog in the image."),
                ("No", 1, "No."),
                ("Yes", 2, "The answer is yes"),
                ("No", 2, "Yes"),
            ] {
                cases.push(Case(gold, json!({"category": category, "group": group}), response));
            }
        }
        let found = numbers(Aggregate::Mme, &cases).unwrap();
        // three of four questions, one of two images
        assert_eq!(get(&found, "perception").0, 10.0 * 125.0);
        assert_eq!(get(&found, "cognition").0, 4.0 * 125.0);
        assert_eq!(get(&found, "exact-form/perception").0, 10.0 * 25.0);
        assert_eq!(get(&found, "exact-form/cognition").0, 4.0 * 25.0);
    }

    #[test]
    fn mme_needs_categories_and_pairs() {
        let message = |cases: &[Case]| numbers(Aggregate::Mme, cases).unwrap_err().to_string();
        assert!(message(&[Case("No", json!({"group": "1"}), "No")]).contains("`meta.category` is missing"));
        assert!(message(&[Case("No", json!({"category": "OCR"}), "No")]).contains("`meta.group` is missing"));
        let same = || Case("No", json!({"category": "OCR", "group": 7}), "No");
        assert!(message(&[same(), same(), same()]).contains("3 questions of category `OCR` are about image `7`"));
    }

    #[test]
    fn pope_counts_what_is_not_known_as_no_and_as_wrong() {
        let case = |gold, response| Case(gold, json!({"category": "random"}), response);
        let found = numbers(
            Aggregate::Pope,
            &[
                case("yes", "Yes"),
                case("yes", "Yes."),
                case("yes", "No"),
                case("yes", "Perhaps"),
                case("no", "Yes"),
                case("no", "No"),
                case("no", "There is no dog"),
                case("no", ""),
            ],
        )
        .unwrap();
        assert_eq!(get(&found, "accuracy"), (4.0 / 8.0, 8));
        assert_eq!(get(&found, "precision"), (2.0 / 3.0, 3));
        assert_eq!(get(&found, "recall"), (2.0 / 4.0, 4));
        assert_eq!(get(&found, "f1"), (4.0 / 7.0, 8));
        assert_eq!(get(&found, "yes-ratio"), (3.0 / 8.0, 8));
        assert_eq!(get(&found, "unknown"), (2.0 / 8.0, 8));
        assert_eq!(get(&found, "exact-form/accuracy"), (3.0 / 8.0, 8));
        assert_eq!(get(&found, "exact-form/unknown"), (3.0 / 8.0, 8));
        assert_eq!(get(&found, "random/f1"), (4.0 / 7.0, 8));
        assert_eq!(get(&found, "lenient/accuracy"), (4.0 / 8.0, 8));
        assert_eq!(get(&found, "lenient/unknown"), (2.0 / 8.0, 8));
        assert_eq!(get(&found, "lenient/f1"), (4.0 / 7.0, 8));
    }

    #[test]
    fn pope_counts_a_question_in_each_of_its_categories() {
        let found = numbers(
            Aggregate::Pope,
            &[
                Case("yes", json!({"category": "random, popular"}), "Yes"),
                Case("no", json!({"category": "popular"}), "Yes"),
                Case("no", json!({}), "No"),
            ],
        )
        .unwrap();
        assert_eq!(get(&found, "accuracy"), (3.0 / 4.0, 4));
        assert_eq!(get(&found, "random/accuracy"), (1.0, 1));
        assert_eq!(get(&found, "popular/accuracy"), (0.5, 2));
        let never = numbers(Aggregate::Pope, &[Case("yes", json!({}), "No")]).unwrap();
        assert_eq!((get(&never, "precision"), get(&never, "f1")), ((0.0, 0), (0.0, 1)));
    }

    #[test]
    fn other_benchmarks_are_means_by_category() {
        let found = numbers(
            Aggregate::Mean,
            &[
                Case("yes", json!({"category": "b", "l2-category": "x"}), "Yes"),
                Case("yes", json!({"category": "a", "l2-category": "x"}), "Yes, it is"),
                Case("no", json!({"category": "a"}), "<answer>No</answer>"),
            ],
        )
        .unwrap();
        let expected = [
            ("score", 1.0, 3),
            ("parsed", 1.0, 3),
            ("exact-form", 1.0 / 3.0, 3),
            ("a/score", 1.0, 2),
            ("b/score", 1.0, 1),
            ("x/score", 1.0, 2),
            ("lenient/score", 1.0, 3),
            ("lenient/a/score", 1.0, 2),
            ("lenient/b/score", 1.0, 1),
            ("lenient/x/score", 1.0, 2),
        ];
        let expected: Vec<Number> = expected.into_iter().map(|(name, value, n)| Number::new(name, value, n)).collect();
        assert_eq!(found, expected);
        assert!(numbers(Aggregate::Mean, &[]).unwrap().is_empty());
    }
}
