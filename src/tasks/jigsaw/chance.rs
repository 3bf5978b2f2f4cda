//! The chance level of a jigsaw.

use crate::tasks::chance::Chance;

/// A random permutation of `tiles` tiles other than the identity, against a puzzle that is not the identity either.
pub fn chance(tiles: usize) -> Option<Chance> {
    if tiles < 2 {
        return None;
    }
    let n = tiles as f64;
    let orders = (1..=tiles).map(|i| i as f64).product::<f64>();
    // Over all pairs of permutations one tile agrees on average: orders^2 agreements. Take away the pairs with an
    // identity on one side (orders agreements each) and put back the pair of two identities (n agreements).
    let agreements = orders * orders - 2.0 * orders + n;
    // Above 170 tiles the factorial is infinite; the shares are then their limits.
    let hits = if orders.is_finite() { agreements / ((orders - 1.0).powi(2) * n) } else { 1.0 / n };
    let partial_credit = if hits.is_finite() { hits } else { 1.0 / n };
    Some(Chance { accuracy: 1.0 / (orders - 1.0), partial_credit })
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
            let chance = chance(n).unwrap();
            assert!((chance.accuracy - right as f64 / pairs as f64).abs() < 1e-12);
            assert!((chance.partial_credit - hits as f64 / (pairs * n) as f64).abs() < 1e-12);
        }
    }

    #[test]
    fn large_grids_do_not_overflow() {
        assert_eq!(chance(1), None);
        let chance = chance(400).unwrap();
        assert_eq!((chance.accuracy, chance.partial_credit), (0.0, 1.0 / 400.0));
    }
}
