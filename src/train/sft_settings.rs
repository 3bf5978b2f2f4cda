//! `[sft]`: the settings of supervised fine-tuning.

use crate::sampling::rollout::Keep;
use serde::{Deserialize, Serialize};

/// What SFT's loss is the mean over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LossReduction {
    /// All response tokens of the step, as transformers has it: long responses weigh more.
    #[default]
    Token,
    /// The sequences, each the mean over its own response tokens: every example weighs the same.
    Sequence,
}

/// The supervised loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SftLossType {
    /// Negative log-likelihood.
    #[default]
    Nll,
    /// Dynamic fine-tuning (arXiv 2508.05629): each token's negative log-likelihood weighted by its own probability.
    Dft,
    /// Entropy-adaptive fine-tuning (arXiv 2601.02151): each token's negative log-likelihood weighted by the entropy of the prediction.
    Eaft,
    /// Proximal SFT (arXiv 2508.17784): the clipped probability ratio to the policy at the start of the round.
    Psft,
    /// PriFT-prob (arXiv 2606.09396): each token's negative log-likelihood weighted by its probability under the initial model.
    Prift,
    /// Self-distillation (arXiv 2601.19897): KL(teacher || model) on the model's own responses. The teacher is the initial model that sees
    /// the reference response in its prompt.
    Sdft,
    /// As `sdft`, with an estimate of KL(model || teacher) from the sampled tokens.
    SdftReverse,
}

impl SftLossType {
    /// Whether the model's own responses are compared with a teacher that sees the reference response.
    pub fn is_distillation(self) -> bool {
        matches!(self, SftLossType::Sdft | SftLossType::SdftReverse)
    }
}

/// `[sft]`: the supervised loss, and where its examples come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SftSettings {
    /// The supervised loss.
    #[schemars(extend("trl" = "loss_type"))]
    pub loss_type: SftLossType,
    /// `psft`: the ratio is clipped above at 1 + epsilon_high.
    pub epsilon_high: f64,
    /// `psft`: optimizer steps between two old policies; each step takes other examples.
    pub minibatches: usize,
    /// What the loss is the mean over.
    pub loss_reduction: LossReduction,
    /// Dataset directory whose train split is replayed: a share of every step's examples comes from it. Empty for none.
    pub replay: String,
    /// Share of a step's examples that are replayed, rounded to whole examples.
    pub replay_share: f64,
    /// Weight of KL(initial model || model) at the tokens of the reference responses, of the whole next-token distributions, in nats;
    /// 0 loads no reference copy.
    pub kl_coef: f64,
    /// On-policy SFT: every so many steps, sample from the model as it is then (`[rollout]`), and train on its responses instead of the
    /// reference responses; 0 for off.
    pub resample_every: usize,
    /// Which of its responses are trained on; `correct` is rejection sampling (RAFT).
    pub keep: Keep,
    /// Most responses to one prompt that are trained on between two samplings.
    pub max_per_prompt: usize,
}

impl Default for SftSettings {
    fn default() -> Self {
        SftSettings {
            loss_type: SftLossType::default(),
            epsilon_high: 0.28,
            minibatches: 1,
            loss_reduction: LossReduction::default(),
            replay: String::new(),
            replay_share: 0.25,
            kl_coef: 0.0,
            resample_every: 0,
            keep: Keep::Correct,
            max_per_prompt: 1,
        }
    }
}
