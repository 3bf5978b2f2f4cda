//! One step of supervised fine-tuning: cross-entropy on the reference responses, prompts and images never counted.
//!
//! With `sft.kl_coef` the loss has a second part, `kl_coef * KL(initial model || model)` at the same tokens, with the weights that the
//! first part gives them. It is the forward divergence of the whole next-token distributions, computed exactly, and not an estimate from
//! the token that happens to follow: on reference responses, which neither model has sampled, such an estimate would be biased.

use super::metrics::Metrics;
use super::objective::{self, Window};
use super::on_policy;
use super::shard_outputs::ShardOutputs;
use super::trainer::StepContext;
use crate::model::LanguageModel;
use crate::model::{Sequence, TokenGrads, TokenStats};
use crate::train::settings::LossReduction;
use crate::{Error, Result};
use std::ops::Range;
use std::time::Instant;

/// Take `batch_size * accumulation` examples and make one optimizer step.
pub(super) fn round(ctx: &mut StepContext<'_>) -> Result<()> {
    let started = Instant::now();
    let (job, settings) = (ctx.job, &ctx.job.config.train);
    let sft = job.config.sft.clone().unwrap_or_default();
    let n = job.config.examples_per_round();
    let refreshed = on_policy::resample_if_due(ctx)?;
    let (indices, sequences) =
        if sft.resample_every > 0 { on_policy::next_examples(ctx, n)? } else { ctx.next_examples(n)? };
    let ids = indices.iter().map(|&i| Ok(job.train.example(i)?.id.clone())).collect::<Result<Vec<_>>>()?;
    let micros: Vec<&[Sequence]> = sequences.chunks(settings.batch_size).collect();
    let penalty = match (sft.kl_coef > 0.0, job.reference) {
        (false, _) => None,
        (true, Some(reference)) => Some(KlPenalty { reference, coef: sft.kl_coef }),
        (true, None) => return Err(Error::failed("sft.kl_coef is above 0 but there is no reference model")),
    };
    let sums = accumulate_with_kl(job.policy, &micros, sft.loss_reduction, penalty)?;
    let tokens = sequences.iter().map(|s| s.prompt.ids.len() + s.response.len()).sum();
    let mut metrics = Metrics::default();
    metrics.push("entropy", sums.entropy);
    metrics.push("response_tokens", sums.tokens);
    if penalty.is_some() {
        metrics.push("kl", sums.kl);
    }
    for (name, value) in refreshed.iter() {
        metrics.push(name, *value);
    }
    ctx.finish_step(sums.loss, &ids, started, tokens, metrics)
}

/// A penalty on the divergence from a reference model.
#[derive(Clone, Copy)]
pub struct KlPenalty<'a> {
    /// The reference.
    pub reference: &'a dyn LanguageModel,
    /// Weight of KL(reference || model).
    pub coef: f64,
}

/// What an accumulation window came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accumulated {
    /// Its loss: the mean negative log-probability of its response tokens, and the weighted divergence from the reference.
    pub loss: f64,
    /// Mean entropy at its response tokens, in nats.
    pub entropy: f64,
    /// Mean KL(reference || model) at its response tokens, in nats; 0 without a reference. Weighted as the loss weights tokens.
    pub kl: f64,
    /// Its response tokens.
    pub tokens: f64,
}

/// Forward and backward over the micro-batches of one optimizer step: adds the gradient of the window's loss.
pub fn accumulate(policy: &dyn LanguageModel, micros: &[&[Sequence]], average: LossReduction) -> Result<Accumulated> {
    accumulate_with_kl(policy, micros, average, None)
}

/// As [`accumulate`], with a penalty on the divergence from a reference.
pub fn accumulate_with_kl(
    policy: &dyn LanguageModel,
    micros: &[&[Sequence]],
    average: LossReduction,
    penalty: Option<KlPenalty<'_>>,
) -> Result<Accumulated> {
    let window = Window::of(micros.iter().flat_map(|m| m.iter()).map(|s| s.response.len()), micros.len());
    let mut sums = Accumulated { loss: 0.0, entropy: 0.0, kl: 0.0, tokens: window.tokens };
    for micro in micros {
        let outputs = ShardOutputs::default();
        let nll = |shard: &Range<usize>, stats: &TokenStats| -> (f64, TokenGrads) {
            match average {
                LossReduction::Token => objective::sft(stats, &window),
                LossReduction::Sequence => {
                    objective::sft_by_sequence(stats, micro[shard.clone()].iter().map(|s| s.response.len()), &window)
                }
            }
        };
        let entropy =
            |stats: &TokenStats| stats.entropies.iter().map(|&e| f64::from(e)).sum::<f64>() / window.tokens.max(1.0);
        policy.backward(micro, 1.0, penalty.map(|penalty| penalty.reference), &|shard, stats| {
            let (mut loss, mut grads) = nll(&shard, stats);
            let mut mean_kl = 0.0;
            if let (Some(penalty), Some(kl)) = (penalty, &stats.kl) {
                let (mean, by_kl) = objective::kl_penalty(kl, &grads, penalty.coef);
                loss += penalty.coef * mean;
                (mean_kl, grads.kl) = (mean, Some(by_kl));
            }
            outputs.insert(shard.start, (loss, entropy(stats), mean_kl));
            Ok(grads)
        })?;
        for (loss, entropy, kl) in outputs.ordered() {
            sums.loss += loss;
            sums.entropy += entropy;
            sums.kl += kl;
        }
    }
    Ok(sums)
}
