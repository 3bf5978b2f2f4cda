//! The reward of a response: `R = R_hit + R_acc + R_fmt`, each part in [0, 1] and with a weight of its own
//! (arXiv 2506.23508, where all weights are 1).

use serde::{Deserialize, Serialize};

/// Do correctly placed tiles count in an answer that is no permutation of the tiles?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PermutationRule {
    /// They count, position by position, as in the paper; `3 3 3 3` then always earns a hit. An answer with more numbers
    /// than tiles still earns none.
    Ignore,
    /// They do not: hits are earned only by a permutation.
    #[default]
    Require,
}

/// Weights of the parts. Absent keys take the defaults: weights 1, `permutation = "require"`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardConfig {
    /// Weight of the share of correctly placed tiles.
    pub hit: f64,
    /// Weight of a whole answer that is right.
    pub acc: f64,
    /// Weight of the requested form.
    pub fmt: f64,
    /// Whether hits need a permutation.
    pub permutation: PermutationRule,
}

impl Default for RewardConfig {
    fn default() -> Self {
        RewardConfig { hit: 1.0, acc: 1.0, fmt: 1.0, permutation: PermutationRule::Require }
    }
}

/// A response's reward: the three parts before weighting, each in [0, 1], and their weighted sum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reward {
    /// Correctly placed tiles / tiles.
    pub hit: f64,
    /// 1 if the whole answer is right.
    pub acc: f64,
    /// 1 if the response has the requested form.
    pub fmt: f64,
    /// Weighted sum.
    pub total: f64,
}

impl RewardConfig {
    /// Reward of a response with a share `hits` of tiles placed right in a valid answer (0 if it is not valid),
    /// a share `positions` placed right in whatever numbers it gave, and a whole answer that is `correct` or not.
    pub fn reward(&self, hits: f64, positions: f64, correct: bool, well_formed: bool) -> Reward {
        let hit = match self.permutation {
            PermutationRule::Ignore => positions,
            PermutationRule::Require => hits,
        };
        let (acc, fmt) = (f64::from(u8::from(correct)), f64::from(u8::from(well_formed)));
        Reward { hit, acc, fmt, total: self.hit * hit + self.acc * acc + self.fmt * fmt }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_weighted_and_summed() {
        let config = RewardConfig { hit: 2.0, acc: 10.0, fmt: 0.5, permutation: PermutationRule::Ignore };
        let reward = config.reward(0.0, 0.25, false, true);
        assert_eq!(reward, Reward { hit: 0.25, acc: 0.0, fmt: 1.0, total: 1.0 });
        let required = RewardConfig { permutation: PermutationRule::Require, ..config };
        assert_eq!(required.reward(0.0, 0.25, false, true).total, 0.5);
        assert_eq!(RewardConfig::default().reward(1.0, 1.0, true, true).total, 3.0);
    }

    #[test]
    fn an_unknown_key_is_refused_and_an_absent_one_has_its_default() {
        let config: RewardConfig = toml::from_str("acc = 0.0\npermutation = \"ignore\"").unwrap();
        assert_eq!(config, RewardConfig { acc: 0.0, permutation: PermutationRule::Ignore, ..Default::default() });
        assert!(toml::from_str::<RewardConfig>("accuracy = 1.0").is_err());
        assert!(toml::from_str::<RewardConfig>("permutation = \"maybe\"").is_err());
    }
}
