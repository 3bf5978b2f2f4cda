//! Which training sample is paired with which sample of prior knowledge.
//!
//! The samples of a set are the first of a permutation that depends only on the seed and the size of the set. Sets with the same examples in
//! the same order, such as the data of several regimes, therefore give the same examples. Pair i takes sample i of the regime and sample i of
//! the prior family, starting over where a set has fewer samples, and never the same pair twice. Every checkpoint has the same pairs.

use super::influence::Influence;
use crate::rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// One pair under one checkpoint: a line of `pairs.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Number of the checkpoint among those measured, from 0.
    pub checkpoint: usize,
    /// Its name.
    pub model: String,
    /// The regime that u is from.
    pub regime: String,
    /// The prior family that v is from.
    pub prior: String,
    /// Number of the pair among those of this regime and family.
    pub pair: usize,
    /// Id of the training sample.
    pub u: String,
    /// Id of the prior sample.
    pub v: String,
    /// -log pi(u) of the whole response under the base, in nats.
    pub u_base_nats: f64,
    /// The measurement.
    #[serde(flatten)]
    pub influence: Influence,
}

impl Pair {
    /// The logarithm of u's perplexity under the base, in nats per token.
    pub fn u_perplexity(&self) -> f64 {
        self.u_base_nats / self.influence.u_tokens as f64
    }
}

/// `count` different indices below `len` in random order, or all of them if there are fewer.
pub fn choose(len: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    order.shuffle(&mut rng::stream(seed, "dynamics samples", &[len as u64]));
    order.truncate(count);
    order
}

/// The indices of u and v in pair `i` of `us` and `vs` samples; `None` once all different pairs are used.
pub fn pair(i: usize, us: usize, vs: usize) -> Option<(usize, usize)> {
    if us == 0 || vs == 0 || i / us >= vs {
        return None;
    }
    // After a whole round both are at their first sample again. From then on v is one further.
    let round = us / common_divisor(us, vs) * vs;
    Some((i % us, (i % vs + i / round) % vs))
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_pair_comes_once_before_there_are_none_left() {
        for (us, vs) in [(1, 1), (4, 6), (5, 5), (3, 7), (8, 2), (1, 9)] {
            let pairs: Vec<_> = (0..).map_while(|i| pair(i, us, vs)).collect();
            assert_eq!(pairs.len(), us * vs, "{us} {vs}");
            assert_eq!(pairs.iter().collect::<HashSet<_>>().len(), us * vs, "{us} {vs}: {pairs:?}");
            assert!(pairs.iter().enumerate().all(|(i, &(u, v))| u == i % us && v < vs));
        }
        assert_eq!(pair(0, 0, 3), None);
        assert_eq!(pair(0, 3, 0), None);
    }

    #[test]
    fn the_choice_depends_on_seed_and_size_alone() {
        assert_eq!(choose(100, 10, 1), choose(100, 10, 1));
        assert_ne!(choose(100, 10, 1), choose(100, 10, 2));
        assert_eq!(choose(100, 10, 1), choose(100, 40, 1)[..10], "more pairs keep the first ones");
        let mut all = choose(7, 30, 3);
        all.sort_unstable();
        assert_eq!(all, (0..7).collect::<Vec<_>>());
    }
}
