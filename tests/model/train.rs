//! The training loops on a toy model: they learn, they stop and go on to the same bytes, they refuse what cannot work.

use crate::toy;
use crate::toy::{Digits, Puzzles, Toy};
use jigsaw::Result;
use jigsaw::comm::Single;
use jigsaw::train::metrics::Metrics;
use jigsaw::train::objective::needs_reference;
use jigsaw::train::run_dir::{ResumeState, RunDir, RunManifest};
use jigsaw::train::settings::{Method, TrainConfig};
use jigsaw::train::{TrainJob, TrainOutcome, TrainerCallback, train};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SFT: &[&str] = &[
    "train.steps=40",
    "train.batch_size=3",
    "train.learning_rate=0.2",
    "train.warmup_steps=2",
    "train.weight_decay=0.01",
    "train.save_steps=5",
    "eval.steps=10",
];
pub(crate) const RFT: &[&str] = &[
    "train.steps=120",
    "train.batch_size=6",
    "train.learning_rate=0.1",
    "train.save_steps=20",
    "rollout.num_generations=16",
    "rollout.max_new_tokens=5",
    "eval.steps=40",
];

pub(crate) fn config(method: Method, sets: &[&[&str]]) -> TrainConfig {
    let sets: Vec<String> = sets.iter().flat_map(|s| s.iter()).map(|s| s.to_string()).collect();
    TrainConfig::from_text(Some(method), None, &sets).unwrap()
}

#[derive(Default)]
pub(crate) struct Told {
    pub(crate) steps: Vec<Metrics>,
    pub(crate) evaluations: Vec<(usize, Metrics)>,
    pub(crate) notes: Vec<String>,
}

/// Listens, and raises the stop flag after a step.
struct Listener<'a> {
    told: &'a mut Told,
    stop: &'a AtomicBool,
    stop_at: Option<usize>,
    stop_when_paused: bool,
}

impl TrainerCallback for Listener<'_> {
    fn start(&mut self, _step: usize, _total: usize) {}
    fn step(&mut self, step: usize, metrics: &Metrics) {
        self.told.steps.push(metrics.clone());
        self.stop.fetch_or(self.stop_at == Some(step), Ordering::SeqCst);
    }
    fn evaluation(&mut self, step: usize, metrics: &Metrics, _partial_credit: Option<&'static str>) {
        self.told.evaluations.push((step, metrics.clone()));
    }
    fn note(&mut self, text: &str) {
        self.told.notes.push(text.to_string());
        self.stop.fetch_or(self.stop_when_paused && text.starts_with("paused"), Ordering::SeqCst);
    }
}

fn identity(data: &str) -> RunManifest {
    RunManifest {
        jigsaw: "test".into(),
        command: Vec::new(),
        model: "toy".into(),
        model_hash: "m".into(),
        prompt_hash: None,
        data: "toys".into(),
        data_hash: data.into(),
        examples: toy::PROMPTS,
        seed: 0,
        platform: String::new(),
        started: 0,
        lengthened: Vec::new(),
    }
}

pub(crate) struct Way {
    pub(crate) stop_at: Option<usize>,
    pub(crate) stop_when_paused: bool,
    pub(crate) delay: Duration,
    pub(crate) poison: Option<usize>,
    pub(crate) orphan: bool,
}

pub(crate) const PLAIN: Way =
    Way { stop_at: None, stop_when_paused: false, delay: Duration::ZERO, poison: None, orphan: false };

