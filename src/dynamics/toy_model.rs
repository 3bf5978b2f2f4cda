//! A language model of 47 weights for tests: small enough to compute its whole Jacobian, and nonlinear, so that a step has a second order.
//!
//! The logits before a token are `W tanh(E[prompt] + F[token before]) + b`, computed in f64 from f32 weights.

use crate::comm::Communicator;
use crate::io::files::FileChecksum;
use crate::model::{Completion, KlReference, Prompt, ResponseEnd, SamplingParams, Sequence, TokenLoss, TokenStats};
use crate::model::{LanguageModel, Predictions, Predictor};
use crate::nn::{Parameter, from_vec, read};
use crate::{Error, Result};
use candle_core::Var;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub const PROMPTS: usize = 4;
pub const VOCAB: usize = 5;
const HIDDEN: usize = 3;
/// Where E, F, W and b begin among all weights, and where they end.
const OFFSETS: [usize; 5] = {
    let e = PROMPTS * HIDDEN;
    let f = e + VOCAB * HIDDEN;
    let w = f + VOCAB * HIDDEN;
    [0, e, f, w, w + VOCAB]
};

pub struct ToyModel {
    parameters: Vec<Arc<Parameter>>,
}

pub fn sequence(prompt: u32, response: &[u32]) -> Sequence {
    Sequence { prompt: Arc::new(Prompt { ids: vec![prompt], images: Vec::new() }), response: response.to_vec() }
}

/// Prompt and token before, for each response token.
fn contexts(sequence: &Sequence) -> Vec<(usize, usize)> {
    let before = std::iter::once(0).chain(sequence.response.iter().map(|&id| id as usize));
    before.take(sequence.response.len()).map(|before| (sequence.prompt.ids[0] as usize, before)).collect()
}

impl ToyModel {
    pub fn new(seed: u64) -> ToyModel {
        let names = ["prompt.weight", "previous.weight", "head.weight", "head.bias"];
        let shapes: [&[usize]; 4] = [&[PROMPTS, HIDDEN], &[VOCAB, HIDDEN], &[VOCAB, HIDDEN], &[VOCAB]];
        let make = |(i, (name, shape)): (usize, (&str, &[usize]))| {
            let wave = |j: usize| 0.9 * ((OFFSETS[i] + j) as f32 * 1.37 + seed as f32 * 0.71).sin();
            let data: Vec<f32> = (0..shape.iter().product()).map(wave).collect();
            Arc::new(Parameter::new(name, Var::from_tensor(&from_vec(data, shape.to_vec()).unwrap()).unwrap()))
        };
        ToyModel { parameters: names.into_iter().zip(shapes).enumerate().map(make).collect() }
    }

    pub fn weights(&self) -> Vec<f64> {
        self.parameters.iter().flat_map(|p| read(p.var.as_tensor()).unwrap().to_vec()).map(f64::from).collect()
    }

    fn hidden(weights: &[f64], (prompt, before): (usize, usize)) -> [f64; HIDDEN] {
        let (e, f) = (prompt * HIDDEN, OFFSETS[1] + before * HIDDEN);
        std::array::from_fn(|j| (weights[e + j] + weights[f + j]).tanh())
    }

    /// Logits before each response token, `[tokens * vocab]`.
    pub fn logits(&self, sequence: &Sequence) -> Vec<f64> {
        let weights = self.weights();
        let row = |context| {
            let h = ToyModel::hidden(&weights, context);
            let weights = &weights;
            (0..VOCAB).map(move |i| {
                let w = OFFSETS[2] + i * HIDDEN;
                (0..HIDDEN).map(|j| weights[w + j] * h[j]).sum::<f64>() + weights[OFFSETS[3] + i]
            })
        };
        contexts(sequence).into_iter().flat_map(row).collect()
    }

