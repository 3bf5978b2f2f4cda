//! Who hears how a run progresses.

use super::metrics::Metrics;

/// Hears of every event of a training run, as transformers' `TrainerCallback` does.
pub trait TrainerCallback {
    /// The run starts, or resumes, after `step` of `total` steps.
    fn start(&mut self, step: usize, total: usize);
    /// A step is done.
    fn step(&mut self, step: usize, metrics: &Metrics);
    /// An evaluation is done.
    fn evaluation(&mut self, step: usize, metrics: &Metrics);
    /// A message for the user.
    fn note(&mut self, text: &str);
}