/// Start or go on with the run in `dir`, as the command line does.
pub(crate) fn go(dir: &Path, config: &TrainConfig, way: Way) -> (Result<TrainOutcome>, Told) {
    let base = dir.with_extension("base");
    std::fs::create_dir_all(&base).unwrap();
    std::fs::write(base.join("config.json"), "{}").unwrap();
    let mut told = Told::default();
    let (run, checkpoint) = match RunDir::open(dir, config, &identity("d"), &Single) {
        Err(e) => return (Err(e), told),
        Ok(ResumeState::Finished(f)) => return (Ok(TrainOutcome::Finished(f)), told),
        Ok(ResumeState::Fresh(run)) => (run, None),
        Ok(ResumeState::Resumed(run, checkpoint)) => (run, Some(checkpoint)),
    };
    let mut model = Toy::load(checkpoint.as_ref().map(|c| c.dir.as_path()));
    (model.delay, model.poison) = (way.delay, way.poison);
    if way.orphan {
        model = model.with_orphan();
    }
    let reference = Toy::load(None);
    let (puzzles, stop) = (Puzzles::new(), AtomicBool::new(false));
    let job = TrainJob {
        config,
        model: &model,
        reference: needs_reference(config).then_some(&reference as _),
        base: &base,
        encoder: &Digits,
        train: &puzzles,
        replay: None,
        prior: config.prior_kl.is_some().then_some(&puzzles as _),
        validation: Some(&puzzles),
        prior_eval: None,
        stop: &stop,
        comm: &Single,
    };
    let Way { stop_at, stop_when_paused, .. } = way;
    let mut listener = Listener { told: &mut told, stop: &stop, stop_at, stop_when_paused };
    let ended = train(&job, &run, checkpoint.as_ref(), &mut listener);
    (ended, told)
}

pub(crate) fn weights(dir: &Path) -> Vec<u8> {
    std::fs::read(dir.join("model/model.safetensors")).unwrap()
}

pub(crate) fn metric(metrics: &Metrics, name: &str) -> f64 {
    metrics.get(name).unwrap_or_else(|| panic!("no {name} in {metrics:?}"))
}

#[test]
fn sft_learns_the_answers() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let (ended, told) = go(&out, &config(Method::Sft, &[SFT]), PLAIN);
    let TrainOutcome::Finished(finished) = ended.unwrap() else { panic!() };
    assert_eq!((finished.step, told.steps.len()), (40, 40));
    assert!(metric(&told.steps[0], "loss") > 0.9 && metric(&told.steps[39], "loss") < 0.1);
    assert!(metric(&told.evaluations[0].1, "eval/accuracy") < 0.5);
    assert_eq!(finished.metrics["eval/accuracy"], 1.0);
    // Warm-up from 0 over two steps, then a cosine to 0.
    let rates: Vec<f64> = told.steps.iter().map(|m| metric(m, "learning_rate")).collect();
    assert!(rates[0] == 0.0 && (rates[1] - 0.1).abs() < 1e-12 && (rates[2] - 0.2).abs() < 1e-12 && rates[39] < 0.01);
    for file in ["config.toml", "run.json", "metrics.jsonl", "samples.jsonl", "finished.json", "model/config.json"] {
        assert!(out.join(file).exists(), "{file}");
    }
    assert_eq!(std::fs::read_dir(out.join("checkpoints")).unwrap().count(), 2, "the oldest checkpoints are removed");
    let lines = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().filter(|l| l.contains("\"loss\"")).count(), 40);
    assert_eq!(lines.lines().filter(|l| l.contains("eval/accuracy")).count(), 5);
}

#[test]
fn every_loss_type_of_grpo_learns_from_rewards_alone() {
    for loss in ["grpo", "bnpo", "dr_grpo", "dapo", "cispo"] {
        let dir = tempfile::tempdir().unwrap();
        let loss_type = format!("grpo.loss_type={loss}");
        let mut sets = vec![loss_type.as_str(), "train.steps=250", "reward.require_valid=false"];
        if loss == "cispo" {
            sets.push("grpo.epsilon_high=5");
        }
        let (ended, told) = go(&dir.path().join("run"), &config(Method::Rft, &[RFT, &sets]), PLAIN);
        let TrainOutcome::Finished(finished) = ended.unwrap() else { panic!() };
        let reward = |from: usize| told.steps[from..from + 5].iter().map(|m| metric(m, "reward")).sum::<f64>() / 5.0;
        assert!(reward(0) < 0.8 && reward(245) > 2.7, "{loss}: {} -> {}", reward(0), reward(245));
        assert!(finished.metrics["eval/accuracy"].as_f64().unwrap() > 0.8, "{loss}");
        let first = &told.steps[0];
        assert_eq!(metric(first, "clip_ratio"), 0.0);
        assert!((metric(first, "ratio") - 1.0).abs() < 1e-12);
        let parts =
            ["reward_partial_credit", "reward_accuracy", "reward_format"].iter().map(|p| metric(first, p)).sum::<f64>();
        assert!((parts - metric(first, "reward")).abs() < 1e-9);
    }
}

