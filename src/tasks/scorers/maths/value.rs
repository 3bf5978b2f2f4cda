//! What an answer says: numbers and expressions, exactly where that is possible; tuples, sets, relations, text.
//!
//! An expression is known by its values: exactly as a fraction if it has one, and at a few points of its variables in floating point. Two
//! expressions that agree there are taken for equal.

use crate::tasks::rational::Rational;

/// Points at which expressions are compared.
const POINTS: usize = 3;
/// Difference that is forgiven, relative to a number below 1: six decimals.
const ROUNDING: f64 = 1.001e-6;
/// Largest exponent that is computed exactly.
const MAX_EXPONENT: i128 = 200;
/// Most parts of a set that are compared.
const MAX_SET: usize = 64;

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Number {
    exact: Option<Rational>,
    at: [f64; POINTS],
    /// It depends on a variable.
    pub is_variable: bool,
    /// It is a variable and nothing else.
    pub is_name: bool,
    /// It has a percent sign.
    pub is_percent: bool,
}

impl Number {
    /// A fraction.
    pub fn exact(value: Rational) -> Number {
        Number { exact: Some(value), ..Number::real(value.to_f64()) }
    }

    /// A constant without an exact value.
    pub fn real(value: f64) -> Number {
        Number { exact: None, at: [value; POINTS], is_variable: false, is_name: false, is_percent: false }
    }

