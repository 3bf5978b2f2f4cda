//! The numbers of a final model that a study compares.

use crate::forgetting::{GroupMean, TunedResult};
use crate::stats::{Interval, Stratum};

/// A number that each final model has, of which means over seeds are taken.
pub struct Measure {
    /// The number with its interval over test examples.
    pub value: fn(&TunedResult) -> Option<Interval>,
    /// What each question contributes to it, if that is known.
    pub questions: fn(&TunedResult) -> Option<Vec<Stratum>>,
    /// What is possible.
    pub bounds: (f64, f64),
}

/// Accuracy on the new task.
pub const ACCURACY: Measure =
    Measure { value: accuracy, questions: |tuned| tuned.new_task.as_ref()?.score_by_question(), bounds: (0.0, 1.0) };
/// See [`format_loss`].
pub const FORMAT_LOSS: Measure = Measure { value: format_loss, questions: |_| None, bounds: (-1.0, 1.0) };
/// KL(base || tuned) on the new task's prompts, nats per token.
pub const KL_NEW: Measure =
    Measure { value: TunedResult::new_task_kl, questions: |_| None, bounds: (0.0, f64::INFINITY) };
/// The same on the prompts of prior knowledge: the mean over benchmarks.
pub const KL_PRIOR: Measure =
    Measure { value: TunedResult::prior_kl, questions: |_| None, bounds: (0.0, f64::INFINITY) };

/// Accuracy on the new task.
pub fn accuracy(tuned: &TunedResult) -> Option<Interval> {
    Some(tuned.new_task.as_ref()?.all.tuned.value)
}

/// Prior knowledge: the mean over all benchmarks.
pub fn prior(tuned: &TunedResult) -> Option<&GroupMean> {
    tuned.all.as_ref()
}

/// A family of benchmarks.
pub fn family<'t>(tuned: &'t TunedResult, name: &str) -> Option<&'t GroupMean> {
    tuned.families.iter().find(|family| family.name == name)
}

/// Loss by the score minus loss by the lenient score: the part of the loss that is only a change of format, net.
pub fn format_loss(tuned: &TunedResult) -> Option<Interval> {
    let all = tuned.all.as_ref()?;
    let value = all.lenient_change.value - all.change.value;
    value.is_finite().then_some(Interval { value, low: f64::NAN, high: f64::NAN })
}
