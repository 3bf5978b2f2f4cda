//! The reward of a response: `R = sum of weight * term` over named terms. Those read from the task's [`Score`] are in [0, 1]; a command of
//! the user's may give any number, and the length of a response may be penalised.
//!
//! With all weights 1 on a jigsaw it is `R = R_hit + R_acc + R_fmt` of arXiv 2506.23508. The terms are the same for every task; what
//! they mean for one (for a jigsaw, partial credit is the share of tiles in place) its scorer decides.

use crate::tasks::Score;
use serde::{Deserialize, Serialize};

/// `[reward]`: weights of the terms. Absent keys take the defaults: weights 1, `require_valid = true`, no command, no penalty of length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
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
    /// A shell command that scores responses: a line of JSON for each in, a number or `{"reward": number}` out. Empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// Weight of the command's number; 1 when not given.
    #[serde(skip_serializing_if = "is_default_weight")]
    pub command_weight: f64,
    /// Longest wait for the command's next line, in seconds; 60 when not given.
    #[serde(skip_serializing_if = "is_default_timeout")]
    pub command_timeout: f64,
    /// Soft overlong punishment (DAPO, arXiv 2503.14476, equation 13): over the last so many tokens before `rollout.max_new_tokens` a
    /// penalty grows from 0 to 1. 0 for off.
    #[serde(skip_serializing_if = "is_zero")]
    pub overlong_buffer: usize,
    /// Weight of that penalty; 1 when not given.
    #[serde(skip_serializing_if = "is_default_weight")]
    pub overlong_penalty: f64,
}

const TIMEOUT: f64 = 60.0;

// Keys that are left out of the resolved settings where they have no effect, so that older runs can be resumed.
fn is_default_weight(weight: &f64) -> bool {
    *weight == 1.0
}
fn is_default_timeout(seconds: &f64) -> bool {
    *seconds == TIMEOUT
}
fn is_zero(tokens: &usize) -> bool {
    *tokens == 0
}

impl Default for RewardSettings {
    fn default() -> Self {
        RewardSettings {
            partial_credit: 1.0,
            accuracy: 1.0,
            format: 1.0,
            require_valid: true,
            command: String::new(),
            command_weight: 1.0,
            command_timeout: TIMEOUT,
            overlong_buffer: 0,
            overlong_penalty: 1.0,
        }
    }
}

/// What a response is rewarded for.
#[derive(Debug, Clone, Copy)]
pub struct RewardInput<'a> {
    /// The task's verdict.
    pub score: &'a Score,
    /// Tokens of the response.
    pub tokens: usize,
    /// The most that it could have had.
    pub max_tokens: usize,
    /// What `reward.command` says of it.
    pub command: f64,
}