#[test]
fn several_steps_a_rollout_clip_the_ratio_and_a_reference_holds_the_policy_back() {
    let reused: &[&str] =
        &["grpo.num_iterations=2", "grpo.minibatches=2", "train.batch_size=3", "reward.require_valid=false"];
    let run = |extra: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let (ended, told) = go(&dir.path().join("run"), &config(Method::Rft, &[RFT, reused, extra]), PLAIN);
        ended.unwrap();
        told
    };
    let free = run(&[]);
    assert!(free.steps.iter().any(|m| metric(m, "clip_ratio") > 0.0), "later steps of a rollout batch are off-model");
    assert!(metric(&free.steps[119], "reward") > 2.0);
    let held = run(&["grpo.beta=2"]);
    assert_eq!(metric(&free.steps[119], "kl"), 0.0);
    assert!(metric(&held.steps[119], "kl") > 0.0);
    assert!(metric(&held.steps[119], "reward") < metric(&free.steps[119], "reward") - 0.5);
}

#[test]
fn dynamic_sampling_replaces_groups_that_teach_nothing() {
    let run = |extra: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let few: &[&str] =
            &["rollout.num_generations=3", "train.batch_size=4", "train.steps=10", "train.learning_rate=0.001"];
        let (ended, told) = go(&dir.path().join("run"), &config(Method::Rft, &[RFT, few, extra]), PLAIN);
        ended.unwrap();
        let mean = |name: &str| told.steps.iter().map(|m| metric(m, name)).sum::<f64>() / 10.0;
        (mean("frac_reward_zero_std"), mean("prompts_drawn"))
    };
    let (equal, drawn) = run(&[]);
    let (equal_after, drawn_after) = run(&["grpo.dynamic_sampling=4"]);
    assert!(equal > 0.2 && drawn == 4.0, "{equal} {drawn}");
    assert!(equal_after < 0.5 * equal && drawn_after > 4.0 && drawn_after <= 20.0, "{equal_after} {drawn_after}");
}

#[test]
fn eight_micro_batches_of_one_train_as_one_of_eight() {
    for (method, sets) in [(Method::Sft, SFT), (Method::Rft, RFT)] {
        let run = |cut: &[&str]| {
            let dir = tempfile::tempdir().unwrap();
            let (ended, told) = go(&dir.path().join("run"), &config(method, &[sets, &["train.steps=6"], cut]), PLAIN);
            ended.unwrap();
            told.steps
        };
        let whole = run(&["train.batch_size=8", "train.gradient_accumulation_steps=1"]);
        let cut = run(&["train.batch_size=1", "train.gradient_accumulation_steps=8"]);
        for (a, b) in whole.iter().zip(&cut) {
            for name in ["loss", "grad_norm"] {
                let (a, b) = (metric(a, name), metric(b, name));
                assert!((a - b).abs() < 1e-5 * a.abs().max(1e-2), "{method} {name}: {a} {b}");
            }
        }
    }
}

const PENALTIES: &[&str] = &["train.l2_sp=0.02", "prior_kl.data=there", "prior_kl.coef=0.5", "prior_kl.batch_size=4"];

