//! SFT on examples from elsewhere, on a toy policy: on its own responses, on replayed ones, near its start.

#[path = "../../tests/toy/mod.rs"]
mod toy;

use super::metrics::Metrics;
use super::run_dir::{ResumeState, RunDir, RunManifest};
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
        stop: &stop,
        comm: &Single,
    };
    let mut listener = Listener { steps: Vec::new(), stop: &stop, stop_at };
    let ended = train(&job, &run, checkpoint.as_ref(), &mut listener)?;
    Ok((ended, listener.steps))
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
        let fresh: &[&str] = &["sft.resample_every=1", "sft.keep=all", "train.steps=100", "train.learning_rate=0.05"];
        let (_, steps) = go(&dir.path().join("run"), &config(&[SFT, ON_POLICY, fresh, &[loss]]), None).unwrap();
        let mean = |from: usize| steps[from..from + 10].iter().map(|m| m.get("kl").unwrap().abs()).sum::<f64>() / 10.0;
        // The toy answers a prompt with a demonstration as it answers another prompt.
        assert!(mean(0) > 1e-3 && mean(90) < 0.2 * mean(0), "{loss}: {} -> {}", mean(0), mean(90));
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
