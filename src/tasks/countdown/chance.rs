//! The chance level of a countdown puzzle, by counting every expression.

use super::expression::Operator;
use crate::tasks::chance::Chance;
use crate::tasks::rational::Rational;
use std::collections::HashMap;

/// Most numbers for which the expressions are counted: 430,080 of them. With one number more there are 31 million.
const MAX_NUMBERS: usize = 5;

/// Of an expression drawn uniformly from all that use each of `given` once: an order of the numbers, a way to put brackets around pairs, and
/// an operator for each pair (n! * Catalan(n - 1) * 4^(n - 1) of them). Those that divide by zero are among them and earn nothing.
/// `valid` is the partial credit of a valid expression with another value. `None` for more than [`MAX_NUMBERS`] numbers.
pub fn chance(given: &[u32], target: u32, valid: f64) -> Option<Chance> {
    let n = given.len();
    if n == 0 || n > MAX_NUMBERS {
        return None;
    }
    // For each set of the numbers (a bit mask), how many expressions over it have which value.
    let mut counts: Vec<HashMap<Rational, u64>> = vec![HashMap::new(); 1 << n];
    for set in 1usize..1 << n {
        let mut values: HashMap<Rational, u64> = HashMap::new();
        if set.is_power_of_two() {
            values.insert(Rational::whole(given[set.trailing_zeros() as usize]), 1);
        }
        // Every proper part of the set on the left, the rest on the right.
        let mut left = (set - 1) & set;
        while left > 0 {
            for (a, ways_a) in &counts[left] {
                for (b, ways_b) in &counts[set ^ left] {
                    for value in Operator::ALL.into_iter().filter_map(|operator| operator.apply(*a, *b)) {
                        *values.entry(value).or_insert(0) += ways_a * ways_b;
                    }
                }
            }
            left = (left - 1) & set;
        }
        counts[set] = values;
    }
    let all = &counts[(1 << n) - 1];
    let right = all.get(&Rational::whole(target)).copied().unwrap_or(0) as f64;
    let defined = all.values().sum::<u64>() as f64;
    // n! * Catalan(n - 1) = (2n - 2)! / (n - 1)!
    let shapes = (n..=2 * n - 2).map(|k| k as f64).product::<f64>();
    let total = shapes * 4f64.powi(n as i32 - 1);
    Some(Chance { accuracy: right / total, partial_credit: (right + valid * (defined - right)) / total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_numbers_the_eight_expressions_are_counted() {
        // 6+2, 2+6, 6-2, 2-6, 6*2, 2*6, 6/2, 2/6
        let accuracy = |target| chance(&[6, 2], target, 0.5).unwrap().accuracy;
        assert_eq!([8, 4, 12, 3, 5].map(accuracy), [0.25, 0.125, 0.25, 0.125, 0.0]);
        assert_eq!(chance(&[6, 2], 8, 0.5).unwrap().partial_credit, (2.0 + 0.5 * 6.0) / 8.0);
        // 5/0 is no number; 5+0, 0+5 and 5-0 are 5.
        assert_eq!(chance(&[5, 0], 5, 0.0).unwrap().accuracy, 3.0 / 8.0);
        assert_eq!(chance(&[5, 0], 9, 1.0).unwrap().partial_credit, 7.0 / 8.0);
        assert_eq!(chance(&[7], 7, 0.1).unwrap().accuracy, 1.0);
    }

    #[test]
    fn every_expression_is_counted_once() {
        // Numbers without a zero on the way: every expression is defined, and so all of them are valid.
        for given in [&[2, 3, 7][..], &[2, 30, 700, 11000]] {
            let valid = chance(given, 1_000_000, 1.0).unwrap().partial_credit;
            assert!((valid - 1.0).abs() < 1e-12, "{given:?}: {valid}");
        }
        assert_eq!(chance(&[1, 2, 3, 4, 5, 6], 7, 0.1), None);
    }
}
