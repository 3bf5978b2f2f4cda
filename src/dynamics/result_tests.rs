//! From lines of pairs to their summaries.

use super::fixtures::{dynamics, influence, pair, pairs};
use super::influence::Influence;
use super::kl_regression::kl_and_forgetting;
use super::on_policy::{OnPolicyResult, OnPolicySample};
use super::output_dir::{DYNAMICS_CSV, DYNAMICS_JSON, DYNAMICS_MD};
use super::pairing::Pair;
use super::result::{CheckpointResult, DynamicsResult};
use super::samples::{DynamicsSample, ResponseSource, SampleRole};
use super::table::notes;
use super::write::write;
use crate::forgetting::fixtures::model;
use crate::stats::{ClusterTotal, clustered_mean};

#[test]
fn a_regimes_cell_is_over_all_families_and_each_family_has_its_own() {
    let found = dynamics(&pairs());
    let cells = &found.checkpoints[0].summaries;
    let names: Vec<_> = cells.iter().map(|c| (c.regime.as_str(), c.prior.as_deref(), c.pairs, c.samples)).collect();
    let bare = [("bare", None, 20, 10), ("bare", Some("vqa"), 10, 10), ("bare", Some("ocr"), 10, 10)];
    assert_eq!(names[..3], bare);
    assert_eq!(found.checkpoints[0].overall().map(|c| c.regime.as_str()).collect::<Vec<_>>(), ["bare", "rollouts"]);
    assert!((cells[0].lbk.value - 5.5).abs() < 1e-12 && (cells[0].lbk_median - 5.5).abs() < 1e-12);
    assert!((cells[3].lbk.value - 0.55).abs() < 1e-12, "{:?}", cells[3].lbk);
    assert!((found.checkpoints[1].summaries[0].lbk.value - 2.75).abs() < 1e-12);
    assert!(cells[0].lbk.low > 3.0 && cells[0].lbk.low < 5.0 && cells[0].lbk.high > 6.0, "{:?}", cells[0].lbk);
    assert!((cells[0].harmed - 0.7).abs() < 1e-12);
    let check = &cells[0].check;
    assert!((check.both_ways.correlation - 1.0).abs() < 1e-12);
    assert!((check.both_ways.difference - 0.1 / (0.5_f64 * (1.0 + 1.21)).sqrt()).abs() < 1e-12);
    assert_eq!(check.gradients.difference, 0.0);
    // Each u has three tokens, and the divergences of the fixture are shares of LBK.
    for (found, share) in [(cells[0].lbk_per_token, 1.0 / 3.0), (cells[0].sgd_kl, 0.01), (cells[0].adam_kl, 0.003)] {
        assert!((found.value - share * 5.5).abs() < 1e-12 && found.low > 0.0, "{found:?}");
    }
    assert!((cells[0].adam_change.value - 0.001 * cells[0].change.value).abs() < 1e-12 && cells[0].adam_harmed == 0.7);
    assert!((cells[0].effect.value - 0.1).abs() < 1e-12);
    // u gets less likely by a nat from each sample to the next, and the change of v grows by 1: over three tokens, 3 for a nat per token.
    let fits = &found.checkpoints[0].perplexity_and_change;
    assert!(fits.len() == 3 && (fits[1].sgd.by_u.slope.value - 3.0).abs() < 1e-9, "{fits:?}");
    assert!((fits[1].sgd.by_v.spearman - 1.0).abs() < 1e-12 && fits[0].sgd.by_u.n == 40, "{fits:?}");
}