#[test]
fn penalties_hold_a_policy_that_learns_from_rewards_near_its_start() {
    let run = |extra: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let (ended, told) = go(&dir.path().join("run"), &config(Method::Rft, &[RFT, extra]), PLAIN);
        ended.unwrap();
        told.steps
    };
    let weak = run(&["train.l2_sp=1e-9", "prior_kl.data=there", "prior_kl.coef=1e-6", "prior_kl.batch_size=6"]);
    let strong = run(&["train.l2_sp=1e-9", "prior_kl.data=there", "prior_kl.coef=3", "prior_kl.batch_size=6"]);
    let pulled = run(&["train.l2_sp=1"]);
    assert_eq!((metric(&weak[0], "prior_kl"), metric(&weak[0], "l2_sp")), (0.0, 0.0), "nothing has moved yet");
    assert_eq!(pulled[0].get("prior_kl"), None);
    let (weak, strong, pulled) = (&weak[119], &strong[119], &pulled[119]);
    let (free, held) = (metric(weak, "prior_kl"), metric(strong, "prior_kl"));
    assert!(held < 0.3 * free && held > 0.0, "{held} {free}");
    // Squared distances.
    let (free, held) = (metric(weak, "l2_sp") * 1e9, metric(pulled, "l2_sp"));
    assert!(held < 0.3 * free && held > 0.0, "{held} {free}");
}

fn cases() -> Vec<(&'static str, TrainConfig)> {
    let accumulate: &[&str] = &["train.batch_size=2", "train.gradient_accumulation_steps=3", "train.save_steps=4"];
    let kl: &[&str] = &[
        "train.steps=40",
        "grpo.beta=0.02",
        "grpo.dynamic_sampling=2",
        "grpo.num_iterations=2",
        "grpo.entropy_coef=0.01",
    ];
    vec![
        ("sft", config(Method::Sft, &[SFT, accumulate])),
        ("rft", config(Method::Rft, &[RFT, accumulate, &["train.steps=40", "rollout.log_completions=true"]])),
        ("rft-kl", config(Method::Rft, &[RFT, accumulate, kl])),
        ("rft-penalties", config(Method::Rft, &[RFT, PENALTIES, &["train.steps=40"]])),
    ]
}

#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_bytes_and_the_same_metrics() {
    for (name, config) in cases() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
        go(&whole, &config, PLAIN).0.unwrap();
        for stop_at in [Some(5), Some(18), None] {
            let (ended, _) = go(&broken, &config, Way { stop_at, ..PLAIN });
            match (ended.unwrap(), stop_at) {
                (TrainOutcome::Stopped(step), Some(at)) => assert!(step == at || step == at + 1, "{step}"),
                (TrainOutcome::Finished(f), None) => assert_eq!(f.step, 40),
                (ended, _) => panic!("{ended:?}"),
            }
        }
        assert_eq!(weights(&whole), weights(&broken), "{name}");
        assert_eq!(curve(&whole), curve(&broken), "{name}");
        for file in ["examples.jsonl", "samples.jsonl", "rollouts.jsonl"] {
            let bytes = |dir: &Path| std::fs::read(dir.join(file)).ok();
            assert_eq!(bytes(&whole), bytes(&broken), "{name}: {file}");
            assert_eq!(bytes(&whole).is_some(), file != "rollouts.jsonl" || name == "rft", "{name}: {file}");
        }
    }
}

