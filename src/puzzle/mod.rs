//! (in progress)

/// Placeholder of the reward settings.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardConfig {
    /// Weight of the share of correctly placed tiles.
    pub hit: f64,
    /// Weight of the whole answer being right.
    pub acc: f64,
    /// Weight of the requested format.
    pub fmt: f64,
    /// Whether hits count in an answer that is no permutation.
    pub permutation: PermutationRule,
}

/// Whether hits count in an answer that is no permutation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PermutationRule {
    /// They count.
    Ignore,
    /// They do not.
    Require,
}

impl Default for RewardConfig {
    fn default() -> Self {
        RewardConfig { hit: 1.0, acc: 1.0, fmt: 1.0, permutation: PermutationRule::Ignore }
    }
}
