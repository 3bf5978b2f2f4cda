//! Losses planted in made-up responses: what is found of them.

use super::fixtures::*;
use super::*;
use crate::eval::{Divergence, DivergenceStats, PromptRole};
use crate::sampling::ScoredResponse;
use crate::stats::{Interval, mcnemar, paired_proportions, share, student_t_quantile, student_t_two_sided};
use crate::tasks::Score;
use std::time::Instant;

#[test]
fn a_planted_loss_is_found_with_the_interval_of_its_table() {
    let found = tuned(vec![compared("bench", &paired_scores(200, 150, 30, 4))]);
    let all = &found.benchmarks[0].all;
    assert_eq!((all.n, all.lost, all.gained, all.clusters, all.method), (200, 30, 4, None, IntervalMethod::Mcnemar));
    assert_eq!(all.change, paired_proportions(200.0, 4.0, 30.0));
    assert!((all.change.value + 0.13).abs() < 1e-12 && all.change.high < -0.07 && all.change.low > -0.19);
    assert_eq!(all.p, mcnemar(4, 30));
    assert_eq!((all.base.value, all.tuned.value), (share(150, 200), share(124, 200)));
    assert!((all.retention.value - 124.0 / 150.0).abs() < 1e-12);
    assert!(all.retention.low > 0.74 && all.retention.high < 0.9 && all.retention.low < all.retention.value);
    assert_eq!(found.significant_losses, ["bench"]);
    assert_eq!(found.worst.as_ref().map(|w| w.name.as_str()), Some("bench"));
    // One benchmark is its family and the mean.
    let group = found.all.as_ref().unwrap();
    assert!((group.change.low - all.change.low).abs() < 1e-12 && group.p == all.p && group.retention == all.retention);
}

#[test]
fn a_model_against_itself_is_exactly_zero_everywhere() {
    let values = paired_scores(60, 40, 0, 0);
    let graded: Vec<(f64, f64)> = (0..50).map(|i| (f64::from(i % 5) / 5.0, f64::from(i % 5) / 5.0)).collect();
    let against_itself = |name: &str, values: &[(f64, f64)]| {
        let (base, mut again) = sides(values);
        again.about.key.model = base.about.key.model.clone();
        again.about.key.batch_size = Some(3);
        MeasuredBenchmark::of(title(name), &pair(base, again).unwrap(), &labels(values.len()), Vec::new()).unwrap()
    };
    let found = tuned(vec![against_itself("a", &values), against_itself("b", &graded)]);
    let zero = Interval { value: 0.0, low: 0.0, high: 0.0 };
    let one = Interval { value: 1.0, low: 1.0, high: 1.0 };
    for benchmark in &found.benchmarks {
        let all = &benchmark.all;
        assert_eq!((all.change, all.lenient_change, all.retention), (zero, zero, one));
        assert_eq!((all.p, benchmark.p_holm, all.gained, all.lost), (1.0, 1.0, 0, 0));
        assert_eq!((all.method, all.base), (IntervalMethod::Same, all.tuned));
    }
    let all = found.all.as_ref().unwrap();
    assert_eq!((all.change, all.lenient_change, all.retention, all.p), (zero, zero, one, 1.0));
    assert!(found.worst.is_none() && found.significant_losses.is_empty());
    let text = table(&found, true).text();
    assert!(text.contains("0.0 to 0.0") && !text.contains("-0.0") && !text.contains("+0.0"), "{text}");
}

#[test]
fn other_weights_that_answer_alike_are_zero_with_room_for_doubt() {
    let found = tuned(vec![compared("bench", &paired_scores(60, 40, 0, 0))]);
    let all = &found.benchmarks[0].all;
    assert_eq!((all.change.value, all.p, all.retention.value), (0.0, 1.0, 1.0));
    assert!(all.change.low < -0.05 && all.change.high > 0.05);
    assert!(all.retention.low < 0.95 && all.retention.high > 1.05);
}

