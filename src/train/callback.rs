//! Who hears how a run progresses.

use super::metrics::Metrics;

/// Hears of every event of a training run, as transformers' `TrainerCallback` does; of several ranks that of rank 0 alone.
pub trait TrainerCallback {
    /// The run starts, or resumes, after `step` of `total` steps.
    fn start(&mut self, step: usize, total: usize);
    /// A step is done.
    fn step(&mut self, step: usize, metrics: &Metrics);
    /// An evaluation is done. `partial_credit` says what partial credit counts, where the task has any.
    fn evaluation(&mut self, step: usize, metrics: &Metrics, partial_credit: Option<&'static str>);
    /// A message for the user.
    fn note(&mut self, text: &str);
}

/// Hears nothing: the callback of the ranks above 0.
pub(super) struct Silent;

impl TrainerCallback for Silent {
    fn start(&mut self, _step: usize, _total: usize) {}
    fn step(&mut self, _step: usize, _metrics: &Metrics) {}
    fn evaluation(&mut self, _step: usize, _metrics: &Metrics, _partial_credit: Option<&'static str>) {}
    fn note(&mut self, _text: &str) {}
}
