//! On a toy policy: SFT on examples from elsewhere (its own responses, replayed ones, near its start); criteria that end a run or keep a
//! checkpoint; runs that are lengthened.

#[path = "../../tests/toy/mod.rs"]
mod toy;

use super::metrics::Metrics;
use super::run_dir::{ResumeState, RunDir, RunManifest, RunSummary};
use super::*;
use crate::Result;
use crate::comm::Single;
use crate::tasks::Task;
use crate::train::settings::{Method, TrainConfig};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use toy::{Digits, Puzzles, Toy};

const SFT: &[&str] =
    &["train.steps=20", "train.batch_size=4", "train.learning_rate=0.2", "train.save_steps=7", "eval.steps=10"];
const ON_POLICY: &[&str] = &["sft.resample_every=4", "rollout.num_generations=48", "rollout.max_new_tokens=5"];

const PSFT: &[&str] = &["sft.loss_type=psft", "sft.minibatches=4"];

fn config(sets: &[&[&str]]) -> TrainConfig {
    let sets: Vec<String> = sets.concat().iter().map(|s| s.to_string()).collect();
    TrainConfig::from_text(Some(Method::Sft), None, &sets).unwrap()
}

/// Keeps the metrics, and raises the flag after a step.
struct Listener<'a> {
    steps: Vec<Metrics>,
    stop: &'a AtomicBool,
    stop_at: Option<usize>,
}

impl TrainerCallback for Listener<'_> {
    fn start(&mut self, _step: usize, _total: usize) {}
    fn step(&mut self, step: usize, metrics: &Metrics) {
        self.steps.push(metrics.clone());
        self.stop.fetch_or(self.stop_at == Some(step), Ordering::SeqCst);
    }
    fn evaluation(&mut self, _step: usize, _metrics: &Metrics, _partial_credit: Option<&'static str>) {}
    fn note(&mut self, _text: &str) {}
}

fn identity() -> RunManifest {
    RunManifest {
        jigsaw: "test".into(),
        command: Vec::new(),
        model: "toy".into(),
        model_hash: "m".into(),
        prompt_hash: None,
        data: "toys".into(),
        data_hash: "d".into(),
        examples: toy::PROMPTS,
        seed: 0,
        platform: String::new(),
        started: 0,
        lengthened: Vec::new(),
    }
}

/// What the toy knows before it is trained: to answer something else than the puzzles ask for.
struct Unlearned(Puzzles);

impl Task for Unlearned {
    fn name(&self) -> &str {
        "unlearned"
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn example(&self, i: usize) -> Result<std::borrow::Cow<'_, crate::data::Record>> {
        self.0.example(i)
    }
    fn images(&self, i: usize) -> Result<Vec<image::RgbImage>> {
        self.0.images(i)
    }
    fn score(&self, i: usize, response: &str) -> crate::tasks::Score {
        let score = self.0.score(i, response);
        crate::tasks::Score { value: 1.0 - score.value, ..score }
    }
}

/// Start or go on with the run in `dir`, replaying the same puzzles where the plan says so.
fn go(dir: &Path, config: &TrainConfig, stop_at: Option<usize>) -> Result<(TrainOutcome, Vec<Metrics>)> {
    let base = dir.with_extension("base");
    std::fs::create_dir_all(&base).unwrap();
    std::fs::write(base.join("config.json"), "{}").unwrap();
    let (run, checkpoint) = match RunDir::open(dir, config, &identity(), &Single)? {
        ResumeState::Finished(finished) => return Ok((TrainOutcome::AlreadyFinished(finished), Vec::new())),
        ResumeState::Fresh(run) => (run, None),
        ResumeState::Resumed(run, checkpoint) => (run, Some(checkpoint)),
    };
    let model = Toy::load(checkpoint.as_ref().map(|c| c.dir.as_path()));
    let reference = Toy::load(None);
    let (puzzles, more, stop) = (Puzzles::new(), Puzzles::new(), AtomicBool::new(false));
    let unlearned = Unlearned(Puzzles::new());
    let job = TrainJob {
        config,
        model: &model,
        reference: Some(&reference),
        base: &base,
        encoder: &Digits,
        train: &puzzles,
        replay: (config.replayed_per_round() > 0).then_some(&more as &dyn Task),
        prior: config.prior_kl.is_some().then_some(&more as &dyn Task),
        validation: Some(&puzzles),
        prior_eval: (!config.eval.prior.is_empty()).then_some(&unlearned as &dyn Task),
        stop: &stop,
        comm: &Single,
    };
    let mut listener = Listener { steps: Vec::new(), stop: &stop, stop_at };
    let ended = train(&job, &run, checkpoint.as_ref(), &mut listener)?;
    Ok((ended, listener.steps))
}

