//! The forward pass over a laid out batch.

use super::batch_layout::{Layout, Row};
use super::decoder::DecoderInput;
use super::sequence::{Prompt, Sequence, TokenStats};
use super::transformer::Model;
use crate::nn::{Linear, RowSource, Tape, Value, embed, linear, numbers, token_stats};
use crate::{Error, Result};
use candle_core::Tensor;
use std::sync::Arc;

/// The statistics of no tokens.
pub(super) fn empty_stats() -> TokenStats {
    TokenStats { logprobs: Vec::new(), entropies: Vec::new(), kl: None }
}

/// What [`Model::token_stats`] gives, in main memory.
pub(super) fn stats_of(both: &Tensor) -> Result<TokenStats> {
    let both = numbers(both)?;
    let (logprobs, entropies) = both.split_at(both.len() / 2);
    Ok(TokenStats { logprobs: logprobs.to_vec(), entropies: entropies.to_vec(), kl: None })
}

impl Model {
    /// Logits at every position of a prompt: `[tokens, vocab]`. For comparisons; training never forms them.
    pub fn logits(&self, prompt: &Arc<Prompt>) -> Result<Tensor> {
        let tape = self.tape(false);
        let layout = Layout::of_prompts(std::slice::from_ref(prompt), self.architecture())?;
        let hidden = self.hidden(&tape, &layout, None, |_, _| Ok(()))?;
        let hidden = self.network.decoder.finish(&tape, &hidden)?.tensor;
        let head = Linear::without_bias(Arc::clone(&self.network.decoder.head));
        Ok(linear(&tape, &Value::constant(hidden), &[&head], None)?.tensor)
    }

    /// Log-probability and entropy of every response token, `[2, tokens]`, with what they are made of: the normed hidden states that
    /// predict the tokens. `None` if there is no response token.
    pub(super) fn token_stats(
        &self,
        tape: &Tape,
        batch: &[Sequence],
        temperature: f32,
    ) -> Result<Option<(Value, Value)>> {
        let layout = Layout::of_sequences(batch, self.architecture())?;
        if layout.targets.is_empty() {
            return Ok(None);
        }
        let predictors = self.hidden(tape, &layout, Some(layout.predictors.clone()), |_, _| Ok(()))?;
        let predictors = self.network.decoder.finish(tape, &predictors)?;
        let value = token_stats(tape, &predictors, &self.network.decoder.head, layout.targets, temperature)?;
        Ok(Some((value, predictors)))
    }

    /// Hidden states of all rows, or of the `wanted` ones, before the final norm; `keep` sees each layer's rotated `qkv`.
    pub(super) fn hidden(
        &self,
        tape: &Tape,
        layout: &Layout,
        wanted: Option<Vec<u32>>,
        keep: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<Value> {
        let checkpointed = self.gradient_checkpointing && tape.is_recording();
        let features = match layout.images.is_empty() {
            true => None,
            false => {
                let vision =
                    self.network.vision.as_ref().ok_or_else(|| Error::failed("images, but no vision tower"))?;
                Some(vision.forward(tape, &layout.images, self.device(), checkpointed)?)
            }
        };
        let source = |row: &Row| match (row, &features) {
            (Row::Image { image, unit }, Some(f)) => Ok(RowSource::Image(f.places[*image][*unit])),
            (Row::Image { .. }, None) => Err(Error::failed("an image row without image features")),
            (Row::Token(id), _) => Ok(RowSource::Token(*id)),
        };
        let sources: Vec<RowSource> = layout.rows.iter().map(source).collect::<Result<_>>()?;
        let place = |(row, source): (usize, &RowSource)| match source {
            RowSource::Image(feature) => Some((row as u32, *feature)),
            RowSource::Token(_) => None,
        };
        let deep = features.as_ref().map(|f| f.deep.clone()).unwrap_or_default();
        let places = match deep.is_empty() {
            true => Arc::default(),
            false => Arc::new(sources.iter().enumerate().filter_map(place).collect()),
        };
        let x = embed(tape, &self.network.decoder.embedding, features.as_ref().map(|f| &f.rows), sources)?;
        let table = self.network.decoder.rotations(layout.positions.each_ref().map(Vec::as_slice));
        let span_groups = Arc::new(layout.span_groups.clone());
        let input = DecoderInput { x, deep, places };
        match checkpointed {
            true => self.network.decoder.forward_checkpointed(tape, input, &table, &span_groups, wanted),
            false => self.network.decoder.forward(tape, input, &table, &span_groups, wanted, keep),
        }
    }
}
