//! The divergence of two models against a direct computation, against its exact value, and against plain Monte Carlo.

use crate::common;
use crate::toy::{Digits, PROMPTS, Puzzles, Toy};
use candle_core::{Device, Tensor};
use image::RgbImage;
use jigsaw::data::Record;
use jigsaw::eval::{BaseSamples, Comparison, Divergence, PromptDivergence, PromptRole, token_divergences};
use jigsaw::model::init::{Preset, write_checkpoint};
use jigsaw::model::{LanguageModel, Model, Predictor};
use jigsaw::model::{Prompt, SamplingParams, Sequence};
use jigsaw::sampling::ScoredResponse;
use jigsaw::tasks::Task;
use jigsaw::tasks::encode_example;
use std::collections::HashMap;
use std::sync::Arc;

/// A toy whose logits are moved by `amount`.
fn moved(amount: f32) -> Toy {
    let toy = Toy::load(None);
    for parameter in toy.parameters() {
        let shape = parameter.var.as_tensor().shape().clone();
        let old: Vec<f32> = parameter.var.as_tensor().flatten_all().unwrap().to_vec1().unwrap();
        let new: Vec<f32> = old.iter().enumerate().map(|(i, x)| x + amount * (i as f32 * 0.7).cos()).collect();
        parameter.var.set(&Tensor::from_vec(new, shape, &Device::Cpu).unwrap()).unwrap();
    }
    toy
}

fn measure(
    base: &dyn Predictor,
    tuned: &dyn Predictor,
    seed: u64,
    own: &HashMap<usize, ScoredResponse>,
) -> Vec<PromptDivergence> {
    let task = Puzzles::new();
    let comparison = Comparison { base, tuned, codec: &Digits, task: &task, max_new_tokens: 5, seed };
    let examples: Vec<usize> = (0..PROMPTS).collect();
    comparison.measure(&examples, |i| own.get(&i), &mut BaseSamples::default()).unwrap()
}

fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt())
}

/// Probabilities at each position of prompt `k`.
fn probabilities(toy: &Toy, k: u32) -> Vec<Vec<f64>> {
    let prompt = Arc::new(Prompt { ids: vec![k], images: Vec::new() });
    let sequence = Sequence { prompt, response: vec![0; 5] };
    let rows = toy.predict(&[sequence]).unwrap();
    let logits = rows.logits(0..5).unwrap();
    let row = |row: &[f32]| {
        let total: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
        row.iter().map(|&l| f64::from(l).exp() / total).collect()
    };
    logits.chunks(rows.vocab()).map(row).collect()
}

/// KL of whole responses, by all ways that a response can go: it ends with token 0, or after 5 tokens.
fn exact(p: &Toy, q: &Toy, k: u32) -> f64 {
    let (p, q) = (probabilities(p, k), probabilities(q, k));
    let mut alive = 1.0;
    let mut nats = 0.0;
    for (p, q) in p.iter().zip(&q) {
        nats += alive * p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
        alive *= 1.0 - p[0];
    }
    nats
}

#[test]
fn the_estimate_is_right_on_average_and_steadier_than_monte_carlo() {
    let (base, tuned) = (moved(0.0), moved(0.6));
    let truth = |p: &Toy, q: &Toy| (0..PROMPTS as u32).map(|k| exact(p, q, k)).sum::<f64>() / PROMPTS as f64;
    let (forward, reverse) = (truth(&base, &tuned), truth(&tuned, &base));
    assert!((forward - reverse).abs() > 0.01, "the directions differ: {forward} {reverse}");
    let mut found = [Vec::new(), Vec::new()];
    for seed in 0..400 {
        let lines = measure(&base, &tuned, seed, &HashMap::new());
        let mean = |of: fn(&PromptDivergence) -> f64| lines.iter().map(of).sum::<f64>() / lines.len() as f64;
        found[0].push(mean(|line| line.forward.nats));
        found[1].push(mean(|line| line.reverse.nats));
    }
    for (found, truth) in found.iter().zip([forward, reverse]) {
        let (mean, error) = mean_and_error(found);
        assert!((mean - truth).abs() < 4.0 * error, "{mean} +- {error}, not {truth}");
        assert!(error < 0.05 * truth);
    }
    // The log-ratio of the sampled tokens, over as many responses.
    let prompts: Vec<Arc<Prompt>> =
        (0..PROMPTS as u32).map(|k| Arc::new(Prompt { ids: vec![k], images: Vec::new() })).collect();
    let mut plain = Vec::new();
    for seed in 0..400 {
        let sampling = SamplingParams {
            max_new_tokens: 5,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            stop: Vec::new(),
            seed: 1000 + seed,
        };
        let responses = base.generate(&prompts, 1, &sampling, &[0], &[]).unwrap();
        let batch: Vec<Sequence> = prompts
            .iter()
            .zip(&responses)
            .map(|(prompt, r)| Sequence { prompt: Arc::clone(prompt), response: r[0].ids.clone() })
            .collect();
        let sum = |toy: &Toy| toy.score(&batch, 1.0).unwrap().logprobs.iter().map(|&p| f64::from(p)).sum::<f64>();
        plain.push((sum(&base) - sum(&tuned)) / PROMPTS as f64);
    }
    let (mean, error) = mean_and_error(&plain);
    let (rao_blackwell, steadier) = mean_and_error(&found[0]);
    assert!((mean - rao_blackwell).abs() < 4.0 * error.hypot(steadier), "{mean} +- {error} and {rao_blackwell}");
    assert!(steadier < 0.7 * error, "{steadier} against {error}");
}

