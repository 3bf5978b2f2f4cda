//! Runs of 1, 2 and 4 ranks end with the same bytes: weights, optimizer, metrics, samples.

use crate::run_files::contents;
use crate::served::{Fault, Served, serve};
use crate::toy::{self, Digits, Puzzles, Toy};
use image::RgbImage;
use jigsaw::comm::{Communicator, Single, threads};
use jigsaw::data::Record;
use jigsaw::model::init::{Preset, write_checkpoint};
use jigsaw::model::{
    HostLoss, LanguageModel as _, LossFn, Model, Prompt, Sequence, TokenGrads, all_reduce, load as load_model,
};
use jigsaw::tasks::{Score, Task};
use jigsaw::train::metrics::Metrics;
use jigsaw::train::run_dir::{ResumeState, RunDir, RunManifest};
use jigsaw::train::settings::{Method, TrainConfig};
use jigsaw::train::start::{TrainRequest, launch};
use jigsaw::train::{TrainJob, TrainOutcome, TrainerCallback, train};
use jigsaw::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const WORLDS: [usize; 3] = [1, 2, 4];

fn config(method: Method, sets: &[&str]) -> TrainConfig {
    let sets: Vec<String> = sets.iter().flat_map(|s| s.split_whitespace()).map(str::to_string).collect();
    TrainConfig::from_text(Some(method), None, &sets).unwrap()
}

/// Raises a flag after a step. Only rank 0 is called, and once for each step.
struct StopAt<'a> {
    step: Option<usize>,
    flag: &'a AtomicBool,
    steps: usize,
}

impl TrainerCallback for StopAt<'_> {
    fn start(&mut self, _step: usize, _total: usize) {}
    fn step(&mut self, step: usize, _metrics: &Metrics) {
        self.steps += 1;
        self.flag.fetch_or(self.step == Some(step), Ordering::SeqCst);
    }
    fn evaluation(&mut self, _step: usize, _metrics: &Metrics, _partial_credit: Option<&'static str>) {}
    fn note(&mut self, _text: &str) {}
}

/// Runs of all numbers of ranks, and one that goes on with 1 rank after 4 were stopped, are equal.
fn assert_equal_runs(
    name: &str,
    stop_at: usize,
    run: impl Fn(&Path, usize, Option<usize>) -> Vec<Result<TrainOutcome>>,
) {
    let dir = tempfile::tempdir().unwrap();
    let mut first: Option<BTreeMap<String, Vec<u8>>> = None;
    let mut compare = |label: &str, run: &Path| {
        let found = contents(run);
        let Some(first) = &first else {
            first = Some(found);
            return;
        };
        assert_eq!(first.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "{name}: {label}");
        let differing: Vec<&String> = first.keys().filter(|file| first[*file] != found[*file]).collect();
        assert!(differing.is_empty(), "{name}: {label} differs from 1 rank in {differing:?}");
    };
    for world_size in WORLDS {
        let out = dir.path().join(format!("ranks-{world_size}"));
        let ended = run(&out, world_size, None);
        for ended in ended {
            assert!(matches!(ended, Ok(TrainOutcome::Finished(_))), "{name}: {world_size} ranks: {ended:?}");
        }
        compare(&format!("{world_size} ranks"), &out);
    }
    let out = dir.path().join("resumed");
    for ended in run(&out, 4, Some(stop_at)) {
        assert_eq!(ended.unwrap(), TrainOutcome::Stopped(stop_at), "{name}");
    }
    assert!(matches!(run(&out, 1, None)[..], [Ok(TrainOutcome::Finished(_))]), "{name}");
    compare("4 ranks stopped and 1 going on", &out);
}

// Toy policy.

/// Puzzles of which one cannot be read on one rank.
struct Faulty {
    puzzles: Puzzles,
    broken: bool,
}

impl Task for Faulty {
    fn name(&self) -> &str {
        self.puzzles.name()
    }

    fn len(&self) -> usize {
        self.puzzles.len()
    }

    fn example(&self, i: usize) -> Result<std::borrow::Cow<'_, Record>> {
        self.puzzles.example(i)
    }

    fn images(&self, i: usize) -> Result<Vec<RgbImage>> {
        match self.broken {
            true => Err(Error::failed("the disk of this rank is gone")),
            false => self.puzzles.images(i),
        }
    }

    fn score(&self, i: usize, response: &str) -> Score {
        self.puzzles.score(i, response)
    }
}

