//! Whole SFT runs against torch + transformers + torch's AdamW from the same weights (scripts/reference/record_training.py): loss,
//! gradient norm and learning rate of every step, and the weights at the end.

use crate::common;
use crate::common::Recorded;
use candle_core::Tensor;
use jigsaw::comm::Single;
use jigsaw::model::LanguageModel as _;
use jigsaw::nn::Parameter;
use jigsaw::train::gradient_accumulation::{MicroBatch, accumulate_gradients};
use jigsaw::train::objective::Nll;
use jigsaw::train::optimizer::AdamW;
use jigsaw::train::schedule::learning_rate;
use jigsaw::train::settings::{LrSchedule, Method, TrainConfig, TrainSettings};
use serde_json::Value;

fn number(v: &Value) -> f64 {
    v.as_f64().unwrap()
}

#[track_caller]
fn close(what: &str, got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance, "{what}: {got} against {want}");
}

fn norm(t: &Tensor) -> f64 {
    let data = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    data.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

fn run(name: &str) {
    let record = common::json(&format!("training/{name}.json"));
    let recorded = Recorded::open(&format!("training/{name}.safetensors"), &record);
    let dir = common::fixture("model").join(record["model"].as_str().unwrap());
    let model = jigsaw::model::load(&dir, &common::device()).unwrap();
    let before: Vec<Tensor> = model.parameters().iter().map(|p| p.var.as_tensor().copy().unwrap()).collect();
    let s = &record["settings"];
    let settings = TrainSettings {
        learning_rate: number(&s["lr"]),
        betas: [number(&s["betas"][0]), number(&s["betas"][1])],
        eps: number(&s["eps"]),
        weight_decay: number(&s["weight_decay"]),
        max_grad_norm: number(&s["max_grad_norm"]),
        lr_scheduler_type: LrSchedule::Cosine,
        warmup_steps: number(&s["warmup_steps"]),
        ..TrainConfig::defaults(Method::Sft).train
    };
    let total = s["total_steps"].as_u64().unwrap() as usize;
    let mut optimizer = AdamW::new(model.parameters(), &settings).unwrap();
    let (windows, steps) = (record["windows"].as_array().unwrap(), record["steps"].as_array().unwrap());
    assert_eq!((windows.len(), steps.len()), (total, total));
    for (k, (window, step)) in windows.iter().zip(steps).enumerate() {
        let micro: Vec<Vec<_>> = window
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m.as_array().unwrap().iter().map(|i| recorded.sequence(i.as_u64().unwrap() as usize)).collect())
            .collect();
        let micro: Vec<MicroBatch> = micro.iter().map(|m: &Vec<jigsaw::model::Sequence>| MicroBatch::new(m)).collect();
        let loss = accumulate_gradients(&Single, &model, None, &Nll::default(), &micro, 1.0).unwrap().loss;
        let norm = optimizer.grad_norm().unwrap();
        let lr = learning_rate(&settings, k, total);
        close(&format!("{name} step {k} loss"), loss, number(&step["loss"]), 1e-4 * number(&step["loss"]));
        close(&format!("{name} step {k} norm"), norm, number(&step["grad_norm"]), 1e-4 * number(&step["grad_norm"]));
        close("lr", lr, number(&step["lr"]), 1e-9);
        optimizer.update(lr, norm, settings.max_grad_norm).unwrap();
    }
    for (parameter, before) in model.parameters().iter().zip(&before) {
        check_final(parameter, before, &record["final"][&parameter.name]);
    }
}

/// Rounding grows along the way (the record says how much an f64 run differs), so weights are compared on the scale of the
/// distance that the parameter travelled.
fn check_final(parameter: &Parameter, before: &Tensor, want: &Value) {
    let value = parameter.var.as_tensor();
    let travelled = number(&want["change"]);
    close(&parameter.name, norm(value), number(&want["norm"]), 1e-3 * travelled);
    close(&parameter.name, norm(&(value - before).unwrap()), travelled, 1e-3 * travelled);
    let data = value.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let first = want["first"].as_array().unwrap();
    let last = want["last"].as_array().unwrap();
    for (got, want) in data.iter().zip(first).chain(data[data.len() - last.len()..].iter().zip(last)) {
        close(&parameter.name, f64::from(*got), number(want), 1e-3 * travelled);
    }
}

#[test]
fn twenty_steps_follow_torch() {
    run("sft");
}

#[test]
fn accumulated_steps_follow_torch() {
    run("sft_accumulated");
}
