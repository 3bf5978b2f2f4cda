//! Two guards: no training with a parameter that no gradient reaches, and no silence when RFT has stopped learning.

use super::optimizer::{name_some, sum_of_squares};
use crate::model::{LanguageModel, PromptEncoder};
use crate::model::{Sequence, TokenGrads};
use crate::tasks::Task;
use crate::tasks::encode_example;
use crate::train::settings::GuardSettings;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Examples that are enough to see that gradients flow, as long as they do.
const FEW: usize = 2;

/// Would the gradients of `examples` show whether every trainable parameter learns? Not if the vision tower trains and none
/// of them has an image.
pub fn shows_all(policy: &dyn LanguageModel, task: &dyn Task, examples: &[usize]) -> bool {
    vision_parameters(policy) == 0 || examples.iter().any(|i| has_image(task, *i))
}

/// Run one backward pass of the mean negative log-probability of the responses of a few of `examples` (an empty response
/// where a record has none) and [judge] the gradients; if they do not pass, those of all of `examples`. Leaves no gradient
/// behind. If the vision tower trains and none of `examples` has an image, one that has is looked at too.
///
/// # Errors
/// See [`judge`]; also a vision tower that trains on a dataset without images.
pub fn check_gradients(
    policy: &dyn LanguageModel,
    codec: &dyn PromptEncoder,
    task: &dyn Task,
    examples: &[usize],
) -> Result<()> {
    let mut examples = examples.to_vec();
    if !shows_all(policy, task, &examples) {
        let vision = vision_parameters(policy);
        examples.push((0..task.len()).find(|i| has_image(task, *i)).ok_or_else(|| {
            Error::input(format!(
                "no training example has an image, so the {vision} parameters of the vision tower would never learn; \
                 freeze them: --set 'train.freeze=[\"vision\"]'"
            ))
        })?);
    }
    // One with an image goes first: it is among the few.
    if let Some(at) = examples.iter().position(|i| has_image(task, *i)) {
        examples.swap(0, at);
    }
    let few = &examples[..examples.len().min(FEW)];
    match check(policy, codec, task, few) {
        Err(_) if few.len() < examples.len() => check(policy, codec, task, &examples),
        checked => checked,
    }
}

fn vision_parameters(policy: &dyn LanguageModel) -> usize {
    policy.parameters().iter().filter(|p| p.trainable() && policy.part(&p.name).is_vision()).count()
}

fn has_image(task: &dyn Task, i: usize) -> bool {
    task.example(i).is_ok_and(|record| !record.images.is_empty())
}

fn check(policy: &dyn LanguageModel, codec: &dyn PromptEncoder, task: &dyn Task, examples: &[usize]) -> Result<()> {
    let mut batch = Vec::with_capacity(examples.len());
    for &i in examples {
        let response = codec.encode_response(task.example(i)?.response().unwrap_or_default())?;
        batch.push(Sequence { prompt: encode_example(task, codec, i)?, response });
    }
    let trainable: Vec<_> = policy.parameters().iter().filter(|p| p.trainable()).collect();
    trainable.iter().for_each(|p| p.clear_grad());
    let tokens: usize = batch.iter().map(|s| s.response.len()).sum();
    policy.backward(&batch, 1.0, None, &|_, stats| {
        let n = stats.logprobs.len();
        Ok(TokenGrads { logprobs: vec![-1.0 / tokens.max(1) as f32; n], entropies: None, kl: None })
    })?;
    let mut squares = Vec::with_capacity(trainable.len());
    for parameter in &trainable {
        let grad = parameter.grad();
        parameter.clear_grad();
        squares.push((parameter.name.as_str(), grad.map(|g| sum_of_squares(&g)).transpose()?));
    }
    judge(&squares)
}

/// Look at the sum of squares of every trainable parameter's gradient in the first batch.
///
/// # Errors
/// A parameter whose gradient is missing, all zero or not finite: it would never learn, or ruin the run.
pub fn judge(squares: &[(&str, Option<f64>)]) -> Result<()> {
    let names = |found: fn(f64) -> bool| -> Vec<&str> {
        squares.iter().filter(|(_, s)| found(s.unwrap_or(0.0))).map(|(name, _)| *name).collect()
    };
    let (bad, mut none) = (names(|s| !s.is_finite()), names(|s| s == 0.0));
    if !bad.is_empty() {
        return Err(Error::failed(format!(
            "the first batch gives a gradient that is not finite in {}; the weights or the data are broken",
            name_some(&bad)
        )));
    }
    if none.len() == squares.len() {
        return Err(Error::failed(
            "the first batch gives no gradient at all: the model is already certain of every response, there is nothing to \
             learn from",
        ));
    }
    // A fresh adapter's B is zero, and so is the gradient of its A.
    none.retain(|name| !name.contains(".lora_A."));
    if !none.is_empty() {
        return Err(Error::failed(format!(
            "no gradient reaches {} of {} trainable parameters: {}; freeze them (train.freeze) if they are not meant to train",
            none.len(),
            squares.len(),
            name_some(&none)
        )));
    }
    Ok(())
}

