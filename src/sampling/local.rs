//! Responses of a model on this machine.

use super::{Generated, Prompts, Responder, SampleOptions};
use crate::model::{Completion, LanguageModel, Prompt, PromptEncoder, Sampling};
use crate::tasks::encode_example;
use crate::{Result, rng};
use rand::Rng as _;
use rayon::prelude::*;
use std::sync::Arc;

/// A model with what reads its prompts and writes its responses.
pub struct LocalModel<'a> {
    model: &'a dyn LanguageModel,
    encoder: &'a dyn PromptEncoder,
    banned: &'a [u32],
}

impl<'a> LocalModel<'a> {
    /// A model that never samples a special token, but for those that end a response.
    pub fn new(model: &'a dyn LanguageModel, encoder: &'a dyn PromptEncoder) -> LocalModel<'a> {
        LocalModel { model, encoder, banned: encoder.banned_ids() }
    }

    /// A model that samples from its whole distribution: no token is excluded.
    pub fn unrestricted(model: &'a dyn LanguageModel, encoder: &'a dyn PromptEncoder) -> LocalModel<'a> {
        LocalModel { model, encoder, banned: &[] }
    }
}

impl Responder for LocalModel<'_> {
    fn respond(&self, prompts: &Prompts<'_>, options: &SampleOptions<'_>) -> Result<Vec<Vec<Generated>>> {
        let encoded: Vec<Arc<Prompt>>;
        let encoded = match prompts.encoded {
            Some(encoded) => encoded,
            None => {
                let encode = |&i: &usize| encode_example(prompts.task, self.encoder, i);
                let parts: Vec<Result<Arc<Prompt>>> = prompts.examples.par_iter().map(encode).collect();
                encoded = parts.into_iter().collect::<Result<_>>()?;
                &encoded
            }
        };
        let (name, position) = options.stream;
        let seed = rng::stream(options.sampling.seed, name, position).next_u64();
        let sampling = Sampling { seed, ..options.sampling.clone() };
        let groups = self.model.generate(encoded, options.samples, &sampling, self.encoder.eos_ids(), self.banned)?;
        let read = |c: Completion| -> Result<Generated> {
            let text = self.encoder.decode(&c.ids)?;
            Ok(Generated { text, tokens: c.ids.len(), token_ids: c.ids, finished: c.finished, no_answer: None })
        };
        groups.into_iter().map(|group| group.into_iter().map(read).collect()).collect()
    }
}
