//! What the shards of a batch report, in the order of the batch whenever each of them was done.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// Results by the first sequence of their shard.
pub struct ShardOutputs<T>(Mutex<BTreeMap<usize, T>>);

impl<T> Default for ShardOutputs<T> {
    fn default() -> Self {
        ShardOutputs(Mutex::default())
    }
}

impl<T> ShardOutputs<T> {
    /// The result of the shard that begins with sequence `first`.
    pub fn insert(&self, first: usize, part: T) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(first, part);
    }

    /// All results, in order.
    pub fn ordered(self) -> impl Iterator<Item = T> {
        self.0.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).into_values()
    }
}