#[test]
fn all_pairs_of_one_training_sample_are_one_observation() {
    let once: Vec<Pair> =
        (0..8).map(|i| pair(0, ("a", "p"), (i, i), influence(f64::from(i as u32), 0.1 * i as f64))).collect();
    let repeated: Vec<Pair> = (0..24)
        .map(|i| pair(0, ("a", "p"), (i, i % 8), influence(f64::from(i as u32 % 8), 0.1 * (i % 8) as f64)))
        .collect();
    let of = |pairs: &[Pair]| {
        CheckpointResult::of(model("m"), &pairs.iter().collect::<Vec<_>>(), &["a"], &["p"]).summaries[0].clone()
    };
    let (one, three) = (of(&once), of(&repeated));
    assert_eq!((one.pairs, one.samples, three.pairs, three.samples), (8, 8, 24, 8));
    for (a, b) in [(one.lbk, three.lbk), (one.change, three.change)] {
        assert!((a.value - b.value).abs() < 1e-12 && (a.low - b.low).abs() < 1e-9 && (a.high - b.high).abs() < 1e-9);
    }
    let totals: Vec<ClusterTotal> = (0..8).map(|i| (0.1 * f64::from(i), 1.0)).collect();
    assert!((one.change.low - clustered_mean(&totals).mean.low).abs() < 1e-12);
    assert_eq!(one.prior.as_deref(), Some("p"), "a single family is named");
}

#[test]
fn a_single_sample_has_no_interval_and_a_certain_one_no_bound() {
    let only =
        [pair(0, ("a", "p"), (0, 0), influence(2.0, -0.1)), pair(0, ("a", "p"), (1, 0), influence(f64::NAN, 0.1))];
    let cell = CheckpointResult::of(model("m"), &only.iter().collect::<Vec<_>>(), &["a"], &["p"]).summaries[0].clone();
    assert_eq!((cell.lbk.value, cell.zero_gradient_pairs, cell.samples), (2.0, 1, 1));
    assert!(cell.lbk.low.is_nan() && cell.lbk.high.is_nan());
    let none = CheckpointResult::of(model("m"), &[], &["a"], &["p"]).summaries[0].clone();
    assert!(none.lbk.value.is_nan() && none.pairs == 0 && none.harmed.is_nan());
}

/// A response of four tokens of reasoning and an answer of one, under the base.
fn thinking() -> DynamicsSample {
    DynamicsSample {
        kind: SampleRole::Train,
        set: "thought".into(),
        index: 0,
        id: "x".into(),
        origin: ResponseSource::Checkpoint,
        token_ids: vec![1, 2, 3, 4, 5],
        nats: 4.0,
        reasoning_tokens: 4,
        reasoning_nats: 2.0,
    }
}

#[test]
fn everything_is_written_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = pairs();
    all[0].influence.lbk = f64::NAN;
    let line = serde_json::to_string(&all[0]).unwrap();
    let back: Pair = serde_json::from_str(&line).unwrap();
    assert!(back.influence.lbk.is_nan() && line.contains("\"lbk\":null"), "{line}");
    assert_eq!(serde_json::from_str::<Pair>(&serde_json::to_string(&all[1]).unwrap()).unwrap(), all[1]);
    let mut found = dynamics(&all);
    found.kl = Some(kl_and_forgetting(&[]).unwrap());
    let own = OnPolicySample { checkpoint: 1, model: "step-1".into(), own_nats: 1.5, sample: thinking() };
    let line = serde_json::to_string(&own).unwrap();
    assert_eq!(serde_json::from_str::<OnPolicySample>(&line).unwrap(), own, "{line}");
    found.checkpoints[1].on_policy = Some(OnPolicyResult::of(&[&own, &own], &found.bin_edges));
    write(dir.path(), &found).unwrap();
    let back = DynamicsResult::read(&dir.path().join(DYNAMICS_JSON)).unwrap();
    assert_eq!(serde_json::to_string(&back).unwrap(), serde_json::to_string(&found).unwrap());
    let csv = std::fs::read_to_string(dir.path().join(DYNAMICS_CSV)).unwrap();
    let columns = csv.lines().next().unwrap().split(',').count();
    assert!(csv.lines().all(|line| line.split(',').count() == columns), "{csv}");
    assert!(!csv.contains("NaN") && !csv.contains("inf"), "{csv}");
    assert!(csv.contains("step-1,sft,100,7,rollouts,ocr,LBK,10,10,0.27"), "{csv}");
    let md = std::fs::read_to_string(dir.path().join(DYNAMICS_MD)).unwrap();
    assert!(csv.contains("nats per token of the answer under the base,2,2,2,"), "{csv}");
    for expected in [
        "SGD (eta 0.001) and Adam (learning rate 0.0001)",
        "| rollouts | all | 20 (10) |",
        "| LBK | step-0 | step-1 |",
        "seed 7, data 3fa91c02",
        "A step of Adam at learning rate 0.0001:",
        "| step-1 | 2 | 10 | 2.23 | 0.800 (0.800 to 0.800) | 0.500 (0.500 to 0.500) | 2.00 (2.00 to 2.00) | 0.300 (0.300 to 0.300) |",
    ] {
        assert!(md.contains(expected), "{expected:?} is missing in:\n{md}");
    }
    assert!(!md.contains("NaN"), "{md}");
    std::fs::write(dir.path().join(DYNAMICS_JSON), "{\"format_version\": 99}").unwrap();
    let error = DynamicsResult::read(&dir.path().join(DYNAMICS_JSON)).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("format version 99"), "{error}");
}

