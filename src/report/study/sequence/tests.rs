//! Three tasks in a row, made up: the numbers of the page, worked by hand.

use crate::forgetting::fixtures::{labels, paired_scores, sides};
use crate::forgetting::{BenchmarkTitle, ForgettingResult, MeasuredBenchmark, ModelRef, TunedResult, pair, write};
use crate::io::files;
use crate::report::{RegimeEntry, SequenceIndex, SequenceStage, StudyIndex};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Right answers of 100 on each task: of the base, and after each task.
const BASE: [usize; 3] = [10, 20, 5];
const FIRST: [[usize; 3]; 3] = [[80, 30, 5], [90, 70, 15], [50, 60, 85]];
/// The second seed forgets more of the first task.
const SECOND: [[usize; 3]; 3] = [[80, 30, 5], [90, 70, 15], [40, 60, 85]];

fn model(name: &str) -> ModelRef {
    ModelRef { name: name.into(), dir: format!("/models/{name}"), hash: name.repeat(8), run: None }
}

fn compared(name: &str, family: &str, values: &[(f64, f64)]) -> MeasuredBenchmark {
    let (base, after) = sides(values);
    let title = BenchmarkTitle { name: name.into(), family: family.into(), scorer: "exact v1".into() };
    MeasuredBenchmark::of(title, &pair(base, after).unwrap(), &labels(values.len()), Vec::new()).unwrap()
}

/// The comparison of a model with these right answers, of whose 160 right answers to prior questions `lost` are wrong now.
fn stage(dir: &Path, name: &str, right: [usize; 3], lost: usize) {
    let task = |i: usize| {
        let (before, after) = (BASE[i], right[i]);
        let values = paired_scores(100, before, before.saturating_sub(after), after.saturating_sub(before));
        compared(["one", "two", "three"][i], "puzzles", &values)
    };
    let prior = [("pope", 0), ("docvqa", lost)];
    let prior = prior.map(|(name, lost)| compared(name, name, &paired_scores(200, 160, lost, 0)));
    let benchmarks = (0..3).map(task).chain(prior).collect();
    let tuned = TunedResult::of(model(name), None, benchmarks, Vec::new());
    write(dir, &ForgettingResult::new(model("base"), vec![tuned])).unwrap();
}

/// A study of nothing but tasks in a row: `sft` with two seeds, `lora` with one that has learned one task.
fn study(out: &Path) {
    let (mut stages, methods) = (Vec::new(), ["sft", "lora"]);
    for (method, seed, rows) in [("sft", 1, &FIRST), ("sft", 2, &SECOND), ("lora", 1, &FIRST)] {
        for (i, right) in rows.iter().enumerate() {
            let comparison = PathBuf::from(format!("sequence/stages/{method}-{}.seed-{seed}", i + 1));
            if method == "sft" || i == 0 {
                stage(&out.join(&comparison), &format!("{method}{seed}{i}"), *right, 20 * (i + 1));
            }
            stages.push(SequenceStage { method: method.into(), number: i + 1, seed, comparison });
        }
    }
    let methods = methods.map(|name| RegimeEntry { name: name.into(), about: String::new() }).to_vec();
    let tasks = ["one", "two", "three"].map(String::from).to_vec();
    let sequence = Some(SequenceIndex { tasks, methods, base: "sequence/base".into(), stages });
    let empty = StudyIndex::new("In a row", "base", Vec::new(), Vec::new(), Vec::new(), Vec::new());
    StudyIndex { sequence, ..empty }.write(out).unwrap();
}

fn page(out: &Path) -> (String, String, String, Value) {
    let file = out.join("report.html");
    crate::report::write(&[out.to_path_buf()], "A title", &file).unwrap();
    let read = |extension: &str| fs::read_to_string(file.with_extension(extension)).unwrap();
    (read("html"), read("md"), read("study.csv"), files::read_json(&file.with_extension("sequence.json")).unwrap())
}

fn near(got: &Value, expected: f64) {
    let got = got.as_f64().unwrap_or_else(|| panic!("{got} is no number"));
    assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
}

