//! A batch cut into shards: which of them go through the model at once.
//!
//! Only the activations of the shards being worked on exist, and for a small model they stay near the processor. The cut
//! depends on the batch and on the model alone, never on the number of threads, and so do the sums of gradients.

use super::language_model::GroupSize;
use super::sequence::Sequence;
use std::ops::Range;
use std::sync::Arc;

/// Rows (tokens and image patches) that a shard has at least, if the batch has them: of a small model, whose shards run side by
/// side, and of a large one, where fewer rows keep fewer activations.
const MIN_ROWS: (usize, usize) = (2048, 384);

/// A small batch of a small model is cut into up to four shards of at least so many rows, so that threads have work.
const MIN_SMALL_ROWS: usize = 512;

/// Most shards at once with gradients of their own.
const MAX_THREADS: usize = 8;

/// Bytes that the gradients of all of these may take together.
const MAX_THREAD_GRADIENTS: usize = 64 << 20;

/// The largest parameters, in bytes, of a model whose shards go through in pairs: of a larger one, the activations of a
/// second shard are too many.
const MAX_PAIR_PARAMETERS: usize = 1 << 30;

/// Which shards of a batch go through the model at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardSchedule {
    /// At once, one thread each, each with gradients of its own.
    PerThread(usize),
    /// At once, each with an equal share of the threads and with gradients of its own.
    Separate(usize),
    /// Two at once, each with half of the threads, both adding to the same gradients.
    Pairs,
    /// One after the other.
    Sequential,
}

/// What decides how a batch is cut, and which shards go through at once.
#[derive(Debug, Clone, Copy)]
pub struct Sharding {
    /// Bytes of the trainable parameters.
    pub bytes: usize,
    /// `train.gradient_buffers`: at least so many shards at once, each with gradients of its own.
    pub gradient_buffers: usize,
}

impl Sharding {
    /// How so many shards go through.
    pub fn schedule(self, shards: usize) -> ShardSchedule {
        let most = MAX_THREADS.min(MAX_THREAD_GRADIENTS / self.bytes.max(1));
        match (shards, most) {
            (0 | 1, _) => ShardSchedule::Sequential,
            (_, 2..) => ShardSchedule::PerThread(shards.min(most.max(self.gradient_buffers))),
            _ if self.gradient_buffers > 1 => ShardSchedule::Separate(shards.min(self.gradient_buffers)),
            _ if self.bytes <= MAX_PAIR_PARAMETERS => ShardSchedule::Pairs,
            _ => ShardSchedule::Sequential,
        }
    }

    /// Consecutive runs of sequences of about equal work. Sequences that share a prompt stay together.
    pub fn shards(self, batch: &[Sequence]) -> Vec<Range<usize>> {
        self.cut(&group_ends(batch))
    }

    /// As [`shards`](Self::shards), of the sizes of a batch: runs of groups.
    pub fn shards_of_sizes(self, batch: &[GroupSize]) -> Vec<Range<usize>> {
        let mut rows = 0;
        let ends = batch.iter().enumerate().map(|(i, group)| {
            rows += group.prompt.tokens + group.prompt.patches + group.predicted();
            (i + 1, rows)
        });
        self.cut(&ends.collect::<Vec<_>>())
    }

    fn cut(self, ends: &[(usize, usize)]) -> Vec<Range<usize>> {
        let rows = ends.last().map_or(0, |&(_, rows)| rows);
        // As many as share evenly between so many.
        let shared = |shards: usize, between: usize| match shards {
            0 | 1 => 1,
            several => several.next_multiple_of(between),
        };
        let count = match self.schedule(2) {
            // Between 2, 4 or 8 threads.
            ShardSchedule::PerThread(_) => match (rows / MIN_ROWS.0).max((rows / MIN_SMALL_ROWS).clamp(1, 4)) {
                few @ ..=MAX_THREADS => few.next_power_of_two(),
                many => many.next_multiple_of(MAX_THREADS),
            },
            ShardSchedule::Separate(_) => shared(rows / MIN_ROWS.1, self.gradient_buffers),
            ShardSchedule::Pairs => shared(rows / MIN_ROWS.1, 2),
            ShardSchedule::Sequential => (rows / (2 * MIN_ROWS.1)).max(1),
        };
        cut_ends(ends, count)
    }
}

/// The end of each run of sequences that share a prompt, and the rows up to there.
fn group_ends(batch: &[Sequence]) -> Vec<(usize, usize)> {
    let (mut end, mut rows) = (0, 0);
    let groups = batch.chunk_by(|a, b| Arc::ptr_eq(&a.prompt, &b.prompt));
    groups
        .map(|group| {
            let prompt = &group[0].prompt;
            let patches: usize = prompt.images.iter().map(|image| image.grid.iter().product::<usize>()).sum();
            rows += prompt.ids.len() + patches + group.iter().map(|s| s.response.len()).sum::<usize>();
            end += group.len();
            (end, rows)
        })
        .collect()
}

/// At most `count` consecutive runs of sequences of about equal work; none is empty. Sequences that share a prompt stay together.
pub fn cut(batch: &[Sequence], count: usize) -> Vec<Range<usize>> {
    cut_ends(&group_ends(batch), count)
}

