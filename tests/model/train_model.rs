//! Training the real model: step for step as torch and transformers do, and killed and resumed to the same bytes.

use crate::common;
use crate::common::Recorded;
use jigsaw::comm::Single;
use jigsaw::model::convert_dtype::convert;
use jigsaw::model::init::{Preset, write_checkpoint};
use jigsaw::model::weight_dtype::WeightDtype;
use jigsaw::model::{ComputeDtype, LanguageModel as _, Model, ModelLoader, Prompt, Sequence};
use jigsaw::nn::Parameter;
use jigsaw::train::gradient_accumulation::{BatchStatistics, MicroBatch, accumulate_gradients};
use jigsaw::train::objective::Nll;
use jigsaw::train::optimizer::AdamW;
use jigsaw::train::schedule::learning_rate;
use jigsaw::train::settings::{Method, TrainConfig, TrainSettings};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Loss and gradient norm of every step and the weights after the last, against torch, transformers and torch's AdamW.
/// Add the gradient of the mean negative log-likelihood.
fn accumulate(model: &Model, micro_batches: &[&[Sequence]]) -> BatchStatistics {
    let micro_batches: Vec<MicroBatch> = micro_batches.iter().map(|m| MicroBatch::new(m)).collect();
    accumulate_gradients(&Single, model, None, &Nll::default(), &micro_batches, 1.0).unwrap()
}

#[test]
fn sft_runs_equal_torch_and_transformers_step_for_step() {
    for run in ["sft", "sft_accumulated"] {
        let record = common::json(&format!("training/{run}.json"));
        let recorded = Recorded::open(&format!("training/{run}.safetensors"), &record);
        let model =
            jigsaw::model::load(&common::fixture("model").join(record["model"].as_str().unwrap()), &common::device())
                .unwrap();
        let given = &record["settings"];
        let number = |key: &str| given[key].as_f64().unwrap();
        let settings = TrainSettings {
            learning_rate: number("lr"),
            betas: serde_json::from_value(given["betas"].clone()).unwrap(),
            eps: number("eps"),
            weight_decay: number("weight_decay"),
            warmup_steps: number("warmup_steps"),
            lr_scheduler_type: serde_json::from_value(given["schedule"].clone()).unwrap(),
            ..TrainConfig::defaults(Method::Sft).train
        };
        let mut adam = AdamW::new(model.parameters(), &settings).unwrap();
        let windows: Vec<Vec<Vec<usize>>> = serde_json::from_value(record["windows"].clone()).unwrap();
        for (step, window) in windows.iter().enumerate() {
            let micros: Vec<Vec<Sequence>> =
                window.iter().map(|m| m.iter().map(|&i| recorded.sequence(i)).collect()).collect();
            let sums = accumulate(&model, &micros.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let norm = adam.grad_norm().unwrap();
            let lr = learning_rate(&settings, step, windows.len());
            adam.update(lr, norm, number("max_grad_norm")).unwrap();
            let want = &record["steps"][step];
            for (name, got) in
                [("loss", sums.loss), ("grad_norm", norm), ("lr", lr), ("response_tokens", sums.totals.tokens)]
            {
                let want = want[name].as_f64().unwrap();
                assert!((got - want).abs() <= 1e-4 * want.abs(), "{run} step {step} {name}: {got} against {want}");
            }
        }
        for parameter in model.parameters() {
            let want = &record["final"][&parameter.name];
            let values: Vec<f32> = parameter.var.as_tensor().flatten_all().unwrap().to_vec1().unwrap();
            let norm = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let (wanted, change) = (want["norm"].as_f64().unwrap(), want["change"].as_f64().unwrap());
            assert!((norm - wanted).abs() <= 1e-4 * wanted, "{run} {}: norm {norm} against {wanted}", parameter.name);
            let first: Vec<f64> = serde_json::from_value(want["first"].clone()).unwrap();
            let last: Vec<f64> = serde_json::from_value(want["last"].clone()).unwrap();
            let ends =
                values[..first.len()].iter().zip(&first).chain(values[values.len() - last.len()..].iter().zip(&last));
            for (got, want) in ends {
                // A share of the distance travelled: half of Adam's steps are the sign of a gradient that may be rounding.
                assert!(
                    (f64::from(*got) - want).abs() <= 2e-3 * change.max(0.01),
                    "{run} {}: {got} against {want}",
                    parameter.name
                );
            }
        }
    }
}

/// With working copies, a model computes as one whose weights were rounded to bf16 (to the last bit, where products are in f32), and keeps
/// what was rounded away.
#[test]
fn working_copies_in_bf16_compute_as_rounded_weights_and_the_masters_take_the_gradients() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, half] = ["whole", "half"].map(|name| dir.path().join(name));
    write_checkpoint(&whole, Preset::Tiny, 1).unwrap();
    convert(&whole, &half, WeightDtype::Bf16, false).unwrap();
    let record = common::json("training/sft.json");
    let recorded = Recorded::open("training/sft.safetensors", &record);
    let prompt = |i: usize| {
        let ids = recorded.sequence(i).response.iter().chain(&[5, 9]).map(|id| id % 1000).collect();
        Arc::new(Prompt { ids, images: Vec::new() })
    };
    let batch: Vec<Sequence> =
        (0..2).map(|i| Sequence { prompt: prompt(i), response: vec![40, 41, 42, 43, 44] }).collect();
    for fused in [true, false] {
        let form = |model: Model| if fused { model } else { model.without_fused_kernels() };
        let mixed = ModelLoader::new(&common::device(), ComputeDtype::Bf16).trainable(&whole, &[]).unwrap();
        let (mixed, rounded) = (form(mixed), form(jigsaw::model::load(&half, &common::device()).unwrap()));
        let exact = form(jigsaw::model::load(&whole, &common::device()).unwrap());
        let scores = [&mixed, &rounded, &exact].map(|model| model.score(&batch, 1.0).unwrap().logprobs);
        // A GPU rounds the other factor as well, and so do the fused kernels of a processor with products in bf16.
        let exactly = common::on_cpu_kernels() && !(fused && jigsaw::nn::bf16_instructions().is_some());
        let near = |a: &[f32], b: &[f32], most: f32| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= most);
        let most = if exactly { 0.0 } else { 0.05 };
        assert!(near(&scores[0], &scores[1], most), "{scores:?}");
        assert!(!near(&scores[0], &scores[2], 0.0), "{scores:?}");
        let gradients = [&mixed, &rounded].map(|model| {
            accumulate(model, &[batch.as_slice()]);
            let gradient = |p: &Arc<Parameter>| p.grad().map(|g| g.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            model.parameters().iter().map(gradient).collect::<Vec<_>>()
        });
        if exactly {
            assert!(gradients[0] == gradients[1]);
        }
        for (mixed, exact) in mixed.parameters().iter().zip(exact.parameters()) {
            let numbers = |p: &Parameter| p.var.as_tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(numbers(mixed) == numbers(exact), "{}", mixed.name);
        }
    }
}