#[test]
fn the_matrix_and_its_measures_are_those_worked_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    study(dir.path());
    let (.., json) = page(dir.path());
    let sequence = &json["sequences"][0];
    assert_eq!(sequence["tasks"], serde_json::json!(["one", "two", "three"]));
    let sft = &sequence["methods"][0];
    // Rows are times, the base's first; means over two seeds.
    near(&sft["r"][0][1]["value"], 0.20);
    near(&sft["r"][2][0]["value"], 0.90);
    near(&sft["r"][3][0]["value"], (0.50 + 0.40) / 2.0);
    let last = &sft["measures"][2];
    // (0.50 + 0.60 + 0.85) / 3 = 0.65 and (0.40 + 0.60 + 0.85) / 3 = 1.85 / 3.
    near(&last["average accuracy"]["value"], (0.65 + 1.85 / 3.0) / 2.0);
    // ((0.50 - 0.80) + (0.60 - 0.70)) / 2 = -0.20 and ((0.40 - 0.80) + (0.60 - 0.70)) / 2 = -0.25.
    near(&last["backward transfer"]["value"], -0.225);
    // ((0.30 - 0.20) + (0.15 - 0.05)) / 2 in both.
    near(&last["forward transfer"]["value"], 0.10);
    // ((0.90 - 0.50) + (0.70 - 0.60)) / 2 = 0.25 and ((0.90 - 0.40) + (0.70 - 0.60)) / 2 = 0.30.
    near(&last["forgetting"]["value"], 0.275);
    near(&sft["seeds"][1]["measures"][2]["forgetting"]["value"], 0.30);
    assert_eq!(sft["measures"][0].as_object().unwrap().len(), 1, "after one task there is only average accuracy");
    // 60 of 200 answers of one of two prior sets: 30 points there, 15 in the mean.
    near(&sft["prior_change"][2]["value"], -0.15);
    // Intervals hold the value, and over two seeds that differ they are wider than a seed's own.
    let width = |value: &Value| value["high"].as_f64().unwrap() - value["low"].as_f64().unwrap();
    let (both, one) = (&last["forgetting"], &sft["seeds"][0]["measures"][2]["forgetting"]);
    assert!(
        both["low"].as_f64().unwrap() < 0.275 && both["high"].as_f64().unwrap() > 0.275 && width(both) > width(one)
    );
}

#[test]
fn the_page_shows_the_matrix_as_a_heat_map_and_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    study(dir.path());
    let (html, md, csv, _) = page(dir.path());
    let order = [
        "In a row: Tasks in a row</h2>",
        "3 tasks are learned one after another: one, two, three.",
        "<b>sft</b> average accuracy 63.3 %",
        "<b>lora</b> not measured after all tasks yet.",
        "lora, seed 1: measured after 1 of 3 tasks",
        ">After all tasks</h3>",
        ">Accuracy on each task after each task</h3>",
        ">Prior knowledge lost after all tasks, by family</h3>",
        ">Average accuracy on the tasks learned</h3>",
        ">Forgetting of the tasks learned</h3>",
        ">Accuracy on three</h3>",
    ];
    let places: Vec<usize> =
        order.iter().map(|text| html.find(text).unwrap_or_else(|| panic!("{text:?} is missing"))).collect();
    assert!(places.is_sorted(), "{places:?}");
    assert!(!html.contains("Nothing is measured yet") && !html.contains("Lost at equal accuracy"));
    // 90 % of the full tint of 40 %, and bold on the diagonal.
    assert!(html.contains("heat\" style=\"--tint-strength: 36%\""), "no cell of 90 %");
    assert!(html.contains("num best heat"), "no bold cell");
    let rows: Vec<&str> = md.lines().filter(|line| line.starts_with("| sft (after ")).collect();
    assert_eq!(rows.len(), 3, "{md}");
    let cells: Vec<&str> = rows[2].trim_matches('|').split('|').map(str::trim).collect();
    assert!(cells[0] == "sft (after 3, three)" && cells[1].starts_with("45.0 % (") && cells[3].starts_with("85.0 %"));
    assert!(cells[4].starts_with("65.0 % (lost 15.0 ("), "{}", cells[4]);
    let value = |begins: &str| -> Value {
        let line = csv.lines().find_map(|line| line.strip_prefix(begins)).unwrap_or_else(|| panic!("{begins}: {csv}"));
        serde_json::from_str(line.split(',').next().unwrap_or_default()).unwrap()
    };
    near(&value("sft,,,1 2,,true,accuracy after task 3,one,"), 0.45);
    near(&value("sft,,2,2,,true,forgetting after task 3,,"), 0.30);
    near(&value("sft,,,1 2,,false,prior change after task 1,docvqa,"), -0.1);
    // No stage is among the models of ordinary comparisons.
    assert!(!html.contains("sft10"));
}
