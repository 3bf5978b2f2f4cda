//! One step of supervised fine-tuning: cross-entropy on the reference responses, prompts and images never counted.

use super::loss::{self, Window};
use super::metrics::Metrics;
use super::parts::Parts;
use super::trainer::Loop;
use crate::Result;
use crate::config::Average;
use crate::model::Sequence;
use crate::policy::Policy;
use std::time::Instant;

/// Take `batch_size * accumulation` examples and make one optimizer step.
pub(super) fn round(l: &mut Loop<'_>) -> Result<()> {
    let started = Instant::now();
    let (job, settings) = (l.job, &l.job.config.train);
    let (indices, sequences) = l.next_examples(settings.batch_size * settings.accumulation)?;
    let ids = indices.iter().map(|&i| Ok(job.train.example(i)?.id.clone())).collect::<Result<Vec<_>>>()?;
    let micros: Vec<&[Sequence]> = sequences.chunks(settings.batch_size).collect();
    let sums = accumulate(job.policy, &micros, job.config.sft.clone().unwrap_or_default().average)?;
    let tokens = sequences.iter().map(|s| s.prompt.ids.len() + s.response.len()).sum();
    let mut metrics = Metrics::default();
    metrics.push("entropy", sums.entropy);
    metrics.push("response_tokens", sums.tokens);
    l.finish_step(sums.loss, &ids, started, tokens, metrics)
}

/// What an accumulation window came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accumulated {
    /// Mean negative log-probability of its response tokens.
    pub loss: f64,
    /// Mean entropy at its response tokens, in nats.
    pub entropy: f64,
    /// Its response tokens.
    pub tokens: f64,
}

/// Forward and backward over the micro-batches of one optimizer step: adds the gradient of the window's loss.
pub fn accumulate(policy: &dyn Policy, micros: &[&[Sequence]], average: Average) -> Result<Accumulated> {
    let window = Window::of(micros.iter().flat_map(|m| m.iter()).map(|s| s.response.len()), micros.len());
    let mut sums = Accumulated { loss: 0.0, entropy: 0.0, tokens: window.tokens };
    for micro in micros {
        let parts = Parts::default();
        policy.backward(micro, 1.0, &|shard, stats| {
            let (loss, grads) = match average {
                Average::Token => loss::sft(stats, &window),
                Average::Sequence => {
                    loss::sft_by_sequence(stats, micro[shard.clone()].iter().map(|s| s.response.len()), &window)
                }
            };
            let entropy = stats.entropies.iter().map(|&e| f64::from(e)).sum::<f64>() / window.tokens.max(1.0);
            parts.put(shard.start, (loss, entropy));
            Ok(grads)
        })?;
        for (loss, entropy) in parts.in_order() {
            sums.loss += loss;
            sums.entropy += entropy;
        }
    }
    Ok(sums)
}