#[test]
fn a_kernel_over_an_adapter_alone_is_told_from_that_over_a_whole_model() {
    let mut found = dynamics(&pairs());
    found.checkpoints[1].adapter = true;
    let said = notes(&found).join("\n");
    assert!(said.contains("only the adapter of step-1:") && said.contains("the whole models step-0"), "{said}");
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(json.matches("\"adapter\":true").count(), 1);
    let back: DynamicsResult = serde_json::from_str(&json).unwrap();
    assert!(!back.checkpoints[0].adapter && back.checkpoints[1].adapter);
    found.checkpoints[0].adapter = true;
    let said = notes(&found).join("\n");
    assert!(
        said.contains("only the adapter of step-0, step-1:") && said.contains("cannot be compared with those of whole"),
        "{said}"
    );
}

#[test]
fn steps_of_a_wrong_size_and_samples_too_few_are_told() {
    let mut all = pairs();
    assert!(notes(&dynamics(&all)).is_empty(), "{:?}", notes(&dynamics(&all)));
    let of_last = |all: &mut Vec<Pair>, change: fn(&mut Influence)| {
        all.iter_mut().filter(|p| p.checkpoint == 1 && p.regime == "bare").for_each(|p| change(&mut p.influence));
    };
    of_last(&mut all, |found| found.rounding = 0.06);
    let mut found = dynamics(&all);
    found.config.pairs = 64;
    let said = notes(&found).join("\n");
    assert!(said.contains("rounding to f32 is more than 5 %") && !said.contains("curvature"), "{said}");
    assert!(said.contains("for step-1 on bare (20 of 20 pairs); give a larger --eta than 0.001"), "{said}");
    assert!(said.contains("bare (10), rollouts (10)"), "{said}");
    found.config.eta = None;
    assert!(notes(&found).join("\n").contains("f32 resolves them with no size"), "{said}");
    of_last(&mut all, |found| (found.rounding, found.curvature) = (0.01, 0.5));
    let said = notes(&dynamics(&all)).join("\n");
    assert!(said.contains("curvature is more than 5 %") && !said.contains("rounding"), "{said}");
    assert!(said.contains("give a smaller --eta than 0.001"), "{said}");
    // With a single family of prior knowledge too, once a regime.
    let of_one: Vec<Pair> = all.iter().filter(|p| p.prior == "ocr").cloned().collect();
    let mut found = dynamics(&all);
    for (i, checkpoint) in found.checkpoints.iter_mut().enumerate() {
        let own: Vec<&Pair> = of_one.iter().filter(|p| p.checkpoint == i).collect();
        *checkpoint = CheckpointResult::of(checkpoint.model.clone(), &own, &["bare", "rollouts"], &["ocr"]);
    }
    assert_eq!(notes(&found).join("\n"), said.replace("20 of 20", "10 of 10"));
}