fn finished(dir: &Path) -> RunSummary {
    crate::io::files::read_json(&dir.join("finished.json")).unwrap()
}

/// The lines of the metrics without what differs from run to run.
fn curve(dir: &Path) -> Vec<serde_json::Map<String, serde_json::Value>> {
    let mut lines = super::metrics::read_lines(&dir.join("metrics.jsonl")).unwrap();
    lines.iter_mut().for_each(|line| line.retain(|name, _| !name.ends_with("second") && !name.ends_with("seconds")));
    lines
}

fn weights(dir: &Path) -> Vec<u8> {
    std::fs::read(dir.join("model/model.safetensors")).unwrap()
}

#[test]
fn stopping_between_two_refreshes_or_two_replays_changes_nothing() {
    for (name, sets) in [
        ("on-policy", &[SFT, ON_POLICY][..]),
        ("replay", &[SFT, &["sft.replay=there"]]),
        ("proximal", &[SFT, PSFT, &["sft.replay=there"]]),
        ("with penalties", &[SFT, &["sft.loss_type=prift", "train.l2_sp=0.01", "prior_kl.data=there"]]),
        ("self-distillation", &[SFT, ON_POLICY, &["sft.loss_type=sdft", "sft.keep=all"]]),
        ("all at once", &[SFT, ON_POLICY, &["sft.replay=there", "sft.kl_coef=0.3", "sft.max_per_prompt=3"]]),
    ] {
        let config = config(sets);
        let dir = tempfile::tempdir().unwrap();
        let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
        go(&whole, &config, None).unwrap();
        for stop_at in [Some(3), Some(8), Some(14), None] {
            go(&broken, &config, stop_at).unwrap();
        }
        assert_eq!(weights(&whole), weights(&broken), "{name}");
        let lines = |dir: &Path| std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap().lines().count();
        assert_eq!(lines(&whole), lines(&broken), "{name}");
    }
}

#[test]
fn a_model_learns_from_its_own_right_responses_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (ended, steps) = go(&dir.path().join("run"), &config(&[SFT, ON_POLICY, &["train.steps=60"]]), None).unwrap();
    let TrainOutcome::Finished(finished) = ended else { panic!() };
    let correct: Vec<f64> = steps.iter().filter_map(|m| m.get("resample_correct")).collect();
    assert_eq!(correct.len(), 15, "one refresh every four steps");
    assert!(correct[0] < 0.2 && correct[14] > 0.8, "{correct:?}");
    assert_eq!(finished.metrics["eval/accuracy"], 1.0);
}

#[test]
fn without_a_single_right_response_there_is_nothing_to_train_on() {
    let dir = tempfile::tempdir().unwrap();
    let error = go(&dir.path().join("run"), &config(&[SFT, ON_POLICY, &["rollout.max_new_tokens=2"]]), None);
    let error = error.map(drop).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(
        error.to_string().contains("none of the 768 responses that the model sampled to 16 prompts is correct"),
        "{error}"
    );
}

#[test]
fn what_is_kept_of_its_own_responses_is_a_setting() {
    let kept = |keep: &str, tokens: &str| {
        let dir = tempfile::tempdir().unwrap();
        let sets = &[SFT, ON_POLICY, &["sft.max_per_prompt=48", "train.steps=4", keep, tokens]];
        go(&dir.path().join("run"), &config(sets), None).map(|(_, steps)| steps[0].get("resample_kept").unwrap())
    };
    let five = "rollout.max_new_tokens=5";
    let [correct, formed, all] =
        ["correct", "well-formed", "all"].map(|k| kept(&format!("sft.keep={k}"), five).unwrap());
    assert!(correct >= 1.0 && correct < formed && formed < all, "{correct} {formed} {all}");
    // A response that was cut off is never kept.
    let error = kept("sft.keep=all", "rollout.max_new_tokens=1").unwrap_err();
    assert!(error.to_string().contains("is complete, so there is nothing"), "{error}");
}

