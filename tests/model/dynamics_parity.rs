//! Learning dynamics under a tuned model against torch's derivatives in f64 (scripts/reference/record_dynamics.py). The model is certain of its
//! training samples and of some prior ones, so gradients are small, and a step of a fixed size is lost in the rounding of f32.

use crate::common;
use crate::common::Recorded;
use jigsaw::dynamics::{Influence, InfluenceConfig, ResponseLoss, Stepper, influences};
use jigsaw::model::{LanguageModel as _, Model};
use serde_json::Value;

fn model() -> Model {
    jigsaw::model::load(&common::fixture("dynamics/model"), &common::device()).unwrap()
}

/// Each recorded pair, as measured with the fused kernels or without, by steps of size `eta` or of a size that is chosen.
fn measure(model: &Model, eta: Option<f64>) -> Vec<(Value, Influence)> {
    let record = common::json("dynamics/pairs.json");
    let samples = Recorded::open("dynamics/pairs.safetensors", &record).sequences();
    let stepper = Stepper::new(model).unwrap();
    let measured = |want: &Value| {
        let sample = |key: &str| &samples[want[key].as_u64().unwrap() as usize];
        let loss = if want["loss"] == "sum" { ResponseLoss::Sum } else { ResponseLoss::Mean };
        let vs = std::slice::from_ref(sample("v"));
        let learning_rate = want["learning_rate"].as_f64().unwrap();
        let config = InfluenceConfig { eta, loss, learning_rate, ..InfluenceConfig::default() };
        (want.clone(), influences(&stepper, sample("u"), vs, &config).unwrap()[0])
    };
    record["pairs"].as_array().unwrap().iter().map(measured).collect()
}

fn relative(got: f64, want: &Value) -> f64 {
    (got / want.as_f64().unwrap() - 1.0).abs()
}

#[test]
fn ten_pairs_of_a_tuned_model_are_what_torch_says_in_f64() {
    for model in [model(), model().without_fused_kernels()] {
        let pairs = measure(&model, None);
        let parameters = model.parameters().iter().map(|p| p.var.elem_count()).sum::<usize>() as f64;
        assert_eq!(pairs.len(), 10);
        for (want, found) in pairs {
            let said = format!("{found:?}\nagainst {want}");
            for (got, key) in [(found.lbk, "lbk"), (found.slope_squares, "slope_squares"), (found.sgd_kl, "sgd_kl")] {
                assert!(relative(got, &want[key]) < 0.02, "{key}: {said}");
            }
            for (got, key, most) in [
                (found.a_squares, "a_squares", 1e-5),
                (found.g_squares, "g_squares", 1e-4),
                (found.u_gradient, "u_gradient", 1e-4),
                (found.v_gradient, "v_gradient", 1e-4),
                (found.u_nats, "u_nats", 1e-4),
                (found.v_nats, "v_nats", 1e-4),
            ] {
                assert!(relative(got, &want[key]) < most, "{key}: {said}");
            }
            assert_eq!(
                (found.u_tokens as u64, found.v_tokens as u64),
                (want["u_tokens"].as_u64().unwrap(), want["v_tokens"].as_u64().unwrap())
            );
            // An inner product is at most the product of the norms.
            let exact = want["inner_product"].as_f64().unwrap();
            let scale = want["u_gradient"].as_f64().unwrap() * want["v_gradient"].as_f64().unwrap();
            for (got, most) in [(found.inner_product, 1e-5), (found.v_slope, 5e-3), (found.u_slope, 5e-3)] {
                assert!((got - exact).abs() < most * scale, "{got} {exact}: {said}");
            }
            assert!(!found.is_rounded() && !found.is_curved(), "{said}");
            // Adam's step is as long along gradients that are mostly rounding of f32 as along others: torch in f32 is off by as much.
            for (got, key, most) in [(found.adam_squares, "adam_squares", 0.02), (found.adam_kl, "adam_kl", 0.05)] {
                assert!(relative(got, &want[key]) < most, "{key}: {said}");
            }
            // The change of v is an inner product with that step, and may be small beside the norms.
            let step = want["learning_rate"].as_f64().unwrap() * parameters.sqrt();
            let exact = want["adam_change"].as_f64().unwrap();
            let most = 0.05 * exact.abs() + 1e-5 * want["v_gradient"].as_f64().unwrap() * step;
            assert!((found.adam_change - exact).abs() < most, "{} {exact}: {said}", found.adam_change);
        }
    }
}

#[test]
fn what_a_given_size_of_steps_gets_wrong_is_called_so() {
    let model = model();
    for (eta, rounded, curved) in [(1e-6, 10, 0), (1e-2, 0, 0), (100.0, 0, 10)] {
        let pairs = measure(&model, Some(eta));
        for (want, found) in &pairs {
            let (wrong, uncertain) = (relative(found.lbk, &want["lbk"]), found.is_rounded() || found.is_curved());
            assert!(wrong < 0.05 || uncertain, "{eta}: {wrong}: {found:?}\nagainst {want}");
        }
        let count = |of: fn(&Influence) -> bool| pairs.iter().filter(|(_, pair)| of(pair)).count();
        assert_eq!((count(Influence::is_rounded), count(Influence::is_curved)), (rounded, curved), "{eta}: {pairs:?}");
    }
}
