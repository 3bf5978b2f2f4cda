//! Scoring and training passes: a batch goes through the model in shards.

use super::forward::empty_stats;
use super::language_model::LanguageModel;
use super::sequence::{LossFn, Sequence, TokenGrads, TokenStats};
use super::shards::{self, ShardSchedule};
use super::transformer::Model;
use crate::nn::{GradOrder, GradTarget, Parameter, ParameterGrads, Tape, join_ordered, kl_from, parallel_map, read};
use crate::{Error, Result, rng};
use candle_core::{Device, Tensor};
use rand::Rng as _;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

impl Model {
    /// See [`LanguageModel::score`].
    pub(super) fn score_shards(&self, batch: &[Sequence], temperature: f32) -> Result<TokenStats> {
        let parts = self.by_shards(batch, |shard| {
            let (_, stats) = self.token_stats(&self.tape(false), &batch[shard], temperature)?;
            Ok(stats)
        });
        let mut all = empty_stats();
        for part in parts {
            let part = part?;
            all.logprobs.extend(part.logprobs);
            all.entropies.extend(part.entropies);
        }
        Ok(all)
    }

    /// See [`LanguageModel::backward`].
    pub(super) fn backward_shards(
        &self,
        batch: &[Sequence],
        temperature: f32,
        kl_reference: Option<&dyn LanguageModel>,
        loss: &LossFn<'_>,
    ) -> Result<()> {
        if kl_reference.is_some() && temperature != 1.0 {
            return Err(Error::failed("the KL divergence from a reference is computed at temperature 1 only"));
        }
        let dropout = self.next_dropout();
        self.over_shards(batch, |shard, sink| {
            let tape = self.recording_tape(dropout, shard);
            let sequences = &batch[shard.clone()];
            let (value, mut stats) = self.token_stats(&tape, sequences, temperature)?;
            let kl = match (&value, kl_reference) {
                (Some((_, predictors)), Some(reference)) => {
                    Some(kl_from(&tape, &reference.lazy_logits(sequences)?, predictors, &self.network.decoder.head)?)
                }
                _ => None,
            };
            stats.kl = match &kl {
                Some(kl) => Some(kl.tensor.to_vec1::<f32>()?),
                None => kl_reference.map(|_| Vec::new()),
            };
            let mut grads = loss(shard.clone(), &stats)?;
            let Some((value, _)) = value else { return Ok(()) };
            let mut upstream = Vec::new();
            let by_kl = grads.kl.take();
            upstream.push((value, self.upstream_grad(grads)?));
            match (kl, by_kl) {
                (Some(kl), Some(by_kl)) => {
                    let rows = by_kl.len();
                    upstream.push((kl, Tensor::from_vec(by_kl, rows, &Device::Cpu)?.to_device(self.device())?));
                }
                (None, Some(_)) => return Err(Error::failed("the loss has a gradient of a KL that was not computed")),
                (_, None) => {}
            }
            tape.backward_to(upstream, sink)
        })
    }

    /// Call `part` for every shard of the batch, as many at once as the model's size allows. Results are in order.
    pub(super) fn by_shards<T: Send>(
        &self,
        batch: &[Sequence],
        part: impl Fn(Range<usize>) -> Result<T> + Sync,
    ) -> Vec<Result<T>> {
        let shards = self.shards(batch);
        match shards::schedule(shards.len(), self.weight_bytes(|_| true)) {
            ShardSchedule::PerThread(_) => parallel_map(shards.len(), |i| part(shards[i].clone())),
            ShardSchedule::Pairs => {
                let at_once = |two: &[Range<usize>]| match two {
                    [a, b] => {
                        <[_; 2]>::from(join_ordered(&GradOrder::default(), || part(a.clone()), || part(b.clone())))
                            .into()
                    }
                    rest => rest.iter().cloned().map(&part).collect::<Vec<_>>(),
                };
                shards.chunks(2).flat_map(at_once).collect()
            }
            ShardSchedule::Sequential => shards.into_iter().map(part).collect(),
        }
    }

    /// The seed of this backward pass's dropout: another for every pass of a step.
    fn next_dropout(&self) -> Option<u64> {
        self.next_dropout_pass().map(|(seed, pass)| rng::stream(seed, "dropout", &[pass]).next_u64())
    }

    fn recording_tape(&self, dropout: Option<u64>, shard: &Range<usize>) -> Tape {
        self.tape(true).with_dropout(dropout.map(|seed| seed.wrapping_add(shard.start as u64)))
    }

