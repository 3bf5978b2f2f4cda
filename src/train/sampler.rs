//! The order of examples: a new seeded shuffle every epoch, every example once an epoch, and a cursor to go on from.

use crate::rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// Place in the order of examples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Passes completed.
    pub epoch: u64,
    /// Examples taken in this pass.
    pub position: usize,
}

/// Gives out the indices `0..len`.
pub struct Sampler {
    seed: u64,
    len: usize,
    cursor: Cursor,
    order: Vec<usize>,
}

impl Sampler {
    /// A sampler over `len` examples (at least one) that goes on at `cursor`.
    pub fn new(len: usize, seed: u64, cursor: Cursor) -> Sampler {
        Sampler { seed, len, cursor, order: shuffled(len, seed, cursor.epoch) }
    }

    /// Where the next example comes from.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The next `n` indices, going over into the next epoch where one ends.
    pub fn take(&mut self, n: usize) -> Vec<usize> {
        (0..n)
            .map(|_| {
                if self.cursor.position >= self.len {
                    self.cursor = Cursor { epoch: self.cursor.epoch + 1, position: 0 };
                    self.order = shuffled(self.len, self.seed, self.cursor.epoch);
                }
                self.cursor.position += 1;
                self.order[self.cursor.position - 1]
            })
            .collect()
    }
}

fn shuffled(len: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    order.shuffle(&mut rng::stream(seed, "order", &[epoch]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_every_example_once_and_the_next_has_another_order() {
        let mut sampler = Sampler::new(20, 3, Cursor::default());
        let (first, second) = (sampler.take(20), sampler.take(20));
        for order in [&first, &second] {
            let mut sorted = order.clone();
            sorted.sort();
            assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        }
        assert_ne!(first, second);
    }

    #[test]
    fn a_sampler_made_from_a_cursor_goes_on_where_the_other_stopped() {
        let mut whole = Sampler::new(7, 3, Cursor::default());
        let mut first = Sampler::new(7, 3, Cursor::default());
        let mut got = first.take(7);
        got.extend(Sampler::new(7, 3, first.cursor()).take(10));
        assert_eq!(got, whole.take(17));
    }
}
