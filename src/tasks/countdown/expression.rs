//! Arithmetic expressions: parsed strictly and evaluated exactly. There is no `eval`, no floating point and no recursion.
//!
//! - An expression is whole numbers joined by `+ - * /`, with round brackets; `*` and `/` bind stronger than `+` and `-`, and all bind
//!   from left to right. White space may stand between numbers and signs.
//! - A number is ASCII digits without leading zeros. There is no sign in front of a number or bracket, no power (`**`), no whole
//!   division (`//`), no `=` and nothing else.

use crate::tasks::rational::Rational;
use std::fmt;

/// `+`, `-`, `*` or `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// Sum.
    Add,
    /// Difference.
    Sub,
    /// Product.
    Mul,
    /// Quotient.
    Div,
}

impl Operator {
    /// All of them.
    pub const ALL: [Operator; 4] = [Operator::Add, Operator::Sub, Operator::Mul, Operator::Div];

    fn of(byte: u8) -> Option<Operator> {
        Operator::ALL.into_iter().find(|operator| operator.sign() == char::from(byte))
    }

    /// How it is written.
    pub fn sign(self) -> char {
        match self {
            Operator::Add => '+',
            Operator::Sub => '-',
            Operator::Mul => '*',
            Operator::Div => '/',
        }
    }

    /// Does it bind stronger than a sum?
    pub fn is_product(self) -> bool {
        matches!(self, Operator::Mul | Operator::Div)
    }

    /// Its result; `None` for a division by zero or a number that does not fit.
    pub fn apply(self, a: Rational, b: Rational) -> Option<Rational> {
        match self {
            Operator::Add => a.add(b),
            Operator::Sub => a.sub(b),
            Operator::Mul => a.mul(b),
            Operator::Div => a.div(b),
        }
    }
}

/// Why an answer is no valid expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpressionError {
    /// Not an expression as the module describes it.
    Syntax,
    /// Not each given number exactly once.
    OtherNumbers,
    /// A division by zero.
    DivisionByZero,
    /// A number on the way does not fit 128 bits.
    TooLarge,
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ExpressionError::Syntax => "not an expression",
            ExpressionError::OtherNumbers => "not each given number once",
            ExpressionError::DivisionByZero => "division by zero",
            ExpressionError::TooLarge => "number too large",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token {
    Number(u32),
    Operator(Operator),
}

/// A parsed expression, in postfix order.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression(Vec<Token>);

impl Expression {
    /// Parse an expression of at most `max` numbers. Reads no further than the first fault, in time linear in the text.
    ///
    /// # Errors
    /// [`ExpressionError::Syntax`]; [`ExpressionError::OtherNumbers`] for more numbers than `max`, and for one beyond 32 bits.
    pub fn parse(text: &str, max: usize) -> Result<Expression, ExpressionError> {
        // Dijkstra's shunting yard; `None` on the stack is an opening bracket.
        let (mut output, mut stack): (Vec<Token>, Vec<Option<Operator>>) = (Vec::new(), Vec::new());
        let (mut numbers, mut wants_operand) = (0, true);
        let mut rest = text.as_bytes();
        while let [byte, after @ ..] = rest {
            rest = after;
            match (*byte, wants_operand) {
                (b' ' | b'\t' | b'\n' | b'\r', _) => {}
                (b'(', true) => stack.push(None),
                (b'0'..=b'9', true) => {
                    let digits = after.iter().take_while(|b| b.is_ascii_digit()).count();
                    if *byte == b'0' && digits > 0 {
                        return Err(ExpressionError::Syntax);
                    }
                    numbers += 1;
                    let mut value = u32::from(byte - b'0');
                    for digit in &after[..digits] {
                        let next = value.checked_mul(10).and_then(|v| v.checked_add(u32::from(digit - b'0')));
                        value = next.ok_or(ExpressionError::OtherNumbers)?;
                    }
                    if numbers > max {
                        return Err(ExpressionError::OtherNumbers);
                    }
                    output.push(Token::Number(value));
                    rest = &after[digits..];
                    wants_operand = false;
                }
                (b')', false) => {
                    while let Some(operator) = stack.pop().ok_or(ExpressionError::Syntax)? {
                        output.push(Token::Operator(operator));
                    }
                }
                (sign, false) => {
                    let operator = Operator::of(sign).ok_or(ExpressionError::Syntax)?;
                    while let Some(Some(earlier)) = stack.last().copied()
                        && (earlier.is_product() || !operator.is_product())
                    {
                        stack.pop();
                        output.push(Token::Operator(earlier));
                    }
                    stack.push(Some(operator));
                    wants_operand = true;
                }
                _ => return Err(ExpressionError::Syntax),
            }
        }
        if wants_operand {
            return Err(ExpressionError::Syntax);
        }
        while let Some(operator) = stack.pop() {
            output.push(Token::Operator(operator.ok_or(ExpressionError::Syntax)?));
        }
        Ok(Expression(output))
    }

