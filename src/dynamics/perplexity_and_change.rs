//! Does training data that the base finds unlikely disturb prior knowledge more? The change of v against the perplexity of u, a point for each pair.
//!
//! Pairs that share u are not independent, nor are those that share v: the slope has an interval that is robust to each.

use super::pairing::Pair;
use crate::stats::LinearFit;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Lines through the pairs of one regime, or of all. x is the logarithm of the perplexity of u under the base, in nats per token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerplexityAndChange {
    /// The regime; `None` for all.
    pub regime: Option<String>,
    /// y is the change of l(v) by SGD on u, in nats per unit of eta.
    pub sgd: PerplexityFit,
    /// y is the change of l(v) by the step of Adam on u, in nats.
    pub adam: PerplexityFit,
    /// y is KL(pi(v) || pi'(v)) per token of v after the step of Adam on u, in nats.
    pub adam_kl: PerplexityFit,
}

/// One least-squares line, with intervals that are robust to pairs that share u, and to those that share v.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerplexityFit {
    /// Clusters of pairs with the same u.
    pub by_u: LinearFit,
    /// Clusters of pairs with the same v.
    pub by_v: LinearFit,
}

/// The lines of all regimes, and of each if there are several.
pub fn perplexity_and_change(pairs: &[&Pair], regimes: &[&str]) -> Vec<PerplexityAndChange> {
    let each = regimes.iter().map(|regime| Some(*regime));
    let wanted: Vec<Option<&str>> = match regimes {
        [_] => each.collect(),
        _ => std::iter::once(None).chain(each).collect(),
    };
    let of = |regime: Option<&str>| {
        let own: Vec<&Pair> =
            pairs.iter().copied().filter(|pair| regime.is_none_or(|regime| pair.regime == regime)).collect();
        // Regimes may answer the same prompt, so that an id is one cluster whatever the regime.
        let by_u = numbered(own.iter().map(|pair| pair.u.as_str()));
        let by_v = numbered(own.iter().map(|pair| (pair.prior.as_str(), pair.v.as_str())));
        let fit = |y: fn(&Pair) -> f64| {
            let points: Vec<(f64, f64)> = own.iter().map(|pair| (pair.u_perplexity(), y(pair))).collect();
            PerplexityFit { by_u: LinearFit::through(&points, &by_u), by_v: LinearFit::through(&points, &by_v) }
        };
        PerplexityAndChange {
            regime: regime.map(String::from),
            sgd: fit(|pair| pair.influence.inner_product),
            adam: fit(|pair| pair.influence.adam_change),
            adam_kl: fit(|pair| pair.influence.adam_kl),
        }
    };
    wanted.into_iter().map(of).collect()
}

/// The number of each key, from 0 in the order of their first appearance.
fn numbered<K: std::hash::Hash + Eq>(keys: impl Iterator<Item = K>) -> Vec<usize> {
    let mut numbers = HashMap::new();
    let number = |key| {
        let next = numbers.len();
        *numbers.entry(key).or_insert(next)
    };
    keys.map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamics::fixtures::{influence, pair};

    /// The base finds u so likely, and v changes by `change`.
    fn point(regime: &str, (u, v): (usize, usize), nats: f64, change: f64) -> Pair {
        let mut made = pair(0, (regime, "p"), (v, u), influence(1.0, change));
        made.u_base_nats = nats * made.influence.u_tokens as f64;
        made.influence.adam_change = 0.5 * change;
        made
    }

    #[test]
    fn the_slope_is_that_of_the_pairs_and_its_clusters_are_what_they_share() {
        // Two regimes that answer the same prompts: v changes by -2 for each nat per token of u, and a little by v.
        let mut pairs = Vec::new();
        for (regime, more) in [("near", 0.0), ("far", 3.0)] {
            for i in 0..12 {
                let (u, v) = (i % 6, i % 4);
                let nats = more + 0.1 * u as f64;
                pairs.push(point(regime, (u, v), nats, -2.0 * nats + 0.01 * (v as f64 - 1.5)));
            }
        }
        let pairs: Vec<&Pair> = pairs.iter().collect();
        let found = perplexity_and_change(&pairs, &["near", "far"]);
        assert_eq!(found.iter().map(|f| f.regime.as_deref()).collect::<Vec<_>>(), [None, Some("near"), Some("far")]);
        let all = &found[0].sgd;
        assert_eq!((all.by_u.n, all.by_u.clusters, all.by_v.clusters, found[1].sgd.by_u.n), (24, 6, 4, 12));
        assert_eq!(all.by_u.slope.value, all.by_v.slope.value);
        assert!((all.by_u.slope.value + 2.0).abs() < 0.01 && all.by_u.slope.high < -1.9, "{all:?}");
        assert!((found[0].adam.by_u.slope.value + 1.0).abs() < 0.01 && all.by_u.spearman < -0.95, "{all:?}");
        assert_eq!(perplexity_and_change(&pairs, &["near"]).len(), 1, "one regime is all of them");
        assert!(perplexity_and_change(&[], &["near"])[0].adam_kl.by_u.slope.value.is_nan());
    }
}
