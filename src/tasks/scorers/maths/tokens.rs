//! Mathematics as it is written, in LaTeX or plainly, cut into tokens.

use super::value::Number;
use crate::tasks::rational::Rational;

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// A number in digits.
    Number(Number),
    /// A variable, a constant or a function by its name.
    Name(String),
    /// Words: a unit after a number.
    Words(String),
    /// An operator, a relation or a bracket. `\u{27e8}` and `\u{27e9}` are the brackets of a set, `\u{27e6}` and `\u{27e7}` those of a matrix, and
    /// `\u{23ce}` ends a row.
    Sign(char),
}

/// Commands that change only how a formula looks.
const LOOKS: [&str; 22] = [
    "left",
    "right",
    "big",
    "Big",
    "bigl",
    "bigr",
    "Bigl",
    "Bigr",
    "bigg",
    "Bigg",
    "displaystyle",
    "textstyle",
    "quad",
    "qquad",
    "limits",
    "circ",
    "degree",
    "mathopen",
    "mathclose",
    "hspace",
    "phantom",
    "middle",
];
/// Commands whose argument is words.
const TEXTS: [&str; 12] = [
    "text",
    "textbf",
    "textit",
    "textrm",
    "textsf",
    "mathrm",
    "mathbf",
    "mathit",
    "mathsf",
    "mbox",
    "operatorname",
    "mathbb",
];
/// Commands that are signs.
const SIGNS: [(&str, char); 30] = [
    ("cdot", '*'),
    ("times", '*'),
    ("ast", '*'),
    ("div", '/'),
    ("pm", '\u{b1}'),
    ("mp", '\u{b1}'),
    ("le", '\u{2264}'),
    ("leq", '\u{2264}'),
    ("leqslant", '\u{2264}'),
    ("ge", '\u{2265}'),
    ("geq", '\u{2265}'),
    ("geqslant", '\u{2265}'),
    ("lt", '<'),
    ("gt", '>'),
    ("ne", '\u{2260}'),
    ("neq", '\u{2260}'),
    ("in", '\u{2208}'),
    ("cup", '\u{222a}'),
    ("approx", '='),
    ("equiv", '='),
    ("lbrace", '\u{27e8}'),
    ("rbrace", '\u{27e9}'),
    ("lvert", '|'),
    ("rvert", '|'),
    ("vert", '|'),
    ("langle", '('),
    ("rangle", ')'),
    ("lbrack", '['),
    ("rbrack", ']'),
    ("mid", '|'),
];
/// Signs of Unicode as others.
const ALIKE: [(char, &str); 17] = [
    ('\u{d7}', "*"),
    ('\u{b7}', "*"),
    ('\u{22c5}', "*"),
    ('\u{2217}', "*"),
    ('\u{f7}', "/"),
    ('\u{2215}', "/"),
    ('\u{2013}', "-"),
    ('\u{2014}', "-"),
    ('\u{221e}', "\\infty "),
    ('\u{3c0}', "\\pi "),
    ('\u{221a}', "\\sqrt "),
    ('\u{b0}', ""),
    ('\u{20ac}', ""),
    ('\u{a3}', ""),
    ('\u{2248}', "="),
    ('\u{b2}', "^2"),
    ('\u{b3}', "^3"),
];
/// Names that are more than a product of letters.
const FUNCTIONS: [&str; 10] = ["sqrt", "pi", "sin", "cos", "tan", "log", "ln", "exp", "abs", "infty"];
/// Letters in a row that are still a product, in a formula.
const PRODUCT: usize = 2;
/// Units and words of so few letters.
const WORDS: [&str; 32] = [
    "cm", "mm", "km", "kg", "mg", "ml", "ft", "in", "hr", "lb", "oz", "yd", "mi", "am", "pm", "no", "is", "to", "of",
    "at", "it", "if", "so", "we", "by", "on", "an", "as", "be", "do", "he", "up",
];

