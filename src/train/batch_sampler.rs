//! Which examples a step takes: those of the run's own dataset, and a fixed number replayed from another one.
//!
//! Both are dealt out by samplers of their own, whose cursors are the whole state. Examples are numbered through: the replayed ones come
//! after the run's own.

use crate::data::{Cursor, Sampler};
use crate::{Result, rng};
use rand::Rng as _;

/// Deals out the examples of a run.
#[derive(Clone)]
pub struct BatchSampler {
    own: Sampler,
    replayed: Option<Replayed>,
}

#[derive(Clone)]
struct Replayed {
    sampler: Sampler,
    /// Number of its first example.
    first: usize,
    /// How many of each step.
    each: usize,
}

impl BatchSampler {
    /// `own` examples, followed by `replayed` ones of which each step takes `each`, from where the cursors stand. Without a cursor, the
    /// replay is at its beginning.
    pub fn resume(
        own: usize,
        replayed: usize,
        each: usize,
        seed: u64,
        cursor: Cursor,
        replay: Option<Cursor>,
    ) -> Result<BatchSampler> {
        let replay_seed = rng::stream(seed, "replay", &[]).next_u64();
        let replay = replay.unwrap_or(Cursor { epoch: 0, position: 0 });
        let replayed = match (replayed, each) {
            (0, _) | (_, 0) => None,
            _ => Some(Replayed { sampler: Sampler::resume(replayed, replay_seed, replay)?, first: own, each }),
        };
        Ok(BatchSampler { own: Sampler::resume(own, seed, cursor)?, replayed })
    }

    /// Where the own examples stand.
    pub fn cursor(&self) -> Cursor {
        self.own.cursor()
    }

    /// Where the replayed ones stand, if there are any.
    pub fn replay_cursor(&self) -> Option<Cursor> {
        self.replayed.as_ref().map(|r| r.sampler.cursor())
    }

    /// How many of a step's examples are replayed.
    pub fn each(&self) -> usize {
        self.replayed.as_ref().map_or(0, |r| r.each)
    }

    /// The next `n` examples of a step, its replayed ones last.
    pub fn next_batch(&mut self, n: usize) -> Vec<usize> {
        let mut batch = self.next_own(n.saturating_sub(self.each()));
        batch.extend(self.next_replayed());
        batch
    }

    /// What [`BatchSampler::next_batch`] will give, without taking it.
    pub fn peek(&self, n: usize) -> Vec<usize> {
        match &self.replayed {
            None => self.own.peek(n),
            Some(_) => self.clone().next_batch(n),
        }
    }

    /// The next `n` of the own examples.
    pub fn next_own(&mut self, n: usize) -> Vec<usize> {
        self.own.next_batch(n)
    }

    /// The next own examples, without taking them.
    pub fn peek_own(&self, n: usize) -> Vec<usize> {
        self.own.peek(n)
    }

    /// The replayed examples of the next step.
    pub fn next_replayed(&mut self) -> Vec<usize> {
        let Some(r) = &mut self.replayed else { return Vec::new() };
        r.sampler.next_batch(r.each).into_iter().map(|i| r.first + i).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Cursor = Cursor { epoch: 0, position: 0 };

    #[test]
    fn every_step_has_its_share_of_replayed_examples_and_both_sets_come_round() {
        let mut deal = BatchSampler::resume(6, 4, 2, 1, START, None).unwrap();
        let (mut own, mut replayed) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let peeked = deal.peek(5);
            let batch = deal.next_batch(5);
            assert_eq!(batch, peeked);
            own.extend(batch[..3].to_vec());
            replayed.extend(batch[3..].to_vec());
        }
        own.sort_unstable();
        replayed.sort_unstable();
        assert_eq!((own, replayed), ((0..6).collect(), (6..10).collect()));
    }

    #[test]
    fn without_a_replay_the_examples_are_those_of_the_sampler_alone() {
        for (replayed, each) in [(0, 0), (9, 0)] {
            let mut deal = BatchSampler::resume(6, replayed, each, 1, START, None).unwrap();
            assert_eq!(deal.next_batch(4), Sampler::new(6, 1).next_batch(4));
            assert_eq!(deal.replay_cursor(), None);
        }
    }

    #[test]
    fn a_resumed_deal_goes_on_as_if_it_had_never_stopped() {
        for stop in 0..9 {
            let mut whole = BatchSampler::resume(7, 5, 1, 3, START, None).unwrap();
            (0..stop).for_each(|_| drop(whole.next_batch(4)));
            let mut resumed = BatchSampler::resume(7, 5, 1, 3, whole.cursor(), whole.replay_cursor()).unwrap();
            assert_eq!(resumed.next_batch(4), whole.next_batch(4), "after {stop}");
        }
        assert!(BatchSampler::resume(7, 5, 1, 3, START, Some(Cursor { epoch: 0, position: 5 })).is_err());
    }
}