fn jigsaw(args: &[String]) -> Command {
    let mut command = Command::new(crate::command::program());
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_string).collect()
}

fn succeed(args: &[String]) {
    let output = jigsaw(args).stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn checkpoints(run: &Path) -> usize {
    std::fs::read_dir(run.join("checkpoints"))
        .map_or(0, |d| d.flatten().filter(|e| e.file_name().to_string_lossy().starts_with("step-")).count())
}

#[test]
fn a_run_killed_again_and_again_ends_with_the_bytes_of_one_that_was_not() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let photos = crate::common::root().join("data/photos");
    succeed(&words(&format!(
        "gen --images {} --limit 12 --grid 2x1 --count 12 --out {}",
        photos.display(),
        at("data").display()
    )));
    succeed(&words(&format!("model init --out {}", at("tiny").display())));
    let common = format!(
        "train --model {} --data {} --set train.steps=12 --set train.batch_size=2 --set train.gradient_accumulation_steps=2 \
         --set train.save_steps=2 --set train.learning_rate=1e-3 --set train.save_total_limit=9 --set eval.limit=2 --set eval.steps=6 --set eval.max_new_tokens=4",
        at("tiny").display(),
        at("data").display()
    );
    let rft = "--method rft --set rollout.num_generations=2 --set rollout.max_new_tokens=6 --set grpo.beta=0.1 --set grpo.num_iterations=2 \
               --set grpo.entropy_coef=0.05";
    let half = "--method sft --set train.dtype=bf16 --set train.freeze=[\"vision\"]";
    for (name, method) in [("sft", "--method sft"), ("rft", rft), ("sft-bf16", half)] {
        let (whole, killed) = (at(&format!("{name}-whole")), at(&format!("{name}-killed")));
        let to = |out: &Path| words(&format!("{common} {method} --out {}", out.display()));
        succeed(&to(&whole));
        // Kill each time a little while after one more checkpoint: in the middle of a step, or of writing the next one.
        for (round, delay) in [0, 30, 75].into_iter().enumerate() {
            let mut child = jigsaw(&to(&killed)).spawn().unwrap();
            let started = Instant::now();
            while checkpoints(&killed) <= round && child.try_wait().unwrap().is_none() {
                assert!(started.elapsed() < Duration::from_secs(120), "{name}: no checkpoint");
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(delay));
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(round > 0 || !killed.join("finished.json").exists(), "{name}: finished before it was killed");
        }
        succeed(&to(&killed));
        let weights = |run: &Path| std::fs::read(run.join("model/model.safetensors")).unwrap();
        assert!(weights(&whole) == weights(&killed), "{name}: other bytes");
        assert!(weights(&whole) != std::fs::read(at("tiny").join("model.safetensors")).unwrap());
    }
}

/// The training records of a dataset through `change`; the record's number is its first argument.
fn rewrite(data: &Path, change: impl Fn(usize, &mut serde_json::Value)) {
    let path = data.join("train/metadata.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let line = |(i, line): (usize, &str)| {
        let mut record = serde_json::from_str(line).unwrap();
        change(i, &mut record);
        format!("{record}\n")
    };
    std::fs::write(&path, text.lines().enumerate().map(line).collect::<String>()).unwrap();
}

