//! Responses of a model on this machine.

use super::{Prompts, Responder, Response, SampleOptions};
use crate::comm::{Communicator, Single};
use crate::model::{Completion, LanguageModel, Prompt, PromptEncoder, ResponseEnd, SamplingParams};
use crate::tasks::encode_example;
use crate::{Result, rng};
use rand::Rng as _;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// A model with what reads its prompts and writes its responses.
pub struct LocalModel<'a> {
    model: &'a dyn LanguageModel,
    encoder: &'a dyn PromptEncoder,
    banned: &'a [u32],
    comm: &'a dyn Communicator,
}

impl<'a> LocalModel<'a> {
    /// A model that never samples a special token, but for those that end a response.
    pub fn new(model: &'a dyn LanguageModel, encoder: &'a dyn PromptEncoder) -> LocalModel<'a> {
        LocalModel { model, encoder, banned: encoder.banned_ids(), comm: &Single }
    }

    /// A model that samples from its whole distribution: no token is excluded.
    pub fn unrestricted(model: &'a dyn LanguageModel, encoder: &'a dyn PromptEncoder) -> LocalModel<'a> {
        LocalModel { model, encoder, banned: &[], comm: &Single }
    }

    /// The same model on every rank: each answers a run of the prompts, and all get the responses to all of them.
    pub fn on_ranks(self, comm: &'a dyn Communicator) -> LocalModel<'a> {
        LocalModel { comm, ..self }
    }

    /// The encoded prompts of this rank.
    fn encode(&self, prompts: &Prompts<'_>, own: Range<usize>) -> Result<Vec<Arc<Prompt>>> {
        match prompts.encoded {
            Some(encoded) => Ok(encoded[own].to_vec()),
            None => {
                let encode = |&i: &usize| encode_example(prompts.task, self.encoder, i);
                let parts: Vec<Result<Arc<Prompt>>> = prompts.examples[own].par_iter().map(encode).collect();
                parts.into_iter().collect()
            }
        }
    }
}

impl Responder for LocalModel<'_> {
    fn respond(&self, prompts: &Prompts<'_>, options: &SampleOptions<'_>) -> Result<Vec<Vec<Response>>> {
        let own = self.comm.share(prompts.examples.len());
        let encoded = self.encode(prompts, own.clone())?;
        let (name, position) = options.stream;
        let seed = rng::stream(options.sampling.seed, name, position).next_u64();
        let sampling = SamplingParams { seed, ..options.sampling.clone() };
        let eos = self.encoder.eos_ids();
        let stop = &options.sampling.stop;
        // A token is at least a byte, so that a stop text which ends here is within so many tokens.
        let longest = stop.iter().map(String::len).max().unwrap_or(0);
        let is_stopped = |ids: &[u32]| {
            let tail = self.encoder.decode(&ids[ids.len().saturating_sub(longest)..]);
            tail.is_ok_and(|tail| stop_end(&tail, stop).is_some())
        };
        let end = ResponseEnd { eos, is_stopped: if stop.is_empty() { None } else { Some(&is_stopped) } };
        let groups =
            self.model.generate_from(own.start, &encoded, options.num_generations, &sampling, end, self.banned)?;
        let read = |c: Completion| -> Result<Response> {
            let mut text = self.encoder.decode(&c.ids)?;
            // The last token may say more.
            text.truncate(stop_end(&text, stop).unwrap_or(text.len()));
            let Completion { ids: token_ids, logprobs, finished } = c;
            Ok(Response { text, tokens: token_ids.len(), token_ids, logprobs, finished, no_answer: None })
        };
        let groups: Result<Vec<Vec<Response>>> =
            groups.into_iter().map(|group| group.into_iter().map(read).collect()).collect();
        self.comm.gather(groups?)
    }
}

/// Where the first of these stop texts ends, if there is one.
pub(super) fn stop_end(text: &str, stop: &[String]) -> Option<usize> {
    stop.iter().filter_map(|stop| Some(text.find(stop)? + stop.len())).min()
}
