//! Scoring and training passes: a batch goes through the model in shards.

use super::all_reduce::{RankOrder, add_gradients, broadcast_gradients};
use super::forward::{empty_stats, stats_of};
use super::language_model::LanguageModel as _;
use super::sequence::{DeviceTokenGrads, DeviceTokenStats, KlReference, Sequence, TokenLoss, TokenStats};
use super::shards::{self, ShardSchedule, Sharding};
use super::transformer::Model;
use crate::comm::{Communicator, Single};
use crate::nn::{
    GradOrder, GradTarget, Parameter, ParameterGrads, Tape, ThreadOrder, Value, in_main_memory, join_ordered, kl_from,
    numbers, parallel_map, share_threads,
};
use crate::{Error, Result, rng};
use candle_core::Tensor;
use rand::Rng as _;
use std::ops::Range;
use std::sync::Arc;

/// A shard after its forward pass.
struct Recorded {
    tape: Tape,
    /// The gradients that the backward pass starts from.
    upstream: Vec<(Value, Tensor)>,
}

impl Recorded {
    fn backward(self, target: GradTarget<'_>) -> Result<()> {
        self.tape.backward_to(self.upstream, target)
    }
}

impl Model {
    /// See [`super::LanguageModel::score`].
    pub(super) fn score_shards(&self, batch: &[Sequence], temperature: f32) -> Result<TokenStats> {
        let parts =
            self.by_shards(batch, |shard| match self.token_stats(&self.tape(false), &batch[shard], temperature)? {
                Some((value, _)) => stats_of(&value.tensor),
                None => Ok(empty_stats()),
            });
        let mut all = empty_stats();
        for part in parts {
            let part = part?;
            all.logprobs.extend(part.logprobs);
            all.entropies.extend(part.entropies);
        }
        Ok(all)
    }

    /// See [`super::LanguageModel::distributed_backward`].
    pub(super) fn backward_shards(
        &self,
        comm: &dyn Communicator,
        batch: &[Sequence],
        temperature: f32,
        kl_reference: Option<&KlReference<'_>>,
        loss: &dyn TokenLoss,
    ) -> Result<()> {
        if kl_reference.is_some() && temperature != 1.0 {
            return Err(Error::failed("the KL divergence from a reference is computed at temperature 1 only"));
        }
        let dropout = self.next_dropout();
        self.over_shards(comm, batch, |shard| {
            let tape = self.recording_tape(dropout, shard);
            let sequences = &batch[shard.clone()];
            let Some((value, predictors)) = self.token_stats(&tape, sequences, temperature)? else {
                loss.grads(shard.clone(), &TokenStats { kl: kl_reference.map(|_| Vec::new()), ..empty_stats() })?;
                return Ok(None);
            };
            let kl = match kl_reference {
                Some(reference) => {
                    Some(kl_from(&tape, &reference(shard.clone())?, &predictors, &self.network.decoder.head)?)
                }
                None => None,
            };
            let DeviceTokenGrads { both, kl: by_kl } = self.loss_grads(loss, shard, &value, kl.as_ref())?;
            let mut upstream = vec![(value, both)];
            match (kl, by_kl) {
                (Some(kl), Some(by_kl)) => upstream.push((kl, by_kl)),
                (None, Some(_)) => return Err(Error::failed("the loss has a gradient of a KL that was not computed")),
                (_, None) => {}
            }
            Ok(Some(Recorded { tape, upstream }))
        })
    }

