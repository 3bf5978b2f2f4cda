//! The plan for the CPU's kernels against what they hold.
//!
//! A single pass may hold less than is planned for it: the plan is for two threads whose largest shards and gradients come at once, which a
//! pass of few sequences seldom meets (with gradient checkpointing it held 0.6 of the plan at the least). Whole runs meet it: they are held
//! to 15 % by `scripts/memory_sweep.py`.

use crate::{alone, highest};
use candle_core::Device;
use jigsaw::model::init::{Preset, write_checkpoint};
use jigsaw::model::lora::{Adapter, LoraSettings};
use jigsaw::model::{
    GroupSize, ImageInput, LanguageModel as _, MemoryFootprint as _, Model, Prompt, SamplingParams, Sequence,
    TokenGrads, TokenStats,
};
use std::sync::Arc;

/// A prompt of so many words around an image of `side` x `side` patches; of text alone with a side of 0.
pub fn prompt(model: &Model, words: usize, side: usize) -> Arc<Prompt> {
    let (vision, tokens) = (model.architecture().vision().unwrap(), model.architecture().image_tokens().unwrap());
    let text = (0..words as u32).map(|i| 300 + i % 200);
    if side == 0 {
        return Arc::new(Prompt { ids: text.collect(), images: Vec::new() });
    }
    let width = vision.patch_len;
    let patches = (0..side * side * width).map(|i| (i * 7919 % 1009) as f32 / 1009.0).collect();
    let merged = side * side / vision.merge_size.pow(2);
    let mut ids = vec![tokens.start];
    ids.extend(vec![tokens.image; merged]);
    ids.push(tokens.end);
    ids.extend(text);
    Arc::new(Prompt { ids, images: vec![Arc::new(ImageInput { patches, grid: [1, side, side] })] })
}

/// The sizes of a batch, and the batch: `responses` of so many tokens to each prompt.
pub fn batch(prompts: &[Arc<Prompt>], responses: usize, tokens: usize) -> (Vec<GroupSize>, Vec<Sequence>) {
    let size = |p: &Arc<Prompt>| GroupSize { prompt: p.size(), responses, response_tokens: tokens };
    let sequence = |p: &Arc<Prompt>| Sequence { prompt: Arc::clone(p), response: vec![301; tokens] };
    (prompts.iter().map(size).collect(), prompts.iter().flat_map(|p| vec![sequence(p); responses]).collect())
}

/// The most that backward passes hold beside weights, gradients and pixels, and what was planned.
pub fn backward(model: &Model, (sizes, batch): (Vec<GroupSize>, Vec<Sequence>)) -> (usize, usize) {
    let loss = |_: std::ops::Range<usize>, stats: &TokenStats| {
        Ok(TokenGrads {
            logprobs: vec![1.0; stats.logprobs.len()],
            entropies: Some(vec![0.1; stats.logprobs.len()]),
            kl: None,
        })
    };
    // Gradients stay from the first pass on.
    model.backward(&batch, 1.0, None, &loss).unwrap();
    let planned = model.backward_bytes(&sizes, 1);
    let planned = planned.activations + planned.thread_gradients;
    // How much is held at once depends on how the threads meet: on a busy machine, the largest shards meet only in some passes.
    let mut held = 0;
    for _ in 0..MOST_PASSES {
        held = held.max(highest(|| model.backward(&batch, 1.0, None, &loss).unwrap()).0);
        if planned as f64 <= MOST * held as f64 {
            break;
        }
    }
    (held, planned)
}

/// What sampling holds beside weights and pixels, and what was planned.
pub fn generate(model: &Model, prompts: &[Arc<Prompt>], samples: usize, new: usize) -> (usize, usize) {
    let sampling = SamplingParams { temperature: 1.0, ..SamplingParams::greedy(new) };
    let (held, _) = highest(|| model.generate(prompts, samples, &sampling, &[], &[]).unwrap());
    let sizes: Vec<_> = prompts.iter().map(|p| p.size()).collect();
    (held, model.generate_bytes(&sizes, samples, new))
}

/// Is each plan between `least` and `most` times what was held?
pub fn compare(cases: &[(String, (usize, usize))], least: f64, most: f64) {
    let ratio = |&(held, planned): &(usize, usize)| planned as f64 / held as f64;
    let line = |(what, found): &(String, (usize, usize))| {
        format!("{what}: held {}, planned {} ({:.2})", found.0, found.1, ratio(found))
    };
    let all = cases.iter().map(line).collect::<Vec<_>>().join("\n");
    println!("{all}");
    assert!(cases.iter().all(|(_, found)| (least..=most).contains(&ratio(found))), "{all}");
}

/// A plan that is below what is held would be a run that does not fit.
const LEAST: f64 = 0.9;
/// The largest found was 1.68, where the threads met.
const MOST: f64 = 1.75;
/// Passes in which they may meet.
const MOST_PASSES: usize = 12;

fn model(recompute: bool, lora: bool) -> Model {
    let dir = tempfile::tempdir().unwrap();
    write_checkpoint(dir.path(), Preset::Tiny, 1).unwrap();
    let model = jigsaw::model::load(dir.path(), &Device::Cpu).unwrap();
    let model = match lora {
        true => {
            let adapter = Adapter::meta(&LoraSettings::default(), model.architecture()).unwrap();
            model.with_adapter(adapter).unwrap()
        }
        false => model,
    };
    model.with_gradient_checkpointing(recompute)
}

#[test]
fn training_holds_what_is_planned() {
    let _alone = alone();
    let mut cases = Vec::new();
    for (recompute, lora) in [(false, false), (true, false), (false, true), (true, true)] {
        let model = model(recompute, lora);
        let many = |count: usize, words: usize, side: usize| -> Vec<Arc<Prompt>> {
            (0..count).map(|_| prompt(&model, words, side)).collect()
        };
        for (what, prompts, responses, tokens) in [
            ("small images", many(32, 100, 12), 1, 24),
            ("large images", many(16, 40, 32), 1, 16),
            ("long text", many(8, 700, 0), 1, 300),
            ("groups", many(8, 60, 12), 16, 64),
        ] {
            let found = backward(&model, batch(&prompts, responses, tokens));
            cases.push((format!("{what}, recompute {recompute}, adapter {lora}"), found));
        }
    }
    compare(&cases, LEAST, MOST);
}

#[test]
fn generation_holds_what_is_planned() {
    let _alone = alone();
    let model = model(false, false);
    let many = |count: usize, words: usize, side: usize| -> Vec<Arc<Prompt>> {
        (0..count).map(|_| prompt(&model, words, side)).collect()
    };
    let mut cases = Vec::new();
    for (what, prompts, samples, new) in [
        ("groups", many(16, 100, 12), 16, 256),
        ("large images", many(8, 40, 32), 16, 256),
        ("evaluation of large images", many(32, 40, 32), 1, 512),
        ("text", many(32, 300, 0), 8, 512),
    ] {
        cases.push((what.to_string(), generate(&model, &prompts, samples, new)));
    }
    compare(&cases, LEAST, MOST);
}
