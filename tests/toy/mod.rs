//! A policy of a few hundred numbers and a puzzle to go with it, so that the training loops can be tested without a model.
//!
//! Prompt `k` is one token; the logits of the token at position `t` of its response are `table[k, t, :] + bias`. The puzzle:
//! answer prompt `k` with a certain permutation of 1, 2, 3.

#![allow(dead_code, reason = "each test file uses its own part")]

use candle_core::{Device, Tensor, Var};
use image::RgbImage;
use jigsaw::comm::{Communicator, share};
use jigsaw::data::{Message, Record};
use jigsaw::io::files::FileChecksum;
use jigsaw::model::{
    Completion, KlReference, Prompt, ResponseEnd, SamplingParams, Sequence, TokenGrads, TokenLoss, TokenStats,
};
use jigsaw::model::{LanguageModel, Predictions, Predictor, PromptEncoder, PromptSize};
use jigsaw::nn::{LazyLogits, Parameter, kl_divergence};
use jigsaw::tasks::{Score, Task};
use jigsaw::{Error, Result, rng};
use rand::Rng as _;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Prompts.
pub const PROMPTS: usize = 6;
const LENGTH: usize = 5;
/// Token 0 closes a response, 1 to 3 are the digits, 4 is never a good idea.
const VOCABULARY: usize = 5;

pub struct Toy {
    parameters: Vec<Arc<Parameter>>,
    /// From this call of `backward` on the loss is not a number.
    pub poison: Option<usize>,
    /// Wait this long in every `backward`, to be killed in the middle of something.
    pub delay: std::time::Duration,
    calls: AtomicUsize,
}

impl Toy {
    /// The weights in `dir`, or those that every run starts from.
    pub fn load(dir: Option<&Path>) -> Toy {
        let stored = dir.map(|d| candle_core::safetensors::load(d.join("model.safetensors"), &Device::Cpu).unwrap());
        let make = |name: &str, n: usize, shape: &[usize]| {
            let tensor = match &stored {
                Some(stored) => stored[name].clone(),
                None => {
                    // Knows that a response is three digits and an end, not which digits.
                    let known = |i: usize| match (i / VOCABULARY % LENGTH, i % VOCABULARY) {
                        (3, 0) => 2.0,
                        (0..3, 0 | 4) => -2.0,
                        _ => 0.0,
                    };
                    let known = |i: usize| if shape.len() == 2 { known(i) } else { 0.0 };
                    let wave = (0..n).map(|i| known(i) + 0.3 * (i as f32 * 1.3).sin()).collect::<Vec<f32>>();
                    Tensor::from_vec(wave, shape, &Device::Cpu).unwrap()
                }
            };
            Arc::new(Parameter::new(name, Var::from_tensor(&tensor).unwrap()))
        };
        let rows = PROMPTS * LENGTH;
        let parameters =
            vec![make("table.weight", rows * VOCABULARY, &[rows, VOCABULARY]), make("bias", VOCABULARY, &[VOCABULARY])];
        Toy { parameters, poison: None, delay: Default::default(), calls: AtomicUsize::new(0) }
    }

