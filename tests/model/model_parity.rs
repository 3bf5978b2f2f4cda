//! The model against numbers recorded from transformers (scripts/reference/record_model.py): positions, logits, log-probabilities,
//! loss and the gradient of every parameter, with the fused kernels and with the compositions that other devices use.

use crate::common;
use crate::common::Recorded;
use candle_core::{DType, Device, Tensor};
use jigsaw::model::{LanguageModel as _, Model, Prompt, SamplingParams, Sequence, TokenGrads, read_architecture};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

const CASES: [&str; 14] = [
    "one_image_tied",
    "two_images_untied",
    "text_only_tied",
    "one_image_nested",
    "qwen2_tied",
    "qwen2_untied",
    "llama_tied",
    "llama_stretched",
    "qwen3_tied",
    "qwen3_untied",
    "qwen2_vl_tied",
    "qwen2_vl_untied",
    "qwen3_vl_tied",
    "qwen3_vl_untied",
];
const TOLERANCE: f64 = 1e-4;

struct Case {
    dir: PathBuf,
    recorded: Recorded,
    record: Value,
}

impl Case {
    fn open(name: &str) -> Self {
        let record = common::json(&format!("model/{name}/case.json"));
        let recorded = Recorded::open(&format!("model/{name}/expected.safetensors"), &record);
        Case { dir: common::fixture("model").join(name), recorded, record }
    }

    fn expected(&self, key: &str) -> &Tensor {
        &self.recorded.tensors[key]
    }
}

fn flat(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(what: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    let (got, want) = (flat(got), flat(want));
    let scale = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!((g - w).abs() <= TOLERANCE * scale, "{what}[{i}]: {g} against {w} (largest {scale})");
    }
}

fn models(case: &Case) -> [Model; 2] {
    let load = || jigsaw::model::load(&case.dir, &common::device()).unwrap();
    [load(), load().without_fused_kernels()]
}

#[test]
fn position_ids_equal_those_of_transformers() {
    for case in CASES.map(Case::open) {
        let architecture = read_architecture(&case.dir).unwrap();
        for i in 0..case.recorded.len() {
            let grids: Vec<[usize; 3]> = case.recorded.images(i).iter().map(|image| image.grid).collect();
            let index = architecture.positions(&case.recorded.ids(i), &grids).unwrap();
            let want = case.expected(&format!("seq{i}.position_ids")).to_vec2::<i64>().unwrap();
            for (axis, want) in want.iter().enumerate() {
                let got: Vec<i64> = index.axes[axis].iter().map(|&p| p as i64).collect();
                assert_eq!(&got, want, "{} sequence {i} axis {axis}", case.dir.display());
            }
        }
    }
}

#[test]
fn logits_equal_those_of_transformers() {
    for case in CASES.map(Case::open) {
        for model in models(&case) {
            for i in 0..case.recorded.len() {
                let logits = model.logits(&case.recorded.prompt(i, case.recorded.ids(i).len())).unwrap();
                assert_close(&format!("{} {i}", case.dir.display()), &logits, case.expected(&format!("seq{i}.logits")));
            }
        }
    }
}