#[test]
fn a_model_has_no_divergence_from_itself() {
    let lines = measure(&moved(0.3), &moved(0.3), 5, &HashMap::new());
    assert!(lines.iter().all(|line| line.forward.nats == 0.0 && line.reverse.nats == 0.0), "{lines:?}");
    let clusters: Vec<usize> = (0..lines.len()).collect();
    let found = Divergence::of("toy", PromptRole::NewTask, 5, &lines, &clusters);
    let interval = found.forward.per_token;
    assert_eq!((interval.value, interval.low, interval.high), (0.0, 0.0, 0.0));
}

#[test]
fn the_same_seed_gives_the_same_and_kept_base_responses_change_nothing() {
    let (base, tuned) = (moved(0.0), moved(0.5));
    let first = measure(&base, &tuned, 9, &HashMap::new());
    assert_eq!(measure(&base, &tuned, 9, &HashMap::new()), first);
    assert_ne!(measure(&base, &tuned, 10, &HashMap::new()), first);
    let task = Puzzles::new();
    let examples: Vec<usize> = (0..PROMPTS).collect();
    let mut samples = BaseSamples::default();
    for other in [moved(0.2), moved(0.5)] {
        let comparison =
            Comparison { base: &base, tuned: &other, codec: &Digits, task: &task, max_new_tokens: 5, seed: 9 };
        let lines = comparison.measure(&examples, |_| None, &mut samples).unwrap();
        assert_eq!(
            lines == first,
            other.parameters()[1].var.to_vec1::<f32>().unwrap() == tuned.parameters()[1].var.to_vec1::<f32>().unwrap()
        );
    }
    assert_eq!(samples.len(), 1);
}

#[test]
fn the_perplexity_of_own_answers_is_over_their_tokens_and_the_closing_one_if_there_is_one() {
    let task = Puzzles::new();
    let answer = |index: usize, finished: bool| {
        let score = task.score(index, "2 1 3");
        let id = format!("toy-{index}");
        let (response, token_ids, logprobs) = ("2 1 3".to_string(), Vec::new(), Vec::new());
        (index, ScoredResponse { index, id, sample: 0, response, tokens: 4, finished, score, token_ids, logprobs })
    };
    let own: HashMap<usize, ScoredResponse> = [answer(0, true), answer(3, false)].into();
    let (base, tuned) = (moved(0.0), moved(0.5));
    let lines = measure(&base, &tuned, 0, &own);
    assert!(lines[1].own.is_none());
    for (k, response) in [(0, vec![2, 1, 3, 0]), (3, vec![2, 1, 3])] {
        let found = lines[k].own.as_ref().unwrap();
        assert_eq!(found.token_ids, response);
        let prompt = encode_example(&task, &Digits, k).unwrap();
        let nats = |toy: &Toy| {
            let sequence = Sequence { prompt: prompt.clone(), response: response.clone() };
            -toy.score(&[sequence], 1.0).unwrap().logprobs.iter().map(|&p| f64::from(p)).sum::<f64>()
        };
        assert_eq!(found.tokens, response.len());
        assert!((found.base - nats(&base)).abs() < 1e-6 && (found.tuned - nats(&tuned)).abs() < 1e-6);
    }
}

/// The recorded conversations, whose last turn is the gold response.
struct Recorded(Vec<(Record, Vec<RgbImage>)>);

impl Task for Recorded {
    fn name(&self) -> &str {
        "recorded"
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn example(&self, i: usize) -> jigsaw::Result<std::borrow::Cow<'_, Record>> {
        Ok(std::borrow::Cow::Borrowed(&self.0[i].0))
    }

    fn images(&self, i: usize) -> jigsaw::Result<Vec<RgbImage>> {
        Ok(self.0[i].1.clone())
    }

    fn score(&self, _i: usize, _response: &str) -> jigsaw::tasks::Score {
        jigsaw::tasks::Score::nothing("not scored")
    }
}