#[test]
fn the_logs_of_a_run_hold_what_an_outside_check_needs() {
    let dir = tempfile::tempdir().unwrap();
    let sets: &[&str] =
        &["train.steps=6", "train.batch_size=4", "rollout.num_generations=3", "rollout.log_completions=true"];
    go(&dir.path().join("run"), &config(Method::Rft, &[RFT, sets]), PLAIN).0.unwrap();
    let lines = |file: &str| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(dir.path().join("run").join(file)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (rollouts, examples) = (lines("rollouts.jsonl"), lines("examples.jsonl"));
    let metrics: Vec<_> = lines("metrics.jsonl").into_iter().filter(|line| line.get("loss").is_some()).collect();
    assert_eq!((rollouts.len(), examples.len(), metrics.len()), (6 * 4 * 3, 6, 6));
    let number = |line: &serde_json::Value, key: &str| line[key].as_f64().unwrap();
    for (step, (of_step, metrics)) in rollouts.chunks(12).zip(&metrics).enumerate() {
        assert!(of_step.iter().all(|line| line["step"] == step + 1), "steps count as in metrics.jsonl, from 1");
        let ids: Vec<&serde_json::Value> = of_step.iter().step_by(3).map(|line| &line["id"]).collect();
        assert_eq!(examples[step]["step"], step + 1);
        assert_eq!(examples[step]["ids"].as_array().unwrap().iter().collect::<Vec<_>>(), ids);
        let mean = of_step.iter().map(|line| number(line, "reward")).sum::<f64>() / 12.0;
        assert!((mean - number(metrics, "reward")).abs() < 1e-12);
        for group in of_step.chunks(3) {
            let rewards: Vec<f64> = group.iter().map(|line| number(line, "reward")).collect();
            let advantages =
                jigsaw::train::objective::advantages(&rewards, 3, jigsaw::train::settings::ScaleRewards::Group);
            assert_eq!(group.iter().map(|line| number(line, "advantage")).collect::<Vec<_>>(), advantages);
        }
        for line in of_step {
            let (ids, logprobs) = (line["token_ids"].as_array().unwrap(), line["logprobs"].as_array().unwrap());
            assert!(!ids.is_empty() && ids.len() == logprobs.len());
            assert!(logprobs.iter().all(|logprob| logprob.as_f64().unwrap() <= 0.0));
        }
    }
}

/// Metrics without what depends on the clock.
fn curve(dir: &Path) -> Vec<serde_json::Map<String, serde_json::Value>> {
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let line = |l: &str| {
        let mut map: serde_json::Map<_, _> = serde_json::from_str(l).unwrap();
        map.retain(|k, _| !k.ends_with("second") && !k.ends_with("seconds"));
        map
    };
    text.lines().map(line).collect()
}

/// Not a test of its own: the process that `a_killed_run...` kills.
#[test]
#[ignore = "started by another test"]
fn child() {
    let Ok(out) = std::env::var("JIGSAW_TEST_OUT") else { return };
    let case = std::env::var("JIGSAW_TEST_CASE").unwrap();
    let (_, config) = cases().into_iter().find(|(name, _)| *name == case).unwrap();
    let (ended, _) = go(Path::new(&out), &config, Way { delay: Duration::from_millis(3), ..PLAIN });
    ended.unwrap();
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    for (name, config) in cases() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
        go(&whole, &config, PLAIN).0.unwrap();
        let (mut kills, mut wait) = (0, 40);
        loop {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "train::child", "--ignored"])
                .env("JIGSAW_TEST_OUT", &killed)
                .env("JIGSAW_TEST_CASE", name)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            let started = std::time::Instant::now();
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break Some(status);
                }
                if started.elapsed() > Duration::from_millis(wait) {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    break None;
                }
                std::thread::sleep(Duration::from_millis(1));
            };
            match status {
                Some(status) => {
                    assert!(status.success());
                    break;
                }
                None => kills += 1,
            }
            // Longer each time, and never the same length, so that the run is hit in many places but ends.
            wait += 37;
        }
        assert!(kills >= 2, "{name} was killed {kills} times");
        assert_eq!(weights(&whole), weights(&killed), "{name}");
        assert_eq!(curve(&whole), curve(&killed), "{name}");
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_an_older_one_and_later_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, damaged) = (dir.path().join("whole"), dir.path().join("damaged"));
    let plan = config(Method::Sft, &[SFT]);
    go(&whole, &plan, PLAIN).0.unwrap();
    let step = |n: usize| damaged.join(format!("checkpoints/step-{n:08}"));
    let cut = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    };
    let flip = |path: &Path| {
        let mut bytes = std::fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    let remove = |path: &Path| std::fs::remove_file(path).unwrap();
    for (file, damage) in [
        ("model.safetensors", &cut as &dyn Fn(&Path)),
        ("model.safetensors", &flip),
        ("trainer/state.json", &flip),
        ("manifest.json", &remove),
    ] {
        let (ended, _) = go(&damaged, &plan, Way { stop_at: Some(22), ..PLAIN });
        assert_eq!(ended.unwrap(), TrainOutcome::Stopped(22));
        damage(&step(22).join(file));
        let (ended, told) = go(&damaged, &plan, PLAIN);
        ended.unwrap();
        assert_eq!(told.steps.len(), 20, "{file}: from the checkpoint of step 20");
        assert_eq!(weights(&whole), weights(&damaged), "{file}");
        assert_eq!(curve(&whole), curve(&damaged), "{file}");
        assert!(!step(22).exists() && step(40).exists(), "{file}");
        std::fs::remove_dir_all(&damaged).unwrap();
    }
}

