//! Reading an order of tiles out of an answer block, strictly: numbers in ASCII digits without leading zeros, separated by white space
//! or single commas (`3 1 2`, `3, 1, 2`); it must be a permutation of 1..=tiles.

use super::Permutation;
use crate::tasks::response::ResponseError;
use std::fmt;

/// Why an answer is no order of the tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrderError {
    /// There is no answer to read.
    Response(ResponseError),
    /// Something that is no number in the answer block.
    NotNumbers,
    /// Fewer numbers than tiles.
    TooFew,
    /// More numbers than tiles.
    TooMany,
    /// As many numbers as tiles, but not each tile once.
    NotPermutation,
}

impl From<ResponseError> for OrderError {
    fn from(error: ResponseError) -> Self {
        OrderError::Response(error)
    }
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OrderError::Response(error) => return error.fmt(f),
            OrderError::NotNumbers => "not numbers",
            OrderError::TooFew => "too few numbers",
            OrderError::TooMany => "too many numbers",
            OrderError::NotPermutation => "not a permutation",
        })
    }
}

/// The numbers of an answer block, at most `max` of them; a number too large to be a tile is kept as `u32::MAX`.
/// Stops at the first fault, so that an endless answer costs nothing.
pub fn numbers(block: &str, max: usize) -> Result<Vec<u32>, OrderError> {
    if block.trim_ascii().is_empty() {
        return Err(OrderError::Response(ResponseError::Empty));
    }
    let mut numbers = Vec::with_capacity(max);
    for part in block.split(',') {
        if part.trim_ascii().is_empty() {
            return Err(OrderError::NotNumbers);
        }
        for word in part.split_ascii_whitespace() {
            if !word.bytes().all(|b| b.is_ascii_digit()) || (word.len() > 1 && word.starts_with('0')) {
                return Err(OrderError::NotNumbers);
            }
            if numbers.len() == max {
                return Err(OrderError::TooMany);
            }
            numbers.push(word.parse().unwrap_or(u32::MAX));
        }
    }
    Ok(numbers)
}

