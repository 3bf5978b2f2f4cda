//! The records of a dataset as a [`Task`], each scored by the scorer that its `task` field names.

use super::chance::Chance;
use super::registry::{open_stream, scorer};
use super::response::{Style, check_format, respond};
use super::score::Score;
use super::scorer::Scorer;
use super::task::{Task, scorer_versions};
use crate::data::{Dataset, Inspection, Record, rough_size};
use crate::{Error, Result};
use image::RgbImage;
use std::borrow::Cow;
use std::path::Path;

/// A dataset whose records have scorers. The scorer of a record is made when it is needed.
pub struct DatasetTask {
    name: String,
    dataset: Dataset,
    /// Of the first record of each task.
    scorers: Vec<Box<dyn Scorer>>,
}

/// Open a split of a dataset directory, whose records may be made as they are needed. See [`Dataset::open`] for what `dir` may be, and
/// [`Inspection::is_refused`] for what training asks of each stored record.
///
/// # Errors
/// As [`Dataset::open`]; an input error for a source that has changed, and for a stored record that has no scorer, or whose own response is not in
/// the form that it asks for, with file, line and field.
pub fn open_dataset(dir: &Path, split: &str, is_refused: Option<&(dyn Fn(&Record) -> bool + Sync)>) -> Result<Dataset> {
    let check = |record: &Record, is_foreign| {
        scorer(record)?;
        if is_foreign { check_reference(record) } else { Ok(()) }
    };
    Dataset::open_with(dir, split, open_stream, Inspection { check, is_refused })
}

/// Open a split of a dataset directory as a task. See [`Dataset::open`] for what `dir` may be.
pub fn load(dir: &Path, split: &str) -> Result<Box<dyn Task>> {
    Ok(Box::new(DatasetTask::open(dir, split)?))
}

impl DatasetTask {
    /// Open a split of a dataset directory, whose records may be made as they are needed.
    ///
    /// # Errors
    /// As [`open_dataset`].
    pub fn open(dir: &Path, split: &str) -> Result<Self> {
        DatasetTask::new(open_dataset(dir, split, None)?)
    }

    /// The task of a dataset that [`open_dataset`] has looked at.
    pub fn new(dataset: Dataset) -> Result<Self> {
        let (mut names, mut scorers) = (Vec::new(), Vec::new());
        for i in dataset.first_of_each_task() {
            let record = dataset.record(i)?;
            scorers.push(scorer(&record).map_err(|e| e.context(dataset.place(i)))?);
            names.push(record.task);
        }
        Ok(DatasetTask { name: names.join("+"), scorers, dataset })
    }

    /// The dataset behind the task.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }
}

/// See that the reference response of a record, if it has one, is in the form that its `meta.style` asks for: it is what training imitates,
/// and would itself lose the reward for form.
fn check_reference(record: &Record) -> Result<()> {
    let (Some(style), Some(response)) = (record.meta.get("style"), record.response()) else { return Ok(()) };
    let Ok(style) = serde_json::from_value::<Style>(style.clone()) else { return Ok(()) };
    check_format(response, style).map_err(|fault| {
        Error::input(format!(
            "record `{}`: its own answer is not in the form that is asked for, {}: {fault}; mend the answer, or say with \
             `\"meta\": {{\"style\": null}}` that no tags are asked for",
            record.id,
            respond(style, "...", "...")
        ))
    })
}

