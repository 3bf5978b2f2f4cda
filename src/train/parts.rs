//! What the shards of a batch report, in the order of the batch whenever each of them was done.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// Results by the first sequence of their shard.
pub struct Parts<T>(Mutex<BTreeMap<usize, T>>);

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Parts(Mutex::default())
    }
}

impl<T> Parts<T> {
    /// The result of the shard that begins with sequence `first`.
    pub fn put(&self, first: usize, part: T) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(first, part);
    }

    /// All results, in order.
    pub fn in_order(self) -> impl Iterator<Item = T> {
        self.0.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).into_values()
    }
}