/// Steps in a row with reward variance or entropy near zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StallState {
    /// Steps with rewards that hardly differ within groups.
    pub flat_reward: usize,
    /// Steps with an entropy near zero.
    pub flat_entropy: usize,
}

/// What one step of RFT looked like, for [`StallState::watch`].
#[derive(Debug, Clone, Copy)]
pub struct StepView {
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
    pub fn watch(&mut self, settings: &GuardSettings, view: &StepView) -> Vec<String> {
        self.flat_reward = if view.reward_std < settings.reward_std { self.flat_reward + 1 } else { 0 };
        self.flat_entropy = if view.entropy < settings.entropy { self.flat_entropy + 1 } else { 0 };
        let window = settings.window;
        let due = |count: usize| window > 0 && count > 0 && count.is_multiple_of(window);
        let mut warnings = Vec::new();
        if due(self.flat_reward) {
            let cause = if view.reward >= 0.99 * view.best {
                "nearly every response earns the full reward: the task is learnt; stop, or give harder puzzles"
            } else if view.well_formed < 0.01 {
                "no response keeps the requested format, so none earns more than another: start from a model that has \
                 learnt the format (a short SFT run), or allow longer responses (rollout.max_new_tokens)"
            } else if view.entropy < settings.entropy.max(0.05) {
                "the policy has collapsed and gives the same response every time: go back to an earlier checkpoint with a lower \
                 train.lr, a larger rollout.samples, grpo.entropy_coef or grpo.beta above 0, or reward.permutation = \"require\""
            } else {
                "responses to one prompt all earn the same: raise rollout.samples or rollout.temperature, draw other prompts \
                 (grpo.dynamic_sampling), or start with easier puzzles"
            };
            warnings.push(format!(
                "rewards have not differed within groups for {} steps (mean std {:.4}), so there is nothing to learn from: {cause}",
                self.flat_reward, view.reward_std
            ));
        }
        if due(self.flat_entropy) {
            warnings.push(format!(
                "entropy has been near zero for {} steps ({:.4} nats a token): the policy hardly explores any more; \
                 lower train.lr, raise grpo.epsilon_high or grpo.entropy_coef, or set grpo.beta above 0",
                self.flat_entropy, view.entropy
            ));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_that_are_missing_zero_or_not_finite_are_named() {
        assert!(judge(&[("a", Some(1.0)), ("b", Some(1e-30))]).is_ok());
        let said = |squares: &[(&str, Option<f64>)]| judge(squares).unwrap_err().to_string();
        let text = said(&[("a", Some(1.0)), ("b", None), ("c", Some(0.0))]);
        assert!(text.contains("2 of 3 trainable parameters: b, c;"), "{text}");
        let text = said(&[("a", Some(1.0)), ("b", Some(f64::NAN)), ("c", None)]);
        assert!(text.contains("not finite in b;"), "{text}");
        assert!(said(&[("a", None), ("b", Some(0.0))]).contains("no gradient at all"));
    }

    #[test]
    fn a_stall_is_reported_once_a_window_with_its_cause() {
        let settings = GuardSettings { window: 3, reward_std: 0.01, entropy: 0.01 };
        let collapsed = StepView { reward_std: 0.0, reward: 1.2, best: 3.0, well_formed: 1.0, entropy: 0.001 };
        let mut state = StallState::default();
        assert!(state.watch(&settings, &collapsed).is_empty());
        assert!(state.watch(&settings, &collapsed).is_empty());
        let warnings = state.watch(&settings, &collapsed);
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].contains("collapsed") && warnings[1].contains("entropy"), "{warnings:?}");
        assert!(state.watch(&settings, &collapsed).is_empty());
        let lively = StepView { reward_std: 0.5, entropy: 1.0, ..collapsed };
        assert!(state.watch(&settings, &lively).is_empty());
        assert_eq!(state, StallState::default());
        let formless = StepView { reward: 0.0, well_formed: 0.0, entropy: 2.0, ..collapsed };
        let warnings: Vec<_> = (0..3).flat_map(|_| state.watch(&settings, &formless)).collect();
        assert!(warnings.len() == 1 && warnings[0].contains("format"), "{warnings:?}");
    }
}
