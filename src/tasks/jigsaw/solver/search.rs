//! The order of the tiles that costs least.

use crate::tasks::jigsaw::Permutation;

/// Tiles placed at most. All orders of nine tiles are fewer (986,409 placements), so up to 3x3 the search is exact; for larger grids its result is
/// the best order found.
const MOST_PLACED: usize = 1_000_000;

/// The order of `tiles` tiles with the smallest sum of `cost(placed, tile)`: what it costs, never below 0, to put `tile` into the next cell when
/// `placed` holds the tiles of the cells before it. Branch and bound, the cheapest tile first; of equal orders the first found.
pub fn cheapest_order(tiles: usize, cost: impl Fn(&[usize], usize) -> f64) -> Permutation {
    let mut search = Search { tiles, cost, placed: Vec::new(), best: (f64::INFINITY, Vec::new()), left: MOST_PLACED };
    search.place(0.0);
    Permutation::new(search.best.1).unwrap_or_else(|| Permutation::identity(tiles))
}

struct Search<F> {
    tiles: usize,
    cost: F,
    placed: Vec<usize>,
    best: (f64, Vec<usize>),
    left: usize,
}

impl<F: Fn(&[usize], usize) -> f64> Search<F> {
    fn place(&mut self, sum: f64) {
        if self.placed.len() == self.tiles {
            self.best = (sum, self.placed.clone());
            return;
        }
        let free = (0..self.tiles).filter(|tile| !self.placed.contains(tile));
        let mut next: Vec<(f64, usize)> = free.map(|tile| (sum + (self.cost)(&self.placed, tile), tile)).collect();
        next.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (sum, tile) in next {
            // The first order is always completed.
            if sum >= self.best.0 || (self.left == 0 && self.best.0.is_finite()) {
                return;
            }
            self.left = self.left.saturating_sub(1);
            self.placed.push(tile);
            self.place(sum);
            self.placed.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use rand::RngExt;

    /// The smallest sum over all orders, one by one.
    fn least(costs: &[Vec<f64>], cell: usize, used: &mut Vec<usize>) -> f64 {
        if cell == costs.len() {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        for tile in 0..costs.len() {
            if !used.contains(&tile) {
                used.push(tile);
                best = best.min(costs[cell][tile] + least(costs, cell + 1, used));
                used.pop();
            }
        }
        best
    }

    #[test]
    fn no_order_of_up_to_nine_tiles_costs_less_and_many_tiles_still_get_an_order() {
        for seed in 0..20 {
            let mut rng = rng::stream(seed, "test", &[]);
            let costs: Vec<Vec<f64>> = (0..7).map(|_| (0..7).map(|_| rng.random_range(0.0..1.0)).collect()).collect();
            let order = cheapest_order(7, |placed, tile| costs[placed.len()][tile]);
            let sum: f64 = order.places().iter().enumerate().map(|(cell, &tile)| costs[cell][tile]).sum();
            assert!((sum - least(&costs, 0, &mut Vec::new())).abs() < 1e-12);
        }
        // Equal costs: nothing is better than the first order.
        assert!(cheapest_order(9, |_, _| 1.0).is_identity());
        assert_eq!(cheapest_order(36, |placed, tile| ((placed.len() * 7 + tile * 5) % 11) as f64).places().len(), 36);
    }
}