fn manifest() -> RunManifest {
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

/// The run in `dir` with the toy policy. With `stop_at` the flag of the last rank is raised after that step; on `broken` no
/// example can be read.
fn toy_run(
    dir: &Path,
    config: &TrainConfig,
    world_size: usize,
    stop_at: Option<usize>,
    broken: Option<usize>,
) -> Vec<Result<TrainOutcome>> {
    let base = dir.with_extension("base");
    std::fs::create_dir_all(&base).unwrap();
    std::fs::write(base.join("config.json"), "{}").unwrap();
    let flags: Vec<AtomicBool> = (0..world_size).map(|_| AtomicBool::new(false)).collect();
    threads::run(world_size, |comm| {
        let (run, checkpoint) = match RunDir::open(dir, config, &manifest(), comm)? {
            ResumeState::Finished(finished) => return Ok(TrainOutcome::AlreadyFinished(finished)),
            ResumeState::Fresh(run) => (run, None),
            ResumeState::Resumed(run, checkpoint) => (run, Some(checkpoint)),
        };
        let model = Toy::load(checkpoint.as_ref().map(|c| c.dir.as_path()));
        let reference = Toy::load(None);
        let puzzles = Faulty { puzzles: Puzzles::new(), broken: broken == Some(comm.rank()) };
        let more = Puzzles::new();
        let job = TrainJob {
            config,
            model: &model,
            reference: Some(&reference),
            base: &base,
            encoder: &Digits,
            train: &puzzles,
            replay: (config.replayed_per_round() > 0).then_some(&more as &dyn Task),
            prior: config.prior_kl.is_some().then_some(&more as &dyn Task),
            validation: Some(&more),
            prior_eval: None,
            stop: &flags[comm.rank()],
            comm,
        };
        let mut listener = StopAt { step: stop_at, flag: flags.last().unwrap(), steps: 0 };
        let ended = train(&job, &run, checkpoint.as_ref(), &mut listener);
        assert!(comm.is_root() || listener.steps == 0, "rank {} was called back", comm.rank());
        ended
    })
}

const TOY: &str = "train.steps=6 train.learning_rate=0.2 train.save_steps=2 train.save_total_limit=9 eval.steps=3";
const PENALTIES: &str = "train.l2_sp=0.02 prior_kl.data=there prior_kl.coef=0.5 prior_kl.batch_size=3";
/// Seven examples to a step: no number of ranks divides it.
const TOY_SFT: &str = "train.batch_size=7";
const TOY_RFT: &str = "train.batch_size=3 rollout.num_generations=5 rollout.max_new_tokens=5 train.learning_rate=0.1";

#[test]
fn toy_runs_do_not_depend_on_the_number_of_ranks() {
    let resample = "sft.resample_every=3 rollout.num_generations=48 rollout.max_new_tokens=5";
    let server = serve(|dir| Arc::new(Toy::load(dir)) as Served, Digits, Fault::None);
    // Their names depend on the run's directory.
    let adapters = tempfile::tempdir().unwrap();
    let served = format!("lora.rank=8 rollout.server={} rollout.adapter_dir={}", server.url, adapters.path().display());
    for (name, method, sets) in [
        ("sft", Method::Sft, vec![TOY, TOY_SFT]),
        ("one example a step", Method::Sft, vec![TOY, "train.batch_size=1"]),
        ("accumulation", Method::Sft, vec![TOY, TOY_SFT, "train.gradient_accumulation_steps=3"]),
        ("replay and kl", Method::Sft, vec![TOY, TOY_SFT, "sft.replay=there sft.kl_coef=0.3"]),
        ("on-policy", Method::Sft, vec![TOY, TOY_SFT, resample]),
        ("on-policy, replay and kl", Method::Sft, vec![TOY, TOY_SFT, resample, "sft.replay=there sft.kl_coef=0.3"]),
        ("proximal", Method::Sft, vec![TOY, TOY_SFT, "sft.loss_type=psft sft.minibatches=2 sft.replay=there"]),
        ("weighted by the start, with penalties", Method::Sft, vec![TOY, TOY_SFT, "sft.loss_type=prift", PENALTIES]),
        ("self-distillation", Method::Sft, vec![TOY, TOY_SFT, resample, "sft.loss_type=sdft sft.keep=all", PENALTIES]),
        (
            "reverse self-distillation",
            Method::Sft,
            vec![TOY, TOY_SFT, resample, "sft.loss_type=sdft_reverse sft.keep=all"],
        ),
        ("rft", Method::Rft, vec![TOY, TOY_RFT]),
        ("rft of a server's responses", Method::Rft, vec![TOY, TOY_RFT, &served]),
        ("rft of a server, ahead", Method::Rft, vec![TOY, TOY_RFT, &served, "rollout.max_staleness=1"]),
        ("rft of a server, two rounds ahead", Method::Rft, vec![TOY, TOY_RFT, &served, "rollout.max_staleness=2"]),
        ("rft with penalties", Method::Rft, vec![TOY, TOY_RFT, PENALTIES]),
        (
            "rft with minibatches, iterations, dynamic sampling and a reference",
            Method::Rft,
            vec![
                TOY,
                TOY_RFT,
                "grpo.minibatches=2 grpo.num_iterations=2 grpo.dynamic_sampling=2 grpo.beta=0.1 train.steps=8 train.save_steps=4",
                "train.gradient_accumulation_steps=2",
            ],
        ),
    ] {
        let config = config(method, &sets);
        let stop_at = if config.steps_per_round() > 1 { 4 } else { 2 };
        assert_equal_runs(name, stop_at, |dir, world_size, stop_at| toy_run(dir, &config, world_size, stop_at, None));
    }
}

#[test]
fn a_rank_that_cannot_read_its_data_ends_all_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let ended = toy_run(&dir.path().join("run"), &config(Method::Sft, &[TOY, TOY_SFT]), 4, None, Some(2));
    let said: Vec<String> = ended.into_iter().map(|ended| ended.unwrap_err().to_string()).collect();
    assert!(said.iter().all(|said| said.contains("the disk of this rank is gone")), "{said:?}");
}

