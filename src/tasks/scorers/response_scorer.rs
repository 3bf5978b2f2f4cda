//! An answer scorer made a scorer of whole responses.

use super::answer_score::{AnswerScore, AnswerScorer};
use super::answer_scorer;
use super::extract_answer::ExtractedAnswer;
use crate::data::Record;
use crate::io::plain::json_fault;
use crate::tasks::chance::Chance;
use crate::tasks::response::Style;
use crate::tasks::score::Score;
use crate::tasks::scorer::Scorer;
use crate::{Error, Result};

/// An answer scorer, and the form of response that the prompt asked for.
pub struct ResponseScorer {
    scorer: Box<dyn AnswerScorer>,
    style: Option<Style>,
}

impl ResponseScorer {
    /// A scorer of whole responses. `style` is what the prompt asked for; `None` if it did not ask for answer tags.
    pub fn new(scorer: Box<dyn AnswerScorer>, style: Option<Style>) -> Self {
        ResponseScorer { scorer, style }
    }

    /// From a record's `task`, `answer` and `meta`; `meta.style` is optional.
    pub fn from_record(record: &Record) -> Result<Self> {
        Ok(ResponseScorer::new(answer_scorer(record)?, style(&record.meta)?))
    }
}

/// The style that `meta.style` names, if any.
pub(super) fn style(meta: &serde_json::Map<String, serde_json::Value>) -> Result<Option<Style>> {
    let Some(value) = meta.get("style") else { return Ok(None) };
    serde_json::from_value(value.clone()).map_err(|e| Error::input(format!("field `meta.style`: {}", json_fault(&e))))
}

impl Scorer for ResponseScorer {
    fn score(&self, response: &str) -> Score {
        let reading = ExtractedAnswer::of(response, self.style);
        let strict = match &reading.strict {
            Ok(answer) => self.scorer.score_answer(answer),
            Err(fault) => AnswerScore::unread(fault.as_str(), 0.0),
        };
        let lenient = match reading.strict {
            Ok(answer) if answer == reading.lenient => strict.lenient,
            _ => self.scorer.score_answer(reading.lenient).lenient.max(strict.value),
        };
        let well_formed = match self.style {
            Some(_) => reading.form.is_ok(),
            None => reading.form.is_ok() && strict.parsed,
        };
        let fault = if strict.parsed { reading.form.err().unwrap_or_default().to_string() } else { strict.fault };
        Score {
            correct: strict.correct,
            value: strict.value,
            lenient,
            partial_credit: strict.partial_credit,
            raw_partial_credit: strict.partial_credit,
            parsed: strict.parsed,
            well_formed,
            exact: strict.exact,
            fault,
        }
    }

    fn name(&self) -> &str {
        self.scorer.name()
    }

    fn version(&self) -> u32 {
        self.scorer.version()
    }

    fn chance(&self) -> Option<Chance> {
        self.scorer.chance()
    }
}
