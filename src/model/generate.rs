//! Decoding with a key-value cache: one prefill per prompt for all of its samples, then one token a step for every active
//! sample at once. A finished sample leaves the batch and the next prompt takes its place.

use super::batch_layout::Layout;
use super::decoder::DecoderInput;
use super::device_sampler::DeviceSampler;
use super::kv_cache::{FusedKvCache, KvCache, ReferenceKvCache};
use super::language_model::{MemoryFootprint as _, PromptSize};
use super::transformer::Model;
use crate::io::files::format_bytes;
use crate::machine;
use crate::model::token_sampler::{SampledToken, TokenSampler};
use crate::model::{Completion, Prompt, ResponseEnd, SamplingParams};
use crate::nn::{RowSource, Value, embed, parallel_map, read};
use crate::rng::{self, Rng};
use crate::{Error, Result};
use candle_core::Tensor;
use rand::RngExt;
use rayon::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Samples decoded at once.
pub(super) const MAX_ACTIVE: usize = 256;

/// Prompt tokens prefilled at once (one longer prompt is still taken whole).
pub(super) const PREFILL_TOKENS: usize = 8192;

/// Bytes of weights up to which each thread decodes samples of its own: beyond, reading the weights once for all samples
/// together costs less.
const MAX_PER_THREAD_BYTES: usize = 64 << 20;

/// How many threads decode samples of their own, of so many prompts.
pub(super) fn lanes(model: &Model, prompts: usize) -> usize {
    match model.uses_cpu_kernels() && model.weight_bytes(|_| true) <= MAX_PER_THREAD_BYTES {
        true => rayon::current_num_threads().min(prompts),
        false => 1,
    }
}

/// Prompts that are still to be decoded.
struct Queue<'a> {
    /// Number of the first prompt's random streams.
    first: usize,
    prompts: &'a [Arc<Prompt>],
    /// Responses to each.
    samples: usize,
    next: AtomicUsize,
}

impl Queue<'_> {
    /// The next prompts to prefill together, beside `active` samples. Empty if there are no more, or no samples are asked for.
    fn take(&self, active: usize, slots: usize) -> Vec<usize> {
        let mut taken = Vec::new();
        let mut tokens = 0;
        loop {
            let next = self.next.load(Ordering::Relaxed);
            let Some(prompt) = self.prompts.get(next).filter(|_| self.samples > 0) else { return taken };
            let more = prompt.ids.len();
            let fits = active + (taken.len() + 1) * self.samples <= slots && tokens + more <= PREFILL_TOKENS;
            if !(fits || active == 0 && taken.is_empty()) {
                return taken;
            }
            if self.next.compare_exchange(next, next + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                tokens += more;
                taken.push(next);
            }
        }
    }
}

/// One sample being decoded.
struct Slot {
    prompt: usize,
    sample: usize,
    /// Position of the next token.
    position: u32,
    rng: Rng,
    completion: Completion,
}

impl Model {
    /// See [`super::LanguageModel::generate_from`].
    pub(super) fn decode_prompts(
        &self,
        first: usize,
        prompts: &[Arc<Prompt>],
        samples: usize,
        sampling: &SamplingParams,
        end: ResponseEnd<'_>,
        banned: &[u32],
    ) -> Result<Vec<Vec<Completion>>> {
        let vocab = self.network.decoder.vocab_size();
        let sampler = TokenSampler::new(sampling, end.eos, banned, vocab)?.with_stop(end.is_stopped);
        self.check_fits(prompts, samples, sampling.max_new_tokens)?;
        let queue = Queue { first, prompts, samples, next: AtomicUsize::new(0) };
        let count = lanes(self, prompts.len());
        let slots = (prompts.len() * samples).div_ceil(count.max(1)).clamp(1, MAX_ACTIVE);
        let mut done: Vec<Vec<Option<Completion>>> = prompts.iter().map(|_| vec![None; samples]).collect();
        for part in parallel_map(count, |_| self.decode(&queue, slots, sampling.max_new_tokens, &sampler)) {
            for slot in part? {
                done[slot.prompt][slot.sample] = Some(slot.completion);
            }
        }
        done.into_iter()
            .map(|row| row.into_iter().map(|c| c.ok_or_else(|| Error::failed("a sample was lost"))).collect())
            .collect()
    }

