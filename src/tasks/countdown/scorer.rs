//! Scores an answer to a countdown puzzle by evaluating it.

use super::chance::chance;
use super::expression::{ExpressionError, evaluate};
use super::question::NAME;
use crate::data::Record;
use crate::tasks::chance::Chance;
use crate::tasks::meta::meta;
use crate::tasks::response::{Style, answer_block, check_format};
use crate::tasks::score::Score;
use crate::tasks::scorer::Scorer;
use crate::{Error, Result};

/// Partial credit of a valid expression that misses the target (TinyZero's `format_score`).
const VALID: f64 = 0.1;
const VERSION: u32 = 1;

/// The numbers and the target of one puzzle.
#[derive(Debug, Clone)]
pub struct CountdownScorer {
    /// In order of size.
    numbers: Vec<u32>,
    target: u32,
    style: Style,
}

impl CountdownScorer {
    /// A scorer for these numbers and this target, whose question asked for this style.
    pub fn new(mut numbers: Vec<u32>, target: u32, style: Style) -> Self {
        numbers.sort_unstable();
        CountdownScorer { numbers, target, style }
    }

    /// From a record's `meta.numbers`, `meta.target` and `meta.style`. Its `answer` must be a solution: that the target can be reached is
    /// shown, not assumed.
    ///
    /// # Errors
    /// An input error that names the field that is wrong.
    pub fn from_record(record: &Record) -> Result<Self> {
        let numbers: Vec<u32> = meta(record, "numbers")?;
        if numbers.is_empty() {
            return Err(Error::input("field `meta.numbers` is empty: there is nothing to calculate with"));
        }
        let scorer = CountdownScorer::new(numbers, meta(record, "target")?, meta(record, "style")?);
        let value = evaluate(&record.answer, &scorer.numbers)
            .map_err(|fault| Error::input(format!("field `answer`: `{}`: {fault}", record.answer)))?;
        if value.to_whole() != Some(scorer.target) {
            return Err(Error::input(format!(
                "field `answer`: `{}` does not make the target {}",
                record.answer, scorer.target
            )));
        }
        Ok(scorer)
    }
}