#[test]
fn proximal_steps_begin_at_the_old_policy_and_clip_what_has_moved_far() {
    let dir = tempfile::tempdir().unwrap();
    let (ended, steps) = go(&dir.path().join("run"), &config(&[SFT, PSFT, &["train.steps=60"]]), None).unwrap();
    let TrainOutcome::Finished(finished) = ended else { panic!() };
    let of = |name: &str| steps.iter().map(|m| m.get(name).unwrap()).collect::<Vec<f64>>();
    let (ratios, clipped) = (of("ratio"), of("clip_ratio"));
    assert!(ratios.iter().step_by(4).all(|r| (r - 1.0).abs() < 1e-6), "{ratios:?}");
    assert!(clipped.iter().step_by(4).all(|c| *c == 0.0) && clipped.iter().any(|c| *c > 0.0), "{clipped:?}");
    assert!(ratios[3] > 1.0 && steps[0].get("loss") == Some(-ratios[0]), "{ratios:?}");
    assert_eq!(finished.metrics["eval/accuracy"], 1.0);
}

#[test]
fn self_distillation_learns_what_the_start_says_once_it_has_seen_the_response() {
    for loss in ["sft.loss_type=sdft", "sft.loss_type=sdft_reverse"] {
        let dir = tempfile::tempdir().unwrap();
        let fresh: &[&str] = &["sft.resample_every=1", "sft.keep=all", "train.steps=300", "train.learning_rate=0.05"];
        let (_, steps) = go(&dir.path().join("run"), &config(&[SFT, ON_POLICY, fresh, &[loss]]), None).unwrap();
        let mean = |from: usize| steps[from..from + 10].iter().map(|m| m.get("kl").unwrap().abs()).sum::<f64>() / 10.0;
        // The toy answers a prompt with a demonstration as it answers another prompt.
        assert!(mean(0) > 1e-3 && mean(290) < 0.2 * mean(0), "{loss}: {} -> {}", mean(0), mean(290));
    }
}

#[test]
fn the_divergence_from_the_start_is_measured_and_held_back() {
    let last = |coef: &str| {
        let dir = tempfile::tempdir().unwrap();
        let (_, steps) = go(&dir.path().join("run"), &config(&[SFT, &[coef]]), None).unwrap();
        assert_eq!(steps[0].get("kl"), Some(0.0), "before the first step the model is its own start");
        steps.last().and_then(|m| m.get("kl")).unwrap()
    };
    let (free, held) = (last("sft.kl_coef=0.001"), last("sft.kl_coef=3"));
    assert!(held < 0.3 * free && held > 0.0, "{held} {free}");
}

#[test]
fn dft_learns_and_moves_unlikely_tokens_less_than_nll() {
    let run = |loss: &str| {
        let dir = tempfile::tempdir().unwrap();
        let (ended, steps) = go(&dir.path().join("run"), &config(&[SFT, &[loss, "train.steps=60"]]), None).unwrap();
        let TrainOutcome::Finished(summary) = ended else { panic!() };
        assert_eq!(summary.metrics["eval/accuracy"], 1.0, "{loss}");
        (steps[0].get("loss").unwrap(), steps[0].get("grad_norm").unwrap())
    };
    let (nll, dft) = (run("sft.loss_type=nll"), run("sft.loss_type=dft"));
    assert!(dft.0 < nll.0 && dft.1 < nll.1 && dft.0 > 0.0, "{dft:?} {nll:?}");
}

#[test]
fn an_example_is_found_in_the_dataset_that_it_comes_from() {
    let (config, model, stop) = (config(&[SFT]), Toy::load(None), AtomicBool::new(false));
    let (puzzles, more) = (Puzzles::new(), Puzzles::new());
    let job = TrainJob {
        config: &config,
        model: &model,
        reference: None,
        base: Path::new(""),
        encoder: &Digits,
        train: &puzzles,
        replay: Some(&more),
        prior: Some(&more),
        validation: None,
        prior_eval: None,
        stop: &stop,
        comm: &Single,
    };
    let ids: Vec<ExampleId> = job.examples().collect();
    assert_eq!((ids.len(), ids[1], ids[7]), (12, ExampleId::Dataset(1), ExampleId::Replay(1)));
    assert_eq!((job.record(ids[1]).unwrap().id.as_str(), job.record(ids[7]).unwrap().id.as_str()), ("toy-1", "toy-1"));
    assert!(ids.iter().all(|&id| !job.encode(id).unwrap().response.is_empty()));
    let without = TrainJob { replay: None, ..job };
    assert!(without.examples().count() == 6 && without.record(ids[7]).is_err());
    assert_eq!(without.record(ExampleId::Prior(2)).unwrap().id, "toy-2");
}