    /// Refuse what this machine's memory can never hold: the caches have room for the longest responses from the start.
    fn check_fits(&self, prompts: &[Arc<Prompt>], samples: usize, new_tokens: usize) -> Result<()> {
        let Some(all) = machine::total_memory().filter(|_| self.uses_cpu_kernels()) else { return Ok(()) };
        let sizes: Vec<PromptSize> = prompts.iter().map(|prompt| prompt.size()).collect();
        let needed = self.generate_bytes(&sizes, samples, new_tokens);
        if needed <= all {
            return Ok(());
        }
        Err(Error::input(format!(
            "sampling takes {} for {samples} responses of up to {new_tokens} tokens to each of {} prompts at a time, and there are {}: lower \
             the length, the number of responses or the batch size",
            format_bytes(needed),
            prompts.len(),
            format_bytes(all)
        )))
    }

    /// Take prompts from the queue, up to `slots` samples at a time, until there are none left.
    fn decode(&self, queue: &Queue<'_>, slots: usize, room: usize, sampler: &TokenSampler<'_>) -> Result<Vec<Slot>> {
        let (layers, heads) = (self.network.decoder.depth(), self.network.decoder.heads());
        let mut cache: Box<dyn KvCache> = match self.uses_cpu_kernels() {
            true => Box::new(FusedKvCache::new(layers, heads, room)),
            false => Box::new(ReferenceKvCache::new(layers, heads, room)),
        };
        let chooser = match self.uses_cpu_kernels() {
            true => Chooser::Host(sampler),
            false => Chooser::Device(DeviceSampler::new(sampler, self.network.decoder.vocab_size(), self.device())?),
        };
        let mut done = Vec::new();
        let mut active: Vec<Slot> = Vec::new();
        loop {
            if active.is_empty() || (cache.accepts_more() && active.len() + queue.samples <= slots) {
                let taken = queue.take(active.len(), slots);
                if !taken.is_empty() {
                    active.extend(self.start(queue, &taken, sampler, &chooser, cache.as_mut())?);
                } else if active.is_empty() {
                    return Ok(done);
                } else {
                    self.step(&mut active, sampler, &chooser, cache.as_mut())?;
                }
            } else {
                self.step(&mut active, sampler, &chooser, cache.as_mut())?;
            }
            let going: Vec<bool> = active.iter().map(|slot| !sampler.ended(&slot.completion)).collect();
            if going.contains(&false) {
                cache.retain(&going)?;
                let mut going = going.iter();
                done.extend(active.extract_if(.., |_| going.next() == Some(&false)));
            }
        }
    }

    /// Prefill prompts and draw the first token of each of their samples.
    fn start(
        &self,
        queue: &Queue<'_>,
        taken: &[usize],
        sampler: &TokenSampler<'_>,
        chooser: &Chooser<'_, '_>,
        cache: &mut dyn KvCache,
    ) -> Result<Vec<Slot>> {
        let samples = queue.samples;
        let chosen: Vec<Arc<Prompt>> = taken.iter().map(|&i| Arc::clone(&queue.prompts[i])).collect();
        let layout = Layout::of_prompts(&chosen, self.architecture())?;
        let rows: Vec<Vec<usize>> = layout.prompts.iter().map(|prompt| prompt.rows().collect()).collect();
        let tape = self.tape(false);
        let last = layout.prompts.iter().map(|prompt| prompt.last() as u32).collect();
        let keep = |layer: usize, qkv: &Tensor| cache.prefill(layer, qkv, &rows, samples);
        let hidden = self.hidden(&tape, &layout, Some(last), keep)?;
        let logits = self.last_logits(&hidden)?;
        let mut slots = Vec::new();
        for (&prompt, laid) in taken.iter().zip(&layout.prompts) {
            for sample in 0..samples {
                let completion = Completion { ids: Vec::new(), logprobs: Vec::new(), finished: false };
                let stream = [(queue.first + prompt) as u64, sample as u64];
                let rng = rng::stream(sampler.seed(), "sample", &stream);
                slots.push(Slot { prompt, sample, position: laid.next, rng, completion });
            }
        }
        chooser.draw(&mut slots, &logits, samples, sampler)?;
        Ok(slots)
    }