    /// Derivatives of these logits with respect to all weights, `[tokens * vocab][weights]`.
    pub fn jacobian(&self, sequence: &Sequence) -> Vec<Vec<f64>> {
        let weights = self.weights();
        let mut rows = Vec::new();
        for (prompt, before) in contexts(sequence) {
            let h = ToyModel::hidden(&weights, (prompt, before));
            for i in 0..VOCAB {
                let mut row = vec![0.0; OFFSETS[4]];
                let w = OFFSETS[2] + i * HIDDEN;
                for j in 0..HIDDEN {
                    let through = weights[w + j] * (1.0 - h[j] * h[j]);
                    row[prompt * HIDDEN + j] += through;
                    row[OFFSETS[1] + before * HIDDEN + j] += through;
                    row[w + j] += h[j];
                }
                row[OFFSETS[3] + i] += 1.0;
                rows.push(row);
            }
        }
        rows
    }

    /// Add the gradient of the sum of `upstream`, `[tokens * vocab]`, times the logits.
    fn add_gradient(&self, sequence: &Sequence, upstream: &[f64]) -> Result<()> {
        let mut grad = vec![0.0; OFFSETS[4]];
        for (by, row) in upstream.iter().zip(self.jacobian(sequence)) {
            grad.iter_mut().zip(row).for_each(|(g, j)| *g += by * j);
        }
        for (i, parameter) in self.parameters.iter().enumerate().filter(|(_, p)| p.trainable()) {
            let part = grad[OFFSETS[i]..OFFSETS[i + 1]].iter().map(|&g| g as f32).collect();
            parameter.add_grad(from_vec(part, parameter.var.shape().clone())?)?;
        }
        Ok(())
    }

    /// log softmax of each row of `logits`.
    pub fn log_softmax(logits: &[f64]) -> Vec<f64> {
        let row = |row: &[f64]| {
            let total = row.iter().map(|l| l.exp()).sum::<f64>().ln();
            row.iter().map(|l| l - total).collect::<Vec<f64>>()
        };
        logits.chunks(VOCAB).flat_map(row).collect()
    }
}

impl LanguageModel for ToyModel {
    fn parameters(&self) -> &[Arc<Parameter>] {
        &self.parameters
    }

    fn score(&self, batch: &[Sequence], _temperature: f32) -> Result<TokenStats> {
        let mut stats = TokenStats { logprobs: Vec::new(), entropies: Vec::new(), kl: None };
        for sequence in batch {
            let log_pi = ToyModel::log_softmax(&self.logits(sequence));
            for (row, &y) in log_pi.chunks(VOCAB).zip(&sequence.response) {
                stats.logprobs.push(row[y as usize] as f32);
                stats.entropies.push(-row.iter().map(|l| l.exp() * l).sum::<f64>() as f32);
            }
        }
        Ok(stats)
    }

    fn distributed_backward(
        &self,
        _comm: &dyn Communicator,
        _batch: &[Sequence],
        _temperature: f32,
        _kl_reference: Option<&KlReference<'_>>,
        _loss: &dyn TokenLoss,
    ) -> Result<()> {
        Err(Error::failed("not needed"))
    }

    fn generate_from(
        &self,
        _first: usize,
        _prompts: &[Arc<Prompt>],
        _samples: usize,
        _sampling: &SamplingParams,
        _end: ResponseEnd<'_>,
        _banned: &[u32],
    ) -> Result<Vec<Vec<Completion>>> {
        Err(Error::failed("not needed"))
    }

    fn save_weights(&self, _dir: &Path) -> Result<Vec<FileChecksum>> {
        Err(Error::failed("not needed"))
    }
}

struct Rows(Vec<f32>);

impl Predictor for ToyModel {
    fn predict(&self, batch: &[Sequence]) -> Result<Box<dyn Predictions + '_>> {
        Ok(Box::new(Rows(batch.iter().flat_map(|s| self.logits(s)).map(|l| l as f32).collect())))
    }

    fn backward_from_logits(
        &self,
        sequence: &Sequence,
        upstream: &mut dyn FnMut(Vec<f32>) -> Result<Vec<f32>>,
    ) -> Result<()> {
        let by = upstream(self.logits(sequence).into_iter().map(|l| l as f32).collect())?;
        self.add_gradient(sequence, &by.into_iter().map(f64::from).collect::<Vec<f64>>())
    }
}

impl Predictions for Rows {
    fn rows(&self) -> usize {
        self.0.len() / VOCAB
    }

    fn vocab(&self) -> usize {
        VOCAB
    }

    fn logits(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        Ok(self.0[rows.start * VOCAB..rows.end * VOCAB].to_vec())
    }
}
