//! A study made up in code: two regimes, each at two learning rates with two seeds.

use super::*;
use crate::dynamics::DYNAMICS_JSON;
use crate::dynamics::fixtures::{dynamics, pairs};
use crate::forgetting::{ForgettingResult, ModelRef};
use crate::io::files;
use crate::report::tests::prior_knowledge::{base, tuned};
use crate::report::tests::{dataset, evaluation, example_hashes, train_run};
use crate::report::{STUDY_JSON, StudyIndex, StudyRun, study_index, write};
use std::fs;
use std::path::{Path, PathBuf};

/// What a run has learned (of 100 answers, 4 are right before) and lost (of 200 each, 160 are right before; 1, 2 and 3 are gained).
pub(super) type End = (usize, [usize; 3]);

/// Regime, learning rate, seed, end.
pub(super) const RUNS: [(&str, f64, u64, End); 8] = [
    ("rft", 1e-5, 1, (10, [1, 2, 3])),
    ("rft", 1e-5, 2, (12, [1, 2, 3])),
    ("rft", 5e-5, 1, (36, [3, 4, 5])),
    ("rft", 5e-5, 2, (40, [6, 8, 10])),
    ("sft", 5e-5, 1, (20, [10, 10, 10])),
    ("sft", 5e-5, 2, (24, [12, 12, 12])),
    ("sft", 2e-4, 1, (56, [66, 20, 10])),
    ("sft", 2e-4, 2, (60, [90, 26, 10])),
];

pub(super) fn name(regime: &str, lr: f64, seed: u64) -> String {
    format!("{regime}.lr-{lr:e}.seed-{seed}")
}

pub(super) fn index() -> StudyIndex {
    let regime = |name: &str, about: &str| study_index::RegimeEntry { name: name.into(), about: about.into() };
    let regimes = vec![regime("rft", "GRPO on its own rollouts"), regime("sft", "SFT on the <bare> answer")];
    let run = |&(regime, lr, seed, _): &(&str, f64, u64, End)| {
        let name = name(regime, lr, seed);
        let (dir, comparison) = (Some(PathBuf::from("runs").join(&name)), PathBuf::from("compare").join(&name));
        StudyRun {
            name,
            regime: regime.into(),
            learning_rate: Some(lr),
            seed,
            dir,
            comparison,
            data: Some("puzzles".into()),
            new_task: Some("bare".into()),
            training: None,
        }
    };
    StudyIndex::new("Made up", "base", regimes, RUNS.iter().map(run).collect(), Vec::new(), vec!["dynamics".into()])
}

/// The hash that a made-up evaluation in this directory has.
pub(super) fn hash(dir: &Path) -> String {
    format!("{:064x}", dir.display().to_string().len())
}

pub(super) fn base_dir(out: &Path) -> PathBuf {
    out.join("base-results/new-task")
}

/// A model of a run: a checkpoint, or the final model.
pub(super) fn model(out: &Path, run: &(&str, f64, u64, End), step: u64, last: bool) -> TunedResult {
    let (regime, lr, seed, (learned, lost)) = *run;
    let name = name(regime, lr, seed);
    let share = |n: usize| n * step as usize / 300;
    let mut one = tuned(&name, step, share(learned), lost.map(share));
    let dir = out.join("runs").join(&name);
    let model = &mut one.model;
    model.dir =
        dir.join(if last { "model".to_string() } else { format!("checkpoints/step-{step}") }).display().to_string();
    if let Some(made_by) = &mut model.run {
        (made_by.dir, made_by.seed) = (dir.display().to_string(), Some(seed));
        let replayed = if regime == "sft" { "+replayed-data-hash" } else { "" };
        made_by.data_hash = format!("{regime}{seed}-data-hash{replayed}");
        made_by.model_hash = hash(&base_dir(out));
    }
    if let Some(new_task) = &mut one.new_task {
        new_task.data = "d".into();
    }
    one
}

fn compare(out: &Path, run: &(&str, f64, u64, End), models: Vec<TunedResult>) {
    let base = ModelRef { hash: hash(&base_dir(out)), ..base() };
    crate::forgetting::write(
        &out.join("compare").join(name(run.0, run.1, run.2)),
        &ForgettingResult::new(base, models),
    )
    .unwrap();
}