    /// One more token for every active sample.
    fn step(
        &self,
        active: &mut [Slot],
        sampler: &TokenSampler<'_>,
        chooser: &Chooser<'_, '_>,
        cache: &mut dyn KvCache,
    ) -> Result<()> {
        let tape = self.tape(false);
        let last = |slot: &Slot| slot.completion.ids.last().copied().unwrap_or_default();
        let sources = active.iter().map(|slot| RowSource::Token(last(slot))).collect();
        let positions: Vec<u32> = active.iter().map(|slot| slot.position).collect();
        let x = embed(&tape, &self.network.decoder.embedding, None, sources)?;
        let table = self.network.decoder.rotations([&positions; 3]);
        let hidden = self.network.decoder.layers(&tape, DecoderInput::of(x), &table, None, |layer, qkv| {
            Ok(Value::constant(cache.attend(layer, &qkv.tensor)?))
        })?;
        let logits = self.last_logits(&hidden)?;
        active.iter_mut().for_each(|slot| slot.position += 1);
        chooser.draw(active, &logits, 1, sampler)
    }

    /// Logits of hidden states before the final norm: `[rows, vocab]`.
    fn last_logits(&self, hidden: &Value) -> Result<Tensor> {
        let tape = self.tape(false);
        let hidden = self.network.decoder.finish(&tape, hidden)?;
        let head = crate::nn::Linear::without_bias(Arc::clone(&self.network.decoder.head));
        Ok(crate::nn::linear(&tape, &hidden, &[&head], None)?.tensor)
    }
}

/// Where the next tokens are chosen.
enum Chooser<'a, 'b> {
    Host(&'a TokenSampler<'b>),
    Device(DeviceSampler<'a, 'b>),
}

impl Chooser<'_, '_> {
    /// Draw the next token of each slot; each row of `logits` is that of `samples` slots. Logits that are not finite are an error: some
    /// token would be drawn all the same, and the model would only look bad.
    fn draw(&self, slots: &mut [Slot], logits: &Tensor, samples: usize, sampler: &TokenSampler<'_>) -> Result<()> {
        match self {
            Chooser::Host(chooser) => {
                let (_, vocab) = logits.dims2()?;
                let logits = read(logits)?;
                slots.par_iter_mut().enumerate().try_for_each(|(i, slot)| {
                    let row = i / samples * vocab..(i / samples + 1) * vocab;
                    let token = chooser.draw(&logits[row], &mut slot.rng);
                    slot.push(token, sampler)
                })
            }
            Chooser::Device(chooser) => {
                let rows = (0..slots.len() as u32).map(|slot| slot / samples as u32).collect();
                let rows = Tensor::from_vec(rows, slots.len(), logits.device())?;
                let logits = if samples == 1 { logits.clone() } else { logits.index_select(&rows, 0)? };
                let shares: Vec<f64> = slots.iter_mut().map(|slot| slot.rng.random()).collect();
                let mut drawn = slots.iter_mut().zip(chooser.draw(&logits, &shares)?);
                drawn.try_for_each(|(slot, token)| slot.push(token, sampler))
            }
        }
    }
}

impl Slot {
    fn push(&mut self, SampledToken { id, logprob }: SampledToken, sampler: &TokenSampler<'_>) -> Result<()> {
        let completion = &mut self.completion;
        if !logprob.is_finite() {
            return Err(Error::failed(format!(
                "the model's output for token {} of a response is not finite; are its weights?",
                completion.ids.len()
            )));
        }
        completion.ids.push(id);
        completion.logprobs.push(logprob);
        completion.finished = sampler.is_end(&completion.ids);
        Ok(())
    }
}
