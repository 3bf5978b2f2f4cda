//! The new task of a comparison, with answers drawn in.

use super::tests::{dataset, evaluation, page_of};
use crate::forgetting::{
    BenchmarkTitle, ExampleLabel, FinishedEval, ForgettingResult, MeasuredBenchmark, ModelRef, NEW_TASK, TunedResult,
    pair,
};
use crate::tasks;
use std::fs;
use std::path::Path;

#[test]
fn a_comparison_shows_puzzles_of_the_new_task_with_the_answers_of_base_and_model() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("cost"));
    dataset(&data, 12);
    let (base, tuned) = (out.join("base/new-task"), out.join("tuned/new-task"));
    evaluation(&base, Path::new("base"), &data, 12, |i| i == 3);
    evaluation(&tuned, Path::new("tuned"), &data, 12, |i| i != 3);
    let read = |dir: &Path| FinishedEval::read(dir).unwrap();
    let model = |name: &str, dir: &Path| ModelRef {
        name: name.into(),
        dir: format!("/{name}"),
        hash: read(dir).about.key.model,
        run: None,
    };
    let task = tasks::load(&data, "test").unwrap();
    let labels = ExampleLabel::of(task.as_ref(), 12).unwrap();
    let title = BenchmarkTitle { name: NEW_TASK.into(), family: "puzzles".into(), scorer: "jigsaw v1".into() };
    let new_task =
        MeasuredBenchmark::of(title, &pair(read(&base), read(&tuned)).unwrap(), &labels, Vec::new()).unwrap();
    let result = TunedResult::of(model("sft<1>", &tuned), Some(new_task), Vec::new(), Vec::new());
    crate::forgetting::write(&out, &ForgettingResult::new(model("qwen", &base), vec![result])).unwrap();

    let html = page_of(std::slice::from_ref(&out));
    assert!(html.contains("6 of 12 test examples, chosen at random with a fixed seed"), "{html}");
    let cards: Vec<&str> = html.split("class=\"card puzzle\"").skip(1).collect();
    assert_eq!(cards.len(), 6);
    for card in &cards {
        let (before, after) = card.split_once("sft&lt;1&gt;</div>").unwrap();
        assert!(before.contains("base: qwen</div>") && before.contains("shown to the model"), "{card}");
        // Four tiles in their places, but for the one puzzle that it does not solve.
        let right = after.matches("class=\"mark ok\"").count();
        assert!(right == 4 || card.contains("scene-3.png"), "{card}");
    }
    // The same puzzles in every report.
    assert_eq!(page_of(std::slice::from_ref(&out)), html);
    fs::remove_dir_all(&data).unwrap();
    let html = page_of(&[out]);
    assert!(
        html.contains("Answers to the new task are not drawn: no dataset at")
            && !html.contains("class=\"card puzzle\"")
    );
}
