//! Whole next-token distributions at the positions of given responses.

use super::{Layout, Model};
use crate::Result;
use crate::model::Sequence;
use crate::nn::{Affine, Value, linear, read};
use candle_core::{Device, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// The hidden states that predict the response tokens of a batch, from which logits are formed when they are asked for.
pub struct Predicted<'a> {
    model: &'a Model,
    /// `[tokens, hidden]`, after the final norm; none for no tokens.
    states: Option<Tensor>,
}

impl Model {
    /// Take `batch` through the decoder, and keep what predicts each response token.
    pub fn predict(&self, batch: &[Sequence]) -> Result<Predicted<'_>> {
        let parts = self.by_shards(batch, |shard| self.response_states(&batch[shard]));
        let parts: Vec<Tensor> = parts.into_iter().filter_map(Result::transpose).collect::<Result<_>>()?;
        let states = if parts.is_empty() { None } else { Some(Tensor::cat(&parts, 0)?) };
        Ok(Predicted { model: self, states })
    }

    fn response_states(&self, batch: &[Sequence]) -> Result<Option<Tensor>> {
        let layout = Layout::of_sequences(batch, &self.config)?;
        if layout.targets.is_empty() {
            return Ok(None);
        }
        let tape = self.tape(false);
        let hidden = self.hidden(&tape, &layout, Some(layout.predictors.clone()), |_, _| Ok(()))?;
        Ok(Some(self.decoder.finish(&tape, &hidden)?.tensor))
    }
}

impl Predicted<'_> {
    /// Response tokens, sequences end to end.
    pub fn rows(&self) -> usize {
        self.states.as_ref().map_or(0, |states| states.dims()[0])
    }

    /// Tokens of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.model.config.text.vocab_size
    }

    /// Logits before each of the given response tokens, `[rows, vocab]`, row major.
    pub fn logits(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        let Some(states) = &self.states else { return Ok(Vec::new()) };
        let tape = self.model.tape(false);
        let states = Value::constant(states.narrow(0, rows.start, rows.len())?.contiguous()?);
        let head = Affine { weight: Arc::clone(&self.model.decoder.head), bias: None };
        let logits = linear(&tape, &states, &[&head], None)?.tensor.to_device(&Device::Cpu)?;
        Ok(read(&logits)?.to_vec())
    }
}
