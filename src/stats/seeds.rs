//! Means over training runs that differ in their seed and answer the same questions.
//!
//! Both the seeds and the questions are samples: another study would draw others of either. The hierarchical bootstrap resamples both, a
//! resample of the questions being the same for all seeds that are drawn. For a mean its variance has a closed form, so nothing is drawn here:
//!
//! ```text
//! V_seeds      the spread of the seeds' means / S
//! V_questions  the spread of the questions' means over seeds / Q, by cluster and stratum
//! V_both       what is left after both (the interaction) / (S Q)
//! V = V_seeds + V_questions - V_both, never below either of the first two
//! ```
//!
//! Each of the first two holds V_both once. Resampling both holds it three times (Owen 2007, The pigeonhole bootstrap, Annals of Applied
//! Statistics 1:386-411), the true variance once, so it is taken off. These are the mean squares of a two-way analysis of variance with random
//! seeds and questions. The interval is Student's t with the degrees of freedom of Satterthwaite: those of V_seeds are S - 1. The
//! percentiles of the same bootstrap are too narrow for few seeds, because three seeds have ten resamples: `docs/forgetting.md` has the
//! coverage of both.

use super::clustered::Estimate;
use super::intervals::{Interval, Z};
use super::stratified_mean::{Contribution, Stratum, mean_of_strata};
use super::student::{student_t_quantile, student_t_two_sided};

/// Mean of the seeds' values, one each, to which the same questions contribute; `questions` holds what those of each seed do, in the same strata
/// and order. `None` if there are fewer than two seeds, or the questions are not the same.
pub fn mean_over_seeds(values: &[f64], questions: &[Vec<Stratum>]) -> Option<Estimate> {
    let seeds = values.len() as f64;
    let equal = vec![1.0 / seeds; questions.len()];
    let mean = weighted_sum(&questions.iter().map(Vec::as_slice).collect::<Vec<_>>(), &equal)?;
    if values.len() < 2 || values.len() != questions.len() {
        return None;
    }
    let of_mean = mean_of_strata(&mean);
    let apart = |own: &Vec<Stratum>| -> f64 {
        let pairs = own.iter().zip(&mean).flat_map(|(own, mean)| own.clusters.iter().zip(&mean.clusters));
        pairs.map(|(own, mean)| (own.deviation - mean.deviation).powi(2)).sum()
    };
    let both = questions.iter().map(apart).sum::<f64>() / (seeds * (seeds - 1.0));
    Some(combined(values, (of_mean.error.powi(2), of_mean.degrees), both))
}

/// The same where it is not known what each question contributes, but each seed's value has an interval over questions. The questions'
/// part is at most the mean of these intervals' variances, which it is if a question has the same effect under every seed. `None` if
/// there are fewer than two seeds, or an interval is unknown.
pub fn mean_over_seeds_of(intervals: &[Interval]) -> Option<Estimate> {
    let values: Vec<f64> = intervals.iter().map(|one| one.value).collect();
    // The longer side: the other may be cut to what is possible.
    let error = |one: &Interval| (one.high - one.value).max(one.value - one.low) / Z;
    let variance = intervals.iter().map(|one| error(one).powi(2)).sum::<f64>() / values.len() as f64;
    let known = intervals.iter().all(|one| one.low.is_finite() && one.high.is_finite());
    (values.len() > 1 && known).then(|| combined(&values, (variance, f64::INFINITY), 0.0))
}

/// `questions`: variance and degrees of freedom.
fn combined(values: &[f64], (of_questions, degrees): (f64, f64), both: f64) -> Estimate {
    let seeds = values.len() as f64;
    let value = values.iter().sum::<f64>() / seeds;
    let of_seeds = values.iter().map(|one| (one - value).powi(2)).sum::<f64>() / (seeds - 1.0) / seeds;
    let variance = (of_seeds + of_questions - both).max(of_seeds).max(of_questions);
    let known = [(of_seeds, seeds - 1.0), (of_questions, degrees)].into_iter().filter(|(own, _)| *own > 0.0);
    let degrees = variance.powi(2) / known.map(|(own, degrees)| own.powi(2) / degrees).sum::<f64>();
    if variance == 0.0 {
        let mean = Interval { value, low: value, high: value };
        return Estimate { mean, error: 0.0, degrees: f64::INFINITY, p: if value == 0.0 { 1.0 } else { 0.0 } };
    }
    let error = variance.sqrt();
    let half = student_t_quantile(0.975, degrees) * error;
    let mean = Interval { value, low: value - half, high: value + half };
    Estimate { mean, error, degrees, p: student_t_two_sided(value / error, degrees) }
}

