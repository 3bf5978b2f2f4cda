//! Which tile of the shuffled picture belongs to which cell of the original.

use crate::rng::Rng;
use rand::seq::SliceRandom;
use std::fmt;

/// For each cell of the original in reading order, the place (from 0) of its tile in the shuffled picture.
/// Written as an answer it counts from 1: `3 1 2` says that the first cell's tile is the third one shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Permutation(Vec<usize>);

impl Permutation {
    /// Take `places` if they are a permutation of `0..places.len()`.
    pub fn new(places: Vec<usize>) -> Option<Self> {
        let mut seen = vec![false; places.len()];
        for &place in &places {
            if std::mem::replace(seen.get_mut(place)?, true) {
                return None;
            }
        }
        Some(Permutation(places))
    }

    /// The permutation that moves nothing.
    pub fn identity(len: usize) -> Self {
        Permutation((0..len).collect())
    }

    /// Uniform over all permutations of `len >= 2` tiles except the identity, which is no puzzle.
    pub fn random(len: usize, rng: &mut Rng) -> Self {
        assert!(len >= 2, "{len} tiles cannot be shuffled");
        let mut permutation = Permutation::identity(len);
        while permutation.is_identity() {
            permutation.0.shuffle(rng);
        }
        permutation
    }

    /// True when every tile is in its own place.
    pub fn is_identity(&self) -> bool {
        self.0.iter().enumerate().all(|(cell, &place)| cell == place)
    }

    /// For each place of the shuffled picture, the cell of the original that its tile comes from.
    pub fn inverse(&self) -> Self {
        let mut cells = vec![0; self.0.len()];
        for (cell, &place) in self.0.iter().enumerate() {
            cells[place] = cell;
        }
        Permutation(cells)
    }

    /// Place of each cell's tile, both from 0.
    pub fn places(&self) -> &[usize] {
        &self.0
    }
}

/// The answer text: tile numbers from 1, separated by single spaces.
impl fmt::Display for Permutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (cell, place) in self.0.iter().enumerate() {
            write!(f, "{}{}", if cell == 0 { "" } else { " " }, place + 1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::stream;
    use std::collections::HashMap;

    #[test]
    fn a_random_permutation_is_never_the_identity_and_its_inverse_undoes_it() {
        for seed in 0..2000 {
            for len in [2, 3, 4, 9] {
                let p = Permutation::random(len, &mut stream(seed, "test", &[len as u64]));
                assert!(!p.is_identity());
                assert_eq!(Permutation::new(p.places().to_vec()).as_ref(), Some(&p));
                let back = p.inverse();
                assert!((0..len).all(|cell| back.places()[p.places()[cell]] == cell));
                assert_eq!(back.inverse(), p);
            }
        }
    }

    #[test]
    fn all_permutations_but_the_identity_are_equally_likely() {
        let mut counts: HashMap<String, usize> = HashMap::new();
        let mut rng = stream(1, "test", &[]);
        for _ in 0..5000 {
            *counts.entry(Permutation::random(3, &mut rng).to_string()).or_default() += 1;
        }
        assert_eq!(counts.len(), 5);
        assert!(counts.values().all(|&n| (850..1150).contains(&n)), "{counts:?}");
    }

    #[test]
    fn what_is_no_permutation_is_not_taken() {
        assert_eq!(Permutation::new(vec![0, 0]), None);
        assert_eq!(Permutation::new(vec![1, 2]), None);
        assert_eq!(Permutation::new(vec![2, 0, 1]).unwrap().to_string(), "3 1 2");
    }
}