/// Longest formula, in bytes.
pub const MAX_BYTES: usize = 2000;

/// The tokens of a text; `None` for a character that no formula has.
pub fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut text = super::super::forms::fold(text).into_owned();
    for (sign, other) in ALIKE {
        if text.contains(sign) {
            text = text.replace(sign, other);
        }
    }
    for (form, other) in [("^{\\circ}", ""), ("^\\circ", ""), ("{,}", ","), ("\\,", ""), ("\\!", ""), ("**", "^")] {
        if text.contains(form) {
            text = text.replace(form, other);
        }
    }
    let mut reader = Reader { text: &text, at: 0, brackets: 0, tokens: Vec::new() };
    while reader.at < text.len() {
        reader.next()?;
    }
    Some(reader.tokens)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Round and square brackets that are open: a comma there parts.
    brackets: usize,
    tokens: Vec<Token>,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Take the characters that are so.
    fn take(&mut self, is: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let taken = &rest[..rest.find(|c| !is(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    fn next(&mut self) -> Option<()> {
        let c = self.rest().chars().next()?;
        let token = match c {
            _ if c.is_whitespace() || matches!(c, '$' | '~' | '`' | '"' | '\'') => {
                self.at += c.len_utf8();
                return Some(());
            }
            '0'..='9' => self.number()?,
            '.' if self.rest()[1..].starts_with(|d: char| d.is_ascii_digit()) => self.number()?,
            '\\' => return self.command(),
            _ if c.is_alphabetic() => {
                let run = self.take(char::is_alphabetic);
                return self.letters(run);
            }
            _ => {
                self.at += c.len_utf8();
                match c {
                    '(' | '[' => self.brackets += 1,
                    ')' | ']' => self.brackets = self.brackets.saturating_sub(1),
                    _ => {}
                }
                let written =
                    self.tokens.last() == Some(&Token::Sign('<')) || self.tokens.last() == Some(&Token::Sign('>'));
                if c == '=' && written {
                    let less = self.tokens.pop() == Some(Token::Sign('<'));
                    Token::Sign(if less { '\u{2264}' } else { '\u{2265}' })
                } else {
                    Token::Sign(c)
                }
            }
        };
        self.tokens.push(token);
        Some(())
    }

    /// Digits, with commas between groups of three outside of brackets, and decimals.
    fn number(&mut self) -> Option<Token> {
        let mut digits = self.take(|c| c.is_ascii_digit()).to_string();
        let grouped = |rest: &str| {
            let group = rest.strip_prefix(',').and_then(|rest| rest.get(..3));
            let ends = rest.get(4..).is_none_or(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()));
            group.is_some_and(|group| group.bytes().all(|b| b.is_ascii_digit())) && ends
        };
        if self.brackets == 0 && (1..=3).contains(&digits.len()) {
            while grouped(self.rest()) {
                digits += &self.rest()[1..4];
                self.at += 4;
            }
        }
        let mut decimals = 0;
        if self.rest().starts_with('.') && self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) {
            self.at += 1;
            let fraction = self.take(|c| c.is_ascii_digit());
            decimals = fraction.len();
            digits += fraction;
        }
        let mut power = -i32::try_from(decimals).ok()?;
        // `1.5e3`
        let rest = self.rest();
        let signed = rest.strip_prefix(['e', 'E']).map(|rest| rest.strip_prefix(['+', '-']).unwrap_or(rest));
        if signed.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
            self.at += 1;
            let sign = if self.rest().starts_with('-') { -1 } else { 1 };
            self.take(|c| matches!(c, '+' | '-'));
            power += sign * self.take(|c| c.is_ascii_digit()).parse::<i32>().ok().filter(|p| *p < 400)?;
        }
        let exact = || {
            let ten = 10i128.checked_pow(power.unsigned_abs())?;
            let digits: i128 = digits.parse().ok()?;
            if power < 0 { Rational::new(digits, ten) } else { Rational::new(digits.checked_mul(ten)?, 1) }
        };
        let real = || format!("{digits}e{power}").parse().ok().map(Number::real);
        exact().map(Number::exact).or_else(real).map(Token::Number)
    }

    /// A run of letters: a function, a product of variables, or a word.
    fn letters(&mut self, run: &str) -> Option<()> {
        let lower = run.to_lowercase();
        match lower.as_str() {
            "and" | "or" => self.tokens.push(Token::Sign(',')),
            "inf" | "infinity" => self.tokens.push(Token::Name("infty".into())),
            name if FUNCTIONS.contains(&name) => self.tokens.push(Token::Name(lower)),
            _ if run.chars().count() <= PRODUCT && !WORDS.contains(&lower.as_str()) => {
                self.tokens.extend(run.chars().map(|c| Token::Name(c.to_string())));
            }
            _ => self.words(run),
        }
        Some(())
    }

    fn words(&mut self, text: &str) {
        match self.tokens.last_mut() {
            Some(Token::Words(before)) => *before = format!("{before} {text}"),
            _ => self.tokens.push(Token::Words(text.to_string())),
        }
    }

    fn command(&mut self) -> Option<()> {
        self.at += 1;
        let name = self.take(|c| c.is_ascii_alphabetic());
        if name.is_empty() {
            let c = self.rest().chars().next()?;
            self.at += c.len_utf8();
            match c {
                '{' => self.tokens.push(Token::Sign('\u{27e8}')),
                '}' => self.tokens.push(Token::Sign('\u{27e9}')),
                '\\' => self.tokens.push(Token::Sign('\u{23ce}')),
                '%' | '|' => self.tokens.push(Token::Sign(c)),
                _ => {}
            }
            return Some(());
        }
        let unprefixed = name.strip_prefix(['d', 't', 'c']).unwrap_or(name);
        if LOOKS.contains(&name) {
            if matches!(name, "left" | "right") && self.rest().starts_with('.') {
                self.at += 1;
            }
        } else if TEXTS.contains(&name) {
            let inside = self.group()?.trim();
            match inside.chars().count() {
                0 => {}
                1 if !matches!(self.tokens.last(), Some(Token::Number(_)))
                    && inside.starts_with(char::is_alphabetic) =>
                {
                    self.tokens.push(Token::Name(inside.to_string()))
                }
                _ if matches!(inside, "and" | "or" | ",") => self.tokens.push(Token::Sign(',')),
                // `\text{(C)}`, `\text{12}`
                _ if inside.starts_with(['(', '\\']) || inside.starts_with(|c: char| c.is_ascii_digit()) => {
                    self.tokens.extend(tokens(inside)?);
                }
                _ => self.words(inside),
            }
        } else if let Some((_, sign)) = SIGNS.iter().find(|(known, _)| *known == name) {
            self.tokens.push(Token::Sign(*sign));
        } else if matches!(unprefixed, "frac" | "binom") {
            self.tokens.push(Token::Name(unprefixed.into()));
        } else if matches!(name, "begin" | "end") {
            let kind = self.group()?;
            if name == "begin" && kind == "array" && self.rest().starts_with('{') {
                self.group()?;
            }
            if kind.ends_with("matrix") || kind == "array" {
                self.tokens.push(Token::Sign(if name == "begin" { '\u{27e6}' } else { '\u{27e7}' }));
            }
        } else {
            self.tokens.push(Token::Name(name.into()));
        }
        Some(())
    }

    /// What stands in the braces that come next.
    fn group(&mut self) -> Option<&'a str> {
        self.take(char::is_whitespace);
        let inside = braced(self.rest())?;
        self.at += inside.len() + 2;
        Some(inside)
    }
}

/// What stands in the braces that a text begins with.
pub fn braced(text: &str) -> Option<&str> {
    let mut depth = 0usize;
    for (at, byte) in text.bytes().enumerate().take(MAX_BYTES) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return if at > 0 { text.get(1..at) } else { None };
        }
    }
    None
}
