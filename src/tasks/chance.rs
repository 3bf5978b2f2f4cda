//! What a guesser earns who sees no image: the line that an accuracy has to rise above.

use super::Task;
use crate::Result;
use crate::data::Record;
use serde::{Deserialize, Serialize};

/// Expected scores of an answer drawn uniformly from the possible ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Chance {
    /// Whole answers right.
    pub accuracy: f64,
    /// Parts right.
    pub hits: f64,
}

impl Chance {
    /// The mean over the first examples of a task; `None` if it is not known for one of them, or there are none.
    pub fn of(task: &dyn Task, examples: usize) -> Result<Option<Chance>> {
        let (mut accuracy, mut hits) = (0.0, 0.0);
        for i in 0..examples {
            let Some(chance) = of_record(task.example(i)?) else { return Ok(None) };
            accuracy += chance.accuracy;
            hits += chance.hits;
        }
        let n = examples as f64;
        Ok((examples > 0).then(|| Chance { accuracy: accuracy / n, hits: hits / n }))
    }
}

fn of_record(record: &Record) -> Option<Chance> {
    let one_of = |n: usize| (n > 0).then(|| Chance { accuracy: 1.0 / n as f64, hits: 1.0 / n as f64 });
    match record.task.as_str() {
        "choice" => one_of(record.meta.get("options")?.as_array()?.len()),
        "yes-no" => one_of(2),
        "jigsaw" => jigsaw(record.answer.split_whitespace().count()),
        "jigsaw-pair" => one_of(record.meta.get("choices")?.as_u64()? as usize),
        _ => None,
    }
}

/// A random permutation of `tiles` tiles other than the identity, against a puzzle that is not the identity either.
fn jigsaw(tiles: usize) -> Option<Chance> {
    if tiles < 2 {
        return None;
    }
    let n = tiles as f64;
    let orders = (1..=tiles).map(|i| i as f64).product::<f64>();
    // Over all pairs of permutations one tile agrees on average: orders^2 agreements. Take away the pairs with an
    // identity on one side (orders agreements each) and put back the pair of two identities (n agreements).
    let agreements = orders * orders - 2.0 * orders + n;
    // Above 170 tiles the factorial is infinite, and the shares are what they tend to.
    let hits = if orders.is_finite() { agreements / ((orders - 1.0).powi(2) * n) } else { 1.0 / n };
    Some(Chance { accuracy: 1.0 / (orders - 1.0), hits: if hits.is_finite() { hits } else { 1.0 / n } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permutations(n: usize) -> Vec<Vec<usize>> {
        if n == 0 {
            return vec![vec![]];
        }
        let mut all = Vec::new();
        for shorter in permutations(n - 1) {
            for place in 0..n {
                let mut longer = shorter.clone();
                longer.insert(place, n - 1);
                all.push(longer);
            }
        }
        all
    }

    #[test]
    fn chance_equals_the_count_over_all_pairs_of_puzzles_and_guesses() {
        for n in 2..=5 {
            let orders: Vec<_> = permutations(n).into_iter().filter(|p| !p.is_sorted()).collect();
            let (mut right, mut hits, mut pairs) = (0, 0, 0);
            for gold in &orders {
                for guess in &orders {
                    let agree = gold.iter().zip(guess).filter(|(a, b)| a == b).count();
                    (right, hits, pairs) = (right + usize::from(agree == n), hits + agree, pairs + 1);
                }
            }
            let chance = jigsaw(n).unwrap();
            assert!((chance.accuracy - right as f64 / pairs as f64).abs() < 1e-12);
            assert!((chance.hits - hits as f64 / (pairs * n) as f64).abs() < 1e-12);
        }
    }

    #[test]
    fn large_grids_do_not_overflow() {
        assert_eq!(jigsaw(1), None);
        let chance = jigsaw(400).unwrap();
        assert_eq!((chance.accuracy, chance.hits), (0.0, 1.0 / 400.0));
    }
}