#[test]
fn loss_log_probabilities_and_every_gradient_equal_those_of_transformers() {
    for case in CASES.map(Case::open) {
        for model in models(&case) {
            let batch = case.recorded.sequences();
            let kept = Mutex::new(Vec::new());
            model
                .backward(&batch, 1.0, None, &|_, stats| {
                    *kept.lock().unwrap() = stats.logprobs.clone();
                    let n = stats.logprobs.len();
                    Ok(TokenGrads { logprobs: vec![-1.0 / n as f32; n], entropies: None, kl: None })
                })
                .unwrap();
            let logprobs = kept.into_inner().unwrap();
            let want: Vec<Tensor> =
                (0..case.recorded.len()).map(|i| case.expected(&format!("seq{i}.logprobs")).clone()).collect();
            let got = Tensor::from_slice(&logprobs, logprobs.len(), &Device::Cpu).unwrap();
            assert_close("logprobs", &got, &Tensor::cat(&want, 0).unwrap());
            let loss = -logprobs.iter().map(|&x| f64::from(x)).sum::<f64>() / logprobs.len() as f64;
            let want = flat(case.expected("loss"))[0];
            assert!((loss - want).abs() <= TOLERANCE * want.abs(), "loss {loss} against {want}");
            let without: Vec<&str> =
                case.record["no_gradient"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
            let mut compared = 0;
            for parameter in model.parameters() {
                match parameter.grad() {
                    None => assert!(without.contains(&parameter.name.as_str()), "{} got no gradient", parameter.name),
                    Some(grad) => {
                        assert_close(&parameter.name, &grad, case.expected(&format!("grad.{}", parameter.name)));
                        compared += 1;
                    }
                }
            }
            assert_eq!(compared + without.len(), model.parameters().len());
        }
    }
}

#[test]
fn greedy_text_equals_that_of_transformers() {
    let mut compared = 0;
    for case in CASES.map(Case::open) {
        let Some(want) = case.recorded.tensors.get("greedy") else { continue };
        let want: Vec<u32> = want.to_vec1::<i64>().unwrap().into_iter().map(|id| id as u32).collect();
        let prompt = case.recorded.sequences().remove(0).prompt;
        for model in models(&case) {
            let sampling = SamplingParams::greedy(want.len());
            let got = model.generate(std::slice::from_ref(&prompt), 1, &sampling, &[], &[]).unwrap();
            assert_eq!(got[0][0].ids, want, "{}", case.dir.display());
        }
        compared += 1;
    }
    assert!(compared >= 8);
}

#[test]
fn a_sequence_scores_the_same_alone_and_in_a_batch() {
    let case = Case::open("two_images_untied");
    for model in models(&case) {
        let batch = case.recorded.sequences();
        let together = model.score(&batch, 1.0).unwrap();
        let alone: Vec<f32> =
            batch.iter().flat_map(|s| model.score(std::slice::from_ref(s), 1.0).unwrap().logprobs).collect();
        for (a, b) in together.logprobs.iter().zip(&alone) {
            assert!((a - b).abs() < 1e-5, "{a} against {b}");
        }
        if model.fused() && common::on_cpu_kernels() {
            assert_eq!(together.logprobs, alone, "to the last bit");
        }
    }
}

#[test]
fn responses_that_share_a_prompt_score_as_if_each_had_its_own() {
    let case = Case::open("two_images_untied");
    let first = case.recorded.sequences().remove(0);
    let responses: [&[u32]; 4] = [&[5, 9, 11], &[7], &[5, 9, 12, 3], &[20, 21]];
    for model in models(&case) {
        let sequence = |prompt: &Arc<Prompt>, r: &[u32]| Sequence { prompt: Arc::clone(prompt), response: r.to_vec() };
        let shared: Vec<Sequence> = responses.iter().map(|r| sequence(&first.prompt, r)).collect();
        let own: Vec<Sequence> = responses.iter().map(|r| sequence(&Arc::new((*first.prompt).clone()), r)).collect();
        let gradients = |batch: &[Sequence]| -> Vec<Tensor> {
            model.parameters().iter().for_each(|p| p.clear_grad());
            model
                .backward(batch, 0.8, None, &|shard, stats| {
                    let tokens = |sequences: &[Sequence]| sequences.iter().map(|s| s.response.len()).sum::<usize>();
                    let (first, n) = (tokens(&batch[..shard.start]), tokens(&batch[shard]));
                    assert_eq!(n, stats.logprobs.len());
                    let weights = (first..first + n).map(|i| (i as f32 * 0.7).sin());
                    Ok(TokenGrads { logprobs: weights.clone().collect(), entropies: Some(weights.collect()), kl: None })
                })
                .unwrap();
            model.parameters().iter().map(|p| p.grad().unwrap().copy().unwrap()).collect()
        };
        let (a, b) = (gradients(&shared), gradients(&own));
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            assert_close(&model.parameters()[i].name, a, b);
        }
    }
}

/// Prompts of the two-image case: different lengths, with and without images.
fn prompts(case: &Case) -> Vec<Arc<Prompt>> {
    case.recorded.sequences().into_iter().map(|s| s.prompt).collect()
}

