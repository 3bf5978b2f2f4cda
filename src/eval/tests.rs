//! The evaluation loop with a scripted generator in place of a model.

use super::*;
use crate::comm::{Single, threads};
use crate::data::{Message, Record};
use crate::model::{ComputeDtype, SamplingParams};
use crate::sampling::{
    Response, ResponseLog, SamplePlan, SampleProgress, SamplingKey, checkpoint_key, from_fn, sample_task,
};
use crate::tasks::{NoAnswer, Score, Task};
use crate::{Error, Result};
use std::ops::Range;
use std::path::Path;

/// Copy the answer: the response is right when it equals the gold answer; partial_credit are equal characters.
struct Copying(Vec<Record>, image::RgbImage);

impl Task for Copying {
    fn name(&self) -> &str {
        "copying"
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn example(&self, i: usize) -> Result<std::borrow::Cow<'_, Record>> {
        self.0.get(i).map(std::borrow::Cow::Borrowed).ok_or_else(|| Error::input(format!("no example {i}")))
    }
    fn images(&self, i: usize) -> Result<Vec<image::RgbImage>> {
        Ok(self.0[i].images.iter().map(|_| self.1.clone()).collect())
    }
    fn score(&self, i: usize, response: &str) -> Score {
        let gold = &self.0[i].answer;
        let partial_credit =
            gold.chars().zip(response.chars()).filter(|(a, b)| a == b).count() as f64 / gold.len() as f64;
        let parsed = response.len() == gold.len();
        let fault = if parsed { "" } else { "wrong length" };
        Score {
            correct: gold == response,
            value: partial_credit,
            lenient: partial_credit,
            partial_credit,
            raw_partial_credit: partial_credit,
            parsed,
            well_formed: parsed,
            exact: None,
            fault: fault.into(),
        }
    }
}

fn task(n: usize) -> Copying {
    Copying(
        (0..n)
            .map(|i| Record {
                file_name: String::new(),
                id: format!("example-{i}"),
                task: "copying".into(),
                messages: vec![Message { role: "user".into(), content: "say it".into() }],
                images: vec![],
                answer: format!("{i:04}"),
                source: String::new(),
                seed: 0,
                meta: Default::default(),
            })
            .collect(),
        image::RgbImage::new(2, 1),
    )
}

/// Right for even examples, one character off for odd ones, too short for every fifth.
fn answer(index: usize) -> Response {
    let text = match index {
        i if i % 5 == 4 => "x".to_string(),
        i if i % 2 == 1 => format!("{:03}x", index / 10),
        _ => format!("{index:04}"),
    };
    Response {
        tokens: text.len() + 1,
        finished: index != 3,
        text,
        token_ids: Vec::new(),
        logprobs: Vec::new(),
        no_answer: None,
    }
}

fn generator(examples: Range<usize>) -> Result<Vec<Vec<Response>>> {
    Ok(examples.map(|i| vec![answer(i)]).collect())
}

fn plan(batch: usize) -> SamplePlan {
    SamplePlan { limit: None, num_generations: 1, batch_size: batch }
}

fn key(temperature: f32, batch: usize, n: usize) -> SamplingKey {
    SamplingKey {
        code: "test".into(),
        model: "m".repeat(64),
        prompt: "p".repeat(64),
        data: "d".repeat(64),
        gold: "g".into(),
        task: "copying".into(),
        scorers: Default::default(),
        examples: n,
        sampling: SamplingParams { temperature, ..SamplingParams::greedy(8) },
        num_generations: 1,
        batch_size: (temperature > 0.0).then_some(batch),
        dtype: ComputeDtype::F32,
        bench: None,
    }
}

fn open(dir: &Path, key: SamplingKey, fresh: bool) -> Result<EvalDir<'static>> {
    EvalDir::open(dir, key, Path::new("model"), (Path::new("data"), "test"), fresh, &Single)
}

