//! The path that a GPU takes, on tensors of the CPU that are treated as a device's: how often it waits for what the device computes, and that
//! its numbers are those of the CPU's kernels.

#[path = "command/mod.rs"]
mod command;

use candle_core::Device;
use command::done;
use jigsaw::comm::Single;
use jigsaw::model::{ComputeDtype, LanguageModel as _, ModelLoader, Prompt, SamplingParams};
use jigsaw::nn::{device_reads, emulate_device};
use jigsaw::train::TrainerCallback;
use jigsaw::train::metrics::Metrics;
use jigsaw::train::settings::{Method, TrainConfig};
use jigsaw::train::start::{TrainRequest, launch};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

static DATA: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    done(dir.path(), "gen --images scenes --grid 1x2 --count 8 --split 1,0,0 --out data");
    done(dir.path(), "model init --preset tiny --random --seed 3 --out model");
    dir
});

/// Reads are counted in the whole process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    emulate_device();
    ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Metrics of each step, and the reads between it and the step before.
#[derive(Default)]
struct Steps {
    last: usize,
    steps: Vec<(Metrics, usize)>,
}

impl TrainerCallback for Steps {
    fn start(&mut self, _step: usize, _total: usize) {
        self.last = device_reads();
    }
    fn step(&mut self, _step: usize, metrics: &Metrics) {
        let reads = device_reads();
        self.steps.push((metrics.clone(), reads - self.last));
        self.last = reads;
    }
    fn evaluation(&mut self, _step: usize, _metrics: &Metrics, _partial_credit: Option<&'static str>) {}
    fn note(&mut self, _text: &str) {}
}

/// Train three steps on the emulated device and by the program on the CPU. The reads of each step, if loss and norm agree.
fn train(method: &str, sets: &[&str]) -> Vec<usize> {
    let dir = DATA.path();
    let name = format!("{method}-{}", sets.join("-").replace(['=', '.', '[', ']', '"'], "_"));
    let mut all = vec!["train.steps=3", "train.warmup_steps=0", "train.batch_size=2", "eval.steps=0"];
    all.extend(sets);
    if method == "rft" {
        all.extend(["rollout.num_generations=2", "rollout.max_new_tokens=5"]);
    }
    let line: String = all.iter().map(|set| format!(" --set {set}")).collect();
    done(dir, &format!("train --method {method} --model model --data data --out cpu-{name}{line}"));
    let logged = std::fs::read_to_string(dir.join(format!("cpu-{name}/metrics.jsonl"))).unwrap();
    let logged: Vec<serde_json::Value> = logged.lines().map(|line| serde_json::from_str(line).unwrap()).collect();

    let sets: Vec<String> = all.iter().map(|set| set.to_string()).collect();
    let method = if method == "sft" { Method::Sft } else { Method::Rft };
    let request = TrainRequest {
        config: TrainConfig::from_text(Some(method), None, &sets).unwrap(),
        model: dir.join("model"),
        data: dir.join("data"),
        out: dir.join(format!("device-{name}")),
        lengthen: false,
        device: Device::Cpu,
        command: Vec::new(),
    };
    let mut told = Steps::default();
    launch(&request, &Single, &AtomicBool::new(false), &mut told).unwrap();
    assert_eq!((told.steps.len(), logged.len()), (3, 3), "{name}");
    for ((metrics, _), line) in told.steps.iter().zip(&logged) {
        for key in ["loss", "grad_norm", "entropy"] {
            let (here, there) = (metrics.get(key).unwrap(), line[key].as_f64().unwrap());
            assert!((here - there).abs() <= 2e-4 * there.abs().max(0.01), "{name} {key}: {here} against {there}");
        }
    }
    told.steps.into_iter().map(|(_, reads)| reads).collect()
}

#[test]
fn a_training_step_reads_loss_and_norm_together_and_nothing_else() {
    let _alone = alone();
    for sets in [
        &[][..],
        &["train.gradient_accumulation_steps=2", "train.gradient_checkpointing=true"],
        &["lora.rank=4", "sft.loss_reduction=\"sequence\""],
        &["sft.loss_type=\"dft\""],
        &["sft.loss_type=\"eaft\"", "sft.kl_coef=0.1"],
    ] {
        assert_eq!(train("sft", sets), [1; 3], "{sets:?}");
    }
}

#[test]
fn a_step_of_rft_reads_each_step_of_decoding_once_and_its_own_numbers_once() {
    let _alone = alone();
    let most = |reads: Vec<usize>, most: usize| assert!(reads.iter().all(|&reads| reads <= most), "{reads:?} {most}");
    most(train("rft", &[]), 5 + 1);
    // The reference model's log-probabilities come in a pass of their own.
    most(train("rft", &["grpo.beta=0.05", "grpo.entropy_coef=0.01", "rollout.top_k=7"]), 5 + 1 + 1);
}

#[test]
fn a_step_of_decoding_reads_the_chosen_tokens_once() {
    let _alone = alone();
    let load = |dir: &Path| ModelLoader::new(&Device::Cpu, ComputeDtype::F32).frozen(dir).unwrap();
    let model = load(&DATA.path().join("model"));
    let prompt = |i: u32| Arc::new(Prompt { ids: vec![300 + i, 301, 302], images: Vec::new() });
    let prompts: Vec<_> = (0..5).map(prompt).collect();
    for (temperature, top_k, top_p) in [(0.0, 0, 1.0), (1.0, 0, 1.0), (1.0, 10, 0.8)] {
        let sampling = SamplingParams { temperature, top_k, top_p, ..SamplingParams::greedy(9) };
        let before = device_reads();
        let responses = model.generate(&prompts, 3, &sampling, &[304], &[305]).unwrap();
        let longest = responses.iter().flatten().map(|response| response.ids.len()).max().unwrap();
        assert_eq!(device_reads() - before, longest, "{sampling:?}");
    }
}