/// The sum of several models' contributions by the same questions, each times its weight; `None` if the questions are not the same.
pub fn weighted_sum(of: &[&[Stratum]], weights: &[f64]) -> Option<Vec<Stratum>> {
    let first = *of.first()?;
    let same = |other: &&[Stratum]| {
        other.len() == first.len() && other.iter().zip(first).all(|(a, b)| a.clusters.len() == b.clusters.len())
    };
    if !of.iter().all(same) {
        return None;
    }
    let sum = |stratum: usize| {
        let mut clusters = vec![Contribution::default(); first[stratum].clusters.len()];
        for (own, &weight) in of.iter().zip(weights) {
            for (sum, one) in clusters.iter_mut().zip(&own[stratum].clusters) {
                *sum = sum.and(one.times(weight));
            }
        }
        let degrees = of.iter().map(|own| own[stratum].degrees).fold(f64::INFINITY, f64::min);
        Stratum { clusters, degrees }
    };
    Some((0..first.len()).map(sum).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture;

    fn strata(values: &[f64]) -> Vec<Stratum> {
        vec![Stratum::new(&values.iter().map(|v| (*v, 1.0)).collect::<Vec<_>>(), 1.0)]
    }

    #[test]
    fn the_variance_is_that_of_statsmodels_analysis_of_variance_and_of_the_drawn_bootstrap() {
        for case in fixture::cases("seeds") {
            let rows: Vec<Vec<f64>> = case["values"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect())
                .collect();
            let (seeds, questions) = (rows.len() as f64, rows[0].len() as f64);
            let means: Vec<f64> = rows.iter().map(|row| row.iter().sum::<f64>() / questions).collect();
            let of: Vec<Vec<Stratum>> = rows.iter().map(|row| strata(row)).collect();
            let number = |name: &str| fixture::number(&case, name);
            let [of_seeds, of_questions, both] =
                ["ms_seed", "ms_question", "ms_residual"].map(|name| number(name) / (seeds * questions));
            let got = mean_over_seeds(&means, &of).unwrap();
            fixture::close(got.mean.value, number("mean"), "mean");
            // One unseen loss and gain come to the questions' part: they are taken off to compare.
            let all: Vec<&[Stratum]> = of.iter().map(Vec::as_slice).collect();
            let mean = weighted_sum(&all, &vec![1.0 / seeds; rows.len()]).unwrap();
            let seen: f64 = mean[0].clusters.iter().map(|cluster| cluster.deviation.powi(2)).sum();
            fixture::close(1e4 * seen, 1e4 * of_questions, "questions");
            let unseen = mean_of_strata(&mean).error.powi(2) - seen;
            let expected = (of_seeds + of_questions + unseen - both).max(of_seeds).max(of_questions + unseen);
            fixture::close(1e4 * got.error.powi(2), 1e4 * expected, "variance");
            // 200,000 resamples of both, drawn by numpy: without the factors for few seeds and questions, and with the interaction thrice.
            let drawn = of_seeds * (seeds - 1.0) / seeds
                + of_questions * (questions - 1.0) / questions
                + both * (seeds - 1.0) * (questions - 1.0) / (seeds * questions);
            let bootstrap = number("bootstrap_variance");
            assert!((drawn / bootstrap - 1.0).abs() < 0.02, "{drawn} is not {bootstrap}");
        }
    }

    #[test]
    fn seeds_that_answer_alike_say_no_more_than_one_and_questions_that_are_alike_leave_the_seeds() {
        let values: Vec<f64> = (0..40).map(|i| if i < 9 { -1.0 } else { 0.0 }).collect();
        let one = mean_of_strata(&strata(&values));
        let three = mean_over_seeds(&[-9.0 / 40.0; 3], &[strata(&values), strata(&values), strata(&values)]).unwrap();
        assert!((one.mean.low - three.mean.low).abs() < 1e-12 && (one.mean.high - three.mean.high).abs() < 1e-12);
        // Every question lost in one seed, none in another: Student's t over seeds, wider by the one unseen loss and gain.
        let (all, none) = (vec![-1.0; 400], vec![0.0; 400]);
        let apart = mean_over_seeds(&[-1.0, 0.0, -1.0], &[strata(&all), strata(&none), strata(&all)]).unwrap();
        let t = crate::stats::mean(&[-1.0, 0.0, -1.0]);
        assert!((apart.mean.low / t.low - 1.0).abs() < 1e-3, "{apart:?} {t:?}");
    }

    #[test]
    fn questions_that_differ_or_a_single_seed_are_no_mean_over_seeds() {
        let (a, b) = (strata(&[0.0, 1.0]), strata(&[0.0, 1.0, 1.0]));
        assert!(mean_over_seeds(&[0.5, 0.6], &[a.clone(), b]).is_none());
        assert!(mean_over_seeds(&[0.5], &[a]).is_none() && mean_over_seeds(&[], &[]).is_none());
        let of = |value: f64, half: f64| Interval { value, low: value - half, high: value + half };
        assert!(mean_over_seeds_of(&[of(0.5, 0.1)]).is_none() && mean_over_seeds_of(&[of(0.5, f64::NAN); 2]).is_none());
        // Equal seeds: no narrower than one of them.
        let equal = mean_over_seeds_of(&[of(0.5, 0.1), of(0.5, 0.1)]).unwrap().mean;
        assert!((equal.low - 0.4).abs() < 1e-9 && (equal.high - 0.6).abs() < 1e-9, "{equal:?}");
        let wide = mean_over_seeds_of(&[of(0.4, 0.1), of(0.6, 0.1)]).unwrap().mean;
        assert!(wide.low < 0.25 && wide.high > 0.75, "{wide:?}");
    }
}