#[test]
fn a_summary_counts_what_the_task_scored() {
    let (summary, outcomes) =
        sample_task(&from_fn(generator), &task(10), &plan(4), &SamplingParams::greedy(8), |_| {}).unwrap();
    assert_eq!(outcomes.len(), 10);
    assert_eq!((summary.examples, summary.samples, summary.truncated), (10, 1, 1));
    // Even and not 4: 0, 2, 6, 8. Odd and not 9: 1, 3, 5, 7 with three of four characters.
    assert_eq!(summary.accuracy, crate::stats::share(4, 10));
    assert!((summary.partial_credit.value - (4.0 + 4.0 * 0.75) / 10.0).abs() < 1e-12);
    assert!(
        summary.partial_credit.low < summary.partial_credit.value
            && summary.partial_credit.high > summary.partial_credit.value
    );
    assert_eq!(summary.parsed.value, 0.8);
    assert_eq!(summary.faults.get("wrong length"), Some(&2));
    assert_eq!(summary.mean_tokens, (8.0 * 5.0 + 2.0 * 2.0) / 10.0);
    assert_eq!(summary.chance, None);
}

#[test]
fn the_batch_size_changes_nothing() {
    let of = |batch| {
        sample_task(&from_fn(generator), &task(10), &plan(batch), &SamplingParams::greedy(8), |_| {}).unwrap().1
    };
    assert_eq!(of(1), of(4));
    assert_eq!(of(1), of(100));
}

#[test]
fn a_limit_takes_the_first_examples_and_several_samples_count_once_per_example() {
    let plan = SamplePlan { limit: Some(4), num_generations: 3, batch_size: 3 };
    let generate = |examples: Range<usize>| -> Result<_> {
        let wrong = Response {
            text: "none".into(),
            tokens: 5,
            finished: true,
            token_ids: Vec::new(),
            logprobs: Vec::new(),
            no_answer: None,
        };
        Ok(examples.map(|i| vec![answer(i), wrong.clone(), answer(i)]).collect())
    };
    let mut last = None;
    let (summary, outcomes) =
        sample_task(&from_fn(generate), &task(10), &plan, &SamplingParams::greedy(8), |p| last = Some(p)).unwrap();
    assert_eq!(outcomes.len(), 12);
    assert_eq!((outcomes[4].index, outcomes[4].sample), (1, 1));
    // Examples 0 and 2 are right in two of three samples, 1 and 3 in none.
    assert!((summary.accuracy.value - 1.0 / 3.0).abs() < 1e-12);
    let over_examples = crate::stats::unit_mean(&[2.0 / 3.0, 0.0, 2.0 / 3.0, 0.0]);
    assert!((summary.accuracy.high - over_examples.high).abs() < 1e-12, "the interval is over examples, not responses");
    assert_eq!(last, Some(SampleProgress { done: 4, total: 4, correct: 4, responses: 12 }));
}

#[test]
fn an_unanswered_prompt_is_wrong_whatever_the_task_would_say() {
    let generate = |examples: Range<usize>| -> Result<_> {
        let one = |i: usize| match i {
            0 => Response { no_answer: Some(NoAnswer::Refused), ..answer(0) },
            1 => Response { text: String::new(), no_answer: Some(NoAnswer::Empty), ..answer(1) },
            _ => answer(i),
        };
        Ok(examples.map(|i| vec![one(i)]).collect())
    };
    let (summary, outcomes) =
        sample_task(&from_fn(generate), &task(3), &plan(3), &SamplingParams::greedy(8), |_| {}).unwrap();
    assert_eq!((summary.accuracy, summary.truncated), (crate::stats::share(1, 3), 0));
    let faults: Vec<(&str, usize)> = summary.faults.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    assert_eq!(faults, [("no text from the server", 1), ("refused by the server", 1)]);
    let unanswered: Vec<_> = outcomes.iter().map(|o| o.score.unanswered()).collect();
    assert_eq!(unanswered, [Some(NoAnswer::Refused), Some(NoAnswer::Empty), None]);
}

