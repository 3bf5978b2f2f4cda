//! Whole rollouts, from a dataset directory to a dataset directory.

use super::*;
use crate::comm::Single;
use crate::data::METADATA;
use crate::model::init::{Preset, write_checkpoint};
use crate::model::{ComputeDtype, ModelLoader};
use crate::sampling::chat_api::tests as chat_tests;
use crate::tasks::Style;
use crate::tasks::jigsaw::generate::{JigsawSettings, generate};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use candle_core::Device;
use std::fs;
use std::sync::{Arc, Mutex};

fn puzzles(dir: &Path, style: Style) {
    puzzles_of(dir, style, "1x3");
}

fn puzzles_of(dir: &Path, style: Style, grid: &str) {
    let settings = JigsawSettings {
        images: "scenes".into(),
        grid: grid.parse().unwrap(),
        count: 10,
        style,
        seed: 3,
        split: "0.6,0.2,0.2".parse().unwrap(),
        ..JigsawSettings::default()
    };
    generate(&settings, dir, false, &|| {}).unwrap();
}

fn request(teacher: Teacher, data: &Path, out: &Path) -> RolloutRequest {
    RolloutRequest {
        teacher,
        data: data.to_path_buf(),
        split: "train".into(),
        plan: SamplePlan { limit: None, num_generations: 2, batch_size: 4 },
        sampling: SamplingParams {
            max_new_tokens: 6,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            stop: Vec::new(),
            seed: 5,
        },
        selection: RolloutSelection { keep: Keep::Correct, max_per_prompt: None, answer: FinalAnswer::Sampled },
        out: out.to_path_buf(),
        fresh: false,
    }
}

fn run(request: &RolloutRequest) -> Result<RolloutReport> {
    rollout(request, &ModelLoader::new(&Device::Cpu, ComputeDtype::F32), &Single, &|_| {}, |_| {})
}

fn refused(request: &RolloutRequest) -> String {
    let error = run(request).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

#[test]
fn the_dataset_holds_each_kept_response_with_its_prompt_and_the_other_splits_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("out"));
    puzzles(&data, Style::Think);
    let report = run(&request(Teacher::Scripted, &data, &out)).unwrap();
    assert_eq!((report.tally.prompts, report.tally.kept, report.tally.prompts_without_kept), (6, 12, 0));
    assert_eq!(report.summary.accuracy.value, 1.0);
    let source = Dataset::open(&data, "train").unwrap();
    let made = Dataset::open(&out, "train").unwrap();
    assert_eq!(made.len(), 12);
    for (i, record) in made.records().map(Result::unwrap).enumerate() {
        let origin = source.record(i / 2).unwrap();
        assert_eq!((record.prompt(), &record.answer), (origin.prompt(), &origin.answer));
        assert_eq!(record.id, format!("{}-s{}", origin.id, i % 2));
        assert_ne!(record.response(), origin.response());
        assert_eq!(made.image_digests(i).unwrap(), source.image_digests(i / 2).unwrap());
    }
    for split in ["validation", "test"] {
        let bytes = |root: &Path| fs::read(root.join(split).join(METADATA)).unwrap();
        assert_eq!(bytes(&out), bytes(&data));
        assert_eq!(made.manifest().splits[split], source.manifest().splits[split]);
        let (old, new) = (Dataset::open(&data, split).unwrap(), Dataset::open(&out, split).unwrap());
        assert_eq!(old.image_digests(0).unwrap(), new.image_digests(0).unwrap());
    }
    let task = DatasetTask::open(&out, "train").unwrap();
    assert!((0..task.len()).all(|i| task.score(i, task.example(i).unwrap().response().unwrap()).correct));
}