    /// Add a weight that nothing depends on.
    pub fn with_orphan(mut self) -> Toy {
        let value = Var::from_tensor(&Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap();
        self.parameters.push(Arc::new(Parameter::new("orphan.weight", value)));
        self
    }

    fn values(&self, i: usize) -> Vec<f32> {
        self.parameters[i].var.as_tensor().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// log-softmax of logits / temperature at position `t` of prompt `k`.
    fn log_probs(&self, table: &[f32], bias: &[f32], k: usize, t: usize, temperature: f32) -> Vec<f32> {
        let row = (k * LENGTH + t) * VOCABULARY;
        let logits: Vec<f32> = (0..VOCABULARY).map(|v| (table[row + v] + bias[v]) / temperature).collect();
        let max = logits.iter().cloned().fold(f32::MIN, f32::max);
        let sum = logits.iter().map(|l| (l - max).exp()).sum::<f32>().ln() + max;
        logits.iter().map(|l| l - sum).collect()
    }

    /// The gradients of table and bias: of the statistics, and of the divergence from log-probabilities `reference` at each token.
    fn gradients(
        &self,
        batch: &[Sequence],
        temperature: f32,
        stats: &TokenStats,
        grads: &TokenGrads,
        reference: &[Vec<f32>],
    ) -> [Vec<f32>; 2] {
        let (table, bias) = (self.values(0), self.values(1));
        let (mut by_table, mut by_bias) = (vec![0.0f32; table.len()], vec![0.0f32; bias.len()]);
        let mut at = 0;
        for s in batch {
            for (t, &token) in s.response.iter().enumerate() {
                let k = s.prompt.ids[0] as usize;
                let lp = self.log_probs(&table, &bias, k, t, temperature);
                let by_entropy = grads.entropies.as_ref().map_or(0.0, |e| e[at]);
                for v in 0..VOCABULARY {
                    let one = f32::from(u8::from(v == token as usize));
                    let mut g = (grads.logprobs[at] * (one - lp[v].exp())
                        - by_entropy * lp[v].exp() * (lp[v] + stats.entropies[at]))
                        / temperature;
                    if let (Some(p), Some(by_kl)) = (reference.get(at), &grads.kl) {
                        g += by_kl[at] * (lp[v].exp() - p[v].exp());
                    }
                    by_table[(k * LENGTH + t) * VOCABULARY + v] += g;
                    by_bias[v] += g;
                }
                at += 1;
            }
        }
        [by_table, by_bias]
    }
}

impl LanguageModel for Toy {
    fn parameters(&self) -> &[Arc<Parameter>] {
        &self.parameters
    }

    fn score(&self, batch: &[Sequence], temperature: f32) -> Result<TokenStats> {
        let (table, bias) = (self.values(0), self.values(1));
        let mut stats = TokenStats { logprobs: Vec::new(), entropies: Vec::new(), kl: None };
        for s in batch {
            for (t, &token) in s.response.iter().enumerate() {
                let lp = self.log_probs(&table, &bias, s.prompt.ids[0] as usize, t, temperature);
                stats.logprobs.push(lp[token as usize]);
                stats.entropies.push(-lp.iter().map(|l| l.exp() * l).sum::<f32>());
            }
        }
        Ok(stats)
    }

    /// In shards of two sequences.
    fn distributed_backward(
        &self,
        comm: &dyn Communicator,
        batch: &[Sequence],
        temperature: f32,
        kl_reference: Option<&KlReference<'_>>,
        loss: &dyn TokenLoss,
    ) -> Result<()> {
        std::thread::sleep(self.delay);
        let poisoned = self.poison.is_some_and(|p| self.calls.fetch_add(1, Ordering::Relaxed) >= p);
        let shards = batch.len().div_ceil(2);
        let mut own = Vec::new();
        for shard in comm.share(shards) {
            let range = 2 * shard..(2 * shard + 2).min(batch.len());
            let batch = &batch[range.clone()];
            let mut stats = self.score(batch, temperature)?;
            if poisoned {
                stats.logprobs[0] = f32::NAN;
            }
            let mut reference = Vec::new();
            if let Some(logits) = kl_reference {
                reference = logits(range.clone())?.states.to_vec2::<f32>()?;
                let rows = self.predict(batch)?;
                let kl = |(i, p): (usize, &Vec<f32>)| Ok(kl_divergence(p, &rows.logits(i..i + 1)?) as f32);
                stats.kl = Some(reference.iter().enumerate().map(kl).collect::<Result<_>>()?);
            }
            let grads = loss.grads(range, &stats)?;
            own.push(self.gradients(batch, temperature, &stats, &grads, &reference));
        }
        let counts: Vec<usize> =
            (0..comm.world_size()).map(|rank| share(shards, rank, comm.world_size()).len()).collect();
        for (i, p) in self.parameters.iter().take(2).enumerate().filter(|(_, p)| p.trainable()) {
            let own: Vec<&[f32]> = own.iter().map(|gradients| gradients[i].as_slice()).collect();
            let mut result = Ok(());
            p.accumulate(|sum, filled| result = comm.all_reduce_sum(sum, filled, &own, &counts))?;
            result?;
        }
        Ok(())
    }

    fn lazy_logits(&self, batch: &[Sequence]) -> Result<LazyLogits> {
        let rows = self.predict(batch)?;
        let states = Tensor::from_vec(rows.logits(0..rows.rows())?, (rows.rows(), VOCABULARY), &Device::Cpu)?;
        let weight = Var::from_tensor(&Tensor::eye(VOCABULARY, candle_core::DType::F32, &Device::Cpu)?)?;
        Ok(LazyLogits { states, weight: Arc::new(Parameter::new("eye", weight)) })
    }

    fn generate_from(
        &self,
        first: usize,
        prompts: &[Arc<Prompt>],
        samples: usize,
        sampling: &SamplingParams,
        end: ResponseEnd<'_>,
        banned: &[u32],
    ) -> Result<Vec<Vec<Completion>>> {
        let (table, bias) = (self.values(0), self.values(1));
        let one = |i: usize, j: usize, prompt: &Prompt| {
            let mut draw = rng::stream(sampling.seed, "toy", &[(first + i) as u64, j as u64]);
            let (mut ids, mut logprobs, mut finished) = (Vec::new(), Vec::new(), false);
            for t in 0..LENGTH.min(sampling.max_new_tokens) {
                let temperature = if sampling.temperature == 0.0 { 1.0 } else { sampling.temperature };
                let lp = self.log_probs(&table, &bias, prompt.ids[0] as usize, t, temperature);
                let allowed = |v: &usize| !banned.contains(&(*v as u32));
                let token = if sampling.temperature == 0.0 {
                    (0..VOCABULARY).filter(allowed).max_by(|a, b| lp[*a].total_cmp(&lp[*b])).unwrap()
                } else {
                    let mut left = draw.next_u32() as f32 / u32::MAX as f32;
                    let chosen = (0..VOCABULARY).filter(allowed).find(|v| {
                        left -= lp[*v].exp();
                        left < 0.0
                    });
                    chosen.unwrap_or(0)
                };
                ids.push(token as u32);
                logprobs.push(lp[token]);
                if end.eos.contains(&(token as u32)) {
                    finished = true;
                    break;
                }
            }
            Completion { ids, logprobs, finished }
        };
        let group = |(i, p): (usize, &Arc<Prompt>)| (0..samples).map(|j| one(i, j, p)).collect();
        Ok(prompts.iter().enumerate().map(group).collect())
    }

    fn save_weights(&self, dir: &Path) -> Result<Vec<FileChecksum>> {
        let tensors: HashMap<String, Tensor> =
            self.parameters.iter().map(|p| (p.name.clone(), p.var.as_tensor().clone())).collect();
        candle_core::safetensors::save(&tensors, dir.join("model.safetensors"))?;
        Ok(Vec::new())
    }
}

/// A row of logits for each response token.
struct Rows(Vec<Vec<f32>>);

impl Predictor for Toy {
    fn predict(&self, batch: &[Sequence]) -> Result<Box<dyn Predictions + '_>> {
        let (table, bias) = (self.values(0), self.values(1));
        let of = |s: &Sequence| -> Vec<Vec<f32>> {
            let k = s.prompt.ids[0] as usize;
            (0..s.response.len()).map(|t| self.log_probs(&table, &bias, k, t, 1.0)).collect()
        };
        Ok(Box::new(Rows(batch.iter().flat_map(of).collect())))
    }
}

impl Predictions for Rows {
    fn rows(&self) -> usize {
        self.0.len()
    }