#[test]
fn a_wrong_number_of_responses_and_an_empty_plan_are_errors() {
    let none = |_: Range<usize>| Ok(vec![]);
    assert!(sample_task(&from_fn(none), &task(3), &plan(2), &SamplingParams::greedy(8), |_| {}).is_err());
    assert_eq!(
        sample_task(&from_fn(generator), &task(0), &plan(2), &SamplingParams::greedy(8), |_| {})
            .unwrap_err()
            .exit_code(),
        2
    );
    assert_eq!(
        sample_task(&from_fn(generator), &task(3), &plan(0), &SamplingParams::greedy(8), |_| {})
            .unwrap_err()
            .exit_code(),
        2
    );
}

#[test]
fn an_interrupted_evaluation_continues_and_ends_with_the_same_bytes() {
    let (whole, part) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let directory = open(whole.path(), key(0.0, 3, 10), false).unwrap();
    let expected =
        evaluate_in(&directory, &from_fn(generator), &task(10), &plan(3), &SamplingParams::greedy(8), |_| {}).unwrap();

    let directory = open(part.path(), key(0.0, 3, 10), false).unwrap();
    let mut calls = 0;
    let stopping = |examples: Range<usize>| {
        calls += 1;
        if calls == 3 { Err(Error::failed("stopped")) } else { generator(examples) }
    };
    assert!(
        evaluate_in(&directory, &from_fn(stopping), &task(10), &plan(3), &SamplingParams::greedy(8), |_| {}).is_err()
    );
    drop(directory);
    // The last line was being written when the machine went down.
    let responses = part.path().join("responses.jsonl");
    let text = std::fs::read(&responses).unwrap();
    std::fs::write(&responses, &text[..text.len() - 5]).unwrap();

    let directory = open(part.path(), key(0.0, 3, 10), false).unwrap();
    let mut asked = Vec::new();
    let counting = |examples: Range<usize>| {
        asked.push(examples.clone());
        generator(examples)
    };
    let result =
        evaluate_in(&directory, &from_fn(counting), &task(10), &plan(3), &SamplingParams::greedy(8), |_| {}).unwrap();
    assert_eq!(asked, [5..8, 8..10], "the first five responses were kept");
    assert_eq!(std::fs::read(&responses).unwrap(), std::fs::read(whole.path().join("responses.jsonl")).unwrap());
    assert_eq!(result.summary.accuracy, expected.summary.accuracy);
    assert_eq!(result.summary.partial_credit, expected.summary.partial_credit);

    let never = |_: Range<usize>| -> Result<_> { panic!("a finished evaluation generates nothing") };
    let again =
        evaluate_in(&directory, &from_fn(never), &task(10), &plan(3), &SamplingParams::greedy(8), |_| {}).unwrap();
    assert_eq!((again.about, again.summary.faults), (result.about, result.summary.faults));
    assert!((again.summary.accuracy.low - result.summary.accuracy.low).abs() < 1e-12);
    assert_eq!(EvalResult::read_responses(part.path()).unwrap().len(), 10);
}

#[test]
fn ranks_take_whole_batches_and_leave_the_bytes_of_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let evaluate = |ranks: usize, out: &str, fails_at: Option<usize>| {
        threads::run(ranks, |comm| {
            let (path, about) = (dir.path().join(out), (Path::new("data"), "test"));
            let directory = EvalDir::open(&path, key(1.0, 3, 20), Path::new("model"), about, false, comm)?;
            let respond = |examples: Range<usize>| match fails_at == Some(examples.start) {
                true => Err(Error::failed("stopped")),
                false => generator(examples),
            };
            let sampling = SamplingParams { temperature: 1.0, ..SamplingParams::greedy(8) };
            evaluate_in(&directory, &from_fn(respond), &task(20), &plan(3), &sampling, |_| {})
        })
    };
    let responses =
        |out: &str| std::fs::read_to_string(dir.path().join(out).join("responses.jsonl")).unwrap_or_default();
    let expected = evaluate(1, "alone", None).remove(0).unwrap().summary;
    for ranks in 2..=4 {
        let out = ranks.to_string();
        // The batch at 9 fails, whoever has it: what the rounds before it gave stays.
        assert!(evaluate(ranks, &out, Some(9)).iter().all(Result::is_err));
        assert_eq!(responses(&out).lines().count(), 9 / 3 / ranks * ranks * 3);
        for found in evaluate(5 - ranks, &out, None) {
            let found = found.unwrap().summary;
            assert_eq!((found.accuracy, found.faults), (expected.accuracy, expected.faults.clone()));
        }
        assert_eq!(responses(&out), responses("alone"), "{ranks} ranks");
    }
}

