//! Which examples a step takes: those of the run's own dataset, and a fixed number replayed from another one.
//!
//! Each dataset is shuffled by a sampler of its own. The two cursors are the whole state.

use super::job::{ExampleId, TrainJob};
use crate::data::{Cursor, ExampleSampler};
use crate::{Result, rng};
use rand::Rng as _;

/// Draws the examples of a run.
#[derive(Clone)]
pub struct BatchSampler {
    dataset: ExampleSampler,
    replay: Option<ReplaySampler>,
}

#[derive(Clone)]
struct ReplaySampler {
    sampler: ExampleSampler,
    per_step: usize,
}

impl BatchSampler {
    /// Draw from `examples` of the run's own dataset and from `replayed` ones, `per_step` of these in every step, from where the cursors
    /// stand. Without a replay cursor, the replay begins at its start.
    pub fn resume(
        examples: usize,
        replayed: usize,
        per_step: usize,
        seed: u64,
        cursor: Cursor,
        replay_cursor: Option<Cursor>,
    ) -> Result<BatchSampler> {
        let replay_seed = rng::stream(seed, "replay", &[]).next_u64();
        let replay_cursor = replay_cursor.unwrap_or_default();
        let replay = match (replayed, per_step) {
            (0, _) | (_, 0) => None,
            _ => {
                Some(ReplaySampler { sampler: ExampleSampler::resume(replayed, replay_seed, replay_cursor)?, per_step })
            }
        };
        Ok(BatchSampler { dataset: ExampleSampler::resume(examples, seed, cursor)?, replay })
    }

    /// The sampler of a run, from where the cursors stand.
    pub fn of_job(job: &TrainJob<'_>, cursor: Cursor, replay_cursor: Option<Cursor>) -> Result<BatchSampler> {
        let replayed = job.replay.map_or(0, |replay| replay.len());
        let (per_step, seed) = (job.config.replayed_per_step(), job.config.train.seed);
        BatchSampler::resume(job.train.len(), replayed, per_step, seed, cursor, replay_cursor)
    }

    /// Position in the run's own dataset.
    pub fn cursor(&self) -> Cursor {
        self.dataset.cursor()
    }

    /// Position in the replayed dataset, if there is one.
    pub fn replay_cursor(&self) -> Option<Cursor> {
        self.replay.as_ref().map(|r| r.sampler.cursor())
    }

    /// Replayed examples of each step.
    pub fn replayed_per_step(&self) -> usize {
        self.replay.as_ref().map_or(0, |r| r.per_step)
    }

    /// The next `n` examples of a step, its replayed ones last.
    pub fn next_batch(&mut self, n: usize) -> Vec<ExampleId> {
        let own = self.next_of_dataset(n.saturating_sub(self.replayed_per_step()));
        own.into_iter().map(ExampleId::Dataset).chain(self.next_replayed()).collect()
    }

    /// What [`BatchSampler::next_batch`] will give, without taking it.
    pub fn peek(&self, n: usize) -> Vec<ExampleId> {
        match &self.replay {
            None => self.peek_dataset(n),
            Some(_) => self.clone().next_batch(n),
        }
    }

    /// The next `n` indices of the run's own dataset.
    pub fn next_of_dataset(&mut self, n: usize) -> Vec<usize> {
        self.dataset.next_batch(n)
    }

    /// The next `n` examples of the run's own dataset, without taking them.
    pub fn peek_dataset(&self, n: usize) -> Vec<ExampleId> {
        self.dataset.peek(n).into_iter().map(ExampleId::Dataset).collect()
    }

    /// The replayed examples of the next step.
    pub fn next_replayed(&mut self) -> Vec<ExampleId> {
        let Some(r) = &mut self.replay else { return Vec::new() };
        r.sampler.next_batch(r.per_step).into_iter().map(ExampleId::Replay).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Cursor = Cursor { epoch: 0, position: 0 };

    #[test]
    fn every_step_has_its_share_of_replayed_examples_and_both_sets_come_round() {
        let mut sampler = BatchSampler::resume(6, 4, 2, 1, START, None).unwrap();
        let (mut own, mut replayed) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let peeked = sampler.peek(5);
            let batch = sampler.next_batch(5);
            assert_eq!(batch, peeked);
            for id in batch {
                match id {
                    ExampleId::Dataset(i) => own.push(i),
                    ExampleId::Replay(i) => replayed.push(i),
                    ExampleId::Prior(i) => panic!("example {i} of the KL penalty"),
                }
            }
        }
        own.sort_unstable();
        replayed.sort_unstable();
        assert_eq!((own, replayed), ((0..6).collect(), (0..4).collect()));
    }

    #[test]
    fn without_a_replay_the_examples_are_those_of_the_dataset_sampler_alone() {
        for (replayed, per_step) in [(0, 0), (9, 0)] {
            let mut sampler = BatchSampler::resume(6, replayed, per_step, 1, START, None).unwrap();
            let alone = ExampleSampler::new(6, 1).next_batch(4).into_iter().map(ExampleId::Dataset);
            assert_eq!(sampler.next_batch(4), alone.collect::<Vec<_>>());
            assert_eq!(sampler.replay_cursor(), None);
        }
    }

    #[test]
    fn a_resumed_sampler_continues_as_if_it_had_never_stopped() {
        for stop in 0..9 {
            let mut whole = BatchSampler::resume(7, 5, 1, 3, START, None).unwrap();
            (0..stop).for_each(|_| drop(whole.next_batch(4)));
            let mut resumed = BatchSampler::resume(7, 5, 1, 3, whole.cursor(), whole.replay_cursor()).unwrap();
            assert_eq!(resumed.next_batch(4), whole.next_batch(4), "after {stop}");
        }
        assert!(BatchSampler::resume(7, 5, 1, 3, START, Some(Cursor { epoch: 0, position: 5 })).is_err());
    }
}
