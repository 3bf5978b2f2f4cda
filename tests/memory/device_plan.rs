//! The plan for a device without fused kernels against what its ops hold, counted here on the CPU, which runs the same ops.

use crate::alone;
use crate::cpu_plan::{backward, batch, compare, generate, prompt};
use candle_core::Device;
use jigsaw::model::init::{Preset, write_checkpoint};
use jigsaw::model::{ComputeDtype, LanguageModel as _, Model, ModelLoader, Prompt, SamplingParams};
use std::sync::Arc;

fn model(preset: Preset, recompute: bool) -> Model {
    let dir = tempfile::tempdir().unwrap();
    write_checkpoint(dir.path(), preset, 1).unwrap();
    let model = jigsaw::model::load(dir.path(), &Device::Cpu).unwrap();
    model.without_fused_kernels().with_gradient_checkpointing(recompute)
}

#[test]
fn training_holds_what_is_planned() {
    let _alone = alone();
    let mut cases = Vec::new();
    for recompute in [false, true] {
        let model = model(Preset::Tiny, recompute);
        for (what, prompts, responses, tokens) in [
            ("a large image", vec![prompt(&model, 20, 32)], 1, 20),
            ("long text", vec![prompt(&model, 700, 4)], 1, 300),
            ("several", (0..6).map(|_| prompt(&model, 60, 12)).collect(), 1, 40),
            ("responses to one prompt", vec![prompt(&model, 60, 12)], 8, 80),
        ] {
            cases
                .push((format!("{what}, recompute {recompute}"), backward(&model, batch(&prompts, responses, tokens))));
        }
    }
    compare(&cases, 1.0, 2.0);
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
        cases.push((what.to_string(), generate(&model, &prompts, samples, new)));
    }
    compare(&cases, 1.0, 2.0);
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