    /// A variable. Its values follow from its name, all above 0.
    pub fn variable(name: &str) -> Number {
        // FNV-1a, and SplitMix64's last steps to spread it.
        let value = |point: u64| {
            let hash = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
            let h = name.bytes().fold(0xcbf2_9ce4_8422_2325 ^ point, hash);
            let h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            0.3 + 2.0 * ((h ^ (h >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        };
        Number { at: std::array::from_fn(|i| value(i as u64)), is_variable: true, is_name: true, ..Number::real(0.0) }
    }

    /// The whole number, if it is one.
    pub fn whole(&self) -> Option<i128> {
        self.exact?.to_i128()
    }

    /// The result of an operation, given exactly where there is an exact result.
    pub fn combine(
        &self,
        other: &Number,
        exact: fn(Rational, Rational) -> Option<Rational>,
        real: fn(f64, f64) -> f64,
    ) -> Number {
        Number {
            exact: self.exact.zip(other.exact).and_then(|(a, b)| exact(a, b)),
            at: std::array::from_fn(|i| real(self.at[i], other.at[i])),
            is_variable: self.is_variable || other.is_variable,
            is_name: false,
            is_percent: false,
        }
    }

    /// A function of it.
    pub fn map(&self, real: impl Fn(f64) -> f64) -> Number {
        Number { exact: None, at: self.at.map(real), is_name: false, is_percent: false, ..*self }
    }

    /// Its opposite.
    pub fn negative(&self) -> Number {
        let is_percent = self.is_percent;
        Number { is_percent, ..Number::real(0.0).with_exact_zero().combine(self, Rational::sub, |a, b| a - b) }
    }

    fn with_exact_zero(self) -> Number {
        Number { exact: Some(Rational::whole(0)), ..self }
    }

    /// To a power.
    pub fn power(&self, exponent: &Number) -> Number {
        let exact = || {
            let (base, n) = (self.exact?, exponent.whole().filter(|n| n.abs() <= MAX_EXPONENT)?);
            let one = Rational::whole(1);
            let power = (0..n.abs()).try_fold(one, |power, _| power.mul(base))?;
            if n < 0 { one.div(power) } else { Some(power) }
        };
        Number { exact: exact(), ..self.combine(exponent, |_, _| None, f64::powf) }
    }

    /// Whether `said` says the same as this number, which is the right one.
    fn same(&self, said: &Number) -> bool {
        let hundredth = |n: &Number| n.combine(&Number::exact(Rational::whole(100)), Rational::div, |a, b| a / b);
        match (self.is_percent, said.is_percent) {
            (true, false) => self.equals(said) || hundredth(self).equals(said),
            (false, true) => self.equals(said) || self.equals(&hundredth(said)),
            _ => self.equals(said),
        }
    }

    fn equals(&self, said: &Number) -> bool {
        if let (Some(a), Some(b)) = (self.exact, said.exact) {
            let (whole, value) = (a.is_whole() && b.is_whole(), a.to_f64());
            return a == b || !whole && (value - b.to_f64()).abs() <= ROUNDING * value.abs().min(1.0);
        }
        let near =
            |(a, b): (&f64, &f64)| a == b || (a - b).abs() <= ROUNDING * a.abs().min(1.0) + 1e-10 * a.abs() + 1e-12;
        self.at.iter().zip(&said.at).all(near)
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A number or an expression.
    Number(Number),
    /// Parts in order between these brackets: a tuple, an interval; `[` with `]` rows of a matrix.
    Tuple(char, char, Vec<Answer>),
    /// Parts in any order.
    Set(Vec<Answer>),
    /// Two sides of an equation or inequality.
    Relation(Box<Answer>, char, Box<Answer>),
    /// Words, in lower case.
    Text(String),
}

impl Answer {
    /// Whether `said` says the same as this answer, which is the right one.
    pub fn same(&self, said: &Answer) -> bool {
        match (self, said) {
            (Answer::Number(gold), Answer::Number(said)) => gold.same(said),
            (Answer::Text(gold), Answer::Text(said)) => gold == said,
            (Answer::Tuple(open, close, gold), Answer::Tuple(other, end, said)) => {
                (open, close) == (other, end) && all_same(gold, said)
            }
            (Answer::Set(gold), Answer::Set(said)) => gold.len() == said.len() && matched(gold, said),
            (Answer::Relation(a, op, b), Answer::Relation(c, other, d)) => {
                let flipped = flip(*op) == *other;
                op == other && (a.same(c) && b.same(d) || *op == '=' && same_difference([a, b], [c, d]))
                    || flipped && a.same(d) && b.same(c)
            }
            // `x = 5` for 5; `2 + 3 = 5` for 5.
            (gold, Answer::Relation(left, '=' | '\u{2208}', right)) => {
                gold.same(right) || right.is_name() && gold.same(left)
            }
            (Answer::Relation(left, '=' | '\u{2208}', right), said) if left.is_name() => right.same(said),
            _ => false,
        }
    }

    fn is_name(&self) -> bool {
        matches!(self, Answer::Number(Number { is_name: true, .. }) | Answer::Text(_))
    }
}

fn all_same(gold: &[Answer], said: &[Answer]) -> bool {
    gold.len() == said.len() && gold.iter().zip(said).all(|(a, b)| a.same(b))
}

/// Whether each part of one has a part of the other.
fn matched(gold: &[Answer], said: &[Answer]) -> bool {
    let mut left: Vec<&Answer> = said.iter().take(MAX_SET).collect();
    gold.iter().all(|part| left.iter().position(|other| part.same(other)).map(|at| left.swap_remove(at)).is_some())
}

/// Whether two equations say the same but for the side on which a term stands.
fn same_difference(gold: [&Answer; 2], said: [&Answer; 2]) -> bool {
    let difference = |[a, b]: [&Answer; 2]| match (a, b) {
        (Answer::Number(a), Answer::Number(b)) => Some(a.combine(b, Rational::sub, |a, b| a - b)),
        _ => None,
    };
    let (Some(gold), Some(said)) = (difference(gold), difference(said)) else { return false };
    gold.is_variable && (gold.equals(&said) || gold.equals(&said.negative()))
}

/// The relation read from the right.
fn flip(op: char) -> char {
    match op {
        '<' => '>',
        '>' => '<',
        '\u{2264}' => '\u{2265}',
        '\u{2265}' => '\u{2264}',
        other => other,
    }
}