impl Scorer for CountdownScorer {
    fn name(&self) -> &str {
        NAME
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn score(&self, response: &str) -> Score {
        let format = check_format(response, self.style).map_err(|e| e.to_string());
        let value = answer_block(response).map_err(|e| e.to_string()).and_then(|block| {
            evaluate(block, &self.numbers).map_err(|e: ExpressionError| match block.trim().is_empty() {
                true => "empty answer".to_string(),
                false => e.to_string(),
            })
        });
        let correct = value.as_ref().is_ok_and(|value| value.to_whole() == Some(self.target));
        let share = f64::from(u8::from(correct));
        let partial_credit = if correct {
            1.0
        } else if value.is_ok() {
            VALID
        } else {
            0.0
        };
        Score {
            correct,
            value: share,
            lenient: share,
            partial_credit,
            raw_partial_credit: partial_credit,
            parsed: value.is_ok(),
            well_formed: format.is_ok(),
            exact: None,
            fault: value.err().or(format.err()).unwrap_or_default(),
        }
    }

    fn chance(&self) -> Option<Chance> {
        chance(&self.numbers, self.target, VALID)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::reward::RewardSettings;
    use serde_json::json;

    fn score(style: Style, response: &str) -> Score {
        CountdownScorer::new(vec![25, 3, 2], 44, style).score(response)
    }

    #[test]
    fn any_expression_that_makes_the_target_from_the_numbers_is_right() {
        for answer in ["(25 - 3) * 2", "2*(25-3)", " ( (25) - 3 )\n* 2 "] {
            let s = score(Style::Direct, &format!("<answer>{answer}</answer>"));
            assert_eq!((s.correct, s.value, s.partial_credit, s.parsed, s.well_formed), (true, 1.0, 1.0, true, true));
            assert_eq!(s.fault, "");
            assert_eq!(RewardSettings::default().reward(&s).total, 3.0);
        }
    }

    #[test]
    fn a_valid_expression_with_another_value_earns_partial_credit() {
        for answer in ["25 + 3 + 2", "25 / 3 / 2", "3 - 25 * 2"] {
            let s = score(Style::Direct, &format!("<answer>{answer}</answer>"));
            assert_eq!((s.correct, s.value, s.partial_credit, s.parsed, s.fault.as_str()), (false, 0.0, 0.1, true, ""));
        }
    }

    #[test]
    fn tricks_earn_the_format_at_most() {
        let deep = format!("<answer>{}44{}</answer>", "(".repeat(100_000), ")".repeat(100_000));
        let long = format!("<answer>{}</answer>", "25 + ".repeat(100_000));
        for (response, fault, total) in [
            ("", "no answer block", 0.0),
            ("(25 - 3) * 2", "no answer block", 0.0),
            ("44", "no answer block", 0.0),
            ("<answer></answer>", "empty answer", 0.0),
            ("<answer> \n </answer>", "empty answer", 0.0),
            ("<answer>44</answer>", "not each given number once", 1.0),
            ("<answer>44 * (25 - 25) + 44</answer>", "not each given number once", 1.0),
            ("<answer>22 * 2</answer>", "not each given number once", 1.0),
            ("<answer>25 + 19</answer>", "not each given number once", 1.0),
            ("<answer>25 - 3 + 25 - 3</answer>", "not each given number once", 1.0),
            ("<answer>(25 - 3) * 2 + 3 - 3</answer>", "not each given number once", 1.0),
            ("<answer>253 - 2</answer>", "not each given number once", 1.0),
            ("<answer>(25 - 3) * 2 = 44</answer>", "not an expression", 1.0),
            ("<answer>44 = (25 - 3) * 2</answer>", "not an expression", 1.0),
            ("<answer>The answer is (25 - 3) * 2</answer>", "not an expression", 1.0),
            ("<answer>the expression</answer>", "not an expression", 1.0),
            ("<answer>25 3 2 44</answer>", "not an expression", 1.0),
            ("<answer>-3 * 2 + 25</answer>", "not an expression", 1.0),
            ("<answer>25 ** 2 - 3</answer>", "not an expression", 1.0),
            ("<answer>25 // 3 * 2</answer>", "not an expression", 1.0),
            ("<answer>(\u{ff12}\u{ff15} - 3) * 2</answer>", "not an expression", 1.0),
            ("<answer>25 / (2 - 2) + 3</answer>", "not each given number once", 1.0),
            ("<answer>(25 - 3) * 2</answer><answer>(25 - 3) * 2</answer>", "several answer blocks", 0.0),
            ("<answer>25 + 3 + 2</answer> or <answer>(25 - 3) * 2</answer>", "several answer blocks", 0.0),
            ("<answer>(25 - 3) * 2", "unclosed block", 0.0),
            ("<answer><answer>(25 - 3) * 2</answer></answer>", "stray tag", 0.0),
            (&deep, "not each given number once", 1.0),
            (&long, "not each given number once", 1.0),
        ] {
            let s = score(Style::Direct, response);
            let reward = RewardSettings { require_valid: false, ..Default::default() }.reward(&s);
            assert_eq!((s.correct, s.parsed, s.partial_credit), (false, false, 0.0), "{response:.60}");
            assert_eq!((s.fault.as_str(), reward.total), (fault, total), "{response:.60}");
        }
        let zero = CountdownScorer::new(vec![2, 2, 25], 44, Style::Direct).score("<answer>25 / (2 - 2)</answer>");
        assert_eq!((zero.parsed, zero.fault.as_str()), (false, "division by zero"));
    }

    #[test]
    fn the_format_is_apart_from_the_content() {
        let s = score(Style::Think, "<think>25 - 3 = 22, 22 * 2 = 44</think><answer>(25 - 3) * 2</answer>");
        assert_eq!((s.correct, s.well_formed), (true, true));
        let s = score(Style::Think, "<answer>(25 - 3) * 2</answer>");
        assert_eq!((s.correct, s.well_formed, s.fault.as_str()), (true, false, "no think block first"));
        let s = score(Style::Think, "<think><answer>(25 - 3) * 2</answer></think>");
        assert_eq!((s.correct, s.fault.as_str()), (false, "no answer block"));
    }

    #[test]
    fn a_record_that_has_no_solution_is_refused_with_the_field() {
        let record = |numbers: serde_json::Value, target: serde_json::Value, answer: &str| Record {
            file_name: String::new(),
            id: "0".into(),
            task: NAME.into(),
            messages: Vec::new(),
            images: Vec::new(),
            answer: answer.into(),
            source: String::new(),
            seed: 0,
            meta: json!({"numbers": numbers, "target": target, "style": "direct"})
                .as_object()
                .cloned()
                .unwrap_or_default(),
        };
        assert!(CountdownScorer::from_record(&record(json!([2, 3]), json!(6), "2 * 3")).is_ok());
        for (numbers, target, answer, said) in [
            (json!([]), json!(6), "6", "field `meta.numbers` is empty"),
            (json!([2.5]), json!(6), "6", "field `meta.numbers`"),
            (json!([-2, 3]), json!(6), "6", "field `meta.numbers`"),
            (json!([2, 3]), json!(null), "2 * 3", "field `meta.target`"),
            (json!([2, 3]), json!(6), "", "field `answer`"),
            (json!([2, 3]), json!(6), "2 + 3", "does not make the target 6"),
            (json!([2, 3]), json!(6), "6", "not each given number once"),
        ] {
            let error = CountdownScorer::from_record(&record(numbers, target, answer)).map(|_| ()).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(said), "{said}: {error}");
        }
    }
}
