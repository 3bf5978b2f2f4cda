//! The plan for a device without fused kernels against what its ops hold, counted here on the CPU, which runs the same ops.

use crate::{alone, highest};
use candle_core::Device;
use jigsaw::model::init::{Preset, write_checkpoint};
use jigsaw::model::{
    ComputeDtype, ImageInput, LanguageModel as _, MemoryFootprint as _, Model, ModelLoader, Prompt, SamplingParams,
    Sequence, TokenGrads, TokenStats,
};
use std::sync::Arc;

/// A prompt of so many words around an image of `side` x `side` patches.
fn prompt(model: &Model, words: usize, side: usize) -> Arc<Prompt> {
    let (vision, tokens) = (model.architecture().vision().unwrap(), model.architecture().image_tokens().unwrap());
    let width = vision.patch_len;
    let patches = (0..side * side * width).map(|i| (i * 7919 % 1009) as f32 / 1009.0).collect();
    let merged = side * side / vision.merge_size.pow(2);
    let mut ids = vec![tokens.start];
    ids.extend(vec![tokens.image; merged]);
    ids.push(tokens.end);
    ids.extend((0..words as u32).map(|i| 300 + i % 200));
    Arc::new(Prompt { ids, images: vec![Arc::new(ImageInput { patches, grid: [1, side, side] })] })
}

/// What a backward pass holds beside weights and gradients, and what was planned.
fn backward(model: &Model, batch: &[Sequence]) -> (usize, usize) {
    let loss = |_: std::ops::Range<usize>, stats: &TokenStats| {
        Ok(TokenGrads {
            logprobs: vec![1.0; stats.logprobs.len()],
            entropies: Some(vec![0.1; stats.logprobs.len()]),
            kl: None,
        })
    };
    // Gradients stay from the first pass on.
    model.backward(batch, 1.0, None, &loss).unwrap();
    let (held, ()) = highest(|| model.backward(batch, 1.0, None, &loss).unwrap());
    (held, model.backward_bytes(batch).activations)
}

fn model(preset: Preset, recompute: bool) -> Model {
    let dir = tempfile::tempdir().unwrap();
    write_checkpoint(dir.path(), preset, 1).unwrap();
    let model = jigsaw::model::load(dir.path(), &Device::Cpu).unwrap();
    model.without_fused_kernels().with_gradient_checkpointing(recompute)
}

/// Is each plan at least what was held, and at most twice that?
fn compare(cases: &[(String, (usize, usize))]) {
    let line = |(what, (held, planned)): &(String, (usize, usize))| {
        format!("{what}: held {held}, planned {planned} ({:.2})", *planned as f64 / *held as f64)
    };
    let all = cases.iter().map(line).collect::<Vec<_>>().join("\n");
    println!("{all}");
    assert!(cases.iter().all(|(_, (held, planned))| held <= planned && *planned <= 2 * held), "{all}");
}

#[test]
fn training_holds_what_is_planned() {
    let _alone = alone();
    let mut cases = Vec::new();
    for recompute in [false, true] {
        let model = model(Preset::Tiny, recompute);
        let sequence =
            |words, side, response| Sequence { prompt: prompt(&model, words, side), response: vec![301; response] };
        for (what, batch) in [
            ("a large image", vec![sequence(20, 32, 20)]),
            ("long text", vec![sequence(700, 4, 300)]),
            ("several", (0..6).map(|_| sequence(60, 12, 40)).collect()),
            ("responses to one prompt", vec![sequence(60, 12, 80); 8]),
        ] {
            cases.push((format!("{what}, recompute {recompute}"), backward(&model, &batch)));
        }
    }
    compare(&cases);
}

#[test]
fn generation_holds_what_is_planned() {
    let _alone = alone();
    let model = model(Preset::Tiny, false);
    let mut cases = Vec::new();
    for (what, prompts, samples, new) in [
        ("one response", vec![prompt(&model, 300, 24)], 1, 40),
        ("many", (0..4).map(|i| prompt(&model, 100 + 20 * i, 12)).collect(), 8, 60),
        ("more than are taken in at once", (0..60).map(|i| prompt(&model, 120 + i, 8)).collect(), 2, 20),
    ] {
        let sampling = SamplingParams { temperature: 1.0, ..SamplingParams::greedy(new) };
        let (held, _) = highest(|| model.generate(&prompts, samples, &sampling, &[], &[]).unwrap());
        cases.push((what.to_string(), (held, model.generate_bytes(&prompts, samples, new))));
    }
    compare(&cases);
}

#[test]
fn a_wave_that_is_filled_in_several_goes_has_the_responses_of_the_kernels() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    write_checkpoint(dir.path(), Preset::Tiny, 1).unwrap();
    let fused = ModelLoader::new(&Device::Cpu, ComputeDtype::F32).frozen(dir.path()).unwrap();
    let composed =
        ModelLoader::new(&Device::Cpu, ComputeDtype::F32).frozen(dir.path()).unwrap().without_fused_kernels();
    // More tokens than are taken in at once, in prompts that get longer.
    let prompts: Vec<Arc<Prompt>> = (0..40).map(|i| prompt(&fused, 200 + i, 8)).collect();
    assert!(prompts.iter().map(|p| p.ids.len()).sum::<usize>() > 8192);
    let sampling = SamplingParams { temperature: 1.0, seed: 5, ..SamplingParams::greedy(6) };
    let [here, there] = [&fused, &composed].map(|m| m.generate(&prompts, 2, &sampling, &[300, 301], &[]).unwrap());
    for (here, there) in here.iter().flatten().zip(there.iter().flatten()) {
        assert_eq!(here.ids, there.ids);
        assert!(here.logprobs.iter().zip(&there.logprobs).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}