/// All of it, done.
pub(super) fn study(out: &Path) {
    index().write(out).unwrap();
    for run in &RUNS {
        train_run(&out.join("runs").join(name(run.0, run.1, run.2)), run.0, run.1, 300, true);
        let checkpoint = |step| model(out, run, step, false);
        compare(out, run, vec![checkpoint(100), checkpoint(200), checkpoint(300), model(out, run, 300, true)]);
    }
    let mut found = dynamics(&pairs());
    found.base.hash = hash(&base_dir(out));
    // The set that all runs are given; RFT learns its own responses to it.
    found.regimes[0].path = "/data/puzzles".into();
    fs::create_dir_all(out.join("dynamics")).unwrap();
    files::write_json(&out.join("dynamics").join(DYNAMICS_JSON), &found).unwrap();
}

pub(super) fn page(out: &Path) -> (String, String, String) {
    let file = out.join("pages/report.html");
    write(&[out.to_path_buf()], "A title", &file).unwrap();
    let read = |extension: &str| fs::read_to_string(file.with_extension(extension)).unwrap();
    (read("html"), read("md"), read("study.csv"))
}

/// The row of the Markdown's first table that begins with `name`, in cells.
pub(super) fn row(md: &str, name: &str) -> Vec<String> {
    let line = md.lines().find(|line| line.starts_with(&format!("| {name}"))).unwrap_or_else(|| panic!("{name}: {md}"));
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_string()).collect()
}