#[test]
fn a_base_that_is_always_wrong_has_no_retention_and_no_table_shows_nan() {
    let found = tuned(vec![
        compared("nothing", &paired_scores(30, 0, 0, 5)),
        compared("single", &paired_scores(1, 1, 1, 0)),
        compared("one right", &paired_scores(40, 1, 0, 0)),
        compared("everything lost", &paired_scores(40, 40, 40, 0)),
    ]);
    assert!(found.benchmarks[0].all.retention.value.is_nan());
    assert_eq!(found.benchmarks[3].all.change.value, -1.0);
    let table = table(&found, true);
    assert_eq!(table.rows[0][8], "-");
    let forgetting = ForgettingResult::new(model("base"), vec![found]);
    for text in [table.text(), table.markdown(), rows(&forgetting), of_model(&forgetting.tuned[0], "##")] {
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
    let json = serde_json::to_string(&forgetting).unwrap();
    let back: ForgettingResult = serde_json::from_str(&json).unwrap();
    assert!(back.tuned[0].benchmarks[0].all.retention.value.is_nan());
    assert_eq!(serde_json::to_string(&back).unwrap(), json);
}

#[test]
fn graded_scores_are_tested_by_t_with_an_unseen_change_and_ties_do_not_count() {
    let values: Vec<(f64, f64)> = (0..40).map(|i| (0.8, if i % 4 == 0 { 0.3 } else { 0.8 })).collect();
    let found = tuned(vec![compared("docs", &values)]);
    let all = &found.benchmarks[0].all;
    // The variance of the paired t-test, and twice the mean square of the ten losses of 1/2 and one whole change.
    let (before, after): (Vec<f64>, Vec<f64>) = values.into_iter().unzip();
    let paired = crate::stats::paired_difference(&before, &after).unwrap().mean;
    let seen = ((paired.high - paired.value) / student_t_quantile(0.975, 39.0)).powi(2);
    let whole = seen + 2.0 * (10.0 * 0.25 + 1.0) / 11.0 / 1600.0;
    let degrees = 39.0 * (whole / seen).powi(2);
    assert_eq!((all.method, all.lost, all.gained), (IntervalMethod::T, 10, 0));
    near(all.change.low, paired.value - student_t_quantile(0.975, degrees) * whole.sqrt());
    near(all.p, student_t_two_sided(paired.value / whole.sqrt(), degrees));
}

#[test]
fn questions_of_one_image_count_as_one_observation() {
    let values: Vec<(f64, f64)> = (0..80).map(|i| (1.0, f64::from(u8::from(i / 8 % 3 > 0)))).collect();
    let (base, after) = sides(&values);
    let grouped = |i: usize| ExampleLabel { group: Some(format!("image-{}", i / 8)), ..ExampleLabel::default() };
    let labels: Vec<ExampleLabel> = (0..80).map(grouped).collect();
    let pairing = pair(base, after).unwrap();
    let by_image = tuned(vec![MeasuredBenchmark::of(title("a"), &pairing, &labels, Vec::new()).unwrap()]);
    let apart = tuned(vec![compared("a", &values)]);
    let (by_image, apart) = (&by_image.benchmarks[0].all, &apart.benchmarks[0].all);
    assert_eq!((by_image.clusters, by_image.method), (Some(10), IntervalMethod::ClusteredT));
    assert_eq!(by_image.change.value, apart.change.value);
    let width = |i: Interval| i.high - i.low;
    assert!(width(by_image.change) > 2.0 * width(apart.change), "{:?} {:?}", by_image.change, apart.change);
    assert!(width(by_image.retention) > 2.0 * width(apart.retention));
    assert!(by_image.p > apart.p);
    // One group that holds all is none.
    let same: Vec<ExampleLabel> = vec![ExampleLabel { group: Some("file.tsv".into()), ..ExampleLabel::default() }; 80];
    let ungrouped = tuned(vec![MeasuredBenchmark::of(title("a"), &pairing, &same, Vec::new()).unwrap()]);
    assert_eq!(ungrouped.benchmarks[0].all, *apart);
}

#[test]
fn several_samples_of_an_example_are_one_observation() {
    let double = |side: FinishedEval| {
        let mut outcomes = Vec::new();
        for outcome in side.outcomes {
            outcomes.push(outcome.clone());
            outcomes.push(ScoredResponse { sample: 1, ..outcome });
        }
        FinishedEval { outcomes, ..side }
    };
    let (base, after) = sides(&paired_scores(50, 40, 10, 0));
    let pairing = pair(double(base), double(after)).unwrap();
    let found = tuned(vec![MeasuredBenchmark::of(title("a"), &pairing, &labels(50), Vec::new()).unwrap()]);
    let all = &found.benchmarks[0].all;
    assert_eq!((all.n, all.clusters), (100, Some(50)));
}

#[test]
fn categories_are_compared_by_themselves() {
    let values = paired_scores(100, 100, 20, 0);
    let (base, after) = sides(&values);
    let of = |i: usize| ExampleLabel {
        category: Some(if i < 40 { "text" } else { "scene" }.into()),
        ..ExampleLabel::default()
    };
    let labels: Vec<ExampleLabel> = (0..100).map(of).collect();
    let found =
        tuned(vec![MeasuredBenchmark::of(title("a"), &pair(base, after).unwrap(), &labels, Vec::new()).unwrap()]);
    let parts = &found.benchmarks[0].categories;
    let seen: Vec<(&str, usize, f64)> =
        parts.iter().map(|p| (p.name.as_str(), p.change.n, p.change.change.value)).collect();
    assert_eq!(seen, [("scene", 60, 0.0), ("text", 40, -0.5)]);
    assert_eq!(table(&found, true).rows.len(), 3);
    assert_eq!(table(&found, false).rows.len(), 1);
}

#[test]
fn broken_format_is_told_apart_from_wrong_answers() {
    let (base, mut after) = sides(&paired_scores(20, 16, 6, 0));
    for outcome in &mut after.outcomes[..4] {
        // Right but for its form.
        outcome.score = Score { lenient: 1.0, parsed: false, well_formed: false, ..outcome.score.clone() };
        outcome.tokens = 30;
    }
    let found =
        tuned(vec![MeasuredBenchmark::of(title("a"), &pair(base, after).unwrap(), &labels(20), Vec::new()).unwrap()]);
    let all = &found.benchmarks[0].all;
    assert!((all.change.value - -0.3).abs() < 1e-12 && (all.lenient_change.value - -0.1).abs() < 1e-12);
    assert_eq!((all.base.unparsed, all.tuned.unparsed, all.tuned.malformed), (0.0, 0.2, 0.2));
    assert!((all.tuned.wrong - 0.3).abs() < 1e-12, "two lost and four never known");
    assert_eq!((all.base.tokens, all.tuned.tokens), (10.0, 14.0));
}

#[test]
fn what_is_not_the_same_on_both_sides_is_refused_by_name() {
    let values = paired_scores(10, 5, 1, 0);
    let refused = |change: &dyn Fn(&mut FinishedEval), expected: &[&str]| {
        let (base, mut after) = sides(&values);
        change(&mut after);
        let error = pair(base, after).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        expected.iter().for_each(|text| assert!(error.to_string().contains(text), "{text:?}: {error}"));
    };
    refused(&|e| e.outcomes[3].id = "other".into(), &["dir-b", "dir-t", "e3"]);
    refused(&|e| e.about.key.data = "x".repeat(64), &["data:", "same data"]);
    refused(&|e| e.about.key.prompt = "x".repeat(64), &["prompt:", "copy these files"]);
    refused(&|e| *e.about.key.scorers.get_mut("exact").unwrap() = 2, &["scorers", "1 -> 2", "different scorers"]);
    refused(&|e| e.about.key.sampling.max_new_tokens = 99, &["sampling", "same settings"]);
    refused(&|e| e.outcomes[3] = e.outcomes[2].clone(), &["two responses to e2"]);
    refused(&|e| e.outcomes.truncate(9), &["e9", "no partner"]);
    // The order does not matter.
    let (base, mut after) = sides(&values);
    after.outcomes.reverse();
    let turned = pair(base, after).unwrap();
    assert!(turned.pairs.iter().all(|(a, b)| a.id == b.id));
}

/// A benchmark of as many questions as pictures, each with the digest of its picture; 0 for text alone.
struct Pictured(&'static str, Vec<crate::data::Record>, Vec<u8>);

impl crate::tasks::Task for Pictured {
    fn name(&self) -> &str {
        self.0
    }

    fn len(&self) -> usize {
        self.1.len()
    }

    fn example(&self, i: usize) -> crate::Result<std::borrow::Cow<'_, crate::data::Record>> {
        Ok(std::borrow::Cow::Borrowed(&self.1[i]))
    }

    fn images(&self, _: usize) -> crate::Result<Vec<image::RgbImage>> {
        Ok(Vec::new())
    }

    fn image_digests(&self, i: usize) -> crate::Result<Option<Vec<[u8; 32]>>> {
        Ok(Some(if self.2[i] == 0 { Vec::new() } else { vec![[self.2[i]; 32]] }))
    }

    fn score(&self, _: usize, _: &str) -> Score {
        outcome(0, 0.0).score
    }
}

#[test]
fn without_an_image_of_its_own_a_question_is_known_in_the_other_style_by_its_row() {
    let record = |id: usize| -> crate::data::Record {
        serde_json::from_value(serde_json::json!({
            "file_name": "", "id": id.to_string(), "task": "exact", "messages": [], "images": [], "answer": "a", "source": "", "seed": 0
        }))
        .unwrap()
    };
    let shares = |name, pictures: &[u8]| -> Vec<Vec<String>> {
        let task = Pictured(name, (0..pictures.len()).map(record).collect(), pictures.to_vec());
        ExampleLabel::of_benchmark(&task, pictures.len()).unwrap().into_iter().map(|label| label.shares).collect()
    };
    let rows = [vec!["words, question 0".to_string()], vec!["words, question 1".to_string()]];
    assert_eq!(shares("words-direct", &[0, 0]), rows);
    assert_eq!(shares("words-think", &[0, 0]), rows);
    // The same blank picture for all.
    assert_eq!(shares("words-think", &[9, 9]), rows);
    assert_eq!((shares("words", &[0, 0]), shares("words", &[9, 9])), (vec![Vec::new(); 2], vec![Vec::new(); 2]));
    let own = shares("scenes-direct", &[1, 2]);
    assert!(own == shares("scenes-think", &[1, 2]) && own[0] == [crate::io::hex(&[1; 32])] && own[0] != own[1]);
    assert_eq!(shares("scenes", &[7]), [[crate::io::hex(&[7; 32])]]);
}

#[test]
fn a_hundred_thousand_responses_take_seconds() {
    let values: Vec<(f64, f64)> =
        (0..100_000).map(|i| (f64::from(i % 11) / 10.0, f64::from(i * 7 % 13 % 11) / 10.0)).collect();
    let started = Instant::now();
    let found = tuned(vec![compared("large", &values)]);
    let took = started.elapsed();
    assert!(found.benchmarks[0].all.retention.low.is_finite());
    assert!(took.as_secs() < 10, "{took:?}");
}

#[test]
fn everything_is_written_as_json_csv_and_markdown() {
    let dir = tempfile::tempdir().unwrap();
    let interval = Interval { value: 0.25, low: 0.2, high: 0.3 };
    let direction = DivergenceStats { tokens: 100, unfinished: 1, per_token: interval, per_response: interval };
    let divergence = Divergence {
        prompts_of: NEW_TASK.into(),
        role: PromptRole::NewTask,
        prompts: 8,
        seed: 3,
        forward: direction,
        reverse: direction,
        own: None,
    };
    let run = RunRef {
        name: "sft".into(),
        dir: "/runs/sft".into(),
        step: Some(40),
        seed: Some(7),
        data_hash: "3fa91c02aa".into(),
        model_hash: "b".into(),
    };
    let model_of_run = ModelRef { run: Some(run), ..model("sft") };
    let one = TunedResult::of(
        model_of_run,
        Some(compared(NEW_TASK, &paired_scores(40, 2, 0, 30))),
        vec![
            compared("a, quoted \"name\"", &paired_scores(50, 40, 9, 0)),
            compared("b|c", &paired_scores(50, 40, 0, 1)),
        ],
        vec![divergence],
    );
    let found = ForgettingResult::new(model("base"), vec![one]);
    write(dir.path(), &found).unwrap();
    let back = ForgettingResult::read(&dir.path().join(FORGETTING_JSON)).unwrap();
    assert_eq!(serde_json::to_string(&back).unwrap(), serde_json::to_string(&found).unwrap());
    let csv = std::fs::read_to_string(dir.path().join(FORGETTING_CSV)).unwrap();
    let columns = CSV_HEADER.split(',').count();
    assert!(csv.starts_with(CSV_HEADER) && csv.contains("\"a, quoted \"\"name\"\"\""));
    let plain = csv.lines().filter(|line| !line.contains('"'));
    assert!(plain.clone().count() > 20 && plain.clone().all(|line| line.split(',').count() == columns), "{csv}");
    assert!(
        csv.contains("KL(base || tuned), nats per token") && csv.contains(",sft,40,7,3fa91c02aa,new-task,"),
        "{csv}"
    );
    let md = std::fs::read_to_string(dir.path().join(FORGETTING_MD)).unwrap();
    for expected in
        ["seed 7, data 3fa91c02", "new task: 5.0 % to 80.0 % right", "b\\|c", "KL(base", "0.250 (0.200 to 0.300)"]
    {
        assert!(md.contains(expected), "{expected:?} is missing in:\n{md}");
    }
    std::fs::write(dir.path().join(FORGETTING_JSON), "{\"format_version\": 99}").unwrap();
    let error = ForgettingResult::read(&dir.path().join(FORGETTING_JSON)).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("format version 99"), "{error}");
}

