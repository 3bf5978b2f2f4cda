//! The correct responses of the model itself that on-policy SFT trains on between two samplings. Part of a checkpoint.

use crate::data::{Cursor, ExampleSampler};
use crate::{Result, rng};
use rand::Rng as _;
use serde::{Deserialize, Serialize};

/// The correct responses of the last sampling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleBuffer {
    /// Optimizer steps made when they were sampled.
    pub step: usize,
    /// Position of the next steps in the shuffled responses.
    pub cursor: Cursor,
    /// The responses.
    pub responses: Vec<SampledResponse>,
}

/// A correct response of the model itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampledResponse {
    /// Index of the example in the run's own dataset.
    pub example: usize,
    /// Its tokens, as sampled, with the closing one.
    pub ids: Vec<u32>,
}

impl SampleBuffer {
    /// The next `n` responses. The responses are shuffled again each time all have been used.
    pub fn next_batch(&mut self, n: usize, seed: u64) -> Result<Vec<SampledResponse>> {
        let seed = rng::stream(seed, "pool", &[self.step as u64]).next_u64();
        let mut sampler = ExampleSampler::resume(self.responses.len(), seed, self.cursor)?;
        let batch = sampler.next_batch(n).into_iter().map(|i| self.responses[i].clone()).collect();
        self.cursor = sampler.cursor();
        Ok(batch)
    }
}