#[test]
fn a_killed_rollout_continues_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (data, whole, cut) = (dir.path().join("data"), dir.path().join("whole"), dir.path().join("cut"));
    puzzles(&data, Style::Think);
    let finished = run(&request(Teacher::Scripted, &data, &whole)).unwrap();
    let samples = fs::read(whole.join("samples.jsonl")).unwrap();
    for keep in [0, samples.len() / 3, samples.len() - 5, samples.len()] {
        let _ = fs::remove_dir_all(&cut);
        run(&request(Teacher::Scripted, &data, &cut)).unwrap();
        fs::remove_file(cut.join("manifest.json")).unwrap();
        fs::write(cut.join(".jigsaw-unfinished"), "").unwrap();
        fs::write(cut.join("samples.jsonl"), &samples[..keep]).unwrap();
        let again = run(&request(Teacher::Scripted, &data, &cut)).unwrap();
        assert_eq!(fs::read(cut.join("samples.jsonl")).unwrap(), samples);
        assert_eq!(again.manifest.sha256, finished.manifest.sha256);
    }
}

#[test]
fn another_rollout_in_the_same_directory_is_refused_and_the_difference_named() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("out"));
    puzzles(&data, Style::Think);
    let first = request(Teacher::Scripted, &data, &out);
    run(&first).unwrap();
    assert_eq!(run(&first).unwrap().tally.kept, 12, "finished: only read");
    let mut other = first.clone();
    other.sampling.seed = 6;
    assert!(refused(&other).contains("seed: 5 -> 6"));
    let mut other = first.clone();
    (other.sampling.seed, other.fresh) = (6, true);
    assert_eq!(run(&other).unwrap().tally.samples, 12);
    let foreign = dir.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("notes.txt"), "mine").unwrap();
    let mut other = request(Teacher::Scripted, &data, &foreign);
    other.fresh = true;
    assert!(refused(&other).contains("not empty"));
    assert!(refused(&request(Teacher::Scripted, &data, &data.join("out"))).contains("--data"));
}

#[test]
fn prompts_may_come_from_a_file_of_records_or_conversations() {
    let dir = tempfile::tempdir().unwrap();
    let (data, whole, file) = (dir.path().join("data"), dir.path().join("whole"), dir.path().join("file"));
    puzzles(&data, Style::Think);
    run(&request(Teacher::Scripted, &data, &whole)).unwrap();
    let report = run(&request(Teacher::Scripted, &data.join("train/metadata.jsonl"), &file)).unwrap();
    assert_eq!((report.tally.kept, report.about.split.as_str(), report.manifest.splits.len()), (12, "", 1));
    let open = |dir: &Path| Dataset::open(dir, "train").unwrap();
    let all = |dir: &Path| open(dir).records().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(all(&file), all(&whole));

    // Conversations of another tool: one picture in the line, one in a file.
    let records = open(&data);
    let name = &records.record(0).unwrap().images[0];
    let picture = records.root().join(name);
    let in_line = format!("data:image/png;base64,{}", STANDARD.encode(fs::read(&picture).unwrap()));
    let line = |image: &str| {
        let turns = json!([{"role": "user", "content": "<image>Who?"}, {"role": "assistant", "content": "A cat"}]);
        format!("{}\n", json!({"messages": turns, "images": [image]}))
    };
    let talk = dir.path().join("talk.jsonl");
    fs::write(&talk, [line(&in_line), line(picture.to_str().unwrap())].concat()).unwrap();
    let server = chat_tests::serve(Box::new(|_, _| (200, String::new(), chat_tests::says("A cat"))));
    let mut request = request(Teacher::Endpoint(chat_tests::endpoint(&server.url)), &talk, &dir.path().join("talked"));
    request.plan.num_generations = 1;
    assert_eq!(run(&request).unwrap().tally.kept, 2);
    let made = open(&request.out);
    for (record, image) in made.records().map(Result::unwrap).zip(["images/000000.png", "images/000001.png"]) {
        assert_eq!((record.images[0].as_str(), record.response()), (image, Some("A cat")));
        assert_eq!(fs::read(made.root().join(image)).unwrap(), fs::read(&picture).unwrap());
    }
}

