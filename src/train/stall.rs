//! During RFT: a warning, naming the cause, when rewards or entropy say that learning has stalled.

use crate::train::settings::StallSettings;
use serde::{Deserialize, Serialize};

/// Steps in a row with reward variance or entropy near zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StallState {
    /// Steps with rewards that hardly differ within groups.
    pub flat_reward: usize,
    /// Steps with an entropy near zero.
    pub flat_entropy: usize,
}

/// What one step of RFT looked like, for [`StallState::observe`].
#[derive(Debug, Clone, Copy)]
pub struct StallSample {
    /// Mean standard deviation of the rewards within a group.
    pub reward_std: f64,
    /// Mean reward.
    pub reward: f64,
    /// Largest reward possible.
    pub best: f64,
    /// Share of responses that keep the format.
    pub well_formed: f64,
    /// Mean token entropy in nats.
    pub entropy: f64,
}

impl StallState {
    /// Count this step, and say what is wrong when a count has just reached the window (and at every further window).
    pub fn observe(&mut self, settings: &StallSettings, sample: &StallSample) -> Vec<String> {
        self.flat_reward = if sample.reward_std < settings.reward_std { self.flat_reward + 1 } else { 0 };
        self.flat_entropy = if sample.entropy < settings.entropy { self.flat_entropy + 1 } else { 0 };
        let window = settings.window;
        let due = |count: usize| window > 0 && count > 0 && count.is_multiple_of(window);
        let mut warnings = Vec::new();
        if due(self.flat_reward) {
            let cause = if sample.reward >= 0.99 * sample.best {
                "nearly every response earns the full reward: the task is learned; stop, or give harder examples"
            } else if sample.well_formed < 0.01 {
                "no response keeps the requested format, so none earns more than another: start from a model that has \
                 learned the format (a short SFT run), or allow longer responses (rollout.max_new_tokens)"
            } else if sample.entropy < settings.entropy.max(0.05) {
                "the policy has collapsed and gives the same response every time: go back to an earlier checkpoint with a lower \
                 train.learning_rate, a larger rollout.num_generations, grpo.entropy_coef or grpo.beta above 0, or reward.require_valid = true"
            } else {
                "responses to one prompt all earn the same: raise rollout.num_generations or rollout.temperature, draw other prompts \
                 (grpo.dynamic_sampling), or start with easier examples"
            };
            warnings.push(format!(
                "rewards have not differed within groups for {} steps (mean std {:.4}), so there is nothing to learn from: {cause}",
                self.flat_reward, sample.reward_std
            ));
        }
        if due(self.flat_entropy) {
            warnings.push(format!(
                "entropy has been near zero for {} steps ({:.4} nats a token): the policy hardly explores any more; \
                 lower train.learning_rate, raise grpo.epsilon_high or grpo.entropy_coef, or set grpo.beta above 0",
                self.flat_entropy, sample.entropy
            ));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_reported_once_a_window_with_its_cause() {
        let settings = StallSettings { window: 3, reward_std: 0.01, entropy: 0.01 };
        let collapsed = StallSample { reward_std: 0.0, reward: 1.2, best: 3.0, well_formed: 1.0, entropy: 0.001 };
        let mut state = StallState::default();
        assert!(state.observe(&settings, &collapsed).is_empty());
        assert!(state.observe(&settings, &collapsed).is_empty());
        let warnings = state.observe(&settings, &collapsed);
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].contains("collapsed") && warnings[1].contains("entropy"), "{warnings:?}");
        assert!(state.observe(&settings, &collapsed).is_empty());
        let lively = StallSample { reward_std: 0.5, entropy: 1.0, ..collapsed };
        assert!(state.observe(&settings, &lively).is_empty());
        assert_eq!(state, StallState::default());
        let formless = StallSample { reward: 0.0, well_formed: 0.0, entropy: 2.0, ..collapsed };
        let warnings: Vec<_> = (0..3).flat_map(|_| state.observe(&settings, &formless)).collect();
        assert!(warnings.len() == 1 && warnings[0].contains("format"), "{warnings:?}");
    }
}