fn cut_ends(ends: &[(usize, usize)], count: usize) -> Vec<Range<usize>> {
    let rows = ends.last().map_or(0, |&(_, rows)| rows);
    let mut shards = Vec::with_capacity(count.min(ends.len()));
    let (mut start, mut left) = (0, ends);
    for shard in 1..=count {
        // The last group to end before, or nearest to, the shard's share of the rows.
        let share = (rows as u128 * shard as u128 / count as u128) as usize;
        let (mut taken, mut distance) = (0, usize::MAX);
        for (i, &(_, group_rows)) in left.iter().enumerate() {
            if group_rows.abs_diff(share) >= distance {
                break;
            }
            (taken, distance) = (i + 1, group_rows.abs_diff(share));
        }
        if shard == count {
            taken = left.len();
        }
        let Some(&(end, _)) = left[..taken].last() else { break };
        shards.push(start..end);
        (start, left) = (end, &left[taken..]);
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Prompt, PromptSize};

    fn by_size(bytes: usize) -> Sharding {
        Sharding { bytes, gradient_buffers: 1 }
    }

    /// Of a large model.
    fn separate(gradient_buffers: usize) -> Sharding {
        Sharding { bytes: 200 << 20, gradient_buffers }
    }

    fn batch(prompts: &[(usize, usize)]) -> Vec<Sequence> {
        let group = |&(tokens, responses): &(usize, usize)| {
            let prompt = Arc::new(Prompt { ids: vec![0; tokens], images: Vec::new() });
            vec![Sequence { prompt, response: vec![0; 8] }; responses]
        };
        prompts.iter().flat_map(group).collect()
    }

    #[test]
    fn shards_cover_the_batch_in_order_and_never_split_a_prompt() {
        for prompts in
            [vec![(100, 1); 3], vec![(100, 1); 90], vec![(700, 8); 16], vec![(9000, 1), (10, 4), (3000, 2)], vec![]]
        {
            let batch = batch(&prompts);
            let shards = by_size(0).shards(&batch);
            let mut at = 0;
            for shard in &shards {
                assert!(shard.start == at && (shard.end > at || batch.is_empty()), "{shards:?}");
                at = shard.end;
                assert!(at == batch.len() || !Arc::ptr_eq(&batch[at - 1].prompt, &batch[at].prompt), "{shards:?}");
            }
            assert_eq!(at, batch.len());
        }
    }

    #[test]
    fn sizes_are_cut_as_their_sequences_are() {
        for prompts in [vec![(100, 1); 90], vec![(700, 8); 16], vec![(9000, 1), (10, 4), (3000, 2)], vec![]] {
            let size = |&(tokens, responses): &(usize, usize)| GroupSize {
                prompt: PromptSize { tokens, ..PromptSize::default() },
                responses,
                response_tokens: 8,
            };
            let sizes: Vec<GroupSize> = prompts.iter().map(size).collect();
            let in_sequences = |groups: Range<usize>| -> usize { prompts[groups].iter().map(|(_, n)| n).sum() };
            for sharding in [0, 200 << 20, 2 << 30].map(by_size).into_iter().chain([separate(4)]) {
                let lengths: Vec<usize> = sharding.shards(&batch(&prompts)).iter().map(Range::len).collect();
                let planned: Vec<usize> = sharding.shards_of_sizes(&sizes).into_iter().map(in_sequences).collect();
                assert_eq!(lengths, planned);
            }
        }
    }

    #[test]
    fn equal_examples_make_equal_shards() {
        let batch = batch(&[(120, 1); 64]);
        let lengths: Vec<usize> = by_size(0).shards(&batch).iter().map(Range::len).collect();
        assert_eq!(lengths, [16; 4]);
        // Never three for two threads.
        let lengths: Vec<usize> = by_size(0).shards(&batch[..52]).iter().map(Range::len).collect();
        assert_eq!(lengths, [13; 4]);
    }

    #[test]
    fn a_larger_model_has_pairs_and_a_very_large_one_one_shard_at_a_time() {
        let batch = batch(&[(400, 1); 4]);
        let cut = |bytes| by_size(bytes).shards(&batch).len();
        assert_eq!((cut(1 << 20), cut(200 << 20), cut(2 << 30)), (4, 4, 2));
        let how = |shards, bytes: usize| by_size(bytes).schedule(shards);
        assert_eq!((how(9, 7 << 20), how(3, 7 << 20)), (ShardSchedule::PerThread(8), ShardSchedule::PerThread(3)));
        assert_eq!((how(9, 200 << 20), how(9, 2 << 30)), (ShardSchedule::Pairs, ShardSchedule::Sequential));
        assert_eq!(how(1, 0), ShardSchedule::Sequential);
    }

    #[test]
    fn gradient_buffers_part_a_large_model_and_leave_a_small_one_as_it_is() {
        let lengths = |sharding: Sharding, prompts: usize| -> Vec<usize> {
            sharding.shards(&batch(&vec![(400, 1); prompts])).iter().map(Range::len).collect()
        };
        // Four shares of equal length, whatever fits in.
        assert_eq!((lengths(separate(4), 16), lengths(separate(4), 3)), (vec![1; 16], vec![1; 3]));
        assert_eq!(lengths(separate(4), 6), [1, 1, 1, 1, 1, 1]);
        assert_eq!(
            (separate(4).schedule(16), separate(4).schedule(3)),
            (ShardSchedule::Separate(4), ShardSchedule::Separate(3))
        );
        let small = Sharding { bytes: 1 << 20, ..separate(4) };
        assert_eq!(lengths(small, 16), lengths(by_size(1 << 20), 16));
        assert_eq!(small.schedule(16), ShardSchedule::PerThread(8));
    }
}
