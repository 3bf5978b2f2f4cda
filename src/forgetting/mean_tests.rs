//! Means over benchmarks: what they find of planted losses, and what examples that benchmarks share do to their intervals.

use super::fixtures::*;
use super::*;
use crate::stats::{Interval, clustered_difference, mcnemar, student_t_quantile, student_t_two_sided};

#[test]
fn the_mean_counts_each_benchmark_once_and_holm_counts_their_number() {
    let found = tuned(vec![
        compared("big", &paired_scores(1000, 800, 20, 20)),
        compared("small", &paired_scores(100, 80, 30, 0)),
        compared("slight", &paired_scores(100, 80, 6, 0)),
    ]);
    let all = found.all.as_ref().unwrap();
    assert!((all.change.value - (0.0 - 0.3 - 0.06) / 3.0).abs() < 1e-12);
    assert!((all.base - 0.8).abs() < 1e-12 && (all.retention.value - 0.68 / 0.8).abs() < 1e-12);
    assert!(all.change.low < all.change.value && all.change.high < 0.0 && all.p < 1e-4);
    assert_eq!((all.n, all.method), (1200, IntervalMethod::Mean));
    // 2 x 2^-6 = 0.031 alone; 0.0625 as the second of three.
    let slight = &found.benchmarks[2];
    assert!((slight.all.p - 0.03125).abs() < 1e-12 && (slight.p_holm - 0.0625).abs() < 1e-12);
    assert_eq!(found.significant_losses, ["small"]);
    assert_eq!(found.families.len(), 1);
    let lines = summary(&found).join("\n");
    assert!(lines.contains("largest loss: small -30.0") && lines.contains("(Holm, 5 %): small"), "{lines}");
}

/// A benchmark whose example i has `key(i)` in common with others.
fn sharing(name: &str, values: &[(f64, f64)], key: impl Fn(usize) -> String) -> MeasuredBenchmark {
    let (base, tuned) = sides(values);
    let labels: Vec<ExampleLabel> =
        (0..values.len()).map(|i| ExampleLabel { shares: vec![key(i)], ..ExampleLabel::default() }).collect();
    MeasuredBenchmark::of(title(name), &pair(base, tuned).unwrap(), &labels, Vec::new()).unwrap()
}

#[test]
fn the_same_questions_in_two_styles_tell_no_more_than_those_of_one() {
    let values = paired_scores(120, 90, 20, 4);
    let of = |name: &str| sharing(name, &values, |i| format!("picture {i}"));
    let found = tuned(vec![of("scenes-direct"), of("scenes-think")]);
    let (one, all) = (&found.benchmarks[0].all, found.all.as_ref().unwrap());
    let alone = clustered_difference(&values.iter().map(|(before, after)| (after - before, 1.0)).collect::<Vec<_>>());
    near(all.p, alone.p);
    assert_eq!((all.worse, all.better, all.p_sign), (20, 4, mcnemar(4, 20)));
    for (all, one) in [
        (all.change, alone.mean),
        (all.lenient_change, alone.mean),
        (all.retention, one.retention),
        (found.families[0].change, alone.mean),
    ] {
        near(all.value, one.value);
        near(all.low, one.low);
        near(all.high, one.high);
    }
    // Of other questions it would be narrower.
    let apart = tuned(vec![compared("scenes-direct", &values), compared("scenes-think", &values)]).all.unwrap();
    let width = |i: Interval| i.high - i.low;
    assert!(width(all.change) > 1.4 * width(apart.change));
    assert!(apart.p < all.p && width(apart.retention) < 0.8 * width(all.retention));
    // What nobody shares changes nothing, nor does a picture that all examples have.
    let of = |name: &str, same: bool| {
        sharing(name, &values, |i| if same { "blank".into() } else { format!("{name}, picture {i}") })
    };
    for same in [false, true] {
        let found = tuned(vec![of("scenes-direct", same), of("scenes-think", same)]);
        assert_eq!(found.all.as_ref(), Some(&apart));
    }
}

