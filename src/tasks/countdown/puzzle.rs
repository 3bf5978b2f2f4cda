//! A countdown puzzle that has a solution, drawn at random together with it.

use super::expression::Operator;
use super::settings::CountdownSettings;
use crate::rng::{self, Rng};
use crate::tasks::rational::Rational;
use rand::RngExt;
use rand::seq::SliceRandom;
use sha2::{Digest as _, Sha256};

/// Numbers, the target, and one way to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountdownPuzzle {
    /// In the order in which they are shown.
    pub numbers: Vec<u32>,
    /// What is to be reached.
    pub target: u32,
    /// An expression that does.
    pub solution: String,
    /// The same, a step at a time: `25 - 3 = 22, 22 * 2 = 44`.
    pub steps: String,
}

/// A part of the expression while it is put together.
struct Term {
    value: u32,
    text: String,
    /// It is a sum or difference, a product or quotient, or a number.
    operator: Option<Operator>,
}

impl CountdownPuzzle {
    /// The puzzle of this number in the stream of a seed; `None` if what was drawn has no whole target in the range. All steps of the
    /// solution have whole results from 1 on.
    pub fn draw(settings: &CountdownSettings, number: u64) -> Option<CountdownPuzzle> {
        let mut rng = rng::stream(settings.seed, "countdown", &[number]);
        let count = rng.random_range(settings.numbers.min..=settings.numbers.max);
        let numbers: Vec<u32> = (0..count).map(|_| rng.random_range(1..=settings.max_number)).collect();
        let mut terms: Vec<Term> =
            numbers.iter().map(|&value| Term { value, text: value.to_string(), operator: None }).collect();
        let mut steps = Vec::new();
        while terms.len() > 1 {
            terms.shuffle(&mut rng);
            let (b, a) = (terms.pop()?, terms.pop()?);
            let term = join(a, b, &mut rng, &mut steps)?;
            terms.push(term);
        }
        let Term { value: target, text: solution, .. } = terms.pop()?;
        (target <= settings.max_target).then(|| CountdownPuzzle { numbers, target, solution, steps: steps.join(", ") })
    }

    /// What makes it another puzzle than others: the target, and the numbers in any order. Its SHA-256 decides the split.
    pub fn key(&self) -> (String, [u8; 32]) {
        let mut numbers = self.numbers.clone();
        numbers.sort_unstable();
        let key = format!("{numbers:?} {}", self.target);
        let hash = Sha256::digest(&key).into();
        (key, hash)
    }
}

/// Two terms joined by a random operator; `None` if the result is not a whole number from 1 on.
fn join(a: Term, b: Term, rng: &mut Rng, steps: &mut Vec<String>) -> Option<Term> {
    let operator = Operator::ALL[rng.random_range(0..Operator::ALL.len())];
    let value =
        operator.apply(Rational::whole(a.value), Rational::whole(b.value))?.to_whole().filter(|&value| value > 0)?;
    let sign = operator.sign();
    steps.push(format!("{} {sign} {} = {value}", a.value, b.value));
    let bracketed = |term: Term, needed: bool| if needed { format!("({})", term.text) } else { term.text };
    let is_sum = |term: &Term| term.operator.is_some_and(|operator| !operator.is_product());
    let left = is_sum(&a) && operator.is_product();
    let right = match operator {
        Operator::Add => false,
        Operator::Sub | Operator::Mul => is_sum(&b),
        Operator::Div => b.operator.is_some(),
    };
    let text = format!("{} {sign} {}", bracketed(a, left), bracketed(b, right));
    Some(Term { value, text, operator: Some(operator) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::countdown::expression::evaluate;

    #[test]
    fn every_puzzle_has_the_solution_that_comes_with_it() {
        let settings = CountdownSettings {
            numbers: "2-6".parse().unwrap(),
            max_number: 30,
            max_target: 500,
            count: 1,
            style: crate::tasks::Style::Direct,
            seed: 3,
            split: "1,0,0".parse().unwrap(),
        };
        let puzzles: Vec<CountdownPuzzle> =
            (0..5000).filter_map(|number| CountdownPuzzle::draw(&settings, number)).collect();
        assert!(puzzles.len() > 1000, "{}", puzzles.len());
        for puzzle in &puzzles {
            let mut numbers = puzzle.numbers.clone();
            numbers.sort_unstable();
            let value = evaluate(&puzzle.solution, &numbers).unwrap();
            assert_eq!(value.to_whole(), Some(puzzle.target), "{puzzle:?}");
            assert!((2..=6).contains(&numbers.len()) && (1..=500).contains(&puzzle.target));
            assert!(numbers.iter().all(|n| (1..=30).contains(n)));
            assert!(puzzle.steps.ends_with(&format!("= {}", puzzle.target)), "{puzzle:?}");
        }
        for sign in ["+", "-", "*", "/", "("] {
            assert!(puzzles.iter().any(|puzzle| puzzle.solution.contains(sign)), "{sign}");
        }
        assert_eq!(CountdownPuzzle::draw(&settings, 7), CountdownPuzzle::draw(&settings, 7));
    }
}
