//! In the first steps: a word, once, when the loss multiplies or when no response earns anything. Terminal only; nothing of it is recorded.

use crate::train::settings::{Method, TrainConfig};

/// Steps in a row whose loss must have grown: a batch alone can be hard.
const LOSSES: usize = 3;
/// Growth of the loss that is worth a word.
const GROWTH: f64 = 10.0;
/// Steps without any reward that are worth a word; fewer in a shorter run.
const WITHOUT_REWARD: usize = 10;

/// What this process has seen of the run.
#[derive(Debug, Clone, Default)]
pub(super) struct EarlySigns {
    /// The loss of the first step of this process.
    first: Option<f64>,
    /// Steps in a row with a loss that has grown by [`GROWTH`].
    grown: usize,
    loss_grew: bool,
    /// Steps so far, all without reward; none if one has earned something.
    without_reward: Option<usize>,
    steps: usize,
}

impl EarlySigns {
    /// Look at a step of a run of `total` steps, and say what is wrong and what to try.
    pub fn observe(&mut self, config: &TrainConfig, total: usize, loss: f64, reward: Option<f64>) -> Option<String> {
        self.steps += 1;
        match (config.train.method, reward) {
            (Method::Sft, _) => self.loss(config, loss),
            (Method::Rft, Some(reward)) => self.reward(config, total, reward),
            // The loss of GRPO is about 0 whatever the model does.
            (Method::Rft, None) => None,
        }
    }

    fn loss(&mut self, config: &TrainConfig, loss: f64) -> Option<String> {
        let first = *self.first.get_or_insert(loss);
        self.grown = if first > 0.0 && loss >= GROWTH * first { self.grown + 1 } else { 0 };
        if self.loss_grew || self.grown < LOSSES {
            return None;
        }
        self.loss_grew = true;
        let settings = &config.train;
        let warm_up = if settings.warmup_steps == 0.0 { ", a warm-up (train.warmup_steps = 0.1)" } else { "" };
        let clipping = match settings.max_grad_norm {
            0.0 => "clipped gradients (train.max_grad_norm = 1)".to_string(),
            norm => format!("a lower train.max_grad_norm (it is {norm})"),
        };
        Some(format!(
            "the loss has grown tenfold, from {first:.4} at the start to {loss:.4}: training diverges. Stop it, and try a lower \
             train.learning_rate (it is {:e}){warm_up} or {clipping}",
            settings.learning_rate
        ))
    }

    fn reward(&mut self, config: &TrainConfig, total: usize, reward: f64) -> Option<String> {
        let so_far = if self.steps == 1 { Some(0) } else { self.without_reward };
        self.without_reward = so_far.filter(|_| reward == 0.0).map(|steps| steps + 1);
        let steps = self.without_reward.filter(|steps| *steps == total.clamp(3, WITHOUT_REWARD))?;
        let longest = config.rollout.as_ref().map_or(0, |rollout| rollout.max_new_tokens);
        Some(format!(
            "no response has earned any reward for {steps} steps, so there is nothing to learn from. Read some (samples.jsonl in the run directory); \
             start from a model that was trained by SFT on such puzzles, ask for easier ones, or allow longer responses \
             (rollout.max_new_tokens is {longest})"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_grows_tenfold_is_said_once() {
        let config = TrainConfig::defaults(Method::Sft);
        let said = |losses: &[f64]| -> Vec<String> {
            let mut signs = EarlySigns::default();
            losses.iter().filter_map(|loss| signs.observe(&config, 100, *loss, None)).collect()
        };
        let notes = said(&[0.5, 0.4, 5.0, 9.0, 20.0, 30.0, 30.0, 0.5, 6.0, 6.0, 6.0]);
        assert_eq!(notes.len(), 1);
        assert!(
            notes[0].contains("from 0.5000 at the start to 20.0000")
                && notes[0].contains("train.learning_rate (it is 2e-5)"),
            "{notes:?}"
        );
        assert_eq!(said(&[0.5, 12.0, 12.0, 0.5, 12.0, 12.0, 0.4]), [""; 0], "two hard batches are no sign");
        assert_eq!(said(&[2.0, 2.0, 2.0, 9.0, 9.0, 9.0]), [""; 0]);
    }

    #[test]
    fn a_reward_that_stays_at_zero_is_said_once() {
        let config = TrainConfig::defaults(Method::Rft);
        let said = |total: usize, rewards: &[f64]| -> Vec<String> {
            let mut signs = EarlySigns::default();
            rewards.iter().filter_map(|reward| signs.observe(&config, total, 0.0, Some(*reward))).collect()
        };
        let notes = said(100, &[0.0; 40]);
        assert!(notes.len() == 1 && notes[0].contains("for 10 steps") && notes[0].contains("is 512"), "{notes:?}");
        assert!(said(4, &[0.0; 4])[0].contains("for 4 steps"));
        let mut rewards = [0.0; 40];
        rewards[3] = 0.1;
        assert_eq!(said(100, &rewards), [""; 0]);
        assert_eq!(said(100, &[0.0; 9]), [""; 0]);
    }
}