#[test]
fn the_page_begins_with_the_results_of_the_study() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path();
    study(out);
    let (html, md, _) = page(out);
    let at = |text: &str| html.find(text).unwrap_or_else(|| panic!("{text:?} is missing"));
    let order = [
        ">Made up: Results</h2>",
        "Each regime is a way to fine-tune the same base",
        "<b>rft</b> GRPO on its own rollouts",
        "<b>sft</b> SFT on the",
        "<h3>Points lost against learning rate</h3>",
        "<h3>Points lost against accuracy gained</h3>",
        "<h3>Points lost by family</h3>",
        "<b>Learned.</b>",
        "<b>Lost.</b>",
        "<b>Lost at equal accuracy.</b>",
        ">Tables</h2>",
        "Learned and lost</h3>",
        "Learning rates</h3>",
        "apart\">Points lost by family",
        "At equal accuracy on the new task</h3>",
        "Data, learning rate or method</h3>",
        "Form of the answers and distance from the base",
        "Points lost against KL(base || tuned)",
        "<b>Measured on.</b>",
        "<h2 id=\"runs\"",
        "<h2 id=\"prior-knowledge-1\"",
        "<h2 id=\"training\"",
    ];
    assert!(order.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{:?}", order.map(at));
    assert!(!html.contains("<bare>") && html.contains("&lt;bare&gt;") && !html.contains("NaN"));
    let rft = row(&md, "rft");
    let expected = [
        ("rft (GRPO on its own rollouts)", 0),
        // 40 and 44 of 100, of which 40 are the same: 2 points times t(0.975, 1) = 12.706 on either side over seeds alone.
        ("42.0 % (31.2 to 52.8)", 1),
        // -6 and -18 of 600.
        ("2.0 (-2.6 to 6.6)", 2),
        // Hallucination: -2 and -7 of 200.
        ("2.3 (hallucination)", 3),
        ("5e-5 (of 2 tried)", 5),
    ];
    for (text, column) in expected {
        assert!(rft[column].starts_with(text), "{text:?}: {rft:?}");
    }
    let sft = row(&md, "sft");
    assert!(sft[1].starts_with("62.0 %") && sft[2].starts_with("17.5 ("), "{sft:?}");
    assert!(row(&md, "base")[1].starts_with("4.0 %"));
    // All regimes have the same steps and seeds: no columns, but words.
    assert!(rft.len() == 6 && md.contains("The same in all rows: steps 300; seeds 2."), "{md}");
    let distances = &md[md.find("### Form of the answers").unwrap()..];
    let (rft, sft) = (row(distances, "rft"), row(distances, "sft"));
    // Partial credit is not known; format loss and KL are the same. A regime that learns its own responses has no perplexity.
    assert!(rft.len() == 2 && rft[1] == "\u{2013}", "{rft:?}");
    assert!(sft.last().unwrap().parse::<f64>().is_ok_and(|perplexity| perplexity > 1.0), "{sft:?}");
    assert!(distances.contains("The same in all rows: format loss 0.0; KL new task 0.3000 ("), "{distances}");
    // In one sentence each.
    for said in [
        "- **rft**: GRPO on its own rollouts, learning rate 5e-5: 42.0 % of new-task questions (31.2 to 52.8), no clear loss: 2.0 points (-2.6 to 6.6)",
        "- **sft**: SFT on the <bare> answer, learning rate 2e-4: 62.0 % of new-task questions",
        "over 2 seeds and the test examples.",
    ] {
        assert!(md.contains(said), "{said:?}: {md}");
    }
    // The intervals of two seeds are wide, so no order is claimed.
    assert!(
        md.contains("Which of them learned most is undecided") && md.contains("Which of them lost least is undecided"),
        "{md}"
    );
    // The highest that all four runs at the best learning rates reach: 40 %.
    assert!(md.contains("At 40.0 % accuracy on the new task"), "{md}");
    for source in [
        "Seeds: 1, 2",
        "base: Qwen2.5-VL",
        "rft rft1-data-ha rft2-data-ha",
        "sft sft1-data-ha+replayed-dat sft2-data-ha+replayed-dat",
        "new task: bare d",
        "refcoco_val ddd",
    ] {
        assert_eq!((md.matches(source).count(), html.matches(source).count()), (1, 1), "{source:?}");
    }
    // A curve for each regime over its two rates, every point with its interval.
    let between = |from: &str, to: &str| &html[at(from)..at(to)];
    let count = |text: &str, what: &str| text.matches(what).count();
    let rates = between("<h3>Points lost against learning rate</h3>", "<h3>Points lost against accuracy gained</h3>");
    assert_eq!((count(rates, "class=\"line\""), count(rates, "class=\"interval\"")), (2, 4), "{rates}");
    // Each regime with an interval in both directions, the base, and the four runs at the best rates.
    let gained = between("<h3>Points lost against accuracy gained</h3>", "<h3>Points lost by family</h3>");
    assert_eq!((count(gained, "class=\"raw\""), count(gained, "class=\"interval\"")), (4, 4), "{gained}");
    assert!(gained.contains("rft\nnew-task accuracy: 42.0 % (95 % interval 31.2 % to 52.8 %)\nprior knowledge lost (points): 2.0 (95 % interval -2.6 to 6.6)"), "{gained}");
    assert!(gained.contains(">base</text>"), "{gained}");
    let forest = between("<h3>Points lost by family</h3>", "<b>Learned.</b>");
    assert_eq!(count(forest, "class=\"interval\""), 8, "two regimes, three families and all: {forest}");
    assert!(rates.contains("peak learning rate: 5e-5") && rates.contains(">1e-5</text>"), "{rates}");
    assert!(md.contains("Data and method cannot be told apart among these regimes"), "{md}");
    let effect = row(&md[md.find("### Data, learning rate or method").unwrap()..], "regime: sft");
    assert!(effect[1].starts_with('+'), "{effect:?}");
    assert!(html.contains(" loss\" style="), "tinted cells");
    assert!(!html.contains("not finished"));
}

/// SFT at its best learning rate, started from other models than the base: each seed from the one of this hash.
fn continue_from(out: &Path, starts: [String; 2]) {
    for (run, start) in RUNS[6..].iter().zip(starts) {
        let mut models = vec![model(out, run, 100, false), model(out, run, 200, false), model(out, run, 300, true)];
        models.iter_mut().filter_map(|one| one.model.run.as_mut()).for_each(|run| run.model_hash = start.clone());
        compare(out, run, models);
    }
}