/// The tile numbers (from 1) of an answer block as a permutation of `tiles` tiles.
pub fn permutation_answer(block: &str, tiles: usize) -> Result<Permutation, OrderError> {
    let numbers = numbers(block, tiles)?;
    if numbers.len() < tiles {
        return Err(OrderError::TooFew);
    }
    numbers
        .into_iter()
        .map(|n| (n as usize).checked_sub(1))
        .collect::<Option<Vec<usize>>>()
        .and_then(Permutation::new)
        .ok_or(OrderError::NotPermutation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::response::answer_block;

    fn read(response: &str) -> Result<String, OrderError> {
        permutation_answer(answer_block(response)?, 4).map(|p| p.to_string())
    }

    #[test]
    fn an_honest_answer_is_read() {
        for response in [
            "<answer>2 1 4 3</answer>",
            "<answer>\n2\t1  4 3 </answer>",
            "<answer>2, 1,4 , 3</answer>",
            "The order is <answer>2 1 4 3</answer>.",
            "<think>1 2 3 4?</think>\n<answer>2 1 4 3</answer>",
            "<think>is it <answer>1 2 3 4</answer>? no</think><answer>2 1 4 3</answer>",
            "<think>a <think> b</think><answer>2 1 4 3</answer>",
            "a < b <b>bold</b> <answer>2 1 4 3</answer>",
        ] {
            assert_eq!(read(response).as_deref(), Ok("2 1 4 3"), "{response}");
        }
    }

    #[test]
    fn an_answer_that_is_not_one_is_refused_with_its_fault() {
        for (response, fault) in [
            ("", OrderError::Response(ResponseError::NoAnswer)),
            ("2 1 4 3", OrderError::Response(ResponseError::NoAnswer)),
            ("<ANSWER>2 1 4 3</ANSWER>", OrderError::Response(ResponseError::NoAnswer)),
            ("< answer>2 1 4 3</answer >", OrderError::Response(ResponseError::NoAnswer)),
            ("<answer></answer>", OrderError::Response(ResponseError::Empty)),
            ("<answer> \n </answer>", OrderError::Response(ResponseError::Empty)),
            ("<answer>1 1 1 1</answer>", OrderError::NotPermutation),
            ("<answer>0 1 2 3</answer>", OrderError::NotPermutation),
            ("<answer>1 2 3 5</answer>", OrderError::NotPermutation),
            ("<answer>1 2 3 4294967297</answer>", OrderError::NotPermutation),
            ("<answer>1 2 3 99999999999999999999999999999999</answer>", OrderError::NotPermutation),
            ("<answer>2 1 4</answer>", OrderError::TooFew),
            ("<answer>2143</answer>", OrderError::TooFew),
            ("<answer>2 1 4 3 2</answer>", OrderError::TooMany),
            ("<answer>2 1 4 3</answer><answer>2 1 4 3</answer>", OrderError::Response(ResponseError::SeveralAnswers)),
            (
                "<answer>2 1 4 3</answer> or <answer>1 2 3 4</answer>",
                OrderError::Response(ResponseError::SeveralAnswers),
            ),
            ("<think><answer>2 1 4 3</answer></think>", OrderError::Response(ResponseError::NoAnswer)),
            ("<think><answer>2 1 4 3</answer>", OrderError::Response(ResponseError::Unclosed)),
            ("<answer>2 1 4 3", OrderError::Response(ResponseError::Unclosed)),
            ("<answer>2 1 4 3</answer><think>", OrderError::Response(ResponseError::Unclosed)),
            ("<answer><answer>2 1 4 3</answer></answer>", OrderError::Response(ResponseError::StrayTag)),
            ("<answer><think>x</think>2 1 4 3</answer>", OrderError::Response(ResponseError::StrayTag)),
            ("<answer>2 1 4 3</answer></answer>", OrderError::Response(ResponseError::StrayTag)),
            ("2 1 4 3</answer>", OrderError::Response(ResponseError::StrayTag)),
            ("thought</think><answer>2 1 4 3</answer>", OrderError::Response(ResponseError::StrayTag)),
            ("<answer>٢ ١ ٤ ٣</answer>", OrderError::NotNumbers),
            ("<answer>\u{ff12} \u{ff11} \u{ff14} \u{ff13}</answer>", OrderError::NotNumbers),
            ("<answer>2\u{a0}1\u{a0}4\u{a0}3</answer>", OrderError::NotNumbers),
            ("<answer>²  1 4 3</answer>", OrderError::NotNumbers),
            ("<answer>two one four three</answer>", OrderError::NotNumbers),
            ("<answer>+2 1 4 3</answer>", OrderError::NotNumbers),
            ("<answer>-2 1 4 3</answer>", OrderError::NotNumbers),
            ("<answer>2.0 1 4 3</answer>", OrderError::NotNumbers),
            ("<answer>02 1 4 3</answer>", OrderError::NotNumbers),
            ("<answer>2,,1 4 3</answer>", OrderError::NotNumbers),
            ("<answer>2 1 4 3,</answer>", OrderError::NotNumbers),
            ("<answer>[2, 1, 4, 3]</answer>", OrderError::NotNumbers),
            ("<answer>2 1 4 3\0</answer>", OrderError::NotNumbers),
        ] {
            assert_eq!(read(response), Err(fault), "{response}");
        }
    }

    #[test]
    fn ten_thousand_numbers_are_too_many_and_read_no_further_than_needed() {
        let response = format!("<answer>{}</answer>", "1 2 3 4 ".repeat(2500));
        assert_eq!(read(&response), Err(OrderError::TooMany));
        assert_eq!(read(&"<answer>".repeat(100_000)), Err(OrderError::Response(ResponseError::StrayTag)));
        assert_eq!(read(&"<".repeat(1_000_000)), Err(OrderError::Response(ResponseError::NoAnswer)));
        let long = format!("<answer>{}</answer>", "9".repeat(1_000_000));
        assert_eq!(numbers(answer_block(&long).unwrap(), 4), Ok(vec![u32::MAX]));
    }
}
