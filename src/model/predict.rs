//! Next-token distributions at the positions of given responses.

use super::batch_layout::Layout;
use super::language_model::{Predictions, Predictor};
use super::sequence::Sequence;
use super::transformer::Model;
use crate::nn::{LazyLogits, Linear, Tape, Value, linear, numbers};
use crate::{Error, Result};
use candle_core::Tensor;
use std::ops::Range;
use std::sync::Arc;

/// The hidden states that predict the response tokens of a batch. Logits are computed when they are asked for.
struct Predicted<'a> {
    model: &'a Model,
    /// `[tokens, hidden]`, after the final norm; none for no tokens.
    states: Option<Tensor>,
}

impl Predictor for Model {
    fn predict(&self, batch: &[Sequence]) -> Result<Box<dyn Predictions + '_>> {
        let parts = self.by_shards(batch, |shard| self.response_states(&batch[shard]));
        let parts: Vec<Tensor> = parts.into_iter().filter_map(Result::transpose).collect::<Result<_>>()?;
        let states = if parts.is_empty() { None } else { Some(Tensor::cat(&parts, 0)?) };
        Ok(Box::new(Predicted { model: self, states }))
    }

    fn backward_from_logits(
        &self,
        sequence: &Sequence,
        upstream: &mut dyn FnMut(Vec<f32>) -> Result<Vec<f32>>,
    ) -> Result<()> {
        let tape = self.tape(true);
        let states = self.states(&tape, std::slice::from_ref(sequence))?;
        let states = states.ok_or_else(|| Error::failed("no response tokens to predict"))?;
        let logits = self.head(&tape, &states)?;
        let by = upstream(numbers(&logits.tensor)?.to_vec())?;
        let by = Tensor::from_vec(by, logits.tensor.shape(), self.device())?;
        tape.backward(vec![(logits, by)])
    }
}

impl Model {
    /// See [`super::LanguageModel::lazy_logits`]. `batch` goes through in one piece.
    ///
    /// # Errors
    /// If there is no response token.
    pub(super) fn logits_of_shard(&self, batch: &[Sequence]) -> Result<LazyLogits> {
        let states = self.response_states(batch)?;
        let states = states.ok_or_else(|| Error::failed("no response tokens to predict"))?;
        Ok(LazyLogits { states, weight: Arc::clone(&self.network.decoder.head) })
    }

    fn response_states(&self, batch: &[Sequence]) -> Result<Option<Tensor>> {
        Ok(self.states(&self.tape(false), batch)?.map(|states| states.tensor))
    }

    /// The hidden states that predict the response tokens, after the final norm, `[tokens, hidden]`; `None` for no tokens.
    fn states(&self, tape: &Tape, batch: &[Sequence]) -> Result<Option<Value>> {
        let layout = Layout::of_sequences(batch, self.architecture())?;
        if layout.targets.is_empty() {
            return Ok(None);
        }
        let hidden = self.hidden(tape, &layout, Some(layout.predictors.clone()), |_, _| Ok(()))?;
        self.network.decoder.finish(tape, &hidden).map(Some)
    }

    /// The logits of these states, `[tokens, vocab]`.
    fn head(&self, tape: &Tape, states: &Value) -> Result<Value> {
        linear(tape, states, &[&Linear::without_bias(Arc::clone(&self.network.decoder.head))], None)
    }
}

impl Predictions for Predicted<'_> {
    fn rows(&self) -> usize {
        self.states.as_ref().map_or(0, |states| states.dims()[0])
    }

    fn vocab(&self) -> usize {
        self.model.network.decoder.vocab_size()
    }

    fn logits(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        let Some(states) = &self.states else { return Ok(Vec::new()) };
        let states = Value::constant(states.narrow(0, rows.start, rows.len())?.contiguous()?);
        Ok(numbers(&self.model.head(&self.model.tape(false), &states)?.tensor)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::init::{Preset, write_checkpoint};
    use crate::model::{LanguageModel, Prompt, TokenGrads, TokenStats};
    use candle_core::Device;
    use std::sync::Mutex;

    fn tiny(seed: u64) -> Model {
        let dir = tempfile::tempdir().unwrap();
        write_checkpoint(dir.path(), Preset::Tiny, seed).unwrap();
        crate::model::load(dir.path(), &Device::Cpu).unwrap()
    }

    fn batch() -> Vec<Sequence> {
        let sequence = |ids: &[u32], response: &[u32]| Sequence {
            prompt: Arc::new(Prompt { ids: ids.to_vec(), images: Vec::new() }),
            response: response.to_vec(),
        };
        vec![sequence(&[300, 301, 302], &[40, 41, 42, 43]), sequence(&[310, 311], &[50, 51])]
    }

    /// Mean KL(reference || model) over the response tokens, its gradient added to the parameters.
    fn mean(model: &Model, reference: &Model) -> f64 {
        let total = Mutex::new(0.0);
        let loss = |_: Range<usize>, stats: &TokenStats| {
            let nats = stats.kl.as_ref().unwrap();
            *total.lock().unwrap() += nats.iter().map(|&n| f64::from(n) / 6.0).sum::<f64>();
            let n = nats.len();
            Ok(TokenGrads { logprobs: vec![0.0; n], entropies: None, kl: Some(vec![1.0 / 6.0; n]) })
        };
        let sequences = batch();
        let logits = |shard: Range<usize>| reference.lazy_logits(&sequences[shard]);
        model.backward(&sequences, 1.0, Some(&logits), &loss).unwrap();
        total.into_inner().unwrap()
    }

    #[test]
    fn the_divergence_of_whole_models_has_the_gradient_of_its_finite_differences() {
        let (model, reference) = (tiny(1), tiny(2));
        let (p, q) = (reference.predict(&batch()).unwrap(), model.predict(&batch()).unwrap());
        let row = |of: &dyn Predictions, i: usize| of.logits(i..i + 1).unwrap();
        let exact: f64 = (0..6).map(|i| crate::nn::kl_divergence(&row(p.as_ref(), i), &row(q.as_ref(), i)) / 6.0).sum();
        let here = mean(&model, &reference);
        assert!((here - exact).abs() < 1e-5 * exact, "{here} {exact}");
        // Along the gradient, the divergence changes by the gradient's square.
        for name in ["model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight"] {
            let parameter = model.parameters().iter().find(|p| p.name == name).unwrap();
            let value = parameter.var.as_tensor().copy().unwrap();
            model.parameters().iter().for_each(|p| p.clear_grad());
            mean(&model, &reference);
            let gradient = parameter.grad().unwrap().copy().unwrap();
            let square = gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            let step = 1e-2 / f64::from(square).sqrt();
            let at = |sign: f64| {
                let moved = (&value + (&gradient * (sign * step)).unwrap()).unwrap();
                parameter.var.set(&moved).unwrap();
                mean(&model, &reference)
            };
            let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
            parameter.var.set(&value).unwrap();
            assert!((slope / f64::from(square) - 1.0).abs() < 0.02, "{name}: {slope} {square}");
        }
    }

    #[test]
    fn a_model_does_not_diverge_from_itself() {
        let model = tiny(1);
        assert_eq!(mean(&model, &model), 0.0);
    }
}