#[test]
fn a_model_knows_the_run_that_its_directory_lies_in() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("sft");
    std::fs::create_dir_all(run.join("checkpoints/step-00000120")).unwrap();
    std::fs::create_dir_all(run.join("model")).unwrap();
    let about = r#"{"seed": 7, "data_hash": "3fa91c02ffff", "model_hash": "base"}"#;
    std::fs::write(run.join("run.json"), about).unwrap();
    std::fs::write(run.join("finished.json"), r#"{"step": 300, "metrics": {}}"#).unwrap();
    let checkpoint = ModelRef::of(&run.join("checkpoints/step-00000120"), "h");
    assert_eq!((checkpoint.name.as_str(), checkpoint.run.as_ref().unwrap().step), ("sft/step-00000120", Some(120)));
    let last = ModelRef::of(&run.join("model"), "h");
    assert_eq!((last.name.as_str(), last.run.as_ref().unwrap().step), ("sft", Some(300)));
    assert_eq!(last.provenance(), "seed 7, data 3fa91c02");
    std::fs::write(run.join("run.json"), about.replace("3fa91c02ffff", "3fa91c02ffff+77aa00bbcccc")).unwrap();
    assert_eq!(ModelRef::of(&run.join("model"), "h").provenance(), "seed 7, data 3fa91c02+77aa00bb");
    let alone = ModelRef::of(dir.path(), "h");
    assert!(alone.run.is_none() && alone.provenance().is_empty());
}