#[test]
fn a_run_of_a_version_that_did_not_know_a_setting_goes_on_with_its_default_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (run, plan) = (dir.path().join("run"), config(&[SFT]));
    go(&run, &plan, Some(3)).unwrap();
    let file = run.join("config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let unknown = [
        "loss_type",
        "epsilon_high",
        "minibatches",
        "replay",
        "replay_share",
        "kl_coef",
        "resample_every",
        "keep",
        "max_per_prompt",
        "l2_sp",
    ];
    let old: Vec<&str> = text.lines().filter(|l| !unknown.iter().any(|k| l.starts_with(&format!("{k} =")))).collect();
    assert_eq!(old.len() + unknown.len(), text.lines().count());
    std::fs::write(&file, old.join("\n")).unwrap();
    let error = go(&run, &config(&[SFT, &["sft.kl_coef=0.5"]]), None).map(drop).unwrap_err();
    assert!(error.to_string().contains("sft.kl_coef: 0.0 -> 0.5"), "{error}");
    assert!(matches!(go(&run, &plan, None).unwrap().0, TrainOutcome::Finished(_)));
}

#[test]
fn a_run_goes_on_with_the_prompt_files_that_it_began_with_if_it_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let (run, plan) = (dir.path().join("run"), config(&[SFT]));
    let with = |hash: &str| RunManifest { prompt_hash: Some(hash.into()), ..identity() };
    let open = |identity: &RunManifest| RunDir::open(&run, &plan, identity, &Single).map(drop);
    // Of an earlier version, which did not say.
    go(&run, &plan, Some(3)).unwrap();
    assert!(!std::fs::read_to_string(run.join("run.json")).unwrap().contains("prompt_hash"));
    open(&with("a")).unwrap();
    crate::io::files::write_json(&run.join("run.json"), &with("a")).unwrap();
    open(&with("a")).unwrap();
    let error = open(&with("b")).unwrap_err();
    let said = error.to_string();
    assert!(error.exit_code() == 2 && said.contains("model: its tokenizer, chat template, image or"), "{said}");
    assert!(said.contains("(toy)"), "{said}");
}

#[test]
fn a_run_ends_at_a_loss_or_a_reward_on_validation_which_are_measured_only_for_that() {
    let dir = tempfile::tempdir().unwrap();
    let long: &[&str] = &["eval.steps=2", "train.steps=60", "train.save_best=true"];
    let of = |name: &str, criterion: &str| {
        let run = dir.path().join(name);
        go(&run, &config(&[SFT, long, &[&format!("train.stop_when={criterion}")]]), None).unwrap();
        run
    };
    let measured = |run: &Path, name: &str| -> Vec<f64> {
        curve(run).iter().filter_map(|line| line.get(name)?.as_f64()).collect()
    };
    let loss = of("loss", "loss <= 0.3");
    let losses = measured(&loss, "eval/loss");
    // Before the first step: the mean over the response tokens of all six puzzles, scored one by one.
    let (toy, puzzles) = (Toy::load(None), Puzzles::new());
    let scored = (0..toy::PROMPTS).flat_map(|i| {
        let sequence = crate::tasks::reference_sequence(&puzzles, &Digits, i).unwrap();
        crate::model::LanguageModel::score(&toy, &[sequence], 1.0).unwrap().logprobs
    });
    let scored: Vec<f64> = scored.map(f64::from).collect();
    let expected = -scored.iter().sum::<f64>() / scored.len() as f64;
    assert!((losses[0] - expected).abs() < 1e-6 && losses[0] > 0.8, "{losses:?} {expected}");
    let (last, before) = losses.split_last().unwrap();
    assert!(*last <= 0.3 && before.iter().all(|loss| *loss > 0.3), "{losses:?}");
    let ended = finished(&loss);
    assert!(ended.step < 60 && ended.criterion.unwrap().met);
    let best = ended.best.unwrap().evaluation;
    assert_eq!((best.measure.as_str(), best.value, best.step), ("loss", *last, ended.step));
    // A right answer earns all three terms of the reward.
    let reward = of("reward", "reward >= 2.9");
    let (rewards, right) = (measured(&reward, "eval/reward"), measured(&reward, "eval/accuracy"));
    assert!(finished(&reward).criterion.unwrap().met && rewards.last().is_some_and(|last| *last >= 2.9), "{rewards:?}");
    assert!(rewards.iter().zip(&right).all(|(reward, right)| *reward >= 3.0 * right - 1e-9), "{rewards:?} {right:?}");
    let accuracy = of("accuracy", "accuracy >= 0.9");
    for (run, absent) in
        [(&loss, "eval/reward"), (&reward, "eval/loss"), (&accuracy, "eval/loss"), (&accuracy, "eval/reward")]
    {
        assert!(measured(run, absent).is_empty(), "{absent}");
    }
}

