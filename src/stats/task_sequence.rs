//! Tasks that are learned in a row: what the matrix R of accuracies says.
//!
//! `R[t][j]` is the accuracy on task j after the first t tasks were learned; `R[0]` is the model before any of them. Tasks are counted from 1 in
//! the formulas. After k tasks:
//!
//! | measure | definition | source |
//! |---|---|---|
//! | average accuracy | 1/k sum over j <= k of `R[k][j]` | ACC of Lopez-Paz and Ranzato 2017 (arXiv 1706.08840); A of Chaudhry et al. 2018 |
//! | backward transfer | 1/(k-1) sum over j < k of `R[k][j] - R[j][j]` | BWT of Lopez-Paz and Ranzato 2017 |
//! | forward transfer | 1/(k-1) sum over 2 <= j <= k of `R[j-1][j] - R[0][j]` | FWT of Lopez-Paz and Ranzato 2017, who take a random initialization for `R[0]` |
//! | forgetting | 1/(k-1) sum over j < k of max over 1 <= l < k of `R[l][j]`, minus `R[k][j]` | F of Chaudhry et al. 2018 (arXiv 1801.10112) |
//!
//! Each is a weighted sum of entries of R ([`Entry`]), so what a question contributes to it is the same sum of the question's scores, and the
//! change of an answer between two times is paired. The best time that forgetting looks back to is the one that was seen: its interval does
//! not account for that choice, and with noise its value is a little too high.

use super::clustered::ClusterTotal;
use super::stratified_mean::Stratum;

/// A number about a row of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceMeasure {
    /// Mean accuracy on the tasks that were learned.
    AverageAccuracy,
    /// What learning later tasks did to those before.
    BackwardTransfer,
    /// What learning earlier tasks did to those that were yet to be learned.
    ForwardTransfer,
    /// What was lost since the best time.
    Forgetting,
}

/// An entry of R with its weight in a measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// Tasks that were learned before, 0 to T.
    pub time: usize,
    /// The task, from 0.
    pub task: usize,
    /// Its weight.
    pub weight: f64,
}

impl SequenceMeasure {
    /// All of them.
    pub const ALL: [SequenceMeasure; 4] = [
        SequenceMeasure::AverageAccuracy,
        SequenceMeasure::BackwardTransfer,
        SequenceMeasure::ForwardTransfer,
        SequenceMeasure::Forgetting,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            SequenceMeasure::AverageAccuracy => "average accuracy",
            SequenceMeasure::BackwardTransfer => "backward transfer",
            SequenceMeasure::ForwardTransfer => "forward transfer",
            SequenceMeasure::Forgetting => "forgetting",
        }
    }

    /// The smallest and the largest value that is possible.
    pub fn bounds(self) -> (f64, f64) {
        if self == SequenceMeasure::AverageAccuracy { (0.0, 1.0) } else { (-1.0, 1.0) }
    }

    /// The measure after `learned` tasks as a weighted sum of entries of `r`, whose rows are times from 0 on. `None` where it is not defined (no
    /// task; of all but average accuracy, the first) or a row is missing.
    pub fn entries(self, r: &[Vec<f64>], learned: usize) -> Option<Vec<Entry>> {
        let least = if self == SequenceMeasure::AverageAccuracy { 1 } else { 2 };
        if learned < least || r.len() <= learned || r[..=learned].iter().any(|row| row.len() < learned) {
            return None;
        }
        let share = 1.0 / (learned + 1 - least) as f64;
        let difference = |task: usize, later: usize, earlier: usize| {
            [Entry { time: later, task, weight: share }, Entry { time: earlier, task, weight: -share }]
        };
        Some(match self {
            SequenceMeasure::AverageAccuracy => {
                (0..learned).map(|task| Entry { time: learned, task, weight: share }).collect()
            }
            SequenceMeasure::BackwardTransfer => {
                (0..learned - 1).flat_map(|task| difference(task, learned, task + 1)).collect()
            }
            SequenceMeasure::ForwardTransfer => (1..learned).flat_map(|task| difference(task, task, 0)).collect(),
            SequenceMeasure::Forgetting => {
                // The first of the times that are equally good.
                let best = |task: usize| {
                    (1..learned).fold(1, |best, time| if r[time][task] > r[best][task] { time } else { best })
                };
                (0..learned - 1).flat_map(|task| difference(task, best(task), learned)).collect()
            }
        })
    }
}

/// The sum of these entries of `r`.
pub fn entries_sum(r: &[Vec<f64>], entries: &[Entry]) -> f64 {
    entries.iter().map(|entry| entry.weight * r[entry.time][entry.task]).sum()
}