#[test]
fn a_run_directory_with_other_settings_is_refused_on_every_rank() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    toy_run(&run, &config(Method::Sft, &[TOY, TOY_SFT]), 1, Some(2), None);
    for ended in toy_run(&run, &config(Method::Sft, &[TOY, TOY_SFT, "train.seed=9"]), 2, None, None) {
        let error = ended.unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("train.seed"), "{error}");
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over_by_every_rank() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, run) = (dir.path().join("whole"), dir.path().join("run"));
    let config = config(Method::Sft, &[TOY, TOY_SFT]);
    toy_run(&whole, &config, 1, None, None);
    toy_run(&run, &config, 4, Some(4), None);
    std::fs::write(run.join("checkpoints/step-00000004/model.safetensors"), "damaged").unwrap();
    for ended in toy_run(&run, &config, 2, None, None) {
        assert!(matches!(ended, Ok(TrainOutcome::Finished(_))), "{ended:?}");
    }
    assert!(contents(&whole) == contents(&run));
}

// The real model.

fn jigsaw(line: &str) {
    let output = Command::new(crate::command::program()).args(line.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn runs_of_the_tiny_model_do_not_depend_on_the_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let photos = crate::common::root().join("data/photos");
    for (name, grid) in [("data", "2x1"), ("replay", "2x2")] {
        let out = at(name);
        jigsaw(&format!(
            "gen --images {} --limit 12 --grid {grid} --count 14 --out {}",
            photos.display(),
            out.display()
        ));
    }
    jigsaw(&format!("model init --out {}", at("tiny").display()));
    let common = "train.steps=4 train.save_steps=2 train.save_total_limit=9 train.learning_rate=1e-3 eval.steps=2 eval.limit=3 \
                  eval.max_new_tokens=4";
    let replay = format!("sft.replay={}", at("replay").display());
    let prior = format!("prior_kl.data={} prior_kl.batch_size=5", at("replay").display());
    let rft = "train.batch_size=9 rollout.num_generations=3 rollout.max_new_tokens=6 eval.limit=2";
    let lora = "lora.rank=4 lora.alpha=8 lora.dropout=0.1";
    for (name, method, sets) in [
        ("sft", Method::Sft, vec![common, "train.batch_size=14 train.gradient_accumulation_steps=2"]),
        (
            "sft with lora, replay and kl",
            Method::Sft,
            vec![common, "train.batch_size=6 sft.kl_coef=0.1", lora, &replay],
        ),
        (
            "sft weighted by the start, with penalties",
            Method::Sft,
            vec![common, "train.batch_size=6 sft.loss_type=prift train.l2_sp=0.01", &prior],
        ),
        (
            "rft with a reference",
            Method::Rft,
            vec![
                common,
                rft,
                "grpo.beta=0.1 grpo.minibatches=2 grpo.num_iterations=2 train.steps=8 train.save_steps=4",
            ],
        ),
        (
            "rft with lora",
            Method::Rft,
            vec![common, rft, "grpo.dynamic_sampling=1 grpo.beta=0.1 lora.rank=4 lora.alpha=8"],
        ),
    ] {
        let config = config(method, &sets);
        let stop_at = if config.steps_per_round() > 1 { 4 } else { 2 };
        assert_equal_runs(name, stop_at, |out, world_size, stop_at| {
            let request = TrainRequest {
                config: config.clone(),
                model: at("tiny"),
                data: at("data"),
                out: out.to_path_buf(),
                lengthen: false,
                device: candle_core::Device::Cpu,
                command: Vec::new(),
            };
            let stop = AtomicBool::new(false);
            threads::run(world_size, |comm| {
                launch(&request, comm, &stop, &mut StopAt { step: stop_at, flag: &stop, steps: 0 })
            })
        });
    }
}

/// `count` prompts without pictures, two responses to each.
fn batch(count: usize) -> Vec<Sequence> {
    let text = |n: usize, k: usize| (0..n).map(|j| ((j * 31 + k * 17) % 900) as u32).collect::<Vec<u32>>();
    let prompt = |i: usize| Arc::new(Prompt { ids: text(90 + i % 7, i), images: Vec::new() });
    let both = |i: usize| {
        let prompt = prompt(i);
        [9, 12].map(|n| Sequence { prompt: Arc::clone(&prompt), response: text(n, i + n) })
    };
    (0..count).flat_map(both).collect()
}

/// The gradient of each parameter, if it has one, and the log-probabilities.
type PassOutputs = (Vec<Option<Vec<f32>>>, Vec<f32>);

/// The gradients of two passes over `batch`, on every rank; and the log-probabilities.
fn gradients(load: &(dyn Fn() -> Model + Sync), batch: &[Sequence], comm: &dyn Communicator) -> Result<PassOutputs> {
    let model = load();
    for weight in [1.0, -0.3] {
        let loss: &LossFn<'_> = &|shard, stats| {
            let of = |(i, s): (usize, &Sequence)| vec![weight * (1.0 + (shard.start + i) as f32); s.response.len()];
            let logprobs: Vec<f32> = batch[shard.clone()].iter().enumerate().flat_map(of).collect();
            assert_eq!(logprobs.len(), stats.logprobs.len());
            Ok(TokenGrads { logprobs, entropies: None, kl: None })
        };
        model.distributed_backward(comm, batch, 1.0, None, &HostLoss(loss))?;
    }
    let numbers = |grad: candle_core::Tensor| grad.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let gradients = model.parameters().iter().map(|p| p.grad().map(numbers)).collect();
    Ok((gradients, all_reduce::score(comm, &model, batch, 1.0)?))
}

