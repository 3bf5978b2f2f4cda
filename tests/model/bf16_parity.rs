//! `train.dtype = "bf16"` against torch's bf16 autocast (scripts/reference/record_bf16.py): loss, log-probabilities and every gradient.

use crate::common;
use crate::common::Recorded;
use candle_core::{DType, Tensor, safetensors};
use jigsaw::model::{ComputeDtype, LanguageModel as _, ModelLoader, TokenGrads};
use std::sync::Mutex;

fn flat(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// `|a - b| / |b|`, Euclidean norms.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

/// Autocast rounds the results of products, too, and the products of attention: it lies further from f32 than this model does. So the two
/// are no further apart than their roundings can add up to, twice autocast's own distance from f32; and over all tensors this model is nearer
/// to f32 than autocast is.
#[test]
fn loss_log_probabilities_and_every_gradient_lie_within_the_rounding_of_torchs_autocast() {
    let moved = common::json("bf16/autocast.json");
    for (name, moved) in moved["cases"].as_object().unwrap() {
        let record = common::json(&format!("model/{name}/case.json"));
        let recorded = Recorded::open(&format!("model/{name}/expected.safetensors"), &record);
        let autocast =
            safetensors::load(common::fixture(&format!("bf16/{name}.safetensors")), &common::device()).unwrap();
        let loader = ModelLoader::new(&common::device(), ComputeDtype::Bf16);
        let model = loader.trainable(&common::fixture("model").join(name), &[]).unwrap();
        let kept = Mutex::new(Vec::new());
        model
            .backward(&recorded.sequences(), 1.0, None, &|_, stats| {
                *kept.lock().unwrap() = stats.logprobs.clone();
                let n = stats.logprobs.len();
                Ok(TokenGrads { logprobs: vec![-1.0 / n as f32; n], entropies: None, kl: None })
            })
            .unwrap();
        let logprobs: Vec<f64> = kept.into_inner().unwrap().into_iter().map(f64::from).collect();
        let loss = -logprobs.iter().sum::<f64>() / logprobs.len() as f64;
        let mut got = vec![("loss".to_string(), vec![loss]), ("logprobs".to_string(), logprobs)];
        for parameter in model.parameters() {
            got.extend(parameter.grad().map(|grad| (format!("grad.{}", parameter.name), flat(&grad))));
        }
        assert_eq!(got.len(), moved.as_object().unwrap().len(), "{name}");
        let exact: Vec<f64> =
            (0..recorded.len()).flat_map(|i| flat(&recorded.tensors[&format!("seq{i}.logprobs")])).collect();
        let (mut ours, mut theirs) = (0.0, 0.0);
        for (key, got) in &got {
            let rounding = moved[key].as_f64().unwrap();
            let apart = distance(got, &flat(&autocast[key]));
            // A loss is one number: autocast's may be near by chance.
            let most = if key == "loss" { 4e-3 } else { 2.0 * rounding };
            assert!(apart <= most, "{name} {key}: {apart:e} from autocast, which is {rounding:e} from f32");
            let exact = if key == "logprobs" { exact.clone() } else { flat(&recorded.tensors[key]) };
            ours += distance(got, &exact).powi(2);
            theirs += rounding.powi(2);
        }
        assert!(ours > 0.0 && ours <= theirs, "{name}: {ours:e} from f32, autocast {theirs:e}");
    }
}