/// What the questions contribute to the sum of `entries`: a stratum for each task. `scores` has, for a time and a task, the sum of the scores of
/// each question and their number, the same questions in the same order at all times. `None` if they are not known.
pub fn entries_by_question<'a>(
    entries: &[Entry],
    scores: impl Fn(usize, usize) -> Option<&'a [ClusterTotal]>,
) -> Option<Vec<Stratum>> {
    let mut tasks: Vec<usize> = entries.iter().map(|entry| entry.task).collect();
    tasks.sort_unstable();
    tasks.dedup();
    let stratum = |task: usize| {
        let own: Vec<&Entry> = entries.iter().filter(|entry| entry.task == task).collect();
        // A difference of two accuracies weighs as much as one accuracy.
        let weight = own.iter().map(|entry| entry.weight.abs()).fold(0.0, f64::max);
        let mut totals: Vec<ClusterTotal> = Vec::new();
        for entry in own {
            let scores = scores(entry.time, task)?;
            if totals.is_empty() {
                totals = scores.iter().map(|(_, count)| (0.0, *count)).collect();
            }
            if totals.len() != scores.len() {
                return None;
            }
            totals.iter_mut().zip(scores).for_each(|(sum, (score, _))| sum.0 += entry.weight / weight * score);
        }
        Some(Stratum::new(&totals, weight))
    };
    tasks.into_iter().map(stratum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::mean_of_strata;
    use SequenceMeasure::{AverageAccuracy, BackwardTransfer, Forgetting, ForwardTransfer};

    fn near(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
    }

    /// Three tasks; the first is best after the second was learned, the second is known a little before it is learned.
    ///
    /// ```text
    ///              task 1  task 2  task 3
    /// before         0.10    0.20    0.05
    /// after 1        0.80    0.30    0.05
    /// after 2        0.90    0.70    0.15
    /// after 3        0.50    0.60    0.85
    /// ```
    fn r() -> Vec<Vec<f64>> {
        [[0.10, 0.20, 0.05], [0.80, 0.30, 0.05], [0.90, 0.70, 0.15], [0.50, 0.60, 0.85]].map(Vec::from).to_vec()
    }

    fn value(measure: SequenceMeasure, learned: usize) -> Option<f64> {
        measure.entries(&r(), learned).map(|entries| entries_sum(&r(), &entries))
    }

    #[test]
    fn each_measure_is_what_is_worked_by_hand() {
        let of = |measure, learned| value(measure, learned).unwrap();
        // (0.50 + 0.60 + 0.85) / 3 = 1.95 / 3; after two tasks (0.90 + 0.70) / 2; after one 0.80.
        near(of(AverageAccuracy, 3), 0.65);
        near(of(AverageAccuracy, 2), 0.80);
        near(of(AverageAccuracy, 1), 0.80);
        // ((0.50 - 0.80) + (0.60 - 0.70)) / 2 = -0.40 / 2; after two tasks 0.90 - 0.80.
        near(of(BackwardTransfer, 3), -0.20);
        near(of(BackwardTransfer, 2), 0.10);
        // ((0.30 - 0.20) + (0.15 - 0.05)) / 2 = 0.20 / 2; after two tasks 0.30 - 0.20.
        near(of(ForwardTransfer, 3), 0.10);
        near(of(ForwardTransfer, 2), 0.10);
        // Task 1: max(0.80, 0.90) - 0.50 = 0.40; task 2: max(0.30, 0.70) - 0.60 = 0.10; their mean. After two tasks 0.80 - 0.90: a gain.
        near(of(Forgetting, 3), 0.25);
        near(of(Forgetting, 2), -0.10);
    }

    #[test]
    fn before_the_second_task_nothing_is_transferred_and_what_is_not_measured_has_no_measures() {
        for measure in [BackwardTransfer, ForwardTransfer, Forgetting] {
            assert_eq!((value(measure, 0), value(measure, 1)), (None, None));
        }
        assert_eq!(value(AverageAccuracy, 0), None);
        for measure in SequenceMeasure::ALL {
            assert_eq!(measure.entries(&r(), 4), None);
            assert_eq!(measure.entries(&r()[..2], 2), None);
        }
    }

    #[test]
    fn forgetting_does_not_look_back_to_the_base_nor_to_the_time_itself() {
        // The base knew task 1 better than any later model, and the last model knows it best of those.
        let r = [[0.9, 0.0], [0.6, 0.1], [0.7, 0.8]].map(Vec::from).to_vec();
        let entries = Forgetting.entries(&r, 2).unwrap();
        near(entries_sum(&r, &entries), 0.6 - 0.7);
    }

    #[test]
    fn questions_contribute_what_makes_the_value_and_changes_are_paired() {
        // Four questions of each of two tasks. After task 1: 1 1 1 0 and 0 0 1 0; after task 2: 0 1 1 0 and 1 1 1 0.
        let of = |scores: [f64; 4]| scores.map(|score| (score, 1.0)).to_vec();
        let scores = [
            [of([0.0, 0.0, 0.0, 1.0]), of([0.0; 4])],
            [of([1.0, 1.0, 1.0, 0.0]), of([0.0, 0.0, 1.0, 0.0])],
            [of([0.0, 1.0, 1.0, 0.0]), of([1.0, 1.0, 1.0, 0.0])],
        ];
        let mean = |one: &Vec<ClusterTotal>| one.iter().map(|(score, _)| score).sum::<f64>() / 4.0;
        let r: Vec<Vec<f64>> = scores.iter().map(|row| row.iter().map(mean).collect()).collect();
        let found = |measure: SequenceMeasure| {
            let entries = measure.entries(&r, 2).unwrap();
            let strata = entries_by_question(&entries, |time, task| Some(&scores[time][task])).unwrap();
            let estimate = mean_of_strata(&strata);
            near(estimate.mean.value, entries_sum(&r, &entries));
            estimate
        };
        // 0.5 and 0.75.
        near(found(AverageAccuracy).mean.value, 0.625);
        near(found(ForwardTransfer).mean.value, 0.25);
        near(found(Forgetting).mean.value, 0.25);
        // One loss of four: deviations -3/4, 1/4, 1/4, 1/4, squares 12/16, with the factor 4/3 and over 16: 1/16. One unseen loss and gain: (1 + 1) /
        // (1 + 1) in squares of a question's weight, 1/4, twice: 2/16.
        let backward = found(BackwardTransfer);
        near(backward.mean.value, -0.25);
        near(backward.error.powi(2), 3.0 / 16.0);
        assert_eq!(entries_by_question(&BackwardTransfer.entries(&r, 2).unwrap(), |_, _| None), None);
    }
}