#[test]
fn the_trajectory_of_a_continued_run_includes_the_run_that_it_continues() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path();
    study(out);
    continue_from(out, [&RUNS[2], &RUNS[3]].map(|run| model(out, run, 300, true).model.hash));
    let (html, _, csv) = page(out);
    let at = |regime: &str| {
        let begin = format!("{regime},,1 2,,false,change at new-task accuracy 0.2000,all,");
        let line = csv.lines().find_map(|line| line.strip_prefix(begin.as_str()));
        line.unwrap_or_else(|| panic!("{begin}: {csv}")).split(',').next().unwrap().to_string()
    };
    assert_eq!(at("sft,2e-4"), at("rft,5e-5"));
    // The chart draws the same: base, three models of RFT, three of SFT.
    let dots = |html: &str| html.matches("fill-opacity=\"0.45\"><title>sft.lr-2e-4.seed-1\n").count();
    assert_eq!(dots(&html), 7);

    // From a model that no run of the study has measured, nothing is known below the first point.
    continue_from(out, ["elsewhere", "elsewhere"].map(String::from));
    let (html, md, csv) = page(out);
    assert_eq!(dots(&html), 3);
    let matched = &md[md.find("### At equal accuracy").unwrap()..];
    let sft = row(matched, "sft");
    // At 22 % and 24 % after 100 steps.
    assert_eq!(sft[1..3], ["starts above", "starts above"], "{sft:?}");
    // RFT goes from the base to 16 % and 17 % without a stop.
    assert_eq!(row(matched, "rft")[1], "before the first checkpoint");
    assert!(
        sft[3].starts_with(|c: char| c.is_ascii_digit())
            && !csv.contains("sft,2e-4,,1 2,,false,change at new-task accuracy 0.2000"),
        "{sft:?}"
    );
}

#[test]
fn the_csv_has_every_model_and_the_means_over_seeds() {
    let dir = tempfile::tempdir().unwrap();
    study(dir.path());
    let (_, _, csv) = page(dir.path());
    assert!(csv.starts_with(CSV_HEADER));
    let width = CSV_HEADER.split(',').count();
    assert!(csv.lines().all(|line| line.split(',').count() == width), "{csv}");
    let value = |begin: &str| -> [f64; 3] {
        let line = csv.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("{begin}: {csv}"));
        let cells: Vec<&str> = line.split(',').collect();
        [8, 9, 10].map(|i| cells[i].parse().unwrap_or(f64::NAN))
    };
    let near = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-9, "{got} is not {expected}");
    let [mean, low, high] = value("rft,5e-5,,1 2,,true,new-task accuracy,,");
    near(mean, 0.42);
    // Seeds and questions together, computed by numpy and scipy from the formula.
    near(low, 0.311_897_206_730_300_14);
    near(high, 0.528_102_793_269_7);
    near(value("sft,2e-4,,1 2,,true,change,all,")[0], -0.175);
    near(value("sft,2e-4,2,2,300,true,change,grounding,")[0], -89.0 / 200.0);
    near(value("sft,2e-4,1,1,100,false,new-task accuracy,,")[0], 0.22);
    near(value("base,,,,,true,score,all,")[0], 0.8);
    // The final model and the last checkpoint are the same weights: one row.
    assert_eq!(
        csv.lines().filter(|line| line.starts_with("rft,5e-5,1,1,300,") && line.contains("new-task accuracy")).count(),
        1
    );
    // RFT's seeds pass 40 % at their end (-6 of 600), and 9 tenths of the way from step 200 (30 %, -10 of 600) on (-18 of 600 at 44 %).
    let [change, ..] = value("rft,5e-5,,1 2,,false,change at new-task accuracy 0.4000,all,");
    assert!(change < -0.01 && change > -0.03, "{change}");
    near(value("rft,5e-5,,1 2,,false,share of seeds at new-task accuracy 0.6000,,")[0], 0.0);
}