#[test]
fn two_processes_cannot_sample_into_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("out"));
    puzzles_of(&data, Style::Think, "1x2");
    // The second one comes while the first one waits for an answer.
    let (second, said) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
    let (ask, heard) = (Arc::clone(&second), Arc::clone(&said));
    let server = chat_tests::serve(Box::new(move |_, _| {
        if let Some(request) = ask.lock().unwrap().take() {
            heard.lock().unwrap().push(refused(&request));
        }
        (200, String::new(), chat_tests::says("<think>swapped</think><answer>2 1</answer>"))
    }));
    let first = request(Teacher::Endpoint(chat_tests::endpoint(&server.url)), &data, &out);
    *second.lock().unwrap() = Some(RolloutRequest { fresh: true, ..first.clone() });
    assert_eq!(run(&first).unwrap().tally.samples, 12);
    let said = said.lock().unwrap().clone();
    assert!(said.len() == 1 && said[0].contains("another process is sampling in"), "{said:?}");
    assert_eq!(run(&first).unwrap().tally.samples, 12, "the first one is done, and has let go");
    assert_eq!(server.requests(), 12);
}

#[test]
fn prompts_that_ask_for_a_bare_answer_are_refused_for_reasoning() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("out"));
    puzzles(&data, Style::Direct);
    let message = refused(&request(Teacher::Scripted, &data, &out));
    assert!(message.contains("metadata.jsonl:1") && message.contains("--style think"), "{message}");
    let mut gold = request(Teacher::Model(dir.path().join("none")), &data, &out);
    gold.selection.answer = FinalAnswer::Gold;
    assert!(refused(&gold).contains("--answer gold"));
    assert!(!out.exists());
}

#[test]
fn a_servers_responses_become_a_dataset_and_are_not_requested_again() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("out"));
    // With two tiles every answer is the same.
    puzzles_of(&data, Style::Think, "1x2");
    let server = chat_tests::serve(Box::new(|n, _| match n % 3 {
        0 => (200, String::new(), chat_tests::says("<think>swapped</think><answer>1 2</answer>")),
        _ => (200, String::new(), chat_tests::says(&format!("<think>{n}</think><answer>2 1</answer>"))),
    }));
    let request = request(Teacher::Endpoint(chat_tests::endpoint(&server.url)), &data, &out);
    let first = run(&request).unwrap();
    assert_eq!(
        (server.requests(), first.tally.kept, first.usage),
        (12, 8, Some(TokenUsage { prompts: 120, responses: 36, uncounted: 0 }))
    );
    assert!(first.about.teacher.starts_with("teacher-1 at http://127.0.0.1:"));
    // Another selection is made from what is there, and the first one again.
    let mut capped = request.clone();
    capped.selection.max_per_prompt = Some(1);
    let one_each = run(&capped).unwrap();
    assert_eq!((one_each.tally.kept, one_each.tally.over_cap), (6, 2));
    assert_eq!(Dataset::open(&out, "train").unwrap().len(), 6);
    assert_eq!(one_each.manifest.splits["validation"], first.manifest.splits["validation"]);
    assert_eq!(run(&request).unwrap().manifest.sha256, first.manifest.sha256);
    assert_eq!(server.requests(), 12, "nothing is asked for again");
    let mut other = request.clone();
    other.sampling.seed = 6;
    let message = refused(&other);
    assert!(message.contains("seed: 5 -> 6") && message.contains("paid for again"), "{message}");
    // A dataset that something else has put there is left alone.
    let manifest = fs::read(out.join("manifest.json")).unwrap();
    fs::copy(data.join("manifest.json"), out.join("manifest.json")).unwrap();
    assert!(refused(&capped).contains("no rollout made"));
    fs::write(out.join("manifest.json"), manifest).unwrap();
    // Killed after the last answer, before its batch was written down.
    let samples = fs::read(out.join("samples.jsonl")).unwrap();
    fs::remove_file(out.join("manifest.json")).unwrap();
    fs::write(out.join(".jigsaw-unfinished"), "").unwrap();
    fs::write(out.join("samples.jsonl"), &samples[..samples.len() / 2]).unwrap();
    let again = run(&request).unwrap();
    assert_eq!((server.requests(), again.manifest.sha256), (12, first.manifest.sha256));
    assert_eq!(fs::read(out.join("samples.jsonl")).unwrap(), samples);
}

