//! Tokens of a formula -> an [`Answer`], by recursive descent; values are computed on the way.

use super::tokens::{MAX_BYTES, Token, tokens};
use super::value::{Answer, Number};
use crate::tasks::rational::Rational;

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 40;
/// Largest number whose factorial is computed.
const MAX_FACTORIAL: i128 = 33;

/// The answer that a text gives as a formula; `None` if it is no formula.
pub fn formula(text: &str) -> Option<Answer> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0 };
    let mut parts = parser.list()?;
    if parser.at < tokens.len() || parts.is_empty() {
        return None;
    }
    Some(if parts.len() == 1 { parts.remove(0) } else { Answer::Set(parts) })
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    fn peek_sign(&self) -> Option<char> {
        match self.peek() {
            Some(Token::Sign(sign)) => Some(*sign),
            _ => None,
        }
    }

    fn accept(&mut self, sign: char) -> bool {
        let found = self.peek_sign() == Some(sign);
        self.at += usize::from(found);
        found
    }

    /// Parts with commas, semicolons or the sign of a union between them.
    fn list(&mut self) -> Option<Vec<Answer>> {
        let mut parts = vec![self.relation()?];
        while self.accept(',') || self.accept(';') || self.accept('\u{222a}') {
            // `1, 2, and 3`
            self.accept(',');
            parts.push(self.relation()?);
        }
        // What has a plus-minus sign is two.
        let mut flat = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Answer::Set(two) if flat.is_empty() && self.peek().is_none() => flat.extend(two),
                other => flat.push(other),
            }
        }
        Some(flat)
    }

    /// Read something one level deeper.
    fn deeper(&mut self, read: impl FnOnce(&mut Self) -> Option<Answer>) -> Option<Answer> {
        self.depth += 1;
        let answer = if self.depth <= MAX_DEPTH { read(self) } else { None };
        self.depth -= 1;
        answer
    }

    fn relation(&mut self) -> Option<Answer> {
        let left = self.sum()?;
        match self.peek_sign() {
            Some(op @ ('=' | '<' | '>' | '\u{2264}' | '\u{2265}' | '\u{2260}' | '\u{2208}')) => {
                self.at += 1;
                let right = self.deeper(Self::relation)?;
                Some(match (op, right) {
                    // `a = b = c` says c.
                    ('=', Answer::Relation(_, '=', last)) => Answer::Relation(Box::new(left), '=', last),
                    // `x = \pm 2`
                    ('=', Answer::Set(two)) => Answer::Set(two),
                    (_, right) => Answer::Relation(Box::new(left), op, Box::new(right)),
                })
            }
            _ => Some(left),
        }
    }

    fn sum(&mut self) -> Option<Answer> {
        let (mut sign, mut two) = (1, false);
        while let Some(c @ ('+' | '-' | '\u{b1}')) = self.peek_sign() {
            sign *= if c == '-' { -1 } else { 1 };
            two |= c == '\u{b1}';
            self.at += 1;
        }
        let signed = |n: Number, sign: i32| if sign < 0 { n.negative() } else { n };
        let first = match self.term()? {
            Answer::Number(first) => first,
            other if sign == 1 && !two => return Some(other),
            _ => return None,
        };
        let mut all = vec![signed(first.clone(), sign)];
        if two {
            all.push(signed(first, -sign));
        }
        while let Some(c @ ('+' | '-' | '\u{b1}')) = self.peek_sign() {
            self.at += 1;
            let negative = self.accept('-');
            let Answer::Number(term) = self.term()? else { return None };
            let term = if negative { term.negative() } else { term };
            let add = |n: &Number| n.combine(&term, Rational::add, |a, b| a + b);
            let subtract = |n: &Number| n.combine(&term, Rational::sub, |a, b| a - b);
            all = match c {
                '+' => all.iter().map(add).collect(),
                '-' => all.iter().map(subtract).collect(),
                _ if all.len() == 1 => vec![add(&all[0]), subtract(&all[0])],
                _ => return None,
            };
        }
        let mut all: Vec<Answer> = all.into_iter().map(Answer::Number).collect();
        Some(if all.len() == 1 { all.remove(0) } else { Answer::Set(all) })
    }

    fn term(&mut self) -> Option<Answer> {
        let mut product = match self.power()? {
            Answer::Number(number) => number,
            other => return Some(other),
        };
        self.mixed(&mut product)?;
        loop {
            match self.peek() {
                Some(Token::Sign(sign @ ('*' | '/'))) => {
                    self.at += 1;
                    let negative = self.accept('-');
                    let Answer::Number(factor) = self.power()? else { return None };
                    let factor = if negative { factor.negative() } else { factor };
                    product = match sign {
                        '*' => product.combine(&factor, Rational::mul, |a, b| a * b),
                        _ => product.combine(&factor, Rational::div, |a, b| a / b),
                    };
                }
                Some(Token::Words(_)) if !product.is_variable => self.unit(),
                Some(next @ (Token::Name(_) | Token::Sign('(' | '{') | Token::Number(_))) => {
                    // `2!3!`, but not `2 3`
                    let before = self.tokens.get(self.at.wrapping_sub(1));
                    if matches!((next, before), (Token::Number(_), Some(Token::Number(_) | Token::Words(_)))) {
                        return Some(Answer::Number(product));
                    }
                    let Answer::Number(factor) = self.power()? else { return None };
                    product = product.combine(&factor, Rational::mul, |a, b| a * b);
                }
                _ => return Some(Answer::Number(product)),
            }
        }
    }

    /// A whole number with a fraction behind it is their sum: `1\frac{1}{2}`, `1 1/2`.
    fn mixed(&mut self, number: &mut Number) -> Option<()> {
        if number.whole().is_none() || !matches!(self.tokens.get(self.at.wrapping_sub(1)), Some(Token::Number(_))) {
            return Some(());
        }
        let rest = &self.tokens[self.at..];
        let part = match rest {
            [Token::Name(name), ..] if name == "frac" => match self.power()? {
                Answer::Number(part) => part,
                _ => return None,
            },
            [Token::Number(a), Token::Sign('/'), Token::Number(b), ..]
                if a.whole().is_some() && b.whole().is_some() =>
            {
                self.at += 3;
                a.combine(b, Rational::div, |a, b| a / b)
            }
            _ => return Some(()),
        };
        *number = match part.is_variable {
            true => number.combine(&part, Rational::mul, |a, b| a * b),
            false => number.combine(&part, Rational::add, |a, b| a + b),
        };
        Some(())
    }

    /// Words after a number, with a power or over another unit: `cm^2`, `km/h`.
    fn unit(&mut self) {
        self.at += 1;
        if self.accept('^') {
            let _ = self.argument();
        }
        if let [Token::Sign('/'), Token::Words(_) | Token::Name(_), ..] = &self.tokens[self.at..] {
            self.at += 1;
            self.unit();
        }
    }

    /// A base with its powers, factorials and percent signs.
    fn power(&mut self) -> Option<Answer> {
        let mut base = match self.base()? {
            Answer::Number(number) => number,
            other => return Some(other),
        };
        loop {
            match self.peek_sign() {
                Some('^') => {
                    self.at += 1;
                    base = base.power(&self.argument()?);
                }
                // The base of a numeral.
                Some('_') => {
                    self.at += 1;
                    self.argument()?;
                }
                Some('!') => {
                    self.at += 1;
                    let n = base.whole().filter(|n| (0..=MAX_FACTORIAL).contains(n))?;
                    base = Number::exact(Rational::new((1..=n).product(), 1)?);
                }
                Some('%') => {
                    self.at += 1;
                    base.is_percent = true;
                }
                _ => return Some(Answer::Number(base)),
            }
        }
    }

    fn base(&mut self) -> Option<Answer> {
        self.deeper(Self::base_here)
    }

    fn base_here(&mut self) -> Option<Answer> {
        let token = self.peek()?;
        self.at += 1;
        match token {
            Token::Number(number) => Some(Answer::Number(number.clone())),
            Token::Name(name) => self.name(name).map(Answer::Number),
            Token::Words(words) => Some(Answer::Text(words.to_lowercase())),
            Token::Sign(open @ ('(' | '[')) => {
                let mut parts = self.list()?;
                let close = self.peek_sign().filter(|close| matches!(close, ')' | ']'))?;
                self.at += 1;
                Some(match parts.len() {
                    1 => parts.remove(0),
                    _ => Answer::Tuple(*open, close, parts),
                })
            }
            Token::Sign('{') => {
                let mut parts = self.list()?;
                self.accept('}').then_some(())?;
                Some(if parts.len() == 1 { parts.remove(0) } else { Answer::Set(parts) })
            }
            Token::Sign('\u{27e8}') => {
                let mut parts = self.list()?;
                self.accept('\u{27e9}').then_some(())?;
                Some(if parts.len() == 1 { parts.remove(0) } else { Answer::Set(parts) })
            }
            Token::Sign('|') => {
                let Answer::Number(inside) = self.sum()? else { return None };
                self.accept('|').then(|| Answer::Number(magnitude(&inside)))
            }
            Token::Sign('\u{27e6}') => self.matrix(),
            Token::Sign(_) => None,
        }
    }

    fn matrix(&mut self) -> Option<Answer> {
        let (mut rows, mut row) = (Vec::new(), Vec::new());
        loop {
            row.push(self.sum()?);
            if self.accept('&') {
                continue;
            }
            rows.push(Answer::Tuple('[', ']', std::mem::take(&mut row)));
            let more = self.accept('\u{23ce}');
            if self.accept('\u{27e7}') {
                return Some(Answer::Tuple('[', ']', rows));
            }
            more.then_some(())?;
        }
    }

    /// What a command or function is applied to: braces, or one base.
    fn argument(&mut self) -> Option<Number> {
        let negative = self.accept('-');
        match self.base()? {
            Answer::Number(number) => Some(if negative { number.negative() } else { number }),
            _ => None,
        }
    }

    /// The two arguments of a fraction. `\frac12` is one half.
    fn pair(&mut self) -> Option<[Number; 2]> {
        if let Some(Token::Number(digits)) = self.peek()
            && let Some(both @ 10..=99) = digits.whole()
        {
            self.at += 1;
            return Some([Number::exact(Rational::new(both / 10, 1)?), Number::exact(Rational::new(both % 10, 1)?)]);
        }
        Some([self.argument()?, self.argument()?])
    }

    fn name(&mut self, name: &str) -> Option<Number> {
        Some(match name {
            "pi" => Number::real(std::f64::consts::PI),
            "e" => Number::real(std::f64::consts::E),
            "infty" => Number::real(f64::INFINITY),
            "frac" => {
                let [a, b] = self.pair()?;
                a.combine(&b, Rational::div, |a, b| a / b)
            }
            "binom" => {
                let [n, k] = self.pair()?;
                Number::exact(binomial(n.whole()?, k.whole()?)?)
            }
            "sqrt" => {
                let degree = match self.accept('[') {
                    true => {
                        let degree = self.argument()?;
                        self.accept(']').then_some(degree)?
                    }
                    false => Number::exact(Rational::whole(2)),
                };
                let root = degree.whole().filter(|n| *n > 0)?;
                // An odd root of a negative number is negative.
                let odd = root % 2 == 1;
                let root = 1.0 / root as f64;
                self.argument()?.map(|x| if odd && x < 0.0 { -(-x).powf(root) } else { x.powf(root) })
            }
            "sin" | "cos" | "tan" | "cot" | "sec" | "csc" | "arcsin" | "arccos" | "arctan" | "ln" | "log" | "exp"
            | "abs" => self.function(name)?,
            _ => {
                let mut name = name.to_string();
                if self.accept('_') {
                    let sub = self.argument()?;
                    name = format!("{name}_{sub:?}");
                }
                Number::variable(&name)
            }
        })
    }

    fn function(&mut self, name: &str) -> Option<Number> {
        let base = if self.accept('_') { Some(self.argument()?) } else { None };
        let power = if self.accept('^') { Some(self.argument()?) } else { None };
        let argument = match self.peek() {
            Some(Token::Sign('(' | '{' | '|')) => self.argument()?,
            // `\sin 2x`
            _ => {
                let Answer::Number(mut argument) = self.power()? else { return None };
                while let Some(Token::Name(next)) = self.peek()
                    && next.chars().count() == 1
                {
                    let Answer::Number(factor) = self.power()? else { return None };
                    argument = argument.combine(&factor, Rational::mul, |a, b| a * b);
                }
                argument
            }
        };
        let value = match name {
            "sin" => argument.map(f64::sin),
            "cos" => argument.map(f64::cos),
            "tan" => argument.map(f64::tan),
            "cot" => argument.map(|x| 1.0 / x.tan()),
            "sec" => argument.map(|x| 1.0 / x.cos()),
            "csc" => argument.map(|x| 1.0 / x.sin()),
            "arcsin" => argument.map(f64::asin),
            "arccos" => argument.map(f64::acos),
            "arctan" => argument.map(f64::atan),
            "exp" => argument.map(f64::exp),
            "abs" => magnitude(&argument),
            _ => match base {
                Some(base) => argument.map(f64::ln).combine(&base.map(f64::ln), |_, _| None, |a, b| a / b),
                None => argument.map(f64::ln),
            },
        };
        Some(power.map_or(value.clone(), |power| value.power(&power)))
    }
}

fn magnitude(number: &Number) -> Number {
    let exact = |a: Rational, _| if a.to_f64() < 0.0 { Rational::whole(0).sub(a) } else { Some(a) };
    number.combine(number, exact, |a, _| a.abs())
}

fn binomial(n: i128, k: i128) -> Option<Rational> {
    if !(0..=64).contains(&n) || !(0..=n).contains(&k) {
        return None;
    }
    let product = (0..k).try_fold(1i128, |product, i| Some(product.checked_mul(n - i)? / (i + 1)))?;
    Rational::new(product, 1)
}
