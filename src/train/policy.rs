//! What the loops need of a model and of its tokenizer: the seam at which tests put a policy of a few numbers.

use crate::model::qwen2_5_vl::Model;
use crate::model::{Completion, Processor, Prompt, Sampling, Sequence, TokenGrads, TokenStats};
use crate::nn::Parameter;
use crate::tasks::Task;
use crate::{Error, Result};
use std::path::Path;
use std::sync::Arc;

/// A model that can be trained on and sampled from. See [`Model`] for what each method does.
pub trait Policy {
    /// All weights, in a fixed order.
    fn parameters(&self) -> &[Arc<Parameter>];
    /// Log-probability and entropy of every response token, no gradients.
    fn score(&self, batch: &[Sequence], temperature: f32) -> Result<TokenStats>;
    /// Forward, `loss` on the token statistics, backward: adds to the gradient of every trainable parameter.
    fn backward(
        &self,
        batch: &[Sequence],
        temperature: f32,
        loss: &mut dyn FnMut(&TokenStats) -> Result<TokenGrads>,
    ) -> Result<()>;
    /// `samples` responses to each prompt; `[prompt][sample]`.
    fn generate(
        &self,
        prompts: &[Arc<Prompt>],
        samples: usize,
        sampling: &Sampling,
        eos: &[u32],
        banned: &[u32],
    ) -> Result<Vec<Vec<Completion>>>;
    /// Write the weights (f32) into an existing checkpoint directory.
    fn save_weights(&self, dir: &Path) -> Result<()>;
}

impl Policy for Model {
    fn parameters(&self) -> &[Arc<Parameter>] {
        Model::parameters(self)
    }

    fn score(&self, batch: &[Sequence], temperature: f32) -> Result<TokenStats> {
        Model::score(self, batch, temperature)
    }

    fn backward(
        &self,
        batch: &[Sequence],
        temperature: f32,
        loss: &mut dyn FnMut(&TokenStats) -> Result<TokenGrads>,
    ) -> Result<()> {
        Model::backward(self, batch, temperature, loss)
    }

    fn generate(
        &self,
        prompts: &[Arc<Prompt>],
        samples: usize,
        sampling: &Sampling,
        eos: &[u32],
        banned: &[u32],
    ) -> Result<Vec<Vec<Completion>>> {
        let _ = (prompts, samples, sampling, eos, banned);
        Err(Error::failed("generation has not been merged yet"))
    }

    fn save_weights(&self, dir: &Path) -> Result<()> {
        Model::save_weights(self, dir, candle_core::DType::F32)
    }
}

/// Text and images to token ids, and back.
pub trait Codec {
    /// The prompt of example `i` of `task`.
    fn prompt(&self, task: &dyn Task, i: usize) -> Result<Arc<Prompt>>;
    /// A response as token ids, with its closing token.
    fn response(&self, text: &str) -> Result<Vec<u32>>;
    /// Text of generated ids, without special tokens.
    fn decode(&self, ids: &[u32]) -> Result<String>;
    /// Ids that end a response.
    fn eos_ids(&self) -> &[u32];
    /// Ids that must never be sampled.
    fn banned_ids(&self) -> &[u32];
}

impl Codec for Processor {
    fn prompt(&self, task: &dyn Task, i: usize) -> Result<Arc<Prompt>> {
        let record = task.example(i)?;
        let named = |e: Error| e.context(format!("example {}", record.id));
        let images = task.images(i).map_err(named)?;
        self.encode_prompt(record.prompt(), &images).map_err(named)
    }

    fn response(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_response(text)
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        Processor::decode(self, ids)
    }

    fn eos_ids(&self) -> &[u32] {
        Processor::eos_ids(self)
    }

    fn banned_ids(&self) -> &[u32] {
        Processor::banned_ids(self)
    }
}

/// The reference sequence of example `i`: its prompt and its gold response.
pub fn reference_sequence(task: &dyn Task, codec: &dyn Codec, i: usize) -> Result<Sequence> {
    let record = task.example(i)?;
    let Some(text) = record.response() else {
        return Err(Error::input(format!(
            "example {}: no assistant turn to learn from; SFT needs a response in every record",
            record.id
        )));
    };
    let response = codec.response(text).map_err(|e| e.context(format!("example {}", record.id)))?;
    Ok(Sequence { prompt: codec.prompt(task, i)?, response })
}

/// Freeze the parts that `train.freeze` names: `vision`, `merger`, `embeddings`, `text`, or the beginning of parameter names.
///
/// # Errors
/// A name that freezes nothing, or everything being frozen.
pub fn freeze(parameters: &[Arc<Parameter>], parts: &[String]) -> Result<()> {
    let mut used = vec![false; parts.len()];
    for parameter in parameters {
        let mut frozen = false;
        for (part, used) in parts.iter().zip(&mut used) {
            if matches_part(&parameter.name, part) {
                (*used, frozen) = (true, true);
            }
        }
        parameter.set_trainable(!frozen);
    }
    if let Some((part, _)) = parts.iter().zip(&used).find(|(_, used)| !**used) {
        let example = parameters.first().map_or("", |p| p.name.as_str());
        return Err(Error::input(format!(
            "train.freeze: {part:?} names no parameter; give vision, merger, embeddings, text, or the beginning of names such as {example}"
        )));
    }
    if !parameters.iter().any(|p| p.trainable()) {
        return Err(Error::input("train.freeze: every parameter is frozen, nothing is left to train"));
    }
    Ok(())
}

fn matches_part(name: &str, part: &str) -> bool {
    let vision = name.starts_with("visual.");
    match part {
        "vision" => vision,
        "merger" => name.starts_with("visual.merger."),
        "embeddings" => name.contains("embed_tokens.") || name.starts_with("lm_head."),
        "text" => !vision,
        prefix => !prefix.is_empty() && name.starts_with(prefix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor, Var};

    fn parameters() -> Vec<Arc<Parameter>> {
        let names = [
            "visual.blocks.0.norm1.weight",
            "visual.merger.mlp.0.weight",
            "model.embed_tokens.weight",
            "model.norm.weight",
        ];
        let value = || Var::from_tensor(&Tensor::zeros(2, candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap();
        names.iter().map(|n| Arc::new(Parameter::new(*n, value()))).collect()
    }

    fn frozen(parts: &[&str]) -> Result<Vec<bool>> {
        let ps = parameters();
        freeze(&ps, &parts.iter().map(|p| p.to_string()).collect::<Vec<_>>())?;
        Ok(ps.iter().map(|p| !p.trainable()).collect())
    }

    #[test]
    fn parts_and_prefixes_freeze_what_they_name() {
        assert_eq!(frozen(&[]).unwrap(), [false; 4]);
        assert_eq!(frozen(&["vision"]).unwrap(), [true, true, false, false]);
        assert_eq!(frozen(&["merger", "model.norm"]).unwrap(), [false, true, false, true]);
        assert_eq!(frozen(&["embeddings"]).unwrap(), [false, false, true, false]);
    }

    #[test]
    fn a_name_that_freezes_nothing_and_freezing_everything_are_refused() {
        assert!(frozen(&["visoin"]).unwrap_err().to_string().contains("visoin"));
        assert!(frozen(&["vision", "text"]).unwrap_err().to_string().contains("nothing is left"));
    }
}