#[test]
fn greedy_decoding_follows_the_logits_of_the_training_path() {
    let case = Case::open("two_images_untied");
    let prompts = prompts(&case);
    for model in models(&case) {
        let pad = model.architecture().image_tokens().unwrap().image;
        let got = model.generate(&prompts, 1, &SamplingParams::greedy(6), &[], &[3, pad]).unwrap();
        for (prompt, got) in prompts.iter().zip(&got) {
            let mut sequence = (**prompt).clone();
            for (&id, &logprob) in got[0].ids.iter().zip(&got[0].logprobs) {
                let logits = model.logits(&Arc::new(sequence.clone())).unwrap().to_vec2::<f32>().unwrap();
                let row = logits.last().unwrap();
                let best = (0..row.len())
                    .filter(|&i| i != 3 && i != pad as usize)
                    .max_by(|&a, &b| row[a].total_cmp(&row[b]))
                    .unwrap();
                assert_eq!(id as usize, best);
                let lse = row.iter().map(|&l| f64::from(l).exp()).sum::<f64>().ln();
                assert!((f64::from(logprob) - (f64::from(row[best]) - lse)).abs() < 1e-4);
                sequence.ids.push(id);
            }
        }
    }
}

#[test]
fn samples_do_not_depend_on_what_else_is_decoded_and_differ_from_each_other() {
    let case = Case::open("two_images_untied");
    let prompts = prompts(&case);
    let sampling =
        SamplingParams { max_new_tokens: 12, temperature: 1.0, top_p: 0.95, top_k: 0, stop: Vec::new(), seed: 5 };
    let eos: Vec<u32> = (0..20).collect();
    let [fused, composed] = models(&case);
    let together = fused.generate(&prompts, 5, &sampling, &eos, &[]).unwrap();
    let ids = |rows: &[Vec<jigsaw::model::Completion>]| -> Vec<Vec<Vec<u32>>> {
        rows.iter().map(|row| row.iter().map(|c| c.ids.clone()).collect()).collect()
    };
    // The first prompt keeps its index, and so its streams, when it is decoded alone.
    let alone = fused.generate(&prompts[..1], 5, &sampling, &eos, &[]).unwrap();
    assert_eq!(ids(&together)[0], ids(&alone)[0]);
    assert_eq!(ids(&together), ids(&composed.generate(&prompts, 5, &sampling, &eos, &[]).unwrap()));
    assert!(together.iter().any(|row| row.iter().any(|c| c.ids != row[0].ids)));
    for completion in together.iter().flatten() {
        assert_eq!(completion.finished, completion.ids.last().is_some_and(|id| eos.contains(id)));
        assert!(completion.finished || completion.ids.len() == 12);
        assert!(completion.ids[..completion.ids.len() - 1].iter().all(|id| !eos.contains(id)));
    }
    // The sampler's log-probabilities are the scorer's.
    for (prompt, row) in prompts.iter().zip(&together) {
        for completion in row {
            let sequence = Sequence { prompt: Arc::clone(prompt), response: completion.ids.clone() };
            let scored = fused.score(&[sequence], 1.0).unwrap().logprobs;
            for (a, b) in completion.logprobs.iter().zip(&scored) {
                assert!((a - b).abs() < 1e-4, "{a} against {b}");
            }
        }
    }
}

#[test]
fn more_samples_than_slots_are_all_decoded() {
    let case = Case::open("text_only_tied");
    let model = jigsaw::model::load(&case.dir, &common::device()).unwrap();
    let prompts: Vec<Arc<Prompt>> =
        (0..70).map(|i| Arc::new(Prompt { ids: vec![5, 6 + i % 9], images: vec![] })).collect();
    let sampling =
        SamplingParams { max_new_tokens: 9, temperature: 1.0, top_p: 1.0, top_k: 0, stop: Vec::new(), seed: 2 };
    let eos: Vec<u32> = (0..40).collect();
    let many = model.generate(&prompts, 8, &sampling, &eos, &[]).unwrap();
    let few = model.generate(&prompts[..3], 8, &sampling, &eos, &[]).unwrap();
    assert_eq!(many.len(), 70);
    assert!(many.iter().all(|row| row.len() == 8));
    if common::on_cpu_kernels() {
        assert_eq!(many[..3], few[..], "to the last bit");
    }
}
