//! Perplexity of each set of responses under the base, before anything is trained. Data that the base finds likely changes its other
//! answers least.

use super::samples::DynamicsSample;
use crate::stats::{Interval, mean, nan_if_null};
use serde::{Deserialize, Serialize};

/// Most bins of a histogram.
const MAX_BINS: f64 = 24.0;

/// Perplexity of the responses of one set. A response is one observation, whatever its length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// Of the whole responses.
    #[serde(flatten)]
    pub whole: PartPerplexity,
    /// Of the reasoning: what comes before `<answer>`.
    pub reasoning: PartPerplexity,
    /// Of the answer: from `<answer>` on, with the closing token.
    pub answer: PartPerplexity,
    /// Responses in each bin of nats per token, between the edges that all sets share.
    pub histogram: Vec<usize>,
}

/// Perplexity of one part of responses, over the responses that have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartPerplexity {
    /// Responses that have this part.
    pub responses: usize,
    /// Its tokens.
    pub tokens: usize,
    /// Mean of the nats per token (the logarithm of the perplexity), with Student's t interval, cut at 0.
    pub nats_per_token: Interval,
    /// Median of the perplexities.
    #[serde(deserialize_with = "nan_if_null")]
    pub median: f64,
}

impl Perplexity {
    /// The perplexity of the samples of one set, with a histogram between these edges ([`bin_edges`]).
    pub fn of(samples: &[&DynamicsSample], edges: &[f64]) -> Perplexity {
        let mut histogram = vec![0; edges.len().saturating_sub(1)];
        for x in samples.iter().map(|sample| sample.nats_per_token()) {
            let bin = edges.partition_point(|edge| *edge <= x).saturating_sub(1);
            // The last bin has its upper edge, too.
            let last = histogram.len().saturating_sub(1);
            if let Some(count) = histogram.get_mut(bin.min(last)) {
                *count += 1;
            }
        }
        let part =
            |of: fn(&DynamicsSample) -> (usize, f64)| PartPerplexity::of(samples.iter().map(|sample| of(sample)));
        Perplexity {
            whole: part(|sample| (sample.token_ids.len(), sample.nats)),
            reasoning: part(|sample| (sample.reasoning_tokens, sample.reasoning_nats)),
            answer: part(DynamicsSample::answer),
            histogram,
        }
    }
}

impl PartPerplexity {
    /// Of the tokens and nats of each response; those without tokens are left out.
    pub fn of(parts: impl Iterator<Item = (usize, f64)>) -> PartPerplexity {
        let parts: Vec<(usize, f64)> = parts.filter(|&(tokens, _)| tokens > 0).collect();
        let mut nats: Vec<f64> = parts.iter().map(|&(tokens, nats)| nats / tokens as f64).collect();
        PartPerplexity {
            responses: parts.len(),
            tokens: parts.iter().map(|&(tokens, _)| tokens).sum(),
            nats_per_token: mean(&nats).clip(0.0, f64::INFINITY),
            median: median(&mut nats).exp(),
        }
    }
}

/// The median; NaN of no values. Reorders them.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => f64::NAN,
        _ => 0.5 * (values[(n - 1) / 2] + values[n / 2]),
    }
}

/// Edges of equal bins of nats per token, from 0 on: at most 24 bins, each 1, 2 or 5 times a power of ten wide, that cover all `samples`.
pub fn bin_edges(samples: &[DynamicsSample]) -> Vec<f64> {
    let most = samples.iter().map(DynamicsSample::nats_per_token).fold(0.0, f64::max);
    if most <= 0.0 || !most.is_finite() {
        return vec![0.0, 1.0];
    }
    let rough = most / MAX_BINS;
    let power = 10_f64.powf(rough.log10().floor());
    let width = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|w| *w >= rough).unwrap_or(10.0 * power);
    let bins = (most / width).ceil().max(1.0) as usize;
    (0..=bins).map(|i| i as f64 * width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamics::samples::{ResponseSource, SampleRole};

    fn sample(nats: f64, tokens: usize) -> DynamicsSample {
        DynamicsSample {
            kind: SampleRole::Train,
            set: "a".into(),
            index: 0,
            id: "x".into(),
            origin: ResponseSource::Data,
            token_ids: vec![0; tokens],
            nats,
            reasoning_tokens: 0,
            reasoning_nats: 0.0,
        }
    }

    #[test]
    fn every_response_is_in_one_bin_and_counts_once_however_long() {
        let samples = [sample(0.0, 3), sample(2.0, 4), sample(9.0, 3), sample(100.0, 100), sample(1.0, 1)];
        let edges = bin_edges(&samples);
        assert_eq!((edges[0], edges.len()), (0.0, 16));
        assert!((edges[1] - 0.2).abs() < 1e-12 && (edges[15] - 3.0).abs() < 1e-12, "{edges:?}");
        let found = Perplexity::of(&samples.iter().collect::<Vec<_>>(), &edges);
        assert_eq!(found.histogram.iter().sum::<usize>(), 5);
        assert_eq!((found.histogram[0], found.histogram[2], found.histogram[14]), (1, 1, 1));
        assert_eq!(found.histogram[5], 2, "what lies at an edge belongs above it");
        assert_eq!((found.whole.responses, found.whole.tokens), (5, 111));
        let nats = found.whole.nats_per_token;
        assert!((nats.value - (0.0 + 0.5 + 3.0 + 1.0 + 1.0) / 5.0).abs() < 1e-12);
        assert!(nats.low == 0.0 && nats.high > 2.0, "no distribution has fewer than 0 nats: {nats:?}");
        assert!((found.whole.median - 1_f64.exp()).abs() < 1e-12);
        assert_eq!((&found.answer, found.reasoning.responses), (&found.whole, 0), "no response reasons");
    }

    #[test]
    fn reasoning_and_answer_are_told_apart() {
        let of = |reasoning_tokens, reasoning_nats, nats| DynamicsSample {
            reasoning_tokens,
            reasoning_nats,
            ..sample(nats, 10)
        };
        // Reasoning of 1 and 3 nats per token and answers of 0.5, an answer alone, and reasoning alone.
        let samples = [of(8, 8.0, 9.0), of(8, 24.0, 25.0), of(0, 0.0, 5.0), of(10, 20.0, 20.0)];
        let found = Perplexity::of(&samples.iter().collect::<Vec<_>>(), &[0.0, 4.0]);
        let of = |part: &PartPerplexity| (part.responses, part.tokens, part.nats_per_token.value);
        assert_eq!(of(&found.reasoning), (3, 26, 2.0));
        assert_eq!(of(&found.answer), (3, 14, 0.5));
        assert!((found.whole.nats_per_token.value - 1.475).abs() < 1e-12 && found.histogram == [4], "{found:?}");
    }

    #[test]
    fn nothing_and_certainty_have_a_histogram_too() {
        assert_eq!(bin_edges(&[]), [0.0, 1.0]);
        let sure = sample(0.0, 2);
        let found = Perplexity::of(&[&sure], &bin_edges(std::slice::from_ref(&sure)));
        assert_eq!((found.histogram, found.whole.median), (vec![1], 1.0));
        assert!(Perplexity::of(&[], &[0.0, 1.0]).whole.median.is_nan());
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}