#[test]
fn a_vision_tower_that_no_example_reaches_stays_as_it_is_and_one_image_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let photos = crate::common::root().join("data/photos");
    succeed(&words(&format!("model init --out {}", at("tiny").display())));
    for (name, shown) in [("mixed", 1), ("text", 0)] {
        let data = at(name);
        succeed(&words(&format!(
            "gen --images {} --limit 12 --grid 2x2 --count 20 --out {}",
            photos.display(),
            data.display()
        )));
        rewrite(&data, |i, record| {
            if i >= shown {
                record["images"] = serde_json::json!([]);
                let content = record["messages"][0]["content"].as_str().unwrap().replace("<image>", "");
                record["messages"][0]["content"] = content.into();
            }
        });
    }
    for method in ["sft", "rft --set rollout.num_generations=2 --set rollout.max_new_tokens=4"] {
        let run = at(&format!("run-{}", &method[..3]));
        let train = |data: &str, more: &str| {
            let line = format!(
                "train --method {method} --model {} --data {} --out {}{more} --set train.steps=2 --set train.batch_size=2 \
                 --set eval.steps=0",
                at("tiny").display(),
                at(data).display(),
                run.display()
            );
            let output = jigsaw(&words(&line)).stderr(Stdio::piped()).output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let visual = |dir: &Path| {
            let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let part = |of_vision: bool| {
                let mut names: Vec<&str> =
                    file.names().into_iter().filter(|n| n.contains("visual.") == of_vision).collect();
                names.sort_unstable();
                names.iter().flat_map(|name| file.tensor(name).unwrap().data().to_vec()).collect::<Vec<u8>>()
            };
            (part(true), part(false))
        };
        let (code, said) = train("text", " --set train.weight_decay=0.1 --set train.learning_rate=0.001");
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(said.matches("no training example has an image: the vision tower's ").count(), 1, "{said}");
        let (before, after) = (visual(&at("tiny")), visual(&run.join("model")));
        assert!(!before.0.is_empty() && before.0 == after.0, "{method}: the vision tower changed");
        assert!(method.starts_with("rft") || before.1 != after.1, "{method}: nothing was learnt");
        std::fs::remove_dir_all(&run).unwrap();
        let (code, said) = train("mixed", "");
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn weights_that_are_no_numbers_stop_a_run_before_its_first_step_and_an_evaluation() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let photos = crate::common::root().join("data/photos");
    succeed(&words(&format!(
        "gen --images {} --limit 10 --grid 2x2 --count 10 --out {}",
        photos.display(),
        at("data").display()
    )));
    succeed(&words(&format!("model init --out {}", at("tiny").display())));
    let path = at("tiny").join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    for method in ["sft", "rft"] {
        let line = format!(
            "train --method {method} --model {} --data {} --out {}",
            at("tiny").display(),
            at("data").display(),
            at(method).display()
        );
        let output = jigsaw(&words(&line)).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("not finite") && said.contains("weights"), "{said}");
        assert!(!at(method).join("model").exists());
    }
    // Nor are they evaluated as if they were a model that knows nothing.
    let line = format!(
        "eval --model {} --data {} --out {} --max-new-tokens 2",
        at("tiny").display(),
        at("data").display(),
        at("eval").display()
    );
    let output = jigsaw(&words(&line)).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not finite") && !at("eval").join("result.json").exists(), "{said}");
}

#[test]
fn a_signal_finishes_the_step_and_saves_and_wrong_usage_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let photos = crate::common::root().join("data/photos");
    succeed(&words(&format!(
        "gen --images {} --limit 10 --grid 2x1 --count 10 --out {}",
        photos.display(),
        at("data").display()
    )));
    succeed(&words(&format!("model init --out {}", at("tiny").display())));
    let args = words(&format!(
        "train --method sft --model {} --data {} --out {} --set train.steps=100000 --set eval.steps=0",
        at("tiny").display(),
        at("data").display(),
        at("run").display()
    ));
    let mut child = jigsaw(&args).spawn().unwrap();
    let metrics = at("run").join("metrics.jsonl");
    let started = Instant::now();
    while std::fs::metadata(&metrics).map_or(0, |m| m.len()) == 0 {
        assert!(started.elapsed() < Duration::from_secs(60), "no step");
        std::thread::sleep(Duration::from_millis(5));
    }
    succeed_with("kill", &["-TERM", &child.id().to_string()]);
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(checkpoints(&at("run")), 1);

    let mut other = args.clone();
    other.extend(words("--set train.learning_rate=0.5"));
    let output = jigsaw(&other).stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("train.learning_rate"), "{text}");
    let mut wrong = args;
    wrong.extend(words("--set train.learning_rate=1"));
    let output = jigsaw(&wrong).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

fn succeed_with(program: &str, args: &[&str]) {
    assert!(Command::new(program).args(args).status().unwrap().success());
}
