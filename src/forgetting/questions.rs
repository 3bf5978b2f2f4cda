//! The scores of a benchmark by question, as `forgetting.json` keeps them: what a mean over several training runs that answer the same
//! questions needs for its interval.

use super::change::IntervalMethod;
use super::overlap::joined;
use super::question_score::QuestionScore;
use super::result::{BenchmarkChange, TunedResult};
use crate::stats::{ClusterTotal, Stratum};
use std::collections::{HashMap, HashSet};

impl BenchmarkChange {
    /// What the questions contribute to the tuned model's mean score; `None` if they are not recorded.
    pub fn score_by_question(&self) -> Option<Vec<Stratum>> {
        let totals: Vec<ClusterTotal> = self.questions.iter().map(|one| (one.tuned, one.responses)).collect();
        (!totals.is_empty()).then(|| vec![Stratum::new(&totals, 1.0)])
    }

    /// What they contribute to a mean change in which this benchmark counts `weight` times.
    fn changes(&self, weight: f64) -> Stratum {
        let totals: Vec<ClusterTotal> =
            self.questions.iter().map(|one| (one.tuned - one.base, one.responses)).collect();
        match self.all.method {
            IntervalMethod::Same => Stratum::unchanged(totals.len()),
            _ => Stratum::new(&totals, weight),
        }
    }
}

impl TunedResult {
    /// What each question contributes to the mean change over all benchmarks from `before` to this model, both compared with one base. `None` if
    /// they did not answer the same questions, or these are not recorded.
    pub fn change_since(&self, before: &TunedResult) -> Option<Vec<Stratum>> {
        let mut later = self.clone();
        for one in &mut later.benchmarks {
            let earlier = before.benchmarks.iter().find(|other| other.name == one.name && other.data == one.data)?;
            if earlier.questions.len() != one.questions.len() {
                return None;
            }
            one.questions.iter_mut().zip(&earlier.questions).for_each(|(own, other)| own.base = other.tuned);
            one.all.method = IntervalMethod::Mean;
        }
        later.change_by_question(None)
    }

    /// What each question contributes to the mean change of a family, or of all benchmarks. Benchmarks with a question in common are one stratum.
    /// `None` if a benchmark's questions are not recorded.
    pub fn change_by_question(&self, family: Option<&str>) -> Option<Vec<Stratum>> {
        let own = self.benchmarks.iter().filter(|one| family.is_none_or(|family| one.family == family));
        let members: Vec<&BenchmarkChange> = own.collect();
        if members.is_empty() || members.iter().any(|one| one.questions.is_empty()) {
            return None;
        }
        let weight = 1.0 / members.len() as f64;
        let strata = groups(&members).into_iter().map(|group| {
            let mut numbers: HashMap<usize, usize> = HashMap::new();
            let mut number = |one: &QuestionScore| {
                let next = numbers.len();
                *numbers.entry(one.question).or_insert(next)
            };
            let clusters: Vec<Vec<usize>> =
                group.iter().map(|one| one.questions.iter().map(&mut number).collect()).collect();
            match group.as_slice() {
                [one] => one.changes(weight),
                _ => joined(&group.iter().map(|one| one.changes(weight)).collect::<Vec<_>>(), &clusters, numbers.len()),
            }
        });
        Some(strata.collect())
    }
}

/// Benchmarks that have questions in common, directly or through others, together.
fn groups<'a>(members: &[&'a BenchmarkChange]) -> Vec<Vec<&'a BenchmarkChange>> {
    let mut groups: Vec<Vec<&BenchmarkChange>> = Vec::new();
    for &member in members {
        let shares = |other: &&BenchmarkChange| {
            let numbers: HashSet<usize> = other.questions.iter().map(|one| one.question).collect();
            member.questions.iter().any(|one| numbers.contains(&one.question))
        };
        let (with, without): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| group.iter().any(shares));
        groups = without;
        groups.push(with.into_iter().flatten().chain([member]).collect());
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{labels, near, paired_scores, sides, title, tuned};
    use super::super::pairing::{ExampleLabel, pair};
    use super::super::result::MeasuredBenchmark;
    use super::*;
    use crate::stats::mean_of_strata;

    /// A benchmark whose question i shares the image `i` of `set` with other benchmarks.
    fn of(name: &str, set: &str, values: &[(f64, f64)]) -> MeasuredBenchmark {
        let (base, tuned) = sides(values);
        let mut labels: Vec<ExampleLabel> = labels(values.len());
        labels.iter_mut().enumerate().for_each(|(i, label)| label.shares = vec![format!("{set} {i}")]);
        MeasuredBenchmark::of(title(name), &pair(base, tuned).unwrap(), &labels, Vec::new()).unwrap()
    }

    #[test]
    fn the_change_from_stored_questions_is_the_change_with_its_interval() {
        let values = paired_scores(100, 80, 9, 3);
        let found = tuned(vec![
            of("a-direct", "a", &values),
            of("a-think", "a", &paired_scores(100, 90, 4, 0)),
            of("b", "b", &values),
        ]);
        let text = serde_json::to_string(&found).unwrap();
        assert!(text.contains(r#""questions":"0 1 0 1,1 1 0 1,"#), "{text}");
        let read: TunedResult = serde_json::from_str(&text).unwrap();
        assert_eq!(read.benchmarks, found.benchmarks);
        let numbers = |i: usize| read.benchmarks[i].questions.iter().map(|one| one.question).collect::<Vec<_>>();
        assert!(numbers(0) == numbers(1) && numbers(2).iter().all(|number| !numbers(0).contains(number)));
        let strata = read.change_by_question(None).unwrap();
        assert_eq!(strata.iter().map(|one| one.clusters.len()).collect::<Vec<_>>(), [100, 100]);
        let (got, all) = (mean_of_strata(&strata).mean, found.all.unwrap().change);
        near(got.value, all.value);
        near(got.low, all.low);
        near(got.high, all.high);
        // From a model that is not the base: of the first benchmark 9 lost and 3 gained, from 4 lost.
        let before = tuned(vec![
            of("a-direct", "a", &paired_scores(100, 80, 4, 0)),
            of("a-think", "a", &paired_scores(100, 90, 4, 0)),
            of("b", "b", &values),
        ]);
        near(mean_of_strata(&read.change_since(&before).unwrap()).mean.value, -0.02 / 3.0);
        assert!(read.change_since(&tuned(vec![of("b", "b", &values)])).is_none());
        assert!(read.change_by_question(Some("ocr")).is_none());
        near(mean_of_strata(&read.benchmarks[2].score_by_question().unwrap()).mean.value, 0.74);
    }

    #[test]
    fn files_without_questions_are_read_and_damaged_ones_refused_with_the_part() {
        let found = tuned(vec![of("a", "a", &paired_scores(10, 8, 1, 0))]);
        let mut json = serde_json::to_value(&found).unwrap();
        json["benchmarks"][0]["questions"] = "0 1 0 1,7 x 0 1".into();
        let error = serde_json::from_value::<TunedResult>(json.clone()).unwrap_err().to_string();
        assert!(error.contains("7 x 0 1"), "{error}");
        json["benchmarks"][0].as_object_mut().unwrap().remove("questions");
        let old: TunedResult = serde_json::from_value(json).unwrap();
        assert!(old.change_by_question(None).is_none() && old.benchmarks[0].score_by_question().is_none());
    }
}