#[test]
fn benchmarks_that_share_some_images_have_the_variance_of_their_joint_clusters() {
    // Differences 0.2, -0.4, 0.5, 0.1 and 0.3, 0.0, -0.6 about the means 0.1 and -0.1; -0.3, 0.1, 0.0, -0.5 about -0.175.
    let first = [(0.5, 0.7), (0.5, 0.1), (0.5, 1.0), (0.5, 0.6)];
    let second = [(0.6, 0.9), (0.6, 0.6), (0.6, 0.0)];
    let third = [(0.6, 0.3), (0.6, 0.7), (0.6, 0.6), (0.6, 0.1)];
    let found = tuned(vec![
        sharing("first", &first, |i| format!("a{i}")),
        sharing("other", &third, |i| format!("c{i}")),
        sharing("second", &second, |i| ["a0", "a2", "b"][i].to_string()),
    ]);
    // Of the mean over three benchmarks a pair is 1/12 or 1/9. The first of both show one image, and so do the third and the second.
    let (f, s) = ((4.0_f64 / 3.0).sqrt() / 12.0, 1.5_f64.sqrt() / 9.0);
    let joint = [0.1 * f + 0.4 * s, -0.5 * f, 0.4 * f + 0.1 * s, 0.0, -0.5 * s];
    let alone = [-0.125, 0.275, 0.175, -0.325].map(|deviation| deviation * f);
    let squares = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
    let (joint, alone) = (squares(&joint), squares(&alone));
    // Five clusters of the joint stratum changed, and three of the other.
    let changes = [0.2 / 12.0 + 0.3 / 9.0, -0.4 / 12.0, 0.5 / 12.0, 0.1 / 12.0, -0.6 / 9.0];
    let sizes = [1.0 / 12.0 + 1.0 / 9.0, 1.0 / 12.0, 1.0 / 12.0 + 1.0 / 9.0, 1.0 / 12.0, 1.0 / 9.0];
    let typical = squares(&sizes) / (2.0 / 3.0);
    let unseen = (squares(&changes) + typical * typical) / 6.0;
    assert!(unseen > (0.35 / 144.0 + 1.0 / 144.0) / 4.0, "the larger of the two strata");
    let variance = joint + alone + 2.0 * unseen;
    let degrees = variance.powi(2) / (joint.powi(2) / 2.0 + alone.powi(2) / 3.0);
    let half = student_t_quantile(0.975, degrees) * variance.sqrt();
    let all = found.all.as_ref().unwrap();
    near(all.change.value, (0.1 - 0.175 - 0.1) / 3.0);
    near(all.change.low, all.change.value - half);
    near(all.change.high, (all.change.value + half).min(1.0 - all.base));
    near(all.p, student_t_two_sided(all.change.value / variance.sqrt(), degrees));
    assert_eq!((all.worse, all.better), (4, 4));
}

/// A benchmark of this family in one style; question i of both styles shows picture i.
fn styled(family: &str, style: &str, values: &[(f64, f64)]) -> MeasuredBenchmark {
    let (base, tuned) = sides(values);
    let label = |i: usize| ExampleLabel { shares: vec![format!("{family} {i}")], ..ExampleLabel::default() };
    let labels: Vec<ExampleLabel> = (0..values.len()).map(label).collect();
    let title = BenchmarkTitle { family: family.into(), ..title(&format!("{family}-{style}")) };
    MeasuredBenchmark::of(title, &pair(base, tuned).unwrap(), &labels, Vec::new()).unwrap()
}

/// Seven families of 100 questions in two styles, six of which the base knows and keeps. Of the seventh it loses 7 answers and gains 1 in one
/// style, and loses 9 in the other: 12 questions are worse, 4 of them in both styles, and 1 is better.
fn one_family_loses() -> TunedResult {
    let right = paired_scores(100, 100, 0, 0);
    let mut benchmarks = Vec::new();
    for family in ["grounding", "ocr", "doc", "vqa", "pope", "describe"] {
        let mut direct = right.clone();
        if family == "vqa" {
            direct[..2].fill((0.0, 0.0));
        }
        benchmarks.extend([styled(family, "direct", &direct), styled(family, "think", &right)]);
    }
    let knowledge = |right: usize, lost: std::ops::Range<usize>, gained: usize| -> Vec<(f64, f64)> {
        let after = |i: usize| i < right && !lost.contains(&i) || i >= 100 - gained;
        (0..100).map(|i| (f64::from(u8::from(i < right)), f64::from(u8::from(after(i))))).collect()
    };
    benchmarks.push(styled("knowledge", "direct", &knowledge(83, 0..7, 1)));
    benchmarks.push(styled("knowledge", "think", &knowledge(82, 3..12, 0)));
    tuned(benchmarks)
}

