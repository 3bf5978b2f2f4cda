//! Products in bf16 against torch's bf16 autocast (scripts/reference/record_bf16.py): loss, log-probabilities and every gradient. Weights that
//! are held in bf16 against working copies.

use crate::common;
use crate::common::Recorded;
use candle_core::{DType, Tensor, safetensors};
use jigsaw::model::init::{Preset, write_checkpoint};
use jigsaw::model::{
    ComputeDtype, LanguageModel as _, Model, ModelLoader, Prompt, SamplingParams, Sequence, TokenGrads,
};
use jigsaw::nn::bf16_instructions;
use std::sync::{Arc, Mutex};

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

fn on_one_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(work)
}

/// Weights that are held in bf16 give the bits that the working copies of a model that trains give, in scoring and in decoding, whatever the
/// batch and the number of threads. So the bound above holds for `--dtype bf16`, too.
#[test]
fn a_model_held_in_bf16_scores_and_samples_as_one_that_trains_whatever_the_batch_and_the_threads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    write_checkpoint(&path, Preset::Tiny, 3).unwrap();
    let loader = ModelLoader::new(&common::device(), ComputeDtype::Bf16);
    let (held, trains) = (loader.frozen(&path).unwrap(), loader.trainable(&path, &[]).unwrap());
    assert_eq!(held.parameters()[0].var.dtype(), DType::BF16);
    let prompt = |i: u32| Arc::new(Prompt { ids: (0..5 + i % 70).map(|j| 5 + (i + j) % 90).collect(), images: vec![] });
    let prompts: Vec<Arc<Prompt>> = (0..90).map(prompt).collect();
    let sampling =
        SamplingParams { max_new_tokens: 9, temperature: 1.0, top_p: 1.0, top_k: 0, stop: Vec::new(), seed: 2 };
    let eos: Vec<u32> = (0..40).collect();
    let samples = |model: &Model, prompts: &[Arc<Prompt>]| model.generate(prompts, 4, &sampling, &eos, &[]).unwrap();
    let many = samples(&held, &prompts);
    // Without instructions for bf16, a few rows are summed in another order.
    if bf16_instructions().is_some() {
        assert_eq!(samples(&held, &prompts[..1]), many[..1]);
        assert_eq!(on_one_thread(|| samples(&held, &prompts)), many);
        assert_eq!(samples(&trains, &prompts), many);
    }
    let sequences: Vec<Sequence> = prompts
        .iter()
        .zip(&many)
        .map(|(prompt, row)| Sequence { prompt: Arc::clone(prompt), response: row[0].ids.clone() })
        .collect();
    let scored = held.score(&sequences, 1.0).unwrap();
    let alone = |s: &Sequence| held.score(std::slice::from_ref(s), 1.0).unwrap().logprobs;
    assert_eq!(trains.score(&sequences, 1.0).unwrap(), scored);
    assert_eq!(on_one_thread(|| held.score(&sequences, 1.0).unwrap()), scored);
    if bf16_instructions().is_some() {
        assert_eq!(sequences.iter().flat_map(alone).collect::<Vec<_>>(), scored.logprobs);
    }
    // Decoding and scoring differ by bf16's rounding at most: their attention sums in another order.
    let sampled: Vec<f64> = many.iter().flat_map(|row| &row[0].logprobs).map(|l| f64::from(*l)).collect();
    let scored: Vec<f64> = scored.logprobs.iter().map(|l| f64::from(*l)).collect();
    assert!(distance(&sampled, &scored) < 1e-3, "{}", distance(&sampled, &scored));
}