#[test]
fn what_lies_where_a_checkpoint_goes_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, out) = (dir.path().join("whole"), dir.path().join("run"));
    let plan = config(Method::Sft, &[SFT]);
    go(&whole, &plan, PLAIN).0.unwrap();
    go(&out, &plan, Way { stop_at: Some(3), ..PLAIN }).0.unwrap();
    let obstacle = out.join("checkpoints/step-00000010");
    std::fs::write(&obstacle, "in the way").unwrap();
    let (ended, told) = go(&out, &plan, PLAIN);
    ended.unwrap();
    assert_eq!(told.steps.len(), 37, "from the checkpoint of step 3");
    assert!(!obstacle.is_file());
    let partial = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
    assert!(!std::fs::read_dir(out.join("checkpoints")).unwrap().flatten().any(partial));
    assert_eq!(weights(&whole), weights(&out));
}

#[test]
fn a_finished_run_repeated_does_nothing_and_other_settings_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let plan = config(Method::Sft, &[SFT]);
    go(&out, &plan, PLAIN).0.unwrap();
    let before = weights(&out);
    let (ended, told) = go(&out, &plan, PLAIN);
    assert!(matches!(ended.unwrap(), TrainOutcome::Finished(f) if f.step == 40) && told.steps.is_empty());
    assert_eq!(weights(&out), before);

    let (ended, _) = go(&out, &config(Method::Sft, &[SFT, &["train.learning_rate=0.1"]]), PLAIN);
    let error = ended.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("train.learning_rate: 0.2 -> 0.1"), "{error}");
    let Err(error) = RunDir::open(&out, &plan, &identity("other"), &Single) else { panic!("other data accepted") };
    assert!(error.to_string().contains("data"), "{error}");

    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.tex"), "precious").unwrap();
    let Err(error) = RunDir::open(&foreign, &plan, &identity("d"), &Single) else {
        panic!("foreign directory accepted")
    };
    assert!(error.to_string().contains("not empty"), "{error}");
}

#[test]
fn two_processes_cannot_train_in_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let plan = config(Method::Sft, &[SFT]);
    let Ok(ResumeState::Fresh(_held)) = RunDir::open(dir.path(), &plan, &identity("d"), &Single) else { panic!() };
    let Err(error) = RunDir::open(dir.path(), &plan, &identity("d"), &Single) else { panic!("opened twice") };
    assert!(error.to_string().contains("another process"), "{error}");
}

#[test]
fn a_parameter_that_no_gradient_reaches_is_named_before_the_first_step() {
    // Where no evaluation comes first, the first step of SFT looks at its own gradients.
    let at_once = [SFT, &["eval.steps=0"]].concat();
    for (method, sets) in [(Method::Sft, SFT), (Method::Sft, &at_once), (Method::Rft, RFT)] {
        let dir = tempfile::tempdir().unwrap();
        let (ended, told) = go(&dir.path().join("run"), &config(method, &[sets]), Way { orphan: true, ..PLAIN });
        let error = ended.unwrap_err().to_string();
        assert!(error.contains("orphan.weight") && !error.contains("table.weight"), "{error}");
        assert!(told.steps.is_empty());
        let frozen = config(method, &[sets, &["train.freeze=[\"orphan\"]"]]);
        // Nothing was trained, so the same directory takes other settings.
        go(&dir.path().join("run"), &frozen, Way { orphan: true, ..PLAIN }).0.unwrap();
    }
}

