//! One step of supervised fine-tuning: cross-entropy on the reference responses, prompts and images never counted.

use super::guard::check_gradients;
use super::loss::{self, Window};
use super::metrics::Metrics;
use super::policy::reference_sequence;
use super::trainer::Loop;
use crate::Result;
use std::time::Instant;

/// Take `batch_size * accumulation` examples and make one optimizer step.
pub(super) fn round(l: &mut Loop<'_>) -> Result<()> {
    let started = Instant::now();
    let (job, settings) = (l.job, &l.job.config.train);
    let indices = l.sampler.next_batch(settings.batch_size * settings.accumulation);
    let mut ids = Vec::with_capacity(indices.len());
    let mut sequences = Vec::with_capacity(indices.len());
    for &i in &indices {
        sequences.push(reference_sequence(job.train, job.codec, i)?);
        ids.push(job.train.example(i)?.id.clone());
    }
    if !l.checked {
        l.checked = true;
        if let Some(note) = check_gradients(job.policy, &sequences[..settings.batch_size], 1.0)? {
            l.progress.note(&note);
        }
    }
    let window = Window::of(sequences.iter().map(|s| s.response.len()), settings.accumulation);
    let (mut total, mut entropy) = (0.0, 0.0);
    for micro in sequences.chunks(settings.batch_size) {
        job.policy.backward(micro, 1.0, &mut |stats| {
            let (loss, grads) = loss::sft(stats, &window);
            total += loss;
            entropy += stats.entropies.iter().map(|&e| f64::from(e)).sum::<f64>();
            Ok(grads)
        })?;
    }
    let tokens = sequences.iter().map(|s| s.prompt.ids.len() + s.response.len()).sum();
    let mut metrics = Metrics::default();
    metrics.push("entropy", entropy / window.tokens.max(1.0));
    metrics.push("response_tokens", window.tokens);
    l.finish_step(total, &ids, started, tokens, metrics)
}