    /// Call `part` for every shard of the batch, as many at once as the model's size allows. Results are in order.
    pub(super) fn by_shards<T: Send>(
        &self,
        batch: &[Sequence],
        part: impl Fn(Range<usize>) -> Result<T> + Sync,
    ) -> Vec<Result<T>> {
        let shards = self.shards(batch);
        let sharding = Sharding { bytes: self.weight_bytes(|_| true), gradient_buffers: 1 };
        match sharding.schedule(shards.len()) {
            ShardSchedule::PerThread(_) | ShardSchedule::Separate(_) => {
                parallel_map(shards.len(), |i| part(shards[i].clone()))
            }
            ShardSchedule::Pairs => {
                let at_once = |two: &[Range<usize>]| match two {
                    [a, b] => {
                        <[_; 2]>::from(join_ordered(&ThreadOrder::default(), || part(a.clone()), || part(b.clone())))
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

    /// Take every shard of the batch through `forward` and back. The order in which gradients are added depends on the batch and on the
    /// model alone: not on the number of threads nor, on a CPU, on the number of ranks.
    fn over_shards(
        &self,
        comm: &dyn Communicator,
        batch: &[Sequence],
        forward: impl Fn(&Range<usize>) -> Result<Option<Recorded>> + Sync,
    ) -> Result<()> {
        let alone = comm.world_size() == 1;
        let (shards, schedule) = match alone || self.uses_cpu_kernels() {
            true => {
                let shards = self.shards(batch);
                let schedule = self.sharding().schedule(shards.len());
                (shards, schedule)
            }
            // A device takes its part of a batch whole.
            false => {
                let shards = shards::cut(batch, comm.world_size());
                let count = shards.len();
                (shards, ShardSchedule::PerThread(count))
            }
        };
        let shard = |shard: &Range<usize>, target: GradTarget<'_>| match forward(shard)? {
            Some(recorded) => recorded.backward(target),
            None => Ok(()),
        };
        match schedule {
            ShardSchedule::PerThread(count) | ShardSchedule::Separate(count) => {
                // A run of sets of gradients for each rank: put end to end they are those of one process.
                let own = comm.share(count);
                let set = |i| {
                    let mut grads = ParameterGrads::default();
                    let mut shards = shards.iter().skip(own.start + i).step_by(count);
                    shards.try_for_each(|s| shard(s, GradTarget::Separate(&mut grads)))?;
                    Ok(grads)
                };
                let sets = match schedule {
                    ShardSchedule::Separate(_) => share_threads(own.len(), set),
                    _ => parallel_map(own.len(), set),
                };
                add_gradients(comm, self.parameters(), &sets.into_iter().collect::<Result<Vec<_>>>()?)
            }
            ShardSchedule::Pairs | ShardSchedule::Sequential if !alone => {
                self.in_turn(comm, &shards, schedule == ShardSchedule::Pairs, forward)
            }
            ShardSchedule::Pairs => shards.chunks(2).try_for_each(|two| {
                let [a, b] = two else { return two.iter().try_for_each(|s| shard(s, GradTarget::Parameters)) };
                let is_shared = |p: &Parameter| self.is_shared(p);
                let (order, mut separate) = (ThreadOrder::default(), ParameterGrads::default());
                let (first, second) = join_ordered(
                    &order,
                    || shard(a, GradTarget::First(&order, &is_shared)),
                    || shard(b, GradTarget::Second(&order, &is_shared, &mut separate)),
                );
                first.and(second)?;
                add_gradients(&Single, self.parameters(), &[separate])
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

    /// Ranks run the forward passes of a shard each at the same time, and take turns with the backward passes, which add to the same
    /// gradients as those of one process do, shard after shard. With `pairs`, every second shard is the second of a pair: where both are of one
    /// round, their backward passes run at the same time, and each gradient goes from one to the other as soon as it is added.
    fn in_turn(
        &self,
        comm: &dyn Communicator,
        shards: &[Range<usize>],
        pairs: bool,
        forward: impl Fn(&Range<usize>) -> Result<Option<Recorded>>,
    ) -> Result<()> {
        let world_size = comm.world_size();
        for (round, shards) in shards.chunks(world_size).enumerate() {
            let own = shards.get(comm.rank()).map(&forward).transpose()?.flatten();
            let is_second = |rank: usize| pairs && (round * world_size + rank) % 2 == 1;
            // The rank with the other shard of the pair, in this round.
            let other = match is_second(comm.rank()) {
                true => comm.rank().checked_sub(1),
                false => Some(comm.rank() + 1).filter(|&rank| rank < shards.len() && is_second(rank)),
            };
            let order = other.map(|other| RankOrder::new(comm, self.parameters(), other));
            let alone = ThreadOrder::finished();
            let order_of_pair = order.as_ref().map_or(&alone as &dyn GradOrder, |order| order);
            let mut backward = Some(|| -> Result<()> {
                let is_shared = |p: &Parameter| self.is_shared(p);
                let mut separate = ParameterGrads::default();
                let target = match is_second(comm.rank()) {
                    true => GradTarget::Second(order_of_pair, &is_shared, &mut separate),
                    false if order.is_some() => GradTarget::First(order_of_pair, &is_shared),
                    false => GradTarget::Parameters,
                };
                own.map_or(Ok(()), |recorded| recorded.backward(target))?;
                match (&order, is_second(comm.rank())) {
                    (Some(order), true) => order.receive_rest()?,
                    (Some(order), false) => order.send_rest()?,
                    (None, _) => {}
                }
                add_gradients(&Single, self.parameters(), &[separate])
            });
            for root in 0..shards.len() {
                let has_next = root + 1 < shards.len() && is_second(root + 1);
                if let Some(backward) = backward.take_if(|_| root == comm.rank() || has_next && root + 1 == comm.rank())
                {
                    backward()?;
                }
                if !has_next {
                    broadcast_gradients(comm, self.parameters(), root)?;
                }
            }
        }
        Ok(())
    }

    /// The loss's gradient with respect to what [`Model::token_stats`] and [`kl_from`] give.
    fn loss_grads(
        &self,
        loss: &dyn TokenLoss,
        shard: &Range<usize>,
        value: &Value,
        kl: Option<&Value>,
    ) -> Result<DeviceTokenGrads> {
        if !self.uses_cpu_kernels() {
            let of = |value: &Value| value.tensor.detach();
            let stats = DeviceTokenStats { both: of(value), kl: kl.map(of) };
            if let Some(grads) = loss.device_grads(shard.clone(), &stats)? {
                return Ok(grads);
            }
        }
        let mut stats = stats_of(&value.tensor)?;
        stats.kl = kl.map(|kl| Ok::<_, Error>(numbers(&kl.tensor)?.to_vec())).transpose()?;
        let grads = loss.grads(shard.clone(), &stats)?;
        let rows = grads.logprobs.len();
        let mut upstream = grads.logprobs;
        match grads.entropies {
            Some(entropies) => upstream.extend(entropies),
            None => upstream.resize(2 * rows, 0.0),
        }
        let kl = grads.kl.map(|by_kl| Tensor::from_vec(by_kl, rows, self.device())).transpose()?;
        Ok(DeviceTokenGrads { both: Tensor::from_vec(upstream, (2, rows), self.device())?, kl })
    }

    /// How `batch` is cut.
    pub(super) fn shards(&self, batch: &[Sequence]) -> Vec<Range<usize>> {
        match self.uses_cpu_kernels() {
            true => self.sharding().shards(batch),
            false => std::iter::once(0..batch.len()).collect(),
        }
    }

    /// Whether the fused CPU kernels do the work. A batch is then cut into shards that can run on a thread each.
    pub(super) fn uses_cpu_kernels(&self) -> bool {
        self.fused() && in_main_memory(self.device())
    }

    /// How a batch is cut: by the trainable parameters, or by all of a model so large that its shards run one after the other even without
    /// gradients.
    pub(super) fn sharding(&self) -> Sharding {
        let all = Sharding { bytes: self.weight_bytes(|_| true), gradient_buffers: self.gradient_buffers };
        match (Sharding { gradient_buffers: 1, ..all }).schedule(2) {
            ShardSchedule::Sequential => all,
            _ => Sharding { bytes: self.weight_bytes(|p| p.trainable()), ..all },
        }
    }

    pub(super) fn weight_bytes(&self, counts: impl Fn(&Parameter) -> bool) -> usize {
        self.parameters().iter().filter(|p| counts(p)).map(|p| 4 * p.var.elem_count()).sum()
    }
}
