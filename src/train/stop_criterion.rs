//! A criterion on validation that ends a run: `train.stop_when`. Runs that train to the same accuracy can be compared whatever their learning
//! rate or method; runs that train for the same number of steps cannot.

use super::metrics::Metrics;
use crate::{Error, Result};

/// The metrics of an evaluation during training that a criterion may name.
pub(super) const MEASURES: [&str; 8] =
    ["accuracy", "reward", "loss", "partial_credit", "format_failures", "unparsed", "truncated", "response_length"];
/// The measure that is the mean reward of the responses.
pub(super) const REWARD: &str = "reward";
/// The measure that is the mean negative log-likelihood of the reference responses, in nats per token.
pub(super) const LOSS: &str = "loss";

/// `MEASURE >= VALUE` or `MEASURE <= VALUE`.
#[derive(Debug, Clone, PartialEq)]
pub struct StopCriterion {
    measure: &'static str,
    at_least: bool,
    value: f64,
}

impl StopCriterion {
    /// What `train.save_best` goes by where no criterion is given.
    pub const ACCURACY: StopCriterion = StopCriterion { measure: "accuracy", at_least: true, value: 1.0 };

    /// Parse `accuracy >= 0.5`.
    ///
    /// # Errors
    /// An input error that says what is wrong and how it is written.
    pub fn parse(text: &str) -> Result<StopCriterion> {
        let wrong = |why: &str| {
            let measures = MEASURES.join(", ");
            Error::input(format!(
                "train.stop_when = \"{text}\": {why}; write MEASURE >= VALUE or MEASURE <= VALUE, such as accuracy >= 0.5; the measures of an \
                 evaluation are {measures}"
            ))
        };
        let (measure, at_least, value) = match (text.split_once(">="), text.split_once("<=")) {
            (Some((measure, value)), None) => (measure, true, value),
            (None, Some((measure, value))) => (measure, false, value),
            _ => return Err(wrong("one >= or <= is needed")),
        };
        let name = measure.trim();
        let name = name.strip_prefix("eval/").unwrap_or(name);
        let measure = MEASURES.into_iter().find(|known| *known == name);
        let measure = measure.ok_or_else(|| wrong(&format!("there is no measure called {name:?}")))?;
        let value = value.trim().parse::<f64>().ok().filter(|value| value.is_finite());
        let value = value.ok_or_else(|| wrong("the value is no number"))?;
        Ok(StopCriterion { measure, at_least, value })
    }

    /// Name of its measure.
    pub fn measure(&self) -> &'static str {
        self.measure
    }

    /// What an evaluation measured.
    pub fn measured(&self, evaluation: &Metrics) -> Option<f64> {
        evaluation.iter().find(|(name, _)| name.strip_prefix("eval/") == Some(self.measure)).map(|(_, value)| *value)
    }

    /// Whether an evaluation meets it.
    pub fn is_met(&self, evaluation: &Metrics) -> bool {
        let is_met = |found: f64| if self.at_least { found >= self.value } else { found <= self.value };
        self.measured(evaluation).is_some_and(is_met)
    }

    /// Whether a value of its measure is better than another.
    pub fn is_better(&self, value: f64, than: f64) -> bool {
        if self.at_least { value > than } else { value < than }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(accuracy: f64) -> Metrics {
        let mut metrics = Metrics::default();
        metrics.push("eval/accuracy", accuracy);
        metrics.push("eval/accuracy_low", 0.0);
        metrics
    }

    #[test]
    fn a_criterion_is_met_from_its_value_on() {
        let reached = StopCriterion::parse("accuracy >= 0.5").unwrap();
        assert_eq!([0.4, 0.5, 0.6].map(|a| reached.is_met(&evaluation(a))), [false, true, true]);
        let lost = StopCriterion::parse("eval/accuracy<=0.5").unwrap();
        assert_eq!([0.4, 0.5, 0.6, f64::NAN].map(|a| lost.is_met(&evaluation(a))), [true, true, false, false]);
        for measure in [LOSS, REWARD] {
            assert_eq!(StopCriterion::parse(&format!("{measure} <= 0.5")).unwrap().measure(), measure);
        }
        assert!(!reached.is_met(&Metrics::default()));
        assert!(reached.is_better(0.6, 0.5) && !reached.is_better(0.5, 0.5) && lost.is_better(0.4, 0.5));
    }

    #[test]
    fn what_is_no_criterion_is_refused_with_the_reason() {
        for (text, why) in [
            ("accuracy", ">= or <= is needed"),
            ("accuracy > 0.5", ">= or <= is needed"),
            ("acuracy >= 0.5", "no measure called \"acuracy\""),
            ("accuracy >= half", "no number"),
            ("accuracy >= inf", "no number"),
        ] {
            let error = StopCriterion::parse(text).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("accuracy, reward, loss, partial_credit"), "{error}");
        }
    }
}