#[test]
fn a_loss_that_is_not_a_number_stops_the_run_with_step_and_examples_and_keeps_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    // One call for the start-up guard, then one a step.
    let (ended, told) = go(&out, &config(Method::Sft, &[SFT]), Way { poison: Some(13), ..PLAIN });
    let error = ended.unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let text = error.to_string();
    assert!(text.contains("step 13") && text.contains("toy-"), "{text}");
    assert_eq!(told.steps.len(), 12);
    assert!(out.join("checkpoints/step-00000010/manifest.json").exists());
    // Without the poison it goes on from there.
    let (ended, told) = go(&out, &config(Method::Sft, &[SFT]), PLAIN);
    ended.unwrap();
    assert_eq!(told.steps.len(), 30);
}

#[test]
fn an_example_that_is_too_long_is_refused_by_id_before_the_first_step() {
    let dir = tempfile::tempdir().unwrap();
    let (ended, told) = go(&dir.path().join("run"), &config(Method::Sft, &[SFT, &["train.max_length=4"]]), PLAIN);
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("toy-0 (5)") && told.steps.is_empty() && told.evaluations.is_empty(), "{error}");
    go(&dir.path().join("other"), &config(Method::Sft, &[SFT, &["train.max_length=5"]]), PLAIN).0.unwrap();
}

#[test]
fn a_collapsed_policy_is_reported_with_its_cause() {
    let dir = tempfile::tempdir().unwrap();
    let collapse: &[&str] = &[
        "train.steps=60",
        "train.learning_rate=0.9",
        "reward.accuracy=0",
        "reward.partial_credit=0",
        "stall.window=10",
    ];
    let (ended, told) = go(&dir.path().join("run"), &config(Method::Rft, &[RFT, collapse]), PLAIN);
    ended.unwrap();
    assert!(
        told.notes.iter().any(|n| n.contains("have not differed") && n.contains("full reward")),
        "{:?}",
        told.notes
    );
    assert!(told.notes.iter().any(|n| n.contains("entropy")), "{:?}", told.notes);
}

#[test]
fn a_run_ends_when_its_validation_meets_the_criterion_and_resumes_to_the_same_end() {
    let dir = tempfile::tempdir().unwrap();
    let criterion: &[&str] =
        &["train.stop_when=accuracy >= 0.3", "train.stop_patience=2", "eval.steps=2", "train.save_steps=3"];
    let settings = config(Method::Sft, &[SFT, criterion]);
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    let TrainOutcome::Finished(summary) = go(&whole, &settings, PLAIN).0.unwrap() else { panic!("not finished") };
    assert!(summary.step > 2 && summary.step < settings.total_steps(1_000_000), "it ended at step {}", summary.step);
    let accuracies: Vec<(u64, f64)> = curve(&whole)
        .iter()
        .filter_map(|line| Some((line["step"].as_u64()?, line.get("eval/accuracy")?.as_f64()?)))
        .collect();
    let (last, before) = (accuracies[accuracies.len() - 1], accuracies[accuracies.len() - 2]);
    assert!(last.0 == summary.step as u64 && last.1 >= 0.3 && before.1 >= 0.3, "{accuracies:?}");
    let met_earlier = accuracies[1..accuracies.len() - 1].windows(2).any(|pair| pair.iter().all(|(_, a)| *a >= 0.3));
    assert!(!met_earlier, "it ended at the first two in a row: {accuracies:?}");
    for stop_at in [Some(3), Some(summary.step - 1), None] {
        go(&broken, &settings, Way { stop_at, ..PLAIN }).0.unwrap();
    }
    assert_eq!(weights(&whole), weights(&broken));
    assert_eq!(curve(&whole), curve(&broken));
}