#[test]
fn gradients_of_small_and_large_models_do_not_depend_on_the_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    // Batches of several shards and of one; a large model takes its shards in pairs, which three ranks have in one round and in two.
    for (preset, counts) in [(Preset::Tiny, vec![30, 2]), (Preset::Small, vec![15])] {
        let path = dir.path().join(format!("{preset:?}"));
        write_checkpoint(&path, preset, 3).unwrap();
        let load = || load_model(&path, &candle_core::Device::Cpu).unwrap();
        for count in counts {
            let batch = batch(count);
            let alone = gradients(&load, &batch, &Single).unwrap();
            for world_size in 1..=4 {
                for found in threads::run(world_size, |comm| gradients(&load, &batch, comm)) {
                    assert!(found.unwrap() == alone, "{preset:?}, {count} prompts, {world_size} ranks");
                }
            }
        }
    }
}

#[test]
fn on_other_devices_ranks_agree_to_the_last_bit_and_with_a_single_one_within_rounding() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    write_checkpoint(&path, Preset::Tiny, 3).unwrap();
    let load = || load_model(&path, &candle_core::Device::Cpu).unwrap().without_fused_kernels();
    let batch = batch(5);
    let (alone, _) = gradients(&load, &batch, &Single).unwrap();
    let found: Vec<_> =
        threads::run(3, |comm| gradients(&load, &batch, comm)).into_iter().map(Result::unwrap).collect();
    assert!(found.iter().all(|other| other == &found[0]));
    for (one, three) in alone.iter().zip(&found[0].0) {
        let (Some(one), Some(three)) = (one, three) else {
            assert!(one.is_none() && three.is_none());
            continue;
        };
        let size = one.iter().map(|x| x.abs()).fold(0.0, f32::max);
        let off = one.iter().zip(three).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off <= 2e-5 * size, "{off} of {size}");
    }
}
