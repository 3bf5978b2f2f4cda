//! Recovery, weights, and criteria of the study that `tests.rs` makes up.

use super::tests::{RUNS, base_dir, hash, index, model, name, page, row, study};
use crate::forgetting::{ForgettingResult, ModelRef};
use crate::model::weight_diff::PartDiff;
use crate::report::tests::prior_knowledge::base;
use crate::report::{RecoveryRun, StudyIndex, StudyRun};
use serde_json::json;
use std::path::{Path, PathBuf};

/// The runs of RFT at 5e-5 lose 1 and 3 points; after ten prior examples none and 1.
fn recovered(out: &Path) {
    study(out);
    let mut index = index();
    for (run, after) in [(&RUNS[2], [1, 2, 3]), (&RUNS[3], [3, 4, 5])] {
        let own = name(run.0, run.1, run.2);
        let comparison = PathBuf::from("recovery").join(&own).join("compare-10");
        let later = (run.0, run.1, run.2, (run.3.0, after));
        let base = ModelRef { hash: hash(&base_dir(out)), ..base() };
        let result = ForgettingResult::new(base, vec![model(out, &later, 300, true)]);
        crate::forgetting::write(&out.join(&comparison), &result).unwrap();
        index.recoveries.push(RecoveryRun { run: own.clone(), examples: 10, comparison });
        let missing = PathBuf::from("recovery").join(&own).join("compare-50");
        index.recoveries.push(RecoveryRun { run: own, examples: 50, comparison: missing });
    }
    index.write(out).unwrap();
}

fn section<'a>(md: &'a str, title: &str) -> &'a str {
    &md[md.find(&format!("### {title}")).unwrap_or_else(|| panic!("{title}: {md}"))..]
}

#[test]
fn what_came_back_after_a_few_prior_examples_is_a_table_by_regime() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path();
    recovered(out);
    let (html, md, csv) = page(out);
    assert!(html.contains("Recovery after a few prior examples"));
    let table = section(&md, "Recovery after a few prior examples");
    let rft = row(table, "rft (lr 5e-5)");
    assert_eq!(rft.len(), 4, "no column for what is not measured: {rft:?}");
    assert!(rft[1].starts_with("2.0 (") && rft[2].starts_with("0.5 (") && rft[3].starts_with("1.5 ("), "{rft:?}");
    let value = |begins: &str, name: &str| {
        let of = |line: &&str| line.starts_with(begins) && line.contains(name);
        let line = csv.lines().find(of).unwrap_or_else(|| panic!("{name}: {csv}"));
        line.split(',').nth(8).unwrap().parse::<f64>().unwrap()
    };
    for (begins, name, expected) in [
        ("rft,5e-5,2,2,300,true,", "change after 10 prior examples", -0.01),
        ("rft,5e-5,2,2,300,true,", "came back after 10 prior examples", 0.02),
        ("rft,5e-5,,1 2,,true,", "came back after 10 prior examples", 0.015),
    ] {
        assert!((value(begins, name) - expected).abs() < 1e-12, "{name}: {csv}");
    }
}

#[test]
fn a_study_without_recovery_gold_answers_or_weights_has_no_such_tables() {
    let dir = tempfile::tempdir().unwrap();
    study(dir.path());
    let (_, md, csv) = page(dir.path());
    assert!(!md.contains("### Recovery") && !md.contains("### Change of the weights"), "{md}");
    assert!(!csv.contains("prior examples") && !csv.contains("weights:") && !csv.contains("gold log"));
    // Transitions are always there: 3 + 4 + 5 and 6 + 8 + 10 of 600 turn wrong.
    let rft = row(section(&md, "Prior knowledge by other measures"), "rft (lr 5e-5)");
    assert!(rft[5].starts_with("3.0 % (") && rft[6].starts_with("1.0 % ("), "{rft:?}");
}

#[test]
fn the_change_of_the_weights_is_a_mean_over_seeds_by_part() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path();
    study(out);
    for (run, norm) in [(&RUNS[2], 0.01), (&RUNS[3], 0.02)] {
        let part = |name: &str| PartDiff {
            part: name.into(),
            parameters: 10,
            norm: 100.0 * norm,
            relative_norm: norm,
            changed: 0.5,
            changed_bf16: 0.25,
            effective_rank: Some(4.0),
            effective_rank_share: Some(0.5),
            stable_rank: None,
        };
        let mut last = model(out, run, 300, true);
        last.weights = Some(vec![part("decoder"), part("all")]);
        let base = ModelRef { hash: hash(&base_dir(out)), ..base() };
        let dir = out.join("compare").join(name(run.0, run.1, run.2));
        crate::forgetting::write(&dir, &ForgettingResult::new(base, vec![last])).unwrap();
    }
    let (_, md, csv) = page(out);
    let table = section(&md, "Change of the weights");
    assert!(table.contains("| effective rank | changed in f32 | whole model | decoder |"), "{table}");
    // 1.5 on either side by 12.706 times 0.5, not below 0.
    let rft = row(table, "rft (lr 5e-5)");
    assert!(
        rft[1].starts_with("1.50 (0 to 7.85\u{a0}\u{2021})") && rft[4] == "1.50 % (0.00 to 7.85\u{a0}\u{2021})",
        "{rft:?}"
    );
    assert_eq!((rft[2].as_str(), rft[3].as_str()), ("4.00", "50.0 %"));
    assert!(csv.contains("weights: share changed in f32,decoder,0.5,"));
}

/// With what each run's training came to: RFT's second seed at 5e-5 does not meet its criterion.
fn to_a_criterion(out: &Path) {
    study(out);
    let trained = |run: StudyRun| {
        let met = run.name != "rft.lr-5e-5.seed-2" && run.learning_rate != Some(1e-5);
        let accuracy = [(1e-5, 0.1), (5e-5, 0.4), (2e-4, 0.6)]
            .iter()
            .find(|(rate, _)| run.learning_rate == Some(*rate))
            .unwrap()
            .1;
        let training = json!({
            "step": 300, "metrics": {"eval/accuracy": accuracy}, "criterion": {"stop_when": "accuracy >= 0.2", "met": met}
        });
        StudyRun { training: Some(serde_json::from_value(training).unwrap()), ..run }
    };
    let index = index();
    StudyIndex { runs: index.runs.into_iter().map(trained).collect(), ..index }.write(out).unwrap();
}

#[test]
fn runs_that_train_to_a_criterion_are_compared_where_they_met_it_and_named_where_they_did_not() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path();
    to_a_criterion(out);
    let (html, md, _) = page(out);
    // Both rates of SFT met it: the one that forgets less is the best, not the one that came farther beyond it.
    let sft = row(&md, "sft");
    assert!(sft[1].starts_with("26.0 %") && md.contains("learning rate 5e-5 (of 2 tried)"), "{md}");
    let rft = row(&md, "rft");
    assert!(rft.iter().any(|cell| cell.contains("criterion not met by 1 of 2")), "{rft:?}");
    let said = "Where each run met accuracy >= 0.2 on validation examples (accuracy on test examples 26.0 %), at the learning rate that then \
                lost least, lost of prior knowledge:";
    assert!(md.contains(said) && md.contains("rft did not meet it with all seeds."), "{md}");
    assert!(md.contains("3 did not meet it within their steps: rft.lr-1e-5.seed-1"), "{md}");
    assert!(
        !md.contains("learned most") && md.contains("the one that loses least (by the questions shown here"),
        "{md}"
    );
    assert!(html.contains("criterion not met by 2 of 2"), "in the table of learning rates");
}
