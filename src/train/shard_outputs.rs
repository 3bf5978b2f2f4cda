//! What the shards of a batch report, in the order of the batch whichever thread or rank computed them, and whenever.

use super::objective::MetricSums;
use crate::Result;
use crate::comm::Communicator;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// First sequence, loss and metrics of a shard, the numbers as their bits.
type ShardBits = (usize, u64, Vec<(String, u64)>);

/// The loss and the metrics of each shard, by its first sequence.
#[derive(Default)]
pub struct ShardOutputs(Mutex<BTreeMap<usize, (f64, MetricSums)>>);

impl ShardOutputs {
    /// Add those of the shard that begins with sequence `first`.
    pub fn insert(&self, first: usize, loss: f64, metrics: MetricSums) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(first, (loss, metrics));
    }

    /// Those of all shards of all ranks, in the order of the batch.
    pub fn ordered(self, comm: &dyn Communicator) -> Result<Vec<(f64, MetricSums)>> {
        let own = self.0.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        // As bits: a loss may be infinite or no number, which JSON does not know.
        let own = own.into_iter().map(|(first, (loss, metrics))| (first, loss.to_bits(), metrics.to_bits()));
        let mut all: Vec<ShardBits> = comm.gather(own.collect())?;
        all.sort_unstable_by_key(|(first, ..)| *first);
        let numbers = |(_, loss, metrics)| (f64::from_bits(loss), MetricSums::from_bits(metrics));
        Ok(all.into_iter().map(numbers).collect())
    }
}