    /// Its numbers, in order of size.
    pub fn numbers(&self) -> Vec<u32> {
        let mut numbers: Vec<u32> =
            self.0.iter().filter_map(|t| if let Token::Number(n) = t { Some(*n) } else { None }).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Its value.
    ///
    /// # Errors
    /// [`ExpressionError::DivisionByZero`] or [`ExpressionError::TooLarge`].
    pub fn value(&self) -> Result<Rational, ExpressionError> {
        let mut stack: Vec<Rational> = Vec::new();
        for token in &self.0 {
            let value = match *token {
                Token::Number(n) => Rational::whole(n),
                Token::Operator(operator) => {
                    let (Some(b), Some(a)) = (stack.pop(), stack.pop()) else { return Err(ExpressionError::Syntax) };
                    if operator == Operator::Div && b.is_zero() {
                        return Err(ExpressionError::DivisionByZero);
                    }
                    operator.apply(a, b).ok_or(ExpressionError::TooLarge)?
                }
            };
            stack.push(value);
        }
        stack.pop().ok_or(ExpressionError::Syntax)
    }
}

/// The value of an answer that uses each of `given` exactly once; `given` is in order of size.
///
/// # Errors
/// Why it is no such expression.
pub fn evaluate(answer: &str, given: &[u32]) -> Result<Rational, ExpressionError> {
    let expression = Expression::parse(answer, given.len())?;
    if expression.numbers() != given {
        return Err(ExpressionError::OtherNumbers);
    }
    expression.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<Option<u32>, ExpressionError> {
        Expression::parse(text, 100)?.value().map(Rational::to_whole)
    }

    #[test]
    fn products_bind_stronger_and_everything_binds_from_the_left() {
        for (text, expected) in [
            ("7", 7),
            ("2+3*4", 14),
            ("(2 + 3) * 4", 20),
            ("20 - 3 - 2", 15),
            ("20 - (3 - 2)", 19),
            ("100 / 5 / 2", 10),
            ("100 / (5 / 2)", 40),
            ("2 * 3 + 4 * 5", 26),
            ("8 / (3 - 8 / 3)", 24),
            (" ( ( 4 ) )\n*\t( 5 ) ", 20),
            ("0 * 5 + 9", 9),
        ] {
            assert_eq!(value(text), Ok(Some(expected)), "{text}");
        }
        assert_eq!(value("1 / 3"), Ok(None));
        assert_eq!(value("3 - 5"), Ok(None));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in [
            "",
            " ",
            "()",
            "(",
            ")",
            "3 +",
            "+ 3",
            "-3",
            "3 - -2",
            "3 * (-2)",
            "3 ** 2",
            "3 // 2",
            "3 + 4 = 7",
            "= 7",
            "3 4",
            "3(4)",
            "(3)(4)",
            "(3 + 4",
            "3 + 4)",
            "3 + )4(",
            "3 ^ 2",
            "3 % 2",
            "3 x 4",
            "3 \u{d7} 4",
            "3 \u{2212} 4",
            "\u{ff13} + 4",
            "\u{663} + 4",
            "3.5 + 1",
            "3, 4",
            "03 + 4",
            "00",
            "1e3",
            "0x10",
            "1_000",
            "three + 4",
            "3 + 4;",
            "3 +\u{a0}4",
            "3 + 4\0",
            "[3 + 4]",
            "{3}",
            "3!",
            "the expression",
            "abs(3)",
        ] {
            assert_eq!(value(text), Err(ExpressionError::Syntax), "{text:?}");
        }
    }

    #[test]
    fn division_by_zero_and_numbers_that_do_not_fit_have_their_own_faults() {
        assert_eq!(value("3 / (2 - 2)"), Err(ExpressionError::DivisionByZero));
        assert_eq!(value("0 / 0"), Err(ExpressionError::DivisionByZero));
        assert_eq!(value("4294967296"), Err(ExpressionError::OtherNumbers));
        assert_eq!(value(&format!("1{}", "0".repeat(1_000_000))), Err(ExpressionError::OtherNumbers));
        let huge = ["4294967295"; 5].join(" * ");
        assert_eq!(value(&huge), Err(ExpressionError::TooLarge));
    }

    #[test]
    fn deep_nesting_and_endless_answers_cost_no_stack_and_little_time() {
        let deep = format!("{}7{}", "(".repeat(1_000_000), ")".repeat(1_000_000));
        assert_eq!(value(&deep), Ok(Some(7)));
        assert_eq!(value(&"(".repeat(1_000_000)), Err(ExpressionError::Syntax));
        assert_eq!(Expression::parse(&"1 + ".repeat(1_000_000), 4), Err(ExpressionError::OtherNumbers));
    }

    #[test]
    fn each_given_number_is_used_exactly_once() {
        let given = [2, 3, 3];
        assert_eq!(evaluate("3 * 3 - 2", &given).map(Rational::to_whole), Ok(Some(7)));
        for text in ["3 * 2", "3 * 3 - 2 - 2", "3 + 3 + 3", "32 + 3", "3 * 3 - 4", "7", "3 + 2 * 33"] {
            assert_eq!(evaluate(text, &given), Err(ExpressionError::OtherNumbers), "{text}");
        }
    }
}
