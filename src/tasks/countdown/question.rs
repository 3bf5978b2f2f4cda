//! The words of the question.

use crate::tasks::response::{Style, ask};

/// Name of the task in records.
pub const NAME: &str = "countdown";

/// Ask for an expression.
pub fn question(numbers: &[u32], target: u32, style: Style) -> String {
    let listed = numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    format!(
        "Use each of the numbers {listed} exactly once, with + - * / and brackets, to make {target}.\n{}",
        ask(style, "the expression")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_states_numbers_target_and_rule() {
        assert_eq!(
            question(&[25, 3, 2], 44, Style::Direct),
            "Use each of the numbers 25, 3, 2 exactly once, with + - * / and brackets, to make 44.\n\
             Answer only <answer>the expression</answer>."
        );
    }
}