#[test]
fn partial_credit_is_read_from_the_stored_evaluations() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path();
    study(out);
    let data = out.join("puzzles");
    dataset(&data, 12);
    evaluation(&base_dir(out), Path::new("base"), &data, 12, |_| false);
    let on_puzzles = |mut tuned: TunedResult| {
        if let Some(new_task) = &mut tuned.new_task {
            new_task.data = example_hashes(&data).0;
        }
        tuned
    };
    let run = &RUNS[2];
    let own = out.join("compare").join(name(run.0, run.1, run.2)).join("tuned/model/new-task");
    // Of those about photos (even numbers) a half right, the rest of them but for two tiles; the others all.
    evaluation(&own, Path::new("model"), &data, 12, |i| i % 4 != 2);
    let last = model(out, run, 300, true);
    let last = TunedResult { model: ModelRef { hash: hash(&own), ..last.model.clone() }, ..last };
    compare(out, run, vec![on_puzzles(last)]);
    for other in RUNS.iter().filter(|other| other.1 != run.1 || other.0 != run.0) {
        compare(out, other, vec![on_puzzles(model(out, other, 300, true))]);
    }
    fs::remove_dir_all(out.join("compare").join(name("rft", 5e-5, 2))).unwrap();
    let (_, md, csv) = page(out);
    let distances = &md[md.find("### Form of the answers").unwrap()..];
    let credit = |name: &str| row(distances, name)[1].clone();
    assert!(distances.contains("| tiles in place |") && credit("rft").starts_with("87.5 %"), "{distances}");
    assert!(credit("base").contains(" to ") && credit("sft") == "\u{2013}", "{distances}");
    let by_kind = &md[md.find("### New task by category").unwrap()..];
    let rft = row(by_kind, "rft");
    for (cell, expected) in [(1, "50.0 %"), (2, "75.0 %"), (3, "100.0 %"), (4, "100.0 %")] {
        assert!(rft[cell].starts_with(expected), "{rft:?}");
    }
    assert!(row(by_kind, "base")[1].starts_with("0.0 %") && row(by_kind, "sft")[1] == "\u{2013}");
    assert!(csv.contains(",partial credit,photo,0.75,") && csv.contains(",new-task accuracy,scene,1,"), "{csv}");
}

#[test]
fn a_study_under_way_shows_what_is_there_and_names_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path();
    study(out);
    let gone = |run: &(&str, f64, u64, End), part: &str| {
        fs::remove_dir_all(out.join(part).join(name(run.0, run.1, run.2))).unwrap()
    };
    // One seed of RFT's best rate is left, one run of it is compared at a checkpoint; SFT is not compared at all.
    compare(out, &RUNS[3], vec![model(out, &RUNS[3], 100, false)]);
    fs::remove_file(out.join("runs").join(name("rft", 5e-5, 2)).join("finished.json")).unwrap();
    RUNS[4..].iter().for_each(|run| gone(run, "compare"));
    RUNS[6..].iter().for_each(|run| gone(run, "runs"));
    fs::remove_dir_all(out.join("dynamics")).unwrap();
    let (html, md, csv) = page(out);
    for expected in [
        "The study is not finished: 5 of 8 runs are not fully measured",
        "rft.lr-5e-5.seed-2: training stopped at step 300, compared with the base up to step 100",
        "sft.lr-5e-5.seed-1: trained (300 steps), not compared with the base to the end",
        "sft.lr-2e-4.seed-1: not begun",
        "One seed only: rft",
        "0 of 4 runs measured",
        "Not measured yet: sft.",
        "over test examples; one seed each.",
        "No two regimes gained 10 points",
    ] {
        assert!(html.contains(expected), "{expected:?} is missing");
    }
    let rft = row(&md, "rft");
    // Every interval is over test examples alone, which is said once.
    assert!(
        rft.last().unwrap() == "1 (of 2)" && rft[1].starts_with("40.0 %") && !rft[1].contains('\u{2020}'),
        "{rft:?}"
    );
    assert!(md.contains("Intervals (95 %) are over test examples alone"), "{md}");
    assert_eq!(row(&md, "sft")[1], "\u{2013} (0 of 4 runs measured)");
    assert!(!csv.contains("\nsft") && !html.contains("NaN"));

    // Nothing but the index.
    let empty = tempfile::tempdir().unwrap();
    index().write(empty.path()).unwrap();
    let (html, md, csv) = page(empty.path());
    assert!(html.contains("Nothing is measured yet.") && html.contains("8 of 8 runs are not fully measured"), "{html}");
    assert!(md.contains("Nothing is measured yet.") && csv.lines().count() == 1);
}