#[test]
fn refusals_and_special_tokens_are_counted_and_never_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("out"));
    puzzles_of(&data, Style::Think, "1x2");
    let server = chat_tests::serve(Box::new(|n, _| match n % 6 {
        0 => (400, String::new(), json!({"error": {"message": "no", "code": "content_policy_violation"}}).to_string()),
        1 => (200, String::new(), json!({"choices": [{"message": {"content": null}}]}).to_string()),
        2 => (200, String::new(), chat_tests::says("<think><|im_end|></think><answer>2 1</answer>")),
        _ => (200, String::new(), chat_tests::says(&format!("<think>{n}</think><answer>2 1</answer>"))),
    }));
    let mut request = request(Teacher::Endpoint(chat_tests::endpoint(&server.url)), &data, &out);
    request.selection.keep = Keep::All;
    let RolloutReport { tally, .. } = run(&request).unwrap();
    assert_eq!((tally.refused, tally.empty, tally.special, tally.truncated, tally.kept), (2, 2, 2, 0, 6));
    let made = Dataset::open(&out, "train").unwrap();
    assert!(
        made.records()
            .all(|r| r.unwrap().response().is_some_and(|text| text.ends_with("</think><answer>2 1</answer>")))
    );
    assert!(made.records().all(|r| !r.unwrap().response().unwrap_or_default().contains("<|")));
    assert_eq!((run(&request).unwrap().tally, server.requests()), (tally, 12), "nothing is asked for again");
    // Where nothing else comes, it says why.
    let refuses = chat_tests::serve(Box::new(|_, _| {
        (400, String::new(), json!({"error": {"message": "no", "type": "content_filter"}}).to_string())
    }));
    let (teacher, out) = (Teacher::Endpoint(chat_tests::endpoint(&refuses.url)), dir.path().join("none"));
    let error = run(&RolloutRequest { teacher, out, ..request }).unwrap_err();
    assert!(error.exit_code() == 1 && error.to_string().contains("12 refused by the server"), "{error}");
}

#[test]
fn an_empty_dataset_is_never_written_and_the_samples_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (data, model, out) = (dir.path().join("data"), dir.path().join("model"), dir.path().join("out"));
    puzzles(&data, Style::Think);
    write_checkpoint(&model, Preset::Tiny, 0).unwrap();
    let mut request = request(Teacher::Model(model.clone()), &data, &out);
    request.plan = SamplePlan { limit: Some(3), num_generations: 2, batch_size: 2 };
    let error = run(&request).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let message = error.to_string();
    assert!(message.contains("none of 6 responses to 3 prompts") && message.contains("samples.jsonl"), "{message}");
    assert!(!out.join("manifest.json").exists());
    assert_eq!(fs::read_to_string(out.join("samples.jsonl")).unwrap().lines().count(), 6);
    // Where there is no sample yet, anything can be asked for.
    let (none, mut other) = (dir.path().join("none"), request.clone());
    fs::create_dir(&none).unwrap();
    fs::copy(out.join("rollout.json"), none.join("rollout.json")).unwrap();
    (other.out, other.sampling.seed) = (none, 9);
    assert_eq!(run(&other).unwrap_err().exit_code(), 1);
    // The samples are those of these weights.
    fs::remove_dir_all(&model).unwrap();
    write_checkpoint(&model, Preset::Tiny, 1).unwrap();
    assert!(refused(&request).contains("model"));
}