impl<'a> From<&'a Score> for RewardInput<'a> {
    /// A response of which nothing but the score counts.
    fn from(score: &'a Score) -> RewardInput<'a> {
        RewardInput { score, tokens: 0, max_tokens: 0, command: 0.0 }
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
    /// The most it can be, before weighting. The command's is taken for 1.
    best: f64,
    in_use: fn(&RewardSettings) -> bool,
    value: fn(&RewardSettings, RewardInput<'_>) -> f64,
}

/// All terms, in the order in which they are summed and logged.
pub const TERMS: [RewardTerm; 5] = [
    RewardTerm {
        key: "reward.partial_credit",
        metric: "reward_partial_credit",
        weight: |settings| settings.partial_credit,
        best: 1.0,
        in_use: |_| true,
        value: |settings, RewardInput { score, .. }| match settings.require_valid {
            true => score.partial_credit,
            false => score.raw_partial_credit,
        },
    },
    RewardTerm {
        key: "reward.accuracy",
        metric: "reward_accuracy",
        weight: |settings| settings.accuracy,
        best: 1.0,
        in_use: |_| true,
        value: |_, input| f64::from(u8::from(input.score.correct)),
    },
    RewardTerm {
        key: "reward.format",
        metric: "reward_format",
        weight: |settings| settings.format,
        best: 1.0,
        in_use: |_| true,
        value: |_, input| f64::from(u8::from(input.score.well_formed)),
    },
    RewardTerm {
        key: "reward.command_weight",
        metric: "reward_command",
        weight: |settings| settings.command_weight,
        best: 1.0,
        in_use: |settings| !settings.command.is_empty(),
        value: |_, input| input.command,
    },
    RewardTerm {
        key: "reward.overlong_penalty",
        metric: "reward_overlong",
        weight: |settings| settings.overlong_penalty,
        best: 0.0,
        in_use: |settings| settings.overlong_buffer > 0,
        value: |settings, input| overlong(input.tokens, input.max_tokens, settings.overlong_buffer),
    },
];

/// DAPO's soft overlong punishment of a response of `tokens`, in [-1, 0].
fn overlong(tokens: usize, max_tokens: usize, buffer: usize) -> f64 {
    let excess = tokens.saturating_sub(max_tokens.saturating_sub(buffer));
    0.0 - (excess as f64 / buffer.max(1) as f64).min(1.0)
}

/// A response's reward.
#[derive(Debug, Clone, PartialEq)]
pub struct Reward {
    /// The terms that the settings use, by the names of their metrics, before weighting.
    pub terms: Vec<(&'static str, f64)>,
    /// Weighted sum.
    pub total: f64,
}

impl RewardSettings {
    /// The terms that are used.
    fn terms(&self) -> impl Iterator<Item = RewardTerm> {
        TERMS.into_iter().filter(|term| (term.in_use)(self))
    }

    /// The reward of a response.
    pub fn reward<'a>(&self, response: impl Into<RewardInput<'a>>) -> Reward {
        let input = response.into();
        let mut reward = Reward { terms: Vec::new(), total: 0.0 };
        for term in self.terms() {
            let value = (term.value)(self, input);
            reward.terms.push((term.metric, value));
            reward.total += (term.weight)(self) * value;
        }
        reward
    }

    /// The largest reward possible.
    pub fn best(&self) -> f64 {
        self.terms().map(|term| (term.weight)(self) * term.best).sum()
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
        let settings = RewardSettings {
            partial_credit: 2.0,
            accuracy: 10.0,
            format: 0.5,
            require_valid: false,
            ..Default::default()
        };
        let invalid = score(0.0, 0.25, false, true);
        let terms = [("reward_partial_credit", 0.25), ("reward_accuracy", 0.0), ("reward_format", 1.0)];
        assert_eq!(settings.reward(&invalid), Reward { terms: terms.to_vec(), total: 1.0 });
        assert_eq!((settings.best(), RewardSettings::default().best()), (12.5, 3.0));
        let strict = RewardSettings { require_valid: true, ..settings };
        assert_eq!(strict.reward(&invalid).total, 0.5);
        assert_eq!(RewardSettings::default().reward(&score(1.0, 1.0, true, true)).total, 3.0);
    }

    #[test]
    fn the_commands_number_is_a_term_where_there_is_a_command() {
        let right = score(1.0, 1.0, true, true);
        let input = RewardInput { command: -0.5, ..RewardInput::from(&right) };
        let settings = RewardSettings { command: "x".into(), command_weight: 2.0, ..Default::default() };
        let reward = settings.reward(input);
        assert_eq!((reward.total, reward.terms[3], settings.best()), (2.0, ("reward_command", -0.5), 5.0));
        assert_eq!(RewardSettings::default().reward(input).total, 3.0);
    }

    /// The values are those of TRL 1.16's `get_soft_overlong_punishment(100, 20)` and `(8, 8)`.
    #[test]
    fn long_responses_are_penalised_as_dapo_does() {
        for (max_tokens, overlong_buffer, tokens, expected) in [
            (100, 20, 0, 0.0),
            (100, 20, 80, 0.0),
            (100, 20, 81, -0.05),
            (100, 20, 90, -0.5),
            (100, 20, 99, -0.95),
            (100, 20, 100, -1.0),
            (100, 20, 101, -1.0),
            (8, 8, 0, 0.0),
            (8, 8, 2, -0.25),
            (8, 8, 8, -1.0),
        ] {
            let right = score(1.0, 1.0, true, true);
            let input = RewardInput { tokens, max_tokens, ..RewardInput::from(&right) };
            let settings = RewardSettings { overlong_buffer, overlong_penalty: 2.0, ..Default::default() };
            let reward = settings.reward(input);
            assert_eq!(reward.terms[3], ("reward_overlong", expected), "{tokens} of {max_tokens}");
            assert_eq!((reward.total, settings.best()), (3.0 + 2.0 * expected, 3.0));
        }
    }

    #[test]
    fn an_unknown_key_is_refused_and_an_absent_one_has_its_default() {
        let settings: RewardSettings = toml::from_str("accuracy = 0.0\nrequire_valid = false").unwrap();
        assert_eq!(settings, RewardSettings { accuracy: 0.0, require_valid: false, ..Default::default() });
        assert!(toml::from_str::<RewardSettings>("acc = 1.0").is_err());
        assert!(toml::from_str::<RewardSettings>("require_valid = \"maybe\"").is_err());
    }
}