#[test]
fn models_compared_on_other_benchmarks_are_left_out_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path();
    study(out);
    let mut other = model(out, &RUNS[7], 300, true);
    other.benchmarks[0].data = "another".into();
    compare(out, &RUNS[7], vec![other]);
    let (html, md, _) = page(out);
    assert!(html.contains("sft.lr-2e-4.seed-2: 1 of its models are compared with another base or on other benchmarks"));
    assert!(row(&md, "sft")[1].starts_with("60.0 %"), "{:?}", row(&md, "sft"));
}

#[test]
fn a_broken_index_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    study(dir.path());
    for (text, said) in [("{", "study.json"), (r#"{"format_version":2}"#, "has format version 2, this program reads 1")]
    {
        fs::write(dir.path().join(STUDY_JSON), text).unwrap();
        let error = write(&[dir.path().to_path_buf()], "x", &dir.path().join("report.html")).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(said), "{error}");
        assert!(error.to_string().contains("jigsaw study"), "{error}");
    }
}

/// RFT is measured on `thought` and SFT on `bare`, which are the same puzzles or not.
fn asked_differently(out: &Path, same: bool) {
    study(out);
    let mut index = index();
    let of = |regime: &str| if regime == "rft" { "thought" } else { "bare" };
    for run in &mut index.runs {
        run.new_task = Some(of(&run.regime).into());
    }
    if same {
        index.same_puzzles = vec![vec!["bare".into(), "thought".into()]];
    }
    index.write(out).unwrap();
    for run in &RUNS {
        let mut models = vec![model(out, run, 100, false), model(out, run, 300, true)];
        let new_tasks = models.iter_mut().filter_map(|one| one.new_task.as_mut());
        new_tasks.for_each(|new_task| new_task.data = format!("{:064x}", of(run.0).len()));
        compare(out, run, models);
    }
}

#[test]
fn the_same_puzzles_in_other_words_are_compared_and_named_by_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path();
    asked_differently(out, true);
    let (html, md, csv) = page(out);
    for expected in [
        "The new task is the same puzzles in 2 wordings: thought (rft) and bare (sft).",
        "(base 4.0 % on thought and 4.0 % on bare)",
        "**Learned.** Which of them learned most is undecided",
        "At 40.0 % accuracy on the new task",
        "| base (on thought) |",
        "new task: thought 000000000000, bare 000000000000",
    ] {
        assert!(md.contains(expected), "{expected:?}: {md}");
    }
    assert_eq!(md.matches("**Learned.**").count(), 1);
    assert!(html.contains(">base (thought)<") && html.contains(">base (bare)<"), "both in one plane");
    assert_eq!(html.matches("<h2 id=\"prior-knowledge-").count(), 1);
    assert_eq!(md.matches("## Prior knowledge: base").count(), 1);
    // The runs at equal accuracy, of both wordings in one table.
    let matched = &html[html.rfind("At equal accuracy on the new task</h3>").unwrap()..];
    let rows = &matched[..matched.find("</table>").unwrap()];
    assert!(rows.contains(">rft.lr-5e-5.seed-1</th>") && rows.contains(">sft.lr-2e-4.seed-1</th>"), "{rows}");
    assert!(csv.contains("sft,2e-4,,1 2,,false,change at new-task accuracy 0.4000,all,"));
}

#[test]
fn regimes_with_other_puzzles_are_not_ranked_on_them() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path();
    asked_differently(out, false);
    let (html, md, csv) = page(out);
    for expected in [
        "42.0 % of new-task questions (thought) (31.2 to 52.8)",
        "62.0 % of new-task questions (bare) (",
        "The regimes have 2 different new tasks: thought (rft); bare (sft). Accuracies on different puzzles are not compared.",
    ] {
        assert!(md.contains(expected), "{expected:?}: {md}");
    }
    assert!(!md.contains("learned most") && !md.contains("most was learned"), "{md}");
    // What each has lost is measured on the same benchmarks.
    assert!(md.contains("Which of them lost least is undecided"), "{md}");
    assert_eq!(html.matches("<h2 id=\"prior-knowledge-").count(), 2);
    // RFT gets to 44 %, SFT further, each on its own puzzles.
    assert!(csv.contains("sft,2e-4,,1 2,,false,change at new-task accuracy 0.6000,all,"));
    assert!(!csv.contains("rft,5e-5,,1 2,,false,share of seeds at new-task accuracy 0.6000"), "{csv}");
}
