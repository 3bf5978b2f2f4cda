//! Advantages: how much better a response did than the others of its group.

use crate::train::settings::ScaleRewards;

/// Added to the standard deviation before dividing by it (TRL's `GRPOTrainer`).
pub const ADVANTAGE_EPS: f64 = 1e-4;

/// Advantage of each response. `rewards` lies group after group, `group` responses each.
///
/// `A = (R - mean of the group) / (std + 1e-4)`, the standard deviation with Bessel's correction, of the group or of all
/// rewards; `none` does not divide.
pub fn advantages(rewards: &[f64], group: usize, scale: ScaleRewards) -> Vec<f64> {
    let (_, batch_std) = mean_and_std(rewards);
    rewards
        .chunks(group.max(1))
        .flat_map(|rewards| {
            let (mean, std) = mean_and_std(rewards);
            let divisor = match scale {
                ScaleRewards::Group => std + ADVANTAGE_EPS,
                ScaleRewards::Batch => batch_std + ADVANTAGE_EPS,
                ScaleRewards::None => 1.0,
            };
            rewards.iter().map(move |r| (r - mean) / divisor)
        })
        .collect()
}

/// Mean and standard deviation (Bessel's correction; 0 for fewer than two values).
pub fn mean_and_std(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    if values.is_empty() {
        return (0.0, 0.0);
    }
    // Equal values have their value as mean and no spread, whatever a division would round to.
    if values.iter().all(|v| *v == values[0]) {
        return (values[0], 0.0);
    }
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_are_those_of_the_formula() {
        let rewards = [1.0, 2.0, 3.0, 6.0, 0.0, 0.0, 0.0, 4.0];
        let group = advantages(&rewards, 4, ScaleRewards::Group);
        let std = ((4.0 + 1.0 + 0.0 + 9.0f64) / 3.0).sqrt();
        for (got, centred) in group[..4].iter().zip([-2.0, -1.0, 0.0, 3.0]) {
            assert!((got - centred / (std + 1e-4)).abs() < 1e-12);
        }
        let none = advantages(&rewards, 4, ScaleRewards::None);
        assert_eq!(none, [-2.0, -1.0, 0.0, 3.0, -1.0, -1.0, -1.0, 3.0]);
        let all = (rewards.iter().map(|r| (r - 2.0f64).powi(2)).sum::<f64>() / 7.0).sqrt();
        let batch = advantages(&rewards, 4, ScaleRewards::Batch);
        assert!((batch[3] - 3.0 / (all + 1e-4)).abs() < 1e-12);
    }

    #[test]
    fn a_group_of_equal_rewards_has_no_advantage_at_all() {
        // 0.1 + 0.1 + 0.1 divided by 3 is not 0.1: without care this would be a tiny advantage times 1e4.
        for a in advantages(&[0.1, 0.1, 0.1], 3, ScaleRewards::Group) {
            assert_eq!(a, 0.0);
        }
    }
}