#[test]
fn the_best_checkpoint_is_kept_and_named_however_often_the_run_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    let best: &[&str] = &["train.save_best=true", "train.save_total_limit=1", "eval.steps=2", "train.steps=40"];
    let config = config(&[SFT, best]);
    go(&whole, &config, None).unwrap();
    for stop_at in [Some(3), Some(9), None] {
        go(&broken, &config, stop_at).unwrap();
    }
    let kept = finished(&whole).best.unwrap();
    let accuracy = |line: &serde_json::Map<_, _>| line.get("eval/accuracy").and_then(serde_json::Value::as_f64);
    let most = curve(&whole).iter().filter_map(accuracy).fold(0.0, f64::max);
    let first = curve(&whole).iter().find(|line| accuracy(line) == Some(most)).unwrap()["step"].as_u64().unwrap();
    assert_eq!((kept.evaluation.measure.as_str(), kept.evaluation.value), ("accuracy", most));
    assert!(kept.evaluation.step as u64 == first && first < 40, "the first of the best: {kept:?}");
    let checkpoints: Vec<_> = std::fs::read_dir(whole.join("checkpoints")).unwrap().collect();
    assert_eq!(checkpoints.len(), 2, "the best and the last");
    assert_eq!(finished(&broken).best.as_ref(), Some(&kept));
    let read = |run: &Path, file: &str| std::fs::read(run.join(file)).unwrap();
    let model = format!("{}/model.safetensors", kept.checkpoint);
    for file in ["best.json", model.as_str(), "model/model.safetensors"] {
        assert_eq!(read(&whole, file), read(&broken, file), "{file}");
    }
}

#[test]
fn a_run_ends_where_prior_knowledge_is_shown_to_be_lost_and_names_the_checkpoint_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    let forgets: &[&str] =
        &["eval.prior=there", "eval.steps=2", "train.steps=60", "train.learning_rate=0.05", "train.save_total_limit=1"];
    let limited = config(&[SFT, forgets, &["train.stop_when_forgotten=0.1"]]);
    go(&whole, &limited, None).unwrap();
    let summary = finished(&whole);
    let forgotten = summary.forgotten.unwrap();
    assert!(forgotten.change.high < -0.1 && summary.step < 60 && summary.step > 2, "{forgotten:?}");
    // It is the first evaluation that shows it, and the model of the one before it is there.
    let high = |line: &serde_json::Map<_, _>| line.get("eval/prior_change_high").and_then(serde_json::Value::as_f64);
    let measured: Vec<f64> = curve(&whole).iter().filter_map(high).collect();
    let (last, before) = measured.split_last().unwrap();
    assert!(*last < -0.1 && before.iter().all(|high| *high >= -0.1), "{measured:?}");
    assert!(curve(&whole)[0]["eval/prior_score"].as_f64().unwrap() > 0.8, "before the first step");
    let kept = forgotten.checkpoint_before.unwrap();
    assert_eq!(kept, format!("checkpoints/step-{:08}", summary.step - 2));
    assert!(whole.join(&kept).join("manifest.json").exists());
    for stop_at in [Some(1), Some(summary.step - 1), None] {
        go(&broken, &limited, stop_at).unwrap();
    }
    assert_eq!((finished(&broken), weights(&broken)), (finished(&whole), weights(&whole)));
    // Without a limit the loss is measured, and the run goes on.
    let free = dir.path().join("free");
    go(&free, &config(&[SFT, forgets]), None).unwrap();
    assert!(finished(&free).step == 60 && finished(&free).forgotten.is_none());
    assert!(curve(&free).iter().filter_map(high).any(|high| high < -0.1));
}