#[test]
fn a_sampled_evaluation_continues_at_a_batch_boundary() {
    let dir = tempfile::tempdir().unwrap();
    let directory = open(dir.path(), key(1.0, 4, 10), false).unwrap();
    let (_, outcomes) =
        sample_task(&from_fn(generator), &task(10), &plan(4), &SamplingParams::greedy(8), |_| {}).unwrap();
    directory.resume(&task(10), &plan(4)).unwrap().0.append(&task(10), &outcomes[..7]).unwrap();
    let mut asked = Vec::new();
    let counting = |examples: Range<usize>| {
        asked.push(examples.start);
        generator(examples)
    };
    evaluate_in(&directory, &from_fn(counting), &task(10), &plan(4), &SamplingParams::greedy(8), |_| {}).unwrap();
    assert_eq!(asked, [4, 8], "random numbers belong to whole batches");
    assert_eq!(EvalResult::read_responses(dir.path()).unwrap(), outcomes);
}

#[test]
fn every_line_says_what_it_answers_and_a_log_without_that_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    let directory = open(dir.path(), key(1.0, 4, 10), false).unwrap();
    let two = SamplePlan { num_generations: 2, ..plan(4) };
    let twice = |examples: Range<usize>| -> Result<Vec<Vec<Response>>> {
        Ok(examples.map(|i| vec![answer(i), answer(i)]).collect())
    };
    let (_, outcomes) = sample_task(&from_fn(twice), &task(10), &two, &SamplingParams::greedy(8), |_| {}).unwrap();
    // As an earlier version wrote it.
    let path = dir.path().join("responses.jsonl");
    crate::io::jsonl::write(&path, &outcomes[..8]).unwrap();
    assert!(!std::fs::read_to_string(&path).unwrap().contains("prompt"));
    let (mut log, kept) = directory.resume(&task(10), &two).unwrap();
    assert_eq!(kept, outcomes[..8]);
    log.append(&task(10), &outcomes[8..]).unwrap();
    assert_eq!(EvalResult::read_responses(dir.path()).unwrap(), outcomes);
    let lines = ResponseLog::lines(&path).unwrap();
    let said = |i: usize| (lines[i].prompt.as_deref(), lines[i].gold.as_deref(), lines[i].response.sample);
    assert_eq!(
        (said(7), said(8), said(9)),
        ((None, None, 1), (Some("say it"), Some("0004"), 0), (Some("say it"), Some("0004"), 1))
    );
}

#[test]
fn another_model_in_the_same_directory_is_refused_by_name_until_fresh() {
    let dir = tempfile::tempdir().unwrap();
    let directory = open(dir.path(), key(0.0, 3, 10), false).unwrap();
    evaluate_in(&directory, &from_fn(generator), &task(10), &plan(3), &SamplingParams::greedy(8), |_| {}).unwrap();
    let other = SamplingKey { model: "n".repeat(64), num_generations: 2, ..key(0.0, 3, 10) };
    let error = open(dir.path(), other.clone(), false).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.exit_code(), 2);
    assert!(
        text.contains("model: \"mmm") && text.contains("num_generations: 1 -> 2") && text.contains("--fresh"),
        "{text}"
    );
    assert!(!text.contains("data:"), "{text}");
    drop(directory);
    let directory = open(dir.path(), other, true).unwrap();
    assert_eq!(directory.finished().unwrap(), None);
    assert!(EvalResult::read_responses(dir.path()).unwrap().is_empty());
}