    fn vocab(&self) -> usize {
        VOCABULARY
    }

    fn logits(&self, rows: std::ops::Range<usize>) -> Result<Vec<f32>> {
        Ok(self.0[rows].concat())
    }
}

/// Digits to tokens and back.
pub struct Digits;

impl PromptEncoder for Digits {
    fn prompt_size(&self, _messages: &[Message], _sizes: &[(u32, u32)]) -> Result<PromptSize> {
        Ok(PromptSize { tokens: 1, ..PromptSize::default() })
    }

    fn encode_prompt(&self, messages: &[Message], _images: &[RgbImage]) -> Result<Arc<Prompt>> {
        let question = &messages[0].content;
        let number = question.split_whitespace().find_map(|k| k.parse::<u32>().ok());
        let k = number.ok_or_else(|| Error::input("no number in the question"))?;
        // A prompt with a demonstration is another prompt.
        let k = if question.contains("example") { (k + 1) % PROMPTS as u32 } else { k };
        Ok(Arc::new(Prompt { ids: vec![k], images: Vec::new() }))
    }

    fn encode_response(&self, text: &str) -> Result<Vec<u32>> {
        let digits: Option<Vec<u32>> = text.split_whitespace().map(|d| d.parse().ok()).collect();
        let mut ids = digits.ok_or_else(|| Error::input(format!("not digits: {text}")))?;
        ids.push(0);
        Ok(ids)
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        let digits: Vec<String> = ids.iter().filter(|i| **i != 0).map(|i| i.to_string()).collect();
        Ok(digits.join(" "))
    }