#[test]
fn a_finished_run_is_lengthened_to_the_bytes_of_a_run_of_that_length() {
    let dir = tempfile::tempdir().unwrap();
    let constant: &[&str] = &[
        "train.lr_scheduler_type=constant",
        "train.warmup_steps=3",
        "eval.steps=5",
        "sft.resample_every=5",
        "train.save_steps=5",
    ];
    let of = |steps: &str| config(&[SFT, ON_POLICY, &["sft.replay=there"], constant, &[steps]]);
    let (whole, longer) = (dir.path().join("whole"), dir.path().join("longer"));
    go(&whole, &of("train.steps=20"), None).unwrap();
    go(&longer, &of("train.steps=10"), None).unwrap();
    let error = go(&longer, &of("train.steps=20"), None).map(drop).unwrap_err().to_string();
    assert!(error.contains("train.steps: 10 -> 20") && error.contains("train --resume"), "{error}");
    assert_eq!(RunDir::lengthen(&longer, &of("train.steps=20"), &identity()).unwrap(), None);
    assert!(!longer.join("finished.json").exists());
    // Stopped on the way, it is resumed as any run.
    go(&longer, &of("train.steps=20"), Some(13)).unwrap();
    go(&longer, &of("train.steps=20"), None).unwrap();
    assert_eq!(finished(&longer), finished(&whole));
    assert_eq!(curve(&longer), curve(&whole));
    let read = |run: &Path, file: &str| std::fs::read(run.join(file)).unwrap();
    let moments = "checkpoints/step-00000020/trainer/optimizer.safetensors";
    for file in ["model/model.safetensors", "config.toml", "examples.jsonl", moments] {
        assert_eq!(read(&whole, file), read(&longer, file), "{file}");
    }
    let manifest: RunManifest = crate::io::files::read_json(&longer.join("run.json")).unwrap();
    assert_eq!((manifest.lengthened.len(), manifest.lengthened[0].after), (1, 10));
    assert_eq!(manifest.lengthened[0].settings, ["train.steps: 10 -> 20"]);
}

#[test]
fn what_a_lengthened_run_cannot_be_is_refused_or_said() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let of = |sets: &[&str]| config(&[SFT, &["train.steps=10"], sets]);
    let lengthen = |sets: &[&str]| RunDir::lengthen(&run, &of(sets), &identity());
    assert!(lengthen(&[]).unwrap_err().to_string().contains("no run that has begun"));
    go(&run, &of(&[]), None).unwrap();
    let before = finished(&run);
    for (sets, why) in [
        (&["train.steps=20", "train.batch_size=3"][..], "train.batch_size: 4 -> 3"),
        (&["train.steps=8"], "10 steps are made already"),
        (&["train.stop_when=accuracy >= 0.9"], "10 steps are made already"),
    ] {
        let error = lengthen(sets).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(why), "{error}");
        assert_eq!(finished(&run), before, "the run is left as it is");
    }
    let other = RunManifest { data_hash: "e".into(), ..identity() };
    let error = RunDir::lengthen(&run, &of(&["train.steps=20"]), &other).unwrap_err().to_string();
    assert!(error.contains("data: its content differs"), "{error}");
    // A cosine goes on along that of the new length, which is not that of a run of this length from the start.
    let note = lengthen(&["train.steps=20"]).unwrap().unwrap();
    assert!(note.contains("the 10 steps so far had the learning rates of a run of 10 steps"), "{note}");
    go(&run, &of(&["train.steps=20"]), None).unwrap();
    let rates: Vec<f64> = curve(&run).iter().filter_map(|line| line.get("learning_rate")?.as_f64()).collect();
    assert_eq!(rates.len(), 20);
    assert!(rates[9] < 0.01 && rates[10] > 0.09 && rates[19] < 0.01, "{rates:?}");
}

#[test]
fn a_run_that_met_its_criterion_goes_on_to_a_higher_one() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let of = |criterion: &str, steps: &str| {
        config(&[SFT, &["eval.steps=2", criterion, "train.lr_scheduler_type=constant", steps]])
    };
    let (low, high) = ("train.stop_when=accuracy >= 0.3", "train.stop_when=accuracy >= 0.9");
    go(&run, &of(low, "train.steps=60"), None).unwrap();
    let first = finished(&run);
    assert!(first.step < 60 && first.criterion.unwrap().met);
    let error = RunDir::lengthen(&run, &of(low, "train.steps=80"), &identity()).unwrap_err().to_string();
    assert!(error.contains("ended because accuracy >= 0.3 was met; change train.stop_when too"), "{error}");
    RunDir::lengthen(&run, &of(high, "train.steps=80"), &identity()).unwrap();
    go(&run, &of(high, "train.steps=80"), None).unwrap();
    let second = finished(&run);
    assert!(second.step > first.step && second.criterion.unwrap().met);
    // One that is not met says so.
    let short = dir.path().join("short");
    let slow: &[&str] = &["eval.steps=2", high, "train.steps=2", "train.learning_rate=0.001"];
    go(&short, &config(&[SFT, slow]), None).unwrap();
    assert!(!finished(&short).criterion.unwrap().met);
}