#[test]
fn gold_answers_have_the_log_probabilities_of_transformers_and_of_peft() {
    let (recorded, adapted) = (common::json("checkpoint/expected.json"), common::json("lora/names/expected.json"));
    let sequences = recorded["sequences"].as_array().unwrap();
    let conversation = |(i, sequence): (usize, &serde_json::Value)| {
        let open = |name: &serde_json::Value| {
            image::open(common::fixture("checkpoint").join(name.as_str().unwrap())).unwrap().into_rgb8()
        };
        let record = Record {
            file_name: String::new(),
            id: format!("conversation-{i}"),
            task: "recorded".into(),
            messages: serde_json::from_value(sequence["messages"].clone()).unwrap(),
            images: Vec::new(),
            answer: String::new(),
            source: String::new(),
            seed: 0,
            meta: Default::default(),
        };
        (record, sequence["images"].as_array().unwrap().iter().map(open).collect())
    };
    let task = Recorded(sequences.iter().enumerate().map(conversation).collect());
    let base_dir = common::fixture("checkpoint").join("model");
    let (base, tuned) = (
        jigsaw::model::load(&base_dir, &Device::Cpu).unwrap(),
        jigsaw::model::load(&common::fixture("lora").join("names"), &Device::Cpu).unwrap(),
    );
    let codec = jigsaw::model::Processor::from_dir(&base_dir).unwrap();
    let comparison = Comparison { base: &base, tuned: &tuned, codec: &codec, task: &task, max_new_tokens: 1, seed: 0 };
    let examples: Vec<usize> = (0..task.len()).collect();
    let lines = comparison.measure(&examples, |_| None, &mut BaseSamples::default()).unwrap();
    for (i, line) in lines.iter().enumerate() {
        let gold = line.gold.as_ref().unwrap();
        let numbers = |value: &serde_json::Value| -> Vec<f32> { serde_json::from_value(value.clone()).unwrap() };
        let (of_base, of_tuned) = (numbers(&sequences[i]["logprobs"]), numbers(&adapted["logprobs"][i]));
        for (got, expected) in [(&gold.response.base_logprobs, of_base), (&gold.response.tuned_logprobs, of_tuned)] {
            assert_eq!(got.len(), expected.len());
            let scale = expected.iter().fold(1e-3f32, |most, x| most.max(x.abs()));
            let far = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 1e-4 * scale, "{}: {far}", line.id);
        }
        assert!(gold.first < gold.end && gold.end <= gold.response.tokens);
    }
}

#[test]
fn over_a_real_vocabulary_it_is_what_the_logits_of_the_whole_sequence_give() {
    let dir = tempfile::tempdir().unwrap();
    let load = |seed: u64| {
        let path = dir.path().join(seed.to_string());
        write_checkpoint(&path, Preset::Tiny, seed).unwrap();
        jigsaw::model::load(&path, &Device::Cpu).unwrap()
    };
    let (p, q) = (load(0), load(1));
    let sequences: Vec<Sequence> = [(5, 7), (9, 3), (4, 40)]
        .iter()
        .enumerate()
        .map(|(i, &(prompt, response))| {
            let ids = |n: u32, by: u32| (0..n).map(|j| (j * by + i as u32) % 400).collect::<Vec<u32>>();
            Sequence {
                prompt: Arc::new(Prompt { ids: ids(prompt, 31), images: Vec::new() }),
                response: ids(response, 17),
            }
        })
        .collect();
    let found = token_divergences(&p, &q, &sequences).unwrap();
    let mut expected = Vec::new();
    for sequence in &sequences {
        let mut ids = sequence.prompt.ids.clone();
        ids.extend(&sequence.response[..sequence.response.len() - 1]);
        let whole = Arc::new(Prompt { ids, images: Vec::new() });
        let log_softmax = |model: &Model| -> Vec<Vec<f64>> {
            let rows = model.logits(&whole).unwrap().to_vec2::<f32>().unwrap();
            let row = |row: Vec<f32>| {
                let total: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
                row.iter().map(|&l| f64::from(l) - total.ln()).collect()
            };
            rows.into_iter().map(row).collect()
        };
        let (a, b) = (log_softmax(&p), log_softmax(&q));
        for row in sequence.prompt.ids.len() - 1..whole.ids.len() {
            expected.push(a[row].iter().zip(&b[row]).map(|(p, q)| p.exp() * (p - q)).sum::<f64>());
        }
    }
    assert_eq!(found.len(), 50);
    for (found, expected) in found.iter().zip(&expected) {
        assert!(*expected > 1e-3 && (found - expected).abs() < 1e-4 * expected, "{found} is not {expected}");
    }
    assert!(token_divergences(&p, &p, &sequences).unwrap().iter().all(|&nats| nats == 0.0));
    // As on other devices.
    let (p, q) = (p.without_fused_kernels(), q.without_fused_kernels());
    for (found, expected) in token_divergences(&p, &q, &sequences).unwrap().iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-4 * expected, "{found} is not {expected}");
    }
    assert!(token_divergences(&p, &q, &[]).unwrap().is_empty());
}
