//! The scores of one question, and how `forgetting.json` keeps those of a benchmark: one line of text, `question base tuned responses` for each
//! question, with a comma between questions. Indented JSON would take ten times the space.

use crate::stats::ResampleUnit;
use serde::{Deserialize as _, Deserializer, Serializer, de};

/// The scores of one question, or of all questions about one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuestionScore {
    /// Its number; benchmarks that ask the same question, in another style or about the same image, have the same number for it.
    pub question: usize,
    /// Sum of the base's scores.
    pub base: f64,
    /// Sum of the tuned model's scores.
    pub tuned: f64,
    /// Responses of each.
    pub responses: f64,
}

impl QuestionScore {
    /// The scores in a cluster of paired responses.
    pub(super) fn of(question: usize, unit: &ResampleUnit) -> QuestionScore {
        QuestionScore { question, base: unit.first, tuned: unit.second, responses: unit.count }
    }

    fn parse(text: &str) -> Option<QuestionScore> {
        let mut parts = text.split_whitespace();
        let question = parts.next()?.parse().ok()?;
        let mut number = || parts.next()?.parse::<f64>().ok().filter(|x| x.is_finite());
        let (base, tuned, responses) = (number()?, number()?, number().filter(|n| *n > 0.0)?);
        parts.next().is_none().then_some(QuestionScore { question, base, tuned, responses })
    }
}

/// As text.
pub(super) fn serialize<S: Serializer>(scores: &[QuestionScore], to: S) -> Result<S::Ok, S::Error> {
    let one = |s: &QuestionScore| format!("{} {} {} {}", s.question, s.base, s.tuned, s.responses);
    to.serialize_str(&scores.iter().map(one).collect::<Vec<_>>().join(","))
}

/// From text.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<QuestionScore>, D::Error> {
    let text = String::deserialize(from)?;
    let one = |part: &str| {
        QuestionScore::parse(part).ok_or_else(|| {
            de::Error::custom(format!("{part:?} is no question with two scores and a number of responses"))
        })
    };
    text.split(',').map(one).collect()
}
