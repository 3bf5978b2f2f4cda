//! Which examples come next: a fresh permutation of the dataset each epoch, and a cursor that resumes it exactly.

use crate::{Error, Result, rng};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// Position of a [`ExampleSampler`]. Always `position < len`: the end of an epoch is the beginning of the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Epochs completed.
    pub epoch: u64,
    /// Examples already taken from the current epoch.
    pub position: usize,
}

/// Yields example indices. The order of an epoch is a function of (seed, epoch) and the number of examples alone.
#[derive(Debug, Clone)]
pub struct ExampleSampler {
    len: usize,
    seed: u64,
    cursor: Cursor,
    order: Vec<usize>,
}

impl ExampleSampler {
    /// At the beginning of epoch 0 of `len` examples.
    pub fn new(len: usize, seed: u64) -> Self {
        let cursor = Cursor::default();
        ExampleSampler { len, seed, cursor, order: epoch_order(len, seed, 0) }
    }

    /// Resume at the [`ExampleSampler::cursor`] of a sampler with the same `len` and `seed`.
    pub fn resume(len: usize, seed: u64, cursor: Cursor) -> Result<Self> {
        if cursor.position >= len {
            return Err(Error::input(format!(
                "sampler position {} is beyond the dataset's {len} examples: the run was made with other data",
                cursor.position
            )));
        }
        Ok(ExampleSampler { len, seed, cursor, order: epoch_order(len, seed, cursor.epoch) })
    }

    /// The position to store for [`ExampleSampler::resume`].
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The next `n` indices, without advancing.
    pub fn peek(&self, n: usize) -> Vec<usize> {
        match self.order.get(self.cursor.position..self.cursor.position + n) {
            Some(batch) => batch.to_vec(),
            None => self.clone().next_batch(n),
        }
    }

    /// The next `n` indices. A batch at the end of an epoch is filled from the next one, so that every batch is whole and
    /// every example still occurs once per epoch. Empty if there are no examples.
    pub fn next_batch(&mut self, n: usize) -> Vec<usize> {
        let mut batch = Vec::with_capacity(n);
        while batch.len() < n && self.len > 0 {
            batch.push(self.order[self.cursor.position]);
            self.cursor.position += 1;
            if self.cursor.position == self.len {
                self.cursor = Cursor { epoch: self.cursor.epoch + 1, position: 0 };
                self.order = epoch_order(self.len, self.seed, self.cursor.epoch);
            }
        }
        batch
    }
}

fn epoch_order(len: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    order.shuffle(&mut rng::stream(seed, "sampler", &[epoch]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peek_returns_the_next_batch_and_does_not_advance() {
        let mut sampler = ExampleSampler::new(7, 3);
        for _ in 0..6 {
            let seen = sampler.peek(3);
            assert_eq!(seen, sampler.peek(3));
            assert_eq!(seen, sampler.next_batch(3));
        }
        assert!(ExampleSampler::new(0, 3).peek(2).is_empty());
    }

    #[test]
    fn every_example_occurs_once_per_epoch_in_a_new_order() {
        let mut sampler = ExampleSampler::new(10, 3);
        let indices: Vec<usize> = (0..10).flat_map(|_| sampler.next_batch(3)).collect();
        for epoch in indices.chunks(10) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(indices[..10], indices[10..20]);
        assert_eq!(sampler.cursor(), Cursor { epoch: 3, position: 0 });
        assert_ne!(ExampleSampler::new(10, 4).next_batch(10), indices[..10]);
    }

    #[test]
    fn a_resumed_sampler_continues_the_same_sequence() {
        for stop in 0..25 {
            let mut whole = ExampleSampler::new(7, 11);
            whole.next_batch(stop);
            let text = serde_json::to_string(&whole.cursor()).unwrap();
            let mut resumed = ExampleSampler::resume(7, 11, serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(resumed.next_batch(20), whole.next_batch(20), "stopped after {stop}");
            assert_eq!(resumed.cursor(), whole.cursor());
        }
    }

    #[test]
    fn a_cursor_of_other_data_is_refused() {
        assert!(ExampleSampler::resume(5, 1, Cursor { epoch: 0, position: 5 }).is_err());
        assert!(ExampleSampler::new(0, 1).next_batch(4).is_empty());
    }
}
