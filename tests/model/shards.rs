//! A batch that is worked on in shards, on several threads, or with activations computed twice, gives what it must.

use jigsaw::model::init::{Preset, write_checkpoint};
use jigsaw::model::{ImageInput, Prompt, Sequence, TokenGrads};
use jigsaw::model::{LanguageModel as _, Model};
use std::sync::Arc;
use tempfile::TempDir;

fn model() -> (TempDir, Model) {
    preset(Preset::Tiny)
}

fn preset(preset: Preset) -> (TempDir, Model) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model");
    write_checkpoint(&path, preset, 3).unwrap();
    let model = jigsaw::model::load(&path, &candle_core::Device::Cpu).unwrap();
    (dir, model)
}

/// `count` prompts with a picture each, two responses to every one.
fn batch(model: &Model, count: usize) -> Vec<Sequence> {
    let vision = model.architecture().vision().unwrap();
    let image_token = model.architecture().image_tokens().unwrap().image;
    let vocab = image_token.min(1000) as usize;
    let mut sequences = Vec::new();
    for i in 0..count {
        let patches = (0..16 * vision.patch_len).map(|j| ((j * 7 + i * 13) as f32 * 0.01).sin()).collect();
        let image = Arc::new(ImageInput { patches, grid: [1, 4, 4] });
        let text = |n: usize, k: usize| (0..n).map(move |j| ((j * 31 + k * 17) % vocab) as u32);
        let ids = text(10, 0).chain([image_token; 4]).chain(text(80 + i % 7, i)).collect();
        let prompt = Arc::new(Prompt { ids, images: vec![image] });
        for r in 0..2 {
            sequences.push(Sequence { prompt: Arc::clone(&prompt), response: text(9 + r, i + r).collect() });
        }
    }
    sequences
}

/// The gradient of the sum of all log-probabilities, and how many parts the batch was cut into.
fn gradients(model: &Model, parts: &[&[Sequence]]) -> (Vec<Vec<f32>>, usize) {
    let calls = std::sync::atomic::AtomicUsize::new(0);
    model.parameters().iter().for_each(|p| p.clear_grad());
    for part in parts {
        model
            .backward(part, 1.0, None, &|_, stats| {
                calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Ok(TokenGrads { logprobs: vec![1.0; stats.logprobs.len()], entropies: None, kl: None })
            })
            .unwrap();
    }
    let grad = |p: &Arc<jigsaw::nn::Parameter>| p.grad().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    (model.parameters().iter().map(grad).collect(), calls.into_inner())
}

fn on_one_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(work)
}

#[test]
fn shards_add_up_and_the_number_of_threads_changes_nothing() {
    let (_dir, model) = model();
    let batch = batch(&model, 60);
    let (whole, shards) = gradients(&model, &[&batch]);
    assert!(shards > 1, "the batch is too small to be cut");
    let parts: Vec<&[Sequence]> = batch.chunks(20).collect();
    let (sum, calls) = gradients(&model, &parts);
    assert!(calls >= parts.len());
    for ((parameter, a), b) in model.parameters().iter().zip(&whole).zip(&sum) {
        let size = a.iter().map(|x| x.abs()).fold(0.0, f32::max);
        let off = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off <= 2e-5 * size, "{}: {off} of {size}", parameter.name);
    }
    let (alone, _) = on_one_thread(|| gradients(&model, &[&batch]));
    assert!(whole == alone, "gradients depend on the number of threads");
    let many = model.score(&batch, 0.7).unwrap();
    assert_eq!(many, on_one_thread(|| model.score(&batch, 0.7).unwrap()));
    // Each sequence by itself: the same bits, whatever it is computed with.
    let mut one_by_one = Vec::new();
    for sequence in &batch {
        one_by_one.extend(model.score(std::slice::from_ref(sequence), 0.7).unwrap().logprobs);
    }
    assert!(many.logprobs == one_by_one, "log-probabilities depend on the batch");
}

#[test]
fn activations_computed_twice_give_the_same_gradients() {
    let (dir, model) = model();
    let batch = batch(&model, 4);
    let (kept, _) = gradients(&model, &[&batch]);
    let again = jigsaw::model::load(&dir.path().join("model"), &candle_core::Device::Cpu)
        .unwrap()
        .with_gradient_checkpointing(true);
    assert!(gradients(&again, &[&batch]).0 == kept);
    // The same with the vision tower frozen, and on the composed kernels within rounding.
    let freeze = |m: &Model| {
        m.parameters().iter().filter(|p| m.part(&p.name).is_vision()).for_each(|p| p.set_trainable(false));
    };
    for m in [&model, &again] {
        freeze(m);
    }
    let decoder = |m: &Model| {
        m.parameters().iter().for_each(|p| p.clear_grad());
        m.backward(&batch, 1.0, None, &|_, s| {
            Ok(TokenGrads { logprobs: vec![1.0; s.logprobs.len()], entropies: None, kl: None })
        })
        .unwrap();
        m.parameters()
            .iter()
            .filter_map(|p| p.grad())
            .map(|g| g.flatten_all().unwrap().to_vec1::<f32>().unwrap())
            .collect::<Vec<_>>()
    };
    let (a, b) = (decoder(&model), decoder(&again));
    assert!(!a.is_empty() && a == b);
}

#[test]
fn pairs_of_shards_of_a_larger_model_give_the_same_bits_on_one_thread_and_several() {
    let (_dir, model) = preset(Preset::Small);
    let batch = batch(&model, 9);
    let (whole, shards) = gradients(&model, &[&batch]);
    assert!(shards > 2, "the batch is too small for pairs");
    assert!(whole == gradients(&model, &[&batch]).0);
    let (alone, _) = on_one_thread(|| gradients(&model, &[&batch]));
    assert!(whole == alone, "gradients depend on the number of threads");
    let parts: Vec<&[Sequence]> = batch.chunks(2).collect();
    let (sum, _) = gradients(&model, &parts);
    for ((parameter, a), b) in model.parameters().iter().zip(&whole).zip(&sum) {
        let size = a.iter().map(|x| x.abs()).fold(0.0, f32::max);
        let off = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off <= 2e-5 * size, "{}: {off} of {size}", parameter.name);
    }
    let many = model.score(&batch, 1.0).unwrap();
    assert_eq!(many, on_one_thread(|| model.score(&batch, 1.0).unwrap()));
}