#[test]
fn two_processes_cannot_evaluate_in_one_directory_but_read_a_finished_one() {
    let dir = tempfile::tempdir().unwrap();
    let directory = open(dir.path(), key(0.0, 3, 10), false).unwrap();
    for fresh in [false, true] {
        let error = open(dir.path(), key(0.0, 3, 10), fresh).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("another process is evaluating in"), "{error}");
    }
    evaluate_in(&directory, &from_fn(generator), &task(10), &plan(3), &SamplingParams::greedy(8), |_| {}).unwrap();
    assert_eq!(EvalResult::read_responses(dir.path()).unwrap().len(), 10);
    drop(directory);
    let (one, other) = (open(dir.path(), key(0.0, 3, 10), false), open(dir.path(), key(0.0, 3, 10), false));
    assert!(one.unwrap().finished().unwrap().is_some() && other.unwrap().finished().unwrap().is_some());
}

#[test]
fn responses_to_other_examples_are_refused_with_their_line() {
    let dir = tempfile::tempdir().unwrap();
    let directory = open(dir.path(), key(0.0, 3, 10), false).unwrap();
    let (_, outcomes) =
        sample_task(&from_fn(generator), &task(10), &plan(3), &SamplingParams::greedy(8), |_| {}).unwrap();
    let mut log = directory.resume(&task(10), &plan(3)).unwrap().0;
    log.append(&task(10), &[outcomes[0].clone(), outcomes[2].clone()]).unwrap();
    let error = evaluate_in(&directory, &from_fn(generator), &task(10), &plan(3), &SamplingParams::greedy(8), |_| {})
        .unwrap_err();
    assert!(error.to_string().contains("responses.jsonl:2") && error.to_string().contains("example-2"), "{error}");
}

#[test]
fn the_key_follows_weights_template_records_and_images() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("config.json", "{}");
    write("model.safetensors", "weights");
    write("tokenizer.json", "{}");
    write("chat_template.jinja", "a");
    let mut task = task(3);
    task.0[1].images = vec!["picture.png".into()];
    let in_dtype = |dtype: ComputeDtype, task: &Copying, plan: &SamplePlan| {
        checkpoint_key(dir.path(), dtype, task, plan, &SamplingParams::greedy(8)).unwrap()
    };
    let of = |task: &Copying, plan: &SamplePlan| in_dtype(ComputeDtype::F32, task, plan);
    let first = of(&task, &plan(2));
    assert_eq!(of(&task, &plan(3)), first, "the batch size is no part of a greedy result");
    assert_eq!(in_dtype(ComputeDtype::Bf16, &task, &plan(2)).differences_in(&first), ["dtype"]);
    assert!(!serde_json::to_string(&first).unwrap().contains("dtype"), "f32 is not written down");
    task.1.put_pixel(1, 0, image::Rgb([0, 0, 1]));
    assert_eq!(of(&task, &plan(2)).differences_in(&first), ["data"]);
    task.1.put_pixel(1, 0, image::Rgb([0, 0, 0]));
    write("model.safetensors", "trained");
    assert_eq!(of(&task, &plan(2)).differences_in(&first), ["model"]);
    write("model.safetensors", "weights");
    write("chat_template.jinja", "b");
    assert_eq!(of(&task, &plan(2)).differences_in(&first), ["prompt"]);
    write("chat_template.jinja", "a");
    assert_eq!(
        of(&task, &SamplePlan { limit: Some(2), ..plan(2) }).differences_in(&first),
        ["data", "examples", "gold"]
    );
    assert_eq!(of(&task, &plan(2)), first);
}