impl Task for DatasetTask {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.dataset.len()
    }

    fn example(&self, i: usize) -> Result<Cow<'_, Record>> {
        self.dataset.record(i).map(Cow::Owned)
    }

    fn measured(&self) -> usize {
        self.dataset.stream().map_or(self.len(), |stream| stream.measured())
    }

    fn place(&self, i: usize) -> Option<String> {
        Some(self.dataset.place(i))
    }

    fn images(&self, i: usize) -> Result<Vec<RgbImage>> {
        self.dataset.images(i)
    }

    fn image_sizes(&self, i: usize) -> Result<Vec<(u32, u32)>> {
        self.dataset.image_sizes(i)
    }

    fn rough_size(&self, i: usize) -> (usize, u64) {
        match self.dataset.seen(i) {
            Some(seen) => seen.rough_size(),
            None => self.example(i).map_or((0, 0), |record| rough_size(&record, self.image_sizes(i).ok())),
        }
    }

    fn image_digests(&self, i: usize) -> Result<Option<Vec<[u8; 32]>>> {
        match self.dataset.stream() {
            Some(_) => Ok(None),
            None => self.dataset.image_digests(i).map(Some),
        }
    }

    fn image_places(&self, i: usize) -> Result<Vec<String>> {
        match self.dataset.stream() {
            Some(_) => Ok(Vec::new()),
            None => self.dataset.image_places(i),
        }
    }

    fn score(&self, i: usize, response: &str) -> Score {
        // The record was looked at when the dataset was opened, or was made for its prompt: a failure here needs a file that changed since.
        match self.dataset.record(i).and_then(|record| scorer(&record)) {
            Ok(scorer) => scorer.score(response),
            Err(_) => Score::nothing("the example cannot be read or made again"),
        }
    }

    fn chance(&self, i: usize) -> Option<Chance> {
        scorer(&self.dataset.record(i).ok()?).ok()?.chance()
    }

    fn scorers(&self) -> Vec<(String, u32)> {
        scorer_versions(&self.scorers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::RewardSettings;
    use serde_json::json;

    fn open(lines: &[serde_json::Value]) -> Result<DatasetTask> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.jsonl");
        let text: Vec<String> = lines.iter().map(serde_json::Value::to_string).collect();
        std::fs::write(&path, text.join("\n")).unwrap();
        DatasetTask::open(&path, "train")
    }

    #[test]
    fn a_dataset_opened_for_training_tells_sizes_without_reading_records_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.jsonl");
        std::fs::write(&path, record("four", "<answer>no</answer>").to_string()).unwrap();
        let open = |is_refused| DatasetTask::new(open_dataset(&path, "train", is_refused).unwrap()).unwrap();
        let (plain, inspected) = (open(None), open(Some(&|_| false)));
        assert_eq!((plain.rough_size(0), inspected.rough_size(0)), ((23, 0), (23, 0)));
        std::fs::write(&path, "").unwrap();
        assert!(inspected.example(0).is_err());
        assert_eq!((plain.rough_size(0), inspected.rough_size(0)), ((0, 0), (23, 0)));
    }

    fn record(prompt: &str, response: &str) -> serde_json::Value {
        json!({"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]})
    }

    #[test]
    fn a_right_answer_in_the_form_of_the_references_earns_most() {
        let reward =
            |task: &DatasetTask, response: &str| RewardSettings::default().reward(&task.score(0, response)).total;
        let solution = json!({"messages": [{"role": "user", "content": "q"}], "solution": "<answer>no</answer>"});
        for line in [
            record("q", "<answer>no</answer>"),
            record("Answer in <answer></answer>.", "<answer>no</answer>"),
            solution,
        ] {
            let task = open(&[line]).unwrap();
            assert_eq!((reward(&task, "<answer>no</answer>"), reward(&task, "no")), (3.0, 0.0));
        }
        let task = open(&[record("q", "<think>Hm.</think><answer>no</answer>")]).unwrap();
        let both = (reward(&task, "<think>So.</think><answer>no</answer>"), reward(&task, "<answer>no</answer>"));
        assert_eq!(both, (3.0, 2.0));
        let task = open(&[record("q", "no")]).unwrap();
        assert_eq!((reward(&task, "no"), reward(&task, "<answer>no</answer>")), (3.0, 2.0));
    }

    #[test]
    fn a_reference_that_fails_the_form_of_its_own_record_is_refused_with_its_place() {
        let styled = |mut line: serde_json::Value, style: serde_json::Value| {
            line["meta"] = json!({"style": style});
            line
        };
        let good = record("q", "<answer>no</answer>");
        for (line, fault) in [
            (record("q", "It is <answer>no</answer>."), "<answer>...</answer>: text outside the blocks"),
            (record("q", "<answer>no"), "unclosed block"),
            (record("Use <answer></answer>.", "no"), "no answer block"),
            (record("Use <think></think><answer></answer>.", "<answer>no</answer>"), "no think block first"),
            (styled(record("q", "no"), json!("direct")), "no answer block"),
        ] {
            let error = open(&[good.clone(), line]).err().unwrap();
            let said = error.to_string();
            assert_eq!(error.exit_code(), 2);
            assert!(
                said.contains("data.jsonl:2: record `line-2`: its own answer") && said.contains(fault),
                "{fault}: {said}"
            );
        }
        assert!(open(&[styled(record("q", "It is <answer>no</answer>."), json!(null))]).is_ok());
    }

    #[test]
    fn questions_with_answers_are_scored_by_the_rule_that_they_name() {
        let task = open(&[
            json!({"question": "3 bags of 24?", "answer": "3 * 24 = <<3*24=72>>72\n#### 72", "task": "maths"}),
            json!({"problem": "$\\frac{1}{2}+\\frac14$?", "solution": "It is $\\boxed{\\frac34}$.", "task": "maths"}),
            json!({"question": "A. Rome\nB. Paris", "answer": "B", "task": "choice", "meta": {"options": ["Rome", "Paris"]}}),
        ])
        .unwrap();
        for (i, right, wrong) in
            [(0, "So it is 72.", "24"), (1, "\\boxed{0.75}", "0.5"), (2, "The answer is (B)", "Rome")]
        {
            assert!(task.score(i, right).correct && !task.score(i, wrong).correct, "{i}");
        }
        assert_eq!(task.name(), "maths+choice");
        let error = open(&[json!({"question": 7, "answer": "7"})]).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("data.jsonl:1: field `question` is not a string"), "{error}");
    }
}