    /// Call `shard` for every shard of the batch with the target that its gradients go to.
    fn over_shards(
        &self,
        batch: &[Sequence],
        shard: impl Fn(&Range<usize>, GradTarget<'_>) -> Result<()> + Sync,
    ) -> Result<()> {
        let shards = self.shards(batch);
        match shards::schedule(shards.len(), self.sharding_bytes()) {
            ShardSchedule::PerThread(count) => {
                let parts = parallel_map(count, |thread| {
                    let mut grads = ParameterGrads::default();
                    let mut own = shards.iter().skip(thread).step_by(count);
                    own.try_for_each(|s| shard(s, GradTarget::Separate(&mut grads)))?;
                    Ok(grads)
                });
                self.add_gradients(&parts.into_iter().collect::<Result<Vec<_>>>()?)
            }
            ShardSchedule::Pairs => shards.chunks(2).try_for_each(|two| {
                let [a, b] = two else { return two.iter().try_for_each(|s| shard(s, GradTarget::Parameters)) };
                let is_shared = |p: &Parameter| self.is_shared(p);
                let (order, mut separate) = (GradOrder::default(), ParameterGrads::default());
                let (first, second) = join_ordered(
                    &order,
                    || shard(a, GradTarget::First(&order, &is_shared)),
                    || shard(b, GradTarget::Second(&order, &is_shared, &mut separate)),
                );
                first.and(second)?;
                self.add_gradients(&[separate])
            }),
            ShardSchedule::Sequential => shards.iter().try_for_each(|s| shard(s, GradTarget::Parameters)),
        }
    }

    /// Whether a parameter takes several gradients in a pass: the embeddings take them from the input and, tied, from the output, the
    /// output matrix tile by tile.
    pub(super) fn is_shared(&self, parameter: &Parameter) -> bool {
        let decoder = &self.network.decoder;
        [&decoder.embedding, &decoder.head].iter().any(|shared| std::ptr::eq(Arc::as_ptr(shared), parameter))
    }

    /// Add separate gradients, set by set, to those of the parameters.
    fn add_gradients(&self, parts: &[ParameterGrads]) -> Result<()> {
        self.parameters().par_iter().try_for_each(|parameter| {
            parts.iter().filter_map(|part| part.get(parameter)).try_for_each(|grad| {
                let grad = read(grad)?;
                parameter.accumulate(|sum, filled| match filled {
                    true => sum.iter_mut().zip(grad.iter()).for_each(|(s, g)| *s += g),
                    false => sum.copy_from_slice(&grad),
                })
            })
        })
    }

    /// The loss's gradient with respect to [`Model::token_stats`], `[2, rows]`.
    fn upstream_grad(&self, grads: TokenGrads) -> Result<Tensor> {
        let rows = grads.logprobs.len();
        let mut upstream = grads.logprobs;
        match grads.entropies {
            Some(entropies) => upstream.extend(entropies),
            None => upstream.resize(2 * rows, 0.0),
        }
        Ok(Tensor::from_vec(upstream, (2, rows), &Device::Cpu)?.to_device(self.device())?)
    }

    /// How `batch` is cut.
    pub(super) fn shards(&self, batch: &[Sequence]) -> Vec<Range<usize>> {
        match self.uses_cpu_kernels() {
            true => shards::shards(batch, self.sharding_bytes()),
            false => std::iter::once(0..batch.len()).collect(),
        }
    }

    /// Whether the fused CPU kernels do the work. A batch is then cut into shards that can run on a thread each.
    pub(super) fn uses_cpu_kernels(&self) -> bool {
        self.fused() && matches!(self.device(), Device::Cpu)
    }

    /// Bytes of parameters by which the cut of a batch is chosen: the trainable ones, or all of a model so large that its shards run one
    /// after the other even without gradients.
    pub(super) fn sharding_bytes(&self) -> usize {
        let all = self.weight_bytes(|_| true);
        match shards::schedule(2, all) {
            ShardSchedule::Sequential => all,
            _ => self.weight_bytes(|p| p.trainable()),
        }
    }

    pub(super) fn weight_bytes(&self, counts: impl Fn(&Parameter) -> bool) -> usize {
        self.parameters().iter().filter(|p| counts(p)).map(|p| 4 * p.var.elem_count()).sum()
    }
}