    fn eos_ids(&self) -> &[u32] {
        &[0]
    }

    fn banned_ids(&self) -> &[u32] {
        &[]
    }
}

/// One puzzle for each prompt.
pub struct Puzzles(Vec<Record>);

impl Puzzles {
    pub fn new() -> Puzzles {
        let answers = ["2 1 3", "3 1 2", "2 3 1", "1 3 2", "3 2 1", "2 1 3"];
        let record = |(k, answer): (usize, &&str)| Record {
            file_name: String::new(),
            id: format!("toy-{k}"),
            task: "toy".into(),
            messages: vec![
                Message { role: "user".into(), content: format!("order them {k}") },
                Message { role: "assistant".into(), content: answer.to_string() },
            ],
            images: Vec::new(),
            answer: answer.to_string(),
            source: String::new(),
            seed: k as u64,
            meta: Default::default(),
        };
        Puzzles(answers.iter().enumerate().map(record).collect())
    }
}

impl Task for Puzzles {
    fn name(&self) -> &str {
        "toy"
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn example(&self, i: usize) -> Result<std::borrow::Cow<'_, Record>> {
        Ok(std::borrow::Cow::Borrowed(&self.0[i]))
    }

    fn images(&self, _i: usize) -> Result<Vec<RgbImage>> {
        Ok(Vec::new())
    }

    fn score(&self, i: usize, response: &str) -> Score {
        let gold: Vec<&str> = self.0[i].answer.split(' ').collect();
        let got: Vec<&str> = response.split_whitespace().collect();
        let mut sorted = got.clone();
        sorted.sort();
        let parsed = sorted == ["1", "2", "3"];
        let placed = got.iter().zip(&gold).filter(|(a, b)| a == b).count() as f64 / 3.0;
        let raw_partial_credit = if got.len() <= 3 { placed } else { 0.0 };
        Score {
            correct: got == gold,
            value: f64::from(u8::from(got == gold)),
            lenient: f64::from(u8::from(got == gold)),
            partial_credit: if parsed { raw_partial_credit } else { 0.0 },
            raw_partial_credit,
            parsed,
            well_formed: parsed,
            exact: None,
            fault: if parsed { String::new() } else { "not a permutation".into() },
        }
    }
}