#[test]
fn the_loss_of_one_family_is_not_hidden_by_families_that_lose_nothing() {
    let found = one_family_loses();
    let all = found.all.as_ref().unwrap();
    // In squares of a 1,400th: 4 questions of 2 and 9 of 1, about a mean of -0.15; and twice that of a question of a family without a change,
    // in both styles.
    let seen: f64 = 100.0 / 99.0 * (25.0 - 225.0 / 100.0);
    let whole = seen + 2.0 * 4.0;
    let half = student_t_quantile(0.975, 99.0 * (whole / seen).powi(2)) * whole.sqrt() / 1400.0;
    near(all.change.value, -15.0 / 1400.0);
    near(all.change.low, -15.0 / 1400.0 - half);
    near(all.change.high, -15.0 / 1400.0 + half);
    assert!(
        (-0.0187..-0.0185).contains(&all.change.low) && (-0.003..-0.0028).contains(&all.change.high),
        "{:?}",
        all.change
    );
    assert!(all.p < 0.01, "{}", all.p);
    assert_eq!((all.worse, all.better, all.p_sign), (12, 1, mcnemar(1, 12)));
    let lines = summary(&found).join("\n");
    for expected in [
        "by question: 12 worse, 1 better, sign test p = 0.0034",
        "families whose 95 % interval leaves out 0 (of 7, not adjusted for their number): knowledge -7.5 points (-12.6 to -2.4; 12 worse",
    ] {
        assert!(lines.contains(expected), "{expected:?} is missing in {lines}");
    }
    let quiet = summary(&tuned(vec![
        styled("a", "direct", &paired_scores(50, 50, 1, 0)),
        styled("b", "direct", &paired_scores(50, 50, 0, 0)),
    ]));
    assert!(quiet.contains(&"the 95 % interval of each of the 2 families includes 0".to_string()), "{quiet:?}");
}

#[test]
fn no_interval_goes_beyond_what_the_bases_score_leaves_possible() {
    let found = one_family_loses();
    let possible = |base: f64, change: Interval, retention: Interval| {
        let rounding = 1e-12;
        assert!(change.low >= -base - rounding && change.high <= 1.0 - base + rounding, "{base}: {change:?}");
        assert!(retention.low >= 0.0 && retention.high <= 1.0 / base + rounding, "{base}: {retention:?}");
        assert!(change.low <= change.value && change.value <= change.high);
    };
    for benchmark in &found.benchmarks {
        let all = &benchmark.all;
        possible(all.base.value.value, all.change, all.retention);
    }
    for group in found.families.iter().chain(&found.all) {
        possible(group.base, group.change, group.retention);
    }
    // All right before: nothing to gain, at most all to keep; there is still room for an unseen loss.
    let ocr = &found.families[1];
    assert_eq!((ocr.change.high, ocr.retention.high), (0.0, 1.0));
    assert!(ocr.change.low < -0.02 && ocr.retention.low < 0.98);
    assert_eq!(found.benchmarks[2].all.lenient_change.high, 0.0);
    assert!(table(&found, true).text().contains("100.0 % (96.3 to 100.0)"));
    // Nothing right before: nothing to lose. The same holds for categories, graded scores and groups.
    let wrong = tuned(vec![compared("a", &paired_scores(40, 0, 0, 0)), compared("b", &[(0.0, 0.3); 20])]);
    assert!(wrong.benchmarks[0].all.change.low == 0.0 && wrong.all.unwrap().change.low >= 0.0);
    let (base, after) = sides(&[(1.0, 1.0); 30]);
    let label = |i: usize| ExampleLabel {
        category: Some(["even", "odd"][i % 2].into()),
        group: Some(format!("{}", i / 3)),
        ..ExampleLabel::default()
    };
    let labels: Vec<ExampleLabel> = (0..30).map(label).collect();
    let grouped = MeasuredBenchmark::of(title("a"), &pair(base, after).unwrap(), &labels, Vec::new()).unwrap();
    let grouped = tuned(vec![grouped]);
    for change in grouped.benchmarks[0].categories.iter().map(|part| &part.change).chain([&grouped.benchmarks[0].all]) {
        assert_eq!((change.change.high, change.retention.high), (0.0, 1.0));
    }
}
