//! The losses, the optimizer, clipping and the schedules against numbers recorded from TRL, torch and transformers
//! (`scripts/reference/record_grpo.py`, `record_sft_losses.py`, `record_training.py`).

use candle_core::{Device, Tensor, Var};
use jigsaw::model::TokenStats;
use jigsaw::nn::{LazyLogits, Parameter, Tape, Value as NnValue, kl_from};
use jigsaw::train::objective::{
    BatchTotals, Dft, Direction, Eaft, GrpoLoss, Nll, Objective, ObjectiveInputs, Prift, Psft, Sdft, advantages,
};
use jigsaw::train::optimizer::AdamW;
use jigsaw::train::penalties::add_l2_sp;
use jigsaw::train::schedule::learning_rate;
use jigsaw::train::settings::{
    GrpoSettings, ImportanceLevel, LossReduction, LossType, LrSchedule, Method, ScaleRewards, TrainConfig,
    TrainSettings,
};
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

fn fixture(name: &str) -> PathBuf {
    crate::common::root().join("tests/fixtures").join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(name)).unwrap()).unwrap()
}

fn tensors(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture(name), &Device::Cpu).unwrap()
}

fn f32s(v: &Value) -> Vec<f32> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn f64s(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn flat(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn parse<T: serde::de::DeserializeOwned>(v: &Value) -> T {
    serde_json::from_value(v.clone()).unwrap()
}

#[track_caller]
fn close(got: f64, want: f64, relative: f64, absolute: f64, what: &str) {
    assert!((got - want).abs() <= relative * want.abs() + absolute, "{what}: {got} is not {want}");
}

#[test]
fn every_sft_loss_and_its_gradient_is_as_recorded() {
    let all = json("training/sft_losses.json");
    let lengths: Vec<usize> = parse(&all["lengths"]);
    let cases = all["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 36);
    for (i, case) in cases.iter().enumerate() {
        let objective: &dyn Objective = match case["loss_type"].as_str().unwrap() {
            "nll" => &Nll::default(),
            "dft" => &Dft::default(),
            "eaft" => &Eaft::default(),
            "psft" => &Psft { reduction: LossReduction::Token, epsilon_high: 0.28 },
            "prift" => &Prift::default(),
            "sdft_reverse" => &Sdft { direction: Direction::Reverse, ..Sdft::default() },
            other => panic!("{other}"),
        };
        let items = case["num_items_in_batch"].as_f64().unwrap();
        let logprobs = f32s(&case["logprobs"]);
        let tokens = logprobs.len();
        let optional = |name: &str| case.get(name).map(f32s);
        let (old, reference) = (optional("old"), optional("reference"));
        let out = objective.compute(&ObjectiveInputs {
            stats: &TokenStats { logprobs, entropies: f32s(&case["entropies"]), kl: None },
            old_logprobs: old.as_deref(),
            reference_logprobs: reference.as_deref(),
            sampler: None,
            lengths: &lengths,
            advantages: &[],
            micro_batch_tokens: tokens,
            batch: BatchTotals { tokens: items, sequences: lengths.len(), micro_batches: 1 },
        });
        close(out.loss, case["loss"].as_f64().unwrap(), 1e-6, 1e-9, &format!("case {i}"));
        let want = f64s(&case["grad_logprobs"]);
        assert_eq!(out.grads.logprobs.len(), want.len());
        for (got, want) in out.grads.logprobs.iter().zip(want) {
            close(f64::from(*got), want, 1e-6, 1e-9, &format!("gradient of case {i}"));
        }
        // TRL's entropy is the mean over the tokens of the micro-batch.
        let entropy = out.metrics.get("entropy") * items / tokens as f64;
        close(entropy, case["entropy"].as_f64().unwrap(), 1e-5, 1e-9, &format!("entropy of case {i}"));
    }
}

/// Rows of numbers as a tensor.
fn matrix(v: &Value) -> Tensor {
    Tensor::new(v.as_array().unwrap().iter().map(f32s).collect::<Vec<_>>(), &Device::Cpu).unwrap()
}

fn parameter(v: &Value) -> Arc<Parameter> {
    Arc::new(Parameter::new("w", Var::from_tensor(&matrix(v)).unwrap()))
}

#[track_caller]
fn close_tensors(got: &Tensor, want: &Value, what: &str) {
    let (got, want) = (flat(got), flat(&matrix(want)));
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).for_each(|(&got, want)| close(got.into(), want.into(), 1e-5, 1e-7, what));
}

#[test]
fn self_distillation_is_trls_from_the_states_of_both_models_to_the_gradient() {
    let all = json("training/sft_losses.json");
    let (case, lengths) = (&all["sdft"], parse::<Vec<usize>>(&all["lengths"]));
    let tokens: usize = lengths.iter().sum();
    let teacher = LazyLogits { states: matrix(&case["teacher_states"]), weight: parameter(&case["teacher_weight"]) };
    let (tape, weight) = (Tape::new(), parameter(&case["weight"]));
    let nats = kl_from(&tape, &teacher, &NnValue::constant(matrix(&case["states"])), &weight).unwrap();
    let kl = Some(nats.tensor.to_vec1::<f32>().unwrap());
    let out = Sdft::default().compute(&ObjectiveInputs {
        stats: &TokenStats { logprobs: vec![-1.0; tokens], entropies: vec![0.0; tokens], kl },
        old_logprobs: None,
        reference_logprobs: None,
        sampler: None,
        lengths: &lengths,
        advantages: &[],
        micro_batch_tokens: tokens,
        batch: BatchTotals::of(lengths.iter().copied(), 1),
    });
    close(out.loss, case["loss"].as_f64().unwrap(), 1e-5, 0.0, "loss");
    close(out.metrics.get("kl"), out.loss, 1e-12, 0.0, "metric");
    assert!(out.grads.logprobs.iter().all(|g| *g == 0.0));
    let upstream = Tensor::new(out.grads.kl.unwrap(), &Device::Cpu).unwrap();
    tape.backward(vec![(nats, upstream)]).unwrap();
    close_tensors(&weight.grad().unwrap(), &case["grad_weight"], "gradient");
}

#[test]
fn the_pull_of_l2_sp_is_the_gradient_of_its_penalty() {
    let case = &json("training/sft_losses.json")["l2_sp"];
    let (weight, start, frozen) =
        (parameter(&case["weight"]), parameter(&case["start"]), parameter(&case["other_grad"]));
    weight.set_grad(Some(matrix(&case["other_grad"])));
    frozen.set_trainable(false);
    let coef = case["coef"].as_f64().unwrap();
    let parameters = [weight.clone(), frozen.clone()];
    let penalty = add_l2_sp(&parameters, &[start.clone(), start.clone()], coef).unwrap();
    close(penalty, case["penalty"].as_f64().unwrap(), 1e-5, 0.0, "penalty");
    close_tensors(&weight.grad().unwrap(), &case["grad"], "gradient");
    assert!(frozen.grad().is_none(), "a weight that does not train is not pulled");
    assert!(add_l2_sp(&parameters, &[start], coef).is_err());
}

#[test]
fn every_grpo_loss_and_its_gradient_is_trls() {
    let all = json("grpo/losses.json");
    let cases = all["cases"].as_array().unwrap();
    assert!(cases.len() >= 80);
    for (i, case) in cases.iter().enumerate() {
        let batch = &all["batches"][case["batch"].as_str().unwrap()];
        let lengths: Vec<usize> = parse(&batch["lengths"]);
        let (policy, entropies, old, reference) =
            (f32s(&batch["policy"]), f32s(&batch["entropies"]), f32s(&batch["old"]), f32s(&batch["reference"]));
        let number = |key: &str| case[key].as_f64().unwrap();
        let accumulation = number("gradient_accumulation_steps");
        let tokens: usize = lengths.iter().sum();
        let batch_totals = BatchTotals {
            tokens: number("num_items_in_batch") * accumulation / number("steps_per_generation"),
            sequences: lengths.len() * accumulation as usize,
            micro_batches: accumulation as usize,
        };
        let importance: ImportanceLevel = parse(&case["importance_sampling_level"]);
        let settings = GrpoSettings {
            loss_type: parse(&case["loss_type"]),
            importance_sampling_level: importance,
            epsilon: number("epsilon_low"),
            epsilon_high: Some(number("epsilon_high")),
            delta: case["delta"].as_f64(),
            beta: number("beta"),
            // TRL averages the entropy over the tokens of each micro-batch, we over those of the window.
            entropy_coef: number("entropy_coef") * batch_totals.tokens / (tokens as f64 * accumulation),
            ..TrainConfig::defaults(Method::Rft).grpo.unwrap()
        };
        let max_completion_length = all["max_completion_length"].as_u64().unwrap() as usize;
        let out = GrpoLoss { settings: settings.clone(), max_completion_length }.compute(&ObjectiveInputs {
            stats: &TokenStats { logprobs: policy, entropies, kl: None },
            old_logprobs: (!case["on_policy"].as_bool().unwrap()).then_some(&old),
            reference_logprobs: Some(&reference),
            sampler: None,
            lengths: &lengths,
            advantages: &f64s(&batch["advantages"]),
            micro_batch_tokens: tokens,
            batch: batch_totals,
        });
        let what = format!("case {i} {settings:?}");
        close(out.loss, number("loss"), 1e-5, 1e-7, &what);
        let want = f64s(&case["grad_logps"]);
        assert_eq!(out.grads.logprobs.len(), want.len());
        for (got, want) in out.grads.logprobs.iter().zip(want) {
            close(f64::from(*got), want, 1e-5, 1e-8, &what);
        }
        match (&out.grads.entropies, case["grad_entropies"].as_array()) {
            (Some(got), Some(_)) => {
                for (got, want) in got.iter().zip(f64s(&case["grad_entropies"])) {
                    close(f64::from(*got), want, 1e-5, 1e-9, &what);
                }
            }
            (got, want) => assert!(got.is_none() && want.is_none(), "{what}"),
        }
        let metric = |name: &str, got: f64| {
            if let Some(want) = case["metrics"].get(name) {
                close(
                    got / out.metrics.get("tokens"),
                    want.as_f64().unwrap(),
                    1e-5,
                    1e-7,
                    &format!("{name} of {what}"),
                );
            }
        };
        metric("kl", out.metrics.get("kl"));
        metric("entropy", out.metrics.get("entropy"));
        // At sequence level TRL's clip ratios are means over sequences, ours over tokens.
        if importance == ImportanceLevel::Token {
            metric("clip_ratio/low_mean", out.metrics.get("clipped_low"));
            metric("clip_ratio/high_mean", out.metrics.get("clipped_high"));
            metric("clip_ratio/region_mean", out.metrics.get("clipped_low") + out.metrics.get("clipped_high"));
            if settings.loss_type == LossType::Cispo {
                metric("cispo_clip_ratio", out.metrics.get("clipped_high"));
            }
        }
    }
}

#[test]
fn advantages_are_trls() {
    for (i, case) in json("grpo/advantages.json")["cases"].as_array().unwrap().iter().enumerate() {
        let weights = f64s(&case["weights"]);
        let weigh = |row: &Value| f64s(row).iter().zip(&weights).map(|(r, w)| r * w).sum::<f64>();
        let rewards: Vec<f64> = case["rewards"].as_array().unwrap().iter().map(weigh).collect();
        let scale: ScaleRewards = parse(&case["scale_rewards"]);
        let got = advantages(&rewards, case["num_generations"].as_u64().unwrap() as usize, scale);
        let want = f64s(&case["advantages"]);
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            // f32 rounding of a sum, amplified by 1 / (0 + 1e-4), is what TRL has where all rewards are equal.
            close(*got, want, 1e-5, 2e-3, &format!("case {i}"));
        }
    }
}

#[test]
fn adamw_is_torchs() {
    let (all, recorded) = (json("training/adamw.json"), tensors("training/adamw.safetensors"));
    for (c, config) in all["configs"].as_array().unwrap().iter().enumerate() {
        let settings = TrainSettings {
            betas: parse(&config["betas"]),
            eps: config["eps"].as_f64().unwrap(),
            weight_decay: config["weight_decay"].as_f64().unwrap(),
            ..TrainConfig::defaults(Method::Sft).train
        };
        let names: Vec<String> = parse(&all["tensors"]);
        let make = |n: &String| {
            Arc::new(Parameter::new(
                n,
                Var::from_tensor(&recorded[&format!("{c}.{n}.initial")].copy().unwrap()).unwrap(),
            ))
        };
        let parameters: Vec<Arc<Parameter>> = names.iter().map(make).collect();
        let mut adam = AdamW::new(&parameters, &settings).unwrap();
        for (step, lr) in f64s(&config["rates"]).into_iter().enumerate() {
            for (n, p) in names.iter().zip(&parameters) {
                p.set_grad(Some(recorded[&format!("{c}.{n}.grad{step}")].copy().unwrap()));
            }
            adam.update(lr, 0.0, 0.0).unwrap();
            for (n, p) in names.iter().zip(&parameters) {
                let want = flat(&recorded[&format!("{c}.{n}.weight{step}")]);
                for (got, want) in flat(p.var.as_tensor()).iter().zip(want) {
                    close(f64::from(*got), f64::from(want), 1e-6, 1e-7, &format!("run {c}, {n}, step {step}"));
                }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("optimizer.safetensors");
        adam.save(&path).unwrap();
        let saved = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        for n in &names {
            for moment in ["exp_avg", "exp_avg_sq"] {
                let want = flat(&recorded[&format!("{c}.{n}.{moment}")]);
                for (got, want) in flat(&saved[&format!("{n}.{moment}")]).iter().zip(want) {
                    close(f64::from(*got), f64::from(want), 1e-5, 1e-12, &format!("run {c}, {moment} of {n}"));
                }
            }
        }
    }
}

#[test]
fn clipping_is_torchs() {
    let (all, recorded) = (json("training/clip.json"), tensors("training/clip.safetensors"));
    for (c, case) in all["cases"].as_array().unwrap().iter().enumerate() {
        let max_norm = case["max_norm"].as_f64().unwrap();
        let grads: Vec<&Tensor> = (0..3).map(|i| &recorded[&format!("{c}.grad{i}")]).collect();
        let zeros = |g: &&Tensor| Arc::new(Parameter::new("p", Var::from_tensor(&g.zeros_like().unwrap()).unwrap()));
        let parameters: Vec<Arc<Parameter>> = grads.iter().map(zeros).collect();
        for (p, g) in parameters.iter().zip(&grads) {
            p.set_grad(Some(g.copy().unwrap()));
        }
        // With both averages off, the first moment that is saved is the clipped gradient itself.
        let settings = TrainSettings { betas: [0.0, 0.0], ..TrainConfig::defaults(Method::Sft).train };
        let mut adam = AdamW::new(&parameters, &settings).unwrap();
        let norm = adam.grad_norm().unwrap();
        close(norm, case["norm"].as_f64().unwrap(), 1e-6, 1e-12, &format!("norm of case {c}"));
        adam.update(1e-3, norm, max_norm).unwrap();
        let scale = (max_norm / (norm + 1e-6)).min(1.0);
        for (i, grad) in grads.iter().enumerate() {
            for (g, clipped) in flat(grad).iter().zip(flat(&recorded[&format!("{c}.clipped{i}")])) {
                close(f64::from(g * scale as f32), f64::from(clipped), 1e-6, 1e-12, &format!("case {c}"));
            }
        }
    }
}

#[test]
fn the_schedules_are_transformers() {
    for row in json("training/schedules.json")["rows"].as_array().unwrap() {
        let schedule: LrSchedule = parse(&row["kind"]);
        let total = row["total_steps"].as_u64().unwrap() as usize;
        let (lr, warmup) = (row["lr"].as_f64().unwrap(), row["warmup_steps"].as_f64().unwrap());
        let settings = TrainSettings {
            learning_rate: lr,
            warmup_steps: warmup,
            lr_scheduler_type: schedule,
            ..TrainConfig::defaults(Method::Sft).train
        };
        for (step, want) in f64s(&row["rates"]).into_iter().enumerate() {
            close(learning_rate(&settings, step, total), want, 1e-12, 1e-18, &format!("{schedule:?} step {step}"));
        }
    }
}
