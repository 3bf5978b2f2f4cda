//! The reward of a response: `R = sum of weight * term` over named terms, each in [0, 1] and read from the task's [`Score`].
//!
//! With all weights 1 on a jigsaw it is `R = R_hit + R_acc + R_fmt` of arXiv 2506.23508. The terms are the same for every task; what
//! they mean for one (for a jigsaw, partial credit is the share of tiles in place) its scorer decides.

use crate::tasks::Score;
use serde::{Deserialize, Serialize};

/// `[reward]`: weights of the terms. Absent keys take the defaults: weights 1, `require_valid = true`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RewardSettings {
    /// Weight of the share of the answer that is right.
    pub partial_credit: f64,
    /// Weight of a whole answer that is right.
    pub accuracy: f64,
    /// Weight of the requested format.
    pub format: f64,
    /// Only a valid answer earns partial credit (for a jigsaw: a permutation of the tiles). If false, parts of invalid answers count
    /// too, as in the paper: `3 3 3 3` then always earns one tile.
    pub require_valid: bool,
}

impl Default for RewardSettings {
    fn default() -> Self {
        RewardSettings { partial_credit: 1.0, accuracy: 1.0, format: 1.0, require_valid: true }
    }
}

/// One term of the reward.
pub struct RewardTerm {
    /// Key of its weight in the configuration.
    pub key: &'static str,
    /// Name of its metric: the mean over responses before weighting.
    pub metric: &'static str,
    /// Its weight.
    pub weight: fn(&RewardSettings) -> f64,
    value: fn(&RewardSettings, &Score) -> f64,
}

/// All terms, in the order in which they are summed and logged.
pub const TERMS: [RewardTerm; 3] = [
    RewardTerm {
        key: "reward.partial_credit",
        metric: "reward_partial_credit",
        weight: |settings| settings.partial_credit,
        value: |settings, score| if settings.require_valid { score.partial_credit } else { score.raw_partial_credit },
    },
    RewardTerm {
        key: "reward.accuracy",
        metric: "reward_accuracy",
        weight: |settings| settings.accuracy,
        value: |_, score| f64::from(u8::from(score.correct)),
    },
    RewardTerm {
        key: "reward.format",
        metric: "reward_format",
        weight: |settings| settings.format,
        value: |_, score| f64::from(u8::from(score.well_formed)),
    },
];

/// A response's reward.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reward {
    /// The [`TERMS`] before weighting, each in [0, 1].
    pub terms: [f64; TERMS.len()],
    /// Weighted sum.
    pub total: f64,
}

impl RewardSettings {
    /// The reward of a response with this score.
    pub fn reward(&self, score: &Score) -> Reward {
        let terms = TERMS.map(|term| (term.value)(self, score));
        let total = TERMS.iter().zip(terms).map(|(term, value)| (term.weight)(self) * value).sum();
        Reward { terms, total }
    }

    /// The largest reward possible.
    pub fn best(&self) -> f64 {
        TERMS.iter().map(|term| (term.weight)(self)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(partial_credit: f64, raw_partial_credit: f64, correct: bool, well_formed: bool) -> Score {
        let value = f64::from(u8::from(correct));
        let fault = String::new();
        Score {
            correct,
            value,
            lenient: value,
            partial_credit,
            raw_partial_credit,
            parsed: true,
            well_formed,
            exact: None,
            fault,
        }
    }

    #[test]
    fn the_terms_are_weighted_and_summed() {
        let settings = RewardSettings { partial_credit: 2.0, accuracy: 10.0, format: 0.5, require_valid: false };
        let invalid = score(0.0, 0.25, false, true);
        assert_eq!(settings.reward(&invalid), Reward { terms: [0.25, 0.0, 1.0], total: 1.0 });
        let strict = RewardSettings { require_valid: true, ..settings };
        assert_eq!(strict.reward(&invalid).total, 0.5);
        assert_eq!(RewardSettings::default().reward(&score(1.0, 1.0, true, true)).total, 3.0);
        assert_eq!((settings.best(), RewardSettings::default().best()), (12.5, 3.0));
    }

    #[test]
    fn an_unknown_key_is_refused_and_an_absent_one_has_its_default() {
        let settings: RewardSettings = toml::from_str("accuracy = 0.0\nrequire_valid = false").unwrap();
        assert_eq!(settings, RewardSettings { accuracy: 0.0, require_valid: false, ..Default::default() });
        assert!(toml::from_str::<RewardSettings>("acc = 1.0").is_err());
        assert!(toml::from_str::<RewardSettings>("require_valid = \"maybe\"").is_err());
    }
}
